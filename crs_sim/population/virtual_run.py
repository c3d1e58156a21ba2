"""Simulate a virtual population, chunk by chunk, and store the results.

Each chunk of patients becomes four Parquet files, written atomically. An interrupted run can be
resumed from them if the study is the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..dosing import COLUMNS, PLANNED
from ..errors import StorageError
from ..simulation import (
    Ensemble,
    Workers,
    completed_on_cluster,
    endpoint,
    plan_batches,
    run_batch,
    thread_map,
)
from ..solver import LANES, compile_kernel
from ..store import check_folder, json_file, parquet_bytes, write_atomic
from .results import (
    COURSES,
    DOSES,
    ENDPOINTS,
    FAILED,
    HEADER,
    KEPT,
    MEMBERS,
    Chunk,
    Results,
    check_header,
    chunks_of,
    column_of,
    header_for,
    is_done,
    question_of,
)
from .study_file import PopulationStudy

WHOLE_DAY = 1e-9


def run_population(
    study: PopulationStudy,
    folder: str | Path,
    *,
    resume: bool = False,
    workers: Workers = None,
    progress: Callable[[int, int], None] | None = None,
) -> Results:
    """Run virtual patients under every scenario, and keep endpoints and courses on disk.

    The numbers do not depend on the workers, or on interruptions.

    Parameters
    ----------
    study : PopulationStudy, see `crs_sim.population.load_study`
    folder : where run.json and the parts go
    resume : resume an interrupted run, perhaps up to a larger number of patients
    workers : int, threads (default: one for each core); or the address of a Dask scheduler
    progress : called as (patients done, of how many), after each chunk

    Raises
    ------
    StorageError
        If the folder holds another population, or cannot be written; finished chunks are kept.
    InputError, UnknownNameError
        If the study is invalid.
    CrsSimError
        If a cluster cannot be reached, or the connection is lost.

    Examples
    --------
    >>> import tempfile
    >>> from crs_sim.population import load_study, with_number
    >>> few = with_number(load_study("crs"), 4, None)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = run_population(few, folder, workers=1)
    ...     len(found.members())
    4
    """
    home = Path(folder)
    header = header_for(study)
    check_folder(home)
    check_header(home, header, resume=resume)
    compile_kernel(study.model)  # before any thread, so that its message comes first
    run_chunk(study, Chunk(0, 0, 0))  # an invalid study is refused before anything is written
    first = {home / HEADER: json_file(header)}
    todo = [c for c in chunks_of(study.number) if not is_done(c, home, header["question"])]
    done = study.number - sum(c.last - c.first for c in todo)
    for k, tables in _run(study, todo, workers):
        chunk = todo[k]
        parts = {chunk.path(home, name): content for name, content in tables.items()}
        _write(home, {**first, **parts}, done, study.number)  # no run.json before the first part
        done += chunk.last - chunk.first
        if progress is not None:
            progress(done, study.number)
    if not todo:
        _write(home, first, done, study.number)
    return Results(home, header)


def _run(
    study: PopulationStudy, chunks: list[Chunk], workers: Workers
) -> Iterator[tuple[int, dict[str, bytes]]]:
    if isinstance(workers, str):
        return (
            completed_on_cluster(workers, partial(run_chunk, study), chunks) if chunks else iter(())
        )
    stop = threading.Event()
    work = partial(run_chunk, study, stop=stop)
    return enumerate(thread_map(work, chunks, workers=workers, stop=stop))


def run_chunk(
    study: PopulationStudy, chunk: Chunk, *, stop: threading.Event | None = None
) -> dict[str, bytes]:
    """Simulate some patients, here or on a cluster; return Parquet files by table name.

    Parameters
    ----------
    study : PopulationStudy
    chunk : Chunk; padded to a multiple of the SIMD lanes for the simulation
    stop : once it is set, no new batch is started
    """
    many = max(LANES, -(-(chunk.last - chunk.first) // LANES) * LANES)
    drawn = study.virtual.draw(chunk.first, chunk.first + many)
    values = pd.DataFrame(
        study.virtual.parameters(drawn), index=range(chunk.first, chunk.first + many)
    )
    names = dict.fromkeys((*(f.when.quantity for f in study.virtual.filters), *study.endpoints))
    ends = {name: endpoint(study.model, name) for name in names}
    sampling = replace(study.sampling, outputs=study.courses, endpoints=tuple(ends.values()))
    plan = plan_batches(study.model, study.scenarios, values, sampling)
    if chunk.first == chunk.last:
        return {}  # only the validity of the study is checked
    ensemble = plan.gather(run_batch(batch, stop=stop) for batch in plan.batches())
    values_of = {s.name: {name: ensemble.endpoint(name, s.name) for name in ends}
                 for s in study.scenarios}  # fmt: skip
    rows = chunk.last - chunk.first
    table = _members(study, ensemble, {k: v[:rows] for k, v in drawn.items()}, chunk, values_of)
    places = np.flatnonzero(np.isin(_ids(ensemble), table["member"][table[KEPT]]))
    tables = {
        MEMBERS: table,
        COURSES: _courses(study, ensemble, places),
        ENDPOINTS: _endpoints(study, ensemble, places, values_of),
        DOSES: _doses(ensemble, places),
    }
    header = {"question": question_of(study), "model": study.model.hash, "members": rows}
    return {name: parquet_bytes(columns, header) for name, columns in tables.items()}


def _members(
    study: PopulationStudy, ensemble: Ensemble, drawn: Mapping[str, Any], chunk: Chunk,
    values_of: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    """The values of each patient, which filters it passes, and whether it is kept."""
    members = np.arange(chunk.first, chunk.last)
    finished = _ids(ensemble)
    at, ran = np.searchsorted(finished, members), np.isin(members, finished)
    kept, passes = ran.copy(), {}
    for one in study.virtual.filters:
        passed = np.zeros(len(members), dtype=bool)
        values = values_of[study.scenarios[0].name][one.when.quantity]
        passed[ran] = one.when.holds(np.asarray(values)[at[ran]])
        passes[column_of(one)] = passed
        kept &= passed
    reasons = {f.member: str(f) for f in reversed(ensemble.failures)}
    failed = [reasons.get(int(m), "") for m in members]
    return {"member": members, **drawn, **passes, KEPT: kept, FAILED: failed}


def _ids(ensemble: Ensemble) -> Any:
    """Ids of the patients that finished under every scenario, ascending."""
    return np.array(ensemble.members, dtype=np.int64)


def _endpoints(
    study: PopulationStudy, ensemble: Ensemble, places: Any,
    values_of: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    names = [s.name for s in study.scenarios]
    columns = {"member": np.tile(_ids(ensemble)[places], len(names)),
               "scenario": np.repeat(np.array(names, dtype=object), len(places))}  # fmt: skip
    for name in study.endpoints:
        columns[name] = np.concatenate([np.asarray(values_of[s][name])[places] for s in names])
    return columns


def _courses(study: PopulationStudy, ensemble: Ensemble, places: Any) -> dict[str, Any]:
    """Daily time courses in single precision, for plots of bands."""
    whole = np.flatnonzero(np.abs(ensemble.days - np.round(ensemble.days)) < WHOLE_DAY)
    names, n_days = [s.name for s in study.scenarios], len(whole)
    members = np.repeat(_ids(ensemble)[places], n_days)
    columns = {
        "member": np.tile(members, len(names)),
        "scenario": np.repeat(np.array(names, dtype=object), len(members)),
        "day": np.tile(np.round(ensemble.days[whole]), len(places) * len(names)),
    }
    for name in study.courses:
        columns[name] = ensemble[name][:, places][:, :, whole].ravel().astype(np.float32)
    return columns


def _doses(ensemble: Ensemble, places: Any) -> dict[str, Any]:
    """Doses that triggers and holds decided; the others are in the scenario's schedule."""
    kept = [ensemble.members[place] for place in places]
    found = [
        (member, scenario, *(getattr(entry, name) for name in COLUMNS))
        for scenario, ledgers in ensemble.ledgers.items()
        for member in kept
        for entry in ledgers[member]
        if entry.why != PLANNED
    ]
    kinds = (np.int64, object, float, object, float, object, float, bool, object)
    columns = zip(*found, strict=True) if found else ((),) * len(kinds)
    return {name: np.array(column, dtype=kind) for name, column, kind in
            zip(("member", "scenario", *COLUMNS), columns, kinds, strict=True)}  # fmt: skip


def _write(folder: Path, files: Mapping[Path, bytes], done: int, number: int) -> None:
    try:
        write_atomic(files)
    except StorageError as error:
        raise StorageError(
            f"{error}. {done} of {number} patients are stored in {folder}: free some space, then "
            "resume with --resume"
        ) from None
