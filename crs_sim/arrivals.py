"""What arrives of a scenario's doses and when: lags, resets, and what led to a steady state.

A reset cancels what was ordered before it: an infusion stops, a dose that has not arrived never
does. A steady state stands for doses without beginning; those of them that still run, or have not
yet arrived, when it is reached go on after it.
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
"""Days (a tenth of a millisecond) within which two times are one: 0.1 + 0.2 is 0.3."""
CONSTANT_CYCLE = 30.0
"""Days after which a constant infusion is asked whether the states still move."""
MOST_RUNNING = 1000
"""Infusions of one steady state that may run at the same time."""


@dataclass(frozen=True)
class RunIn:
    """Equal doses one after another until the states repeat themselves, imagined before a day.

    Parameters
    ----------
    day : float, when the steady state holds
    added : bool, whether it is added to the states of that day, or replaces them
    dose : Dose
    cycle : float, days between two arrivals
    rest : float, days from the last arrival to ``day``
    running : int, infusions that run all through the cycle
    part : float, days of the cycle during which one more runs
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
class Arrivals:
    """What a solver has to do: inputs, resets (days), steady states, in the order written."""

    inputs: tuple[Input, ...]
    resets: tuple[float, ...]
    run_ins: tuple[RunIn, ...]


def values_on(model: Model, scenario: Scenario) -> Callable[[float], Values]:
    """Parameter values by day, under the scenario's changes."""
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


def arrivals(model: Model, scenario: Scenario, last: float) -> Arrivals:
    """What arrives up to the last day.

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
    given = expand(model, scenario.doses, values_on(model, scenario))
    for item in given:
        if item.dose.day < 0:
            raise InputError(
                f"dose of {item.drug} on day {item.dose.day:g}: the run starts on day 0; "
                "move the dose, or the day 0 of the patient"
            )
    run_ins = tuple(_run_in(item) for item in given if item.dose.steady)
    resets = {*scenario.resets, *(r.day for r in run_ins if not r.added)}
    with_tails = given
    if run_ins:
        with_tails = tuple(
            part for item in given if not item.dose.constant for part in (*_tails(item), item)
        )
    left = _after_resets(with_tails, sorted(resets)) if resets else with_tails
    kept = tuple(item for item in left if item.start <= last + SAME_TIME)
    return Arrivals(kept, tuple(sorted(resets)), tuple(r for r in run_ins if r.day <= last))


def _run_in(item: Input) -> RunIn:
    """The steady state that a dose stands for."""
    dose, added = item.dose, item.dose.steady == "added"
    if dose.constant:
        return RunIn(dose.day, added, dose, CONSTANT_CYCLE, running=1, length=1.0)
    cycle = dose.every / HOURS_PER_DAY
    running = _whole(item.length, cycle)
    if running > MOST_RUNNING:
        raise InputError(
            f"dose of {item.drug} on day {dose.day:g}: each infusion of its steady state lasts "
            f"{item.length:g} days, with a new one every {cycle:g}: {running} at the same time"
        )
    late = item.lag - _whole(item.lag, cycle) * cycle
    rest = cycle - late if late > SAME_TIME else 0.0
    part = item.length - running * cycle
    part = part if part > SAME_TIME else 0.0
    length = item.length if item.length > SAME_TIME else 0.0
    return RunIn(dose.day, added, dose, cycle, rest, running, part, length)


def _whole(time: float, cycle: float) -> int:
    """Whole cycles in a time."""
    return math.floor((time + SAME_TIME) / cycle)


def _tails(item: Input) -> Iterable[Input]:
    """What is still to come, on its day, of the doses that led to a steady state."""
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
    """The inputs, without what a later reset cancels."""
    for item in inputs:
        ordered = item.dose.day if item.dose.ordered is None else item.dose.ordered
        later = (day for day in resets if day > ordered + SAME_TIME)
        reset = next(later, math.inf)
        if item.stop <= reset + SAME_TIME and item.start < reset - SAME_TIME:
            yield item
        elif item.start < reset - SAME_TIME:
            yield item.between(item.start, reset)
