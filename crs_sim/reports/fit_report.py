"""The report of a fit: Markdown text and figures.

`write_report` writes it to a run folder, beside the tables of `crs_sim.fitting.storage`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from ..errors import RESEARCH_ONLY
from ..figures import (
    FAR,
    figure_files,
    format_number,
    plot_case,
    plot_estimates,
    plot_profiles,
    plot_residuals,
    plot_starts,
)
from ..fitting import (
    GRADE_RULE,
    Dropped,
    Estimate,
    Fit,
    FitProblem,
    Judged,
    estimates_table,
    judge,
    judge_course,
    judged_table,
    verdict,
)
from ..model import pretty
from ..simulation import sample_days
from ..store import csv_file, level_text, markdown, write_atomic
from ..uncertainty import VERDICT_EXPLANATION, Interval, Profile, profiles_table

FIGURES = ("case", "estimates", "starts", "residuals")
PROFILES, TABLE = "profiles.md", "profiles.csv"
DAYS_AFTER = 4.0
"""Days shown after the last dose or observation."""
NO_REASON = "no reason is given; state one as `why` under [free.{}] in problem.toml."
AIC_NOTE = (
    "The AIC column is the change of AIC when the parameter is fixed at its prior median and the "
    "others are refitted: above 0, the parameter improves the fit."
)
OBSERVED = {"below": "< {}", "above": "> {}", "ratio_below": "≤ × {}", "ratio_above": "≥ × {}",
            "ratio": "× {}"}  # fmt: skip


def write_report(
    result: Fit, folder: Path, dropped: Sequence[Dropped] = (), *, profiled: bool = False
) -> None:
    """Write report.md and its figures (PNG and SVG) to a folder.

    Parameters
    ----------
    result : Fit
    folder : Path, of the run
    dropped : result of `drop_one`, if it was run
    profiled : bool, whether profiles follow, so that the report links to them
    """
    for name, figure in figures(result).items():
        for path, content in figure_files(figure, folder / name).items():
            path.write_bytes(content)
    text = report_text(result, dropped, profiled=profiled)
    (folder / "report.md").write_text(text, encoding="utf-8", newline="\n")


def figures(result: Fit) -> dict[str, Figure]:
    """The figures of a fit by name; see `FIGURES`."""
    patient, noise, last = result.problem.patient, result.noise, last_day(result)
    run = result.simulation(sample_days(last, 1.0))
    title = f"{result.problem.name}: fitted model and observations"
    return {
        "case": plot_case(patient, run, noise=noise, until=last, title=title),
        "estimates": plot_estimates(estimates_table(result)),
        "starts": plot_starts(result.starts_table()),
        "residuals": plot_residuals(judged_table(result)),
    }


def last_day(result: Fit) -> float:
    """The last day shown: `DAYS_AFTER` the last dose or observation, rounded up."""
    patient = result.problem.patient
    days = [dose.day for dose in patient.scenario.doses] + [o.until for o in patient.observations]
    return math.ceil(max(days, default=0.0)) + DAYS_AFTER


# --- text -----------------------------------------------------------------------------------------


def acceptance_criteria(rows: Iterable[Judged]) -> tuple[Judged, ...]:
    """The acceptance criteria: every observation except single grades, which count together."""
    return tuple(row for row in rows if row.kind != "grade")


def summary(rows: Iterable[Judged]) -> str:
    """How many acceptance criteria are met, and the names of those that are not."""
    criteria = acceptance_criteria(rows)
    missed = [row.id for row in criteria if row.verdict == "miss"]
    text = f"{len(criteria) - len(missed)} of {len(criteria)} acceptance criteria met"
    return f"{text}; missed: {', '.join(missed)}" if missed else text


def observed_words(row: Judged) -> str:
    """Format the reported value: ``< 4.2 pg/mL``, ``× 0.5``."""
    if row.id == GRADE_RULE:
        return f"≥ {100 * row.accept_low:.0f} % exact, none off by > 1"
    unit = pretty(row.unit)
    text = OBSERVED.get(row.kind, "{}").format(format_number(row.observed))
    return text if unit == "1" else f"{text} {unit}"


def fitted_words(row: Judged) -> str:
    """Format the fitted value."""
    if row.id == GRADE_RULE:
        return f"{100 * row.fitted:.0f} % exact"
    return level_text(row.fitted, 4)


def when_words(when: str) -> str:
    """The day or days of an observation, to a quarter of an hour: ``day 1.4`` for day 1.395833.

    >>> when_words("peak of days 1.395833 to 20")
    'peak of days 1.4 to 20'
    """
    return re.sub(r"\d+\.\d{3,}", lambda day: f"{float(day[0]):.2f}".rstrip("0").rstrip("."), when)


def grades_by_day(rows: Iterable[Judged]) -> tuple[tuple[str, int, int], ...]:
    """(day, observed, fitted) for each grade, by day."""
    grades = [row for row in rows if row.kind == "grade"]
    days = (when_words(row.when).removeprefix("day ") for row in grades)
    return tuple((d, int(r.observed), int(r.fitted)) for d, r in zip(days, grades, strict=True))


def notes(estimate: Estimate) -> str:
    """Warnings on an estimate: dominated by its prior, far from its prior, at a bound."""
    flags = {
        "dominated by its prior": estimate.carried_by_prior,
        f"more than {FAR:g} prior sd away": abs(estimate.shift) > FAR,
        "at a bound": estimate.at_bound,
    }
    return ", ".join(text for text, applies in flags.items() if applies)


def estimate_words(e: Estimate) -> tuple[str, ...]:
    """An estimate as cells: name, value with unit, 95 % interval, prior median, shift, warnings."""
    unit = pretty(e.unit)
    value = f"{e.estimate:.3g}" if unit == "1" else f"{e.estimate:.3g} {unit}"
    interval = f"{e.low:.3g} to {e.high:.3g}"
    return e.parameter, value, interval, f"{e.prior_median:.3g}", f"{e.shift:+.2f}", notes(e)


def report_text(result: Fit, dropped: Sequence[Dropped] = (), *, profiled: bool = False) -> str:
    """The report in Markdown."""
    profiles = f"Profile likelihood of each parameter: [{PROFILES}]({PROFILES})."
    rows = judge(result)
    parts = [
        f"# Fit of {result.problem.name}",
        _verdict(result),
        f"{RESEARCH_ONLY}",
        _made_with(result),
        f"![The case]({FIGURES[0]}.png)",
        "## Reported and fitted",
        f"{summary(rows)}.",
        _levels(rows),
        "## CRS grade by day",
        _grades(rows),
        "## Estimates",
        "Intervals are 95 % intervals; shifts are in standard deviations of the prior, on the log "
        f"scale{_logit(result)}." + (f" {AIC_NOTE}" if dropped else ""),
        _estimates(result, {d.parameter: d.delta_aic for d in dropped}),
        profiles if profiled else "",
        "## Limitations of these estimates",
        *_caveats(result, dropped),
        *(f"![{name}]({name}.png)" for name in FIGURES[1:]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _logit(result: Fit) -> str:
    """Which estimates are on the logit scale, in words."""
    shares = [free.name for free in result.problem.free if free.scale == "logit"]
    return f", and of {', '.join(shares)} on the logit scale" if shares else ""


def _made_with(result: Fit) -> str:
    model, problem = result.problem.model, result.problem
    return "\n".join([
        f"- model {model.name}, equations {model.hash}; patient {problem.patient.id}",
        f"- {len(problem.free)} free parameters, of which the observations determine "
        f"{result.effective_parameters:.1f}; {len(problem.patient.observations)} observations",
        f"- cost (-2 ln posterior) {result.cost:.4g} = observations {result.deviance:.4g} + "
        f"priors {result.prior_penalty:.4g}; AIC {result.aic:.4g}",
        f"- seed {result.seed}; {sum(abs(e.shift) > FAR for e in result.estimates)} estimates lie "
        f"more than {FAR:g} prior sd from their prior",
    ])  # fmt: skip


def _verdict(result: Fit) -> str:
    said = verdict(result)
    warnings = [f"- **Warning: {text}.**" for text in said.warnings]
    return "\n".join([*warnings, *(f"- {text}" for text in said.statements)])


def _levels(rows: Iterable[Judged]) -> str:
    table = [(r.id, when_words(r.when), observed_words(r), fitted_words(r), _accepted(r), r.verdict)
             for r in acceptance_criteria(rows)]  # fmt: skip
    return markdown(("observation", "when", "reported", "fitted", "accepted", "verdict"), table)


def _accepted(row: Judged) -> str:
    low, high = (format_number(float(f"{x:.4g}")) for x in (row.accept_low, row.accept_high))
    if math.isinf(row.accept_low):
        return f"up to {high}"
    return f"from {low}" if math.isinf(row.accept_high) else f"{low} to {high}"


def _grades(rows: Iterable[Judged]) -> str:
    grades = grades_by_day(rows)
    if not grades:
        return "No day has a grade."
    days, observed, fitted = zip(*grades, strict=True)
    lines = [("observed", *map(str, observed)), ("fitted", *map(str, fitted))]
    return markdown(("day", *days), lines)


def _estimates(result: Fit, changes: Mapping[str, float]) -> str:
    def change(name: str) -> tuple[str, ...]:
        return (f"{changes[name]:+.1f}" if name in changes else "",) if changes else ()

    table = [(*estimate_words(e), *change(e.parameter), e.label) for e in result.estimates]
    columns = ("parameter", "estimate", "interval", "prior median", "shift", "note",
               *(("AIC without it",) if changes else ()), "meaning")  # fmt: skip
    return markdown(columns, table)


def _caveats(result: Fit, dropped: Sequence[Dropped]) -> list[str]:
    """Paragraphs on dominant priors, bounds, superfluous parameters, large shifts, failures."""
    estimates = result.estimates
    carried = [e.parameter for e in estimates if e.carried_by_prior]
    bounds = [e.parameter for e in estimates if e.at_bound]
    superfluous = [d.parameter for d in dropped if d.delta_aic < 0]
    text = [f"Dominated by their prior: {_listed(carried)}.", f"At a bound: {_listed(bounds)}."]
    if dropped:
        text.append(f"Free, although AIC is lower with them fixed: {_listed(superfluous)}.")
    return [*text, *_far(result), _failures(result, dropped)]


def _far(result: Fit) -> list[str]:
    reasons = {free.name: str(getattr(free, "why", "")) for free in result.problem.free}
    far = [e for e in result.estimates if abs(e.shift) > FAR]
    if not far:
        return [f"No estimate is more than {FAR:g} prior standard deviations from its prior."]
    return [
        f"{e.parameter} is {e.shift:+.1f} prior standard deviations from its prior: "
        f"{reasons[e.parameter] or NO_REASON.format(e.parameter)}"
        for e in far
    ]


def _failures(result: Fit, dropped: Sequence[Dropped]) -> str:
    first = next((s.first_failure for s in (*result.starts, result.polish) if s.first_failure), "")
    text = f"{result.failed_runs} of {result.runs} runs of the fit failed"
    if dropped:
        text += f", and {sum(d.failed for d in dropped)} in the fits without one parameter"
    return f"{text}. The first: {first}" if first else f"{text}."


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def course_warnings(
    problems: Sequence[FitProblem], values: Mapping[str, Mapping[str, float]]
) -> list[str]:
    """What the courses of patients fitted together ask to be warned of; one paragraph, or none.

    Parameters
    ----------
    problems : of all patients
    values : by patient, the values of parameters; those the problem does not have are left out
    """
    lines = []
    for problem in (each for each in problems if each.patient.id in values):
        own = problem.model.values.keys() & values[problem.patient.id].keys()
        found = judge_course(problem, {name: values[problem.patient.id][name] for name in own})
        serious = [text for text, to_warn in found if to_warn]
        if serious:
            lines.append(f"- {problem.patient.id}: {'; '.join(serious)}")
    if not lines:
        return []
    count = f"{len(lines)} of {len(values)} patients"
    head = f"**The fitted course does not resolve, or is severe unobserved, in {count}:**"
    return ["\n".join([head, "", *lines])]


# --- profiles -------------------------------------------------------------------------------------


def add_profiles(profiles: Sequence[Profile], folder: Path) -> tuple[Path, ...]:
    """Write the profiles of a run beside it: text, table and figure. The run is not changed.

    Returns
    -------
    tuple of Path, the files written

    Raises
    ------
    StorageError
        If they cannot be written; then nothing is written.
    """
    files = {
        folder / PROFILES: profiles_text(profiles).encode(),
        folder / TABLE: csv_file(profiles_table(profiles)),
        **figure_files(plot_profiles(profiles), folder / "profiles"),
    }
    write_atomic(files)
    return tuple(files)


def profiles_text(profiles: Sequence[Profile]) -> str:
    """The profile report in Markdown; warnings come first."""
    rows = [profile_words(p) for p in profiles]
    columns = ("parameter", "estimate", "95 % interval", "data only, 95 %", "verdict")
    note = "The interval includes the parameter's own prior; the data-only interval does not."
    better = "\n".join(f"- **Warning: {text}.**" for text in better_optima(profiles))
    cost = f"Profile likelihoods of a fit with cost {profiles[0].fit_cost:.4g}." if profiles else ""
    parts = ["# Profile likelihood of each parameter", better, RESEARCH_ONLY, cost, note,
             markdown(columns, rows), VERDICT_EXPLANATION, "![profiles](profiles.png)"]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def profile_words(p: Profile) -> tuple[str, ...]:
    """A profile as table cells: name, estimate with unit, both 95 % intervals, verdict."""
    unit = pretty(p.unit)
    value = f"{p.estimate:.3g}" if unit == "1" else f"{p.estimate:.3g} {unit}"
    both = (interval_words(p.interval(own_prior=own_prior)) for own_prior in (True, False))
    return p.parameter, value, *both, p.verdict


def interval_words(interval: Interval) -> str:
    """Format an interval.

    >>> interval_words(Interval(None, 0.1667)), interval_words(Interval(0.3, 0.4))
    ('up to 0.167', '0.3 to 0.4')
    """
    low, high = interval
    if low is None:
        return "any value within its bounds" if high is None else f"up to {high:.3g}"
    return f"from {low:.3g}" if high is None else f"{low:.3g} to {high:.3g}"


def better_optima(profiles: Sequence[Profile]) -> list[str]:
    """A warning if a profile found a better optimum than the fit."""
    better = [p for p in profiles if p.better is not None]
    if not better:
        return []
    best = min(better, key=lambda p: float(p.costs.min()))
    return [
        f"the profile of {best.parameter} found a better optimum, cost {best.costs.min():.4g} "
        f"instead of {best.fit_cost:.4g}: fit again with more starts"
    ]
