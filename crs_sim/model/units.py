"""Units as written in data and in model files, and conversion between them.

The only module that imports pint. The known units and their spellings are listed in ``units.toml``,
so a typing error cannot turn into an exotic unit; counts (item, copies, cells) are one dimension,
international units another, units of an assay (U) a third. What has two readings is refused.
"""

# Our own reader: to pint, 1e-12 gram / 1e-3 litre is gram times litre, and unknown signs nothing.

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pint

from ..errors import UnitError, misspelt

TABLE: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
COMMON_UNITS: tuple[str, ...] = tuple(TABLE["common"])
CLOSE = 1e-9  # two factors that differ by less are the same unit
_TOKEN = re.compile(
    r"\s*(?:(?P<ten>(?:(?P<mantissa>\d+\.?\d*|\.\d+)\s*[x*·]\s*|(?P<times>x)\s*)?"
    r"10(?:\s*(?:\^|\*\*)\s*|(?P<ucum>\*))(?P<exponent>[+-]?\d+)(?!\d|\.\d))"
    r"|(?P<number>\d+(?:\.\d+|\.(?=[eE][+-]?\d)|\.(?![^\W\d]))?(?:[eE][+-]?\d+)?|\.\d+|million\b)"
    r"|(?P<power>(?:\^|\*\*)\s*[+-]?\d+|(?<=[A-Za-z])-\d+)"
    r"|(?P<name>[^\W\d]\w*|%)|(?P<sign>[*·/()]|\.(?=[^\W\d])))"
)
_SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_SAME_SIGN = str.maketrans("×✕X⋅∙•−–", "xxx···--")
_BELOW = "what is below the / has two readings; use brackets: mg/(kg day)"
_BARE = "numbers beside numbers have two readings"
_LOST = re.compile(r"10[2-9]|101[0-5]")  # 10⁹ pasted without its superscript
Unit = Any  # a pint quantity: pint's own generic types add no information


class AmbiguousUnitError(UnitError):
    """A unit with two readings; the message names them, so that no hint is needed."""


def _registry() -> pint.UnitRegistry[Any]:
    registry: pint.UnitRegistry[Any] = pint.UnitRegistry(None)
    for name, prefix in TABLE["prefixes"].items():
        registry.define(f"{name}- = {prefix['is']} = {prefix['letters'][0]}-")
    for name, unit in TABLE["units"].items():
        registry.define(f"{name} = {unit['is']} = {unit['letters'][0]}")
    return registry


def _spellings() -> dict[str, str]:
    """Every text that names a unit, with the name of that unit in the registry."""
    spelled = dict(TABLE["other"])
    for name, unit in TABLE["units"].items():
        plain = (name, *unit["letters"], *unit.get("words", ()), *unit.get("also", ()))
        spelled |= dict.fromkeys(plain, name)
        for prefix in unit.get("prefixes", ()):
            letters = TABLE["prefixes"][prefix]["letters"]
            parts = [(p, u) for p in letters for u in unit["letters"]]
            parts += [(prefix, word) for word in unit.get("words", ())]
            spelled |= dict.fromkeys((p + u for p, u in parts), prefix + name)
    return spelled


_REGISTRY = _registry()
SPELLINGS = _spellings()
ONE: Unit = _REGISTRY.Quantity(1.0)
PER_KG: Unit = 1.0 / _REGISTRY.Quantity(1.0, "kilogram")


# --- text to unit ---------------------------------------------------------------------------------


def pretty(name: str) -> str:
    """A model's unit name in common notation; any other text is returned unchanged.

    >>> [pretty(n) for n in ("pg_per_mL", "copies_per_ug", "per_day", "litre", "L_per_day")]
    ['pg/mL', 'copies/ug', '1/day', 'L', 'L/day']
    """
    if not re.fullmatch(r"[A-Za-zµμ]\w*", name):
        return name or "1"
    top, *below = re.split(r"(?:^|_)per_", name)
    try:
        parts = [_product(part) for part in (top or "1", *below)]
    except UnitError:
        return name
    # every _per_ divides: a_per_b_c is a/b/c
    return "/".join([parts[0], *(p.replace("*", "/") for p in parts[1:])])


def _product(part: str) -> str:
    words = []
    for word in part.split("_"):
        match = re.fullmatch(r"([A-Za-zµμ]+)(\d*)|1", word)
        if match is None:
            raise UnitError(f"{part!r} is not a product of units")
        if word in ("1", "dimensionless"):
            words.append("1")
            continue
        unit = _named(match[1])
        sbml = match[1] in ("litre", "gram", "metre", "second")
        symbol = f"{unit.units:~}" if sbml else match[1]
        words.append(symbol + (f"^{match[2]}" if match[2] else ""))
    return "*".join(words)


@lru_cache(maxsize=1024)
def _named(name: str) -> Unit:
    if name not in SPELLINGS:
        raise _unknown(name)
    return ONE if name == "dimensionless" else _REGISTRY.Quantity(1.0, SPELLINGS[name])


def _unknown(name: str) -> UnitError:
    """The error for a name that is no unit: what it may have been meant for."""
    what = f"{name!r} is not a known unit"
    if name in TABLE["advice"]:
        return AmbiguousUnitError(f"{what}; {TABLE['advice'][name]}")
    alike = [spelled for spelled in SPELLINGS if spelled.lower() == name.lower()]
    milli = "m" + name[1:]
    if name[0] == "M" and milli in alike:
        return AmbiguousUnitError(
            f"{what}: m is milli and M mega; did you mean {milli!r}, or '1e6 {name[1:]}'?"
        )
    if not alike:
        longer = name[-1] in ("s", name[-2:-1]) and name[:-1] in SPELLINGS  # mgs, mgg; not mgL
        words = [] if len(name) <= 4 or name.startswith(("deca", "deka")) else SPELLINGS
        alike = [name[:-1]] if longer else misspelt(name, [w for w in words if len(w) > 3])
    hint = f"; did you mean {' or '.join(map(repr, sorted(alike)))}?"
    return AmbiguousUnitError(what + hint) if alike else UnitError(what)


class _Parser:
    """Parses ``1e6 cells/kg``: a number binds to the unit after it, then * and / left to right.

    Refuses numbers beside numbers or after a unit, and products below a / without brackets.
    """

    def __init__(self, text: str, declared: Mapping[str, Unit]) -> None:
        self.declared = declared
        self.tokens: list[tuple[str, str]] = []
        at = 0
        while text[at:].strip():
            match = _TOKEN.match(text, at)
            if match is None:
                raise UnitError(f"{text[at:].strip()!r} cannot be read as a unit")
            kind, written = str(match.lastgroup), match[0].strip()
            if kind == "ten":
                if match["ucum"] and match["mantissa"]:
                    raise AmbiguousUnitError(f"{_BARE}: {written}; write one: 5e6 cells")
                if match["times"] and self.tokens and self.tokens[-1][0] != "sign":
                    self.tokens.append(("sign", "*"))
                written = f"{match['mantissa'] or 1}e{match['exponent']}"
            self.tokens.append((kind, written))
            at = match.end()

    def product(self) -> Unit:
        """Factors between * and /, each with the numbers in it: 0, 1 before a unit, 2 alone."""
        result, first = self.factor()
        numbers, divided = [first], False
        while self.tokens and self.tokens[0][1] in "*·./":
            divide = self.tokens.pop(0)[1] == "/"
            ten = bool(self.tokens) and self.tokens[0][0] == "ten"
            factor, number = self.factor(below=divide)
            more = bool(self.tokens) and self.tokens[0][1] in "*·."
            if (divided and not divide) or (divide and number == 2 and more):  # mg/24.h
                raise AmbiguousUnitError(_BELOW)
            if (number and 2 in numbers) or (number == 2 and (divide or any(numbers) or not ten)):
                raise AmbiguousUnitError(f"{_BARE}; write one, in front: 1e6 cells/kg")
            numbers, divided = [*numbers, number], divide or divided
            result = result / factor if divide else result * factor
        return result

    def factor(self, *, below: bool = False) -> tuple[Unit, int]:
        result, number, units = ONE, "", 0
        while self.tokens and self.tokens[0][1] not in "*·./)":
            kind, text = self.tokens[0]
            if kind in ("number", "ten"):
                if number or units:
                    raise AmbiguousUnitError(f"{text} after {number or 'a unit'} has two readings")
                number = text
            elif (units := units + 1) > 1 and below:
                raise AmbiguousUnitError(_BELOW)
            result = result * self.atom()
        if not (number or units):
            raise UnitError("a unit is missing")
        return result, 0 if number in ("", "1") else 1 if units else 2

    def atom(self) -> Unit:
        kind, text = self.tokens.pop(0)
        if kind == "power":
            raise UnitError(f"{text!r} follows no unit")
        if kind in ("number", "ten"):
            return ONE * self.number(kind, text)
        if text == "(":
            unit = self.product()
            if not self.tokens or self.tokens.pop(0)[1] != ")":
                raise UnitError("a ')' is missing")
        else:
            unit = self.name(text)
        if self.tokens and self.tokens[0][0] == "power":
            return unit ** int(self.tokens.pop(0)[1].lstrip("^* "))
        return unit

    def number(self, kind: str, text: str) -> float:
        if self.tokens and self.tokens[0][0] == "power":
            raise AmbiguousUnitError(f"{text} has a power; write it as one number, such as 1e6")
        if _LOST.fullmatch(text):
            raise AmbiguousUnitError(f"{text} may be 10^{text[2:]}; write 1e{text[2:]} or {text}.0")
        if kind == "number" and re.match(r"10[eE]", text):
            raise AmbiguousUnitError(
                f"{text} is {float(text):.0e}; some mean 1{text[2:]}; write one"
            )
        return 1e6 if text == "million" else float(text)

    def name(self, text: str) -> Unit:
        if text in self.declared:
            return self.declared[text]
        if pretty(text) != text:  # pg_per_mL, m2
            return _Parser(pretty(text), {}).product()
        return _named(text)


def read_unit(text: str, where: str = "", declared: Mapping[str, Unit] | None = None) -> Unit:
    """A unit from text: "mg/kg", "10*6 cells/kg", "pg.mL-1", "1e-12 gram / 1e-3 litre", "".

    Parameters
    ----------
    text : the unit; "" and "1" are dimensionless
    where : location, put at the start of an error message
    declared : units declared in a model file, by name; they take precedence

    Raises
    ------
    UnitError
        With what may have been meant.
    """
    try:
        for entry in TABLE["misread"]:
            if re.search(entry["pattern"], text) and text not in (declared or {}):
                raise AmbiguousUnitError(entry["advice"])
        parser = _Parser(_usual_signs(text) or "1", declared or {})
        unit = parser.product()
        if parser.tokens:
            raise UnitError(f"unexpected {parser.tokens[0][1]!r}")
        if not 0 < unit.magnitude < math.inf:
            raise UnitError("its size is not a number above zero")
    except (UnitError, ArithmeticError) as error:
        asks = isinstance(error, AmbiguousUnitError)
        reason = f": {error}" if asks else f" ({error}): write it like 'mg/kg' or 'pg/mL'"
        raise UnitError(f"{_at(where)}unit {text!r} is not understood{reason}") from None
    return unit


def _usual_signs(text: str) -> str:
    """The text with one sign for each meaning: ``mL⁻¹`` is mL^-1, ``[IU]`` (of UCUM) IU."""
    text = re.sub(
        r"[⁻⁺]?[⁰¹²³⁴-⁹]+", lambda power: "^" + power[0].translate(_SUPERSCRIPT), text
    ).translate(_SAME_SIGN)
    text = re.sub(r"\[(?:IU|iU)\]", "IU", text)
    text = re.sub(r"\{(cells?|copies|copy)\}", r"\1", text)
    return re.sub(r"^\s*/", "1/", re.sub(r"\bper\b", "/", text))


def _at(where: str) -> str:
    return f"{where}  " if where else ""


# --- conversion -----------------------------------------------------------------------------------


def ratio(unit: Unit, target: Unit) -> float | None:
    """Conversion factor from ``unit`` to ``target``; None if their dimensions differ."""
    quotient = (unit / target).to_root_units()
    if not quotient.unitless:
        return None
    # 0.001/1e-3 may miss 1 by a bit
    factor = float(quotient.magnitude)
    short = float(f"{factor:.12g}")
    return short if math.isclose(factor, short, rel_tol=4e-15) else factor


def conversion_factor(
    unit: str, target: str, where: str = "", *, molar_mass: float = 0.0
) -> tuple[float, int]:
    """Factor from ``unit`` to ``target``, and the power of body weight (kg) to multiply by.

    Parameters
    ----------
    unit, target : in common notation ("mg/kg") or as named in a model ("pg_per_mL")
    where : location, put at the start of an error message
    molar_mass : g/mol, to get from moles to grams and back; 0 if there is none

    Raises
    ------
    UnitError
        If either is not understood, or they differ by more than a body weight and a molar mass.

    Examples
    --------
    >>> conversion_factor("g", "mg"), conversion_factor("mg/kg", "mg")
    ((1000.0, 0), (1.0, 1))
    """
    try:
        return _conversion_factor(unit, target, molar_mass)
    except UnitError as error:
        raise UnitError(f"{_at(where)}{error}") from None


@lru_cache(maxsize=4096)
def _conversion_factor(unit: str, target: str, molar_mass: float) -> tuple[float, int]:
    source, required = read_unit(unit), read_unit(target)
    candidates = [(0, required)]
    if _divides_by_kg(source):
        candidates.append((1, required * PER_KG))
    if _divides_by_kg(required):
        candidates.append((-1, required / PER_KG))
    mass = _REGISTRY.Quantity(molar_mass, "gram / mole")
    for masses in (ONE, mass, 1.0 / mass) if molar_mass else (ONE,):
        for power, candidate in candidates:
            factor = ratio(source * masses, candidate)
            if factor is not None:
                return factor, power
    kinds = f"one is {dimension_of(source)}, the other {dimension_of(required)}"
    what = f"{pretty(unit)!r} cannot be converted into {pretty(target)!r}: {kinds}"
    raise UnitError(what + _advice(source, required))


def _divides_by_kg(unit: Unit) -> bool:
    return any(str(name) == "kilogram" and power < 0 for name, power in unit.unit_items())


def _advice(unit: Unit, required: Unit) -> str:
    """What to do to get from one dimension to the other, if that is a common question."""
    for entry in TABLE["conversions"]:
        asked = read_unit(entry["one"]) / read_unit(entry["other"])
        if {ratio(unit / required, asked), ratio(required / unit, asked)} != {None}:
            return f"; {entry['advice']}"
    return ""


def dimension_of(unit: Unit) -> str:
    """What a unit measures: ``mass/length^3``."""
    powers = {str(k).strip("[]").replace("_", " "): v for k, v in unit.dimensionality.items()}
    return _fraction(powers) if powers else "a plain number"


def convert(
    value: float, unit: str, target: str, where: str = "", *, molar_mass: float = 0.0
) -> float:
    """A value in another unit; ``molar_mass`` as in `conversion_factor`.

    Raises
    ------
    UnitError
        If the units cannot be converted, or only with a body weight.
    """
    factor, power = conversion_factor(unit, target, where, molar_mass=molar_mass)
    if power:
        what = f"{_at(where)}{unit!r} into {target!r} needs a body weight"
        raise UnitError(f"{what}: give one of them without kg")
    return value * factor


# --- unit to text --------------------------------------------------------------------------------


def show(unit: Unit) -> str:
    """A unit as text, with time last: ``pg/mL/day``."""
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


def same(unit: Unit, other: Unit) -> bool:
    """Whether two units are equal: same dimension, factor 1."""
    factor = ratio(unit, other)
    return factor is not None and math.isclose(factor, 1.0, rel_tol=CLOSE)


def difference(unit: Unit, needed: Unit) -> str:
    """The difference between two units in words: "factor 1000", or "another dimension"."""
    factor = ratio(unit, needed)
    return "another dimension" if factor is None else f"factor {factor:g}"
