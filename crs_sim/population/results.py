"""The results of a virtual population: parts on disk, and summary tables.

Every file has the hash of the study in its header, so that results of two studies never mix.

The sampling error of a share of 10,000 patients is at most one percentage point; the uncertainty
of the model's assumptions is far larger.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..errors import RESEARCH_ONLY, StorageError
from ..simulation import endpoint
from ..store import check_resume, read_metadata, read_parquet, versions
from .study_file import PopulationStudy
from .virtual_patients import BLOCK, Filter

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
        raise StorageError(f"{home}  holds no population: there is no {HEADER} in it; give a "
                           "folder that the command population wrote")  # fmt: skip
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


GRADE = "worst_grade"
GRADES = range(5)
SEVERE = 3
RELEVANT_CHANGE = 0.01
"""Relative change of an endpoint: far above the solver's error, but not clinically relevant."""
QUANTILES = {"p05": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}
TERTILES = ("low", "middle", "high")


@dataclass(frozen=True, eq=False)
class Summary:
    """The result tables of a population; the data are read on first use.

    Parameters
    ----------
    results : Results
    """

    results: Results = field(repr=False)

    @cached_property
    def members(self) -> pd.DataFrame:
        """Every patient drawn."""
        return self.results.members()

    @cached_property
    def kept(self) -> pd.DataFrame:
        """The patients kept, indexed by member."""
        return self.members[self.members[KEPT]].set_index("member")

    @cached_property
    def by_scenario(self) -> dict[str, pd.DataFrame]:
        """Scenario to the endpoints of the patients kept, indexed by member, the same in each."""
        table = self.results.endpoints()
        return {
            name: table[table["scenario"] == name].set_index("member").drop(columns="scenario")
            for name in self.results.scenarios
        }

    @property
    def graded(self) -> bool:
        """Whether the worst grade is one of the endpoints."""
        return GRADE in self.results.header["endpoints"]

    def rejected(self) -> pd.DataFrame:
        """One row per filter: how many patients it rejects, and how many it alone rejects."""
        ran = self.members[self.members[FAILED] == ""]
        filters = self.results.header["settings"]["filters"]
        fails = {when: ~ran[f"passes {when}"].to_numpy() for when, _ in filters}
        several = sum(fails.values(), np.zeros(len(ran), dtype=int))
        columns = ["filter", "rejected", "of", "share", "rejected_by_it_alone", "source"]
        rows = [
            (when, int(fails[when].sum()), len(ran), _share(fails[when]),
             int((fails[when] & (several == 1)).sum()), source)
            for when, source in filters
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=columns)

    def grades(self) -> pd.DataFrame:
        """One row per scenario: patients, the share at each worst grade, at `SEVERE` or above."""
        rows = []
        for name, table in self.by_scenario.items():
            worst = table[GRADE].to_numpy()
            shares = {f"grade_{g}": _share(worst == g) for g in GRADES}
            rows.append({"scenario": name, "patients": len(worst), **shares,
                         f"grade_{SEVERE}_or_more": _share(worst >= SEVERE)})  # fmt: skip
        return pd.DataFrame(rows)

    def endpoints(self) -> pd.DataFrame:
        """One row for each scenario and endpoint: quantiles over the patients, and the mean."""
        return pd.DataFrame([
            {"scenario": name, **self._about(end), **_quantiles(table[end]),
             "mean": _mean(table[end])}
            for name, table in self.by_scenario.items() for end in table.columns
        ])  # fmt: skip

    def differences(self) -> pd.DataFrame:
        """One row for each alternative scenario and endpoint: paired difference from as given.

        ``share_lower`` and ``share_higher`` count relative changes above `RELEVANT_CHANGE`.
        """
        given, *others = self.results.scenarios
        return pd.DataFrame([
            {"scenario": name, **self._about(end), **_quantiles(change), "mean": _mean(change),
             "share_lower": _share(change < -least), "share_higher": _share(change > least)}
            for name in others for end in self.by_scenario[name].columns
            for base in [self.by_scenario[given][end]]
            for change in [self.by_scenario[name][end] - base]
            for least in [RELEVANT_CHANGE * base.abs()]
        ])  # fmt: skip

    def subgroups(self) -> pd.DataFrame:
        """One row for each covariate's tertile, scenario and endpoint.

        ``severe`` is the share of its patients at `SEVERE` or above, if grades are an endpoint.
        """
        return pd.DataFrame([
            {**group, "scenario": name, "severe": severe, **self._about(end),
             **_quantiles(part[end])}
            for group, members in self._tertiles()
            for name, table in self.by_scenario.items()
            for part in [table.loc[members]]
            for severe in [_share(part[GRADE] >= SEVERE) if self.graded else np.nan]
            for end in table.columns
        ])  # fmt: skip

    def bands(self) -> pd.DataFrame:
        """One row for each scenario, course and day: quantiles over the patients."""
        names = list(self.results.header["courses"])
        parts = []
        for scenario in self.results.scenarios if names else ():
            days = self.results.courses(scenario).groupby("day")[names]
            found = days.quantile(list(QUANTILES.values())).unstack()
            for name in names:
                part = found[name]
                part.columns = list(QUANTILES)
                part = part.reset_index()
                part.insert(0, "course", name)
                part.insert(0, "scenario", scenario)
                parts.append(part)
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    def _about(self, end: str) -> dict[str, Any]:
        return {"endpoint": end, **self.results.header["endpoints"][end]}

    def _tertiles(self) -> Iterator[tuple[dict[str, Any], Any]]:
        """Thirds of the patients by each covariate, and their members."""
        for name, about in self.results.header["covariates"].items():
            values = self.kept[name]
            if not len(values):
                continue
            cuts = np.quantile(values, [0.0, 1 / 3, 2 / 3, 1.0])
            place = np.searchsorted(cuts[1:3], values.to_numpy(), side="left")
            for k, third in enumerate(TERTILES):
                members = values.index[place == k]
                group = {"covariate": name, "unit_of_covariate": about["unit"], "third": third,
                         "from": cuts[k], "to": cuts[k + 1], "patients": len(members)}  # fmt: skip
                yield group, members


def _quantiles(values: Any) -> dict[str, float]:
    if not len(values):
        return dict.fromkeys(QUANTILES, float("nan"))
    return dict(zip(QUANTILES, np.quantile(values, list(QUANTILES.values())), strict=True))


def _share(hits: Any) -> float:
    return float(np.mean(hits)) if len(hits) else float("nan")


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
