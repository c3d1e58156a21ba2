"""The shipped case, its reference by Radau at rtol 1e-10, and the error measure for all tools.

The error is the largest, over every state and named quantity at the daily times, of
|value - reference| / max(|reference|, 1/1000 of the curve's maximum). The maximum is that of the
hourly reference: a state that a tablet fills and that is empty by the next morning would otherwise
have no scale.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import scipy
from numpy.typing import NDArray

from crs_sim import Model, Scenario, load_model, load_patient, simulate
from crs_sim.dosing.timeline import InputTables, Timeline, build_timeline, input_tables
from crs_sim.store.files import fingerprint

Array = NDArray[np.float64]

FLOOR = 1e-3
GOOD = 1e-4
"""The error at which every tool is timed."""
REFERENCE_RTOL = 1e-10
HOURS = 24
LADDER = tuple(m * 10.0**-k for k in range(3, 11) for m in (5, 3, 2, 1))
"""Relative tolerances tried, loosest first: 5e-3, 3e-3, 2e-3, 1e-3, ... 1e-10."""


@dataclass(frozen=True)
class Case:
    """A model under a scenario, sampled daily."""

    model: Model
    scenario: Scenario
    days: Array

    @cached_property
    def values(self) -> Array:
        """Parameters, (n_parameters,)."""
        return np.array(list(self.model.values.values()))

    @cached_property
    def line(self) -> Timeline:
        """The scenario as segments between dosing events."""
        return build_timeline(self.model, self.scenario, self.days)[0]

    @cached_property
    def tables(self) -> InputTables:
        """Boluses and inflows of each segment, as numbers."""
        return input_tables(self.line, self.values, len(self.model.states))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of all curves: states, then quantities."""
        return (*self.model.state_ids, *self.model.quantity_ids)

    @property
    def hourly(self) -> Case:
        """The same case sampled every hour."""
        return replace(self, days=np.arange(HOURS * int(self.days[-1]) + 1) / HOURS)

    def run(self, rtol: float, method: str = "Rosenbrock") -> Array:
        """`simulate` and its table, as a user would: (n_days, n_names)."""
        run = simulate(self.model, self.scenario, days=self.days, rtol=rtol, method=method)
        return np.asarray(run.table().to_numpy()[:, 1:])


@dataclass(frozen=True)
class Reference:
    """The reference solution.

    Parameters
    ----------
    curves : (n_days, n_names) at the daily times
    largest : (n_names,) maximum of each curve
    """

    curves: Array
    largest: Array

    def errors(self, curves: Array) -> Array:
        """The largest error of each curve, (n_names,); a curve that stays zero has none."""
        scale = np.maximum(np.abs(self.curves), FLOOR * self.largest)
        scale[:, self.largest == 0] = 1.0
        return np.asarray((np.abs(curves - self.curves) / scale).max(axis=0))

    def error(self, curves: Array) -> float:
        """The largest error of all curves; infinite if any value is not finite."""
        worst = self.errors(curves)
        return float(worst.max()) if np.isfinite(worst).all() else float("inf")


def load(until: int = 40) -> Case:
    """Load the shipped case, up to day ``until``."""
    scenario = load_patient("ruemmele2025").scenario
    model = load_model("crs").with_values(**scenario.values)
    return Case(model, scenario, np.arange(until + 1.0))


def hourly(case: Case, rtol: float, method: str) -> Reference:
    """Make a reference from one run sampled every hour."""
    curves = case.hourly.run(rtol, method)
    return Reference(curves[::HOURS], np.abs(curves).max(axis=0))


def reference(case: Case, folder: Path) -> Reference:
    """The reference by Radau in plain Python (half a minute), cached in ``folder``."""
    inputs = (repr(case.model.values), repr(case.scenario), repr(case.days.tolist()))
    key = fingerprint(case.model.hash, *inputs, scipy.__version__)
    path = folder / f"radau_{key}.npz"
    if not path.is_file():
        computed = hourly(case, REFERENCE_RTOL, "Radau")
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(path, curves=computed.curves, largest=computed.largest)
    with np.load(path) as cached:
        return Reference(cached["curves"], cached["largest"])
