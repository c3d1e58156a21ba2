"""The model as data: states, parameters, named quantities and drugs; names, units, sources.

Immutable; it holds no doses or measurements, and ``with_values`` returns a new model.
`crs_sim.model.model_file` reads a model from text, `crs_sim.model.codegen` compiles it.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

from ..errors import ModelError, UnitError, unknown_name
from ..store import markdown
from .formula import Tree, parse
from .units import Unit, conversion_factor, pretty, ratio, read_unit, same
from .usual import UsualValues


@dataclass(frozen=True)
class Parameter:
    """A named number, constant during a run (unless a `Change` applies)."""

    id: str
    value: float
    unit: str
    label: str
    source: str
    line: int = 0


@dataclass(frozen=True)
class State:
    """An amount or concentration with a rate of change per day (`rate`, a formula).

    ``initial`` is a formula in parameters and quantities of parameters (``"0"``, ``"ferritin_0"``).
    """

    id: str
    initial: str
    rate: str
    unit: str
    label: str
    source: str
    line: int = 0


@dataclass(frozen=True)
class Quantity:
    """A named formula: a measured quantity, or an intermediate term of the equations."""

    id: str
    formula: str
    unit: str
    label: str
    source: str
    line: int = 0


@dataclass(frozen=True)
class Drug:
    """How a dose of one drug enters the model.

    ``into`` is the state that receives it, ``unit`` the unit of an amount there, ``hours`` the
    default infusion time (0: bolus), ``bioavailability`` the parameter that scales each dose
    ("": 1), ``molar_mass`` in g/mol (0 where not applicable). ``lag`` is the parameter for the
    absorption lag time; ``duration`` or ``rate`` the one for the infusion duration or rate, where
    the dose itself gives neither. ``level`` is the quantity in which its level is read.
    """

    name: str
    into: str
    unit: str
    hours: float = 0.0
    bioavailability: str = ""
    molar_mass: float = 0.0
    label: str = ""
    lag: str = ""
    duration: str = ""
    rate: str = ""
    level: str = ""

    def conversion(self, unit: str, where: str = "", target: str = "") -> tuple[float, int]:
        """Factor from a dose's unit ("": the drug's) to that of the drug, and power of body weight.

        ``target`` is the drug's unit in words that can be read, if its name cannot.
        """
        needed = target or self.unit
        return conversion_factor(unit or needed, needed, where, molar_mass=self.molar_mass)

    @property
    def parameters(self) -> tuple[str, ...]:
        """The parameters that affect its doses."""
        return tuple(filter(None, (self.bioavailability, self.lag, self.duration, self.rate)))


Symbol = Parameter | State | Quantity
UNBOUNDED = (-math.inf, math.inf)
PLAIN = ("", "1", "dimensionless")
_END = r"(-?(?:[0-9.]+(?:e[+-]?[0-9]+)?|inf))"
RANGE = re.compile(rf"\({_END}(?:-| to ){_END}\)\s*$")
"""A range at the end of a label."""
SHARE = re.compile(r"^(share|fraction)\b|\bbioavailability\b", re.IGNORECASE)


def _taken_from_one(tree: Tree) -> Iterator[str]:
    """Names p in ``1 - p`` and ``1 - p*...``."""
    for part in tree.everything():
        if part.kind == "sign" and part.head == "-" and part.parts[0] == parse("1"):
            first = part.parts[1]
            while first.kind == "sign" and first.head in "*/":
                first = first.parts[0]
            if first.kind == "name":
                yield first.head


@dataclass(frozen=True)
class Model:
    """Equations, names, units, sources and nominal values of one model.

    Parameters
    ----------
    name : str
    states, parameters, quantities : tuples, in the order of the model file; a quantity uses only
        quantities above it
    units : tuple of (name, definition) pairs, as declared in the file
    drugs : tuple of Drug
    path : str, the file it was read from ("" if none); messages begin with it
    usual : UsualValues, what people call its drugs and levels, and how much is usual
    """

    name: str
    states: tuple[State, ...]
    parameters: tuple[Parameter, ...]
    quantities: tuple[Quantity, ...] = ()
    units: tuple[tuple[str, str], ...] = ()
    drugs: tuple[Drug, ...] = ()
    path: str = ""
    usual: UsualValues = field(default_factory=UsualValues)

    @cached_property
    def symbols(self) -> dict[str, Symbol]:
        """Parameters, states and quantities by id."""
        symbols: Iterable[Symbol] = (*self.parameters, *self.states, *self.quantities)
        return {symbol.id: symbol for symbol in symbols}

    @cached_property
    def state_ids(self) -> tuple[str, ...]:
        """Ids of the states, in the order of every state vector."""
        return tuple(s.id for s in self.states)

    @cached_property
    def parameter_ids(self) -> tuple[str, ...]:
        """Ids of the parameters, in the order of every parameter vector."""
        return tuple(p.id for p in self.parameters)

    @cached_property
    def quantity_ids(self) -> tuple[str, ...]:
        """Ids of the named quantities, in the order of the file."""
        return tuple(q.id for q in self.quantities)

    @cached_property
    def course_ids(self) -> tuple[str, ...]:
        """Ids of the outputs of a run: the states, then the quantities."""
        return (*self.state_ids, *self.quantity_ids)

    @cached_property
    def values(self) -> dict[str, float]:
        """Parameter values by id."""
        return {p.id: p.value for p in self.parameters}

    @cached_property
    def hash(self) -> str:
        """Twelve hex digits that change with any equation, unit or drug, not with a value."""
        text = [(s.id, s.initial, s.rate, s.unit) for s in self.states]
        text += [(q.id, q.formula, q.unit, "") for q in self.quantities]
        text += [(p.id, p.unit, "", "") for p in self.parameters]
        # timing parameters only if there are any, so that stored fits keep their hash
        drugs = [
            (d.name, d.into, d.unit, d.hours, d.bioavailability)
            + ((d.lag, d.duration, d.rate) if d.lag or d.duration or d.rate else ())
            for d in self.drugs
        ]
        return hashlib.sha256(repr((text, self.units, drugs)).encode()).hexdigest()[:12]

    def molar_mass(self, name: str) -> float:
        """Molar mass in g/mol of what a quantity is a level of; 0 if it is no drug's."""
        return next((drug.molar_mass for drug in self.drugs if drug.level == name), 0.0)

    def __getitem__(self, name: str) -> Symbol:
        """The parameter, state or quantity of that id, or an UnknownNameError."""
        if name not in self.symbols:
            raise unknown_name("name", name, self.symbols, self.path)
        return self.symbols[name]

    @cached_property
    def _drugs(self) -> dict[str, Drug]:
        return {drug.name: drug for drug in reversed(self.drugs)}

    def drug(self, name: str) -> Drug:
        """The drug that is called so; the id of a state means a bolus into that state."""
        if name in self.state_ids and name not in self._drugs:
            return Drug(name, into=name, unit=self[name].unit, label=self[name].label)
        meant = name if name in self._drugs else self.usual.meant("drug", name)
        if meant not in self._drugs:
            raise self.usual.refuse("drug", name, [d.name for d in self.drugs], self.path)
        return self._drugs[meant]

    @cached_property
    def bounds(self) -> dict[str, tuple[float, float]]:
        """The least and the largest value that makes sense, by parameter.

        A label that ends in a range states it: ``"Slope (-1 to 1)"``, ``"Signal (0-1)"``. Else a
        share, which is 0 to 1, is a plain number whose label begins with Share or Fraction or holds
        "bioavailability", or that is taken from 1 (``1 - f``, ``1 - f*x``); what has a unit or
        scales a dose is not below 0. A value of the model file outside such bounds lifts them.
        """
        texts = [q.formula for q in self.quantities] + [s.rate for s in self.states]
        shares = {name for text in texts for name in _taken_from_one(parse(text))}
        bounds = {p.id: self._bounds(p, shares) for p in self.parameters}
        inside = {p.id for p in self.parameters if bounds[p.id][0] <= p.value <= bounds[p.id][1]}
        return {name: pair if name in inside else UNBOUNDED for name, pair in bounds.items()}

    def _bounds(self, parameter: Parameter, shares: set[str]) -> tuple[float, float]:
        stated = RANGE.search(parameter.label)
        if stated:
            return float(stated[1]), float(stated[2])
        if dict(self.units).get(parameter.unit, parameter.unit) not in PLAIN:
            return 0.0, math.inf
        if SHARE.search(parameter.label) or parameter.id in shares:
            return 0.0, 1.0
        scales = any(parameter.id == drug.bioavailability for drug in self.drugs)
        return (0.0, math.inf) if scales else UNBOUNDED

    def refuse_outside(self, values: Mapping[str, float], where: str) -> None:
        """Refuse a value outside its parameter's `bounds`; names of no parameter are passed over.

        Raises
        ------
        ModelError
            Naming the parameter, its bounds, and how to state wider ones.
        """
        for name in values.keys() & self.bounds.keys():
            low, high = self.bounds[name]
            if not low <= values[name] <= high:
                at = f"{self.path}:{self[name].line}" if self.path else self.name
                raise ModelError(
                    f"{where}  {name} = {values[name]:g} is outside {low:g} to {high:g}, what "
                    f"makes sense for it: correct it, or end its label in a wider range, as "
                    f'"... (-inf to inf)" ({at})'
                )

    def with_values(self, **values: float) -> Model:
        """A new model with these parameter values and, as the equations are equal, the same hash.

        Raises
        ------
        UnknownNameError, ModelError
            For an unknown parameter, or a value that is not finite.
        """
        for name, value in values.items():
            if name not in self.values:
                raise unknown_name("parameter", name, self.values, self.path)
            if not math.isfinite(value):
                raise ModelError(f"{self.path or self.name}  {name} = {value} is not finite")
        changed = tuple(
            replace(p, value=float(values[p.id])) if p.id in values else p for p in self.parameters
        )
        model = replace(self, parameters=changed)
        model.__dict__["hash"] = self.hash  # same equations; a fit calls this 10,000 times
        model.__dict__["bounds"] = self.bounds  # they are those of the model file's values
        return model

    def __repr__(self) -> str:
        return (
            f"Model({self.name!r}: {len(self.states)} states, {len(self.parameters)} parameters, "
            f"{len(self.quantities)} quantities, hash {self.hash})"
        )


GRADE = "crs_grade"


def listing(model: Model) -> str:
    """The model as markdown: equations, states, quantities, parameters, drugs.

    Values are the model's current ones.
    """
    parts = [
        f"# {model.name}",
        _summary(model),
        "## Equations",
        "```\n" + "\n".join(_equations(model)) + "\n```",
        "## States",
        markdown(("state", "at day 0", "unit", "meaning", "source"),
               [(s.id, s.initial, *_tail(s)) for s in model.states]),
        "## Quantities",
        markdown(("quantity", "unit", "meaning", "source"),
               [(q.id, *_tail(q)) for q in model.quantities]),
        "## Parameters",
        markdown(("parameter", "value", "unit", "meaning", "source"),
               [(p.id, f"{p.value:.6g}", *_tail(p)) for p in model.parameters]),
    ]  # fmt: skip
    if model.drugs:
        columns = ("drug", "enters", "unit", "hours", "molar mass, g/mol", "bioavailability", "")
        parts += ["## Drugs", markdown(columns, [_drug(d) for d in model.drugs])]
    return "\n\n".join(parts) + "\n"


def _summary(model: Model) -> str:
    return (
        f"{len(model.states)} states, {len(model.parameters)} parameters, "
        f"{len(model.quantities)} quantities; time in days; equations {model.hash}."
    )


def _equations(model: Model) -> Iterator[str]:
    for quantity in model.quantities:
        yield f"{quantity.id} = {quantity.formula}"
    yield ""
    for state in model.states:
        yield f"d {state.id}/dt = {state.rate}"


def _tail(symbol: Symbol) -> tuple[str, str, str]:
    return pretty(symbol.unit), symbol.label, symbol.source


def _drug(drug: Drug) -> tuple[str, ...]:
    mass = f"{drug.molar_mass:g}" if drug.molar_mass else ""
    hours = drug.duration or (f"at {drug.rate}" if drug.rate else f"{drug.hours:g}")
    hours += f", after {drug.lag}" if drug.lag else ""
    return drug.name, drug.into, drug.unit, hours, mass, drug.bioavailability, drug.label


@lru_cache(maxsize=4096)
def days_in(amount: str, rate: str, declared: tuple[tuple[str, str], ...]) -> float:
    """Days that one ``amount`` lasts at one ``rate``; with a rate of "1", that time in days.

    If neither has a unit, days are assumed. ``declared`` are the model's own units, as (name,
    definition) pairs.

    Raises
    ------
    UnitError
        If their quotient is not a time.

    Examples
    --------
    >>> days_in("hour", "1", ()), days_in("mg", "mg/hour", ())
    (0.041666666666666664, 0.041666666666666664)
    """
    known = declared_units(declared)
    time = read_unit(amount, "", known) / read_unit(rate, "", known)
    days = 1.0 if time.unitless else ratio(time, read_unit("day"))
    if days is None:
        raise UnitError(f"{pretty(amount)} over {pretty(rate)} is not a time")
    return days


def readable_unit(model: Model, unit: str) -> str:
    """A unit of the model as text: its definition if the name alone cannot be parsed."""
    return dict(model.units).get(unit, unit) if named_unit(unit) is None else unit


@lru_cache(maxsize=4096)
def plain_number(unit: str, declared: tuple[tuple[str, str], ...]) -> bool:
    """Whether a model's unit is dimensionless: a fraction, not a conversion between units."""
    return bool(read_unit(unit, "", declared_units(declared)).to_root_units().unitless)


def declared_units(pairs: Iterable[tuple[str, str]]) -> dict[str, Unit]:
    """The units of a model file by name, from (name, definition) pairs.

    Raises
    ------
    UnitError
        If a definition cannot be read.
    """
    units: dict[str, Unit] = {}
    for name, definition in pairs:
        unit = read_unit(definition, f"{name}:", units)
        named = named_unit(name)
        # the name ("pg/mL") makes a better message than 1e-12 gram / 1e-3 litre
        units[name] = named if named is not None and same(named, unit) else unit
    return units


@lru_cache(maxsize=1024)
def named_unit(name: str) -> Unit | None:
    """The unit parsed from its name (``pg_per_mL`` is pg/mL); None if the name is not a unit."""
    try:
        return read_unit(name)
    except UnitError:
        return None
