"""Dosing events of a scenario for the solver, with lag times, resets and steady states applied.

A reset cancels earlier doses: a running infusion stops, a dose in its lag time never arrives. A
steady state implies an endless series of earlier doses; those still running or in their lag time on
its day continue after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from .dosing import HOURS_PER_DAY, Dose, Input, Values, expand
from .errors import InputError
from .model import Model
from .scenario import Scenario

SAME_TIME = 1e-9
"""Days (a tenth of a millisecond) within which two times count as equal: 0.1 + 0.2 is 0.3."""
CONSTANT_CYCLE = 30.0
"""Days of a constant infusion between two tests for steady state."""
MAX_CONCURRENT = 1000
"""Maximum number of concurrent infusions of one steady state."""


@dataclass(frozen=True)
class SteadyStateRunIn:
    """Equal doses repeated until steady state, simulated before the day on which it holds.

    Parameters
    ----------
    day : float, when the steady state holds
    added : bool, whether it is added to the states of that day (SS = 2) or replaces them (SS = 1)
    dose : Dose
    cycle : float, dosing interval in days
    rest : float, days from the last arrival to ``day``
    running : int, number of infusions that run throughout the cycle
    part : float, days of the cycle during which one more infusion runs
    length : float, days of one infusion; 0 for a bolus
    """

    day: float
    added: bool
    dose: Dose
    cycle: float
    rest: float = 0.0
    running: int = 0
    part: float = 0.0
    length: float = 0.0


@dataclass(frozen=True)
class DosingEvents:
    """Dosing events for the solver: inputs, resets (days), steady states, in the order written."""

    inputs: tuple[Input, ...]
    resets: tuple[float, ...]
    run_ins: tuple[SteadyStateRunIn, ...]


def parameters_by_day(model: Model, scenario: Scenario) -> Callable[[float], Values]:
    """A function of the day that returns the parameter values under the scenario's changes."""
    nominal = model.values

    def on(day: float) -> Values:
        changes = [
            c for c in scenario.changes
            if c.first <= day + SAME_TIME < c.last and c.parameter in nominal
        ]  # fmt: skip
        values = dict(nominal) if changes else nominal
        for change in changes:
            values[change.parameter] = change.apply(values[change.parameter])
        return values

    return on


def dosing_events(model: Model, scenario: Scenario, last: float) -> DosingEvents:
    """The dosing events up to the last day.

    Parameters
    ----------
    model : Model, with the patient's values
    scenario : Scenario
    last : float, day

    Raises
    ------
    InputError, UnknownNameError, UnitError
        For a dose before day 0, an unknown drug or unit, a lag or duration below 0.
    """
    given = expand(model, scenario.doses, parameters_by_day(model, scenario))
    for item in given:
        if item.dose.day < 0:
            raise InputError(
                f"dose of {item.drug} on day {item.dose.day:g}: the run starts on day 0; "
                "move the dose, or day 0 of the patient"
            )
    run_ins = tuple(_run_in(item) for item in given if item.dose.steady)
    resets = {*scenario.resets, *(r.day for r in run_ins if not r.added)}
    with_tails = given
    if run_ins:
        with_tails = tuple(
            part for item in given if not item.dose.constant for part in (*_tails(item), item)
        )
    remaining = _after_resets(with_tails, sorted(resets)) if resets else with_tails
    kept = tuple(item for item in remaining if item.start <= last + SAME_TIME)
    return DosingEvents(kept, tuple(sorted(resets)), tuple(r for r in run_ins if r.day <= last))


def _run_in(item: Input) -> SteadyStateRunIn:
    """The run-in to the steady state that a dose specifies."""
    dose, added = item.dose, item.dose.steady == "added"
    if dose.constant:
        return SteadyStateRunIn(dose.day, added, dose, CONSTANT_CYCLE, running=1, length=1.0)
    cycle = dose.every / HOURS_PER_DAY
    running = _whole(item.length, cycle)
    if running > MAX_CONCURRENT:
        raise InputError(
            f"dose of {item.drug} on day {dose.day:g}: each infusion of its steady state lasts "
            f"{item.length:g} days, with a new one every {cycle:g}: {running} at the same time"
        )
    late = item.lag - _whole(item.lag, cycle) * cycle
    rest = cycle - late if late > SAME_TIME else 0.0
    part = item.length - running * cycle
    part = part if part > SAME_TIME else 0.0
    length = item.length if item.length > SAME_TIME else 0.0
    return SteadyStateRunIn(dose.day, added, dose, cycle, rest, running, part, length)


def _whole(time: float, cycle: float) -> int:
    """Number of whole cycles in a time."""
    return math.floor((time + SAME_TIME) / cycle)


def _tails(item: Input) -> Iterable[Input]:
    """The remainder after a steady state's day of the implied earlier doses."""
    day, cycle = item.dose.day, item.dose.every / HOURS_PER_DAY
    if not item.dose.steady:
        return
    for k in range(_whole(item.lag + item.length, cycle), 0, -1):
        start = item.start - k * cycle
        earlier = replace(item, start=start, stop=start + item.length)
        if start >= day - SAME_TIME:
            yield earlier
        elif earlier.stop > day + SAME_TIME:
            yield earlier.between(day, earlier.stop)


def _after_resets(inputs: Iterable[Input], resets: list[float]) -> Iterable[Input]:
    """The inputs, without the parts cancelled by a later reset."""
    for item in inputs:
        ordered = item.dose.day if item.dose.ordered is None else item.dose.ordered
        later = (day for day in resets if day > ordered + SAME_TIME)
        reset = next(later, math.inf)
        if item.stop <= reset + SAME_TIME and item.start < reset - SAME_TIME:
            yield item
        elif item.start < reset - SAME_TIME:
            yield item.between(item.start, reset)
