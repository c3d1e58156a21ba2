"""What people call the drugs and levels of a model, and the most that is usual of them.

Read from a ``usual.toml`` beside the model. It changes no result: a name is understood and a note
says so; a value above the most that is usual becomes a question, and the run goes on.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..errors import InputError, UnknownNameError, note, plain_name, unknown_name

KINDS = ("drug", "level", "parameter")
NUMBERS = ("least", "most")
KEYS = ("names", *NUMBERS, "unit", "source")


@dataclass(frozen=True)
class Usual:
    """What is usual of one drug, level or parameter of a model.

    Parameters
    ----------
    kind : str, one of `KINDS`
    of : str, its name in the model
    names : what people call it
    least, most : float, in ``unit``; beyond them a value is asked about
    unit, source : str
    """

    kind: str
    of: str
    names: tuple[str, ...] = ()
    least: float = -math.inf
    most: float = math.inf
    unit: str = ""
    source: str = ""


@dataclass(frozen=True)
class UsualValues:
    """What is usual of a model's drugs, levels and parameters; ``others`` is what it has not.

    >>> usual = read_usual('[drug.tocilizumab]\\nnames = ["Actemra"]')
    >>> usual.meant("drug", "ACTEMRA"), usual.meant("drug", "Kineret")
    ('tocilizumab', '')
    """

    entries: tuple[Usual, ...] = ()
    others: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def of(self, kind: str, name: str) -> Usual | None:
        """The entry of a drug, level or parameter of the model; None if it has none."""
        return next((e for e in self.entries if (e.kind, e.of) == (kind, name)), None)

    def named(self, kind: str) -> tuple[str, ...]:
        """Those of a kind that have an entry, in the order of the file."""
        return tuple(entry.of for entry in self.entries if entry.kind == kind)

    def meant(self, kind: str, name: str) -> str:
        """The model's name of what people call so; "" if nothing is."""
        plain = plain_name(name)
        for entry in self.entries:
            if entry.kind == kind and plain in map(plain_name, (entry.of, *entry.names)):
                return entry.of
        return ""

    def understood(self, kind: str, name: str, known: Iterable[str]) -> str:
        """The model's name of what is called so, with a note; the name itself if it is one."""
        meant = "" if name in known else self.meant(kind, name)
        if meant:
            note(f"{name!r} is read as {meant}")
        return meant or name

    def elsewhere(self, kind: str) -> tuple[str, ...]:
        """Names of something else: what the model has not, or has of another kind."""
        here = [n for e in self.entries if e.kind != kind for n in (e.of, *e.names)]
        return (*(name for _, names in self.others for name in names), *here)

    def refuse(
        self, kind: str, name: str, known: Iterable[str], where: str = "", *, words: str = ""
    ) -> UnknownNameError:
        """The error for an unknown drug or level, which lists those that people ask for."""
        what = words or ("observable" if kind == "level" else kind)
        listed, elsewhere = self.named(kind), self.elsewhere(kind)
        return unknown_name(what, name, known, where, elsewhere=elsewhere, listed=listed)


def read_usual(text: str, path: str = "usual.toml") -> UsualValues:
    """Read a ``usual.toml``: tables ``[drug.X]``, ``[level.X]``, ``[parameter.X]``, ``[others]``.

    Raises
    ------
    InputError, UnknownNameError
        For text that is not TOML, an unknown key, a bound without unit or source, or a name with
        two meanings.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}  is not TOML: {error}") from None
    others = content.pop("others", {})
    for kind in content:
        if kind not in KINDS:
            raise unknown_name("table", kind, (*KINDS, "others"), path)
    entries = tuple(
        _entry(kind, name, table, f"{path} [{kind}.{name}]")
        for kind, tables in content.items() for name, table in tables.items()
    )  # fmt: skip
    _refuse_two_meanings(entries, path)
    return UsualValues(entries, tuple((kind, tuple(names)) for kind, names in others.items()))


def _entry(kind: str, name: str, table: Mapping[str, object], where: str) -> Usual:
    for key, value in table.items():
        if key not in KEYS:
            raise unknown_name("key", key, KEYS, where)
        right = (int, float) if key in NUMBERS else list if key == "names" else str
        if not isinstance(value, right) or isinstance(value, bool):
            raise InputError(f"{where}  {key} = {value!r} is not {_words(key)}")
    if table.keys() & set(NUMBERS) and not (table.get("unit") and table.get("source")):
        raise InputError(f"{where}  has a bound; state its unit and its source")
    numbers = {key: float(str(table[key])) for key in NUMBERS if key in table}
    names = table.get("names", [])
    assert isinstance(names, list)
    texts = {key: str(table[key]) for key in ("unit", "source") if key in table}
    return Usual(kind, name, tuple(map(str, names)), **numbers, **texts)  # type: ignore[arg-type]


def _words(key: str) -> str:
    return "a number" if key in NUMBERS else "a list of names" if key == "names" else "text"


def _refuse_two_meanings(entries: Iterable[Usual], path: str) -> None:
    seen: dict[tuple[str, str], str] = {}
    for entry in entries:
        for name in (entry.of, *entry.names):
            other = seen.setdefault((entry.kind, plain_name(name)), entry.of)
            if other != entry.of:
                raise InputError(f"{path}  {name!r} is {other} and {entry.of}; keep one")
