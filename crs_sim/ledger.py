"""The dose ledger: every dose that was given or held, and why; and the runs that decide on them.

What triggers and holds mean (`crs_sim.triggers` has them as values):

* A trigger looks at the level just before anything that is given at that instant. If its
  condition holds, its dose is given then; or as many days later as the dose says.
* With ``every_hours`` it looks on its first day and every so many hours after it, until its last
  day or the end of the run, both included. Without, it watches all the time: the dose is given at
  the first whole minute of the run at which the condition holds. That minute is looked for where
  the condition holds at a whole hour (or at the end) and did not at the last look before; a level
  reached and left again between two whole hours may be missed.
* It fires again while the condition holds, ``hours_apart`` later at the earliest (in rounds: at
  the next round then), and ``at_most`` times in all.
* Triggers that fire at one instant do so in the order of the scenario, all of them on the level
  before any of their doses.
* A hold looks when a dose of its drug is due, planned or ordered by a trigger. If its condition
  holds the dose is left out, not postponed; it stands in the ledger as held, and for its trigger
  it counts as one of ``at_most``.
* Doses due after the last day of the run are nobody's yet: they are not in the ledger.

The run is made, the first instant found at which something is decided, that written down, and the
run made again, until there is nothing more to decide: what remains is a scenario like any other.
Levels are computed with a relative tolerance of `DECIDING` or finer (`DECIDING_PLAIN` by SciPy's
methods), so that all solvers and ensembles come to the same ledger. Where a level passes its
threshold within that tolerance of a look, solvers may differ; so may a member of an ensemble whose
neighbours are others, since four members share their steps. The number of workers never matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .arrivals import SAME_TIME, values_on
from .decisions import Book, Levels, Rules, check_rules, distinct
from .dosing import HOURS_PER_DAY, Dose, Schedule, expand, modelled, times_from
from .integrate import COMPILED, integrate
from .kernel import compile_kernel
from .model import Model
from .scenario import Scenario
from .timeline import timeline

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

DECIDING = 1e-6
"""Relative tolerance of the runs that decide: levels are right to a fraction of a second."""
DECIDING_PLAIN = 1e-8
"""The same for SciPy's methods: BDF is a hundred times less accurate than its tolerance."""
COLUMNS = ("day", "drug", "amount", "unit", "hours", "given", "why")
"""Of the ledger as a table."""


@dataclass(frozen=True)
class Entry:
    """A line of the ledger: a dose that was given, or held.

    Parameters
    ----------
    day : float
    drug : str
    amount : float, in ``unit``, as ordered (per kg if it was)
    unit : str
    hours : float, infusion time; 0 is a bolus
    by : str, "planned" or "trigger NAME"
    held : str, the hold that kept it back; "" if it was given
    """

    day: float
    drug: str
    amount: float
    unit: str
    hours: float
    by: str
    held: str = ""

    @property
    def given(self) -> bool:
        """Whether it was given."""
        return not self.held

    @property
    def why(self) -> str:
        """Who ordered it, or why it was not given.

        >>> Entry(18, "rimiducid", 0.4, "mg/kg", 2, "planned").why
        'planned'
        """
        if not self.held:
            return self.by
        return f"held: {self.held}" if self.by == "planned" else f"{self.by}, held: {self.held}"


@dataclass(frozen=True)
class Ledger:
    """The doses of one run in the order of their days, those held among them.

    Examples
    --------
    >>> from crs_sim import Dose, Scenario, Schedule, load_model, simulate
    >>> plan = Scenario("plan", Schedule((Dose(1, "tocilizumab", 8, "mg/kg"),)))
    >>> print(simulate(load_model("crs"), plan, until=1).ledger)
    day 1: tocilizumab 8 mg/kg over 1 h (planned)
    """

    entries: tuple[Entry, ...] = ()

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def given(self) -> tuple[Entry, ...]:
        """The doses that were given."""
        return tuple(entry for entry in self.entries if entry.given)

    @property
    def held(self) -> tuple[Entry, ...]:
        """The doses that were not."""
        return tuple(entry for entry in self.entries if not entry.given)

    def rows(self) -> list[dict[str, object]]:
        """One row for each dose, by `COLUMNS`."""
        return [{name: getattr(entry, name) for name in COLUMNS} for entry in self.entries]

    def table(self) -> pd.DataFrame:
        """The rows as a table."""
        import pandas as pd  # slow to load

        return pd.DataFrame(self.rows(), columns=list(COLUMNS))

    def __str__(self) -> str:
        """One line for each dose."""
        return "\n".join(
            f"day {e.day:.6g}: {e.drug} {e.amount:g} {e.unit}"
            f"{f' over {e.hours:g} h' if e.hours else ''} ({e.why})"
            for e in self.entries
        )


@dataclass(frozen=True, eq=False)
class Course:
    """Members of a table that came to one ledger, and the scenario it makes.

    ``members`` (n,) are their rows in the table.
    """

    members: Indices
    scenario: Scenario
    book: Book


def settled(
    model: Model, scenario: Scenario, *, until: float,
    method: str = COMPILED, rtol: float = DECIDING,
) -> tuple[Scenario, Ledger]:  # fmt: skip
    """What triggers and holds come to: a scenario that is decided, and its dose ledger.

    Parameters
    ----------
    model : Model
    scenario : Scenario, its values are put into the model first
    until : float, last day of the run
    method, rtol : as of `crs_sim.simulate`; never less accurate than `DECIDING`

    Raises
    ------
    InputError, UnknownNameError, UnitError
        For a trigger or hold that names what the model has not, a dose that cannot be converted, or
        a trigger that is first looked at after the end of the run.
    IntegrationError
        When the solver gives up. The compiled one decides all that comes before that.

    Examples
    --------
    >>> from crs_sim import Condition, Dose, Trigger
    >>> from crs_sim.model import Model, Parameter, State
    >>> growth = Model(
    ...     "growth", (State("A", "1", "k*A", "mg", "", ""), State("B", "0", "-B", "mg", "", "")),
    ...     (Parameter("k", 0.693147, "1/day", "", ""),))
    >>> late = Trigger("late", Condition.read("A >= 4"), Dose(0, "B", 5), at_most=2, hours_apart=24)
    >>> print(settled(growth, Scenario("watched", triggers=(late,)), until=3)[1])
    day 2.00069: B 5 mg (trigger late)
    """
    patient = model.with_values(**scenario.values)
    if scenario.decided:
        return scenario, ledger_of(patient, scenario, until=until)
    check_rules(patient, scenario, until)
    rules = Rules(scenario, until)
    if method == COMPILED:
        values = np.array([list(patient.values.values())])
        see = _compiled(patient, rules, values, min(rtol, DECIDING))
    else:
        see = _plain(patient, rules, method, min(rtol, DECIDING_PLAIN))
    found = _courses(rules, 1, see)[0]
    return found.scenario, ledger_of(patient, scenario, found.book, until=until)


def settled_members(
    model: Model, scenario: Scenario, values: Array, *, until: float, rtol: float = DECIDING
) -> list[Course]:
    """The same for many members at once: those that came to one ledger, together.

    Parameters
    ----------
    model : Model, with the scenario's values
    scenario : Scenario, that has passed `check_rules`
    values : (n_members, n_parameters)
    until, rtol : as of `settled`
    """
    rules = Rules(scenario, until)
    return _courses(rules, len(values), _compiled(model, rules, values, min(rtol, DECIDING)))


def ledger_of(
    model: Model, scenario: Scenario, book: Book | None = None, *, until: float
) -> Ledger:
    """The ledger of a run: its book's, or that of the plan.

    Parameters
    ----------
    model : Model, with the values of patient and scenario
    scenario : Scenario
    book : Book or None, what was decided
    until : float, last day of the run
    """
    orders = (book or Rules(scenario, until).opened()).orders
    entries = [
        Entry(o.dose.day, o.dose.drug, o.dose.amount, o.dose.unit or model.drug(o.dose.drug).unit,
              _hours(model, scenario, o.dose), o.by, o.held)
        for o in orders if o.dose.day <= until + SAME_TIME
    ]  # fmt: skip
    return Ledger(tuple(sorted(entries, key=lambda entry: entry.day)))


def ledgers_of(
    model: Model, scenario: Scenario, course: Course, values: Array, *, until: float
) -> list[Ledger]:
    """The ledgers of members that came to one book; they differ in infusion times at most.

    ``values`` (n_members, n_parameters) are theirs; the others as of `ledger_of`.
    """
    if not any(times_from(model, order.dose) for order in course.book.orders):
        return [ledger_of(model, scenario, course.book, until=until)] * len(values)
    own = (model.with_values(**dict(zip(model.parameter_ids, row, strict=True))) for row in values)
    return [ledger_of(one, scenario, course.book, until=until) for one in own]


def _hours(model: Model, scenario: Scenario, dose: Dose) -> float:
    """How long a dose takes."""
    drug = model.drug(dose.drug)
    if dose.rate is None and not modelled(dose, drug):
        return drug.hours if dose.hours is None else dose.hours
    given = expand(model, Schedule((dose,)), values_on(model, scenario))[0]
    return given.length * HOURS_PER_DAY


See = Callable[[Book, Indices, Array], Array]
"""Levels (n_members, n_days, n_names) of members under a book, on days."""


def _courses(rules: Rules, n_members: int, see: See) -> list[Course]:
    """All members decided, those under one book side by side as long as they are."""
    waiting = {rules.opened(): list(range(n_members))}
    over: dict[Book, list[int]] = {}
    while waiting:
        following: dict[Book, list[int]] = {}
        for book, members in waiting.items():
            for member, after in zip(members, _next(rules, book, members, see), strict=True):
                if after is None:
                    over.setdefault(book, []).append(member)
                else:
                    following.setdefault(after, []).append(member)
        waiting = following
    courses = [Course(np.array(rows), rules.decided(book), book) for book, rows in over.items()]
    return sorted(courses, key=lambda course: int(course.members[0]))


def _next(rules: Rules, book: Book, members: list[int], see: See) -> list[Book | None]:
    """Each member's book after its next decision; None where there is none to come."""
    days = rules.looks(book)
    if not len(days):
        return [None] * len(members)
    rows = np.array(members)
    seen = [Levels(rules.watched, days, levels) for levels in see(book, rows, days)]
    minutes = distinct(np.concatenate([rules.minutes(book, levels) for levels in seen]))
    if not len(minutes):
        return [rules.decide(book, levels) for levels in seen]
    closer = [Levels(rules.watched, minutes, levels) for levels in see(book, rows, minutes)]
    return [rules.decide(book, *levels) for levels in zip(seen, closer, strict=True)]


def _compiled(model: Model, rules: Rules, values: Array, rtol: float) -> See:
    """Levels from the compiled kernel; not a number from the day on which a run failed."""
    kernel, ids = compile_kernel(model), (*model.state_ids, *model.quantity_ids)
    columns = [ids.index(name) for name in rules.watched]

    def see(book: Book, members: Indices, days: Array) -> Array:
        line, _ = timeline(model, rules.decided(book), days)
        runs = kernel.run(line, values[members], rtol=rtol)
        n_states = len(model.states)
        return np.stack(
            [runs.states[:, :, k] if k < n_states else runs.quantities[:, :, k - n_states]
             for k in columns], axis=-1,
        )  # fmt: skip

    return see


def _plain(model: Model, rules: Rules, method: str, rtol: float) -> See:
    """Levels of the one run of a model by a method of SciPy."""
    ids = (*model.state_ids, *model.quantity_ids)
    columns = [ids.index(name) for name in rules.watched]

    def see(book: Book, _: Indices, days: Array) -> Array:
        line, _given = timeline(model, rules.decided(book), days)
        states, quantities, _cost = integrate(model, line, method=method, rtol=rtol)
        return np.hstack([states, quantities])[None, :, columns]

    return see
