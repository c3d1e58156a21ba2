"""Exceptions of the package, and helpers for their messages.

Every message states what is wrong, where (file, line or row, column), and what to do about it.
Each class also derives from the built-in exception a Python user would expect to catch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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
