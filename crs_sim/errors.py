"""What can go wrong, and how it is said.

Every message says what is wrong, where (file, line or row, column), and what to do about it.
Each class is also the built-in a Python user would expect to catch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class CrsSimError(Exception):
    """Anything this package refuses or cannot do; the command line prints it and exits with 1."""


class InputError(CrsSimError, ValueError):
    """A file, table, argument or option holds something that cannot be used."""


class FileError(InputError):
    """A file somebody wrote holds something that cannot be used: file, row, column, what to do."""


class ModelError(CrsSimError, ValueError):
    """A model file is outside the dialect, or a model is inconsistent."""


class UnitError(CrsSimError, ValueError):
    """A unit is unknown, or one unit cannot be converted into another."""


class UnknownNameError(CrsSimError, LookupError):
    """A name that is not there; the message gives the closest one that is."""


class IntegrationError(CrsSimError, ArithmeticError):
    """The solver gave up; the message gives the day, the segment and the state."""


class StorageError(CrsSimError, OSError):
    """A result cannot be written, read, or belongs to another model."""


def unknown_name(kind: str, name: str, known: Iterable[str], where: str = "") -> UnknownNameError:
    """The error for a misspelt name: names the closest match, or lists what there is.

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


def at_place(where: str, error: CrsSimError) -> CrsSimError:
    """The same error with its place in front."""
    return type(error)(f"{where}: {error}")


@contextmanager
def placed(where: str) -> Iterator[None]:
    """Says of every error within where it is."""
    try:
        yield
    except CrsSimError as error:
        raise at_place(where, error) from None
