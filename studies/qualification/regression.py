"""The forecast to beat: a straight line from the highest level so far, in logarithms.

ln(highest reading to come) = a + b ln(highest reading so far) + normal error, fitted by maximum
likelihood to all other patients (leave one out). A highest reading that is censored, because it is
at the assay's ceiling, enters as the probability of more, in the fit and when it is foreseen. The
error's sd is that of maximum likelihood times sqrt(n/(n - 2)); the prediction's is that times
sqrt(1 + leverage), and the prediction is normal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import norm

Array = NDArray[np.float64]
FEWEST = 4


@dataclass(frozen=True)
class Normal:
    """A normal prediction of ln peak."""

    mean: float
    sd: float

    def interval(self, level: float) -> tuple[float, float]:
        """The central interval of ln peak."""
        low, high = norm.interval(level, self.mean, self.sd)
        return float(low), float(high)

    def log_score(self, outcome: float, censored: bool) -> float:
        """Its log density at ln peak; if censored, the log probability of more."""
        if censored:
            return float(norm.logsf(outcome, self.mean, self.sd))
        return float(norm.logpdf(outcome, self.mean, self.sd))


def line(x: Array, y: Array, censored: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Intercept, slope and sd of a right-censored regression (Tobit), by maximum likelihood."""

    def minus_log_likelihood(p: Array) -> float:
        z, sd = (y - p[0] - p[1] * x) / np.exp(p[2]), p[2]
        return -float(np.where(censored, norm.logsf(z), norm.logpdf(z) - sd).sum())

    slope, intercept = np.polyfit(x, y, 1)
    start = np.array([intercept, slope, np.log(np.std(y - intercept - slope * x) + 1e-3)])
    found = minimize(minus_log_likelihood, start, method="Nelder-Mead",
                     options={"maxiter": 4000, "xatol": 1e-6, "fatol": 1e-8})  # fmt: skip
    return float(found.x[0]), float(found.x[1]), float(np.exp(found.x[2]))


def leave_one_out(x: Array, y: Array, censored: NDArray[np.bool_]) -> list[Normal]:
    """The prediction of each patient by the line through all others."""
    found = []
    for k in range(len(x)):
        rest = np.arange(len(x)) != k
        a, b, sd = line(x[rest], y[rest], censored[rest])
        n, off = int(rest.sum()), x[rest] - x[rest].mean()
        leverage = 1.0 / n + (x[k] - x[rest].mean()) ** 2 / max(float(off @ off), 1e-12)
        wider = sd * np.sqrt(n / (n - 2.0)) * np.sqrt(1.0 + leverage)
        found.append(Normal(a + b * float(x[k]), float(wider)))
    return found
