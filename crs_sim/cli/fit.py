"""The commands fit, fit-all and replay: fit one patient or several; rerun a stored fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import RESEARCH_ONLY, CrsSimError, InputError, command
from .options import (
    PROBLEM_OPTION,
    DataSetSource,
    data_set,
    data_set_options,
    data_set_subjects,
    load_patients,
    print_columns,
    print_table,
    print_verdict,
    print_written,
    progress_line,
    progress_of,
    workers_options,
)
from .uncertainty import write_profiles

if TYPE_CHECKING:
    from ..fitting import Dropped, Fit, FitProblem, Judged
    from ..model import Model
    from ..patients import Patient
    from ..population import Outcome, PopulationFit
    from ..simulation import Workers


GRADES_A_LINE = 24


@click.command(short_help="Fit a model to a patient, or to a data set.", epilog=RESEARCH_ONLY)
@click.argument("problem", metavar="PROBLEM|PATIENT", required=False)
@data_set_options
@click.option("--subject", metavar="ID", default="", help="Fit only this subject of --data.")
@click.option("--prior", help="For a patient: name or file of a prior  [default: the model's]")
@click.option("--starts", type=int, help="Local optimisations  [default: the problem's]")
@click.option("--seed", type=int, help="Random seed of the starts  [default: the problem's]")
@workers_options("Processes")
@click.option(
    "--drop-one",
    "drop",
    is_flag=True,
    help="Also refit with each parameter fixed in turn, for the change of AIC.",
)
@click.option("--no-drop", is_flag=True, hidden=True, expose_value=False)  # of old commands
@click.option(
    "--profiles",
    is_flag=True,
    help="Also compute the profile likelihood of each parameter; takes minutes.",
)
@click.option("--resume", is_flag=True, help="Resume an interrupted fit of several subjects.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Parent of runs/<date>_<hash>  [default: the problem's folder; STUDY/]",
)
def fit(problem: str | None, subject: str, **options: Any) -> None:
    """Fit the free parameters of PROBLEM; write a run folder and print the results.

    A PATIENT's folder or Excel file needs no problem.toml: the population prior of the model
    defines the free parameters and their distributions.

    With --data, a single subject is fitted like a patient; several are fitted together with their
    population, as by fit-all.
    """
    source = data_set("fit", problem, options)
    if source is not None:
        fit_data(source, subject, options)
        return
    if subject:
        raise InputError("--subject  requires a data set; give --data STUDY.csv with --model MODEL")
    if options.pop("resume"):
        raise InputError("--resume  applies to a fit of several subjects; leave it out (profile "
                         "and sample have their own --resume)")  # fmt: skip
    fit_problem(str(problem), **options)


def fit_data(source: DataSetSource, subject: str, options: dict[str, Any]) -> None:
    """Fit a data set: a single subject as one problem, several with their population."""
    from ..fitting import subject_problem, subjects_with_observations
    from ..model import load_model
    from ..patients import read_nonmem

    model = load_model(source.model)
    study = read_nonmem(source.data, model, columns=source.columns)
    people = subjects_with_observations(study, subject)
    for note in study.notes:
        click.echo(f"Note: {note}", err=True)
    resume, prior, out = (options.pop(name) for name in ("resume", "prior", "out"))
    out = source.data.with_suffix("") if out is None else run_parent(out)
    if len(people) > 1:
        if options.pop("profiles"):
            raise InputError("--profiles  applies to one patient; add --subject ID")
        fit_patients(people, model, out, resume=resume, prior=prior, **options)
        return
    if resume:
        raise InputError("--resume  applies to a fit of several subjects; leave it out")
    person = people[0] if people else study.patients[0]
    if not len(person.observations):
        columns = ["--columns", str(source.columns)] if source.columns else []
        arguments = ["--data", str(source.data), "--model", source.model, *columns,
                     "--subject", person.id]  # fmt: skip
        print_prior(person, model, prior, arguments)
        return
    home = Path(subject_problem(study, person, model, out, prior=prior).path).parent
    fit_problem(str(home), prior=None, out=out, **options)


def fit_problem(
    problem: str, *, prior: str | None, drop: bool, profiles: bool, out: Path | None,
    **options: Any,
) -> None:  # fmt: skip
    """Fit a problem or a patient; write a run folder and print the results."""
    from ..fitting import drop_one, fit as run_fit, judge, load_problem, save_run
    from ..patients import model_for_patient, patient_at
    from ..reports import write_report
    from ..store import check_folder

    patient = patient_at(problem)
    if patient is not None:
        warn_example_rows(Path(patient.path))
    if patient is not None and not len(patient.observations):
        print_prior(patient, model_for_patient(patient), prior, [patient.path])
        return
    loaded = load_problem(problem, prior=prior)
    if patient is not None:
        loaded = without_idle(loaded)
    folder = run_folder(loaded, out)
    check_folder(folder)
    with progress_line() as progress:
        report = progress_of(progress, f"{loaded.name}: starts", lambda s: f"cost {s.cost:.4g}")
        result = run_fit(loaded, progress=report, **options)
        dropped: tuple[Dropped, ...] = ()
        if drop:
            report = progress_of(progress, "with one parameter fixed", str)
            dropped = drop_one(result, workers=options["workers"], progress=report)
    written = save_run(result, folder, dropped=dropped, also=lambda part: write_report(
        result, part, dropped, profiled=profiles))  # fmt: skip
    print_fit(result, judge(result))
    if profiles:  # the fit is saved already; `profile --resume` continues an interrupted profile
        write_profiles(result, written, workers=options["workers"])
    click.echo(f"tables, figures and report.md are in {written}")
    click.echo(RESEARCH_ONLY)


def without_idle(problem: FitProblem) -> FitProblem:
    """The problem of a patient, without parameters that nothing measured depends on."""
    from ..fitting import informed

    smaller, idle = informed(problem)
    if idle:
        click.echo(f"Note: nothing that was measured depends on {', '.join(idle)}: they are not "
                   "free, and stay at the medians of the prior", err=True)  # fmt: skip
    return smaller


@click.command(short_help="Recompute the cost of a stored fit and compare.", epilog=RESEARCH_ONLY)
@click.argument("run")
@click.option("--refit", is_flag=True, help="Also refit from the same starts and seed.")
@workers_options("Processes")
@PROBLEM_OPTION
def replay(run: str, refit: bool, workers: Workers, problem: str | None) -> None:
    """Simulate with the estimates of RUN and compare the cost with the stored one.

    A difference is an error: the model's equations, the doses, the observations or their noise
    model have changed since.
    """
    from ..fitting import SAME_COST, fit as run_fit, load_fit, load_run

    stored = float(load_run(run).result["cost"])
    again = load_fit(run, problem)  # raises an error if the cost differs
    click.echo(f"stored cost {stored:.9g}, run again {again.cost:.9g}")
    if refit:
        starts = len(again.starts)
        refitted = run_fit(again.problem, starts=starts, seed=again.seed, workers=workers)
        click.echo(f"fitted again {refitted.cost:.9g}")
        if abs(refitted.cost - stored) > SAME_COST * max(1.0, stored):
            raise InputError(
                f"{run}  refitted has cost {refitted.cost:.9g} instead of {stored:.9g}; "
                "check whether the version of crs_sim or of a library has changed"
            )
    click.echo(f"The same.\n{RESEARCH_ONLY}")


def print_prior(patient: Patient, model: Model, name: str | None, arguments: Sequence[str]) -> None:
    """Print the prior of a patient without observations; ``arguments`` select the patient."""
    from ..fitting import load_population

    population = load_population(model, name)
    own = patient.scenario.values
    click.echo(f"{patient.id}: no observation; nothing to fit. The estimate is the prior "
               f"{population.name}:\n")  # fmt: skip
    rows = [(row.parameter, f"{row.median:.3g}", f"{row.low:.3g} to {row.high:.3g}")
            for row in population.table().itertuples() if row.parameter not in own]  # fmt: skip
    print_table(("parameter", "median", "95 % of patients"), rows)
    option = [] if name is None else ["--prior", name]
    bands = command("predict", *arguments, *option, "--out", "bands/")
    click.echo(f"\nPredictions with bands: {bands}")
    click.echo(RESEARCH_ONLY)


def warn_example_rows(home: Path) -> None:
    """Warn of example rows of the template that were not replaced."""
    from ..patients import template_rows

    for where in template_rows(home):
        click.secho(f"Warning: {where}: still example data (the note says EXAMPLE), used as this "
                    "patient's data; replace or delete them", bold=True, err=True)  # fmt: skip


def run_folder(problem: FitProblem, out: Path | None) -> Path:
    """The folder for ``runs/``: ``out``, else the problem's or the patient's.

    For a shipped problem it is a folder below the current one.
    """
    from ..store import results_folder

    if out is not None:
        return run_parent(out)
    path = Path(problem.path)
    if path.suffix == ".xlsx":
        return path.with_suffix("")
    return results_folder(path if path.is_dir() else path.parent)


def run_parent(out: Path) -> Path:
    """The folder for ``runs/``, also if ``runs`` itself is given."""
    return out.parent if out.name == "runs" else out


def print_fit(result: Fit, rows: Sequence[Judged]) -> None:
    """Print reported and fitted levels, grades by day, estimates, and the summary."""
    from ..reports import (
        acceptance_criteria,
        estimate_words,
        fitted_words,
        grades_by_day,
        observed_words,
        summary,
        when_words,
    )

    print_verdict(result)
    levels = [
        (r.id, when_words(r.when), observed_words(r), fitted_words(r), r.verdict)
        for r in acceptance_criteria(rows)
    ]
    print_table(("observation", "when", "reported", "fitted", "verdict"), levels)
    grades = grades_by_day(rows)
    if grades:
        click.echo("\nCRS grade by day")
        for part in (grades[k : k + GRADES_A_LINE] for k in range(0, len(grades), GRADES_A_LINE)):
            lines = zip(("day", "reported", "fitted"), zip(*part, strict=True), strict=True)
            print_columns([(name, *map(str, cells)) for name, cells in lines], right=True)
    click.echo()
    print_table(("parameter", "estimate", "95 %", "prior", "shift (sd)", ""),
                [estimate_words(e) for e in result.estimates])  # fmt: skip
    click.echo(f"\n{result.runs} runs, {result.failed_runs} failed; cost {result.cost:.4g}, AIC "
               f"{result.aic:.4g}\n{summary(rows)}")  # fmt: skip


# --- several patients ---------------------------------------------------------------------------


@click.command("fit-all", short_help="Fit several patients and their population.",
               epilog=RESEARCH_ONLY)  # fmt: skip
@click.argument("patients", nargs=-1, metavar="PATIENTS...")
@data_set_options
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Output folder; each patient's result is saved when it is finished.",
)
@click.option("--prior", help="Name or file of a prior  [default: the model's]")
@click.option("--shared", multiple=True, metavar="NAME", help="One value for all patients.")
@click.option(
    "--own",
    multiple=True,
    metavar="NAME",
    help="Estimated separately for each patient, without a population distribution.",
)
@click.option("--correlated", multiple=True, metavar="NAME,NAME,...",
              help="Parameters whose random effects are correlated.")  # fmt: skip
@click.option("--starts", type=int,
              help="Local optimisations of each patient's first fit  [default: 8]")  # fmt: skip
@click.option("--draws", type=click.IntRange(min=0),
              help="Draws with which each patient's likelihood is integrated, a power of two; 0 "
                   "for the two-stage estimate alone  [default: 512]")  # fmt: skip
@click.option("--seed", type=int, help="Random seed of the starts  [default: 1]")
@workers_options("Processes")
@click.option("--resume", is_flag=True, help="Resume the interrupted fit in FOLDER.")
def fit_all(patients: tuple[str, ...], out: Path, **options: Any) -> None:
    """Fit several patients together with their population distribution.

    PATIENTS are folders or Excel files of patients, or a folder containing several of them; or
    --data names a data set. Parameters are tied (individual values, shrunk towards the population
    median), or --shared, or --own.
    """
    from ..patients import model_for_patient

    source = data_set("fit-all", patients, options)
    if source is not None:
        people, model = data_set_subjects(source)
    else:
        people = load_patients(patients)
        model = model_for_patient(people[0])
    fit_patients(people, model, out, **options)


def fit_patients(
    people: Sequence[Patient], model: Model, out: Path, *, resume: bool, prior: str | None,
    **options: Any,
) -> None:  # fmt: skip
    """Fit patients and their population, write the results to a folder, and print them."""
    from dataclasses import replace

    from ..fitting import load_population, patient_problem
    from ..population import (
        DRAWS,
        IterationFiles,
        Roles,
        check_new,
        fit_all as run,
        how_estimated,
        population_fit_warnings,
        save_population,
    )
    from ..reports import course_warnings
    from ..store import check_folder

    check_folder(out)
    check_new(out, resume=resume)
    empty = [who.id for who in people if not len(who.observations)]
    if empty:
        raise InputError(f"no observation, so nothing to fit: {', '.join(empty)}; leave them out")
    population = load_population(model, prior)
    together = [tuple(filter(None, map(str.strip, text.split(","))))
                for text in options.get("correlated", ())]  # fmt: skip
    roles = Roles(options.get("shared", ()), options.get("own", ()), tuple(together))
    draws = DRAWS if options.get("draws") is None else options["draws"]
    chosen = {name: options[name] for name in ("starts", "seed") if options[name] is not None}
    problems = [replace(patient_problem(who, model=model, prior=prior, fewest=0), **chosen)
                for who in people]  # fmt: skip
    result = run(problems, population, roles, draws=draws, workers=options["workers"],
                 kept=IterationFiles(out), progress=print_progress)  # fmt: skip
    first = course_warnings(problems, {fit.patient: fit.values for fit in result.fits})
    written = save_population(result, out, first)
    for line in (*first, *population_fit_warnings(result)):
        click.echo(line.replace("**", ""))
    click.echo(f"{how_estimated(result)}\n")
    print_population(result)
    print_written(written)
    if result.failures:
        raise CrsSimError(f"{len(result.failures)} of {len(people)} patients could not be fitted")


def print_progress(stage: str, finished: int, total: int, outcome: Outcome) -> None:
    """Print one line per patient."""
    from ..population import PatientFailure

    if isinstance(outcome, PatientFailure):
        words = f"failed: {outcome.reason}"
    else:
        words = f"cost {outcome.cost:.4g}" if outcome.integrated != outcome.integrated else (
            f"-2 ln likelihood {outcome.integrated:.4g}")  # fmt: skip
    click.echo(f"{stage}: {finished} of {total}, {outcome.patient} {words}", err=True)


def print_population(result: PopulationFit) -> None:
    """Print the population, one row per parameter."""
    click.echo(f"{len(result.fits)} patients\n")
    lines: list[Sequence[str]] = [("parameter", "role", "median", "sd", "shrinkage")]
    for row in result.table().itertuples():
        shrinkage = "" if row.shrinkage != row.shrinkage else f"{100 * row.shrinkage:.0f} %"
        spread = f"{row.sd:.2f}{_error(row.sd_error)}" if row.sd else ""
        lines.append((row.parameter, row.role, f"{row.median:.3g}{_error(row.median_error)}",
                      spread, shrinkage))  # fmt: skip
    print_columns(lines)
    for row in result.correlations().itertuples():
        click.echo(
            f"correlation of {row[1]} and {row[2]}: {row[3]:.2f}"
            + (f" (± {row[4]:.2f})" if row[4] == row[4] else ", at its limit")
        )
    click.echo()


def _error(value: float) -> str:
    return "" if value != value else " (± unknown)" if value > 10 else f" (± {100 * value:.0f} %)"
