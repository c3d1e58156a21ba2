"""The fit of several patients: its result, and how it is stored.

Each patient's result of each iteration is stored when it is there; an interrupted fit can be
resumed from them if all its inputs are the same.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chi2

from ..errors import RESEARCH_ONLY, StorageError
from ..fitting import SURE, Population, from_scale
from ..model import pretty
from ..store import check_resume, csv_file, json_file, markdown, versions, write_atomic
from .importance_sampling import QuadraticLikelihood
from .patient_steps import Job, PatientFailure, PatientFit, Roles
from .two_stage import PopulationEstimate


@dataclass(frozen=True, eq=False)
class PopulationFit:
    """The result of fitting several patients and their population.

    Parameters
    ----------
    population : Population, estimated medians and spreads; the spread of a shared parameter is the
        standard error of its value
    assumed : Population, the prior, with the residual errors that are estimated as parameters
    roles : Roles
    found, two_stage : PopulationEstimate, over the parameters of ``assumed``, in their order: the
        last, and that of the two-stage method
    fits : tuple of PatientFit, the last of each patient
    failures : tuple of PatientFailure
    rounds : int, int, iterations of the two-stage method and of importance sampling
    draws : int, of importance sampling; 0 if there was none
    still : bool, whether the iterations converged
    """

    population: Population
    assumed: Population
    roles: Roles
    found: PopulationEstimate = field(repr=False)
    two_stage: PopulationEstimate = field(repr=False)
    fits: tuple[PatientFit, ...] = field(repr=False)
    failures: tuple[PatientFailure, ...] = ()
    rounds: tuple[int, int] = (1, 0)
    draws: int = 0
    still: bool = True

    @property
    def minus_2_ln_l(self) -> float:
        """-2 ln likelihood of all readings (density of their logarithms); nan if not integrated."""
        return math.fsum(fit.integrated for fit in self.fits)

    @property
    def minus_2_ln_l_error(self) -> float:
        """Its Monte-Carlo standard error."""
        return math.sqrt(math.fsum(fit.error**2 for fit in self.fits))

    @property
    def estimated(self) -> int:
        """Numbers estimated: medians, spreads and correlations."""
        own, shared = self.roles.own, self.roles.shared
        centres = [free for free in self.assumed.free if free.name not in own]
        spreads = [free for free in centres if free.name not in shared]
        return len(centres) + len(spreads) + len(self._pairs)

    @property
    def _pairs(self) -> list[tuple[str, str]]:
        return [pair for several in self.roles.correlated for pair in combinations(several, 2)]

    def role(self, name: str) -> str:
        """Of a parameter: shared, own or tied."""
        own = "own" if name in self.roles.own else "tied"
        return "shared" if name in self.roles.shared else own

    def table(self) -> pd.DataFrame:
        """One row per parameter: role, median, spread, standard errors, shrinkage.

        ``sd`` is on the parameter's ``scale``; ``median_error``, ``sd_error`` are standard errors
        of the median on that scale and of ln sd, empty if not estimated. ``two_stage_median`` and
        ``two_stage_sd`` are those of the two-stage method.
        """
        found, first = self.found, self.two_stage
        scales = [free.scale for free in self.assumed.free]
        medians, before = (from_scale(each.centre, scales) for each in (found, first))
        return pd.DataFrame([
            {
                "parameter": free.name,
                "role": (role := self.role(free.name)),
                "unit": pretty(self.assumed.model[free.name].unit),
                "scale": free.scale,
                "median": medians[k],
                "median_error": found.centre_error[k],
                "sd": found.spread[k],
                "sd_error": math.nan if found.alike[k] else found.spread_error[k],
                "shrinkage": found.shrinkage[k] if role != "shared" else np.nan,
                "assumed_median": free.median,
                "assumed_sd": free.sd,
                "two_stage_median": before[k],
                "two_stage_sd": first.spread[k],
            }
            for k, free in enumerate(self.assumed.free)
        ])  # fmt: skip

    def correlations(self) -> pd.DataFrame:
        """One row for each pair of parameters whose correlation is estimated; no error at 1."""
        names, found = [free.name for free in self.assumed.free], self.found
        places = [(names.index(one), names.index(other)) for one, other in self._pairs]
        return pd.DataFrame(
            [(names[i], names[j], found.correlation[i, j], found.correlation_error[i, j])
             for i, j in places],
            columns=["parameter", "with", "correlation", "error"],
        )  # fmt: skip

    def estimates(self) -> pd.DataFrame:
        """One row for each patient and parameter: estimate, and standard error on its scale."""
        rows = [
            {
                "patient": one.patient,
                "parameter": free.name,
                "estimate": float(from_scale(self.found.patients[i, k], free.scale)),
                "standard_error": self.found.errors[i, k],
            }
            for i, one in enumerate(self.fits)
            for k, free in enumerate(self.assumed.free)
            if self.role(free.name) != "shared"
        ]
        return pd.DataFrame(rows)


ITERATIONS = "rounds"
RESULT = "population.json"
SLOPES = ("score", "information")
FEW = 100
"""Effective draws below which an integral is called rough."""


@dataclass(frozen=True)
class IterationFiles:
    """A file per patient and iteration, under ``folder/rounds``; a `ResultStore`."""

    folder: Path

    def path(self, number: int, job: Job) -> Path:
        """The file of a patient's fit in an iteration."""
        id = job.problem.patient.id
        plain = re.sub(r"[^A-Za-z0-9.-]", "_", id)
        tail = "" if plain == id else f"_{hashlib.sha256(id.encode()).hexdigest()[:6]}"
        return self.folder / ITERATIONS / f"{number + 1:02d}" / f"{plain}{tail}.json"

    def load(self, number: int, job: Job) -> PatientFit | None:
        """Load a stored fit; None if there is none.

        Raises
        ------
        StorageError
            If it was computed with other data, model, prior, starts or seed.
        """
        path = self.path(number, job)
        if not path.is_file():
            return None
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            arrays = {name: np.array(value) for name, value in stored["evidence"].items()}
            slopes = {name: np.array(stored["fit"][name]) for name in SLOPES}
            evidence = QuadraticLikelihood(**arrays)
            kept = PatientFit(**{**stored["fit"], **slopes, "evidence": evidence})
            stored_hash = stored["question"]
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(
                f"{path}  is not a complete result ({type(error).__name__}: {error}); delete it"
            ) from None
        if stored_hash != question_of(job):
            raise StorageError(
                f"{path}  was computed with other inputs: the data, the model, the prior, the "
                "roles, draws, starts or seed have changed since; give a new folder with --out"
            )
        return kept

    def keep(self, number: int, job: Job, outcome: PatientFit) -> None:
        """Store a fit, atomically."""
        numbers = {name: getattr(outcome, name) for name in PatientFit.__dataclass_fields__}
        evidence = numbers.pop("evidence")
        numbers |= {name: numbers[name].tolist() for name in SLOPES}
        text = json.dumps({
            "question": question_of(job),
            "fit": numbers,
            "evidence": {name: np.asarray(v).tolist() for name, v in vars(evidence).items()},
        })  # fmt: skip
        write_atomic({self.path(number, job): text.encode()})


def question_of(job: Job) -> str:
    """A hash of everything the results depend on."""
    problem, patient = job.problem, job.problem.patient
    integral: tuple[Any, ...] = () if job.covariance is None else (
        job.centre.tolist(), job.covariance.tolist(), job.draws, job.shared)  # fmt: skip
    parts = (
        problem.model.hash,
        sorted(problem.model.values.items()),
        tuple(patient.scenario.doses),
        patient.scenario.changes,
        sorted(patient.scenario.values.items()),
        patient.observations,
        [(f.name, f.median, f.sd, f.lower, f.upper, *f.scale_told) for f in problem.free],
        problem.noise,
        problem.seed,
        problem.starts,
        *integral,
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


def save_population(
    result: PopulationFit, folder: Path, first: Sequence[str] = ()
) -> list[Path]:  # fmt: skip
    """Write the result: tables, a prior.toml for the next patient's fit, and a report.

    ``first`` are paragraphs that the report leads with.

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
        "draws": result.draws,
        "still": result.still,
        "minus_2_ln_l": result.minus_2_ln_l if result.draws else None,
        "minus_2_ln_l_error": result.minus_2_ln_l_error if result.draws else None,
        "estimated": result.estimated,
        "correlations": result.correlations().to_dict("records"),
        "patients": [
            {"patient": f.patient, "cost": f.cost, "deviance": f.deviance, "runs": f.runs,
             "failed_runs": f.failed, "starts_agreeing": f.agreeing,
             **({"minus_2_ln_l": f.integrated, "effective": f.effective} if result.draws else {})}
            for f in result.fits
        ],
        "failures": [asdict(failure) for failure in result.failures],
    }  # fmt: skip
    files = {
        "population.csv": csv_file(result.table()),
        "estimates.csv": csv_file(result.estimates()),
        "prior.toml": result.population.toml(note).encode(),
        "report.md": report_text(result, first).encode(),
        RESULT: json_file(stored),
    }
    write_atomic({folder / name: content for name, content in files.items()})
    return [folder / name for name in files]


def report_text(result: PopulationFit, first: Sequence[str] = ()) -> str:
    """The report in markdown: warnings first, then the population, then the patients."""
    lines = [
        f"# Fit of {len(result.fits)} patients",
        RESEARCH_ONLY,
        *first,
        *population_fit_warnings(result),
        "## The population",
        how_estimated(result),
        TABLE_NOTES,
        _table(result),
    ]
    together = result.correlations()
    if len(together):
        rows = [(r[1], r[2], _number(r[3]), _number(r[4])) for r in together.itertuples()]
        lines.append(markdown(("parameter", "with", "correlation", "error"), rows))
    lines += ["## The patients", "\n".join(_patient_line(fit) for fit in result.fits)]
    return "\n\n".join(lines) + "\n"


def how_estimated(result: PopulationFit) -> str:
    """The method in a sentence, and what it reached."""
    if not result.draws:
        return f"Two-stage method, {result.rounds[0]} iterations; no likelihood was integrated."
    with np.errstate(invalid="ignore", divide="ignore"):
        moved = (result.two_stage.centre - result.found.centre) / result.found.centre_error
    far = f"; the two-stage medians differ from these by up to {np.nanmax(np.abs(moved)):.2g} " \
          "standard errors" if np.isfinite(moved).any() else ""  # fmt: skip
    return (
        f"Maximum likelihood, integrated by importance sampling ({result.draws} draws a proposal, "
        f"{result.rounds[1]} iterations after {result.rounds[0]} of the two-stage method{far}). "
        f"-2 ln likelihood of the log readings {result.minus_2_ln_l:.2f}, Monte-Carlo error "
        f"{result.minus_2_ln_l_error:.2f}; {result.estimated} numbers estimated, so AIC "
        f"{result.minus_2_ln_l + 2 * result.estimated:.2f}."
    )


TABLE_NOTES = (
    "sd is the between-patient standard deviation of the logarithm, or of a share's logit; errors "
    "are standard errors of the median on that scale, and of ln sd. Shrinkage is 1 - "
    "sd(deviations)/sd: near 0 the patients' own data decide, near 1 each estimate is the median. "
    "A shared parameter has one value for all patients, an own one the assumed prior for each."
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
        lines.append(f"**Not converged after {sum(result.rounds)} iterations.**")
    few = [f"{fit.patient} ({fit.effective:.0f})" for fit in result.fits
           if fit.effective < FEW]  # fmt: skip
    if few:
        lines.append(f"**Few effective draws, so that the integral is rough: {', '.join(few)}; "
                     "draw more (--draws).**")  # fmt: skip
    modes = [fit.patient for fit in result.fits if fit.wide]
    if modes:
        lines.append(f"Less certain than the population itself, as with several modes: "
                     f"{', '.join(modes)}.")  # fmt: skip
    table = result.table()
    alike = table[(table["role"] == "tied") & result.found.alike]["parameter"]
    if len(alike):
        lines.append(f"By these data patients do not differ in {', '.join(alike)}: share them.")
    shrunk = table[(table["shrinkage"] > 0.7)]["parameter"]
    if len(shrunk):
        lines.append("Shrinkage above 70 %, so that individual estimates carry little information: "
                     f"{', '.join(shrunk)}.")  # fmt: skip
    single = [fit.patient for fit in result.fits if fit.agreeing < 2]
    if not set(table["role"]) - {"shared"}:
        return lines
    if len(single) == len(result.fits):
        lines.append("Of every patient one start alone reached the best cost; try more (--starts).")
    elif single:
        lines.append(f"Only one start reached the best cost: {', '.join(single)}.")
    return lines


def _failure(failure: PatientFailure) -> str:
    return f"{failure.patient} ({failure.reason})"


def _patient_line(fit: PatientFit) -> str:
    integrated = "" if math.isnan(fit.integrated) else (
        f"-2 ln integrated likelihood {fit.integrated:.4g} ({fit.effective:.0f} effective "
        "draws); ")  # fmt: skip
    return (f"- {fit.patient}: squared residuals {fit.deviance:.4g} of {fit.readings} readings, "
            f"cost {fit.cost:.4g}; {integrated}{fit.runs} runs, {fit.failed} failed")  # fmt: skip


def _table(result: PopulationFit) -> str:
    columns = ("parameter", "role", "median", "error", "sd", "error", "shrinkage",
               "assumed median", "assumed sd")  # fmt: skip
    rows = [
        (r.parameter, r.role, f"{r.median:.3g} {pretty(r.unit)}".removesuffix(" 1"),
         _number(r.median_error), _number(r.sd or math.nan), _number(r.sd_error),
         _number(r.shrinkage), f"{r.assumed_median:.3g}", f"{r.assumed_sd:.3g}")
        for r in result.table().itertuples()
    ]  # fmt: skip
    return markdown(columns, rows)


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.2f}"
