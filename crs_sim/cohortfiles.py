"""A fit of several patients on disk: what each round found as it goes, and the outcome.

A killed fit goes on from the patients that are there, if it is asked the same question.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from . import RESEARCH_ONLY
from .cohort import Failed, PatientFit, PopulationFit
from .errors import StorageError
from .output import csv_file, json_file, markdown, write_whole
from .problem import FitProblem
from .runlog import check_resume
from .storage import versions
from .twostage import Evidence
from .units import pretty

ROUNDS = "rounds"
RESULT = "population.json"


@dataclass(frozen=True)
class Rounds:
    """One file a patient and round under ``folder/rounds``; see `crs_sim.rounds.Kept`."""

    folder: Path

    def path(self, number: int, problem: FitProblem) -> Path:
        """The file of a patient in a round."""
        id = problem.patient.id
        plain = re.sub(r"[^A-Za-z0-9.-]", "_", id)
        tail = "" if plain == id else f"_{hashlib.sha256(id.encode()).hexdigest()[:6]}"
        return self.folder / ROUNDS / f"{number + 1:02d}" / f"{plain}{tail}.json"

    def load(self, number: int, problem: FitProblem) -> PatientFit | None:
        """What was kept, or None.

        Raises
        ------
        StorageError
            If it answers another question: other data, model, prior or seed.
        """
        path = self.path(number, problem)
        if not path.is_file():
            return None
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            arrays = {name: np.array(value) for name, value in stored["evidence"].items()}
            kept = PatientFit(**{**stored["fit"], "evidence": Evidence(**arrays)})
            question = stored["question"]
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(
                f"{path}  is no complete result ({type(error).__name__}: {error}); delete it"
            ) from None
        if question != question_of(problem):
            raise StorageError(
                f"{path}  answers another question: the data, the model, the prior, the starts or "
                "the seed have changed since; give a new folder with --out"
            )
        return kept

    def keep(self, number: int, problem: FitProblem, outcome: PatientFit) -> None:
        """Write it, whole or not at all."""
        numbers = {name: getattr(outcome, name) for name in PatientFit.__dataclass_fields__}
        evidence = numbers.pop("evidence")
        text = json.dumps({
            "question": question_of(problem),
            "fit": numbers,
            "evidence": {name: np.asarray(v).tolist() for name, v in vars(evidence).items()},
        })  # fmt: skip
        write_whole({self.path(number, problem): text.encode()})


def question_of(problem: FitProblem) -> str:
    """A short text that differs if anything differs that decides the numbers."""
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
    """Refuse a folder that holds rounds already, unless they are to go on.

    Raises
    ------
    StorageError
    """
    there = (folder / ROUNDS).is_dir()
    check_resume(folder, "a fit of several patients", there=there, resume=resume)


def save_population(result: PopulationFit, folder: Path) -> list[Path]:
    """Write the outcome: tables, a prior.toml to fit the next patient with, and a report.

    Returns
    -------
    list of Path, the files

    Raises
    ------
    StorageError
        If one cannot be written; then none is.
    """
    note = (f"Medians and spreads found from {len(result.fits)} patients by crs-sim fit-all, with "
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
    write_whole({folder / name: content for name, content in files.items()})
    return [folder / name for name in files]


def report_text(result: PopulationFit) -> str:
    """The report in markdown: how it ended first, then the population, then the patients."""
    lines = [f"# Fit of {len(result.fits)} patients", RESEARCH_ONLY, *headlines(result)]
    lines += ["## The population", TABLE_WORDS, _table(result)]
    lines += ["## The patients"]
    lines += [_patient_line(fit) for fit in result.fits]
    return "\n\n".join(lines) + "\n"


TABLE_WORDS = (
    "sd is the spread between patients on the log scale; errors are standard errors of the "
    "logarithms. Shrinkage is 1 - sd(deviations)/sd: near 0 the patients' own data decide, near 1 "
    "they say nothing and the estimate of each is the median. A shared parameter has one value for "
    "all; of an own one each patient has theirs, with the assumed prior."
)


def headlines(result: PopulationFit) -> list[str]:
    """What must be read first: who failed, whether it stood still, what nobody's data tell."""
    said = []
    if result.failures:
        said.append("**Failed: " + "; ".join(_failure(f) for f in result.failures) + "**")
    if not result.still:
        said.append(f"**After {result.rounds} rounds the population still moves.**")
    told = result.table()
    mute = told[(told["shrinkage"] > 0.7)]["parameter"]
    if len(mute):
        said.append("Shrunk by more than 70 %, so that single estimates say little: "
                    f"{', '.join(mute)}.")  # fmt: skip
    alone = [fit.patient for fit in result.fits if fit.agreeing < 2]
    if alone:
        said.append(f"Only one start found the best cost: {', '.join(alone)}.")
    return said


def _failure(failure: Failed) -> str:
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
