"""The results of a search on disk, and scenarios written as a scenarios.toml.

Doses are written one by one, for each drug whose doses differ from those given.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..dosing import Change, Condition, Dose, Scenario, Trigger
from ..errors import InputError
from ..store import csv_file
from .comparison import Comparison
from .searching import Search

UNSUPPORTED = {"rate": None, "modelled": "", "steady": "", "ordered": None}
"""Attributes of a dose that a scenarios.toml cannot express, with their defaults."""


def scenarios_text(
    scenarios: Sequence[Scenario],
    given: Scenario,
    *,
    endpoints: Sequence[str],
    courses: Sequence[str] = (),
    until: float = 40.0,
    note: str = "",
) -> str:
    """Format scenarios as the text of a scenarios.toml.

    Parameters
    ----------
    scenarios : made from ``given``
    given : Scenario, the treatment as given
    endpoints, courses, until : as in the file
    note : comment at the top

    Raises
    ------
    InputError
        If a dose cannot be expressed in such a file: one with a rate, or of a steady state.

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
    """Keys and values of a ``[[scenario]]``; empty ones are omitted."""
    drugs = dict.fromkeys((*given.doses.drugs, *scenario.doses.drugs))
    other = [d for d in drugs if scenario.doses.only(d) != given.doses.only(d)]
    keys = {
        "remove": [{"drug": drug} for drug in other if drug in given.doses.drugs],
        "add": [_dose(d) for d in scenario.doses.only(*other) if d.day <= until],
        "change": [_change(c) for c in scenario.changes if c not in given.changes],
        "hold": [{"drug": h.drug, "when": _when(h.when)} for h in scenario.holds],
        "trigger": [_trigger(t) for t in scenario.triggers],
        "values": {n: v for n, v in scenario.values.items() if given.values.get(n) != v},
    }
    return {"name": scenario.name, **{key: value for key, value in keys.items() if value}}


def _dose(dose: Dose) -> dict[str, Any]:
    for name, default in UNSUPPORTED.items():
        if getattr(dose, name) != default:
            raise InputError(
                f"the dose of {dose.drug} on day {dose.day:g} has {name} = {getattr(dose, name)}, "
                "which a scenarios.toml cannot express; give it as an amount over hours"
            )
    return {"day": dose.day, **_given(dose)}


def _given(dose: Dose) -> dict[str, Any]:
    keys = {"drug": dose.drug, "amount": dose.amount}
    more = {"unit": dose.unit, "hours": dose.hours}
    return {**keys, **{k: v for k, v in more.items() if v not in ("", None)}}


def _change(change: Change) -> dict[str, Any]:
    more = {"first": change.first, "last": change.last}
    by = {"factor": change.factor} if change.value is None else {"value": change.value}
    return {"parameter": change.parameter, **_finite(more), **by}


def _trigger(trigger: Trigger) -> dict[str, Any]:
    interval = {} if trigger.every_hours is None else {"every_hours": trigger.every_hours}
    return {
        "name": trigger.name, "when": _when(trigger.when), "give": _given(trigger.dose),
        "at_most": trigger.at_most, "hours_apart": trigger.hours_apart, **interval,
        **_finite({"first": trigger.first, "last": trigger.last}),
    }  # fmt: skip


def _when(condition: Condition) -> str:
    return f"{condition.quantity} {condition.side} {condition.level!r}"


def _finite(days: Mapping[str, float]) -> dict[str, float]:
    return {name: day for name, day in days.items() if math.isfinite(day)}


def _toml(value: Any) -> str:
    """Format a value as TOML; JSON strings and numbers are valid TOML."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(v)}" for key, v in value.items()) + " }"
    if isinstance(value, list):
        if value and isinstance(value[0], Mapping):
            return "[\n" + "".join(f"  {_toml(v)},\n" for v in value) + "]"
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


CHOSEN = "chosen.toml"
DIGITS = 6


def files_of_search(
    found: Search, chosen: int, *, comparisons: Mapping[str, Comparison], folder: Path
) -> dict[Path, bytes]:
    """Format the files of a search, for `crs_sim.output.write_atomic`.

    Parameters
    ----------
    found : Search
    chosen : the trial written to chosen.toml
    comparisons : of trials with the treatment as given, by the source of their members (draws of
        the fit, virtual patients)
    folder : of the files

    Returns
    -------
    mapping of path to content: ``trials.csv``; ``front.csv``, one row per trial of the front with
    its variables and endpoints; ``front_draws.csv``, one row for each trial simulated with draws,
    and endpoint; ``chosen.toml``, for ``crs-sim compare``
    """
    table = found.table()
    front = table.set_index("trial").loc[list(found.front)].drop(columns=["front", "failed"])
    front["chosen"] = front.index == chosen
    question = found.question
    ends = [e.name for e in (*question.objectives, *question.endpoints)]
    note = "\n".join([f"Trial {chosen} of a search. Research use only. Simulate it with",
                      "crs-sim compare RUN --scenarios chosen.toml",
                      *question.words(found.points[chosen].tolist())])  # fmt: skip
    text = scenarios_text(
        [found.scenario(chosen)], question.given, endpoints=list(dict.fromkeys(ends)),
        courses=question.courses, until=question.plan.until, note=note,
    )  # fmt: skip
    files = {
        folder / "trials.csv": csv_file(table, DIGITS),
        folder / "front.csv": csv_file(front.reset_index(), DIGITS),
        folder / CHOSEN: text.encode(),
    }
    if comparisons:
        parts = [c.table().assign(members=members) for members, c in comparisons.items()]
        files[folder / "front_draws.csv"] = csv_file(pd.concat(parts, ignore_index=True), DIGITS)
    return files
