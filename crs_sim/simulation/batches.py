"""Many runs in batches: every member of a table of parameter values under every scenario.

Four members run side by side in SIMD lanes, grouped by their row in the table alone; batches run in
threads. So the results do not depend on the number of workers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ..dosing import Ledger, Scenario, Timeline, build_timeline, check_days, check_rules, ledgers_of
from ..errors import InputError, unknown_name
from ..model import Array, Indices, Model
from ..solver import DONE, Runs, compile_kernel, explain, resolve_members
from .endpoints import Dense, states_of
from .ensemble import Ensemble, Failure, Sampling, member_columns
from .workers import StoppedError, thread_map

if TYPE_CHECKING:
    import pandas as pd


Ledgers = dict[str, dict[Hashable, Ledger]]
Found = tuple[Array, Array]
"""Curves (n_outputs, n_scenarios, n_members, n_days), endpoints (n_endpoints, n_scenarios,
n_members)."""

BATCH = 64
"""Members in a batch: a multiple of the four SIMD lanes."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Some members to run, with all that `run_batch` needs here or on another machine.

    Parameters
    ----------
    model : Model
    scenarios : tuple of Scenario
    lines : tuple of Timeline, one for each scenario; planned doses only if it has triggers or holds
    sampling : Sampling, with its outputs named
    names : parameters that differ between members
    members : ids
    values : (n_members, n_names)
    """

    model: Model
    scenarios: tuple[Scenario, ...]
    lines: tuple[Timeline, ...]
    sampling: Sampling
    names: tuple[str, ...] = ()
    members: tuple[Hashable, ...] = ()
    values: Array = field(default_factory=lambda: np.zeros((0, 0)))

    def parameters(self, scenario: Scenario) -> Array:
        """All parameters of each member under a scenario, (n_members, n_parameters)."""
        nominal = {**self.model.values, **scenario.values}
        table = np.tile(np.array(list(nominal.values()), dtype=float), (len(self.members), 1))
        table[:, [self.model.parameter_ids.index(name) for name in self.names]] = self.values
        return table

    def empty(self, n_members: int) -> Found:
        """Uninitialised arrays for the curves and endpoints of ``n_members`` members."""
        assert self.sampling.outputs is not None
        n_days = len(self.sampling.sample_days)
        kinds, n_ends = len(self.scenarios), len(self.sampling.endpoints)
        courses = np.empty((len(self.sampling.outputs), kinds, n_members, n_days))
        return courses, np.empty((n_ends, kinds, n_members))

    def result(
        self, members: Iterable[Hashable], found: Found, failures: Iterable[Failure],
        ledgers: Ledgers,
    ) -> Ensemble:  # fmt: skip
        """The ensemble of these members."""
        courses, values = found
        ends = {e.name: v for e, v in zip(self.sampling.endpoints, values, strict=True)}
        outputs = tuple(self.sampling.outputs or ())
        days, finished = self.sampling.sample_days, tuple(members)
        kept = {name: {m: own[m] for m in finished} for name, own in ledgers.items()}
        return Ensemble(
            self.model, self.scenarios, days, outputs, finished, courses, ends, tuple(failures),
            kept,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Plan:
    """Many runs, checked and split into batches, for a cluster or any other scheduler.

    Parameters
    ----------
    batch : Batch without members, the part common to all batches
    members : ids, n_members of them
    columns : parameter name to (n_members,) values
    """

    batch: Batch
    members: Sequence[Hashable]
    columns: Mapping[str, Array]

    def batches(self) -> Iterator[Batch]:
        """The batches in the order of the members; each can be pickled."""
        for first in range(0, len(self.members), BATCH):
            rows = slice(first, first + BATCH)
            members = tuple(self.members[rows])
            values = np.zeros((len(members), len(self.columns)))
            for k, column in enumerate(self.columns.values()):
                values[:, k] = column[rows]
            yield replace(self.batch, members=members, values=values)

    def gather(self, parts: Iterable[Ensemble]) -> Ensemble:
        """Combine the results of all batches, in their order, into one ensemble."""
        (courses, ends), failures = self.batch.empty(len(self.members)), list[Failure]()
        finished: list[Hashable] = []
        ledgers: Ledgers = {s.name: {} for s in self.batch.scenarios if not s.decided}
        for part in parts:
            rows = slice(len(finished), len(finished) + len(part.members))
            courses[:, :, rows] = part.courses
            for place, end in enumerate(self.batch.sampling.endpoints):
                ends[place, :, rows] = part.endpoints[end.name]
            finished += part.members
            failures += part.failures
            for name, own in part.ledgers.items():
                ledgers[name].update(own)
        n = len(finished)
        return self.batch.result(finished, (courses[:, :, :n], ends[:, :, :n]), failures, ledgers)


def simulate_many(
    model: Model,
    scenarios: Scenario | Sequence[Scenario],
    values: pd.DataFrame | Mapping[str, ArrayLike],
    *,
    sampling: Sampling | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Ensemble:
    """Run every member of a table under every scenario, on all cores, and return all results.

    Parameters
    ----------
    model : Model
    scenarios : one, or several with distinct names; their values replace those of the model
    values : parameter id to (n_members,) values; the index of a DataFrame gives the members' ids.
        No parameter may be set both here and by a scenario
    sampling : Sampling, by default all outputs once a day until day 40
    workers : int, threads; None uses one for each core. Results do not depend on it
    progress : called with the members done and the total, after each batch

    Raises
    ------
    InputError, UnknownNameError, UnitError
        If the input is invalid. A run that fails raises nothing: see `Ensemble.failures`.

    Examples
    --------
    >>> from crs_sim import Model, Parameter, State
    >>> decay = Model("decay", (State("A", "8", "-k*A", "mg", "", ""),),
    ...               (Parameter("k", 1.0, "1/day", "", ""),))
    >>> from crs_sim import Scenario
    >>> rates = {"k": [0.693147, 1.386294]}
    >>> many = simulate_many(decay, Scenario("none"), rates, sampling=Sampling(until=2))
    >>> many.course("A").round(2).tolist()
    [[8.0, 4.0, 2.0], [8.0, 2.0, 0.5]]
    """
    plan = plan_batches(model, scenarios, values, sampling)
    return plan.gather(_run(plan, workers, progress))


def simulate_batches(
    model: Model,
    scenarios: Scenario | Sequence[Scenario],
    values: pd.DataFrame | Mapping[str, ArrayLike],
    *,
    sampling: Sampling | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Ensemble]:
    """Run as `simulate_many`, but yield one small ensemble per batch: for more than memory holds.

    Batches come in the order of the members. Only a few run ahead of the consumer, so memory does
    not grow with their number; closing the iterator stops the work.

    Examples
    --------
    >>> from crs_sim import Model, Parameter, State
    >>> decay = Model("decay", (State("A", "8", "-k*A", "mg", "", ""),),
    ...               (Parameter("k", 1.0, "1/day", "", ""),))
    >>> from crs_sim import Scenario
    >>> batches = simulate_batches(decay, Scenario("none"), {"k": [1.0] * 100})
    >>> [len(batch.members) for batch in batches]
    [64, 36]
    """
    return _run(plan_batches(model, scenarios, values, sampling), workers, progress)


def _run(
    plan: Plan, workers: int | None, progress: Callable[[int, int], None] | None
) -> Iterator[Ensemble]:
    """Run a plan's batches; their results come in order."""
    compile_kernel(plan.batch.model)  # before any thread starts, so that its message comes first
    stop = threading.Event()
    parts = thread_map(partial(run_batch, stop=stop), plan.batches(), workers=workers, stop=stop)
    return _with_progress(parts, len(plan.members), progress)


def _with_progress(
    parts: Iterator[Ensemble], total: int, progress: Callable[[int, int], None] | None
) -> Iterator[Ensemble]:
    done = 0
    try:
        for part in parts:
            done = min(total, done + BATCH)
            if progress is not None:
                progress(done, total)
            yield part
    finally:
        parts.close()  # type: ignore[attr-defined]


def run_batch(batch: Batch, *, stop: threading.Event | None = None) -> Ensemble:
    """Run the members of one batch under every scenario.

    Parameters
    ----------
    batch : Batch, from `Plan.batches`
    stop : once it is set, no further scenario is started

    Raises
    ------
    StoppedError
        If ``stop`` was set.
    """
    found, failures = batch.empty(len(batch.members)), list[tuple[int, Failure]]()
    ledgers: Ledgers = {}
    for k, scenario in enumerate(batch.scenarios):
        if stop is not None and stop.is_set():
            raise StoppedError
        values = batch.parameters(scenario)
        if scenario.decided:
            lines = [(np.arange(len(values)), batch.lines[k])]
        else:
            lines, ledgers[scenario.name] = _resolved_lines(batch, scenario, values)
        for rows, line in lines:
            failures += _run_scenario(batch, k, rows, line, values[rows], found)
    failures.sort(key=lambda failure: failure[0])  # stable: scenarios stay in their order
    kept = np.setdiff1d(np.arange(len(batch.members)), [i for i, _ in failures])
    if len(kept) < len(batch.members):
        found = found[0][:, :, kept], found[1][:, :, kept]
    return batch.result((batch.members[i] for i in kept), found, (f for _, f in failures), ledgers)


def _resolved_lines(
    batch: Batch, scenario: Scenario, values: Array
) -> tuple[list[tuple[Indices, Timeline]], dict[Hashable, Ledger]]:
    """Rows with their timelines after triggers and holds are resolved, and ledgers by member."""
    days = batch.sampling.solved_days
    model, until = batch.model.with_values(**scenario.values), float(days[-1])
    lines, ledgers = [], dict[Hashable, Ledger]()
    groups = resolve_members(model, scenario, values, until=until, rtol=batch.sampling.rtol)
    for group in groups:
        rows = group.members
        lines.append((rows, build_timeline(model, group.scenario, days)[0]))
        found = ledgers_of(model, group.orders, scenario, values[rows], until=until)
        ledgers.update(zip((batch.members[i] for i in rows), found, strict=True))
    return lines, ledgers


def _run_scenario(
    batch: Batch, k: int, rows: Indices, line: Timeline, values: Array, found: Found
) -> Iterator[tuple[int, Failure]]:
    """Run some members under scenario k, store what is found, and yield the failures."""
    (courses, ends), sampling, ids = found, batch.sampling, batch.model.state_ids
    watched = states_of(batch.model, [e.needs for e in sampling.endpoints])
    runs = compile_kernel(batch.model).run(
        line, values, rtol=sampling.rtol, watched=[ids.index(name) for name in watched]
    )
    sampled = np.searchsorted(sampling.solved_days, sampling.sample_days)
    for place, name in enumerate(sampling.outputs or ()):
        table, names = (
            (runs.states, ids) if name in ids else (runs.quantities, batch.model.quantity_ids)
        )
        courses[place, k, rows] = table[:, sampled, names.index(name)]
    for some in _alike(line, values, runs) if len(ends) else ():
        dense = Dense.compiled(
            batch.model, watched, line.at(values[some[0]]), runs.of(some), values[some]
        )
        ends[:, k, rows[some]] = [e.of(dense) for e in sampling.endpoints]
    finite = np.isfinite(courses[:, k, rows]).all(axis=(0, 2))
    broken = (runs.status != DONE) | ~finite | ~np.isfinite(ends[:, k, rows]).all(axis=0)
    for i in np.flatnonzero(broken).tolist():
        if runs.status[i] != DONE:
            own = line.at(values[i])
            day = own.day_at(runs.reached[i])
            reason = explain(batch.model, own, values[i], runs, i)
        else:
            day, reason = _not_a_number(batch, courses[:, k, rows[i]], ends[:, k, rows[i]])
        member = int(rows[i])
        failure = Failure(batch.members[member], batch.scenarios[k].name, float(day), reason)
        yield member, failure


def _alike(line: Timeline, values: Array, runs: Runs) -> list[Indices]:
    """The runs that ended, by the times of their doses: all together, or one by one."""
    done = np.flatnonzero(runs.status == DONE)
    return (
        [done[k : k + 1] for k in range(len(done))]
        if len(line.moving)
        else [done] * bool(len(done))
    )


def _not_a_number(batch: Batch, courses: Array, ends: Array) -> tuple[float, str]:
    bad, day, when = np.argwhere(~np.isfinite(courses.T)), 0.0, "between samples"
    name = next((e.needs for e, v in zip(batch.sampling.endpoints, ends, strict=True)
                 if not np.isfinite(v)), "")  # fmt: skip
    if len(bad):
        name, day = (batch.sampling.outputs or ())[bad[0][1]], batch.sampling.sample_days[bad[0][0]]
        when = f"on day {day:.6g}"
    return day, (
        f"{batch.model.name}: {name} is not a finite number {when}, though every state "
        "is: its formula is outside its domain; check the values of the parameters in it"
    )


def plan_batches(
    model: Model,
    scenarios: Scenario | Sequence[Scenario],
    values: pd.DataFrame | Mapping[str, ArrayLike],
    sampling: Sampling | None = None,
) -> Plan:
    """Check everything and split it into batches; ``gather(map(run_batch, batches()))`` runs it.

    Parameters and errors are those of `simulate_many`.
    """
    several = (scenarios,) if isinstance(scenarios, Scenario) else tuple(scenarios)
    members, columns = member_columns(model, values)
    _check_scenarios(several, columns)
    sampling = sampling or Sampling()
    available = (*model.state_ids, *model.quantity_ids)
    outputs = available if sampling.outputs is None else tuple(dict.fromkeys(sampling.outputs))
    for name in outputs:
        if name not in available:
            raise unknown_name("state or quantity", name, available, model.path)
    days = sampling.solved_days
    lines = tuple(_planned_line(model.with_values(**s.values), s, days) for s in several)
    batch = Batch(model, several, lines, replace(sampling, outputs=outputs), tuple(columns))
    return Plan(batch, members, columns)


def _planned_line(model: Model, scenario: Scenario, days: Array) -> Timeline:
    """The timeline of the planned doses; triggers and holds are only checked."""
    if not scenario.decided:
        check_days(days)
        check_rules(model, scenario, float(days[-1]))
    return build_timeline(model, replace(scenario, triggers=(), holds=()), days)[0]


def _check_scenarios(scenarios: tuple[Scenario, ...], columns: Mapping[str, Any]) -> None:
    if not scenarios:
        raise InputError("scenarios: give at least one")
    names = [s.name for s in scenarios]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"scenarios: two are named {name!r}; give each its own name")
    for scenario in scenarios:
        for name in scenario.values:
            if name in columns:
                raise InputError(
                    f"{name} is set both by scenario {scenario.name!r} and by the members' "
                    f"values: delete the column {name}, or the scenario's value of it"
                )
