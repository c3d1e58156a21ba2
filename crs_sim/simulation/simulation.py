"""`simulate`: one run of a model under a scenario, and its files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..dosing import COLUMNS, HOURS_PER_DAY, Input, Ledger, Scenario, build_timeline, check_days
from ..errors import RESEARCH_ONLY, InputError, IntegrationError, unknown_name
from ..model import Array, Model, no_value, pretty
from ..solver import Counts, Course, check_method, integrate_timeline, resolve_triggers
from ..store import json_file
from .endpoints import Dense

if TYPE_CHECKING:
    import pandas as pd


NO_TREATMENT = Scenario("no treatment")
MAX_SAMPLES = 1_000_000


@dataclass(frozen=True, eq=False)
class Simulation:
    """One run: its inputs, curves, doses given, and solver statistics.

    Parameters
    ----------
    model : Model, with the values used
    scenario : Scenario
    days : (n_days,) float, day after infusion, ascending
    states : (n_days, n_states)
    quantities : (n_days, n_quantities)
    inputs : tuple of Input, the boluses and infusions given to the solver up to the last day
    ledger : Ledger, every dose given or held up to the last day, and why
    solver : Counts
    between : Dense, the same run in between its days, from which endpoints are computed
    """

    model: Model
    scenario: Scenario
    days: Array = field(repr=False)
    states: Array = field(repr=False)
    quantities: Array = field(repr=False)
    inputs: tuple[Input, ...] = field(repr=False)
    ledger: Ledger = field(repr=False)
    solver: Counts
    between: Dense = field(repr=False)

    def __getitem__(self, name: str) -> Array:
        """The course of a state or named quantity, (n_days,).

        Raises
        ------
        UnknownNameError
            With the closest match.
        """
        if name not in self._columns:
            raise unknown_name("state or quantity", name, self._columns, self.model.path)
        return self._columns[name]

    def dense(self, name: str) -> Course:
        """The whole course of a state or quantity, not only at ``days`` (see `peak`, `auc`, ...).

        Raises
        ------
        UnknownNameError
            With the closest match.
        """
        return self.between.dense(name)

    @property
    def values(self) -> Mapping[str, float]:
        """The parameter values used, by id."""
        return self.model.values

    @cached_property
    def _columns(self) -> dict[str, Array]:
        states = zip(self.model.state_ids, self.states.T, strict=True)
        quantities = zip(self.model.quantity_ids, self.quantities.T, strict=True)
        return {**dict(states), **dict(quantities)}

    @property
    def units(self) -> dict[str, str]:
        """Unit of each state and quantity, by id."""
        return {name: self.model[name].unit for name in self._columns}

    def at(self, days: float | Sequence[float] | Array) -> Simulation:
        """The same run at some of its days.

        Raises
        ------
        InputError
            For a day that was not sampled; names the nearest sampled day.
        """
        rows = [self._row(float(day)) for day in np.atleast_1d(np.asarray(days, dtype=float))]
        return replace(
            self, days=self.days[rows], states=self.states[rows], quantities=self.quantities[rows]
        )

    def _row(self, day: float) -> int:
        nearest = int(np.argmin(np.abs(self.days - day)))
        if not abs(self.days[nearest] - day) <= 1e-9:
            raise InputError(
                f"day {day:g} was not sampled; the nearest is "
                f"{self.days[nearest]:.10g}: add the day to `days` of simulate"
            )
        return nearest

    def table(self) -> pd.DataFrame:
        """The run as a table: column ``day``, then the states, then the quantities."""
        import pandas as pd  # slow to load, and often not needed

        names = ["day", *self._columns]
        return pd.DataFrame(
            np.column_stack([self.days, self.states, self.quantities]), columns=names
        )

    def __repr__(self) -> str:
        """One line: model, scenario, days and method."""
        return (
            f"Simulation({self.model.name!r}, {self.scenario.name!r}: {len(self.days)} days "
            f"{self.days[0]:g} to {self.days[-1]:g}, {len(self.inputs)} doses, "
            f"{self.solver.method})"
        )


def simulate(
    model: Model,
    scenario: Scenario = NO_TREATMENT,
    *,
    until: float = 40.0,
    every_hours: float = 6.0,
    days: Sequence[float] | Array | None = None,
    method: str = "Rosenbrock",
    rtol: float = 1e-6,
) -> Simulation:
    """Run a model under a scenario from day 0.

    Parameters
    ----------
    model : Model
    scenario : Scenario, its values replace those of the model; its triggers and holds are resolved
        with the same solver (see `crs_sim.dosing.ledger`)
    until : float, last day
    every_hours : float, hours between samples
    days : ascending days to sample instead of ``until`` and ``every_hours``, returned unchanged
    method : str, Rosenbrock (compiled; fast), or SciPy's LSODA, BDF or Radau in plain Python
    rtol : float, relative tolerance; absolute tolerances follow from each state's size

    Raises
    ------
    InputError, UnknownNameError, UnitError
        If the model or scenario cannot be run.
    IntegrationError
        If the solver fails; names the day and the states.

    Examples
    --------
    >>> from crs_sim import Model, Parameter, State
    >>> decay = Model("decay", (State("A", "8", "-k*A", "mg", "", ""),),
    ...               (Parameter("k", 0.693147, "1/day", "", ""),))
    >>> simulate(decay, days=[0, 1, 3])["A"].round(3).tolist()
    [8.0, 4.0, 1.0]
    """
    check_method(method)
    check_rtol(rtol)
    patient = model.with_values(**scenario.values)
    sampled = sample_days(until, every_hours) if days is None else np.array(days, dtype=float)
    check_days(sampled)
    until = float(sampled[-1])
    decided, ledger = resolve_triggers(patient, scenario, until=until, method=method, rtol=rtol)
    line, inputs = build_timeline(patient, decided, sampled)
    states, quantities, counts, pieces = integrate_timeline(patient, line, method=method, rtol=rtol)
    _refuse_no_number(patient, sampled, states, quantities)
    values = np.array(list(patient.values.values()))
    between = Dense.of(patient, patient.state_ids, line, pieces, values)
    return Simulation(
        patient, scenario, sampled, states, quantities, inputs, ledger, counts, between
    )


def _refuse_no_number(model: Model, days: Array, states: Array, quantities: Array) -> None:
    """Refuse a quantity that is infinite or no number on some day, as ensembles do."""
    bad = ~np.isfinite(quantities)
    if not bad.any():
        return
    row = int(bad.any(axis=1).argmax())
    name = no_value(model, states[row]) or model.quantity_ids[int(bad[row].argmax())]
    where = f"{model.path}:{model[name].line}" if model.path else model.name
    raise IntegrationError(
        f"{where}  {name} is not a finite number on day {days[row]:.6g}, though every state is: "
        "its formula is outside its domain; check the values of the parameters in it"
    )


def check_rtol(rtol: float) -> None:
    """Raise an InputError for a relative tolerance outside (0, 1)."""
    if not 0 < rtol < 1:
        raise InputError(f"rtol is {rtol:g}; give a number between 0 and 1, such as 1e-6")


def sample_days(until: float, every_hours: float) -> Array:
    """Sample days 0, every, ..., until: exact multiples, and always the last day.

    >>> sample_days(1.0, 6.0).tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    if not (np.isfinite(until) and until >= 0):
        raise InputError(f"until is {until}; give the last day, 0 or later")
    if not (np.isfinite(every_hours) and every_hours > 0):
        raise InputError(f"every_hours is {every_hours}; give a positive number of hours")
    count = until * HOURS_PER_DAY / every_hours
    if count > MAX_SAMPLES:
        raise InputError(
            f"to day {until:g}, every {every_hours:g} hours: more than {MAX_SAMPLES:,} samples; "
            "end sooner, or sample less often"
        )
    steps = np.arange(int(count + 1e-9) + 1)
    days = steps * every_hours / HOURS_PER_DAY
    if until - days[-1] > 1e-9:
        days = np.append(days, until)
    return np.asarray(days, dtype=float)


def table_files(
    sim: Simulation, path: str | Path, about: Mapping[str, object]
) -> dict[Path, bytes]:
    """The files of a run, for `write_whole`: a CSV, and ``<path>.meta.json`` beside it.

    The CSV has a column ``day``, then one for each state and named quantity, with their ids. The
    metadata are their units and labels, the model's hash, the parameter values, solver statistics
    and ``about``. A scenario with triggers or holds also has ``<path>.ledger.csv``: every dose
    given or held, and why.

    Parameters
    ----------
    path : of the CSV
    about : further metadata, such as versions and options; must be JSON serialisable
    """
    path = Path(path)
    columns = sim.model.course_ids
    meta = {
        "note": RESEARCH_ONLY,
        "model": {"name": sim.model.name, "hash": sim.model.hash},
        "scenario": sim.scenario.name,
        "units": {"day": "day", **{name: pretty(sim.model[name].unit) for name in columns}},
        "labels": {"day": "day after infusion", **{n: sim.model[n].label for n in columns}},
        "parameters": sim.model.values,
        "doses": len(sim.ledger.given),
        "solver": sim.solver._asdict(),
        **about,
    }
    ledger = path.with_name(f"{path.name}.ledger.csv")
    return {
        path: csv_text(sim).encode(),
        **({} if sim.scenario.decided else {ledger: ledger_text(sim.ledger).encode()}),
        path.with_name(f"{path.name}.meta.json"): json_file(meta),
    }


def csv_text(sim: Simulation) -> str:
    """The table of a run as CSV, with all digits of each number.

    Without pandas, which takes longer to import than the table to write.
    """
    header = ",".join(("day", *sim.model.course_ids))
    rows = np.column_stack([sim.days, sim.states, sim.quantities]).tolist()
    return "\n".join([header, *(",".join(map(repr, row)) for row in rows), ""])


def ledger_text(ledger: Ledger) -> str:
    """A ledger as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([row.values() for row in ledger.rows()])
    return text.getvalue()
