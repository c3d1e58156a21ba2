"""The dose ledger: every dose that was given or held, and why.

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

`crs_sim.settling` finds out, and what remains is a scenario like any other. It computes levels with
a relative tolerance of 1e-6 or finer, so that all solvers and ensembles come to the same ledger.
Where a level passes its threshold within that tolerance of a look, solvers may differ; so may a
member of an ensemble whose neighbours are others, since four members share their steps. The number
of workers never matters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .arrivals import SAME_TIME, values_on
from .decisions import Order
from .dosing import HOURS_PER_DAY, Dose, Schedule, expand, modelled, times_from
from .model import Model
from .scenario import Scenario

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

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


def ledger_of(
    model: Model, orders: Iterable[Order | Dose], scenario: Scenario, *, until: float
) -> Ledger:
    """The ledger of a run.

    Parameters
    ----------
    model : Model, with the values of patient and scenario
    orders : what was ordered; doses are the plan's
    scenario : Scenario, for its changes
    until : float, last day of the run
    """
    made = [order if isinstance(order, Order) else Order(order) for order in orders]
    entries = [
        Entry(o.dose.day, o.dose.drug, o.dose.amount, o.dose.unit or model.drug(o.dose.drug).unit,
              _hours(model, scenario, o.dose), o.by, o.held)
        for o in made if o.dose.day <= until + SAME_TIME
    ]  # fmt: skip
    return Ledger(tuple(sorted(entries, key=lambda entry: entry.day)))


def ledgers_of(
    model: Model, orders: Sequence[Order], scenario: Scenario, values: Array, *, until: float
) -> list[Ledger]:
    """The ledgers of members with the same orders; they differ in infusion times at most.

    ``values`` (n_members, n_parameters) are theirs; the others as of `ledger_of`.
    """
    if not timed_by_parameters(model, scenario):
        return [ledger_of(model, orders, scenario, until=until)] * len(values)
    own = (model.with_values(**dict(zip(model.parameter_ids, row, strict=True))) for row in values)
    return [ledger_of(one, orders, scenario, until=until) for one in own]


def timed_by_parameters(model: Model, scenario: Scenario) -> bool:
    """Whether parameters decide when some dose begins or ends."""
    doses = (*scenario.doses, *(trigger.dose for trigger in scenario.triggers))
    kinds = {(d.drug, d.hours is None, d.rate is None, d.modelled): d for d in doses}
    return any(times_from(model, dose) for dose in kinds.values())


def _hours(model: Model, scenario: Scenario, dose: Dose) -> float:
    """How long a dose takes."""
    drug = model.drug(dose.drug)
    if dose.rate is None and not modelled(dose, drug):
        return drug.hours if dose.hours is None else dose.hours
    given = expand(model, Schedule((dose,)), values_on(model, scenario))[0]
    return given.length * HOURS_PER_DAY
