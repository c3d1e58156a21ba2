"""Export a fit problem as a PEtab v2 problem: a folder with SBML, tables and a README.

PEtab (https://petab.readthedocs.io) supports readings with a log-normal error: our ``value`` and,
via a parameter that stores an earlier level, our ``ratio``. It cannot express limits, peaks,
unknown days or grades; the export lists each of these with the reason.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ..dosing import SAME_TIME
from ..errors import RESEARCH_ONLY, InputError, StorageError, unknown_name
from ..fitting import FitProblem, curves, days_needed, predicted, residual_vector
from ..model import pretty, sbml
from ..patients import Observation
from ..simulation import Simulation
from ..store import check_folder, csv_file, write_atomic
from .petab_experiments import Period, Regimen, regimen, rests_on, word

FORMAT = "2.0.0"
COURSE = "course"
TABLES = ("parameters", "observables", "measurements", "experiments", "conditions")
LEFT_OUT = "not_exported.csv"
WHY_NOT = {
    "below": "a reading under a limit: PEtab has no censored error",
    "above": "a reading over a limit: PEtab has no censored error",
    "ratio_below": "a ratio under a limit: PEtab has no censored error",
    "ratio_above": "a ratio over a limit: PEtab has no censored error",
    "peak": "the largest level in a window: PEtab compares at a single time",
    "sometime": "a reading on an unknown day: PEtab compares at a single time",
    "grade": "an ordinal grade: PEtab has no such error",
}
# Reserved words of PEtab, not allowed as names; pandas reads the last three as "missing"
RESERVED = re.compile(
    r"\b(true|false|inf|time|nan|pow|exp|sqrt|log|ln|log2|log10|(arc)?(sin|cos|tan|cot|sec|csc)h?"
    r"|piecewise|abs|sign|min|max|na|null|none)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class LeftOut:
    """An observation that PEtab cannot express, with the reason."""

    observation: Observation
    reason: str


@dataclass(frozen=True)
class Exported:
    """An exported problem.

    Parameters
    ----------
    files : mapping of file name to content
    stated : tuple of the ids of the exported observations
    left_out : tuple of LeftOut, all others
    values : mapping of free parameter to its nominal value
    deviance : float, our -2 log-likelihood (up to a constant) of the exported observations, at
        these values
    constant : float, the term that PEtab's -2 log-likelihood adds at all parameter values:
        the sum of ln(2 pi sd^2 reading^2)
    """

    files: Mapping[str, bytes] = field(repr=False)
    stated: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    values: Mapping[str, float]
    deviance: float
    constant: float


def export_petab(
    problem: FitProblem, folder: str | Path, *, values: Mapping[str, float] | None = None
) -> Exported:
    """Write a problem as a PEtab folder for tools such as pyPESTO, PEtab.jl and AMICI.

    Parameters
    ----------
    problem : FitProblem
    folder : created if missing; an earlier export in it is replaced
    values : nominal values of free parameters, such as those of a run (default: prior medians)

    Raises
    ------
    InputError, UnknownNameError
        If no observation can be exported, a prior is on the logit scale, the errors of grades
        persist, or a name is a reserved word of PEtab.
    StorageError
        If the folder contains other files with these names, or cannot be written; then nothing is
        written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from crs_sim import load_problem
    >>> with TemporaryDirectory() as folder:
    ...     made = export_petab(load_problem("ruemmele2025"), folder)
    >>> made.stated
    ('psa_d0', 'ferritin_d3', 'ferritin_d27', 'ifng_d27', 'cxcl10_fall', 'psa_d30')
    """
    place = Path(folder)
    check_folder(place)
    made = petab_files(problem, values)
    held = [name for name in made.files if (place / name).exists()]
    if held and not (place / LEFT_OUT).exists():
        raise StorageError(
            f"{place}  contains a {held[0]} that is not from an earlier export; choose a new folder"
        )
    write_atomic({place / name: content for name, content in made.files.items()})
    return made


def petab_files(problem: FitProblem, values: Mapping[str, float] | None = None) -> Exported:
    """Return the files of `export_petab` without writing them."""
    for name, spread in problem.noise.spreads.items():
        if spread.error != "log-normal" or f"sd_{name}" in problem.names:
            raise InputError(f"{problem.where(f'noise.{name}')}: only a stated log-normal error is "
                             "exported; state an sd in place of error and estimate")  # fmt: skip
    for free in problem.free:
        if free.scale == "logit":
            raise InputError(f"{problem.where(f'free.{free.name}.scale')}: PEtab has no prior that "
                             f"is normal on the logit scale; to export, state scale = \"log\" for "
                             f"{free.name}, and fit again, as that is another prior")  # fmt: skip
    if (scale := problem.noise.grade) and scale.persistence:
        raise InputError(f"{problem.where('grade.persistence')}: PEtab has no error that persists "
                         "from one reading to the next; to export, delete persistence and memory, "
                         "and fit again, as that is another likelihood")  # fmt: skip
    nominal = _nominal(problem, values or {})
    stated, left_out = split_observations(problem)
    if not stated:
        raise InputError(
            f"{problem.where('data')}: none of the observations can be expressed in PEtab, "
            "which supports values and ratios only; there is nothing to export"
        )
    references = [(o.observable, o.reference) for o in stated if o.kind == "ratio"]
    plan = regimen(problem, [o.day for o in stated], references)
    run = curves(problem, nominal, days_needed(stated))
    parts = residual_vector(stated, run, problem.noise)
    constant = sum(
        math.log(2 * math.pi * (problem.noise.spread(o).sd * o.value) ** 2) for o in stated
    )
    tables = _tables(problem, plan, stated, nominal, run)
    _check_reserved(tables)
    files = {f"{name}.tsv": csv_file(table, separator="\t") for name, table in tables.items()}
    files["model.xml"] = sbml(plan.model.with_values(**nominal)).encode()
    files["problem.yaml"] = _yaml(problem).encode()
    files[LEFT_OUT] = _left_out_table(left_out)
    ids = tuple(o.id for o in stated)
    made = Exported(files, ids, left_out, nominal, float(parts @ parts), constant)
    files["README.md"] = _readme(problem, made).encode()
    return made


def _nominal(problem: FitProblem, values: Mapping[str, float]) -> dict[str, float]:
    for name in values:
        if name not in problem.names:
            raise unknown_name("free parameter", name, problem.names)
    nominal = {f.name: float(values.get(f.name, f.median)) for f in problem.free}
    for f in problem.free:
        if not f.lower <= nominal[f.name] <= f.upper:
            raise InputError(
                f"{problem.where(f'free.{f.name}')}: the value to be written is "
                f"{nominal[f.name]:g}, allowed are {f.lower:g} to {f.upper:g}; widen the bounds, "
                "or use another run"
            )
    return nominal


def split_observations(problem: FitProblem) -> tuple[tuple[Observation, ...], tuple[LeftOut, ...]]:
    """Split the observations into those PEtab can express and the others, with the reason."""
    stated, left_out = [], []
    for observation in problem.patient.observations:
        reason = WHY_NOT.get(observation.kind, "")
        if observation.kind == "ratio":
            reason = _no_reference(problem, observation)
        if reason:
            left_out.append(LeftOut(observation, reason))
        else:
            stated.append(observation)
    return tuple(stated), tuple(left_out)


def _no_reference(problem: FitProblem, observation: Observation) -> str:
    """Why the reference level of a ratio cannot be stored; "" if it can."""
    if observation.reference <= SAME_TIME:
        return "a ratio to day 0: PEtab's first period cannot store a level"
    used = rests_on(problem.model, observation.observable)
    for change in problem.patient.scenario.changes:
        edges = (abs(observation.reference - day) for day in (change.first, change.last))
        if change.parameter in used and min(edges) <= SAME_TIME:
            return f"a ratio to the time at which {change.parameter}, which it depends on, changes"
    return ""


# --- tables ---------------------------------------------------------------------------------------


def _tables(
    problem: FitProblem,
    plan: Regimen,
    stated: Sequence[Observation],
    nominal: Mapping[str, float],
    run: Simulation,
) -> dict[str, pd.DataFrame]:
    """All tables; a measurement at a bolus belongs to an experiment that ends before that dose."""
    jumps = {period.day for period in plan.periods if period.jumps}
    rows, ends = [], {}
    for o in stated:
        day = plan.days[o.day]
        experiment = f"until_day_{word(day)}" if day in jumps else COURSE
        ends[experiment] = day if day in jumps else math.inf
        rows.append((_observed(o), experiment, day, o.value, problem.noise.spread(o).sd, o.id))
    columns = ["observableId", "experimentId", "time", "measurement", "noiseParameters",
               "observationId"]  # fmt: skip
    measured = pd.DataFrame(rows, columns=columns)
    simulated = measured.rename(columns={"measurement": "simulation"})
    simulated["simulation"] = [predicted(o, run) for o in stated]
    experiments, conditions = _experiments(plan.periods, ends)
    return {
        "parameters": _parameters(problem, nominal),
        "observables": _observables(problem, plan, stated),
        "measurements": measured,
        "experiments": experiments,
        "conditions": conditions,
        "simulations": simulated,
    }


def _observed(observation: Observation) -> str:
    """The PEtab observable id: one for each observable, and one for each ratio."""
    ratio = observation.kind == "ratio"
    return f"ratio_{observation.id}" if ratio else f"observed_{observation.observable}"


def _experiments(
    periods: Iterable[Period], ends: Mapping[str, float]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The experiments and conditions tables; each experiment ends before a dose, or never."""
    rows, conditions = [], {}
    for experiment, end in sorted(ends.items()):
        for period in periods:
            last = period.day == end
            changes = period.before if last else (*period.before, *period.after)
            name = f"{'before_dose_on_' if last else ''}day_{word(period.day)}" if changes else ""
            if period.day <= end and (changes or period.day == 0.0):
                rows.append((experiment, period.day, name))
                conditions[name] = changes
    changed = [(name, *change) for name, changes in conditions.items() for change in changes]
    return (
        pd.DataFrame(rows, columns=["experimentId", "time", "conditionId"]),
        pd.DataFrame(changed, columns=["conditionId", "targetId", "targetValue"]),
    )


def _parameters(problem: FitProblem, nominal: Mapping[str, float]) -> pd.DataFrame:
    rows = [
        (f.name, problem.model[f.name].label, f.lower, f.upper, nominal[f.name], "true",
         "log-normal", f"{math.log(f.median)!r};{f.sd!r}")
        for f in problem.free
    ]  # fmt: skip
    columns = ["parameterId", "parameterName", "lowerBound", "upperBound", "nominalValue",
               "estimate", "priorDistribution", "priorParameters"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _observables(problem: FitProblem, plan: Regimen, stated: Sequence[Observation]) -> pd.DataFrame:
    rows = {}
    for o in stated:
        formula, name = o.observable, _observed(o)
        symbol = problem.model[o.observable]
        label = f"{symbol.label or symbol.id} [{pretty(symbol.unit)}]"
        if o.kind == "ratio":
            formula = f"{formula}/{plan.memories[o.observable, o.reference]}"
            label = f"{symbol.label or symbol.id}, day {o.day:g} over day {o.reference:g}"
        rows[name] = (name, label, formula, f"sd_{name}", f"sd_{name}", "log-normal")
    columns = ["observableId", "observableName", "observableFormula", "noiseFormula",
               "noisePlaceholders", "noiseDistribution"]  # fmt: skip
    return pd.DataFrame(list(rows.values()), columns=columns)


def _check_reserved(tables: Mapping[str, pd.DataFrame]) -> None:
    cells = [*tables["parameters"]["parameterId"], *tables["observables"]["observableFormula"],
             *tables["conditions"]["targetId"], *tables["conditions"]["targetValue"]]  # fmt: skip
    found = RESERVED.search(" ".join(map(str, cells)))
    if found:
        raise InputError(
            f"the model's {found[0]!r} is a reserved word of PEtab; rename it in the model file"
        )


def _left_out_table(left_out: Sequence[LeftOut]) -> bytes:
    names = ("id", "observable", "kind", "day", "until", "reference", "value", "unit")
    rows = [(*(getattr(o.observation, name) for name in names), o.reason) for o in left_out]
    table = pd.DataFrame(rows, columns=[*names, "reason"])
    return csv_file(table)


# --- problem file and README ----------------------------------------------------------------------


def _yaml(problem: FitProblem) -> str:
    files = "".join(f"{name[:-1]}_files: [{name}.tsv]\n" for name in TABLES)
    model = problem.model.name
    return (
        f"format_version: {FORMAT}\nid: {re.sub(r'[^A-Za-z0-9]', '_', f'crs_sim_{problem.name}')}\n"
        f"{files}model_files:\n  {model}: {{location: model.xml, language: sbml}}\n"
    )


def _readme(problem: FitProblem, made: Exported) -> str:
    kinds: dict[str, list[str]] = {}
    for item in made.left_out:
        kinds.setdefault(item.reason, []).append(item.observation.id)
    missing = "".join(f"- {reason}: {', '.join(ids)}\n" for reason, ids in kinds.items())
    priors = 2 * sum(math.log(value) for value in made.values.values())
    return README.format(
        name=problem.name,
        note=RESEARCH_ONLY,
        model=problem.model.name,
        hash=problem.model.hash,
        patient=problem.patient.id,
        stated=", ".join(made.stated),
        missing=f"{missing}\n{PART}" if missing else "- nothing\n",
        left_out=LEFT_OUT,
        deviance=made.deviance,
        constant=made.constant,
        total=made.deviance + made.constant,
        priors=priors,
    )


PART = "A fit of this folder is therefore not a fit of the whole problem.\n"
README = """\
# {name}, as a PEtab v2 problem

{note} Written by crs_sim from model {model} (hash {hash}) and patient {patient}.
Time is in days; day 0 is the CAR-T infusion, or the first record of a data set. Check the folder
with `petablint problem.yaml` (petab 0.8 or newer).

| file | content |
|---|---|
| problem.yaml | the entry point; lists the others |
| model.xml | the equations (SBML), with parameters added for doses and changes |
| experiments.tsv, conditions.tsv | timing of doses, infusion starts and stops, changes |
| observables.tsv, measurements.tsv | readings, with a log-normal error |
| parameters.tsv | estimated parameters: bounds, nominal value, prior |
| simulations.tsv | predictions of crs_sim for each measurement at the nominal values |
| {left_out} | every observation that is not exported, with the reason |

## Exported

{stated}

## Not exported

{missing}
## Comparing likelihoods

At the nominal values crs_sim's -2 log-likelihood of the exported observations is {deviance:.8g}, up
to a constant. PEtab's includes the normalisation, ln(2 pi sd^2 reading^2) for each, the same at
all parameter values: {constant:.8g}. A tool that evaluates the folder there finds {total:.8g}.

Where a prediction is below a billionth of the reading, crs_sim modifies its logarithm so that it
stays finite; PEtab does not.

Priors are log-normal, truncated at the bounds. crs_sim fits logarithms of parameters: its penalty
is from the density of ln(parameter), while PEtab's density is that of the parameter. So
-2 ln prior here is crs_sim's penalty, plus a constant, plus 2 * sum of ln(parameter), which is
{priors:.6g} at the nominal values. Samples of the posterior agree; the point of highest posterior
density does not, unless that sum is subtracted.

## Doses

A bolus changes its state; an infusion sets `inflow_STATE` (per day) and resets it at its end;
`given_at_start_STATE` is a bolus on day 0; `PARAMETER_now` is a parameter that the scenario
changes; `OBSERVABLE_on_day_D` stores a level for a ratio. A sample at the time of a dose is taken
before it. PEtab applies doses first, so where the dose is a bolus such a sample has its own
experiment, `until_day_D`, which ends there without that dose. Nothing is shifted in time.
"""
