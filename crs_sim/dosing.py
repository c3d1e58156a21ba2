"""What is given, when, for how long: doses and schedules, and their exact expansion.

A `Dose` is one administration as a person would write it (0.4 mg/kg over 2 hours on day 11).
`expand` turns a schedule into `Input`s, amounts in the unit of the state they enter, with exact
start and stop; per-kg doses are resolved from the model's ``weight`` parameter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from .errors import InputError
from .model import Drug, Model
from .units import conversion_factor

HOURS_PER_DAY = 24.0


@dataclass(frozen=True)
class Dose:
    """One administration: ``amount`` of ``drug`` starting on ``day``.

    Parameters
    ----------
    day : float, days after the CAR-T infusion
    drug : str, a drug of the model, or the id of a state
    amount : float, not negative, in ``unit``
    unit : str, e.g. "mg" or "mg/kg"; "" means the drug's own unit
    hours : float or None, infusion time; 0 is a bolus, None the drug's usual time
    """

    day: float
    drug: str
    amount: float
    unit: str = ""
    hours: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("day", self.day), ("amount", self.amount), ("hours", self.hours)):
            if value is not None and not math.isfinite(value):
                raise InputError(f"dose of {self.drug}: {name} is {value}; give a finite number")
        if self.amount < 0:
            raise InputError(f"dose of {self.drug} on day {self.day:g}: amount is negative")
        if self.hours is not None and self.hours < 0:
            raise InputError(f"dose of {self.drug} on day {self.day:g}: hours is negative")

    def repeated(self, every: float, doses: int) -> Schedule:
        """This dose ``doses`` times, one each ``every`` hours, at day + k*every/24 exactly.

        >>> [d.day for d in Dose(19, "dexamethasone", 10, "mg").repeated(6, 3).doses]
        [19.0, 19.25, 19.5]
        """
        if not (math.isfinite(every) and every > 0):
            raise InputError(f"{self.drug}: every must be a positive number of hours, not {every}")
        if doses < 1:
            raise InputError(f"{self.drug}: doses must be at least 1, not {doses}")
        days = (self.day + k * every / HOURS_PER_DAY for k in range(doses))
        return Schedule(tuple(replace(self, day=day) for day in days))


@dataclass(frozen=True)
class Schedule:
    """Doses in the order they were written. Schedules add, shift and scale; none changes."""

    doses: tuple[Dose, ...] = ()

    def __add__(self, other: Schedule | Dose) -> Schedule:
        more = other.doses if isinstance(other, Schedule) else (other,)
        return Schedule(self.doses + more)

    def __iter__(self) -> Iterator[Dose]:
        return iter(self.doses)

    def __len__(self) -> int:
        return len(self.doses)

    @property
    def drugs(self) -> tuple[str, ...]:
        """Drug names in order of first use."""
        return tuple(dict.fromkeys(d.drug for d in self.doses))

    def shifted(self, days: float) -> Schedule:
        """Every dose this many days later (earlier if negative)."""
        return Schedule(tuple(replace(d, day=d.day + days) for d in self.doses))

    def scaled(self, factor: float) -> Schedule:
        """Every amount times ``factor``."""
        return Schedule(tuple(replace(d, amount=d.amount * factor) for d in self.doses))

    def only(self, *drugs: str) -> Schedule:
        """The doses of these drugs."""
        return Schedule(tuple(d for d in self.doses if d.drug in drugs))

    def without(self, *drugs: str) -> Schedule:
        """All doses but those of these drugs."""
        return Schedule(tuple(d for d in self.doses if d.drug not in drugs))

    def between(self, first: float, last: float) -> Schedule:
        """The doses with first <= day < last."""
        return Schedule(tuple(d for d in self.doses if first <= d.day < last))


@dataclass(frozen=True)
class Input:
    """One dose as the solver sees it: ``amount`` (state's unit) into a state from start to stop."""

    start: float
    stop: float
    state: str
    amount: float
    drug: str
    dose: Dose

    @property
    def rate(self) -> float:
        """Amount per day during an infusion."""
        return self.amount / (self.stop - self.start)


def amount_in(model: Model, dose: Dose, drug: Drug) -> float:
    """The dose in the drug's unit: converted, and multiplied or divided by body weight if need be.

    Raises
    ------
    UnitError
        If the unit cannot be converted, with and without body weight.
    InputError
        If the dose is per kg and the model has no ``weight`` parameter.
    """
    unit = dose.unit or drug.unit
    where = f"dose of {dose.drug} on day {dose.day:g}"
    factor, weight_power = conversion_factor(unit, drug.unit, where)
    if weight_power and "weight" not in model.values:
        raise InputError(f"{where}: {unit} needs a body weight, and the model has no 'weight'")
    weight = model.values["weight"] if weight_power else 1.0
    return dose.amount * factor * weight**weight_power


def expand(model: Model, schedule: Schedule) -> tuple[Input, ...]:
    """The schedule as solver inputs, in the order written.

    Raises
    ------
    UnknownNameError, UnitError, InputError
        For a drug the model does not know or an amount it cannot convert.
    """
    inputs = []
    for dose in schedule:
        drug = model.drug(dose.drug)
        arrives = model.values[drug.bioavailability] if drug.bioavailability else 1.0
        hours = drug.hours if dose.hours is None else dose.hours
        stop = dose.day + hours / HOURS_PER_DAY
        amount = amount_in(model, dose, drug) * arrives
        inputs.append(Input(dose.day, stop, drug.into, amount, drug.name, dose))
    return tuple(inputs)
