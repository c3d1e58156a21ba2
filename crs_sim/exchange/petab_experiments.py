"""A scenario in PEtab's form: periods, each starting with changes to the model.

PEtab changes the model at the start of a period *before* it evaluates an observable; here a sample
is taken before a dose at the same time. A period therefore separates changes before the sample
(parameters) from changes after it (doses), and an experiment may end between the two.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..dosing import ONWARD, Timeline, build_timeline
from ..errors import InputError
from ..fitting import FitProblem
from ..model import Model, Parameter, declared_units, names, read_unit, replaced, same

Changes = tuple[tuple[str, str], ...]
"""Pairs of (target of the change, formula of its new value)."""
DAY = "(86400 second)"


@dataclass(frozen=True)
class Period:
    """A time point at which parameters change or doses are given.

    Parameters
    ----------
    day : float
    before : changes applied before a sample at that time
    after : changes applied after it
    jumps : bool, whether those after it change a state instantly (a bolus does, an infusion does
        not)
    """

    day: float
    before: Changes
    after: Changes
    jumps: bool


@dataclass(frozen=True)
class Regimen:
    """A problem's model with parameters added for doses and changes, and when each is set.

    Parameters
    ----------
    model : Model
    periods : tuple of Period, the first on day 0
    days : mapping of each requested day to the equivalent day in the periods
    memories : mapping of (observable, reference day) to the parameter that stores its level
    """

    model: Model
    periods: tuple[Period, ...]
    days: Mapping[float, float]
    memories: Mapping[tuple[str, float], str]


@dataclass(frozen=True)
class _Names:
    """Names of the parameters added to the model."""

    inflow: Mapping[str, str]
    start: Mapping[str, str]
    now: Mapping[str, str]
    memories: Mapping[tuple[str, float], str]


def regimen(
    problem: FitProblem, days: Iterable[float], references: Iterable[tuple[str, float]] = ()
) -> Regimen:
    """The patient's scenario up to the last of the days.

    Doses and changes become changes of added parameters: ``inflow_STATE`` (per day, infusions),
    ``given_at_start_STATE`` (a bolus on day 0), ``PARAMETER_now`` (its changed value), and
    ``OBSERVABLE_on_day_D`` (its level on a day, for later comparison). A bolus after day 0 changes
    its state. Free parameters stay symbols in every formula, so that they can be estimated.

    Parameters
    ----------
    problem : FitProblem, its model with the values to be written
    days : sampling days
    references : (observable, day) pairs whose level is stored; a day must be after 0
    """
    references = tuple(references)
    scenario = problem.patient.scenario
    model = problem.model.with_values(**scenario.values)
    sampled = np.unique([*days, *(day for _, day in references)])
    line, _ = build_timeline(model, scenario, sampled)
    _check_expressible(problem, line)
    aligned = dict(zip(sampled.tolist(), line.days.tolist(), strict=True))
    writer = _Writer(problem, model, line, _added(model, line, references))
    periods = [writer.period(k) for k in range(line.n_segments + 1)]
    stored = {aligned[day]: list[tuple[str, str]]() for _, day in references}
    periods = _with_stored_levels(periods, stored, writer, aligned)
    return Regimen(writer.extended(), tuple(periods), aligned, writer.names.memories)


def _check_expressible(problem: FitProblem, line: Timeline) -> None:
    """Refuse what periods with fixed start days cannot express."""
    if (line.marks[0] != 0).any() or (line.marks[1] != ONWARD).any():
        raise InputError(
            f"{problem.name}: a reset or a steady state (EVID 3 or 4, SS) cannot be expressed "
            "in PEtab; write out the doses that lead to it"
        )
    moving = [problem.model.parameter_ids[k] for k in line.moving]
    free = [name for name in moving if name in problem.names]
    if free:
        raise InputError(
            f"{problem.name}: {free[0]} is free and shifts dose times, which PEtab cannot "
            "express; fix it"
        )
    given = line.given
    for row, version in enumerate(given.version):
        needed = {int(given.share[row]), line.weight if given.weight_power[row] else -1}
        for k, _ in line.versions[version]:
            if k in needed:
                raise InputError(
                    f"{problem.name}: doses follow a change of {problem.model.parameter_ids[k]}, "
                    "which the export does not support; write the amounts that reach the body"
                )


def _added(model: Model, line: Timeline, references: Sequence[tuple[str, float]]) -> _Names:
    given, ids = line.given, model.state_ids
    taken = {*model.symbols, *dict(model.units)}
    infused = {ids[s] for s in given.state[given.after > given.first]}
    at_start = (given.after == given.first) & (given.first == 0)
    started = {ids[s] for s in given.state[at_start]} if line.n_segments else set()
    changed = {model.parameter_ids[k] for version in line.versions for k, _ in version}

    def new_names(form: str, keys: Collection[str]) -> dict[str, str]:
        return {key: _unused(form.format(key), taken) for key in sorted(keys)}

    return _Names(
        new_names("inflow_{}", infused),
        new_names("given_at_start_{}", started),
        new_names("{}_now", changed),
        {
            (name, day): _unused(f"{name}_on_day_{word(day)}", taken)
            for name, day in sorted(set(references))
        },
    )


def word(day: float) -> str:
    """Format a day for use in a name.

    >>> word(13.0), word(13.25)
    ('13', '13_25')
    """
    return "".join(c if c.isalnum() else "_" for c in f"{day:.12g}")


def _unused(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _with_stored_levels(
    periods: list[Period],
    stored: Mapping[float, list[tuple[str, str]]],
    writer: _Writer,
    aligned: Mapping[float, float],
) -> list[Period]:
    """Add the assignments that store reference levels, with extra periods where needed."""
    for (name, day), memory in writer.names.memories.items():
        stored[aligned[day]].append((memory, name))
    days = {period.day for period in periods}
    new = [Period(day, (), (), False) for day in stored if day not in days]
    every = sorted([*periods, *new], key=lambda period: period.day)
    return [replace(p, before=(*p.before, *stored.get(p.day, ()))) for p in every]


class _Writer:
    """Write one timeline as changes; formulas contain free parameters and numbers."""

    def __init__(self, problem: FitProblem, model: Model, line: Timeline, added: _Names) -> None:
        self.free = set(problem.names)
        self.model, self.line, self.names = model, line, added

    def period(self, k: int) -> Period:
        """The changes at the start of segment k; past the last one only those before a sample."""
        line = self.line
        before = self._changed(k)
        if k == line.n_segments:
            return Period(float(line.edges[k]), before, (), False)
        boluses = self._boluses(k)
        return Period(float(line.edges[k]), before, (*boluses, *self._inflows(k)), bool(boluses))

    def _changed(self, k: int) -> Changes:
        """The changed parameters whose value differs from the previous segment."""
        now = self._in_force(k + 1)
        last = self._in_force(k) if k else {}
        return tuple((self.names.now[p], v) for p, v in now.items() if last.get(p) != v)

    def _in_force(self, interval: int) -> dict[str, str]:
        """The value of each changed parameter as a formula."""
        values = {p: self._base(p) for p in self.names.now}
        for k, change in self.line.versions[self.line.version[interval]]:
            name = self.model.parameter_ids[k]
            number, symbols = values[name]
            if change.value is None:
                values[name] = (change.apply(number), symbols)
            else:
                values[name] = (change.value, ())
        return {p: product(*value) for p, value in values.items()}

    def _base(self, name: str, power: int = 1) -> tuple[float, tuple[str, ...]]:
        """A parameter (to a power) as a number and symbols; free parameters stay symbols."""
        if name in self.free:
            return 1.0, (name if power == 1 else f"{name}^({power})",)
        return self.model.values[name] ** power, ()

    def _boluses(self, k: int) -> Changes:
        given = self.line.given
        amounts: dict[str, list[str]] = {}
        for row in np.flatnonzero((given.first == k) & (given.after == k)):
            state = self.model.state_ids[given.state[row]]
            amounts.setdefault(state, []).append(self._amount(int(row)))
        if k == 0:
            return tuple((self.names.start[s], " + ".join(a)) for s, a in amounts.items())
        return tuple((s, " + ".join([s, *a])) for s, a in amounts.items())

    def _inflows(self, k: int) -> Changes:
        now = self._running(k)
        last = self._running(k - 1) if k else dict.fromkeys(now, "0")
        return tuple((self.names.inflow[s], v) for s, v in now.items() if last[s] != v)

    def _running(self, k: int) -> dict[str, str]:
        """The inflow into each infused state during segment k."""
        given = self.line.given
        rates: dict[str, list[str]] = {state: [] for state in self.names.inflow}
        for row in np.flatnonzero((given.first <= k) & (k < given.after)):
            text = self._amount(int(row), float(given.duration[row]))
            rates[self.model.state_ids[given.state[row]]].append(text)
        return {state: " + ".join(texts) or "0" for state, texts in rates.items()}

    def _amount(self, row: int, duration: float = 1.0) -> str:
        """The amount of a dose that reaches its state, divided by its duration."""
        given, ids = self.line.given, self.model.parameter_ids
        number, symbols = float(given.amount[row]) / duration, list[str]()
        factors = [(ids[given.share[row]], 1)] if given.share[row] >= 0 else []
        if given.weight_power[row]:
            factors.append((ids[self.line.weight], int(given.weight_power[row])))
        for name, power in factors:
            value, more = self._base(name, power)
            number, symbols = number * value, [*symbols, *more]
        return product(number, symbols)

    def extended(self) -> Model:
        """The model with the added parameters in its equations."""
        model, added = self.model, self.names
        now, units = added.now, dict(model.units)
        rates = {s.id: _unit_per_day(model, s.unit, units) for s in model.states}
        parameters = [*model.parameters]
        for state, name in added.inflow.items():
            parameters.append(_parameter(name, 0.0, rates[state], f"Infused into {state}"))
        for state, name in added.start.items():
            unit = model[state].unit
            parameters.append(_parameter(name, 0.0, unit, f"Given into {state} on day 0"))
        for parameter, name in now.items():
            value, unit = model.values[parameter], model[parameter].unit
            parameters.append(_parameter(name, value, unit, f"{parameter} as changed"))
        for (observable, day), name in added.memories.items():
            label = f"{observable} on day {day:g}"
            parameters.append(_parameter(name, 1.0, model[observable].unit, label))
        states = [
            replace(s, initial=self._initial(s.id, s.initial), rate=self._rate(s.id, s.rate))
            for s in model.states
        ]
        quantities = [replace(q, formula=replaced(q.formula, now)) for q in model.quantities]
        used = tuple((n, d) for n, d in units.items() if n in dict(model.units) or n in
                     {p.unit for p in parameters})  # fmt: skip
        return replace(model, states=tuple(states), parameters=tuple(parameters),
                       quantities=tuple(quantities), units=used)  # fmt: skip

    def _rate(self, state: str, rate: str) -> str:
        inflow = self.names.inflow.get(state)
        rate = replaced(rate, self.names.now)
        return f"{rate} + {inflow}" if inflow else rate

    def _initial(self, state: str, initial: str) -> str:
        """The initial value, from the parameters just before day 0, plus a bolus on day 0."""
        if self.names.now:
            for quantity in reversed(self.model.quantities):
                initial = replaced(initial, {quantity.id: quantity.formula})
            initial = replaced(initial, self._in_force(0))
        start = self.names.start.get(state)
        return f"{initial} + {start}" if start else initial


def product(number: float, symbols: Sequence[str]) -> str:
    """A number times symbols, as a formula.

    >>> product(0.5, ["k"]), product(1.0, ["k"]), product(-2, [])
    ('0.5*k', 'k', '-2.0')
    """
    if number == 1.0 and symbols:
        return "*".join(symbols)
    return "*".join([repr(float(number)), *symbols])


def rests_on(model: Model, name: str) -> set[str]:
    """A quantity and all symbols it depends on, directly or indirectly."""
    found = {name}
    for quantity in reversed(model.quantities):  # each uses only those above it
        if quantity.id in found:
            found |= names(quantity.formula)
    return found


def _parameter(name: str, value: float, unit: str, label: str) -> Parameter:
    return Parameter(name, value, unit, label, "set by the conditions of the PEtab problem")


def _unit_per_day(model: Model, unit: str, units: dict[str, str]) -> str:
    """The name of a state's unit per day; added to ``units`` if the model declares none."""
    if not unit:
        return ""
    declared = declared_units(model.units)
    definition = f"({units.get(unit, unit)}) / {DAY}"
    required = read_unit(definition, "", declared)
    for name in (n for n in units if n in declared):
        if same(declared[name], required):
            return name
    name = f"{unit}_per_day"
    while units.get(name, definition) != definition:
        name += "_"
    units[name] = definition
    return name
