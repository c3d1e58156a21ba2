"""A data set: simulated record by record, or its subjects as fit problems.

A subject whose run fails keeps its rows, with nan, and its error is reported; the others are kept.

All commands for a problem or its runs (fit, profile, predict, sample) then work for the subject.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import RESEARCH_ONLY, FileError, IntegrationError, StorageError, command, unknown_name
from ..model import Model, pretty
from ..patients import Patient, Study, ask_about_treatment, read_nonmem
from ..simulation import Simulation, simulate
from ..store import csv_file, json_file, level_text, root, versions, write_atomic
from .local_optimisation import informed
from .priors import PRIORS, PROBLEM, Prior, free_lines, prior_of, read_prior
from .problem import FitProblem, load_problem, patient_problem

if TYPE_CHECKING:
    import pandas as pd

FIRST = ("ID", "row", "TIME", "day", "EVID", "observable", "kind", "observed", "predicted")


@dataclass(frozen=True)
class StudyRun:
    """The simulation of a data set.

    Parameters
    ----------
    model : Model
    study : Study
    table : one row per record, in the order of the file: subject, row, time, observed and predicted
        value (in the model's unit), then all states and quantities, on a dose record just after
        the dose
    failures : mapping of subject to error message
    """

    model: Model
    study: Study
    table: pd.DataFrame = field(repr=False)
    failures: Mapping[str, str]


def run_study(
    model: Model, study: Study, *, method: str = "Rosenbrock", rtol: float = 1e-6
) -> StudyRun:
    """Simulate every subject of a data set at its own records.

    Parameters
    ----------
    model : Model, the one the data set was read with
    study : Study, from `crs_sim.patients.read_nonmem`
    method, rtol : as for `simulate`

    Raises
    ------
    InputError, UnitError
        For invalid input. A failure of the solver is recorded in ``failures`` instead.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from crs_sim import load_model
    >>> from crs_sim import read_nonmem
    >>> model = load_model("one_compartment")
    >>> rows = "ID,TIME,AMT,CMT,DV\\n1,0,100,2,.\\n1,2,.,2,2.6\\n"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "study.csv")
    ...     _ = file.write_text(rows)
    ...     run = run_study(model, read_nonmem(file, model))
    >>> run.table["predicted"].round(2).tolist()
    [nan, 2.73]
    """
    import pandas as pd  # slow to load, and not needed by every run

    rows: list[list[object]] = []
    failures: dict[str, str] = {}
    names = model.course_ids
    for patient in study:
        ask_about_treatment(patient, model)
        samples = [s for s in study.samples if s.id == patient.id]
        observed = {o.row: o for o in patient.observations}
        days = np.unique([s.looked_at for s in samples])
        sim: Simulation | None = None
        try:
            sim = simulate(model, patient.scenario, days=days, method=method, rtol=rtol)
        except IntegrationError as error:
            failures[patient.id] = str(error)
        for sample in samples:
            obs, at = observed.get(sample.row), int(np.searchsorted(days, sample.looked_at))
            levels = [np.nan if sim is None else float(sim[name][at]) for name in names]
            predicted = dict(zip(names, levels, strict=True))
            rows.append([
                sample.id, sample.row, sample.time, sample.day, sample.event, sample.observable,
                obs.kind if obs else "", obs.value if obs else np.nan,
                predicted.get(sample.observable, np.nan), *levels,
            ])  # fmt: skip
    return StudyRun(model, study, pd.DataFrame(rows, columns=[*FIRST, *names]), failures)


def simulate_data_set(
    data: Path, model: str, columns: Path | None, values: Mapping[str, float], method: str
) -> StudyRun:
    """Read and simulate a data set, with a model by name and some parameter values changed."""
    from ..model import load_model

    loaded = load_model(model).with_values(**values)
    loaded.refuse_outside(values, "--set")
    return run_study(loaded, read_nonmem(data, loaded, columns=columns), method=method)


def summary(run: StudyRun) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows to print: the records with an observable."""
    columns = ("ID", "TIME", "observable", "", "observed", "predicted")
    rows = run.table[run.table["observable"] != ""].itertuples()
    return columns, [
        (r.ID, r.TIME, r.observable, r.kind, *(_level(x) for x in (r.observed, r.predicted)))
        for r in rows
    ]


def _level(value: float) -> str:
    return level_text(value, 4)


def run_description(run: StudyRun) -> str:
    """The data set and the model in one line."""
    size = f"{len(run.study)} subjects, {len(run.table)} records"
    values = "values: the model's own, not fitted, but for those of the data set"
    return f"{run.study.path}: {size}, model {run.model.name} {run.model.hash}; {values}"


def failure_message(run: StudyRun) -> str:
    """The failures in one line, by subject."""
    reasons = "; ".join(f"subject {id}: {text}" for id, text in run.failures.items())
    return f"{run.study.path}  runs failed: {len(run.failures)} of {len(run.study)}. {reasons}"


def study_files(run: StudyRun, path: str | Path) -> dict[Path, bytes]:
    """The files of a run, for `crs_sim.output.write_atomic`: a CSV, and ``<path>.meta.json``.

    Parameters
    ----------
    run : StudyRun
    path : of the CSV
    """
    path, model = Path(path), run.model
    columns = model.course_ids
    meta = {
        "note": RESEARCH_ONLY,
        "model": {"name": model.name, "hash": model.hash},
        "data": run.study.path,
        "notes": list(run.study.notes),
        "failures": dict(run.failures),
        "units": {"day": "day", **{name: pretty(model[name].unit) for name in columns}},
        "labels": {"day": "day after the subject's first record",
                   **{name: model[name].label for name in columns}},
        "parameters": model.values,
        "columns": run.study.columns,
        "versions": versions(),
    }  # fmt: skip
    return {
        path: csv_file(run.table),
        path.with_name(f"{path.name}.meta.json"): json_file(meta),
    }


def subjects_with_observations(study: Study, id: str = "") -> tuple[Patient, ...]:
    """The subjects with observations; or the one with that id, with or without observations.

    Raises
    ------
    UnknownNameError
        If no subject has that id.
    FileError
        If one of their observations has no logarithm, or there are occasions.
    """
    _refuse_occasions(study)
    study.check_fitted(*(id,) * bool(id))
    if not id:
        return tuple(patient for patient in study if len(patient.observations))
    subjects = {patient.id: patient for patient in study}
    if id not in subjects:
        raise unknown_name("subject", id, subjects)
    return (subjects[id],)


OCCASIONS = ("OCC", "OCCASION", "IOV")


def _refuse_occasions(study: Study) -> None:
    """Refuse a column of occasions that would be passed over."""
    for name in OCCASIONS:
        for note in study.notes:
            if note.lower() == f"column {name} is not used".lower():
                column = note.split()[1]
                raise FileError(
                    f"{study.path}, column {column}: inter-occasion variability is not estimated; "
                    "each parameter has one value for each patient. To fit it so, write "
                    f'ignore = ["{column}"] in the column map'
                )


def subject_problem(
    study: Study, patient: Patient, model: Model, folder: str | Path,
    *, prior: str | Path | None = None,
) -> FitProblem:  # fmt: skip
    """Write the problem.toml of one subject to a folder, and load it.

    The free parameters are those of the prior, except those that the subject's covariates set, as
    in `patient_problem`.

    Parameters
    ----------
    study : Study, from `crs_sim.patients.read_nonmem`
    patient : Patient, one of its subjects
    model : Model with which the data set was read
    folder : created if needed
    prior : name or path of a prior  [default: the model's]

    Raises
    ------
    FileError, InputError, UnknownNameError
        If it cannot be fitted; nothing is written then.
    StorageError
        If the folder already contains another problem, or cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from crs_sim import load_model
    >>> from crs_sim import read_nonmem
    >>> model = load_model("one_compartment")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "study.csv")
    ...     _ = file.write_text("ID,TIME,AMT,CMT,DV\\n7,0,100,2,.\\n7,2,.,2,2.6\\n")
    ...     study = read_nonmem(file, model)
    ...     problem = subject_problem(study, study.patients[0], model, folder)
    >>> problem.name, problem.names
    ('study, subject 7', ('cl', 'v', 'ka'))
    """
    patient_problem(patient, model=model, prior=prior)  # raises if it cannot be fitted
    path = Path(folder) / PROBLEM
    used = prior_of(model) if prior is None else read_prior(prior)
    text = _text(study, patient, model, used, path.parent)
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        raise StorageError(
            f"{path}  already defines another problem; give a new folder (--out), or fit that one "
            f"({command('fit', folder)})"
        )
    write_atomic({path: text.encode()})
    return load_problem(path.parent)


def _text(study: Study, patient: Patient, model: Model, prior: Prior, home: Path) -> str:
    stated = [name for name in prior.content.free if name in patient.scenario.values]
    data = Path(study.path)
    entries = {
        "name": f"{data.stem}, subject {patient.id}",
        "model": _name_or_path(Path(model.path), "models", home),
        "data": _relative_path(data, home),
        "columns": _relative_path(Path(study.columns), home) if study.columns else "",
        "subject": patient.id,
        "prior": _name_or_path(prior.path, PRIORS, home),
    }
    words = ["One subject of a data set, as crs-sim fit --data asked. Runs lie beside this file."]
    return "\n".join(_head(words, entries, stated)) + "\n"


def _head(words: Sequence[str], entries: Mapping[str, str], fixed: Sequence[str]) -> list[str]:
    """The first lines of a problem.toml: a comment, its texts, and what is fixed."""
    lines = [*(f"# {line}" for line in (*words, RESEARCH_ONLY)), "",
             *(f"{key} = {_quoted(value)}" for key, value in entries.items() if value)]  # fmt: skip
    return [*lines, f"fixed = [{', '.join(map(_quoted, fixed))}]"] if fixed else lines


def write_problem(patient: Patient, *, prior: str | Path | None = None) -> Path:
    """Write the problem.toml of a patient, in which everything about the fit can be changed.

    It has a table for each parameter that `fit` would free, and names those that it would not.

    Returns
    -------
    Path : of the file, in the patient's folder, or for a workbook in the folder of its name

    Raises
    ------
    FileError, InputError, UnknownNameError
        If it cannot be fitted.
    StorageError
        If the file is there already, or cannot be written.
    """
    problem, idle = informed(patient_problem(patient, prior=prior))
    model, place = problem.model, Path(patient.path)
    path = (place if place.is_dir() else place.with_suffix("")) / PROBLEM
    if path.exists():
        raise StorageError(f"{path}  is there already; change it, or move it away first")
    used = prior_of(model) if prior is None else read_prior(prior)
    entries = {
        "name": patient.id, "model": _name_or_path(Path(model.path), "models", path.parent),
        "data": "." if place.is_dir() else _relative_path(place, path.parent),
        "prior": _name_or_path(used.path, PRIORS, path.parent),
    }  # fmt: skip
    words = [
        "What is fitted. Where a table is deleted, that of the prior holds. What is fixed is the",
        "patient's own, or nothing measured depends on it: it stays at the median of the prior.",
    ]
    fixed = [*idle, *(n for n in used.content.free if n in patient.scenario.values)]
    lines = _head(words, entries, fixed)
    lines += [f"seed = {problem.seed}", f"starts = {problem.starts}"]
    for free in problem.free:
        if free.name in problem.of_model:  # the others are made from [noise]
            part = model[free.name]
            lines += free_lines(free, model, f"  # {part.label}, {pretty(part.unit)}")
    write_atomic({path: ("\n".join(lines) + "\n").encode()})
    return path


def _name_or_path(path: Path, kind: str, home: Path) -> str:
    """The name of a shipped model or prior; else the path from the problem's folder."""
    name = path.parent.name
    if path.resolve() == (root() / kind / name / path.name).resolve():
        return name
    return _relative_path(path, home)


def _relative_path(path: Path, home: Path) -> str:
    try:
        return Path(os.path.relpath(path.resolve(), home.resolve())).as_posix()
    except ValueError:  # another drive
        return path.resolve().as_posix()


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
