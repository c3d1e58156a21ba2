"""The fit problem, the observation model, the fit, and how it is stored and judged.

In reading order, which is import order; other rooms import what ``__init__.pyi`` names.

=====================  ==========================================================================
grades.py              the grade: an ordinal reading whose error may persist from day to day
noise.py               what a measurement says of a course: residuals, censoring
priors.py              prior.toml and problem.toml: free parameters, their scales, the Population
problem.py             FitProblem, load_problem
objective.py           the residuals that a fit minimises, and their slopes
local_optimisation.py  one local optimisation, with the secant correction; the only door to lmfit
fitting.py             fit: estimates with standard errors
diagnostics.py         reported beside fitted levels; the verdict on a fit
storage.py             a fit on disk and back
datasets.py            a data set simulated, or its subjects as problems
=====================  ==========================================================================
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
