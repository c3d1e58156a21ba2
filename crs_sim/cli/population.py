"""The commands for many patients: population fits (fit-all) and virtual populations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import RESEARCH_ONLY, CrsSimError, InputError
from .options import (
    DataSetSource,
    data_set,
    print_columns,
    print_written,
    progress_line,
    throttled_progress,
    workers_options,
)

if TYPE_CHECKING:
    from ..model import Model
    from ..patients import Patient
    from ..population import Outcome, PopulationFit, Results


def data_set_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name a data set instead of patients."""
    for option in (
        click.option("--columns", "--map", type=click.Path(path_type=Path), metavar="MAP.toml",
                     help="Meaning of the columns of --data with non-standard names."),
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
@click.option("--starts", type=int,
              help="Local optimisations of each patient's first fit  [default: 8]")  # fmt: skip
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


def data_set_subjects(source: DataSetSource) -> tuple[list[Patient], Model]:
    """All subjects of a data set that have observations, and the model."""
    from ..fitting import subjects_with_observations
    from ..model import load_model
    from ..patients import read_nonmem

    model = load_model(source.model)
    study = read_nonmem(source.data, model, columns=source.columns)
    for note in study.notes:
        click.echo(f"Note: {note}", err=True)
    people = subjects_with_observations(study)
    if not people:
        raise InputError(f"{source.data}  has no observation, so there is nothing to fit; add some")
    return list(people), model


def fit_patients(
    people: Sequence[Patient], model: Model, out: Path, *, resume: bool, prior: str | None,
    **options: Any,
) -> None:  # fmt: skip
    """Fit patients and their population, write the results to a folder, and print them."""
    from dataclasses import replace

    from ..fitting import load_population, patient_problem
    from ..population import (
        IterationFiles,
        Roles,
        check_new,
        fit_all as run,
        population_fit_warnings,
        save_population,
    )
    from ..store import check_folder

    check_folder(out)
    check_new(out, resume=resume)
    empty = [who.id for who in people if not len(who.observations)]
    if empty:
        raise InputError(f"no observation, so nothing to fit: {', '.join(empty)}; leave them out")
    population = load_population(model, prior)
    roles = Roles(options.get("shared", ()), options.get("own", ()))
    chosen = {name: options[name] for name in ("starts", "seed") if options[name] is not None}
    problems = [replace(patient_problem(who, model=model, prior=prior), **chosen) for who in people]
    result = run(problems, population, roles, workers=options["workers"], kept=IterationFiles(out),
                 progress=print_progress)  # fmt: skip
    written = save_population(result, out)
    for line in population_fit_warnings(result):
        click.echo(line.replace("**", ""))
    print_population(result)
    print_written(written)
    if result.failures:
        raise CrsSimError(f"{len(result.failures)} of {len(people)} patients could not be fitted")


def load_patients(names: tuple[str, ...]) -> list[Patient]:
    """Load every patient that is named or in a named folder; report all errors at once.

    Raises
    ------
    InputError
        With one line for each patient that cannot be read.
    """
    from ..patients import load_patient

    people, errors = [], []
    for path in (path for name in names for path in patient_paths(Path(name))):
        try:
            people.append(load_patient(path))
        except CrsSimError as error:
            errors.append(str(error))
    if errors:
        raise InputError("\n".join([f"{len(errors)} patients cannot be read:", *errors]))
    return people


def patient_paths(path: Path) -> list[Path]:
    """The patients at a path: the path itself, or the folders and workbooks in it."""
    from ..patients import FILES
    from ..store import SUFFIX

    if not path.is_dir() or (path / FILES["patient"]).exists():
        return [path]
    inside = [
        p for p in sorted(path.iterdir())
        if (p / FILES["patient"]).exists()
        or (p.suffix.lower() == SUFFIX and not p.name.startswith(("~", ".")))
    ]  # fmt: skip
    if not inside:
        raise InputError(f"{path}  has no patient: neither folders with {FILES['patient']} nor "
                         f"{SUFFIX} files; create one with crs-sim new")  # fmt: skip
    return inside


def print_progress(stage: str, finished: int, total: int, outcome: Outcome) -> None:
    """Print one line per patient."""
    from ..population import PatientFailure

    words = f"failed: {outcome.reason}" if isinstance(outcome, PatientFailure) else (
        f"cost {outcome.cost:.4g}")  # fmt: skip
    click.echo(f"{stage}: {finished} of {total}, {outcome.patient} {words}", err=True)


def print_population(result: PopulationFit) -> None:
    """Print the population, one row per parameter."""
    click.echo(f"{len(result.fits)} patients, {result.rounds} iterations\n")
    lines: list[Sequence[str]] = [("parameter", "role", "median", "sd", "shrinkage")]
    for row in result.table().itertuples():
        shrinkage = "" if row.shrinkage != row.shrinkage else f"{100 * row.shrinkage:.0f} %"
        lines.append((row.parameter, row.role, f"{row.median:.3g}{_error(row.median_error)}",
                      f"{row.sd:.2f}{_error(row.sd_error)}", shrinkage))  # fmt: skip
    print_columns(lines)
    click.echo()


def _error(value: float) -> str:
    return "" if value != value else f" (± {100 * value:.0f} %)"


@click.command(short_help="Simulate virtual patients under scenarios.", epilog=RESEARCH_ONLY)
@click.argument("population")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FOLDER",
              help="Output folder; results are saved as they are computed.")  # fmt: skip
@click.option("--number", type=int, help="Number of patients  [default: from POPULATION]")
@click.option("--seed", type=int, help="Random seed  [default: from POPULATION]")
@click.option("--resume", is_flag=True, help="Resume the run in FOLDER.")
@workers_options("Threads")
def population(population: str, out: Path, **options: Any) -> None:
    """Draw the virtual patients of POPULATION, simulate each under every scenario, and report.

    POPULATION is a population.toml, its folder, or a shipped name (crs). After an interruption,
    --resume continues, with the same numbers as an uninterrupted run.
    """
    from ..population import load_study, run_population, with_number
    from ..reports import write_population

    study = with_number(load_study(population), options.pop("number"), options.pop("seed"))
    with progress_line() as line:
        report = throttled_progress(line, "patients")
        results = run_population(study, out, progress=report, **options)
    written = write_population(results)
    print_summary(results)
    print_written(written)


def print_summary(results: Results) -> None:
    """Print the patients kept, the share each filter rejects, and the worst grades."""
    from ..population import Summary
    from ..reports import patient_counts

    summary = Summary(results)
    for text in patient_counts(summary):
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
