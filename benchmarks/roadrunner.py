"""libRoadRunner on the exported SBML, stopped at every dose, tuned to be as fast as possible.

Tuning: one compiled model, reset once per run; ``oneStep`` between stops, which returns no table;
values read only on sampled days, all in one call; CVODE restarted only where a dose is given; an
absolute tolerance for each state (a fraction of rtol times its maximum), since one number for all
needs far smaller steps; and an explicit first step, since CVODE's guess for a state at zero is so
small that it only prints warnings.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import roadrunner

from .case import Array, Case
from .stops import exported, stops

FRACTIONS = (1e-2, 1e-4)
"""Absolute tolerances tried, as fractions of rtol times the largest value."""
SMALLEST = 1e-3
FIRST_STEP = 1e-5
"""Days."""
MOST_STEPS = 5000


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress output of compiled code: printing its warnings would add to its time."""
    saved = os.dup(1), os.dup(2)
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.dup2(devnull, 2)
    try:
        yield
    finally:
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        for handle in (*saved, devnull):
            os.close(handle)


@dataclass(frozen=True)
class RoadRunner:
    """The case in libRoadRunner.

    Parameters
    ----------
    case : Case
    largest : (n_names,) for the absolute tolerances
    """

    case: Case
    largest: Array

    @cached_property
    def runner(self) -> Any:
        """The compiled model."""
        runner = roadrunner.RoadRunner(exported(self.case))
        runner.integrator.initial_time_step = FIRST_STEP
        runner.integrator.maximum_num_steps = MOST_STEPS
        return runner

    @cached_property
    def ids(self) -> list[str]:
        """Parameter ids in the order of libRoadRunner."""
        return list(self.runner.model.getGlobalParameterIds())

    @cached_property
    def plan(self) -> list[tuple[Any, ...]]:
        """The stops with ids replaced by libRoadRunner's indices, looked up in advance."""
        return [
            (stop.day, stop.row, self.places(stop.given), np.array([*stop.given.values()]),
             self.places(stop.inflow), list(stop.inflow.values()), stop.longer, stop.restart)
            for stop in stops(self.case)
        ]  # fmt: skip

    def places(self, names: Sequence[str] | dict[str, float]) -> list[int]:
        """Indices of names."""
        return [self.ids.index(name) for name in names]

    def tolerate(self, rtol: float, fraction: float) -> None:
        """Set both tolerances."""
        sizes = dict(zip(self.case.names, np.maximum(self.largest, SMALLEST), strict=True))
        runner = self.runner
        order = [runner.model.getStateVectorId(i) for i in range(len(self.case.model.states))]
        runner.integrator.relative_tolerance = rtol
        runner.integrator.absolute_tolerance = [float(fraction * rtol * sizes[n]) for n in order]

    def run(self) -> Array:
        """All curves at the daily times, (n_days, n_names)."""
        runner, model = self.runner, self.runner.model
        runner.reset()
        rows = np.empty((len(self.case.days), len(self.ids)))
        for day, row, into, amounts, inflows, rates, longer, restart in self.plan:
            if row >= 0:
                rows[row] = model.getGlobalParameterValues()
            if into:
                model.setGlobalParameterValues(into, model.getGlobalParameterValues(into) + amounts)
            if inflows:
                model.setGlobalParameterValues(inflows, rates)
            if longer:
                runner.oneStep(day, longer, restart)
        return rows[:, self.places(self.case.names)]
