"""Problems written for other tools.

In reading order, which is import order; other rooms import what ``__init__.pyi`` names.

====================  =============================================================
petab_experiments.py  a scenario as PEtab has it: periods, and changes of the model
petab_export.py       a problem as a PEtab v2 folder, and what that cannot state
====================  =============================================================
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
