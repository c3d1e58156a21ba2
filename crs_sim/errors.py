"""Exceptions of the package, and helpers for their messages.

Every message states what is wrong, where (file, line or row, column), and what to do about it.
Each class also derives from the built-in exception a Python user would expect to catch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches

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
    """An unknown name; the message gives the closest known one."""


class IntegrationError(CrsSimError, ArithmeticError):
    """The solver failed; the message gives the day, the segment and the state."""


class StorageError(CrsSimError, OSError):
    """A result cannot be written or read, or belongs to another model."""


def unknown_name(kind: str, name: str, known: Iterable[str], where: str = "") -> UnknownNameError:
    """The error for an unknown name, with the closest match or the list of known names.

    >>> unknown_name("drug", "tocilizumb", ["tocilizumab", "anakinra"])
    UnknownNameError("unknown drug 'tocilizumb': did you mean 'tocilizumab'?")
    """
    names = sorted(known)
    lower = {n.lower(): n for n in names}
    close = [lower[m] for m in get_close_matches(name.lower(), lower, n=1, cutoff=0.5)]
    if close:
        hint = f"did you mean {close[0]!r}?"
    elif names:
        hint = f"known are {', '.join(names)}"
    else:
        hint = "there are none"
    prefix = f"{where}  " if where else ""
    return UnknownNameError(f"{prefix}unknown {kind} {name!r}: {hint}")


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
