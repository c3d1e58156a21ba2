"""Scenarios written as a scenarios.toml: what `crs_sim.scenariofile` reads, the other way round.

Doses are written out one by one, for each drug that is given otherwise than it was.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from .dosing import Dose
from .errors import InputError
from .scenario import Change, Scenario
from .triggers import Condition, Trigger

UNSAID = {"rate": None, "modelled": "", "steady": "", "ordered": None}
"""Of a dose: what a scenarios.toml has no words for, and how it is where nothing is said."""


def scenarios_text(
    scenarios: Sequence[Scenario],
    given: Scenario,
    *,
    endpoints: Sequence[str],
    courses: Sequence[str] = (),
    until: float = 40.0,
    note: str = "",
) -> str:
    """The text of a scenarios.toml that says these scenarios.

    Parameters
    ----------
    scenarios : made from ``given``
    given : Scenario, what was done
    endpoints, courses, until : as in the file
    note : above it, as a comment

    Raises
    ------
    InputError
        If a dose cannot be said in such a file: one of a rate, or of a steady state.

    Examples
    --------
    >>> done = Scenario("done")
    >>> text = scenarios_text([done], done, endpoints=["peak_il6"])
    >>> text.splitlines()[-1]
    'name = "done"'
    """
    lines = [f"# {line}".rstrip() for line in note.splitlines()]
    lines += ["", f"until = {_toml(until)}", f"endpoints = {_toml(list(endpoints))}",
              f"courses = {_toml(list(courses))}"]  # fmt: skip
    for scenario in scenarios:
        table = _table(scenario, given, until)
        lines += ["", "[[scenario]]", *(f"{key} = {_toml(v)}" for key, v in table.items())]
    return "\n".join(lines).lstrip("\n") + "\n"


def _table(scenario: Scenario, given: Scenario, until: float) -> dict[str, Any]:
    """Keys and values of a ``[[scenario]]``; those that say nothing are left out."""
    drugs = dict.fromkeys((*given.doses.drugs, *scenario.doses.drugs))
    other = [d for d in drugs if scenario.doses.only(d) != given.doses.only(d)]
    told = {
        "remove": [{"drug": drug} for drug in other if drug in given.doses.drugs],
        "add": [_dose(d) for d in scenario.doses.only(*other) if d.day <= until],
        "change": [_change(c) for c in scenario.changes if c not in given.changes],
        "hold": [{"drug": h.drug, "when": _when(h.when)} for h in scenario.holds],
        "trigger": [_trigger(t) for t in scenario.triggers],
        "values": {n: v for n, v in scenario.values.items() if given.values.get(n) != v},
    }
    return {"name": scenario.name, **{key: value for key, value in told.items() if value}}


def _dose(dose: Dose) -> dict[str, Any]:
    for name, usual in UNSAID.items():
        if getattr(dose, name) != usual:
            raise InputError(
                f"the dose of {dose.drug} on day {dose.day:g} has {name} = {getattr(dose, name)}, "
                "which a scenarios.toml cannot say"
            )
    return {"day": dose.day, **_given(dose)}


def _given(dose: Dose) -> dict[str, Any]:
    told = {"drug": dose.drug, "amount": dose.amount}
    more = {"unit": dose.unit, "hours": dose.hours}
    return {**told, **{k: v for k, v in more.items() if v not in ("", None)}}


def _change(change: Change) -> dict[str, Any]:
    more = {"first": change.first, "last": change.last}
    by = {"factor": change.factor} if change.value is None else {"value": change.value}
    return {"parameter": change.parameter, **_finite(more), **by}


def _trigger(trigger: Trigger) -> dict[str, Any]:
    rounds = {} if trigger.every_hours is None else {"every_hours": trigger.every_hours}
    return {
        "name": trigger.name, "when": _when(trigger.when), "give": _given(trigger.dose),
        "at_most": trigger.at_most, "hours_apart": trigger.hours_apart, **rounds,
        **_finite({"first": trigger.first, "last": trigger.last}),
    }  # fmt: skip


def _when(condition: Condition) -> str:
    return f"{condition.quantity} {condition.side} {condition.level!r}"


def _finite(days: Mapping[str, float]) -> dict[str, float]:
    return {name: day for name, day in days.items() if math.isfinite(day)}


def _toml(value: Any) -> str:
    """A value as TOML writes it; JSON's texts and numbers are TOML's too."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(v)}" for key, v in value.items()) + " }"
    if isinstance(value, list):
        if value and isinstance(value[0], Mapping):
            return "[\n" + "".join(f"  {_toml(v)},\n" for v in value) + "]"
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
