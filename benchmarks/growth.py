"""Time against problem size: patients, doses and states."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from crs_sim import Dose, Scenario, Schedule, read_model

from .case import Array, Case
from .chain import chain
from .patients import drawn, streamed
from .timing import Timing, timed

PATIENTS = (10, 100, 1000, 10_000)
DOSES = (1, 10, 50, 200)
STATES = (10, 30, 100)
RTOL = 1e-4
MANY = 1000
"""Above this number of patients, one repeat is enough."""


@dataclass(frozen=True)
class Grown:
    """The time of a job of one size."""

    what: str
    size: int
    timing: Timing
    note: str


def measured(case: Case) -> Iterator[Grown]:
    """Run all sizes."""
    for count in PATIENTS:
        yield more_patients(case, count)
    for count in DOSES:
        yield more_doses(case, count)
    for count in STATES:
        yield more_states(count)


def more_patients(case: Case, count: int) -> Grown:
    """Virtual patients on two cores, streamed."""
    values = drawn(case, count)
    timing = timed(lambda: streamed(case, values, RTOL), 1 if count > MANY else 3, warm=0)
    return Grown("patients", count, timing, f"two cores, rtol {RTOL:g}, synthetic patients")


def more_doses(case: Case, count: int) -> Grown:
    """One patient under a synthetic schedule of dexamethasone over the 40 days."""
    days = 40.0 * np.arange(count) / count
    doses = Schedule(tuple(Dose(float(day), "dexamethasone", 10, "mg") for day in days))
    dosed = replace(case, scenario=Scenario(f"{count} doses", doses))
    timing = timed(lambda: dosed.run(RTOL), 10)
    return Grown("doses", count, timing, f"simulate and table, rtol {RTOL:g}, synthetic schedule")


def chain_case(states: int) -> Case:
    """A chain of states with a dose into the first every fifth day."""
    model = read_model(chain(states))
    doses = Schedule(tuple(Dose(float(day), "X0", 10, "mg") for day in range(0, 40, 5)))
    return Case(model, Scenario("chain", doses), days_of(40))


def days_of(last: int) -> Array:
    """Daily samples."""
    return np.arange(last + 1.0)


def more_states(count: int) -> Grown:
    """A synthetic chain of ``count`` states."""
    case = chain_case(count)
    timing = timed(lambda: case.run(RTOL), 10)
    return Grown("states", count, timing, f"simulate and table, rtol {RTOL:g}, synthetic chain")
