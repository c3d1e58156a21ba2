"""Profiles on disk: one JSON line for each that is finished, written as it comes.

What a killed run leaves is good: a line that was cut off is passed over and made again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .errors import StorageError
from .fitting import Fit
from .profiles import LEVELS, Profile

FILE = "profiles.jsonl"
TABLE = "profiles.csv"
SAME_COST = 1e-6


def append_profile(path: Path, profile: Profile) -> None:
    """Add one finished profile to a file; see `append_line`."""
    append_line(path, _stored(profile))


def append_line(path: Path, stored: Mapping[str, Any]) -> None:
    """Add one JSON line to a file; it begins anew where a killed run cut the last one off.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_bytes() if path.exists() else b""
        gap = b"" if before.endswith(b"\n") or not before else b"\n"
        with path.open("ab") as file:
            file.write(gap + json.dumps(stored).encode() + b"\n")
    except OSError as error:
        raise StorageError(f"{path}  cannot be written: {error.strerror or error}") from None


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON lines of a file that are whole; none if there is no file.

    Raises
    ------
    StorageError
        If it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    except OSError as error:
        raise StorageError(f"{path}  cannot be read: {error.strerror or error}") from None
    for line in lines:
        try:
            stored = json.loads(line)
        except ValueError:
            continue  # cut off when the run was killed
        if isinstance(stored, dict):
            yield stored


def read_profiles(path: Path, result: Fit) -> tuple[Profile, ...]:
    """The finished profiles of a file, in its order; () if there is no file.

    Of a parameter that is there twice the last counts.

    Raises
    ------
    StorageError
        If they are profiles of another fit.
    """
    found = dict[str, Profile]()
    for stored in read_lines(path):
        try:
            profile = _profile(stored)
        except (ValueError, TypeError, KeyError):
            continue
        if not _same(profile, result):
            raise StorageError(
                f"{path}  holds profiles of another fit (cost {profile.fit_cost:.6g}, this one's "
                f"is {result.cost:.6g}); delete the file, or go on without --resume"
            )
        found[profile.parameter] = profile
    return tuple(found.values())


def profiles_table(profiles: Sequence[Profile], levels: Sequence[float] = LEVELS) -> pd.DataFrame:
    """One row a parameter: estimate, intervals with and without its own prior, verdict.

    An end that the curve does not reach inside the bounds is empty.
    """
    rows = []
    for p in profiles:
        row: dict[str, Any] = {"parameter": p.parameter, "unit": p.unit, "estimate": p.estimate}
        for level in levels:
            for own_prior, words in ((True, ""), (False, "data_")):
                low, high = p.interval(level, own_prior=own_prior)
                row |= {f"{words}low_{100 * level:g}": low, f"{words}high_{100 * level:g}": high}
        rows.append(row | {"lower": p.lower, "upper": p.upper, "verdict": p.verdict,
                           "points": len(p.costs), "runs": p.runs, "failed": p.failed})  # fmt: skip
    return pd.DataFrame(rows)


def _stored(profile: Profile) -> dict[str, Any]:
    values = {f.name: getattr(profile, f.name) for f in fields(profile)}
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in values.items()}


def _profile(stored: dict[str, Any]) -> Profile:
    arrays = {name: np.array(stored[name], dtype=float) for name in ("points", "costs", "slopes")}
    return Profile(**{**stored, **arrays, "names": tuple(stored["names"])})


def _same(profile: Profile, result: Fit) -> bool:
    near = abs(profile.fit_cost - result.cost) <= SAME_COST * max(1.0, result.cost)
    return near and profile.names == result.problem.names
