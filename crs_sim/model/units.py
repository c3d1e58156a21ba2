"""Units as written in data and in model files, and conversion between them.

The only module that imports pint. The known units are listed in `DEFINITIONS`, so a typing error
cannot turn into an exotic unit; counts (item, copies, cells) are one dimension, international units
another.
"""

# The reader of unit texts is ours, since to pint 1e-12 gram / 1e-3 litre is gram times litre and it
# passes over a sign that it does not know.

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

import pint

from ..errors import UnitError

DEFINITIONS = """
pico- = 1e-12 = p-
nano- = 1e-9 = n-
micro- = 1e-6 = u- = µ- = μ- = mc-
milli- = 1e-3 = m-
centi- = 1e-2 = c-
deci- = 1e-1 = d-
kilo- = 1e3 = k-
mega- = 1e6 = M-
giga- = 1e9 = G-
gram = [mass] = g
metre = [length] = m = meter
second = [time] = s = sec
mole = [substance] = mol
item = [item]
IU = [international_unit]
copies = item = copies = copy
cells = item = cells = cell
minute = 60 second = min
hour = 60 minute = h = hr
day = 24 hour = day = d
week = 7 day
year = 365.25 day
litre = 1e-3 metre ** 3 = L = l = liter
molar = mole / litre = M
dalton = gram / mole = Da
percent = 0.01 = %
"""
COMMON = (
    "mg", "g", "ug", "ng", "pg", "kg", "mg/kg", "ug/mL", "ng/mL", "pg/mL", "mg/L", "g/L", "mg/dL",
    "copies/ug", "cells", "cells/kg", "1e6 cells/kg", "cells/uL", "IU", "IU/mL", "L", "mL", "L/day",
    "mL/min", "day", "hour", "min", "1/day", "1/hour", "nmol/L", "nM", "g/mol", "1",
)  # fmt: skip
CLOSE = 1e-9  # two factors that differ by less are the same unit
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+)|(?P<power>(?:\^|\*\*)\s*-?\d+)"
    r"|(?P<name>[^\W\d]\w*|%)|(?P<sign>[*·/()]))"
)
Unit = Any  # a pint quantity: pint's own generic types add no information


def _registry() -> pint.UnitRegistry[Any]:
    registry: pint.UnitRegistry[Any] = pint.UnitRegistry(None)
    for line in DEFINITIONS.strip().splitlines():
        registry.define(line)
    return registry


_REGISTRY = _registry()
ONE: Unit = _REGISTRY.Quantity(1.0)
PER_KG: Unit = 1.0 / _REGISTRY.Quantity(1.0, "kilogram")


# --- text to unit ---------------------------------------------------------------------------------


def pretty(name: str) -> str:
    """A model's unit name in common notation; any other text is returned unchanged.

    >>> [pretty(n) for n in ("pg_per_mL", "copies_per_ug", "per_day", "litre", "L_per_day")]
    ['pg/mL', 'copies/ug', '1/day', 'L', 'L/day']
    """
    if not re.fullmatch(r"[A-Za-z]\w*", name):
        return name or "1"
    top, *below = re.split(r"(?:^|_)per_", name)
    try:
        parts = [_product(part) for part in (top or "1", *below)]
    except UnitError:
        return name
    # every _per_ divides: mg_per_L_per_day is mg/L/day, and a_per_b_c is a/b/c
    return "/".join([parts[0], *(p.replace("*", "/") for p in parts[1:])])


def _product(part: str) -> str:
    words = []
    for word in part.split("_"):
        match = re.fullmatch(r"([A-Za-z]+)(\d*)|1", word)
        if match is None:
            raise UnitError(f"{part!r} is not a product of units")
        if word in ("1", "dimensionless"):
            words.append("1")
            continue
        unit = _named(match[1])
        symbol = f"{unit.units:~}" if match[1] in ("litre", "gram", "metre", "second") else match[1]
        words.append(symbol + (f"^{match[2]}" if match[2] else ""))
    return "*".join(words)


@lru_cache(maxsize=1024)
def _named(name: str) -> Unit:
    if name == "dimensionless":
        return ONE
    try:
        return _REGISTRY.Quantity(1.0, _REGISTRY.Unit(name))
    except Exception as error:  # pint raises many exception types for a name it cannot parse
        raise UnitError(f"{name!r} is not a known unit") from error


class _Parser:
    """Parses ``1e6 cells/kg``: a number binds to the unit after it, then * and / left to right."""

    def __init__(self, text: str, declared: Mapping[str, Unit]) -> None:
        self.declared = declared
        self.tokens: list[tuple[str, str]] = []
        at = 0
        while text[at:].strip():
            match = _TOKEN.match(text, at)
            if match is None:
                raise UnitError(f"{text[at:].strip()!r} cannot be read as a unit")
            self.tokens.append((str(match.lastgroup), match[0].strip()))
            at = match.end()

    def product(self) -> Unit:
        result = self.factor()
        while self.tokens and self.tokens[0][1] in "*·/":
            divide = self.tokens.pop(0)[1] == "/"
            factor = self.factor()
            result = result / factor if divide else result * factor
        return result

    def factor(self) -> Unit:
        result, found = ONE, False
        while self.tokens and self.tokens[0][1] not in ("*", "·", "/", ")"):
            result, found = result * self.atom(), True
        if not found:
            raise UnitError("a unit is missing")
        return result

    def atom(self) -> Unit:
        kind, text = self.tokens.pop(0)
        if kind == "power":
            raise UnitError(f"{text!r} follows no unit")
        if text == "(":
            unit = self.product()
            if not self.tokens or self.tokens.pop(0)[1] != ")":
                raise UnitError("a ')' is missing")
        elif kind == "number":
            unit = ONE * float(text)
        else:
            unit = self.name(text)
        if self.tokens and self.tokens[0][0] == "power":
            return unit ** int(self.tokens.pop(0)[1].lstrip("^* "))
        return unit

    def name(self, text: str) -> Unit:
        if text in self.declared:
            return self.declared[text]
        if pretty(text) != text:  # pg_per_mL, m2
            return _Parser(pretty(text), {}).product()
        return _named(text)


def read_unit(text: str, where: str = "", declared: Mapping[str, Unit] | None = None) -> Unit:
    """A unit from text: "mg/kg", "1e6 cells/kg", "pg_per_mL", "1e-12 gram / 1e-3 litre", "".

    Parameters
    ----------
    text : the unit; "" and "1" are dimensionless
    where : location, put at the start of an error message
    declared : units declared in a model file, by name; they take precedence

    Raises
    ------
    UnitError
        With the closest common unit.
    """
    try:
        parser = _Parser(re.sub(r"\bper\b", "/", text) or "1", declared or {})
        unit = parser.product()
        if parser.tokens:
            raise UnitError(f"unexpected {parser.tokens[0][1]!r}")
        if not 0 < unit.magnitude < math.inf:
            raise UnitError("its size is not a number above zero")
    except (UnitError, ArithmeticError) as error:
        raise UnitError(f"{_at(where)}{_message(text, error)}") from None
    return unit


def _at(where: str) -> str:
    return f"{where}  " if where else ""


def _message(text: str, error: Exception) -> str:
    lower = {unit.lower(): unit for unit in COMMON}
    close = get_close_matches(text.lower(), lower, n=1, cutoff=0.5)
    hint = f"did you mean {lower[close[0]]!r}?" if close else "write it like 'mg/kg' or 'pg/mL'"
    return f"unit {text!r} is not understood ({error}): {hint}"


# --- conversion -----------------------------------------------------------------------------------


def ratio(unit: Unit, target: Unit) -> float | None:
    """Conversion factor from ``unit`` to ``target``; None if their dimensions differ."""
    quotient = (unit / target).to_root_units()
    if not quotient.unitless:
        return None
    # 0.001/1e-3 in floats may miss 1 by a bit: round to a short decimal within rounding error
    factor = float(quotient.magnitude)
    short = float(f"{factor:.12g}")
    return short if math.isclose(factor, short, rel_tol=4e-15) else factor


def conversion_factor(unit: str, target: str, where: str = "") -> tuple[float, int]:
    """Factor from ``unit`` to ``target``, and the power of body weight (kg) to multiply by.

    Parameters
    ----------
    unit, target : in common notation ("mg/kg") or as named in a model ("pg_per_mL")
    where : location, put at the start of an error message

    Raises
    ------
    UnitError
        If either is not understood, or they differ by more than a body weight.

    Examples
    --------
    >>> conversion_factor("g", "mg"), conversion_factor("mg/kg", "mg")
    ((1000.0, 0), (1.0, 1))
    >>> conversion_factor("cells", "cells/kg"), conversion_factor("ng/mL", "pg_per_mL")
    ((1.0, -1), (1000.0, 0))
    """
    try:
        return _conversion_factor(unit, target)
    except UnitError as error:
        raise UnitError(f"{_at(where)}{error}") from None


@lru_cache(maxsize=4096)
def _conversion_factor(unit: str, target: str) -> tuple[float, int]:
    source, required = read_unit(unit), read_unit(target)
    candidates = [(0, required)]
    if _divides_by_kg(unit):
        candidates.append((1, required * PER_KG))
    if _divides_by_kg(target):
        candidates.append((-1, required / PER_KG))
    for power, candidate in candidates:
        factor = ratio(source, candidate)
        if factor is not None:
            return factor, power
    raise UnitError(
        f"{pretty(unit)!r} cannot be converted into {pretty(target)!r}: "
        f"one is {_dimension(source)}, the other {_dimension(required)}"
    )


def _divides_by_kg(text: str) -> bool:
    return re.search(r"(/|\bper\b)\s*(kg|kilogram)\b", pretty(text)) is not None


def _dimension(unit: Unit) -> str:
    powers = {str(k).strip("[]").replace("_", " "): v for k, v in unit.dimensionality.items()}
    return _fraction(powers) if powers else "a plain number"


def convert(value: float, unit: str, target: str, where: str = "") -> float:
    """A value in another unit of the same dimension.

    Raises
    ------
    UnitError
        If the units cannot be converted, or only with a body weight.

    Examples
    --------
    >>> convert(1.5, "ng/mL", "pg/mL")
    1500.0
    """
    factor, weight_power = conversion_factor(unit, target, where)
    if weight_power:
        raise UnitError(
            f"{_at(where)}{unit!r} into {target!r} needs a body weight: give one of them without kg"
        )
    return value * factor


# --- units of a model -----------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def days_in(amount: str, rate: str, declared: tuple[tuple[str, str], ...]) -> float:
    """Days that one ``amount`` lasts at one ``rate``; with a rate of "1", that time in days.

    If neither has a unit, days are assumed.

    Parameters
    ----------
    amount, rate : units, as named in the model
    declared : the model's own units, as (name, definition) pairs

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


@lru_cache(maxsize=4096)
def plain_number(unit: str, declared: tuple[tuple[str, str], ...]) -> bool:
    """Whether a model's unit is dimensionless: a fraction, not a conversion between units."""
    return bool(read_unit(unit, "", declared_units(declared)).to_root_units().unitless)


def show(unit: Unit) -> str:
    """A unit as text, with time last: ``pg/mL/day``.

    >>> show(read_unit("1/day") * read_unit("pg/mL"))
    'pg/mL/day'
    """
    powers = {_REGISTRY.get_symbol(str(k)): v for k, v in unit.unit_items()}
    factor = "" if math.isclose(unit.magnitude, 1.0) else f"{unit.magnitude:g} "
    return factor + _fraction(powers)


def _fraction(powers: Mapping[str, float]) -> str:
    times = ("s", "min", "h", "day", "week", "time")
    order = sorted(powers, key=lambda name: name in times)
    top = [name + _exponent(powers[name]) for name in order if powers[name] > 0]
    below = ["/" + name + _exponent(-powers[name]) for name in order if powers[name] < 0]
    return "*".join(top or ["1"]) + "".join(below)


def _exponent(power: float) -> str:
    return "" if math.isclose(power, 1) else f"^{power:g}"


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


def same(unit: Unit, other: Unit) -> bool:
    """Whether two units are equal: same dimension, factor 1."""
    factor = ratio(unit, other)
    return factor is not None and math.isclose(factor, 1.0, rel_tol=CLOSE)


def difference(unit: Unit, needed: Unit) -> str:
    """The difference between two units in words: "factor 1000", or "another dimension"."""
    factor = ratio(unit, needed)
    return "another dimension" if factor is None else f"factor {factor:g}"
