"""Save and load fits: one folder per run, written atomically and never edited.

A run is tied to the equations it was made with: it is rejected for a model with another hash.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import StorageError, UnknownNameError, command, unknown_name
from ..model import Model
from ..store import csv_file, is_workbook, json_file, root, versions
from .objective import noise_record
from .priors import PROBLEM
from .problem import FitProblem, estimated_noise

if TYPE_CHECKING:  # fitting imports lmfit, which takes half a second
    import pandas as pd

    from ..patients import Patient
    from .fitting import Dropped, Fit

RESULT = "result.json"
SAME_COST = 1e-4
"""Relative tolerance of a stored cost: another machine or step loop may round differently."""


@dataclass(frozen=True, eq=False)
class Run:
    """A stored fit.

    Parameters
    ----------
    path : Path, its folder
    problem, model_hash, created : str
    values : mapping of free parameter to its estimate
    fixed : mapping of every other parameter to its value in that fit
    covariance : (n_free, n_free), of the scaled parameters, in the order of ``values``
    result : mapping, everything in result.json
    """

    path: Path
    problem: str
    model_hash: str
    created: str
    values: Mapping[str, float]
    fixed: Mapping[str, float] = field(repr=False)
    covariance: np.ndarray[Any, np.dtype[np.float64]] = field(repr=False)
    result: Mapping[str, Any] = field(repr=False)

    def applied_to(self, model: Model) -> Model:
        """The model with the fitted values.

        Raises
        ------
        StorageError
            If the run was made with other equations.
        """
        self.refuse_other(model)
        own = {name: v for name, v in self.values.items() if name in model.values}
        return model.with_values(**own)  # an estimated residual error is not the model's

    def refuse_other(self, model: Model) -> None:
        """Raise a StorageError if the run was made with equations other than the model's."""
        if model.hash != self.model_hash:
            again = command("fit", _beside(self.path) or self.problem)
            raise StorageError(
                f"{self.path}  was made with model hash {self.model_hash}, but {model.name} is now "
                f"{model.hash}: its equations have changed; fit again ({again}), or use that model"
            )

    def changed(self, model: Model) -> dict[str, tuple[float, float]]:
        """Parameters fixed in the fit whose value differs in the model: (then, now)."""
        now = model.values
        return {n: (v, now[n]) for n, v in self.fixed.items() if n in now and now[n] != v}

    @cached_property
    def estimates(self) -> pd.DataFrame:
        """estimates.csv."""
        import pandas as pd

        return pd.read_csv(self.path / "estimates.csv")

    @cached_property
    def observations(self) -> pd.DataFrame:
        """observations.csv."""
        import pandas as pd

        return pd.read_csv(self.path / "observations.csv")

    @cached_property
    def starts(self) -> pd.DataFrame:
        """starts.csv."""
        import pandas as pd

        return pd.read_csv(self.path / "starts.csv")


def save_run(
    result: Fit,
    folder: str | Path,
    *,
    dropped: Sequence[Dropped] = (),
    also: Callable[[Path], None] | None = None,
) -> Path:
    """Write a fit to ``folder/runs/<date>_<hash>``.

    Files are written to a hidden temporary folder, which is renamed when complete.

    Parameters
    ----------
    folder : the problem's folder, e.g. fits/ruemmele2025
    dropped : results of `drop_one`, if any
    also : called with the temporary folder before it is renamed, to add figures

    Returns
    -------
    Path, the new folder

    Raises
    ------
    StorageError
        If it cannot be written; no partial folder remains.
    """
    created = datetime.now(UTC)
    content = json_file(_result(result, created, dropped))
    name = f"{created:%Y-%m-%d}_{hashlib.sha256(content).hexdigest()[:8]}"
    final = Path(folder) / "runs" / name
    part = final.with_name(f".{name}.part")
    try:
        part.mkdir(parents=True)
        (part / RESULT).write_bytes(content)
        for file, table in _tables(result, dropped).items():
            (part / file).write_bytes(csv_file(table))
        if also is not None:
            also(part)
        part.rename(final)
    except OSError as error:
        raise StorageError(f"{final}  cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return final


def load_run(name: str | Path, model: Model | None = None) -> Run:
    """Load a stored fit.

    Parameters
    ----------
    name : its folder; or a problem's folder or shipped name, for its latest run; or "problem/run"
        of a shipped one
    model : if given, the run must have been made with its equations

    Raises
    ------
    StorageError, UnknownNameError
        If it does not exist, is incomplete, or belongs to another model.
    """
    path = _run_folder(name)
    try:
        stored = json.loads((path / RESULT).read_text(encoding="utf-8"))
        run = Run(
            path,
            problem=stored["problem"]["name"],
            model_hash=stored["model"]["hash"],
            created=stored["created"],
            values=stored["values"],
            fixed=stored["fixed"],
            covariance=np.array(stored["covariance"], dtype=np.float64),
            result=stored,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{path / RESULT}  is not a complete result ({type(error).__name__}: {error}); "
            "fit again, or restore the file"
        ) from None
    if model is not None:
        run.refuse_other(model)
    return run


def restore_fit(run: Run, problem: FitProblem) -> Fit:
    """Restore the `Fit` of a run, for profiles, predictions or leave-one-out.

    Parameters
    ----------
    run : Run
    problem : FitProblem, the one that was fitted

    Raises
    ------
    StorageError
        If the problem has changed since: equations, free parameters, priors, noise or
        observations; the stored values would no longer be its estimates.
    """
    run.refuse_other(problem.model)
    stored, at = run.result, address_of(problem)
    inputs = {
        "free parameters or priors": (_fit_settings([asdict(f) for f in problem.free]),
                                      _fit_settings(stored["free"])),
        "patient's own values": (dict(problem.patient.scenario.values), stored["patient_values"]),
    }  # fmt: skip
    for name, (now, then) in inputs.items():
        if now != then:
            raise StorageError(f"{run.path}  the {name} of {problem.name} have changed since this "
                               f"run was made; fit again ({command('fit', at)})")  # fmt: skip
    same = replace(problem, model=problem.model.with_values(**run.fixed))
    from .fitting import Fit
    from .local_optimisation import Start
    from .objective import Objective, point_of

    observed = Objective(same).attempt(point_of(same, run.values))
    *starts, last = (Start(**start) for start in stored["starts"])
    again = Fit(same, run.values, run.covariance, observed, tuple(starts), last, stored["seed"],
                stored["options"], stored.get("singular", False))  # fmt: skip
    if abs(again.cost - stored["cost"]) > SAME_COST * max(1.0, stored["cost"]):
        raise StorageError(
            f"{run.path}  has cost {stored['cost']:.6g}, but its values now give {again.cost:.6g}: "
            "the patient's doses or observations, or their noise, have changed; fit again "
            f"({command('fit', at)})"
        )
    return again


def problem_of(run: Run, name: str | Path | None = None) -> FitProblem:
    """The problem of a run: loaded from its folder, or rebuilt from its patient and stored prior.

    Parameters
    ----------
    run : Run
    name : the problem or patient  [default: the folder that contains the run, or the shipped one]

    Raises
    ------
    StorageError
        If it cannot be found.
    """
    from ..patients import patient_at
    from .problem import load_problem

    name = name or _beside(run.path) or run.problem
    try:
        patient = patient_at(name)
        return load_problem(name) if patient is None else _patient_problem(run, patient)
    except UnknownNameError:
        raise StorageError(
            f"{run.path}  belongs to problem {run.problem}, which is neither beside "
            "it nor shipped; give its folder (--problem FOLDER)"
        ) from None


def _beside(run: Path) -> Path | None:
    """The problem, patient or workbook that a run was written beside; None if there is none."""
    home = run.resolve().parents[1]
    book = home.with_name(f"{home.name}.xlsx")  # its runs are in a folder of the same name
    if (home / "problem.toml").is_file() or (home / "patient.toml").is_file():
        return home
    return book if book.is_file() else None


def load_fit(name: str | Path, problem: str | Path | None = None) -> Fit:
    """Load a stored fit as a `Fit`.

    Parameters
    ----------
    name : as in `load_run`
    problem : as in `problem_of`

    Raises
    ------
    StorageError, UnknownNameError
        As `load_run` and `restore_fit`.

    Examples
    --------
    >>> load_fit("ruemmele2025/2026-11-22_095fd9c6").values["k_ifng_host"] > 1e4
    True
    """
    run = load_run(name)
    return restore_fit(run, problem_of(run, problem))


def _patient_problem(run: Run, patient: Patient) -> FitProblem:
    """The problem of a patient without a problem.toml, with the priors and noise of the run."""
    from ..patients import check_against, model_for_patient
    from .grades import GradeScale
    from .noise import Noise, Spread
    from .priors import Free

    model, noise = model_for_patient(patient), run.result["noise"]
    scale = noise["grade"]
    grade = None if scale is None else GradeScale(**{**scale, "cuts": tuple(scale["cuts"])})
    spreads = {name: Spread(**spread) for name, spread in noise["spreads"].items()}
    free = tuple(Free(**f) for f in run.result["free"])
    run.refuse_other(model)
    patient, about = check_against(patient, model), Noise(spreads, grade)
    model, _ = estimated_noise(model, about, patient)
    return FitProblem(patient.id, model, patient, free, about, path=patient.path)


def _fit_settings(free: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """The fields of each free parameter that determine a fit; its descriptions may change."""
    plain = ("name", "lower", "upper", "median", "sd")
    return [[*(f[key] for key in plain), f.get("scale", "log")] for f in free]


def _run_folder(name: str | Path) -> Path:
    given = Path(name)
    if is_workbook(given):
        given = given.with_suffix("")  # its runs are in a folder of the same name
    parts = given.parts
    shipped = root() / "fits" / parts[0] if parts and not given.is_absolute() else given
    inside = shipped / "runs" / parts[1] if len(parts) == 2 else shipped
    for folder in (given, inside):
        if (folder / RESULT).is_file():
            return folder
        if (folder / "runs").is_dir():
            return _latest(folder)
    if given.exists():
        raise StorageError(f"{given}  contains no run ({RESULT} is missing); fit first")
    known = [runs.parent.name for runs in (root() / "fits").glob("*/runs")]
    raise unknown_name("run (no such folder or shipped fit)", str(name), known)


def _latest(problem: Path) -> Path:
    runs = [path.parent for path in (problem / "runs").glob(f"[!.]*/{RESULT}")]
    if not runs:
        raise StorageError(f"{problem}  has no run yet; fit first ({command('fit', problem)})")
    return max(runs, key=lambda run: (_created(run), run.name))


def _created(run: Path) -> str:
    try:
        return str(json.loads((run / RESULT).read_text(encoding="utf-8"))["created"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _tables(result: Fit, dropped: Sequence[Dropped]) -> dict[str, pd.DataFrame]:
    from .diagnostics import judged_table
    from .fitting import estimates_table

    return {
        "estimates.csv": estimates_table(result, dropped),
        "observations.csv": judged_table(result),
        "starts.csv": result.starts_table(),
    }


def _result(result: Fit, created: datetime, dropped: Sequence[Dropped]) -> dict[str, Any]:
    """The contents of result.json, with numbers at full precision."""
    from .diagnostics import verdict

    problem, model, said = result.problem, result.problem.model, verdict(result)
    fixed = {name: v for name, v in model.values.items() if name not in result.values}
    return {
        "created": created.isoformat(),
        "warnings": list(said.warnings),
        "verdict": list(said.statements),
        "problem": {"name": problem.name, "patient": problem.patient.id},
        "model": {"name": model.name, "hash": model.hash},
        "versions": versions(),
        "free": [asdict(free) for free in problem.free],
        "noise": noise_record(problem.noise),
        "accept": {name: list(limits) for name, limits in problem.accept.items()},
        "seed": result.seed,
        "options": dict(result.options),
        "cost": result.cost,
        "deviance": result.deviance,
        "prior_penalty": result.prior_penalty,
        "aic": result.aic,
        "effective_parameters": result.effective_parameters,
        "condition": result.condition if math.isfinite(result.condition) else None,
        "singular": result.singular,
        "runs": result.runs,
        "failed_runs": result.failed_runs,
        "values": dict(result.values),
        "covariance": result.covariance.tolist(),
        "starts": [asdict(start) for start in (*result.starts, result.polish)],
        "dropped": [asdict(d) for d in dropped],
        "patient_values": dict(problem.patient.scenario.values),
        "fixed": fixed,
    }


def address_of(problem: FitProblem) -> str:
    """What a command takes for a problem: its folder, or its patient's folder or workbook."""
    path = Path(problem.path)
    return str(path.parent if path.name == PROBLEM else path) if problem.path else "PROBLEM"
