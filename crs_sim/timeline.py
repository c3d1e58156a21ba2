"""A scenario cut at every instant at which something happens, so that no solver steps across it.

Between two neighbouring edges nothing starts, stops or changes: parameters and inflow are
constant. At one instant things happen in this order: an infusion stops, parameters change, the
patient is observed, a bolus is given, an infusion starts. A sample at a dose time is therefore
taken before the dose, and a change holds from its first day up to, not including, its last.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .dosing import Input, expand
from .errors import InputError, unknown_name
from .model import Model
from .scenario import Scenario
from .units import conversion_factor

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

SAME_TIME = 1e-9
"""Days (a tenth of a millisecond) within which two times are one: 19+1/24 is 18.75+7/24."""


class Timeline(NamedTuple):
    """The scenario as plain arrays, for plain Python and compiled code alike.

    Segment k runs from ``edges[k]`` to ``edges[k + 1]``; there are n = len(edges) - 1. What is
    given or changed is described by its first segment and the first segment after it; amounts
    are per unit bioavailability and body weight, so that one timeline serves all parameter values.
    """

    edges: Array
    """(n + 1,) days; the first is 0, the last the last sample."""
    days: Array
    """(n_days,) sample days, moved onto an edge where they are the same time."""
    given_from: Indices
    """(n_inputs,) segment that begins with the dose; n if that is the last day."""
    given_until: Indices
    """(n_inputs,) first segment without the infusion; equals ``given_from`` for a bolus."""
    given_state: Indices
    given_amount: Array
    """(n_inputs,) amount before bioavailability and weight."""
    given_duration: Array
    """(n_inputs,) days; 0 for a bolus."""
    given_share: Indices
    """(n_inputs,) index of the bioavailability parameter, -1 if all of it arrives."""
    given_weight_power: Array
    """(n_inputs,) power of body weight the amount is multiplied by."""
    weight: int
    """Index of the body weight parameter, -1 if the model has none."""
    changed_from: Indices
    """(n_changes,) first segment; -1 for a change that held before day 0."""
    changed_until: Indices
    changed_parameter: Indices
    changed_factor: Array
    """(n_changes,) NaN where a value is set instead."""
    changed_value: Array

    @property
    def n_segments(self) -> int:
        """Stretches between edges."""
        return len(self.edges) - 1


@dataclass(frozen=True)
class Edges:
    """The distinct instants of a run, and where a given time lies among them."""

    days: Array

    @classmethod
    def of(cls, times: Iterable[float], last: float) -> Edges:
        """The distinct times in [0, last], both ends among them."""
        kept = [0.0]
        for time in sorted(times):
            if kept[-1] + SAME_TIME < time < last - SAME_TIME:
                kept.append(time)
        if last > kept[-1]:
            kept.append(last)
        return cls(np.array(kept))

    def index(self, time: float) -> int:
        """The edge at this time; -1 before the first, one past the end after the last."""
        if time < self.days[0] - SAME_TIME:
            return -1
        if time > self.days[-1] + SAME_TIME:
            return len(self.days)
        return int(np.argmin(np.abs(self.days - time)))

    def snapped(self, time: float) -> float:
        """The edge that is the same time, or the time itself."""
        if math.isinf(time):
            return time
        nearest = float(self.days[np.argmin(np.abs(self.days - time))])
        return nearest if abs(nearest - time) <= SAME_TIME else time


def timeline(model: Model, scenario: Scenario, days: Array) -> tuple[Timeline, tuple[Input, ...]]:
    """The scenario cut into segments, and the doses that were given.

    Parameters
    ----------
    model : Model, with the patient's values
    scenario : Scenario
    days : (n_days,), strictly ascending, not before 0

    Raises
    ------
    InputError, UnknownNameError, UnitError
        For days that do not ascend, a dose before day 0, an unknown drug, unit or parameter.
    """
    _check_days(days)
    inputs = tuple(i for i in expand(model, scenario.doses) if i.start <= days[-1] + SAME_TIME)
    for item in inputs:
        if item.start < 0:
            raise InputError(
                f"dose of {item.drug} on day {item.start:g}: the run starts on day 0; "
                "move the dose, or the day 0 of the patient"
            )
    times = [t for i in inputs for t in (i.start, i.stop)]
    times += [t for c in scenario.changes for t in (c.first, c.last)]
    edges = Edges.of(times, float(days[-1]))
    arrays = _given(model, inputs, edges) | _changed(model, scenario, edges)
    moved = np.array([edges.snapped(day) for day in days])
    return Timeline(edges=edges.days, days=moved, **arrays), inputs  # type: ignore[arg-type]


def _check_days(days: Array) -> None:
    if len(days) == 0 or not np.all(np.isfinite(days)):
        raise InputError("days: give at least one sample day, all of them finite numbers")
    if days[0] < 0:
        raise InputError(f"days: the first is {days[0]:g}; a run starts on day 0")
    late = np.flatnonzero(np.diff(days) <= 0)
    if len(late):
        k = int(late[0])
        raise InputError(f"days: {days[k + 1]:g} follows {days[k]:g}; give them in ascending order")


def _given(model: Model, inputs: tuple[Input, ...], edges: Edges) -> dict[str, object]:
    state = {name: k for k, name in enumerate(model.state_ids)}
    parameter = {name: k for k, name in enumerate(model.parameter_ids)}
    rows = []
    for item in inputs:
        drug = model.drug(item.dose.drug)
        where = f"dose of {drug.name} on day {item.start:g}"
        factor, power = conversion_factor(item.dose.unit or drug.unit, drug.unit, where)
        start, stop = edges.snapped(item.start), edges.snapped(item.stop)
        first, last = edges.index(start), edges.index(stop)
        duration = stop - start if last > first else 0.0
        share = parameter[drug.bioavailability] if drug.bioavailability else -1
        rows.append(
            (first, last, state[item.state], item.dose.amount * factor, duration, share, power)
        )
    names = ("from", "until", "state", "amount", "duration", "share", "weight_power")
    whole = {"from", "until", "state", "share"}
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    table: dict[str, object] = {
        f"given_{name}": np.array(column, dtype=np.int64 if name in whole else float)
        for name, column in zip(names, columns, strict=True)
    }
    return table | {"weight": parameter.get("weight", -1)}


def _changed(model: Model, scenario: Scenario, edges: Edges) -> dict[str, object]:
    parameter = {name: k for k, name in enumerate(model.parameter_ids)}
    for change in scenario.changes:
        if change.parameter not in parameter:
            where = f"{scenario.name}: change from day {change.first:g}"
            raise unknown_name("parameter", change.parameter, parameter, where)
    nan = math.nan
    changes = scenario.changes
    return {
        "changed_from": np.array([edges.index(c.first) for c in changes], dtype=np.int64),
        "changed_until": np.array([edges.index(c.last) for c in changes], dtype=np.int64),
        "changed_parameter": np.array([parameter[c.parameter] for c in changes], dtype=np.int64),
        "changed_factor": np.array([nan if c.factor is None else c.factor for c in changes]),
        "changed_value": np.array([nan if c.value is None else c.value for c in changes]),
    }


def parameters_during(line: Timeline, segment: int, nominal: Array, p: Array) -> bool:
    """Fill ``p`` with the parameters of a segment (-1: just before day 0); say if any changed.

    ``nominal`` and ``p`` are (n_parameters,). Changes apply in the order they were written.
    """
    for k in range(len(nominal)):
        p[k] = nominal[k]
    changed = False
    for k in range(len(line.changed_parameter)):
        if line.changed_from[k] <= segment < line.changed_until[k]:
            changed = True
            i = line.changed_parameter[k]
            if math.isnan(line.changed_factor[k]):
                p[i] = line.changed_value[k]
            else:
                p[i] *= line.changed_factor[k]
    return changed


def amount(line: Timeline, k: int, nominal: Array) -> float:
    """What arrives of input ``k``, in the unit of the state it enters."""
    arriving = line.given_amount[k]
    if line.given_weight_power[k] != 0.0:
        arriving *= nominal[line.weight] ** line.given_weight_power[k]
    if line.given_share[k] >= 0:
        arriving *= nominal[line.given_share[k]]
    return float(arriving)


def inflow_during(line: Timeline, segment: int, nominal: Array, u: Array) -> None:
    """Fill ``u`` (n_states,) with what running infusions add per day."""
    u[:] = 0.0
    for k in range(len(line.given_from)):
        if line.given_from[k] <= segment < line.given_until[k]:
            u[line.given_state[k]] += amount(line, k, nominal) / line.given_duration[k]


def give_boluses(line: Timeline, segment: int, nominal: Array, y: Array) -> None:
    """Add to the states ``y`` the boluses given as the segment begins."""
    for k in range(len(line.given_from)):
        if line.given_from[k] == segment and line.given_until[k] == segment:
            y[line.given_state[k]] += amount(line, k, nominal)


def parameters_at_samples(line: Timeline, nominal: Array) -> Array:
    """Parameters at each sample: (n_days, n_parameters), or (n_parameters,) if nothing changes."""
    if len(line.changed_parameter) == 0:
        return nominal
    table = np.empty((len(line.days), len(nominal)))
    segment = np.searchsorted(line.edges, line.days, side="right") - 1
    for row, k in enumerate(segment):
        parameters_during(line, int(k), nominal, table[row])
    return table
