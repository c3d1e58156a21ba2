"""The walkers' draws on disk, part by part: a run of the sampler that is killed goes on from there.

A folder holds ``chain.json``, what the run is of, and ``part_00000.npz`` and on, each written whole
or not at all. The first part is where the walkers start; every part ends with all that the next
draw depends on, the state of the random numbers included.
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
from .output import json_file, write_whole
from .runlog import check_resume, refuse_another

Array = NDArray[np.float64]

HEADER = "chain.json"
REFUSED = {
    "problem": "the problem {0!r}, not {1!r}",
    "model_hash": "the model's equations {0}, not {1}",
    "problem_hash": "another question (data, priors, noise or fixed values: hash {0}, not {1})",
    "seed": "seed {0}, not {1}",
    "groups": "{0} groups of walkers, not {1}",
    "walkers": "{0} walkers in a group, not {1}",
    "thin": "{0} moves from draw to draw, not {1}",
    "sampler": "the sampler {0}, not {1}",
}
"""What a run must have in common with the one it goes on from, and how a difference is said."""


@dataclass(frozen=True, eq=False)
class Part:
    """Some draws, and where they end.

    Parameters
    ----------
    chain : (n_draws, n_groups, n_walkers, n_free) log parameters
    log_posterior : (n_draws, n_groups, n_walkers)
    words : (n_groups, 624) uint32, states of the random numbers after the last draw (MT19937)
    places : (n_groups, 3) the place in those words, whether a normal number waits, and that number
    counts : (n_groups, 3) moves accepted, runs made and runs that failed, since the beginning
    """

    chain: Array = field(repr=False)
    log_posterior: Array = field(repr=False)
    words: NDArray[np.uint32] = field(repr=False)
    places: Array = field(repr=False)
    counts: NDArray[np.int64] = field(repr=False)


def join(parts: Sequence[Part]) -> Part:
    """Several parts, in their order, as one."""
    return Part(
        np.concatenate([part.chain for part in parts]),
        np.concatenate([part.log_posterior for part in parts]),
        parts[-1].words,
        parts[-1].places,
        parts[-1].counts,
    )


def begin(folder: Path, header: Mapping[str, Any], first: Part) -> None:
    """Write what the run is of, and where its walkers start.

    Raises
    ------
    StorageError
        If there is a run in the folder already, or it cannot be written.
    """
    there = (folder / HEADER).exists()
    check_resume(folder, "a run of the sampler", there=there, resume=False)
    write_whole({_path(folder, 0): _bytes(first), folder / HEADER: json_file(header)})


def append(folder: Path, number: int, part: Part) -> None:
    """Write one more part; it is whole, or not there."""
    write_whole({_path(folder, number): _bytes(part)})


def read(folder: Path) -> tuple[dict[str, Any], list[Part]]:
    """What a run is of, and its parts; the first is where the walkers start.

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
            "part, then go on with --resume"
        ) from None
    if not parts:
        raise StorageError(f"{_path(folder, 0)}  is missing: sample into another folder")
    return header, parts


def refuse_other(folder: Path, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raise a StorageError that names what differs between a stored run and the one asked for."""
    differ = [
        words.format(stored.get(name), asked[name])
        for name, words in REFUSED.items()
        if stored.get(name) != asked[name]
    ]
    refuse_another(folder, differ)


def _path(folder: Path, number: int) -> Path:
    return folder / f"part_{number:05d}.npz"


def _bytes(part: Part) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **{name: getattr(part, name) for name in Part.__dataclass_fields__})
    return stream.getvalue()
