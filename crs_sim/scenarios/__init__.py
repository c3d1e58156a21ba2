"""Alternative scenarios: comparison, search, and sensitivity.

In reading order, which is import order; other rooms import what ``__init__.pyi`` names.

================  ======================================================================
scenario_file.py  scenarios.toml: edits of the treatment as given
comparison.py     compare: endpoints under scenarios, paired differences; scenarios as TOML
search_space.py   variables, bounds, and search.toml
searching.py      search: grid or NSGA-II, and the Pareto front; the only door to optuna
indices.py        parameter intervals, Sobol' and Morris indices; the only door to SALib
sensitivities.py  sensitivity: which parameters drive an endpoint
================  ======================================================================
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
