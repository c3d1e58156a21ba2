"""What a folder with a virtual population holds: run.json, and four Parquet files a chunk.

Every file says in its header which question it answers, so that no two populations are mixed up.
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
from .parquet import header_of, read_parquet
from .populationfile import PopulationStudy
from .runlog import check_resume
from .storage import versions
from .virtual import BLOCK, Filter

HEADER, PARTS = "run.json", "parts"
MEMBERS, COURSES, ENDPOINTS, DOSES = TABLES = ("members", "courses", "endpoints", "doses")
KEPT, FAILED = "kept", "failed"


@dataclass(frozen=True)
class Chunk:
    """Patients ``first`` to ``last`` (not included)."""

    number: int
    first: int
    last: int

    def path(self, folder: Path, table: str) -> Path:
        """The file of one of its tables."""
        return folder / PARTS / f"{table}-{self.number:06d}.parquet"


def chunks_of(number: int) -> Iterator[Chunk]:
    """All chunks of so many patients.

    >>> [(c.first, c.last) for c in chunks_of(200)]
    [(0, 128), (128, 200)]
    """
    for place, first in enumerate(range(0, number, BLOCK)):
        yield Chunk(place, first, min(first + BLOCK, number))


@dataclass(frozen=True, eq=False)
class Results:
    """A population that was run, as it lies on disk.

    Parameters
    ----------
    folder : Path
    header : mapping, what run.json says
    """

    folder: Path
    header: Mapping[str, Any] = field(repr=False)

    def __repr__(self) -> str:
        """One line."""
        return (f"Results({str(self.folder)!r}: {self.header['name']}, {self.header['number']} "
                f"patients, {len(self.scenarios)} scenarios)")  # fmt: skip

    @property
    def scenarios(self) -> tuple[str, ...]:
        """Their names; the first is what is given."""
        return tuple(name for name, _ in self.header["settings"]["scenarios"])

    def members(self) -> pd.DataFrame:
        """One row for each patient drawn: what was drawn, which filters let it pass, why not."""
        return read_parquet(self._paths(MEMBERS))

    def endpoints(self) -> pd.DataFrame:
        """One row for each scenario and patient that was kept; a column for each endpoint."""
        return read_parquet(self._paths(ENDPOINTS))

    def courses(self, scenario: str) -> pd.DataFrame:
        """One row for each patient that was kept and day, under a scenario; a column a course."""
        columns = ["member", "day", *self.header["courses"]]
        return read_parquet(self._paths(COURSES), columns, where="scenario", value=scenario)

    def doses(self) -> pd.DataFrame:
        """One row for each dose given or held by a trigger or hold, of the patients kept."""
        return read_parquet(self._paths(DOSES))

    def _paths(self, table: str) -> list[Path]:
        return [chunk.path(self.folder, table) for chunk in chunks_of(self.header["number"])]


def load_results(folder: str | Path) -> Results:
    """A population that was run to its end.

    Raises
    ------
    StorageError
        If there is none, or it is not finished.

    Examples
    --------
    ``Summary(load_results("people")).grades()``
    """
    home = Path(folder)
    header = read_header(home)
    if header is None:
        raise StorageError(f"{home}  holds no population: there is no {HEADER} in it")
    for chunk in chunks_of(header["number"]):
        if not is_done(chunk, home, header["question"]):
            raise StorageError(
                f"{home}  is not finished: patients {chunk.first} to {chunk.last - 1} are missing; "
                "go on with --resume"
            )
    return Results(home, header)


def question_of(study: PopulationStudy) -> str:
    """A short text that differs if anything differs that decides the numbers of a patient."""
    return _question(study.model.hash, study.settings())


def _question(model_hash: str, settings: Mapping[str, Any]) -> str:
    text = json.dumps([model_hash, BLOCK, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def header_for(study: PopulationStudy) -> dict[str, Any]:
    """What run.json says of a study."""
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
    """What run.json of a folder says; None if there is none."""
    path = folder / HEADER
    if not path.is_file():
        return None
    try:
        found = dict(json.loads(path.read_text(encoding="utf-8")))
        int(found["number"]), str(found["question"]), found["model"]["hash"], found["settings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{path}  cannot be read ({error}); give another folder") from None
    return found


def check_header(folder: Path, ours: Mapping[str, Any], *, resume: bool) -> None:
    """Refuse a folder that holds another population, or one that is not to go on.

    Raises
    ------
    StorageError
    """
    there = read_header(folder)
    check_resume(folder, "a population", there=there is not None, resume=resume)
    if there is None:
        return
    was, now = there["model"], ours["model"]
    if was["hash"] != now["hash"]:
        raise StorageError(
            f"{folder}  is of another model: {was['name']} {was['hash']}, and this is "
            f"{now['name']} {now['hash']}; give a new folder"
        )
    if there["question"] != ours["question"]:
        other = [key for key, value in ours["settings"].items()
                 if there["settings"].get(key) != json.loads(json.dumps(value))]  # fmt: skip
        raise StorageError(
            f"{folder}  holds another population: {', '.join(other) or 'what it asks'} differ; "
            "give a new folder"
        )
    if there["number"] > ours["number"]:
        raise StorageError(
            f"{folder}  is of {there['number']} patients, more than {ours['number']}; ask for as "
            "many or more, or give a new folder"
        )


def is_done(chunk: Chunk, folder: Path, question: str) -> bool:
    """Whether all of a chunk is there, and belongs to this question.

    Raises
    ------
    StorageError
        If one of its files is broken, or belongs to another question.
    """
    paths = [chunk.path(folder, name) for name in TABLES]
    if not all(path.is_file() for path in paths):
        return False
    for path in paths:
        says = header_of(path)
        if says.get("question") != question:
            raise StorageError(f"{path}  belongs to another population; delete it")
        if says.get("members") != chunk.last - chunk.first:
            return False  # a larger number is asked now: the last chunk is run again
    return True
