"""A population fit on disk: each patient's fit in each iteration, and the result.

An interrupted fit can be resumed from the stored patients if all its inputs are the same.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.stats import chi2

from ..errors import RESEARCH_ONLY, StorageError
from ..fitting import SURE, FitProblem
from ..model import pretty
from ..store import check_resume, csv_file, json_file, markdown, versions, write_atomic
from .two_stage import PatientFailure, PatientFit, PopulationFit, QuadraticLikelihood

ITERATIONS = "rounds"
RESULT = "population.json"


@dataclass(frozen=True)
class IterationFiles:
    """A file per patient and iteration, under ``folder/rounds``; a `ResultStore`."""

    folder: Path

    def path(self, number: int, problem: FitProblem) -> Path:
        """The file of a patient's fit in an iteration."""
        id = problem.patient.id
        plain = re.sub(r"[^A-Za-z0-9.-]", "_", id)
        tail = "" if plain == id else f"_{hashlib.sha256(id.encode()).hexdigest()[:6]}"
        return self.folder / ITERATIONS / f"{number + 1:02d}" / f"{plain}{tail}.json"

    def load(self, number: int, problem: FitProblem) -> PatientFit | None:
        """Load a stored fit; None if there is none.

        Raises
        ------
        StorageError
            If it was computed with other data, model, prior, starts or seed.
        """
        path = self.path(number, problem)
        if not path.is_file():
            return None
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            arrays = {name: np.array(value) for name, value in stored["evidence"].items()}
            kept = PatientFit(**{**stored["fit"], "evidence": QuadraticLikelihood(**arrays)})
            stored_hash = stored["question"]
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(
                f"{path}  is not a complete result ({type(error).__name__}: {error}); delete it"
            ) from None
        if stored_hash != question_of(problem):
            raise StorageError(
                f"{path}  was computed with other inputs: the data, the model, the prior, the "
                "starts or the seed have changed since; give a new folder with --out"
            )
        return kept

    def keep(self, number: int, problem: FitProblem, outcome: PatientFit) -> None:
        """Store a fit, atomically."""
        numbers = {name: getattr(outcome, name) for name in PatientFit.__dataclass_fields__}
        evidence = numbers.pop("evidence")
        text = json.dumps({
            "question": question_of(problem),
            "fit": numbers,
            "evidence": {name: np.asarray(v).tolist() for name, v in vars(evidence).items()},
        })  # fmt: skip
        write_atomic({self.path(number, problem): text.encode()})


def question_of(problem: FitProblem) -> str:
    """A hash of everything the results depend on."""
    patient = problem.patient
    parts = (
        problem.model.hash,
        sorted(problem.model.values.items()),
        tuple(patient.scenario.doses),
        patient.scenario.changes,
        sorted(patient.scenario.values.items()),
        patient.observations,
        [(f.name, f.median, f.sd, f.lower, f.upper) for f in problem.free],
        problem.noise,
        problem.seed,
        problem.starts,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def check_new(folder: Path, *, resume: bool) -> None:
    """Refuse a folder that already holds a fit, unless it is to be resumed.

    Raises
    ------
    StorageError
    """
    there = (folder / ITERATIONS).is_dir()
    check_resume(folder, "a fit of several patients", there=there, resume=resume)


def save_population(result: PopulationFit, folder: Path) -> list[Path]:
    """Write the result: tables, a prior.toml for the next patient's fit, and a report.

    Returns
    -------
    list of Path, the files

    Raises
    ------
    StorageError
        If one cannot be written; then none is.
    """
    note = (f"Medians and spreads of {len(result.fits)} patients, by crs-sim fit-all, with "
            f"the prior {result.assumed.name!r}.\n{RESEARCH_ONLY}")  # fmt: skip
    stored = {
        "note": RESEARCH_ONLY,
        "model": {"name": result.assumed.model.name, "hash": result.assumed.model.hash},
        "prior": {"name": result.assumed.name, "patients": result.assumed.patients},
        "versions": versions(),
        "rounds": result.rounds,
        "still": result.still,
        "patients": [
            {"patient": f.patient, "cost": f.cost, "deviance": f.deviance, "runs": f.runs,
             "failed_runs": f.failed, "starts_agreeing": f.agreeing}
            for f in result.fits
        ],
        "failures": [asdict(failure) for failure in result.failures],
    }  # fmt: skip
    files = {
        "population.csv": csv_file(result.table()),
        "estimates.csv": csv_file(result.estimates()),
        "prior.toml": result.population.toml(note).encode(),
        "report.md": report_text(result).encode(),
        RESULT: json_file(stored),
    }
    write_atomic({folder / name: content for name, content in files.items()})
    return [folder / name for name in files]


def report_text(result: PopulationFit) -> str:
    """The report in markdown: warnings first, then the population, then the patients."""
    lines = [
        f"# Fit of {len(result.fits)} patients",
        RESEARCH_ONLY,
        *population_fit_warnings(result),
    ]
    lines += ["## The population", TABLE_NOTES, _table(result)]
    lines += ["## The patients"]
    lines += [_patient_line(fit) for fit in result.fits]
    return "\n\n".join(lines) + "\n"


TABLE_NOTES = (
    "sd is the between-patient standard deviation on the log scale; errors are standard errors of "
    "the logarithms. Shrinkage is 1 - sd(deviations)/sd: near 0 the patients' own data decide, "
    "near 1 they carry no information and each estimate is the median. A shared parameter has one "
    "value for all patients; an own one is estimated for each patient, with the assumed prior."
)


def population_fit_warnings(result: PopulationFit) -> list[str]:
    """Warnings: scatter, failed patients, no convergence, high shrinkage, a single good start."""
    wide = [f"{fit.patient} ({math.sqrt(fit.deviance / fit.readings):.2g} x)"
            for fit in result.fits
            if fit.readings and fit.deviance > chi2.ppf(SURE, fit.readings)]  # fmt: skip
    lines = []
    if wide:
        lines.append(
            f"**The readings scatter more than the stated noise allows: {', '.join(wide)}; "
            "correct the noise, or look for what the model does not describe.**"
        )
    if result.failures:
        lines.append("**Failed: " + "; ".join(_failure(f) for f in result.failures) + "**")
    if not result.still:
        lines.append(f"**Not converged after {result.rounds} iterations.**")
    table = result.table()
    shrunk = table[(table["shrinkage"] > 0.7)]["parameter"]
    if len(shrunk):
        lines.append("Shrinkage above 70 %, so that individual estimates carry little information: "
                     f"{', '.join(shrunk)}.")  # fmt: skip
    single = [fit.patient for fit in result.fits if fit.agreeing < 2]
    if single:
        lines.append(f"Only one start reached the best cost: {', '.join(single)}.")
    return lines


def _failure(failure: PatientFailure) -> str:
    return f"{failure.patient} ({failure.reason})"


def _patient_line(fit: PatientFit) -> str:
    return (f"- {fit.patient}: -2 ln likelihood {fit.deviance:.4g}, cost {fit.cost:.4g}; "
            f"{fit.runs} runs, {fit.failed} failed")  # fmt: skip


def _table(result: PopulationFit) -> str:
    columns = ("parameter", "role", "median", "error", "sd", "error", "shrinkage",
               "assumed median", "assumed sd")  # fmt: skip
    rows = [
        (r.parameter, r.role, f"{r.median:.3g} {pretty(r.unit)}".removesuffix(" 1"),
         _number(r.median_error), _number(r.sd), _number(r.sd_error), _number(r.shrinkage),
         f"{r.assumed_median:.3g}", f"{r.assumed_sd:.3g}")
        for r in result.table().itertuples()
    ]  # fmt: skip
    return markdown(columns, rows)


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.2f}"
