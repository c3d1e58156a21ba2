"""The dose ledger: every dose that was given or held, and why.

Rules for triggers and holds (classes in `crs_sim.triggers`):

* A trigger is evaluated just before any dose of that instant. If its condition is met, its dose is
  given then, or later by the day of the dose.
* With ``every_hours`` it is evaluated on its first day and at this interval until its last day or
  the end of the run, both included. Without, it monitors continuously: the dose is given at the
  first whole minute at which the condition is met. That minute is searched if the condition is met
  at a whole hour (or at the end) and was not at the previous evaluation; a level reached and left
  again between two whole hours may be missed.
* A condition of several parts joined by ``and`` is met where all of them are.
* A trigger with a course gives all its doses, whatever its condition is later; only a hold leaves
  some of them out.
* It fires again while the condition is met, at least ``hours_apart`` after its last dose is decided
  (a course: after its last dose; with ``every_hours``: at the next evaluation after that), at most
  ``at_most`` times.
* Triggers that fire at the same instant do so in scenario order, each on the level before any of
  their doses.
* A hold is evaluated when a dose of its drug is due, planned or ordered by a trigger. If its
  condition is met the dose is left out, not postponed; the ledger lists it as held, and it counts
  towards ``at_most`` of its trigger.
* Doses due after the last day of the run are not in the ledger.

`crs_sim.solver.trigger_resolution` resolves the rules into a scenario with fixed doses. It computes
levels with a relative tolerance of 1e-6 or finer, so that all solvers and ensembles give the same
ledger. Where a level is within that tolerance of its threshold at an evaluation, solvers may
differ; so may a member of an ensemble with other neighbours, since four members share their steps.
The number of workers never matters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..model import Array, Model
from .decisions import Order
from .doses import HOURS_PER_DAY, Dose, Schedule, expand, modelled, timing_parameters
from .event_times import SAME_TIME, parameters_by_day
from .scenario import Scenario

if TYPE_CHECKING:
    import pandas as pd


COLUMNS = ("day", "drug", "amount", "unit", "hours", "given", "why")
"""Columns of the ledger as a table."""


@dataclass(frozen=True)
class Entry:
    """One entry of the ledger: a dose that was given or held.

    Parameters
    ----------
    day : float
    drug : str
    amount : float, in ``unit``, as ordered (per kg if so ordered)
    unit : str
    hours : float, infusion time; 0 is a bolus
    by : str, "planned" or "trigger NAME"
    held : str, the hold that prevented it; "" if it was given
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
        """What ordered it, and the hold that prevented it if any.

        >>> Entry(18, "rimiducid", 0.4, "mg/kg", 2, "planned").why
        'planned'
        """
        if not self.held:
            return self.by
        return f"held: {self.held}" if self.by == "planned" else f"{self.by}, held: {self.held}"


@dataclass(frozen=True)
class Ledger:
    """The doses of one run, given and held, in order of day.

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
        """The doses that were held."""
        return tuple(entry for entry in self.entries if not entry.given)

    def rows(self) -> list[dict[str, object]]:
        """One row per dose, with the keys of `COLUMNS`."""
        return [{name: getattr(entry, name) for name in COLUMNS} for entry in self.entries]

    def table(self) -> pd.DataFrame:
        """The ledger as a DataFrame."""
        import pandas as pd  # slow to load

        return pd.DataFrame(self.rows(), columns=list(COLUMNS))

    def __str__(self) -> str:
        """One line per dose."""
        return "\n".join(
            f"day {e.day:.6g}: {e.drug} {e.amount:g} {e.unit}"
            f"{f' over {e.hours:g} h' if e.hours else ''} ({e.why})"
            for e in self.entries
        )


def ledger_of(
    model: Model, orders: Iterable[Order | Dose], scenario: Scenario, *, until: float
) -> Ledger:
    """The ledger of a run.

    Parameters
    ----------
    model : Model, with the values of patient and scenario
    orders : the ordered doses; a plain `Dose` is a planned one
    scenario : Scenario, for its parameter changes
    until : float, last day of the run
    """
    all_orders = [order if isinstance(order, Order) else Order(order) for order in orders]
    entries = [
        Entry(o.dose.day, o.dose.drug, o.dose.amount, o.dose.unit or model.drug(o.dose.drug).unit,
              _hours(model, scenario, o.dose), o.by, o.held)
        for o in all_orders if o.dose.day <= until + SAME_TIME
    ]  # fmt: skip
    return Ledger(tuple(sorted(entries, key=lambda entry: entry.day)))


def ledgers_of(
    model: Model, orders: Sequence[Order], scenario: Scenario, values: Array, *, until: float
) -> list[Ledger]:
    """The ledgers of ensemble members with the same orders; only infusion times may differ.

    ``values`` (n_members, n_parameters) are the members'; the rest as in `ledger_of`.
    """
    if not timed_by_parameters(model, scenario):
        return [ledger_of(model, orders, scenario, until=until)] * len(values)
    members = (
        model.with_values(**dict(zip(model.parameter_ids, row, strict=True))) for row in values
    )
    return [ledger_of(member, orders, scenario, until=until) for member in members]


def timed_by_parameters(model: Model, scenario: Scenario) -> bool:
    """Whether the start or stop of any dose depends on parameters."""
    doses = (*scenario.doses, *(trigger.dose for trigger in scenario.triggers))
    kinds = {(d.drug, d.hours is None, d.rate is None, d.modelled): d for d in doses}
    return any(timing_parameters(model, dose) for dose in kinds.values())


def _hours(model: Model, scenario: Scenario, dose: Dose) -> float:
    """Infusion time of a dose in hours."""
    drug = model.drug(dose.drug)
    if dose.rate is None and not modelled(dose, drug):
        return drug.hours if dose.hours is None else dose.hours
    given = expand(model, Schedule((dose,)), parameters_by_day(model, scenario))[0]
    return given.length * HOURS_PER_DAY
