"""Diagnostics of a fit: reported beside fitted levels, and its verdict.

The acceptance range is set before the fit (``[accept]`` in problem.toml); by default it is the 95 %
error interval of the reading, or for a censored reading its limit.

The `verdict` comes first in every fit, report, prediction, comparison and search: what speaks
against the fit, then readings missed, chi-squared, and the course of the grade.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain

import numpy as np
import pandas as pd
from scipy.stats import binom, chi2

from ..errors import RESEARCH_ONLY, IntegrationError, command
from ..model import GRADE, Array
from ..patients import Observation
from ..simulation import Simulation, sample_days, vasopressor_days, worst_grade
from .fitting import Fit, asked_share, covariance_of
from .noise import BOUNDS, RATIOS, predicted
from .objective import Objective, curves, levels_within, point_of, residual
from .priors import PROBLEM
from .problem import FitProblem

EXACT_SHARE = 0.9
"""Smallest share of exact grades with which the grades pass together."""
GRADE_RULE = "all_grades"


@dataclass(frozen=True)
class Judged:
    """One row of observations.csv; the verdict is pass, miss, or near (a grade off by one)."""

    id: str
    observable: str
    kind: str
    when: str
    observed: float
    unit: str
    fitted: float
    residual: float
    accept_low: float
    accept_high: float
    verdict: str


def judge(result: Fit) -> tuple[Judged, ...]:
    """Judge every observation; grades also together, in a last row `all_grades`.

    The grades pass together if at least nine in ten are exact and none is off by more than one.
    """
    run = result.simulation()
    problem = replace(result.problem, noise=result.noise)
    rows = tuple(_judged(o, run, problem) for o in problem.patient.observations)
    if problem.noise.grade and problem.noise.grade.persistence:  # each given those before it
        found = [result.residuals[part] for part in residual_slices(result)]
        rows = tuple(replace(row, residual=signed_norm(own)) if row.kind == "grade" else row
                     for row, own in zip(rows, found, strict=True))  # fmt: skip
    grades = [row for row in rows if row.kind == "grade"]
    return (*rows, _together(grades)) if grades else rows


def judged_table(result: Fit) -> pd.DataFrame:
    """`judge` as a table, one row per observation."""
    return pd.DataFrame([vars(row) for row in judge(result)])


def _judged(observation: Observation, run: Simulation, problem: FitProblem) -> Judged:
    fitted = predicted(observation, run)
    low, high = accepted(observation, problem)
    verdict = "pass" if low <= fitted <= high else "miss"
    if verdict == "miss" and observation.kind == "grade" and abs(fitted - observation.value) <= 1:
        verdict = "near"
    off = residual(observation, run, problem.noise)
    return Judged(observation.id, observation.observable, observation.kind, when(observation),
                  observation.value, observation.value_unit, fitted, off, low, high,
                  verdict)  # fmt: skip


def accepted(observation: Observation, problem: FitProblem) -> tuple[float, float]:
    """Lowest and highest fitted value that pass, in the observable's unit."""
    value = observation.value
    if observation.id in problem.accept:
        return problem.accept[observation.id]
    if observation.kind == "grade":
        return value, value
    if observation.kind in BOUNDS:
        return (-math.inf, value) if observation.kind.endswith("below") else (value, math.inf)
    return levels_within(problem.noise.spread(observation), value)


def when(observation: Observation) -> str:
    """The day or days of an observation in words.

    >>> nan = math.nan
    >>> when(Observation("a", "psa", "sometime", 20.0, 21.0, nan, 0.29, "ng/mL"))
    'once in days 20 to 21'
    """
    first, last = f"{round(observation.day, 6):g}", f"{round(observation.until, 6):g}"
    if observation.kind in RATIOS:
        return f"day {first} over day {observation.reference:g}"
    if observation.kind == "peak":
        return f"peak of days {first} to {last}"
    if observation.kind == "sometime":
        return f"once in days {first} to {last}"
    return f"day {first}"


def _together(grades: list[Judged]) -> Judged:
    share = sum(row.fitted == row.observed for row in grades) / len(grades)
    good = share >= EXACT_SHARE and max(abs(row.fitted - row.observed) for row in grades) <= 1
    return Judged(GRADE_RULE, grades[0].observable, "share exact", f"{len(grades)} days", 1.0, "1",
                  share, math.nan, EXACT_SHARE, 1.0, "pass" if good else "miss")  # fmt: skip


SAME_OPTIMUM, NEAR = 0.1, 1.0
"""Cost above the best within which a start has reached the optimum, and is near it."""
ILL_CONDITIONED = 1000.0
"""Condition number of the correlations regarded as severe in pharmacometrics."""


def agreeing(result: Fit, within: float = NEAR) -> int:
    """Number of starts that ended at most ``within`` above the best cost."""
    return sum(start.cost - result.cost <= within for start in result.starts)


@dataclass(frozen=True)
class Verdict:
    """What a fit says of itself: warnings, the most serious first, and plain statements."""

    warnings: tuple[str, ...]
    statements: tuple[str, ...]

    @property
    def text(self) -> str:
        """All lines, as written beside what is made with the fit."""
        return "\n".join([*(f"Warning: {text}." for text in self.warnings), *self.statements,
                          RESEARCH_ONLY, ""])  # fmt: skip


@lru_cache(maxsize=4)  # each needs several runs, and the report, the tables and the screen one
def verdict(result: Fit) -> Verdict:
    """The verdict on a fit: on its data, the noise, the course, and the optimisation.

    Examples
    --------
    ``verdict(best).warnings`` is ``()``, or for instance ``("at a bound: d_psa (upper); ...",)``
    """
    warnings: list[str] = []
    statements: list[str] = []
    course = judge_course(result.problem, result.values)
    for text, serious in chain(_few(result), _misses(result), _scatter(result), course):
        (warnings if serious else statements).append(text)
    checks = (_few_agreeing_starts, _not_converged, _not_identified, _at_bounds)
    warnings += [text for check in checks if (text := check(result))]
    statements.append(f"{agreement_text(result)}; {condition_text(result)}")
    return Verdict(tuple(warnings), tuple(statements))


def fit_warnings(result: Fit) -> tuple[str, ...]:
    """The warnings of the `verdict`; may be empty."""
    return verdict(result).warnings


BY_CHANCE, RARE = 0.05, 0.01
"""Share of readings outside their 95 % interval by chance; chance below which it is not chance."""
SURE = 0.999
"""Quantile of chi-squared that the noise allows."""
NORMAL = ("value", "peak", "ratio")
"""Kinds whose residual is standard normal if the noise is as stated; others have limits."""
MOST_NAMED = 5
ANY_COURSE = 1.0
"""An estimated sd, of the logarithm or as a share, above which it hides what the model misses."""


def _few(result: Fit) -> Iterator[tuple[str, bool]]:
    """A warning if there are fewer observations than free parameters: the prior decides then."""
    free, observed = len(result.estimates), len(result.problem.patient.observations)
    if observed >= free:
        return
    names = [e.parameter for e in result.estimates if e.carried_by_prior]
    some, they = ("s", "they determine") if observed > 1 else ("", "it determines")
    text = f"{observed} observation{some} for {free} free parameters, of which {they} "
    text += f"{result.effective_parameters:.1f}: the rest is the prior"
    yield f"{text} (above all {_some(names)})" if names else text, True


def _some(names: list[str]) -> str:
    """The first names, and whether there are more."""
    return ", ".join(names[:MOST_NAMED] + ["..."] * (len(names) > MOST_NAMED))


def _misses(result: Fit) -> Iterator[tuple[str, bool]]:
    """How many readings and grades are missed; a warning if they are more than by chance."""
    rows = [row for row in judge(result) if row.id != GRADE_RULE]
    several = {"readings": [row for row in rows if row.kind != "grade"],
               "grades": [row for row in rows if row.kind == "grade"]}  # fmt: skip
    counts, serious = [], False
    for kind, some in several.items():
        missed = [row for row in some if row.verdict != "pass"]
        if some:
            named = f" ({_some([row.id for row in missed])})" if missed else ""
            counts.append(f"{len(missed)} of {len(some)} {kind}{named}")
        if kind == "grades":
            serious |= bool(some) and _together(some).verdict == "miss"
        else:
            serious |= bool(binom.sf(len(missed) - 1, len(some), BY_CHANCE) < RARE)
    text = f"the fit misses {' and '.join(counts)}"
    yield (f"{text}, more than by chance" if serious else text), serious


def _scatter(result: Fit) -> Iterator[tuple[str, bool]]:
    """Chi-squared of the readings with a normal error against what the noise allows.

    The degrees of freedom are the readings less their leverages, which is the mean of chi-squared
    where the priors hold; with flat priors, the readings less the parameters they determine.
    """
    problem, leverage = result.problem, _leverages(result)
    starts = [part.start for part in residual_slices(result)]
    normal = [(o, row) for o, row in zip(problem.patient.observations, starts, strict=True)
              if o.kind in NORMAL]  # fmt: skip
    yield from _estimated_noise(result, normal, leverage)
    stated = [(o.id, row) for o, row in normal if not problem.noise.spread(o).estimate]
    if not stated:
        return
    rows = [row for _, row in stated]
    free = max(1.0, len(rows) - float(np.sum(leverage[rows])))
    squares = {id: float(result.residuals[row] ** 2) for id, row in stated}
    total, most = sum(squares.values()), float(chi2.ppf(SURE, free))
    text = f"chi-squared {total:.4g} over {len(rows)} readings with {free:.3g} degrees of freedom"
    worst = max(squares, key=squares.__getitem__)
    if total > most and squares[worst] > total / 2:
        text += f", of which {worst} alone {squares[worst]:.3g}"
    text += f"; the noise as stated allows {most:.3g}"
    yield f"{text}: {_too_wide(math.sqrt(total / free))}" if total > most else text, total > most


def _too_wide(factor: float) -> str:
    return (
        f"the scatter is {factor:.2g} times the stated noise, so the intervals are too narrow by "
        "as much; correct the noise, have it estimated (estimate = true in [noise]), or look for "
        "what the model does not describe"
    )


def _leverages(result: Fit) -> Array:
    """The share of each residual that the parameters of the model, not of the noise, take up."""
    problem = result.problem
    slopes = Objective(problem).jacobian(point_of(problem, result.values))
    slopes = slopes[:, [name in problem.of_model for name in problem.names]]
    return np.asarray(np.sum((slopes @ covariance_of(slopes)[0]) * slopes, axis=1))


def _estimated_noise(
    result: Fit, normal: list[tuple[Observation, int]], leverage: Array
) -> Iterator[tuple[str, bool]]:
    """Each estimated sd, also corrected for the parameters fitted; a warning above `ANY_COURSE`."""
    for name, spread in result.noise.spreads.items():
        rows = [row for o, row in normal if o.noise_entry == name and math.isnan(o.sd)]
        if f"sd_{name}" not in result.values or not rows:
            continue
        factor = math.sqrt(len(rows) / max(1.0, len(rows) - float(np.sum(leverage[rows]))))
        text = f"residual error of {name}, estimated by maximum likelihood: sd {spread.sd:.3g}, "
        text += f"or {spread.sd * factor:.3g} and intervals {factor:.3g} times as wide when "
        text += "corrected for the parameters fitted"
        serious = spread.sd > ANY_COURSE and spread.error != "additive"
        yield f"{text}: almost any course passes" if serious else text, serious


UNTIL = 40.0
"""The course is judged to this day, the default of all commands, or to the last observation."""
SEVERE, NEAR_DAYS = 3, 3.0
"""A grade from `SEVERE` on is extreme; it is observed if an observation is within `NEAR_DAYS`."""


def judge_course(
    problem: FitProblem, values: Mapping[str, float]
) -> Iterator[tuple[str, bool]]:  # fmt: skip
    """The course of the grade, whether it resolves, and where it is severe but not observed.

    Texts, each with whether it is a reason to warn; none if the model has no grade.
    """
    if GRADE not in problem.model.course_ids:
        return
    windows = [(o.day - NEAR_DAYS, o.until + NEAR_DAYS) for o in problem.patient.observations]
    until = max([UNTIL, *(last for _, last in windows)])
    try:
        run = curves(problem, values, sample_days(until, 1.0))
    except IntegrationError as error:
        yield f"the fitted course cannot be simulated to day {until:g}: {error}", True
        return
    grade = run[GRADE]
    severe = float(vasopressor_days(run))
    course = (
        f"fitted course to day {until:g}: worst grade {worst_grade(run)}, {severe:.1f} days at "
        f"grade {SEVERE} or more, "
    )
    if grade[-1] >= 1:
        since = run.days[np.flatnonzero(grade != grade[-1])[-1:]]
        from_day = f"from day {since[0]:.0f} on" if len(since) else "throughout"
        yield f"{course}not resolved: grade {grade[-1]:.0f} {from_day}, to the end", True
    else:
        yield f"{course}resolved", False
    near = np.any([(low <= run.days) & (run.days <= high) for low, high in windows], axis=0)
    alone = run.days[(grade >= SEVERE) & ~near]
    if alone.size:
        parts = np.split(alone, np.flatnonzero(np.diff(alone) > 0.5) + 1)
        days = ", ".join(f"{part[0]:.0f} to {part[-1]:.0f}" for part in parts)
        text = (
            f"the fitted course is grade {SEVERE} or more on days {days}, where no observation "
            f"is within {NEAR_DAYS:g} days: nothing speaks for it but the model"
        )
        yield text, True


def agreement_text(result: Fit) -> str:
    """A sentence on how many starts reached the best cost."""
    return (
        f"{agreeing(result, SAME_OPTIMUM)} of {len(result.starts)} starts end within "
        f"{SAME_OPTIMUM:g} of the best cost, {agreeing(result)} within {NEAR:g}"
    )


def condition_text(result: Fit) -> str:
    """A sentence on the condition number of the correlations."""
    if result.singular:
        return "the covariance is singular"
    text = f"condition number of the correlations {result.condition:.3g}"
    if result.condition > ILL_CONDITIONED:
        text += f" (above {ILL_CONDITIONED:g}: some parameters can hardly be distinguished)"
    return text


def _few_agreeing_starts(result: Fit) -> str:
    if len(result.starts) == 1:
        return (
            "only one start was made, so this may be a local optimum; fit again with more "
            "(--starts 8)"
        )
    count = agreeing(result)
    if count >= 2:
        return ""
    reached = "none" if count == 0 else "only one"
    return (
        f"{reached} of the {len(result.starts)} starts came within {NEAR:g} of the best cost, so "
        f"there may be a better optimum; fit again with more (--starts {4 * len(result.starts)})"
    )


def _not_converged(result: Fit) -> str:
    if result.polish.converged:
        return ""
    return f"the final optimisation stopped before it had converged: {result.polish.status}"


def _not_identified(result: Fit) -> str:
    if not result.singular:
        return ""
    loose = [e.parameter for e in result.estimates if e.carried_by_prior]
    names = f" ({', '.join(loose)})" if loose else ""
    return (
        "the covariance is singular: neither observations nor priors identify some parameters"
        f"{names}; give them a narrower prior, or fix them"
    )


def _at_bounds(result: Fit) -> str:
    at, most = [], result.problem.model.bounds
    for e, f in zip(result.estimates, result.problem.free, strict=True):
        x, bottom, top = map(f.to_scale, (e.estimate, f.lower, f.upper))
        asks, end = asked_share(f, e.estimate, e.standard_error), most[f.name][1]
        own = f": {end:g} is the most it can be" if max(f.upper, asks) >= end else ""
        own += f", the readings alone ask for {asks:.3g}" if asks > end else ""
        at += [f"{f.name} ({f'upper{own}' if 2 * x > bottom + top else 'lower'})"] * e.at_bound
    home = result.problem.path
    file = home if home.endswith(PROBLEM) else f"{PROBLEM} ({command('new', home, '--problem')})"
    return "" if not at else (
        f"at a bound: {', '.join(at)}; standard errors are valid only away from bounds: widen "
        f"lower or upper of [free.NAME] in {file}, or state why it is right")  # fmt: skip


def residual_slices(result: Fit) -> list[slice]:
    """Slices of the residual vector, one per observation."""
    sizes = [1 + (o.kind == "sometime") for o in result.problem.patient.observations]
    ends = np.cumsum(sizes).tolist()
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def signed_norm(residuals: Array) -> float:
    """The norm of an observation's residuals with the sign of the first."""
    return float(np.copysign(np.linalg.norm(residuals), residuals[0]))
