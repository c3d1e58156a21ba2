"""The commands of many patients: several fitted at once, and virtual ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import RESEARCH_ONLY
from .cli_options import workers_options
from .errors import CrsSimError, InputError
from .options import DataSetAsked, data_set
from .progress import now_and_then, print_columns, print_written, progress_line

if TYPE_CHECKING:
    from .cohort import Outcome, PopulationFit
    from .model import Model
    from .patient import Patient
    from .populationparts import Results


def data_set_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that name a data set instead of patients."""
    for option in (
        click.option("--columns", "--map", type=click.Path(path_type=Path), metavar="MAP.toml",
                     help="What the columns of --data mean, where their names do not say."),
        click.option("--model", metavar="MODEL", help="The model for --data."),
        click.option("--data", type=click.Path(path_type=Path), metavar="STUDY.csv",
                     help="A NONMEM or Monolix data set instead of PATIENT; with --model."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command("fit-all", short_help="Fit several patients and their population.",
               epilog=RESEARCH_ONLY)  # fmt: skip
@click.argument("patients", nargs=-1, metavar="PATIENTS...")
@data_set_options
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FOLDER",
              help="Where results go, and each patient's as it is done.")
@click.option("--prior", help="Name or file of a prior  [default: the model's]")
@click.option("--shared", multiple=True, metavar="NAME", help="One value for all patients.")
@click.option("--own", multiple=True, metavar="NAME",
              help="Each patient's own: the others say nothing of it.")
@click.option("--starts", type=int, help="Descents of each patient's first fit  [default: 8]")
@click.option("--seed", type=int, help="Of the starts  [default: 1]")
@workers_options("Processes")
@click.option("--resume", is_flag=True, help="Go on where a stopped fit in FOLDER was.")
def fit_all(patients: tuple[str, ...], out: Path, **options: Any) -> None:
    """Fit several patients at once, and the population they come from.

    PATIENTS are folders or Excel files of patients, or a folder that holds several of them; or
    --data names a data set. Parameters are tied (each patient's own, drawn to the population's
    median), or --shared, or --own.
    """
    from .modelfolder import model_of

    asked = data_set("fit-all", patients, options)
    if asked is not None:
        people, model = subjects_asked(asked)
    else:
        people = load_patients(patients)
        model = model_of(people[0])
    fit_patients(people, model, out, **options)


def subjects_asked(asked: DataSetAsked) -> tuple[list[Patient], Model]:
    """All subjects of a data set of whom something was measured, and the model."""
    from .modelfolder import load_model
    from .nonmem import read_nonmem
    from .subjects import measured_in

    model = load_model(asked.model)
    study = read_nonmem(asked.data, model, columns=asked.columns)
    for note in study.notes:
        click.echo(f"Note: {note}", err=True)
    people = measured_in(study)
    if not people:
        raise InputError(f"{asked.data}  has no observation, so there is nothing to fit")
    return list(people), model


def fit_patients(
    people: Sequence[Patient], model: Model, out: Path, *, resume: bool, prior: str | None,
    **options: Any,
) -> None:  # fmt: skip
    """Fit patients and their population into a folder, and print what came out."""
    from dataclasses import replace

    from .cohort import Roles
    from .cohortfiles import Rounds, check_new, headlines, save_population
    from .output import check_folder
    from .population import load_population
    from .problem import ask
    from .rounds import fit_all as run

    check_folder(out)
    check_new(out, resume=resume)
    empty = [who.id for who in people if not len(who.observations)]
    if empty:
        raise InputError(f"no observation, so nothing to fit: {', '.join(empty)}; leave them out")
    known = load_population(model, prior)
    roles = Roles(options.get("shared", ()), options.get("own", ()))
    chosen = {name: options[name] for name in ("starts", "seed") if options[name] is not None}
    asked = [replace(ask(who, model=model, prior=prior), **chosen) for who in people]
    result = run(asked, known, roles, workers=options["workers"], kept=Rounds(out),
                 progress=tell)  # fmt: skip
    written = save_population(result, out)
    for line in headlines(result):
        click.echo(line.replace("**", ""))
    print_population(result)
    print_written(written)
    if result.failures:
        raise CrsSimError(f"{len(result.failures)} of {len(people)} patients could not be fitted")


def load_patients(names: tuple[str, ...]) -> list[Patient]:
    """Every patient named, or in a folder named; all mistakes in their files at once.

    Raises
    ------
    InputError
        With one line for each file that cannot be read.
    """
    from .patient import load_patient

    people, wrong = [], []
    for home in (home for name in names for home in homes(Path(name))):
        try:
            people.append(load_patient(home))
        except CrsSimError as error:
            wrong.append(str(error))
    if wrong:
        raise InputError("\n".join([f"{len(wrong)} patients cannot be read:", *wrong]))
    return people


def homes(path: Path) -> list[Path]:
    """The patients a path means: itself, or the folders and workbooks in it."""
    from .patientfiles import FILES
    from .workbook import SUFFIX

    if not path.is_dir() or (path / FILES["patient"]).exists():
        return [path]
    inside = [
        p for p in sorted(path.iterdir())
        if (p / FILES["patient"]).exists()
        or (p.suffix.lower() == SUFFIX and not p.name.startswith(("~", ".")))
    ]  # fmt: skip
    if not inside:
        raise InputError(f"{path}  holds no patient: neither folders with {FILES['patient']} nor "
                         f"{SUFFIX} files")  # fmt: skip
    return inside


def tell(what: str, finished: int, total: int, outcome: Outcome) -> None:
    """One line a patient."""
    from .cohort import Failed

    words = f"failed: {outcome.reason}" if isinstance(outcome, Failed) else (
        f"cost {outcome.cost:.4g}")  # fmt: skip
    click.echo(f"{what}: {finished} of {total}, {outcome.patient} {words}", err=True)


def print_population(result: PopulationFit) -> None:
    """The population, one row a parameter."""
    click.echo(f"{len(result.fits)} patients, {result.rounds} rounds\n")
    lines: list[Sequence[str]] = [("parameter", "role", "median", "sd", "shrinkage")]
    for row in result.table().itertuples():
        shrinkage = "" if row.shrinkage != row.shrinkage else f"{100 * row.shrinkage:.0f} %"
        lines.append((row.parameter, row.role, f"{row.median:.3g}{_error(row.median_error)}",
                      f"{row.sd:.2f}{_error(row.sd_error)}", shrinkage))  # fmt: skip
    print_columns(lines)
    click.echo()


def _error(value: float) -> str:
    return "" if value != value else f" (± {100 * value:.0f} %)"


@click.command(short_help="Run virtual patients under scenarios.", epilog=RESEARCH_ONLY)
@click.argument("population")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FOLDER",
              help="Where results go as they are made; then population.md.")  # fmt: skip
@click.option("--number", type=int, help="Patients drawn  [default: as POPULATION says]")
@click.option("--seed", type=int, help="[default: as POPULATION says]")
@click.option("--resume", is_flag=True, help="Go on with what is in FOLDER.")
@workers_options("Threads")
def population(population: str, out: Path, **options: Any) -> None:
    """Draw the virtual patients of POPULATION, run each under every scenario, and report.

    POPULATION is a population.toml, its folder, or a shipped name (crs). Whatever ends the
    command, --resume goes on from there, with the numbers of a run that was never interrupted.
    """
    from .populationfile import load_study, with_number
    from .populationreport import write_population
    from .populationrun import run_population

    study = with_number(load_study(population), options.pop("number"), options.pop("seed"))
    with progress_line() as line:
        results = run_population(study, out, progress=now_and_then(line, "patients"), **options)
    written = write_population(results)
    print_summary(results)
    print_written(written)


def print_summary(results: Results) -> None:
    """Who was kept, what each filter rejects, and the worst grades."""
    from .populationreport import who
    from .populationtables import Summary

    summary = Summary(results)
    for text in who(summary):
        click.echo(text)
    for row in summary.rejected().itertuples():
        click.echo(f"  {row.filter}: rejects {row.rejected} of {row.of}")
    if summary.graded:
        table = summary.grades().drop(columns="patients")
        head = ["worst grade, % of patients", *(n.replace("grade_", "").replace("_", " ")
                                                for n in table.columns[1:])]  # fmt: skip
        rows = [[str(row[0]), *(f"{100 * x:.1f}" for x in row[1:])]
                for row in table.itertuples(index=False)]  # fmt: skip
        click.echo()
        print_columns([head, *rows])
