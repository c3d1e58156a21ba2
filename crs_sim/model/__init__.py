"""What the equations are: text and evidence read into an immutable `Model`.

In reading order, which is import order; other rooms import what ``__init__.pyi`` names.

==============  ========================================================================
formula.py      a formula read, written, evaluated; the functions it may call, safe at zero
units.py        units as people write them; the only door to pint
usual.py        what people call drugs and levels, and the most that is usual of them
model.py        State, Parameter, Quantity, Drug, Model, and the listing of one
dialect.py      which line of a model file is which, and what is refused
model_file.py   model.ant to Model, Model to SBML; the only door to antimony
symbolic.py     formulas as symbols and their derivatives; the only door to sympy
source_code.py  the equations and a sparse LU written out as Python
codegen.py      that source made runnable, with arrays in and out
checks.py       units, sources, unused names, bare numbers, the state of all zeros
==============  ========================================================================
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
