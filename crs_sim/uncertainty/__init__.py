"""How sure an answer is: profiles, posterior, predictions, cross-validation.

In reading order, which is import order; other rooms import what ``__init__.pyi`` names.

===================  ========================================================================
draws.py             Laplace draws, chains on disk, convergence; the only door to arviz-stats
cross_validation.py  fits without some observations; model structures compared
profiles.py          Profile: the cost as one parameter is moved; its log on disk
profiling.py         profiles computed
posterior.py         Posterior: draws, and whether they have converged
sampler.py           sample; the only door to emcee
predictions.py       predict: bands of every observable under any scenario
predictive_check.py  observations beside their predictions; influence
===================  ========================================================================
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
