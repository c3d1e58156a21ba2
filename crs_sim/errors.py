"""Exceptions of the package, and helpers for their messages.

Every message states what is wrong, where (file, line or row, column), and what to do about it.
Each class also derives from the built-in exception a Python user would expect to catch.
"""

from __future__ import annotations

import math
import re
import shlex
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

RESEARCH_ONLY = "Research use only: not for decisions about any patient."
"""The notice that goes with every result."""


class CrsSimError(Exception):
    """Base class of all errors of this package; the command line prints it and exits with 1."""


class InputError(CrsSimError, ValueError):
    """Invalid content of a file, table, argument or option."""


class FileError(InputError):
    """Invalid content of a user's file; the message gives file, row, column and what to do."""


class ModelError(CrsSimError, ValueError):
    """A model file is outside the dialect, or a model is inconsistent."""


class UnitError(CrsSimError, ValueError):
    """A unit is unknown, or one unit cannot be converted into another."""


class UnknownNameError(CrsSimError, LookupError):
    """An unknown name; the message gives the one it misspells, or all there are."""


class IntegrationError(CrsSimError, ArithmeticError):
    """The solver failed; the message gives the day, the segment and the state."""


class StorageError(CrsSimError, OSError):
    """A result cannot be written or read, or belongs to another model."""


class Notice(UserWarning):
    """What a reader should see before a result; the command line prints it first."""


class Question(Notice):
    """Something typed that is hardly meant, such as a weight of 900 kg; the run continues."""


def note(text: str) -> None:
    """Say how something was understood."""
    warnings.warn(text, Notice, stacklevel=3)


def ask(text: str) -> None:
    """Ask about something that is hardly meant."""
    warnings.warn(text, Question, stacklevel=3)


def command(name: str, *words: object) -> str:
    """A command as it can be typed, its words quoted where they must be; every message uses this.

    >>> command("fit", "study one/", "--prior", "crs")
    "crs-sim fit 'study one/' --prior crs"
    """
    return shlex.join(["crs-sim", name, *map(str, words)])


def unknown_name(
    kind: str,
    name: str,
    known: Iterable[str],
    where: str = "",
    *,
    elsewhere: Iterable[str] = (),
    listed: Iterable[str] = (),
) -> UnknownNameError:
    """The error for an unknown name, with the known one it plainly misspells, or all there are.

    ``elsewhere`` are names of something else, such as drugs that a model does not have: none of
    them is a misspelling, however much it looks like one. ``listed`` are those worth listing, if
    not all.

    >>> unknown_name("drug", "tocilizumb", ["tocilizumab", "anakinra"])
    UnknownNameError("unknown drug 'tocilizumb': did you mean 'tocilizumab'?")
    >>> unknown_name("drug", "prednisolone", ["methylprednisolone"])
    UnknownNameError("unknown drug 'prednisolone': known are methylprednisolone")
    """
    names = sorted(known)
    taken = {plain_name(other) for other in elsewhere}
    close = [] if plain_name(name) in taken else misspelt(name, names)
    if close:
        hint = f"did you mean {' or '.join(map(repr, close))}?"
    elif names:
        names = list(listed) or names
        more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
        hint = f"known are {', '.join(names[:MOST_LISTED])}{more}"
    else:
        hint = "there are none"
    prefix = f"{where}  " if where else ""
    return UnknownNameError(f"{prefix}unknown {kind} {name!r}: {hint}")


MOST_LISTED = 60
MOST_CLOSE = 3
GREEK = str.maketrans({"α": "a", "β": "b", "γ": "g"})


def plain_name(name: str) -> str:
    """A name without capitals, separators and Greek letters, as names are compared.

    >>> [plain_name(name) for name in ("IL-6", "il_6", "IFN-γ", "IFN gamma")]
    ['il6', 'il6', 'ifng', 'ifngamma']
    """
    return re.sub(r"[\s_.\-\u2010-\u2015/()]+", "", name.lower().translate(GREEK))


def misspelt(name: str, known: Iterable[str]) -> list[str]:
    """The known names that this one plainly misspells, at most three; none if that is a guess.

    A letter left out, added, or swapped with its neighbour; another letter in a name of five or
    more; two such slips in one of eight or more; or the beginning of one name alone. The first
    letter is right, since height is not weight; so is every number, since IL-8 is not IL-6.

    >>> misspelt("wieght", ["weight"]), misspelt("height", ["weight"]), misspelt("il8", ["il6"])
    (['weight'], [], [])
    """
    given = plain_name(name)
    distances = {other: _distance(given, plain_name(other)) for other in known}
    least = min(distances.values(), default=math.inf)
    close = [other for other, distance in distances.items() if distance == least < math.inf]
    close = [other for other in close if other[:1] == name[:1]] or close  # IFNG or ifng
    if not close and len(given) >= 5:
        close = [n for n in known if re.match(rf"{re.escape(given)}(?!(?<=\d)\d)", plain_name(n))]
        return close if len(close) == 1 else []
    return close if len(close) <= MOST_CLOSE else []


def _distance(given: str, known: str) -> float:
    """Slips between two plain names (Damerau and Levenshtein's); infinite if it is no misspelling.

    A slip that begins a name, changes a number, or is beyond the number its length allows.
    """
    if given == known:
        return 0.0
    if not (given and known) or given[0] != known[0] != given[1:2]:
        return math.inf
    if re.findall(r"\d+", given) != re.findall(r"\d+", known):
        return math.inf
    shorter = min(len(given), len(known))
    changed = 1.0 if shorter > SHORT else math.inf
    before: list[float] = []
    row: list[float] = [float(k) for k in range(len(known) + 1)]
    for i, letter in enumerate(given, start=1):
        last, row, before = row, [float(i)], row if i == 1 else before
        for j, other in enumerate(known, start=1):
            same = last[j - 1] + (0 if letter == other else changed)
            best = min(last[j] + 1, row[j - 1] + 1, same)
            if i > 1 and j > 1 and given[i - 2 : i] == known[j - 1] + known[j - 2]:
                best = min(best, before[j - 2] + 1)
            row.append(best)
        before = last
    return row[-1] if row[-1] <= (2 if shorter >= LONG else 1) else math.inf


SHORT, LONG = 4, 8
"""A name of at most four letters has none to spare, since IFN-a is not IFN-g; one of eight may have
two slips."""


def with_location(where: str, error: CrsSimError) -> CrsSimError:
    """The same error with its location in front."""
    return type(error)(f"{where}: {error}")


@contextmanager
def error_location(where: str) -> Iterator[None]:
    """Put the location in front of every error raised within."""
    try:
        yield
    except CrsSimError as error:
        raise with_location(where, error) from None


MAX_MISTAKES = 20


class SeveralMistakesError(FileError):
    """Several mistakes in one file; ``found`` holds each."""

    def __init__(self, text: str, found: Iterable[CrsSimError] = ()) -> None:
        super().__init__(text)
        self.found = tuple(found)


@dataclass(frozen=True)
class Mistakes:
    """The mistakes found in one input, to be reported together instead of one a run.

    >>> mistakes = Mistakes()
    >>> for row in (2, 3):
    ...     with mistakes.kept():
    ...         raise FileError(f"s.csv, row {row}: no dose")
    >>> mistakes.report()
    Traceback (most recent call last):
    crs_sim.errors.FileError: s.csv, row 2: no dose (also in row 3)
    """

    found: list[CrsSimError] = field(default_factory=list)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep an error raised within, for `report`."""
        try:
            yield
        except CrsSimError as error:
            self.add(error)

    def add(self, error: CrsSimError) -> None:
        """Keep an error, or each of several that were raised together."""
        self.found.extend(error.found if isinstance(error, SeveralMistakesError) else (error,))

    def report(self) -> None:
        """Raise the mistakes as one error, if there are any; a single one as it was raised."""
        kinds: dict[str, list[CrsSimError]] = {}
        for error in self.found:
            kinds.setdefault(re.sub(r"row \d+", "row", str(error), count=1), []).append(error)
        lines = [f"{same[0]}{_also(same[1:])}" for same in kinds.values()]
        if len(lines) == 1:
            raise type(self.found[0])(lines[0]) from None
        if lines:
            more = len(lines) - MAX_MISTAKES
            rest = [f"and {more} more"] if more > 0 else []
            text = "\n  ".join([*lines[:MAX_MISTAKES], *rest])
            raise SeveralMistakesError(f"{len(lines)} mistakes:\n  {text}", self.found) from None


def _also(others: list[CrsSimError]) -> str:
    """The rows of the same mistake made again."""
    rows = [match[1] for e in others if (match := re.search(r"row (\d+)", str(e)))]
    if not rows:
        return ""
    few = ", ".join(rows[:5]) + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")
    return f" (also in row{'s' * (len(rows) > 1)} {few})"
