"""Peaks of IFN-g and IL-6 foreseen from what is known soon after the onset of CRS.

Known are the readings up to onset and `AFTER_ONSET` days; foreseen is the highest reading of those
to come, on the days on which the patient was read. Given the parameters, the readings are
independent around the course, so the chance that the highest is below y is the product of the
chances of all: the density and the interval of ln peak are those of this mixture over draws of the
patient's posterior, residual error included. At the assay's ceiling the peak is censored: it is
then scored by the probability of more, and covered if the interval reaches the ceiling. Where the
patient's highest reading is among those known, it is still the highest to come that is foreseen
("already past" counts them).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_ndtr, logsumexp
from scipy.stats import binom

from crs_sim import CrsSimError, FitProblem, Sampling
from crs_sim.simulation import parallel_map, simulate_many

from .cohort import Cohort, observed
from .design import MAIN, Product, population
from .draws import posterior, searched
from .refit import problem_of
from .regression import FEWEST, leave_one_out

Array = NDArray[np.float64]
LEVEL = 0.9
ANALYTES = ("ifng", "il6")
MEASURED = ("so_far", "peak")
"""Columns that are readings of a patient, which are not written."""
TINY = 1e-9
"""pg/mL added to levels, so that their logarithm exists."""


@dataclass(frozen=True)
class Job:
    """A patient to foresee: the problem of the early readings, and what came of each analyte."""

    problem: FitProblem
    untreated: bool
    coming: dict[str, tuple[tuple[float, ...], float, bool]]
    """Analyte to (days to come, highest reading, whether it is censored)."""
    so_far: dict[str, float]


@dataclass(frozen=True, eq=False)
class Foreseen:
    """The highest of some readings, as a mixture: ln levels and sds (n_draws, n_days), weights."""

    levels: Array
    weights: Array
    sd: Array

    def log_below(self, y: float) -> float:
        """Log of the chance that all are below exp(y)."""
        each = log_ndtr((y - self.levels) / self.sd).sum(axis=1)
        return float(logsumexp(each, b=self.weights))

    def log_density(self, y: float) -> float:
        """Log density of ln of the highest."""
        z = (y - self.levels) / self.sd
        logs = log_ndtr(z)
        pdf = -0.5 * z**2 - 0.5 * math.log(2.0 * math.pi) - np.log(self.sd)
        each = logs.sum(axis=1)[:, None] - logs + pdf
        return float(logsumexp(each, b=np.broadcast_to(self.weights[:, None], each.shape)))

    def log_score(self, outcome: float, censored: bool) -> float:
        """Log density; if censored, the log of the chance of more."""
        if censored:
            return float(np.log(max(-math.expm1(self.log_below(outcome)), 1e-300)))
        return self.log_density(outcome)

    def interval(self, level: float) -> tuple[float, float]:
        """The central interval of ln peak."""
        low = float((self.levels - 9.0 * self.sd).min())
        high = float((self.levels + 9.0 * self.sd).max())
        chances = (0.5 - 0.5 * level, 0.5 + 0.5 * level)
        ends = [brentq(lambda y, p=p: math.exp(self.log_below(y)) - p, low, high) for p in chances]
        return float(ends[0]), float(ends[1])


def jobs(cohort: Cohort, product: Product) -> list[Job]:
    """The patients with CRS who have readings before and after `Cohort.early_day`."""
    people, found = population(product), []
    for id in (str(i) for i in cohort.patients.index):
        day = cohort.early_day(id)
        seen = observed(cohort, id, MAIN, people.model, day)
        coming = {name: part for name in ANALYTES if (part := _coming(cohort, id, name, day))}
        if len(seen) and coming:
            problem = problem_of(cohort, id, product, seen)
            so_far = {name: float(early["value"].max()) for name in coming
                      if len(early := _early(cohort, id, name, day))}  # fmt: skip
            untreated = bool(cohort.patients.loc[id, "untreated"])
            found.append(Job(problem, untreated, coming, so_far))
    return found


def _early(cohort: Cohort, id: str, name: str, day: float) -> pd.DataFrame:
    readings = cohort.of(id, name)
    return readings[readings["day"] <= day]


def _coming(
    cohort: Cohort, id: str, name: str, day: float
) -> tuple[tuple[float, ...], float, bool] | None:
    readings = cohort.of(id, name)
    later = readings[readings["day"] > day]
    if later.empty:
        return None
    top = later.loc[later["value"].idxmax()]
    censored = bool((later[later["value"] == top["value"]]["kind"] == "above").any())
    return tuple(later["day"].astype(float).unique()), float(top["value"]), censored


def foresee(job: Job) -> list[dict[str, Any]]:
    """Rows of a patient, one for each analyte; the model's part only."""
    rows, name = [], job.problem.name
    try:
        best = searched(job.problem)
        drawn = posterior(best, seed=sum(name.encode()))
        kept = drawn.weights > 1e-4 / len(drawn.weights)
        values, weights = drawn.values[kept], drawn.weights[kept]
        days = sorted({d for later, _, _ in job.coming.values() for d in later})
        run = simulate_many(
            job.problem.model, job.problem.patient.scenario, values, workers=1,
            sampling=Sampling(days=[0.0, *days], outputs=list(job.coming)),
        )  # fmt: skip
        place = {member: k for k, member in enumerate(values.index)}
        weights = weights[[place[m] for m in run.members]]
        for analyte, (later, _, _) in job.coming.items():
            levels = run.course(analyte)[:, np.isin(run.days, later)] + TINY
            sd = _log_sd(job.problem, analyte, values.loc[list(run.members)], levels)
            seen = Foreseen(np.log(levels), weights / weights.sum(), sd)
            rows.append(_row(job, analyte) | _judged(seen, job, analyte)
                        | {"effective_draws": drawn.effective, "failed": ""})  # fmt: skip
    except CrsSimError as error:
        rows = [_row(job, analyte) | {"failed": str(error)} for analyte in job.coming]
    return rows


def _log_sd(problem: FitProblem, name: str, values: pd.DataFrame, levels: Array) -> Array:
    """The sd of ln of a reading at each level, (n_draws, n_days), also if it is estimated."""
    drawn = {column: values[column].to_numpy() for column in values}
    spread = problem.noise.spreads[name].at(name, drawn)
    scale = np.asarray(spread.scale(levels, 0.0))
    return np.asarray(np.broadcast_to(
        scale if spread.error == "log-normal" else scale / levels, levels.shape
    ))  # fmt: skip


def _row(job: Job, analyte: str) -> dict[str, Any]:
    _, highest, censored = job.coming[analyte]
    return {"id": job.problem.name, "analyte": analyte, "untreated": job.untreated,
            "so_far": job.so_far.get(analyte, math.nan), "peak": highest,
            "past": job.so_far.get(analyte, 0.0) > highest, "censored": censored}  # fmt: skip


def _judged(seen: Any, job: Job, analyte: str) -> dict[str, Any]:
    """Interval, coverage and score of a prediction (`Foreseen` or `Normal`)."""
    _, highest, censored = job.coming[analyte]
    return judged(seen, math.log(highest), censored)


def judged(seen: Any, outcome: float, censored: bool) -> dict[str, Any]:
    """Interval in pg/mL, whether it covers the outcome, and the log score."""
    low, high = seen.interval(LEVEL)
    covered = high >= outcome and (censored or low <= outcome)
    return {"low": math.exp(low), "high": math.exp(high), "covered": bool(covered),
            "log_score": seen.log_score(outcome, censored)}  # fmt: skip


def forecasts(cohort: Cohort, product: Product, workers: int | None) -> pd.DataFrame:
    """A row per patient and analyte: the model's forecast, and the regression's beside it.

    The regression of an untreated patient is through the other untreated ones; that of a treated
    patient through all others.
    """
    rows = [row for rows in parallel_map(foresee, jobs(cohort, product), workers=workers)
            for row in rows]  # fmt: skip
    return with_regression(pd.DataFrame(rows))


def with_regression(found: pd.DataFrame) -> pd.DataFrame:
    """The forecasts with those of the regression, in columns that begin with ``line_``."""
    whole = found.copy()
    for only in (False, True):  # the untreated last, so that theirs are by the untreated alone
        for _, part in found.groupby("analyte"):
            some = part[(part["so_far"] > 0) & (part["untreated"] | (not only))]
            if len(some) <= FEWEST:
                continue
            x, y = np.log(some["so_far"].to_numpy()), np.log(some["peak"].to_numpy())
            censored = some["censored"].to_numpy(dtype=bool)
            for place, seen, outcome, cut in zip(some.index, leave_one_out(x, y, censored), y,
                                                 censored, strict=True):  # fmt: skip
                for name, value in judged(seen, float(outcome), bool(cut)).items():
                    whole.loc[place, f"line_{name}"] = value
    return whole


def summary(found: pd.DataFrame) -> list[dict[str, Any]]:
    """Coverage and mean log scores of the untreated, and of all, by analyte."""
    rows = []
    for who in ("untreated", "all with CRS"):
        for analyte in ANALYTES:
            part = found[found["analyte"] == analyte]
            part = part[part["untreated"]] if who == "untreated" else part
            scored = part.dropna(subset=_there(part, ["log_score", "line_log_score"]))
            if len(scored) and "log_score" in scored and "line_log_score" in scored:
                rows.append(_summed(who, analyte, scored, len(part)))
    return rows


def _there(part: pd.DataFrame, names: Sequence[str]) -> list[str]:
    return [name for name in names if name in part]


def _summed(who: str, analyte: str, part: pd.DataFrame, asked: int) -> dict[str, Any]:
    gain = (part["log_score"] - part["line_log_score"]).astype(float)
    error = float(gain.std(ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else math.nan
    held, (few, many) = int(part["covered"].sum()), binom.interval(0.95, len(part), LEVEL)
    return {
        "patients": who, "analyte": analyte, "n": len(part), "without forecast": asked - len(part),
        "censored": int(part["censored"].sum()),
        "already past": int(part["past"].sum()),
        "covered": 100.0 * float(part["covered"].astype(float).mean()),
        "line covered": 100.0 * float(part["line_covered"].astype(float).mean()),
        "log score": float(part["log_score"].mean()),
        "line log score": float(part["line_log_score"].mean()),
        "gain": float(gain.mean()), "gain error": error,
        "median effective draws": float(part["effective_draws"].median()),
        "coverage passes": "yes" if few <= held <= many else "no",
        "beats the line": "yes" if float(gain.mean()) > 0.0 else "no",
    }  # fmt: skip
