"""The command line; it reads options, calls the package and prints.

In reading order, which is import order; other rooms import what ``__init__.pyi`` names.

===============  ==========================================================
options.py       what commands share: option values, progress, tables
uncertainty.py   profile, leave-one-out, sample
fit.py           fit, fit-all, replay
predict.py       predict, compare, compare-fits
scenarios.py     search, sensitivity, population, list
command_line.py  simulate, check, show, new, export, and the commands above
===============  ==========================================================
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
