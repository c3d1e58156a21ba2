"""Doses and schedules, and their expansion into solver inputs with exact times.

A `Dose` is one administration as written in a chart (0.4 mg/kg over 2 hours on day 11). `expand`
turns a schedule into `Input`s: amounts in the unit of the state they enter, with exact start and
stop. Per-kg doses use the model's ``weight`` parameter; lag, duration, rate and bioavailability use
the parameters named by the drug.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from ..errors import InputError, ask
from ..model import Drug, Model, days_in, plain_number, pretty

HOURS_PER_DAY = 24.0
DAY_TOLERANCE = 1e-6
Values = Mapping[str, float]


@dataclass(frozen=True)
class Dose:
    """One administration: ``amount`` of ``drug`` starting on ``day``.

    Parameters
    ----------
    day : float, days after the CAR-T infusion
    drug : str, a drug of the model, or the id of a state
    amount : float, not negative, in ``unit``
    unit : str, e.g. "mg" or "mg/kg"; "" means the drug's own unit
    hours : float or None, infusion time; 0 is a bolus, None the drug's own: its parameter
        ``duration`` or ``rate`` if it has just one of them, else its default infusion time
    rate : float or None, infusion rate in ``unit`` per hour, instead of ``hours``: the duration
        follows from the bioavailable amount
    modelled : str, "duration" or "rate": which of the drug's parameters determines the infusion
        time, for a drug that has both
    steady : str, "" for an ordinary dose. "alone": on ``day`` the states are set to the steady
        state of such doses, one each ``every`` hours (SS = 1 in NONMEM). "added": that steady
        state is added to the states (SS = 2). With ``every`` = 0 it is a constant infusion of
        ``rate`` that ends on ``day``; its amount is 0.
    every : float, dosing interval of the steady state in hours
    ordered : float or None, the day whose parameter values give lag, bioavailability and infusion
        time, if not ``day``; a reset after it cancels the dose
    early : float, days by which a lagged bolus arrives before ``day`` plus its lag: a nanoday or
        so, where it is to precede whatever else happens at that instant
    """

    day: float
    drug: str
    amount: float
    unit: str = ""
    hours: float | None = None
    rate: float | None = None
    modelled: Literal["", "duration", "rate"] = ""
    steady: Literal["", "alone", "added"] = ""
    every: float = 0.0
    ordered: float | None = None
    early: float = 0.0

    def __post_init__(self) -> None:
        for name in ("day", "amount", "hours", "rate", "every", "ordered", "early"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise InputError(f"dose of {self.drug}: {name} is {value}; give a finite number")
        where = f"dose of {self.drug} on day {self.day:g}"
        for name in ("amount", "hours", "every"):
            if (getattr(self, name) or 0.0) < 0:
                raise InputError(f"{where}: {name} is negative")
        if self.rate is not None and (self.hours is not None or self.rate <= 0):
            raise InputError(f"{where}: give either hours or a rate above 0")
        if self.modelled and (self.hours is not None or self.rate is not None):
            raise InputError(f"{where}: its {self.modelled} is a parameter; give no hours or rate")
        _check_steady(self, where)

    @property
    def constant(self) -> bool:
        """Whether it is a constant infusion, at steady state, that ends on its day."""
        return bool(self.steady) and self.every == 0

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


def _check_steady(dose: Dose, where: str) -> None:
    if dose.steady not in ("", "alone", "added"):
        raise InputError(f"{where}: steady is {dose.steady!r}; it is '', 'alone' or 'added'")
    if dose.every and not dose.steady:
        raise InputError(f"{where}: 'every' belongs to a steady state; see Dose.repeated")
    if dose.constant and (dose.amount or dose.rate is None):
        raise InputError(
            f"{where}: a steady state needs 'every', hours between doses; or, for a constant "
            "infusion, a rate and the amount 0"
        )


@dataclass(frozen=True)
class Schedule:
    """Doses in the order written. Immutable: adding, shifting and scaling return a new one."""

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
        """All doses except those of these drugs."""
        return Schedule(tuple(d for d in self.doses if d.drug not in drugs))

    def between(self, first: float, last: float) -> Schedule:
        """The doses with first <= day < last."""
        return Schedule(tuple(d for d in self.doses if first <= d.day < last))


@dataclass(frozen=True)
class DoseSelection:
    """A selection of the doses of a schedule.

    Parameters
    ----------
    drug : str
    day : float or None, the day on which the doses begin
    first, last : float, instead of ``day``: the window in which they begin, both ends included

    Examples
    --------
    >>> DoseSelection("rimiducid", day=18).describe()
    'rimiducid on day 18'
    """

    drug: str
    day: float | None = None
    first: float = -math.inf
    last: float = math.inf

    def __post_init__(self) -> None:
        if self.day is not None and (self.first, self.last) != (-math.inf, math.inf):
            raise InputError(f"doses of {self.drug}: give either a day, or first and last")
        if not self.first <= self.last:
            raise InputError(
                f"doses of {self.drug}: the window ends (day {self.last:g}) before it begins "
                f"(day {self.first:g})"
            )

    def meets(self, dose: Dose) -> bool:
        """Whether a dose is selected."""
        if dose.drug != self.drug:
            return False
        if self.day is not None:
            return abs(dose.day - self.day) < DAY_TOLERANCE
        return self.first - DAY_TOLERANCE < dose.day < self.last + DAY_TOLERANCE

    def describe(self) -> str:
        """The selection in words."""
        if self.day is not None:
            return f"{self.drug} on day {self.day:g}"
        if math.isinf(self.first) and math.isinf(self.last):
            return self.drug
        return f"{self.drug} from day {self.first:g} to {self.last:g}"


@dataclass(frozen=True)
class Input:
    """One dose as solver input: ``amount`` (state's unit) into a state from ``start`` to ``stop``.

    It starts ``lag`` days after the dose. ``length`` (days) is that of the whole infusion, even
    if a reset cuts it off or only its remainder is left.
    """

    start: float
    stop: float
    state: str
    amount: float
    drug: str
    dose: Dose
    lag: float = 0.0
    length: float = 0.0

    @property
    def rate(self) -> float:
        """Amount per day during an infusion."""
        return self.amount / (self.stop - self.start)

    def between(self, start: float, stop: float) -> Input:
        """The part of an infusion from one day to another."""
        fraction = (stop - start) / (self.stop - self.start)
        return replace(self, start=start, stop=stop, amount=self.amount * fraction)


def convert_amount(model: Model, dose: Dose, drug: Drug, values: Values | None = None) -> float:
    """The dose in the drug's unit, multiplied or divided by body weight if needed.

    Parameters
    ----------
    model, dose, drug
    values : parameter values (default: the model's)

    Raises
    ------
    UnitError
        If the unit cannot be converted, with or without body weight.
    InputError
        If the dose is per kg and the model has no ``weight`` parameter.
    """
    where = f"dose of {dose.drug} on day {dose.day:g}"
    factor, weight_power = drug.conversion(dose.unit, where)
    if weight_power and "weight" not in model.values:
        raise InputError(f"{where}: {dose.unit} needs a body weight, and the model has no 'weight'")
    weight = (values or model.values)["weight"] if weight_power else 1.0
    return dose.amount * factor * weight**weight_power


def ask_about_dose(
    model: Model, dose: Dose, where: str, values: Values, *, unit_needed: bool = False
) -> None:
    """Ask about a dose above what is usual of its drug, or without a unit; it is given as it is."""
    drug = model.drug(dose.drug)
    stated = f"{dose.amount:g} {dose.unit or pretty(drug.unit)}"
    if unit_needed and not dose.unit and dose.amount:
        ask(f"{where}: {dose.amount:g} of {drug.name} is read as {stated}; is it meant? Add a unit")
    usual = model.usual.of("drug", drug.name)
    if usual is None or not math.isfinite(usual.most):
        return
    most = replace(dose, amount=usual.most, unit=usual.unit)
    given, limit = (convert_amount(model, d, drug, values) for d in (dose, most))
    if given > limit * (1 + DAY_TOLERANCE):
        ask(
            f"{where}: {stated} of {drug.name} is above {usual.most:g} {usual.unit}, the most that "
            f"is usual ({usual.source}); did you mean another amount or unit?"
        )


def expand(
    model: Model, schedule: Schedule, values_on: Callable[[float], Values] | None = None
) -> tuple[Input, ...]:
    """The schedule as solver inputs, in the order written.

    Parameters
    ----------
    model, schedule
    values_on : parameter values by day, if they are not always the model's

    Raises
    ------
    UnknownNameError, UnitError, InputError
        For an unknown drug, an amount that cannot be converted, or a lag, a duration or a
        bioavailability below 0.
    """
    inputs = []
    for dose in schedule:
        drug = model.drug(dose.drug)
        values: Values = model.values
        if values_on is not None:
            values = values_on(dose.day if dose.ordered is None else dose.ordered)
        amount = convert_amount(model, dose, drug, values)
        if drug.bioavailability:
            amount *= _bioavailability(drug.bioavailability, values, dose)
        lag = _time(model, drug.lag, values, dose) if drug.lag and not dose.constant else 0.0
        length, start = _length(model, dose, drug, amount, values), dose.day + lag
        if dose.early and lag > dose.early and not length:
            start -= dose.early
        inputs.append(Input(start, start + length, drug.into, amount, drug.name, dose, lag, length))
    return tuple(inputs)


def _length(model: Model, dose: Dose, drug: Drug, amount: float, values: Values) -> float:
    """Infusion time in days of a dose with the bioavailable ``amount``."""
    if dose.constant:
        return 0.0
    if dose.rate is not None:
        return dose.amount * bioavailable_fraction(model, drug, values) / dose.rate / HOURS_PER_DAY
    if dose.hours is not None:
        return dose.hours / HOURS_PER_DAY
    which = modelled(dose, drug)
    if which == "duration":
        return _time(model, drug.duration, values, dose)
    if which == "rate":
        rate = values[drug.rate]
        if not rate > 0:
            raise InputError(
                f"dose of {drug.name} on day {dose.day:g}: its rate {drug.rate} = {rate:g} must "
                "be above 0"
            )
        return amount / rate * days_in(model[drug.into].unit, model[drug.rate].unit, model.units)
    return drug.hours / HOURS_PER_DAY


def modelled(dose: Dose, drug: Drug) -> str:
    """Which of the drug's parameters determines the infusion time: "duration", "rate", or ""."""
    if dose.hours is not None or dose.rate is not None:
        return ""
    where = f"dose of {drug.name} on day {dose.day:g}"
    if dose.modelled:
        if not getattr(drug, dose.modelled):
            raise InputError(
                f"{where}: its {dose.modelled} is to be a parameter, but {drug.name} has none; "
                f'write {dose.modelled} = "a parameter" in drugs.toml'
            )
        return dose.modelled
    if drug.duration and drug.rate:
        return ""  # ambiguous unless the dose specifies one: the default infusion time applies
    return "duration" if drug.duration else "rate" if drug.rate else ""


def bioavailable_fraction(model: Model, drug: Drug, values: Values) -> float:
    """The bioavailability if it is a fraction; 1 if it converts one unit into another."""
    name = drug.bioavailability
    return values[name] if name and plain_number(model[name].unit, model.units) else 1.0


def _bioavailability(name: str, values: Values, dose: Dose) -> float:
    if not values[name] >= 0:
        raise InputError(
            f"dose of {dose.drug} on day {dose.day:g}: the bioavailability {name} = "
            f"{values[name]:g} is below 0"
        )
    return values[name]


def _time(model: Model, name: str, values: Values, dose: Dose) -> float:
    if not values[name] >= 0:
        raise InputError(
            f"dose of {dose.drug} on day {dose.day:g}: {name} = {values[name]:g} is a time below 0"
        )
    return values[name] * days_in(model[name].unit, "1", model.units)


def timing_parameters(model: Model, dose: Dose) -> tuple[str, ...]:
    """The parameters that determine when a dose starts and stops.

    >>> from crs_sim import Drug, Model, Parameter, State
    >>> pill = Drug("pill", "A", "mg", lag="tlag")
    >>> model = Model("pill", (State("A", "0", "-A", "mg", "", ""),),
    ...               (Parameter("tlag", 1.0, "day", "", ""),), drugs=(pill,))
    >>> timing_parameters(model, Dose(0, "pill", 5))
    ('tlag',)
    """
    drug = model.drug(dose.drug)
    if dose.constant:
        return ()
    names, which = [drug.lag], modelled(dose, drug)
    if which == "rate":
        names += [drug.rate, drug.bioavailability, "weight"]
    elif which == "duration":
        names.append(drug.duration)
    elif dose.rate is not None:
        names.append(drug.bioavailability)
    return tuple(name for name in names if name in model.values)
