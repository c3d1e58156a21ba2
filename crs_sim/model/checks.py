"""Checks of a model: units, sources, unused names, bare numbers, and the state of all zeros.

Each check is a small function from a model to a list of issues; `check_model` runs them all. Units
are checked by deriving the unit of each formula from the units of its names.

Units are propagated without conversion. Where one would be needed (in a sum, an argument, an
exponent), the result without units would be wrong, so it is an error in the formula: a wrong
dimension, or a hidden factor such as 1000.

An issue states where it is and what to do; `check_model` runs all checks. `listing` documents a
model: every name with value, unit and source, and the equations.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import CrsSimError, UnitError
from .codegen import Code, compile_model
from .formula import FUNCTIONS, Tree, evaluate, names, numbers, parse, written
from .model import Model, Quantity, State, Symbol, declared_units, named_unit
from .units import ONE, Unit, difference, read_unit, same, show


def terms(text: str) -> list[str]:
    """The terms of a formula that is a sum.

    >>> terms("k*MAC - d*(a + b)")
    ['k*MAC', 'd*(a + b)']
    """
    return [_written(node) for node in _summands(parse(text))]


def formula_unit(text: str, units: Mapping[str, Unit]) -> Unit | None:
    """The unit of a formula's value; None for a plain 0, which fits any unit.

    Parameters
    ----------
    text : the formula; literal numbers are dimensionless
    units : unit of each name in it

    Raises
    ------
    UnitError
        Naming the part, its unit, and the unit it needs.

    Examples
    --------
    >>> from crs_sim.model import read_unit
    >>> show(formula_unit("dose/V", {"dose": read_unit("mg"), "V": read_unit("mL")}))
    'mg/mL'
    """
    return _unit_of(parse(text), units)


def _written(part: Tree) -> str:
    return written(part).replace(" * ", "*").replace(" / ", "/")


def _summands(part: Tree) -> list[Tree]:
    if part.head in ("+", "-") and part.kind == "sign":
        return [term for operand in part.parts for term in _summands(operand)]
    return [part]


def _unit_of(part: Tree, units: Mapping[str, Unit]) -> Unit | None:
    if part.kind == "number":
        return None if part.value == 0 else ONE
    if part.kind == "name":
        return units[part.head]
    if part.kind == "minus":
        return _unit_of(part.parts[0], units)
    if part.kind == "function":
        return _call_unit(part, units)
    if part.head in ("+", "-"):
        return _alike(_summands(part), units)
    if part.head == "^":
        return _power_unit(part, units)
    left, right = (_unit_of(operand, units) for operand in part.parts)
    if left is None or right is None:
        return None
    return left * right if part.head == "*" else left / right


def _alike(parts: Sequence[Tree], units: Mapping[str, Unit]) -> Unit | None:
    first, unit = parts[0], None
    for part in parts:
        found = _unit_of(part, units)
        if unit is None:
            first, unit = part, found
        elif found is not None and not same(found, unit):
            raise UnitError(
                f"{_written(part)} is {show(found)}, but {_written(first)} beside it is "
                f"{show(unit)} ({difference(found, unit)})"
            )
    return unit


def _power_unit(part: Tree, units: Mapping[str, Unit]) -> Unit | None:
    base, exponent = _unit_of(part.parts[0], units), _literal(part.parts[1])
    _plain(part.parts[1], units, f"the exponent of {_written(part)}")
    if base is None:
        return None
    if exponent is not None and exponent == int(exponent):
        return base ** int(exponent)
    what = f"the base of {_written(part)}, whose exponent is not an integer,"
    _plain(part.parts[0], units, what)
    return ONE


def _literal(part: Tree) -> float | None:
    return None if names(written(part)) else part.fold({}, FUNCTIONS, float)


def _plain(part: Tree, units: Mapping[str, Unit], what: str) -> None:
    unit = _unit_of(part, units)
    if unit is not None and not same(unit, ONE):
        raise UnitError(
            f"{what} must be a plain number, and {_written(part)} is {show(unit)} "
            f"({difference(unit, ONE)})"
        )


def _call_unit(part: Tree, units: Mapping[str, Unit]) -> Unit | None:
    if part.head == "sqrt":
        unit = _unit_of(part.parts[0], units)
        return None if unit is None else unit**0.5
    if part.head in ("exp", "ln"):
        _plain(part.parts[0], units, f"the argument of {part.head}")
        return ONE
    _alike(part.parts[:2], units)
    if part.head == "hill":
        _plain(part.parts[2], units, f"the exponent of {_written(part)}")
    return ONE


DOI = re.compile(r"(https://doi\.org/|doi:)10\.\d{4,9}/\S+")
ASSUMED = "assumption: "
CORRECT = "Correct the formula."
ALLOWED_NUMBERS = frozenset({0.0, 1.0, 2.0})
# read by dosing and by the grade, even if no equation uses them
USED_ELSEWHERE = frozenset({"weight", "grade_1", "grade_2", "grade_3", "grade_4"})


@dataclass(frozen=True)
class Issue:
    """One problem: where (file, line, symbol), what, and what to do about it."""

    file: str
    line: int
    symbol: str
    text: str
    advice: str

    def __str__(self) -> str:
        """One line: file:line, the symbol, what is wrong, what to do."""
        return f"{self.file}:{self.line}  {self.symbol}: {self.text}. {self.advice}"


def _issue(model: Model, symbol: Symbol, text: str, advice: str) -> Issue:
    return Issue(model.path or model.name, symbol.line, symbol.id, text, advice)


def check_model(model: Model) -> list[Issue]:
    """All issues of a model, in file order."""
    checks: tuple[Callable[[Model], list[Issue]], ...] = (
        unit_names, units, unused_names, bare_numbers, sources, zero_state,
    )  # fmt: skip
    issues = [issue for check in checks for issue in check(model)]
    return sorted(issues, key=lambda issue: (issue.file, issue.line))


# --- units ----------------------------------------------------------------------------------------


def unit_names(model: Model) -> list[Issue]:
    """Declared units whose name and definition disagree (``pg_per_mL`` defined as ng/mL)."""
    issues = []
    units_by_name = declared_units(model.units)
    for name, definition in model.units:
        named, declared = named_unit(name), units_by_name[name]
        if named is not None and not same(named, declared):
            text = f"the name is {show(named)}, its definition ({definition}) is {show(declared)}"
            advice = f"Correct one of them ({difference(declared, named)})."
            file, line = model.path or model.name, _unit_line(model, name)
            issues.append(Issue(file, line, f"unit {name}", text, advice))
    return issues


def _unit_line(model: Model, name: str) -> int:
    # a Model does not keep the line numbers of its units, so look in its file
    path = Path(model.path)
    if not (model.path and path.is_file()):
        return 0
    match = re.search(rf"\bunit\s+{name}\s*=", text := path.read_text(encoding="utf-8-sig"))
    return text.count("\n", 0, match.start()) + 1 if match else 0


def symbol_units(model: Model) -> dict[str, Unit]:
    """The unit of every parameter, state and quantity.

    Raises
    ------
    UnitError
        Naming file, line and symbol, if a unit is unknown.
    """
    declared = declared_units(model.units)
    where = f"{model.path or model.name}:{{}}  {{}}:"
    return {
        s.id: read_unit(s.unit, where.format(s.line, s.id), declared)
        for s in model.symbols.values()
    }


def units(model: Model) -> list[Issue]:
    """Formulas that mix dimensions, hide a factor, or have another unit than declared."""
    known = symbol_units(model)
    per_day = read_unit("1/day")
    issues: list[Issue] = []
    for quantity in model.quantities:
        issues += _terms(model, quantity, quantity.formula, known, known[quantity.id])
    for state in model.states:
        # a plain number is in the state's own unit
        if names(state.initial):
            issues += _terms(model, state, state.initial, known, known[state.id])
        issues += _terms(model, state, state.rate, known, known[state.id] * per_day)
    return issues


def _terms(
    model: Model, symbol: Symbol, text: str, known: dict[str, Unit], needed: Unit
) -> Iterator[Issue]:
    for term in terms(text):
        try:
            unit = formula_unit(term, known)
        except UnitError as error:
            yield _issue(model, symbol, str(error), "Correct a unit, or divide by a reference.")
            continue
        if unit is not None and not same(unit, needed):
            what = f"{term}, {difference(unit, needed)}: {show(unit)}, needed {show(needed)}"
            advice = "Declare a parameter in another unit, or write the conversion as one."
            yield _issue(model, symbol, what, advice)


# --- names and sources -----------------------------------------------------------------------


def unused_names(model: Model) -> list[Issue]:
    """Parameters that no formula, drug or grade cut-point uses, and unused units."""
    used = set(USED_ELSEWHERE).union(*(drug.parameters for drug in model.drugs))
    for quantity in model.quantities:
        used |= names(quantity.formula)
    for state in model.states:
        used |= names(state.rate) | names(state.initial)
    advice = "Delete it, or look for the formula that should use it."
    issues = [_issue(model, p, "is used nowhere", advice)
              for p in model.parameters if p.id not in used]  # fmt: skip
    used_units = {s.unit for s in model.symbols.values()} | {d.unit for d in model.drugs}
    used_units |= {word for _, text in model.units for word in re.findall(r"[A-Za-z]\w*", text)}
    issues += [
        Issue(model.path or model.name, _unit_line(model, name), f"unit {name}", "is used nowhere",
              "Delete it.")
        for name, _ in model.units if name not in used_units
    ]  # fmt: skip
    return issues


def bare_numbers(model: Model) -> list[Issue]:
    """Numbers inside formulas, which have no unit, label or source.

    0, 1 and 2 are allowed: they belong to algebra (an unbound fraction, a square).
    """
    advice = "Make each a parameter with unit, label and source."
    written: list[tuple[Symbol, str]] = [(q, q.formula) for q in model.quantities]
    written += [(s, text) for s in model.states for text in (s.rate, s.initial) if names(text)]
    return [
        _issue(model, symbol, f"bare number {', '.join(f'{n:g}' for n in bare)} in {text}", advice)
        for symbol, text in written if (bare := sorted(numbers(text) - ALLOWED_NUMBERS))
    ]  # fmt: skip


def sources(model: Model) -> list[Issue]:
    """Parameters and states without a source, and sources that are neither DOI nor assumption."""
    advice = f'Give "https://doi.org/10..." or "{ASSUMED}...".'
    issues = []
    for symbol in model.symbols.values():
        source = symbol.source.strip()
        if source.startswith(ASSUMED) or DOI.match(source):
            continue
        if source:
            issues.append(_issue(model, symbol, f"source {source!r} is not a DOI", advice))
        elif symbol not in model.quantities:
            issues.append(_issue(model, symbol, "has no source", advice))
    return issues


# --- the zero state -------------------------------------------------------------------------------


def zero_state(model: Model) -> list[Issue]:
    """Rates, quantities and Jacobian that are not finite where every state is zero.

    Drug states are zero before the first dose, and one nan ends the run.
    """
    try:
        code = compile_model(model)
    except CrsSimError as error:
        file = model.path or model.name
        at = re.fullmatch(rf"{re.escape(file)}:(\d+)  (\w+): (.*)", str(error))
        line, symbol, text = at.groups() if at else ("0", model.name, str(error))
        return [Issue(file, int(line), symbol, text.removeprefix(f"{file}  "), CORRECT)]
    zero = np.zeros(len(model.states))
    p = np.array([parameter.value for parameter in model.parameters])
    return list(_not_finite(model, code, zero, p))


def _not_finite(model: Model, code: Code, y: np.ndarray, p: np.ndarray) -> Iterator[Issue]:
    advice = "Write x/(K + x) as hill(x, K, 1), or keep a divisor above zero."
    try:
        with np.errstate(all="ignore"):
            rates, jacobian = code.rates(y, p), code.jacobian(y, p)
    except (ArithmeticError, ValueError) as error:
        symbol = _fails_at_zero(model)
        text = f"is not finite where every state is zero ({error})"
        if symbol is not None:
            yield _issue(model, symbol, text, advice)
        else:
            yield Issue(model.path or model.name, 0, model.name, f"Jacobian {text}", advice)
        return
    name = no_value(model, y)
    if name is not None:
        yield _issue(model, model[name], "is not finite where every state is zero", advice)
    for state, rate, row in zip(model.states, rates, jacobian, strict=True):
        by = [n for n, v in zip(model.state_ids, row, strict=True) if not np.isfinite(v)]
        if not np.isfinite(rate):
            yield _issue(model, state, "rate is not finite where every state is zero", advice)
        elif by:
            text = f"rate has no finite derivative by {', '.join(by)} at the zero state"
            yield _issue(model, state, text, advice)


def _fails_at_zero(model: Model) -> Quantity | State | None:
    # the generated code does not report which formula failed: evaluate them one by one
    name = no_value(model, np.zeros(len(model.states)))
    if name is not None:
        return model.symbols[name]  # type: ignore[return-value]
    known = _known(model, np.zeros(len(model.states)))
    for state in model.states:
        try:
            evaluate(state.rate, known)
        except (ArithmeticError, ValueError):
            return state
    return None


def no_value(model: Model, y: np.ndarray) -> str | None:
    """The first quantity that has no finite value at these states (n_states,), if there is one."""
    known = _known(model, y)
    return next((q for q in model.quantity_ids if not math.isfinite(known[q])), None)


def _known(model: Model, y: np.ndarray) -> dict[str, float]:
    known = {**model.values, **dict(zip(model.state_ids, map(float, y), strict=True))}
    for quantity in model.quantities:
        try:
            known[quantity.id] = evaluate(quantity.formula, known)
        except (ArithmeticError, ValueError):
            known[quantity.id] = math.nan
    return known


# --- the listing ----------------------------------------------------------------------------------
