"""Scan a model file into statements, and report everything outside the dialect.

antimony accepts many more kinds of statement than this dialect, and silently makes a misspelt name
a new parameter. This scan finds both, and reports all problems at once.
"""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..errors import ModelError, unknown_name
from . import formula
from .model import named_unit

FUNCTIONS = {
    "hill": "function hill(x, K, n)  x^n/(K^n + x^n)  end",
    "reached": "function reached(x, level)  piecewise(1, x >= level, 0)  end",
}
SBML_UNITS = {"dimensionless", "gram", "kilogram", "litre", "metre", "mole", "second", "item"}
NAME = r"[A-Za-z_][A-Za-z0-9_]*"
NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
TEXT = r'"(?P<text>(?:[^"\\]|\\.)*)"'
KINDS = {
    "unit": rf"unit\s+(?P<name>{NAME})\s*=\s*(?P<text>.+)",
    "label": rf"(?P<name>{NAME})\s+is\s+{TEXT}",
    "source": rf"(?P<name>{NAME})\s+description\s+{TEXT}",
    "has": rf"(?P<name>{NAME})\s+has\s+(?P<text>{NAME})",
    "rate": rf"(?P<name>{NAME})\s*'\s*=\s*(?P<text>.+)",
    "quantity": rf"(?P<name>{NAME})\s*:=\s*(?P<text>.+)",
    "value": rf"(?P<name>{NAME})\s*=\s*(?P<text>{NUMBER})(?:\s+(?P<unit>{NAME}))?",
    "formula": rf"(?P<name>{NAME})\s*=\s*(?P<text>.+)",
}
OUTSIDE_DIALECT = {
    r"(substanceOnly\s+)?species\b|\$": "a species",
    r"compartment\b": "a compartment",
    r"event\b|(\w+\s*:\s*)?at\b": "an event",
    r"reaction\b|.*(->|=>)": "a reaction",
    r"(import|delete|module|model)\b|\w+\s*:\s*\w+\s*\(": "a sub-model",
    r"function\b": "a function inside the model",
}
ADVICE = "write a balance as X' = ..., a quantity with :=, doses and changes in a scenario"
STRICT: dict[str, Any] = formula.SIGNS | formula.FUNCTIONS | {"^": math.pow, "sqrt": math.sqrt}
"""Of numbers alone: what is not real is an error, where a state just below 0 makes it 0."""
_DEFINES = ("unit", "value", "formula", "quantity", "rate")
_NEW_STATEMENT = re.compile(
    rf"\n[ \t]*{NAME}\s*(:?=|'|\bis\b|\bhas\b|\bdescription\b|\s{NAME}\s*=)"
)


@dataclass(frozen=True)
class Statement:
    """One statement: ``kind`` is a key of `KINDS`, ``text`` what it assigns to ``name``."""

    line: int
    kind: str
    name: str
    text: str
    unit: str = ""


@dataclass(frozen=True)
class Scan:
    """The statements of a model file, in file order."""

    path: str
    name: str
    line: int
    functions: frozenset[str]
    statements: tuple[Statement, ...]

    def of(self, *kinds: str) -> tuple[Statement, ...]:
        """The statements of these kinds."""
        return tuple(s for s in self.statements if s.kind in kinds)

    @cached_property
    def by_kind(self) -> dict[str, dict[str, Statement]]:
        """For each kind, its statements by name."""
        return {kind: {s.name: s for s in self.of(kind)} for kind in KINDS}

    @cached_property
    def symbols(self) -> dict[str, Statement]:
        """The defining statement of each parameter, state and quantity, by name."""
        values = {s.name: s for s in self.of("value", "formula")}
        return {**values, **self.by_kind["quantity"], **self.by_kind["rate"]}

    @cached_property
    def units(self) -> dict[str, str]:
        """Unit name of each symbol that has one."""
        units = {s.name: s.unit for s in self.of("value") if s.unit}
        return {**units, **{s.name: s.text for s in self.of("has")}}


Problem = tuple[int, str]


def raise_problems(path: str, problems: Iterable[Problem]) -> None:
    """Raise all problems, in file order, as one error; do nothing if there are none.

    Raises
    ------
    ModelError
        One line per problem, beginning with ``file:line``.
    """
    found = sorted(set(problems))
    if found:
        raise _error(path, *found)


def _error(path: str, *problems: Problem) -> ModelError:
    return ModelError("\n".join(f"{path or 'model'}:{line}  {what}" for line, what in problems))


def scan(text: str, path: str = "") -> Scan:
    """The statements of a model file, checked against the dialect.

    Parameters
    ----------
    text : the whole file
    path : location, put at the start of messages

    Raises
    ------
    ModelError
        Naming every line that is outside the dialect or incomplete.
    """
    clean, mask = _without_comments(text)
    problems: list[Problem] = []
    functions, at = _functions(clean, mask, problems)
    header, end = _frame(mask, at, path, problems)
    statements = tuple(_statements(clean, mask, (header.end(), end), problems))
    raise_problems(path, problems)
    found = Scan(path, header[1], _line(mask, header.start(1)), functions, statements)
    # in passes: a problem found in one would cause follow-up problems in the next
    raise_problems(path, [*_duplicates(found), *_forbidden_names(found)])
    raise_problems(path, [*_incomplete(found), *_formulas(found)])
    raise_problems(path, [*_order(found), *_reached_in_rates(found)])
    return found


# --- text to statements ---------------------------------------------------------------------------


def _line(text: str, at: int) -> int:
    rest = text[at:]
    return text.count("\n", 0, at + len(rest) - len(rest.lstrip())) + 1


def _without_comments(text: str) -> tuple[str, str]:
    """The text with comments blanked; the same with the contents of strings blanked too."""
    pattern = re.compile(r'"(?:[^"\\\n]|\\.)*"|//[^\n]*|#[^\n]*|/\*.*?\*/', re.DOTALL)

    def blank(part: str) -> str:
        return re.sub(r"[^\n]", " ", part)

    clean = pattern.sub(lambda m: m[0] if m[0][0] == '"' else blank(m[0]), text)
    return clean, pattern.sub(lambda m: '"' + blank(m[0][1:-1]) + '"', clean)


def _functions(clean: str, mask: str, problems: list[Problem]) -> tuple[frozenset[str], int]:
    pattern = re.compile(rf"\s*function\s+({NAME})\s*\(.*?\bend\b[ \t]*;?", re.DOTALL)
    found: set[str] = set()
    at = 0
    while match := pattern.match(mask, at):
        name, line = match[1], _line(mask, match.start())
        written = re.sub(r"[\s;]", "", clean[match.start() : match.end()])
        if name not in FUNCTIONS:
            problems.append((line, f"function {name}: only hill and reached may be defined"))
        elif written != re.sub(r"\s", "", FUNCTIONS[name]):
            problems.append((line, f"{name} must be written: {FUNCTIONS[name]}"))
        elif name in found:
            problems.append((line, f"function {name} is defined twice: delete one"))
        found.add(name)
        at = match.end()
    return frozenset(found), at


def _frame(mask: str, at: int, path: str, problems: list[Problem]) -> tuple[re.Match[str], int]:
    """Match the model's first line and find its ``end``; text after it is a problem."""
    if not mask.strip():
        raise _error(path, (1, "the file is empty: write 'model NAME ... end'"))
    header = re.compile(rf"\s*(?:model|module)\s+\*?({NAME})[ \t]*(\([ \t]*\))?").match(mask, at)
    if header is None:
        problem = (_line(mask, at), "no model found: write 'model NAME ... end'")
        raise _error(path, *problems, problem)
    end = re.compile(r"\bend\b").search(mask, header.end())
    if end is None:
        line = _line(mask, header.start(1))
        raise _error(path, (line, f"model {header[1]} has no 'end'"))
    rest = mask[end.end() :].lstrip(" \t\n;")
    if rest:
        second = re.match(r"(model|module)\b", rest)
        what = "a second model: a file holds one" if second else "text after the model's end"
        problems.append((_line(mask, len(mask) - len(rest)), what))
    return header, end.start()


def _statements(
    clean: str, mask: str, span: tuple[int, int], problems: list[Problem]
) -> Iterator[Statement]:
    at, last = span
    for piece in mask[at:last].split(";"):
        text, start = clean[at : at + len(piece)], at
        at += len(piece) + 1
        if not text.strip():
            continue
        line = _line(mask, start)
        run_on = _NEW_STATEMENT.search("\n" + piece.strip(), 1)
        if run_on:
            line += piece.strip()[: run_on.start() - 1].count("\n")
            problems.append((line, "a ';' is missing at the end of this statement"))
            continue
        statement = _classify(" ".join(text.split()), line)
        if isinstance(statement, str):
            problems.append((line, statement))
        else:
            yield statement


def _classify(text: str, line: int) -> Statement | str:
    masked = re.sub(r'"(?:[^"\\]|\\.)*"', '""', text)
    for pattern, what in OUTSIDE_DIALECT.items():
        if re.match(pattern, masked):
            return f"{what} ({text!r}) is outside the dialect: {ADVICE}"
    for kind, pattern in KINDS.items():
        match = re.fullmatch(pattern, text)
        if match and kind in ("formula", "rate", "quantity", "unit") and '"' in match["text"]:
            return f"a ';' is missing in {text!r}"
        if match:
            unit = match["unit"] or "" if kind == "value" else ""
            return Statement(line, kind, match["name"], match["text"].strip(), unit)
    if re.search(r'""\s*\w', masked):
        return f"a ';' is missing in {text!r}"
    return f"{text!r} is not a statement of the dialect: {ADVICE}"


def folded(text: str) -> formula.Tree:
    """A formula with every part that holds no name computed.

    Raises
    ------
    ModelError
        Naming a part that has no value, whatever the names in it are worth.
    """
    return formula.parse(text).changed(_folded)


def _folded(part: formula.Tree) -> formula.Tree:
    if part.kind in ("number", "name"):
        return part
    values = [_number(p) for p in part.parts]
    if part.head == "/" and values[1] == 0.0:
        raise ModelError(f"{formula.written(part)} divides by zero for all values")
    if part.head == "hill" and values[1] is not None and values[1] <= 0.0:
        raise ModelError(f"{formula.written(part)}: the second argument of hill must be above 0")
    if None in values or part.kind == "minus":
        return part
    try:
        value = float(STRICT[part.head](*values))
    except OverflowError:
        value = math.inf
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        what = "is too large for a number" if math.isinf(value) else "has no real value"
        raise ModelError(f"{formula.written(part)} {what}")
    size = formula.Tree("number", value=abs(value))
    return size if value >= 0.0 else formula.Tree("minus", "-", (size,))


def _number(part: formula.Tree) -> float | None:
    """The value of a number, with or without a minus sign before it."""
    if part.kind == "minus" and (inner := _number(part.parts[0])) is not None:
        return -inner
    return part.value if part.kind == "number" else None


# --- consistency of the statements ----------------------------------------------------------------


def _duplicates(found: Scan) -> Iterator[Problem]:
    seen: dict[tuple[str, str], Statement] = {}
    for s in found.statements:
        kind = "value" if s.kind == "formula" else s.kind
        first = seen.setdefault((s.name, kind), s)
        if first is not s:
            yield s.line, f"duplicate {kind} of {s.name}: the first is on line {first.line}"
        elif kind == "quantity" or (kind == "value" and (s.name, "quantity") in seen):
            other = seen.get((s.name, "value")) or seen.get((s.name, "rate"))
            if other:
                yield s.line, f"duplicate definition of {s.name}: :=, and on line {other.line}"
        elif kind == "rate" and (s.name, "quantity") in seen:
            first = seen[s.name, "quantity"]
            yield s.line, f"duplicate definition of {s.name}: a rate here, := on line {first.line}"
    for s in found.of("has"):
        value = found.by_kind["value"].get(s.name)
        if value and value.unit not in ("", s.text):
            given = f"{value.unit} on line {value.line}"
            yield s.line, f"duplicate unit of {s.name}: {s.text} here, {given}"


def _forbidden_names(found: Scan) -> Iterator[Problem]:
    declared = set(found.by_kind["unit"])
    for s in found.of(*_DEFINES):
        if s.name in formula.FUNCTIONS or keyword.iskeyword(s.name) or s.name == "time":
            yield s.line, f"{s.name!r} is a reserved word: choose another name"
        elif s.kind != "unit" and s.name in declared:
            yield s.line, f"{s.name} is also the name of a unit: choose another"
    for s in found.of("value"):
        try:
            formula.literal(s.text)
        except ModelError as error:
            yield s.line, f"{s.name} = {error}"


def _incomplete(found: Scan) -> Iterator[Problem]:
    kinds = found.by_kind
    for s in found.of("label", "source", "has"):
        if s.name not in found.symbols:
            yield s.line, _unknown(s.name, found.symbols)
    units = {*kinds["unit"], *SBML_UNITS}
    for s in found.of("value", "has"):
        unit = s.text if s.kind == "has" else s.unit
        if unit and unit not in units:
            real = {unit} if named_unit(unit) else ()  # but not declared here
            yield s.line, str(unknown_name("unit", unit, units, elsewhere=real))
    for name, s in found.symbols.items():
        if s.kind == "formula":
            yield s.line, (f"{name} = {s.text}: a parameter is one number, such as 1000 or 2.5e-3; "
                           "write := for a formula")  # fmt: skip
            continue
        if s.kind == "rate" and name not in kinds["value"] and name not in kinds["formula"]:
            yield s.line, f"{name} has a rate and no initial value: write {name} = 0;"
        if name not in found.units:
            yield s.line, f"{name} has no unit: write {name} has pg_per_mL; (or another)"
        if not kinds["label"].get(name, s).text.strip() or name not in kinds["label"]:
            yield s.line, f'{name} has no label: write {name} is "...";'
        if s.kind != "quantity" and name not in kinds["source"]:
            advice = f'write {name} description "https://doi.org/..."; or "assumption: ..."'
            yield s.line, f"{name} has no source: {advice}"


def _unknown(name: str, known: Iterable[str]) -> str:
    if name == "time":
        return "'time' is outside the dialect: put dated events in a scenario"
    return str(unknown_name("name", name, known))


def _formulas(found: Scan) -> Iterator[Problem]:
    for s in found.of("formula", "quantity", "rate"):
        if s.kind == "formula" and s.name not in found.by_kind["rate"]:
            continue
        try:
            used, called = formula.names(s.text), formula.functions(s.text)
            folded(s.text)
        except ModelError as error:
            yield s.line, f"{s.name}: {error}"
            continue
        for name in sorted(used - set(found.symbols)):
            yield s.line, f"{s.name}: {_unknown(name, found.symbols)}"
        for name in sorted((called & set(FUNCTIONS)) - found.functions):
            yield s.line, f"{s.name} uses {name}: put above the model  {FUNCTIONS[name]}"


def _order(found: Scan) -> Iterator[Problem]:
    above: set[str] = set()
    quantities = found.by_kind["quantity"]
    varying = set(found.by_kind["rate"])
    for s in quantities.values():
        used = formula.names(s.text)
        for name in sorted((used & set(quantities)) - above):
            at = quantities[name].line
            where = "is itself" if name == s.name else f"is below it, on line {at}"
            yield s.line, f"{s.name} uses {name}, which {where}: a quantity uses those above it"
        if used & varying:
            varying.add(s.name)
        above.add(s.name)
    for s in found.of("formula"):
        for name in sorted(formula.names(s.text) & varying):
            yield s.line, f"{s.name} starts from {name}, which is not constant: use parameters only"


def _reached_in_rates(found: Scan) -> Iterator[Problem]:
    stepped: dict[str, str] = {}
    for s in found.of("quantity"):
        through = [stepped[n] for n in sorted(formula.names(s.text)) if n in stepped]
        if "reached" in formula.functions(s.text):
            stepped[s.name] = s.name
        elif through:
            stepped[s.name] = through[0]
    for s in found.of("rate", "formula"):
        through = [stepped[n] for n in sorted(formula.names(s.text)) if n in stepped]
        if "reached" in formula.functions(s.text) or through:
            by = f" (through {through[0]})" if through else ""
            yield s.line, f"{s.name} uses reached{by}: a rate must be smooth; use hill"
