"""A model's folder to a `Model`, cached once parsed; a `Model` to SBML.

The only module that imports antimony. `crs_sim.model.dialect` splits the text into statements and
validates them, `crs_sim.model.formula` reads the formulas in them; antimony writes SBML, and
refuses names that mean something there.

It is parsed again when its text or the parsing code changes.
"""

from __future__ import annotations

import math
import pickle
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import antimony

from ..errors import InputError, ModelError, UnitError, unknown_name
from ..store import cached_bytes, fingerprint, locate, read_cached, source_fingerprint
from .dialect import FUNCTIONS, Scan, Statement, raise_problems, scan
from .formula import Tree, names, parse, written
from .model import Drug, Model, Parameter, Quantity, State, declared_units, readable_unit
from .units import Unit, convert, difference, pretty, ratio, read_unit, same, show
from .usual import UsualValues, read_usual

# for export to other tools: x^n is undefined for x < 0, where a solver may step
SAFE_HILL = "function hill(x, K, n)  piecewise(x^n/(K^n + x^n), x > 0, 0)  end"
DRUG_KEYS = (
    "into", "unit", "hours", "bioavailability", "molar_mass", "label", "lag", "duration", "rate",
    "level",
)  # fmt: skip


def read_model(text: str, path: str = "", drugs: Sequence[Drug] = ()) -> Model:
    """Parse the text of a model file into a model.

    Parameters
    ----------
    text : the whole content of a model file
    path : location, put at the start of messages
    drugs : how doses enter, see `read_drugs`

    Raises
    ------
    ModelError
        Naming every line that is outside the dialect.
    """
    found = scan(text, path)
    _check_unit_definitions(found)
    _check_export(found)
    parts = _Parts(found)
    model = Model(
        name=found.name,
        states=tuple(parts.state(s.name) for s in found.of("rate")),
        parameters=tuple(parts.parameter(n) for n in parts.constants),
        quantities=tuple(parts.quantity(s.name) for s in found.of("quantity")),
        units=tuple((s.name, s.text) for s in found.of("unit")),
        path=path,
    )
    return with_drugs(model, drugs, path) if drugs else model


# --- through antimony -----------------------------------------------------------------------------


def _check_unit_definitions(found: Scan) -> None:
    known: dict[str, Unit] = {}
    problems = []
    for s in found.of("unit"):
        try:
            known[s.name] = read_unit(s.text, f"{s.name}:", known)
        except UnitError as error:
            problems.append((s.line, str(error)))
    raise_problems(found.path, problems)


def _check_export(found: Scan) -> None:
    """Refuse what antimony would not write as SBML, such as a name that means something there."""
    text = "\n" * (found.line - 1) + " ".join(FUNCTIONS.values()) + f" model {found.name}\n"
    line = found.line + 1
    for statement in found.statements:
        # each at its line in the file, for the line in antimony's message
        text += "\n" * (statement.line - line) + _code(statement) + "; "
        line = max(line, statement.line)
    _sbml_text(text + "\nend\n", found.name, found.path)


def _code(statement: Statement) -> str:
    """A statement on one line, with every bracket: antimony's grammar is not ours."""
    signs = {"unit": "unit {} = {}", "label": '{} is "{}"', "source": '{} description "{}"',
             "has": "{} has {}", "rate": "{}' = {}", "quantity": "{} := {}"}  # fmt: skip
    text = statement.text
    if statement.kind in ("rate", "quantity", "formula"):
        text = written(parse(text), bracketed=True)
    sign = signs.get(statement.kind, "{} = {} " + statement.unit)
    return sign.format(statement.name, text).strip()


def _sbml_text(text: str, name: str, path: str) -> str:
    antimony.clearPreviousLoads()
    if antimony.loadAntimonyString(text) < 0:
        message = antimony.getLastError()
        match = re.search(r"line (\d+):\s*(.*)", message)
        line, what = (int(match[1]), match[2]) if match else (1, message)
        raise ModelError(f"{path or 'model'}:{line}  antimony cannot read this: {what}")
    sbml_text: str = antimony.getSBMLString(name)
    antimony.clearPreviousLoads()
    return sbml_text


class _Parts:
    """Builds the parts of a model from the statements of the scan."""

    def __init__(self, found: Scan) -> None:
        self.found = found
        self.constants = [name for name, s in found.symbols.items() if s.kind == "value"]

    def common(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "unit": self.found.units.get(name, ""),
            "label": self.annotation("label", name),
            "source": self.annotation("source", name),
            "line": self.found.symbols[name].line,
        }

    def annotation(self, kind: str, name: str) -> str:
        statement = self.found.by_kind[kind].get(name)
        return re.sub(r"\\(.)", r"\1", statement.text) if statement else ""

    def parameter(self, name: str) -> Parameter:
        return Parameter(value=float(self.found.symbols[name].text), **self.common(name))

    def state(self, name: str) -> State:
        kinds = self.found.by_kind
        start = kinds["value"].get(name) or kinds["formula"][name]
        rate = written(parse(kinds["rate"][name].text))
        return State(initial=written(parse(start.text)), rate=rate, **self.common(name))

    def quantity(self, name: str) -> Quantity:
        text = written(parse(self.found.by_kind["quantity"][name].text))
        return Quantity(formula=text, **self.common(name))


# --- drugs ----------------------------------------------------------------------------------------


def read_drugs(text: str, path: str = "drugs.toml") -> tuple[Drug, ...]:
    """The drugs of a ``drugs.toml``: one table per drug, with the fields of `Drug` as keys.

    Raises
    ------
    InputError, UnknownNameError
        For text that is not TOML, a missing or unknown key, or a value of the wrong kind.

    Examples
    --------
    >>> read_drugs('[anakinra]\\ninto = "ANA"\\nunit = "mg"')[0].into
    'ANA'
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}  is not TOML: {error}") from None
    return tuple(_drug(name, table, f"{path} [{name}]") for name, table in tables.items())


def _drug(name: str, table: object, where: str) -> Drug:
    if not isinstance(table, Mapping):
        raise InputError(f"{where}  is not in a drug's table: write it under [drug name]")
    for key, value in table.items():
        if key not in DRUG_KEYS:
            raise unknown_name("key", key, DRUG_KEYS, where)
        _check_kind(key, value, where)
    missing = [key for key in ("into", "unit") if not table.get(key)]
    if missing:
        raise InputError(f'{where}  has no {" and no ".join(missing)}: write {missing[0]} = "..."')
    numbers = {k: float(v) for k, v in table.items() if k in ("hours", "molar_mass")}
    return Drug(name, **{**table, **numbers})


def _check_kind(key: str, value: object, where: str) -> None:
    if key not in ("hours", "molar_mass"):
        if not isinstance(value, str):
            raise InputError(f'{where}  {key} = {value!r} is not text: write {key} = "..."')
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{where}  {key} = {value!r} is not a number")
    elif not (math.isfinite(value) and value >= 0):
        raise InputError(f"{where}  {key} = {value!r}: give a finite number, zero or more")


def with_drugs(model: Model, drugs: Sequence[Drug], path: str = "drugs.toml") -> Model:
    """The model with these drugs, each checked against the state it enters.

    Raises
    ------
    UnknownNameError, UnitError
        If a state or parameter does not exist, or the unit of the dose (times that of the
        bioavailability, if there is one) is not the state's.
    """
    declared = declared_units(model.units)
    for drug in drugs:
        _check_drug(model, drug, declared, f"{path} [{drug.name}]")
    return replace(model, drugs=tuple(drugs))


def _check_drug(model: Model, drug: Drug, declared: Mapping[str, Unit], where: str) -> None:
    if drug.into not in model.state_ids:
        raise unknown_name("state", drug.into, model.state_ids, where)
    for parameter in drug.parameters:
        if parameter not in model.values:
            raise unknown_name("parameter", parameter, model.values, where)
    if drug.level and drug.level not in model.quantity_ids:
        raise unknown_name("quantity", drug.level, model.quantity_ids, where)
    _check_times(model, drug, declared, where)
    unit = read_unit(drug.unit, where, declared)
    if drug.bioavailability:
        unit = unit * read_unit(model[drug.bioavailability].unit, where, declared)
    needed = read_unit(model[drug.into].unit, where, declared)
    if not same(unit, needed):
        raise UnitError(
            f"{where}  a dose arrives in {show(unit)}, but {drug.into} is in "
            f"{pretty(model[drug.into].unit)} ({difference(unit, needed)}): change the unit, or "
            f"scale with a bioavailability parameter"
        )


def _check_times(model: Model, drug: Drug, declared: Mapping[str, Unit], where: str) -> None:
    """Check that lag and duration are times, and the rate an amount per time."""
    day = read_unit("day")
    for parameter in filter(None, (drug.lag, drug.duration)):
        unit = read_unit(model[parameter].unit, where, declared)
        if ratio(unit, day) is None:
            raise UnitError(f"{where}  {parameter} is in {show(unit)}, which is not a time")
    if drug.rate:
        unit = read_unit(model[drug.rate].unit, where, declared)
        if ratio(unit, read_unit(model[drug.into].unit, where, declared) / day) is None:
            raise UnitError(
                f"{where}  {drug.rate} is in {show(unit)}; a rate is in "
                f"{pretty(model[drug.into].unit)} per time, as {drug.into}"
            )


# --- export ---------------------------------------------------------------------------------------


def antimony_text(model: Model) -> str:
    """The model as the text of a model file, with its current values; `read_model` reads it."""
    lines = [*FUNCTIONS.values(), f"model {model.name}"]
    lines += [f"  unit {name} = {definition};" for name, definition in model.units]
    lines += [f"  {p.id} = {p.value!r} {p.unit};" for p in model.parameters]
    lines += [f"  {s.id} = {s.initial}; {s.id} has {s.unit};" for s in model.states]
    lines += [f"  {q.id} := {q.formula}; {q.id} has {q.unit};" for q in model.quantities]
    lines += [f"  {s.id}' = {s.rate};" for s in model.states]
    for symbol in model.symbols.values():
        lines.append(f"  {symbol.id} is {_quoted(symbol.label)};")
        if symbol.source:
            lines.append(f"  {symbol.id} description {_quoted(symbol.source)};")
    return "\n".join([*lines, "end", ""])


def _quoted(text: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def _exportable(model: Model) -> Model:
    """The model with every bracket, and each power with a varying exponent as exp(n*ln(x)).

    libsbml (so also libRoadRunner and the online validator) derives the unit of a power by
    evaluating its exponent; with a state in it, this recurses into the state's rate for ever.
    """
    constants = frozenset(model.parameter_ids)

    def change(part: Tree) -> Tree:
        if part.head != "^" or names(written(part.parts[1])) <= constants:
            return part
        logarithm = Tree("function", "ln", part.parts[:1])
        return Tree("function", "exp", (Tree("sign", "*", (part.parts[1], logarithm)),))

    def write(text: str) -> str:
        return written(parse(text).changed(change), bracketed=True)

    return replace(
        model,
        states=tuple(
            replace(s, rate=write(s.rate), initial=write(s.initial)) for s in model.states
        ),
        quantities=tuple(replace(q, formula=write(q.formula)) for q in model.quantities),
    )


def sbml(model: Model) -> str:
    """The model as SBML level 3, with its current values; time is in days.

    Doses are not included: they belong to a scenario.
    """
    text = antimony_text(_exportable(model)).replace(FUNCTIONS["hill"], SAFE_HILL)
    header = f"model {model.name}\n"
    text = text.replace(header, header + "  unit time_unit = 86400 second;\n", 1)
    return _sbml_text(text, model.name, model.path)


FILES = ("drugs.toml", "usual.toml")
READERS = ("model/dialect", "model/formula", "model/model", "model/model_file", "model/units",
           "model/units.toml", "model/usual")  # fmt: skip
"""The modules whose source determines how a model file is parsed."""


def load_model(name_or_path: str | Path = "crs") -> Model:
    """Load the model of a folder (``model.ant``, perhaps `FILES` beside it), or a shipped one.

    Parameters
    ----------
    name_or_path : a folder, a ``.ant`` file, or the name of a shipped model

    Raises
    ------
    ModelError, InputError, UnitError, UnknownNameError
        If a file cannot be read, or holds something outside the dialect; with file and line.
    """
    home = locate(name_or_path, "models", "model.ant")
    path = home / "model.ant" if home.is_dir() else home
    texts = [_text(path), _display(path)]
    for beside in (path.with_name(name) for name in FILES):
        texts += [_text(beside) if beside.is_file() else "", _display(beside)]
    readers = source_fingerprint(READERS, ("antimony",))
    name = f"{path.parent.name}_{fingerprint(*texts, readers)}.model"
    cached = cached_bytes(name, lambda: pickle.dumps(_read(*texts)))
    model: Model = pickle.loads(read_cached(cached))
    return model


def _read(text: str, path: str, drugs: str, drugs_path: str, usual: str, at: str) -> Model:
    model = with_drugs(read_model(text, path), read_drugs(drugs, drugs_path), drugs_path)
    return replace(model, usual=_checked_usual(model, read_usual(usual, at), at))


def _checked_usual(model: Model, usual: UsualValues, path: str) -> UsualValues:
    """What is usual of a model, each checked to be of something that it has, in a unit of it."""
    drugs = [drug.name for drug in model.drugs]
    known = {"drug": drugs, "level": model.course_ids, "parameter": model.parameter_ids}
    for entry in usual.entries:
        where = f"{path} [{entry.kind}.{entry.of}]"
        if entry.of not in known[entry.kind]:
            raise unknown_name(entry.kind, entry.of, known[entry.kind], where)
        if entry.unit and entry.kind == "drug":
            drug = model.drug(entry.of)
            drug.conversion(entry.unit, where, readable_unit(model, drug.unit))
        elif entry.unit:
            convert(1.0, entry.unit, readable_unit(model, model[entry.of].unit), where)
    return usual


def _display(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise InputError(f"{_display(path)}:{line}  is not UTF-8 text: save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"{_display(path)}  cannot be read: {error.strerror}") from None
