"""Files of a simulated virtual population: run.json, and four Parquet files per chunk.

Every file has the hash of the study in its header, so that results of two studies never mix.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from . import RESEARCH_ONLY
from .endpoints import endpoint
from .errors import StorageError
from .parquet import read_metadata, read_parquet
from .populationfile import PopulationStudy
from .runlog import check_resume
from .storage import versions
from .virtual import BLOCK, Filter

HEADER, PARTS = "run.json", "parts"
MEMBERS, COURSES, ENDPOINTS, DOSES = TABLES = ("members", "courses", "endpoints", "doses")
KEPT, FAILED = "kept", "failed"


@dataclass(frozen=True)
class Chunk:
    """Patients ``first`` to ``last`` (exclusive)."""

    number: int
    first: int
    last: int

    def path(self, folder: Path, table: str) -> Path:
        """The file of one of its tables."""
        return folder / PARTS / f"{table}-{self.number:06d}.parquet"


def chunks_of(number: int) -> Iterator[Chunk]:
    """Split ``number`` patients into chunks.

    >>> [(c.first, c.last) for c in chunks_of(200)]
    [(0, 128), (128, 200)]
    """
    for k, first in enumerate(range(0, number, BLOCK)):
        yield Chunk(k, first, min(first + BLOCK, number))


@dataclass(frozen=True, eq=False)
class Results:
    """A simulated population, read from disk.

    Parameters
    ----------
    folder : Path
    header : mapping, content of run.json
    """

    folder: Path
    header: Mapping[str, Any] = field(repr=False)

    def __repr__(self) -> str:
        """Return a one-line summary."""
        return (f"Results({str(self.folder)!r}: {self.header['name']}, {self.header['number']} "
                f"patients, {len(self.scenarios)} scenarios)")  # fmt: skip

    @property
    def scenarios(self) -> tuple[str, ...]:
        """Names of the scenarios; the first is the treatment as given."""
        return tuple(name for name, _ in self.header["settings"]["scenarios"])

    def members(self) -> pd.DataFrame:
        """One row for each patient drawn: values, which filters it passes, failure message."""
        return read_parquet(self._paths(MEMBERS))

    def endpoints(self) -> pd.DataFrame:
        """One row for each scenario and patient kept; one column per endpoint."""
        return read_parquet(self._paths(ENDPOINTS))

    def courses(self, scenario: str) -> pd.DataFrame:
        """One row for each patient kept and day, under a scenario; one column per course."""
        columns = ["member", "day", *self.header["courses"]]
        return read_parquet(self._paths(COURSES), columns, where="scenario", value=scenario)

    def doses(self) -> pd.DataFrame:
        """One row for each dose that a trigger gave or a hold withheld, of the patients kept."""
        return read_parquet(self._paths(DOSES))

    def _paths(self, table: str) -> list[Path]:
        return [chunk.path(self.folder, table) for chunk in chunks_of(self.header["number"])]


def load_results(folder: str | Path) -> Results:
    """Load a population whose simulation is complete.

    Raises
    ------
    StorageError
        If there is none, or it is incomplete.

    Examples
    --------
    ``Summary(load_results("people")).grades()``
    """
    home = Path(folder)
    header = read_header(home)
    if header is None:
        raise StorageError(f"{home}  holds no population: there is no {HEADER} in it; give the "
                           "folder of crs-sim population")  # fmt: skip
    for chunk in chunks_of(header["number"]):
        if not is_done(chunk, home, header["question"]):
            raise StorageError(
                f"{home}  is not finished: patients {chunk.first} to {chunk.last - 1} are missing; "
                "resume with --resume"
            )
    return Results(home, header)


def question_of(study: PopulationStudy) -> str:
    """A hash of everything the results of a patient depend on."""
    return _hash(study.model.hash, study.settings())


def _hash(model_hash: str, settings: Mapping[str, Any]) -> str:
    text = json.dumps([model_hash, BLOCK, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def header_for(study: PopulationStudy) -> dict[str, Any]:
    """Content of the run.json of a study."""
    model, population = study.model, study.virtual.population
    ends = [endpoint(model, name) for name in study.endpoints]
    return {
        "note": RESEARCH_ONLY,
        "name": study.name,
        "model": {"name": model.name, "hash": model.hash},
        "question": question_of(study),
        "number": study.number,
        "settings": study.settings(),
        "prior": {"name": population.name, "parameters": len(population.free)},
        "endpoints": {e.name: {"label": e.label, "unit": e.unit} for e in ends},
        "courses": {name: {"label": model[name].label, "unit": model[name].unit}
                    for name in study.courses},
        "covariates": {c.name: {"label": "dose" if c.dose is not None else model[c.name].label,
                                "unit": c.unit, "says": c.describe()}
                       for c in study.virtual.covariates},
        "versions": versions(),
    }  # fmt: skip


def column_of(one: Filter) -> str:
    """The column of a filter in the table of members."""
    return f"passes {one.when}"


def read_header(folder: Path) -> dict[str, Any] | None:
    """Read the run.json of a folder; None if there is none."""
    path = folder / HEADER
    if not path.is_file():
        return None
    try:
        found = dict(json.loads(path.read_text(encoding="utf-8")))
        int(found["number"]), str(found["question"]), found["model"]["hash"], found["settings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{path}  cannot be read ({error}); give another folder") from None
    return found


def check_header(folder: Path, requested: Mapping[str, Any], *, resume: bool) -> None:
    """Refuse a folder that holds another population, or one that is not to be resumed.

    Raises
    ------
    StorageError
    """
    stored = read_header(folder)
    check_resume(folder, "a population", there=stored is not None, resume=resume)
    if stored is None:
        return
    stored_model, new_model = stored["model"], requested["model"]
    if stored_model["hash"] != new_model["hash"]:
        raise StorageError(
            f"{folder}  holds a population of another model: {stored_model['name']} "
            f"{stored_model['hash']}, not {new_model['name']} {new_model['hash']}; give a new "
            "folder"
        )
    if stored["question"] != requested["question"]:
        other = [key for key, value in requested["settings"].items()
                 if stored["settings"].get(key) != json.loads(json.dumps(value))]  # fmt: skip
        raise StorageError(
            f"{folder}  holds another population: {', '.join(other) or 'settings'} differ; "
            "give a new folder"
        )
    if stored["number"] > requested["number"]:
        raise StorageError(
            f"{folder}  holds {stored['number']} patients, more than {requested['number']}; "
            "request as many or more, or give a new folder"
        )


def is_done(chunk: Chunk, folder: Path, question: str) -> bool:
    """Whether all files of a chunk exist and belong to this study.

    Raises
    ------
    StorageError
        If one of its files is damaged, or belongs to another study.
    """
    paths = [chunk.path(folder, name) for name in TABLES]
    if not all(path.is_file() for path in paths):
        return False
    for path in paths:
        header = read_metadata(path)
        if header.get("question") != question:
            raise StorageError(f"{path}  belongs to another population; delete it")
        if header.get("members") != chunk.last - chunk.first:
            return False  # more patients are requested now: the last chunk is run again
    return True
