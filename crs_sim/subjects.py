"""A subject of a data set as a problem of its own: a folder whose problem.toml names the data set.

Whatever takes a problem or its runs (fit, profile, predict, sample) then takes the subject too.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from . import RESEARCH_ONLY
from .errors import StorageError, unknown_name
from .model import Model
from .nonmem import Study
from .output import write_whole
from .patient import Patient
from .problem import FitProblem, ask, load_problem
from .problemfiles import PRIORS, PROBLEM, Prior, prior_of, read_prior
from .shipped import root


def measured_in(study: Study, id: str = "") -> tuple[Patient, ...]:
    """The subjects of whom something was measured; or the one of that id, whatever was.

    Raises
    ------
    UnknownNameError
        If nobody has that id.
    """
    if not id:
        return tuple(patient for patient in study if len(patient.observations))
    known = {patient.id: patient for patient in study}
    if id not in known:
        raise unknown_name("subject", id, known)
    return (known[id],)


def subject_problem(
    study: Study, patient: Patient, model: Model, folder: str | Path,
    *, prior: str | Path | None = None,
) -> FitProblem:  # fmt: skip
    """Write the problem.toml of one subject into a folder, and read it.

    Free is what the prior frees, but not what the subject's covariates state, as in `ask`.

    Parameters
    ----------
    study : Study, from `crs_sim.nonmem.read_nonmem`
    patient : Patient, one of its subjects
    model : Model, as the data set was read with
    folder : made if it is not there
    prior : name or path of a prior  [default: the model's]

    Raises
    ------
    FileError, InputError, UnknownNameError
        If it cannot be fitted; then nothing is written.
    StorageError
        If the folder holds another problem already, or cannot be written.

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
    ...     asked = subject_problem(study, study.patients[0], model, folder)
    >>> asked.name, asked.names
    ('study, subject 7', ('cl', 'v', 'ka'))
    """
    ask(patient, model=model, prior=prior)  # refuses what cannot be fitted
    path = Path(folder) / PROBLEM
    known = prior_of(model) if prior is None else read_prior(prior)
    text = _text(study, patient, model, known, path.parent)
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        raise StorageError(
            f"{path}  asks something else already; give a new folder (--out), or fit that problem "
            f"(crs-sim fit {folder})"
        )
    write_whole({path: text.encode()})
    return load_problem(path.parent)


def _text(study: Study, patient: Patient, model: Model, known: Prior, home: Path) -> str:
    stated = [name for name in known.says.free if name in patient.scenario.values]
    data = Path(study.path)
    said = {
        "name": f"{data.stem}, subject {patient.id}",
        "model": _named(Path(model.path), "models", home),
        "data": _near(data, home),
        "columns": _near(Path(study.columns), home) if study.columns else "",
        "subject": patient.id,
        "prior": _named(known.path, PRIORS, home),
    }
    lines = ["# One subject of a data set, as crs-sim fit --data asked. Runs lie beside this file.",
             f"# {RESEARCH_ONLY}", "",
             *(f"{key} = {_quoted(words)}" for key, words in said.items() if words)]  # fmt: skip
    if stated:
        lines.append(f"fixed = [{', '.join(map(_quoted, stated))}]")
    return "\n".join(lines) + "\n"


def _named(path: Path, kind: str, home: Path) -> str:
    """The name of a shipped model or prior; else the path from the problem's folder."""
    name = path.parent.name
    if path.resolve() == (root() / kind / name / path.name).resolve():
        return name
    return _near(path, home)


def _near(path: Path, home: Path) -> str:
    try:
        return Path(os.path.relpath(path.resolve(), home.resolve())).as_posix()
    except ValueError:  # another drive
        return path.resolve().as_posix()


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
