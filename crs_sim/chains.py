"""MCMC chains on disk, in parts, so that an interrupted run of the sampler can be resumed.

A folder holds ``chain.json``, which identifies the run, and ``part_00000.npz`` onwards, each
written atomically. The first part has the initial positions of the walkers; every part ends with
all that the next draw depends on, the state of the random number generator included.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import StorageError
from .output import json_file, write_atomic
from .runlog import check_resume, check_same_job

Array = NDArray[np.float64]

HEADER = "chain.json"
REFUSED = {
    "problem": "the problem {0!r}, not {1!r}",
    "model_hash": "the model's equations {0}, not {1}",
    "problem_hash": "other data, priors, noise or fixed values (hash {0}, not {1})",
    "seed": "seed {0}, not {1}",
    "groups": "{0} groups of walkers, not {1}",
    "walkers": "{0} walkers in a group, not {1}",
    "thin": "a thinning interval of {0} moves, not {1}",
    "sampler": "the sampler {0}, not {1}",
}
"""Header keys that must match to resume a run, and the text of the error if they differ."""


@dataclass(frozen=True, eq=False)
class Part:
    """Some draws, and the state of the sampler after the last one.

    Parameters
    ----------
    chain : (n_draws, n_groups, n_walkers, n_free) log parameters
    log_posterior : (n_draws, n_groups, n_walkers)
    words : (n_groups, 624) uint32, MT19937 state of the random numbers after the last draw
    places : (n_groups, 3) position in that state, whether a normal number is cached, that number
    counts : (n_groups, 3) moves accepted, runs made and runs failed, since the start
    """

    chain: Array = field(repr=False)
    log_posterior: Array = field(repr=False)
    words: NDArray[np.uint32] = field(repr=False)
    places: Array = field(repr=False)
    counts: NDArray[np.int64] = field(repr=False)


def join(parts: Sequence[Part]) -> Part:
    """Concatenate several parts."""
    return Part(
        np.concatenate([part.chain for part in parts]),
        np.concatenate([part.log_posterior for part in parts]),
        parts[-1].words,
        parts[-1].places,
        parts[-1].counts,
    )


def begin(folder: Path, header: Mapping[str, Any], first: Part) -> None:
    """Write the header of a run and the initial positions of its walkers.

    Raises
    ------
    StorageError
        If the folder already holds a run, or cannot be written.
    """
    there = (folder / HEADER).exists()
    check_resume(folder, "a run of the sampler", there=there, resume=False)
    write_atomic({_path(folder, 0): _bytes(first), folder / HEADER: json_file(header)})


def append(folder: Path, number: int, part: Part) -> None:
    """Write one more part, atomically."""
    write_atomic({_path(folder, number): _bytes(part)})


def read(folder: Path) -> tuple[dict[str, Any], list[Part]]:
    """Read the header and parts of a run; the first part has the initial positions.

    Raises
    ------
    StorageError
        If there is no run, or one of its files is damaged.
    """
    path = folder / HEADER
    if not path.is_file():
        raise StorageError(f"{folder}  holds no run of the sampler ({HEADER} is not there)")
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
        parts = list[Part]()
        while (path := _path(folder, len(parts))).is_file():
            with path.open("rb") as file, np.load(file) as stored:
                parts.append(Part(**{name: stored[name] for name in Part.__dataclass_fields__}))
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise StorageError(
            f"{path}  is damaged ({type(error).__name__}: {error}); delete it and every later "
            "part, then resume with --resume"
        ) from None
    if not parts:
        raise StorageError(f"{_path(folder, 0)}  is missing: sample into another folder")
    return header, parts


def check_same_run(folder: Path, stored: Mapping[str, Any], requested: Mapping[str, Any]) -> None:
    """Raise a StorageError that names the differences of a stored run from the requested one."""
    differences = [
        text.format(stored.get(name), requested[name])
        for name, text in REFUSED.items()
        if stored.get(name) != requested[name]
    ]
    check_same_job(folder, differences)


def _path(folder: Path, number: int) -> Path:
    return folder / f"part_{number:05d}.npz"


def _bytes(part: Part) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **{name: getattr(part, name) for name in Part.__dataclass_fields__})
    return stream.getvalue()
