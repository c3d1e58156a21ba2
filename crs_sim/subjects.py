"""One subject of a data set as a problem: a folder with a problem.toml that names the data set.

All commands for a problem or its runs (fit, profile, predict, sample) then work for the subject.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from . import RESEARCH_ONLY
from .errors import StorageError, unknown_name
from .model import Model
from .nonmem import Study
from .output import write_atomic
from .patient import Patient
from .problem import FitProblem, load_problem, patient_problem
from .problemfiles import PRIORS, PROBLEM, Prior, prior_of, read_prior
from .shipped import root


def subjects_with_observations(study: Study, id: str = "") -> tuple[Patient, ...]:
    """The subjects with observations; or the one with that id, with or without observations.

    Raises
    ------
    UnknownNameError
        If no subject has that id.
    """
    if not id:
        return tuple(patient for patient in study if len(patient.observations))
    subjects = {patient.id: patient for patient in study}
    if id not in subjects:
        raise unknown_name("subject", id, subjects)
    return (subjects[id],)


def subject_problem(
    study: Study, patient: Patient, model: Model, folder: str | Path,
    *, prior: str | Path | None = None,
) -> FitProblem:  # fmt: skip
    """Write the problem.toml of one subject to a folder, and load it.

    The free parameters are those of the prior, except those that the subject's covariates set, as
    in `patient_problem`.

    Parameters
    ----------
    study : Study, from `crs_sim.nonmem.read_nonmem`
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
    >>> from crs_sim.modelfolder import load_model
    >>> from crs_sim.nonmem import read_nonmem
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
            f"(crs-sim fit {folder})"
        )
    write_atomic({path: text.encode()})
    return load_problem(path.parent)


def _text(study: Study, patient: Patient, model: Model, prior: Prior, home: Path) -> str:
    stated = [name for name in prior.says.free if name in patient.scenario.values]
    data = Path(study.path)
    entries = {
        "name": f"{data.stem}, subject {patient.id}",
        "model": _name_or_path(Path(model.path), "models", home),
        "data": _relative_path(data, home),
        "columns": _relative_path(Path(study.columns), home) if study.columns else "",
        "subject": patient.id,
        "prior": _name_or_path(prior.path, PRIORS, home),
    }
    lines = ["# One subject of a data set, as crs-sim fit --data asked. Runs lie beside this file.",
             f"# {RESEARCH_ONLY}", "",
             *(f"{key} = {_quoted(value)}" for key, value in entries.items() if value)]  # fmt: skip
    if stated:
        lines.append(f"fixed = [{', '.join(map(_quoted, stated))}]")
    return "\n".join(lines) + "\n"


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
