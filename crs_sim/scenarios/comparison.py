"""`compare`: endpoints under counterfactual scenarios, with paired differences and uncertainty.

Every draw of the parameters is simulated under every scenario, so a difference is between two
courses of the same virtual patient. Extrapolation, beyond the range of states under the treatment
as given, is reported. Scenarios are also written as a scenarios.toml, dose by dose for each drug
whose doses differ from those given.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from ..dosing import AS_GIVEN, Change, Condition, Dose, Scenario, Trigger
from ..errors import InputError, unknown_name
from ..fitting import METHOD, RTOL, Fit
from ..model import Array
from ..simulation import EVERY_HOURS, Endpoint, Sampling, Simulation, simulate
from ..store import level_text
from ..uncertainty import DRAWS, Draws, Predictions, observables, predict

LEVEL = 0.95
OUTSIDE = 1.1
"""A state beyond this multiple of its range under the treatment as given is extrapolated."""
FAR = 1000.0
"""A multiple beyond which the number tells nothing more."""
VANISHED = 0.01
"""Share of its largest value below which a state's smallest value is ignored."""
MOST_NAMED = 3
RESOLUTION = 1e-3
"""Relative difference below which it may be solver error (see `MANY_RTOL`) and counts as 0."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Endpoints under scenarios, the first of which is the treatment as given.

    Parameters
    ----------
    predictions : Predictions, the runs of every draw under every scenario
    runs : tuple of Simulation, at the estimates, one for each scenario
    endpoints : tuple of Endpoint
    estimates : (n_scenarios, n_endpoints) of those runs
    draws : (n_scenarios, n_endpoints, n_draws)
    outside : what is extrapolated in each scenario, in words; "" if nothing is
    """

    predictions: Predictions = field(repr=False)
    runs: tuple[Simulation, ...] = field(repr=False)
    endpoints: tuple[Endpoint, ...]
    estimates: Array = field(repr=False)
    draws: Array = field(repr=False)
    outside: tuple[str, ...]

    @property
    def scenarios(self) -> tuple[str, ...]:
        """Names of the scenarios; the first is the treatment as given."""
        return self.predictions.scenarios

    def of(self, scenario: str, endpoint: str) -> Array:
        """An endpoint of every draw under a scenario, (n_draws,).

        Raises
        ------
        UnknownNameError
            With the closest match.
        """
        return np.asarray(self.draws[self._place(scenario, endpoint)])

    def difference(self, scenario: str, endpoint: str) -> Array:
        """Paired difference from the treatment as given, (n_draws,); 0 within `RESOLUTION`."""
        given = self.of(self.scenarios[0], endpoint)
        difference = self.of(scenario, endpoint) - given
        return np.where(np.abs(difference) > RESOLUTION * np.abs(given), difference, 0.0)

    def sure(self, scenario: str, endpoint: str, level: float = LEVEL) -> bool:
        """Whether 0 is outside the interval of the paired differences."""
        tails = (0.5 - level / 2, 0.5 + level / 2)
        low, high = np.quantile(self.difference(scenario, endpoint), tails)
        return bool(low > 0 or high < 0)

    def table(self, level: float = LEVEL) -> pd.DataFrame:
        """One row for each scenario and endpoint.

        ``estimate`` is of the run at the estimates; ``median``, ``low`` and ``high`` are of the
        draws; ``difference`` and ``ratio`` (for endpoints on a log scale) are paired, relative to
        the treatment as given, and ``chance_lower`` is the share of draws with a lower value. A
        relative difference below `RESOLUTION` counts as 0. The interval from low to high holds
        ``level`` of the draws.

        Raises
        ------
        InputError
            For a level not between 0 and 1.
        """
        if not 0 < level < 1:
            raise InputError(f"level is {level:g}; give one between 0 and 1")
        tails = (0.5, 0.5 - level / 2, 0.5 + level / 2)
        return pd.DataFrame(list(self._rows(tails)))

    def medians(self) -> pd.DataFrame:
        """Medians of the draws: one row per scenario, one column per endpoint."""
        return pd.DataFrame(
            np.median(self.draws, axis=2), index=pd.Index(self.scenarios, name="scenario"),
            columns=[endpoint.name for endpoint in self.endpoints],
        )  # fmt: skip

    def _rows(self, tails: tuple[float, float, float]) -> Iterator[dict[str, object]]:
        for i, scenario in enumerate(self.scenarios):
            for j, endpoint in enumerate(self.endpoints):
                values, given = self.draws[i, j], self.draws[0, j]
                row: dict[str, object] = {
                    "scenario": scenario, "endpoint": endpoint.name, "label": endpoint.label,
                    "unit": endpoint.unit, "estimate": self.estimates[i, j],
                    **_named(("median", "low", "high"), np.quantile(values, tails)),
                }  # fmt: skip
                change = self.difference(scenario, endpoint.name)
                columns = ("difference", "difference_low", "difference_high")
                row |= _named(columns, np.quantile(change, tails))
                if endpoint.log and (given > 0).all():
                    ratios = np.quantile(1.0 + change / given, tails)
                    row |= _named(("ratio", "ratio_low", "ratio_high"), ratios)
                yield row | {"chance_lower": float(np.mean(change < 0)),
                             "outside": self.outside[i]}  # fmt: skip

    def _place(self, scenario: str, endpoint: str) -> tuple[int, int]:
        names = [e.name for e in self.endpoints]
        if scenario not in self.scenarios:
            raise unknown_name("scenario", scenario, self.scenarios)
        if endpoint not in names:
            raise unknown_name("endpoint", endpoint, names)
        return self.scenarios.index(scenario), names.index(endpoint)

    def __repr__(self) -> str:
        """Return a one-line summary."""
        return (
            f"Comparison({len(self.scenarios)} scenarios, {len(self.endpoints)} endpoints; "
            f"{self.predictions.source})"
        )


def compare(
    result: Fit,
    scenarios: Sequence[Scenario],
    endpoints: Sequence[Endpoint],
    *,
    draws: pd.DataFrame | Draws | int = DRAWS,
    sampling: Sampling | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Compare endpoints under the treatment as given and under alternative scenarios.

    Parameters
    ----------
    result : Fit
    scenarios : the alternatives; the treatment as given is always added as the first
    endpoints : see `crs_sim.simulation.endpoint`
    draws : as in `crs_sim.uncertainty.predict`; the same in every scenario
    sampling : Sampling, by default every 6 h until day 40; its outputs are set automatically
    workers, progress : as in `crs_sim.simulation.simulate_many`

    Raises
    ------
    InputError
        If there is nothing to compare, or two scenarios have the same name.
    UnknownNameError, IntegrationError
        As `predict` and `crs_sim.simulation.simulate`.

    Examples
    --------
    ``compare(best, [without], [endpoint(best.model, "peak_ifng")]).table()``
    """
    if not scenarios or not endpoints:
        raise InputError("a comparison needs at least one other scenario and one endpoint")
    problem = result.problem
    several = (replace(problem.patient.scenario, name=AS_GIVEN), *scenarios)
    base_sampling = sampling or Sampling(every_hours=EVERY_HOURS)
    shown = observables(problem.model, problem.noise, problem.patient)
    outputs = dict.fromkeys((*shown, *(e.needs for e in endpoints)))
    sampling = replace(base_sampling, outputs=tuple(outputs), endpoints=endpoints)
    predictions = predict(
        result, several, draws=draws, sampling=sampling, workers=workers, progress=progress
    )  # fmt: skip
    runs = tuple(
        simulate(result.model, s, days=predictions.days, method=METHOD, rtol=RTOL)
        for s in predictions.ensemble.scenarios  # with the patient's own values
    )
    estimates = np.array([[float(e.of(run)) for e in endpoints] for run in runs])
    many, names = predictions.ensemble, predictions.scenarios
    drawn = np.array([[many.endpoint(e.name, s) for e in endpoints] for s in names])
    outside = ("", *(_outside(run, runs[0]) for run in runs[1:]))
    return Comparison(predictions, runs, tuple(endpoints), estimates, drawn, outside)


def _named(names: Sequence[str], values: Array) -> Mapping[str, float]:
    return dict(zip(names, values.tolist(), strict=True))


def _outside(run: Simulation, given: Simulation) -> str:
    """States that exceed their range under the treatment as given, the furthest first."""
    found = []
    for name in run.model.state_ids:
        far, label = _extrapolation(_range(run, name), _range(given, name)), run.model[name].label
        if far > OUTSIDE:
            beyond = f"{level_text(far)} x its range" if far < FAR else f"over {FAR:g} x its range"
            beyond = "never above 0 as given" if np.isinf(far) else beyond
            found.append((far, f"{label} {beyond}"))
    changed = [c.parameter for c in run.scenario.changes if c not in given.scenario.changes]
    found.sort(key=lambda pair: -pair[0])
    texts = [text for _, text in found[:MOST_NAMED]] + [f"{name} changed" for name in changed]
    more = len(found) - MOST_NAMED
    return "; ".join(texts) + (f"; and {more} more" if more > 0 else "")


def _range(run: Simulation, name: str) -> tuple[float, float]:
    """The smallest and the largest value of a state, just after doses and between samples too."""
    course = run.dense(name)
    below = replace(course, nodes=-course.nodes)
    return -float(below.peak()[0][0]), float(course.peak()[0][0])


def _extrapolation(course: tuple[float, float], given: tuple[float, float]) -> float:
    """Factor beyond the range as given: 1 inside, infinite if it was always 0 as given."""
    (low, top), (least, most) = course, given
    if most <= 0.0:
        return float("inf") if top > 0.0 else 1.0
    down = least / low if least > VANISHED * most and low > 0.0 else 1.0
    return max(top / most, down, 1.0)


# --- scenarios written as a scenarios.toml --------------------------------------------------------

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
        "name": trigger.name, "when": _when(trigger.when),
        "give": _given(trigger.dose) | dict(zip(("doses", "every"), trigger.course, strict=False)),
        "at_most": trigger.at_most, "hours_apart": trigger.hours_apart, **interval,
        **_finite({"first": trigger.first, "last": trigger.last}),
    }  # fmt: skip


def _when(condition: Condition) -> str:
    return " and ".join(f"{c.quantity} {c.side} {c.level!r}" for c in condition.parts)


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
