"""The command that fits: a problem, a patient, or the subjects of a data set."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import RESEARCH_ONLY
from .cli_options import PROBLEM_OPTION, workers_options
from .cli_population import data_set_options, fit_patients
from .cli_profile import write_profiles
from .errors import InputError
from .options import DataSetAsked, data_set
from .progress import print_table, progress_line, progress_of

if TYPE_CHECKING:
    from .cluster import Workers
    from .fitting import Dropped, Fit
    from .model import Model
    from .patient import Patient
    from .problem import FitProblem
    from .verdict import Judged


@click.command(short_help="Fit a model to a patient, or to a data set.", epilog=RESEARCH_ONLY)
@click.argument("problem", metavar="PROBLEM|PATIENT", required=False)
@data_set_options
@click.option("--subject", metavar="ID", default="", help="Only this subject of --data.")
@click.option("--prior", help="For a patient: name or file of a prior  [default: the model's]")
@click.option("--starts", type=int, help="Descents  [default: the problem's]")
@click.option("--seed", type=int, help="Of the starts  [default: the problem's]")
@workers_options("Processes")
@click.option("--drop/--no-drop", default=True, show_default=True,
              help="Also fit again without each free parameter, for its change of AIC.")
@click.option("--profiles", is_flag=True,
              help="Also profile each parameter: what the data tell of it; takes minutes.")
@click.option("--resume", is_flag=True,
              help="Go on where a stopped fit of several subjects was.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Where runs/<date>_<hash> goes  [default: the problem's folder; STUDY/]")
def fit(problem: str | None, subject: str, **options: Any) -> None:
    """Fit the free parameters of PROBLEM; write a run folder and print what came out.

    A PATIENT's folder or Excel file needs no problem.toml: the population prior of the model says
    what is free, and how far from its median it may be.

    With --data, a single subject is fitted like a patient; several are fitted at once with their
    population, as fit-all does.
    """
    asked = data_set("fit", problem, options)
    if asked is not None:
        fit_data(asked, subject, options)
        return
    if subject:
        raise InputError("--subject  is for a data set; give --data STUDY.csv with --model MODEL")
    if options.pop("resume"):
        raise InputError("--resume  goes on with a fit of several subjects; one patient is fitted "
                         "anew (profile and sample have their own --resume)")  # fmt: skip
    fit_problem(str(problem), **options)


def fit_data(asked: DataSetAsked, subject: str, options: dict[str, Any]) -> None:
    """Fit a data set: one subject as a problem of its own, several with their population."""
    from .modelfolder import load_model
    from .nonmem import read_nonmem
    from .subjects import measured_in, subject_problem

    model = load_model(asked.model)
    study = read_nonmem(asked.data, model, columns=asked.columns)
    people = measured_in(study, subject)
    for note in study.notes:
        click.echo(f"Note: {note}", err=True)
    resume, prior, out = (options.pop(name) for name in ("resume", "prior", "out"))
    out = asked.data.with_suffix("") if out is None else run_parent(out)
    if len(people) > 1:
        if options.pop("profiles"):
            raise InputError("--profiles  is for one patient; add --subject ID")
        fit_patients(people, model, out, resume=resume, prior=prior, **options)
        return
    if resume:
        raise InputError("--resume  goes on with a fit of several subjects; this is one")
    person = people[0] if people else study.patients[0]
    if not len(person.observations):
        said = ["--columns", str(asked.columns)] if asked.columns else []
        words = ["--data", str(asked.data), "--model", asked.model, *said, "--subject", person.id]
        print_prior(person, model, prior, shlex.join(words))
        return
    home = Path(subject_problem(study, person, model, out, prior=prior).path).parent
    fit_problem(str(home), prior=None, out=out, **options)


def fit_problem(
    problem: str, *, prior: str | None, drop: bool, profiles: bool, out: Path | None,
    **options: Any,
) -> None:  # fmt: skip
    """Fit a problem or a patient; write a run folder and print what came out."""
    from .fitting import drop_one
    from .fitting import fit as run_fit
    from .modelfolder import model_of
    from .output import check_folder
    from .problem import load_problem, patient_at
    from .report import write_report
    from .storage import save_run
    from .verdict import judge

    who = patient_at(problem)
    if who is not None:
        tell_made_up(Path(who.path))
    if who is not None and not len(who.observations):
        print_prior(who, model_of(who), prior, who.path)
        return
    asked = load_problem(problem, prior=prior)
    folder = run_folder(asked, out)
    check_folder(folder)
    with progress_line() as progress:
        told = progress_of(progress, f"{asked.name}: starts", lambda s: f"cost {s.cost:.4g}")
        result = run_fit(asked, progress=told, **options)
        dropped: tuple[Dropped, ...] = ()
        if drop:
            told = progress_of(progress, "without one parameter", str)
            dropped = drop_one(result, workers=options["workers"], progress=told)
    written = save_run(result, folder, dropped=dropped, also=lambda part: write_report(
        result, part, dropped, profiled=profiles))  # fmt: skip
    print_fit(result, judge(result))
    if profiles:  # the fit is safe by now: should this be stopped, `profile --resume` goes on
        write_profiles(result, written, workers=options["workers"])
    click.echo(f"tables, figures and report.md are in {written}")
    click.echo(RESEARCH_ONLY)


@click.command(short_help="Run a stored fit again: is the cost the same?", epilog=RESEARCH_ONLY)
@click.argument("run")
@click.option("--refit", is_flag=True, help="Fit anew too, from the same starts and seed.")
@workers_options("Processes")
@PROBLEM_OPTION
def replay(run: str, refit: bool, workers: Workers, problem: str | None) -> None:
    """Run the estimates of RUN again and compare their cost with the stored one.

    It is an error if they differ: then the model's equations, the doses, the observations or
    their noise have changed since.
    """
    from .fitting import fit as run_fit
    from .storage import SAME_COST, load_fit, load_run

    stored = float(load_run(run).result["cost"])
    again = load_fit(run, problem)  # refuses another cost
    click.echo(f"stored cost {stored:.9g}, run again {again.cost:.9g}")
    if refit:
        anew = run_fit(again.problem, starts=len(again.starts), seed=again.seed, workers=workers)
        click.echo(f"fitted anew {anew.cost:.9g}")
        if abs(anew.cost - stored) > SAME_COST * max(1.0, stored):
            raise InputError(
                f"{run}  fitted anew, the cost is {anew.cost:.9g} instead of {stored:.9g}: another "
                "version of crs_sim or of a library?"
            )
    click.echo(f"The same.\n{RESEARCH_ONLY}")


def print_prior(patient: Patient, model: Model, name: str | None, words: str) -> None:
    """What is known of a patient of whom nothing was measured: the prior; ``words`` name them."""
    from .population import load_population

    known = load_population(model, name)
    own = patient.scenario.values
    click.echo(f"{patient.id}: no observation; nothing to fit. What is known is the prior "
               f"{known.name}:\n")  # fmt: skip
    rows = [(row.parameter, f"{row.median:.3g}", f"{row.low:.3g} to {row.high:.3g}")
            for row in known.table().itertuples() if row.parameter not in own]  # fmt: skip
    print_table(("parameter", "median", "95 % of patients"), rows)
    asked = "" if name is None else f" --prior {name}"
    click.echo(f"\nWhat it foretells, with bands: crs-sim predict {words}{asked} --out bands/")
    click.echo(RESEARCH_ONLY)


def tell_made_up(home: Path) -> None:
    """Warn of rows of the template that nobody replaced."""
    from .newpatient import made_up_rows

    for where in made_up_rows(home):
        click.secho(f"Take care: {where}: still made up (the note says EXAMPLE), and taken for "
                    "this patient's; replace or delete them", bold=True, err=True)  # fmt: skip


def run_folder(problem: FitProblem, out: Path | None) -> Path:
    """The folder that gets ``runs/``: as asked; else the problem's or the patient's; for a shipped
    problem, one of ours."""
    from .shipped import outside

    if out is not None:
        return run_parent(out)
    path = Path(problem.path)
    if path.suffix == ".xlsx":
        return path.with_suffix("")
    return outside(path if path.is_dir() else path.parent)


def run_parent(out: Path) -> Path:
    """The folder that gets ``runs/``, also where ``runs`` itself was named."""
    return out.parent if out.name == "runs" else out


def print_fit(result: Fit, rows: Sequence[Judged]) -> None:
    """One screen: levels beside the fitted ones, grades by day, estimates, the verdict."""
    from .report import (
        demands,
        estimate_words,
        fitted_words,
        grades_by_day,
        observed_words,
        summary,
    )  # fmt: skip
    from .trust import agreement_words, concerns, condition_words

    for text in concerns(result):
        click.secho(f"Take care: {text}.", bold=True)
    click.echo(f"{agreement_words(result)}; {condition_words(result)}\n")
    levels = [(r.id, r.when, observed_words(r), fitted_words(r), r.verdict) for r in demands(rows)]
    print_table(("observation", "when", "reported", "fitted", "verdict"), levels)
    grades = grades_by_day(rows)
    if grades:
        days, observed, fitted = zip(*grades, strict=True)
        lines = [("day", days), ("reported", observed), ("fitted", fitted)]
        click.echo("\nCRS grade by day")
        for name, cells in lines:
            click.echo(f"{name:>9}" + "".join(f"{cell!s:>3}" for cell in cells))
    click.echo()
    print_table(("parameter", "estimate", "95 %", "prior", "shift (sd)", ""),
                [estimate_words(e) for e in result.estimates])  # fmt: skip
    click.echo(f"\n{result.runs} runs, {result.failed_runs} failed; cost {result.cost:.4g}, AIC "
               f"{result.aic:.4g}\n{summary(rows)}")  # fmt: skip
