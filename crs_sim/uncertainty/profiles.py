"""Profile likelihoods: the cost as one parameter is moved; and their log on disk.

A `Profile` is a curve: at each value of one parameter, the lowest cost (-2 ln posterior) over all
others. The parameter's own prior is a constant at a fixed value and can be subtracted; what is left
is the information in the *data* (and the priors of the others), and the verdict is based on that.
`crs_sim.uncertainty.profiling` computes profiles.

Source: Raue et al. 2009, https://doi.org/10.1093/bioinformatics/btp358

Each line identifies the fit it belongs to, so that a file holds the results of one fit only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.interpolate import CubicHermiteSpline
from scipy.optimize import brentq
from scipy.special import chdtri

from ..errors import InputError, StorageError
from ..fitting import Fit, Start, from_scale, to_scale
from ..model import Array, pretty
from ..store import append_rows, read_rows
from .cross_validation import HeldOut, Omission

PROFILE_LEVELS = (0.5, 0.8, 0.95)
"""Confidence levels reported."""
VERDICT_LEVEL = 0.95
BETTER = 0.1
"""A cost lower than the fit's by this much is a better optimum, not a rounding error."""
BARRIER = 0.5
"""Two minima are distinct if the cost between them exceeds the higher one by this much."""
FINE = 64
"""Interpolated points between two computed ones."""


class Interval(NamedTuple):
    """A confidence interval; an end is None where the curve stays below the limit to the bound."""

    low: float | None
    high: float | None


@dataclass(frozen=True, eq=False)
class Profile:
    """The profile likelihood of one parameter.

    Parameters
    ----------
    parameter, label, unit : str
    estimate : float, the fit's
    lower, upper : float, bounds
    prior_median, prior_sd : float, of its prior (sd on its scale)
    fit_cost : float, cost of the fit that was profiled
    names : all free parameters, in the order of ``points``
    points : (n, n_free) scaled parameters: the best fit at each value, ascending in the parameter
    costs : (n,) their costs (-2 ln posterior, the parameter's own prior included)
    slopes : (n,) of the costs, by the scaled parameter
    level : float, the highest confidence level that was profiled
    runs, failed : int, simulations made, and those that failed
    stopped : where failed runs ended the profile ("" if none did)
    scales : of all free parameters (empty: each is on the log scale)
    """

    parameter: str
    label: str
    unit: str
    estimate: float
    lower: float
    upper: float
    prior_median: float
    prior_sd: float
    fit_cost: float
    names: tuple[str, ...] = field(repr=False)
    points: Array = field(repr=False)
    costs: Array = field(repr=False)
    slopes: Array = field(repr=False)
    level: float = VERDICT_LEVEL
    runs: int = 0
    failed: int = 0
    stopped: str = ""
    scales: tuple[str, ...] = field(default=(), repr=False)

    @property
    def values(self) -> Array:
        """The parameter's values, (n,) ascending."""
        return from_scale(self._x, self.scale)

    @property
    def scale(self) -> str:
        """The parameter's scale."""
        return self.scales[self.names.index(self.parameter)] if self.scales else "log"

    def prior_cost(self, values: Array) -> Array:
        """-2 ln of the parameter's own prior at some values, up to a constant."""
        return self._prior(to_scale(values, self.scale))

    @property
    def _x(self) -> Array:
        return np.asarray(self.points[:, self.names.index(self.parameter)])

    def curve(self, *, own_prior: bool = True) -> tuple[Array, Array]:
        """Values of the parameter and the cost above its minimum, two (n,).

        Cubic Hermite interpolation of the computed costs and slopes.

        Parameters
        ----------
        own_prior : bool, False subtracts the parameter's own prior, which leaves the data
        """
        fine, costs = self._fine
        if not own_prior:
            costs = costs - self._prior(fine)
        return from_scale(fine, self.scale), costs - costs.min()

    def interval(self, level: float = VERDICT_LEVEL, *, own_prior: bool = True) -> Interval:
        """The values at which the curve is below the chi-square limit (one degree of freedom).

        If the curve has several minima, the outermost values. An end is None where the curve ends,
        at a bound or at failed runs, before it reaches the limit.

        Raises
        ------
        InputError
            For a level above the one that was profiled.
        """
        if not 0.0 < level <= self.level + 1e-12:
            raise InputError(
                f"profile of {self.parameter}: level {level:g} was requested, but it "
                f"was computed up to {self.level:g}; profile again up to that level"
            )
        values, costs = self.curve(own_prior=own_prior)
        inside = np.flatnonzero(costs <= limit(level))
        first, last = int(inside[0]), int(inside[-1])
        low = None if first == 0 else self._crossing(first - 1, first, level, own_prior)
        high = None
        if last < len(values) - 1:
            high = self._crossing(last, last + 1, level, own_prior)
        return Interval(low, high)

    def optima(self) -> tuple[tuple[float, float], ...]:
        """Value and cost of each local minimum of the profile within the 95 % limit.

        Two minima are distinct only if the cost between them rises by `BARRIER`.
        """
        fine, costs = self._fine
        kept = list[int]()
        for minimum in _local_minima(costs):
            if costs[minimum] - costs.min() > limit(VERDICT_LEVEL):
                continue
            top = costs[kept[-1] : minimum + 1].max() if kept else math.inf
            if top - max(costs[minimum], costs[kept[-1]] if kept else 0.0) >= BARRIER:
                kept.append(minimum)
            elif costs[minimum] < costs[kept[-1]]:
                kept[-1] = minimum
        return tuple((float(from_scale(fine[k], self.scale)), float(costs[k])) for k in kept)

    @property
    def better(self) -> dict[str, float] | None:
        """All free parameters at a better optimum than the fit's, if the profile found one."""
        best = int(np.argmin(self.costs))
        if self.costs[best] > self.fit_cost - BETTER:
            return None
        values = from_scale(self.points[best], self.scales or "log")
        return dict(zip(self.names, values.tolist(), strict=True))

    @property
    def at_bound(self) -> str:
        """The bound at which the profile has its minimum: "lower", "upper" or ""."""
        x = self._x[int(np.argmin(self.costs))]
        bottom, top = to_scale([self.lower, self.upper], self.scale)
        near = 1e-3 * (top - bottom)
        if x - bottom < near:
            return "lower"
        return "upper" if top - x < near else ""

    @property
    def verdict(self) -> str:
        """Whether the data identify the parameter, in words; see `VERDICT_EXPLANATION`."""
        low, high = self.interval(own_prior=False)
        words = [VERDICTS[low is not None, high is not None]]
        if len(self.optima()) > 1:
            words.append("two optima")
        if self.better is not None:
            words.append(f"a better optimum was found (cost {self.costs.min():.4g}, "
                         f"the fit's is {self.fit_cost:.4g})")  # fmt: skip
        if self.at_bound:
            words.append(f"at its {self.at_bound} bound")
        return "; ".join([*words, self.stopped] if self.stopped else words)

    def _prior(self, x: Array) -> Array:
        centre = to_scale(self.prior_median, self.scale)
        return np.asarray(((x - centre) / self.prior_sd) ** 2)

    @cached_property
    def _spline(self) -> CubicHermiteSpline:
        return CubicHermiteSpline(self._x, self.costs, self.slopes)

    @cached_property
    def _fine(self) -> tuple[Array, Array]:
        if len(self.costs) == 1:
            return self._x, self.costs
        parts = [np.linspace(a, b, FINE, endpoint=False)
                 for a, b in zip(self._x[:-1], self._x[1:], strict=True)]  # fmt: skip
        fine = np.concatenate([*parts, self._x[-1:]])
        return fine, np.asarray(self._spline(fine))

    def _crossing(self, inside: int, beyond: int, level: float, own_prior: bool) -> float:
        """The value at which the curve crosses the limit between two interpolated points."""
        fine, whole = self._fine
        prior = 0.0 if own_prior else self._prior(fine)
        threshold = float((whole - prior).min()) + limit(level)

        def height(x: float) -> float:
            prior_at_x = 0.0 if own_prior else float(self._prior(np.array([x]))[0])
            return float(self._spline(x)) - prior_at_x - threshold

        where = brentq(height, float(fine[inside]), float(fine[beyond]))
        return float(from_scale(where, self.scale))


VERDICTS = {
    (True, True): "determined",
    (False, True): "only bounded above",
    (True, False): "only bounded below",
    (False, False): "not identifiable from these data",
}
"""Keys: whether the data bound the parameter below, and above."""
VERDICT_EXPLANATION = (
    "Verdicts are based on the profile without the parameter's own prior: the information in these "
    "data, given the priors of the others. *determined*: the data give a 95 % interval inside the "
    "bounds; *only bounded above* (*below*): values down (up) to the bound fit as well; *not "
    "identifiable from these data*: any value inside the bounds fits as well, and the estimate is "
    "the prior's; *two optima*: two values fit, and those between them fit worse than either."
)


def limit(level: float) -> float:
    """The allowed rise of the cost: the chi-square quantile of one degree of freedom.

    >>> round(limit(0.95), 2)
    3.84
    """
    return float(chdtri(1.0, 1.0 - level))


def profiles_table(profiles: Sequence[Profile]) -> pd.DataFrame:
    """One row per parameter: estimate, intervals with and without its own prior, verdict.

    An interval end that is not reached inside the bounds is empty.
    """
    rows = []
    for p in profiles:
        row: dict[str, Any] = {
            "parameter": p.parameter,
            "unit": pretty(p.unit),
            "estimate": p.estimate,
        }
        for level in PROFILE_LEVELS:
            for own_prior, prefix in ((True, ""), (False, "data_")):
                low, high = p.interval(level, own_prior=own_prior)
                row |= {f"{prefix}low_{100 * level:g}": low, f"{prefix}high_{100 * level:g}": high}
        rows.append(row | {"lower": p.lower, "upper": p.upper, "verdict": p.verdict,
                           "points": len(p.costs), "runs": p.runs, "failed": p.failed})  # fmt: skip
    return pd.DataFrame(rows)


def _local_minima(costs: Array) -> list[int]:
    """Indices of the local minima, ends included; the first of a plateau."""
    padded = np.concatenate([[math.inf], costs, [math.inf]])
    return list(np.flatnonzero((costs < padded[:-2]) & (costs <= padded[2:])))


FILE = "profiles.jsonl"
SAME_FIT = 1e-6
"""Relative difference of the costs, which the same code computed (a stored fit's may be older)."""


def append_profile(path: Path, profile: Profile) -> None:
    """Append one finished profile to a file.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    values = {f.name: getattr(profile, f.name) for f in fields(profile)}
    plain = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in values.items()}
    append_rows(path, [plain])


def read_profiles(path: Path, result: Fit) -> tuple[Profile, ...]:
    """Read the finished profiles of a file, in its order; () if there is no file.

    If a parameter occurs twice, the last profile counts.

    Raises
    ------
    StorageError
        If they are profiles of another fit, or the file is damaged.
    """
    found = read_rows(path, _profile)
    for one in found:
        _check_fit(f"{path}  holds profiles of", one.fit_cost, one.names, result)
    return tuple({one.parameter: one for one in found}.values())


def append_omission(path: Path, omission: Omission, whole: Fit) -> None:
    """Append one finished refit, without some observations of the ``whole`` fit, to a file.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    fit = omission.fit
    append_rows(path, [{
        "fit_cost": whole.cost,
        "names": list(whole.problem.names),
        "ids": list(omission.ids),
        "held_out": [asdict(one) for one in omission.held_out],
        "parameter": omission.parameter,
        "shift": omission.shift,
        "agreeing": omission.agreeing,
        "values": dict(fit.values),
        "covariance": fit.covariance.tolist(),
        "residuals": fit.residuals.tolist(),
        "starts": [asdict(start) for start in (*fit.starts, fit.polish)],
        "seed": fit.seed,
        "options": dict(fit.options),
        "singular": bool(fit.singular),
    }])  # fmt: skip


def read_omissions(path: Path, whole: Fit) -> tuple[Omission, ...]:
    """Read the finished refits of a file, in its order; () if there is no file.

    Raises
    ------
    StorageError
        If they belong to another fit, or the file is damaged.
    """
    prefix = f"{path}  holds leave-one-out results of"
    found = read_rows(path, partial(_omission, whole=whole, prefix=prefix))
    return tuple({one.ids: one for one in found}.values())


def _profile(stored: Mapping[str, Any]) -> Profile:
    arrays = {name: np.array(stored[name], dtype=float) for name in ("points", "costs", "slopes")}
    words = {key: tuple(stored.get(key, ())) for key in ("names", "scales")}
    return Profile(**{**stored, **arrays, **words})


def _omission(stored: Mapping[str, Any], *, whole: Fit, prefix: str) -> Omission:
    _check_fit(prefix, stored["fit_cost"], stored["names"], whole)
    ids = tuple(stored["ids"])
    *starts, last = (Start(**start) for start in stored["starts"])
    fit = Fit(
        whole.problem.leaving_out(*ids), stored["values"], np.array(stored["covariance"]),
        np.array(stored["residuals"]), tuple(starts), last, stored["seed"], stored["options"],
        stored["singular"],
    )  # fmt: skip
    held_out = tuple(HeldOut(**one) for one in stored["held_out"])
    return Omission(ids, fit, held_out, stored["parameter"], stored["shift"], stored["agreeing"])


def _check_fit(prefix: str, cost: float, names: Sequence[str], result: Fit) -> None:
    near = abs(cost - result.cost) <= SAME_FIT * max(1.0, result.cost)
    if not near or tuple(names) != result.problem.names:
        raise StorageError(
            f"{prefix} another fit (cost {cost:.6g}, this one's is {result.cost:.6g}); delete the "
            "file, or choose another folder"
        )
