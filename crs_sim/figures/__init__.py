"""Figures; with `reports` the only rooms that import matplotlib.

In reading order, which is import order; other rooms import what ``__init__.pyi`` names.

====================  =======================================================
panels.py             one panel: doses, grades, a course and its observations
plots.py              layout and files of figures; a run and the case
fit_plots.py          estimates, starts, residuals, profiles
prediction_plots.py   bands, readings left out, virtual patients
comparison_plots.py   a row a scenario: doses, courses, endpoints
sensitivity_plots.py  indices, tornado, Pareto front
posterior_plots.py    parameter pairs, traces, predicted readings
====================  =======================================================
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
