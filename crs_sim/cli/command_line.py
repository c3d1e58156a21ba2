"""The command line: it reads options, calls the package and prints; it decides nothing.

Nothing heavy is imported before a command needs it, so that ``crs-sim --help`` is fast.

Slow imports are deferred until a command needs them, so that ``crs-sim --help`` is fast.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import (
    RESEARCH_ONLY,
    CrsSimError,
    InputError,
    Notice,
    Question,
    command,
    misspelt,
)
from .fit import fit, fit_all, replay
from .options import (
    DataSetSource,
    data_set,
    data_set_options,
    format_short,
    hours_between,
    parameter_values,
    print_table,
    print_written,
    screen,
)
from .predict import compare, compare_fits, predict
from .scenarios import list_names, population, search, sensitivity
from .uncertainty import leave_one_out, profile, sample

if TYPE_CHECKING:
    from ..exchange import Exported
    from ..fitting import FitProblem, Run
    from ..model import Model
    from ..patients import Patient
    from ..simulation import Simulation


@click.command(short_help="Check a model for mistakes.")
@click.argument("model", default="crs")
def check(model: str) -> None:
    """Check MODEL for wrong units, hidden factors, unused names and missing sources."""
    from ..model import check_model, load_model

    loaded = load_model(model)
    issues = check_model(loaded)
    for issue in issues:
        click.echo(str(issue))
    if issues:
        raise CrsSimError(f"{loaded.path or loaded.name}  issues found: {len(issues)}")
    click.echo(
        f"{loaded.path}: {len(loaded.states)} states, {len(loaded.parameters)} parameters, "
        f"{len(loaded.quantities)} quantities, {len(loaded.drugs)} drugs; no issues"
    )


@click.command(short_help="List a model's equations, numbers and sources.")
@click.argument("model", default="crs")
@click.option("--sbml", "as_sbml", is_flag=True, help="Print SBML instead, for other tools.")
def show(model: str, as_sbml: bool) -> None:
    """List the equations of MODEL, and every number with unit and source."""
    from ..model import load_model

    loaded = load_model(model)
    if as_sbml:
        from ..model import sbml

        click.echo(sbml(loaded), nl=False)
        return
    from ..model import listing

    click.echo(listing(loaded), nl=False)


@click.command(short_help="Create template files for a patient.")
@click.argument("place", metavar="DIR|FILE.xlsx", type=click.Path(path_type=Path))
@click.option("--problem", is_flag=True, help="For a patient that exists: write the problem.toml, "
              "in which priors, bounds and what is free can be changed.")  # fmt: skip
@click.option("--prior", help="With --problem: name or file of a prior  [default: the model's]")
def new(place: Path, problem: bool, prior: str | None) -> None:
    """Create three commented files for a patient, or a workbook; or --problem of one there is."""
    from ..patients import load_patient, new_patient

    if problem:
        from ..fitting import write_problem

        click.echo(f"wrote {write_problem(load_patient(place), prior=prior)}")
        return
    if prior is not None:
        raise InputError("--prior  belongs to --problem; add it, or leave --prior out")
    made = new_patient(place)
    for file in sorted(made.iterdir()) if made.is_dir() else [made]:
        click.echo(str(file))
    click.echo(f"Fill them in, then: {command('simulate', made)}\n"
               f"               and: {command('fit', made)}")  # fmt: skip


@click.command(short_help="Export a problem as PEtab v2.", epilog=RESEARCH_ONLY)
@click.argument("problem")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FOLDER",
              help="Output folder of the SBML file and the tables.")  # fmt: skip
@click.option("--from", "run", metavar="RUN",
              help="Run with the nominal (fitted) values  [default: prior medians]")  # fmt: skip
def export(problem: str, out: Path, run: str | None) -> None:
    """Export PROBLEM as a PEtab v2 folder; observations PEtab cannot express are listed."""
    from ..exchange import export_petab
    from ..fitting import load_problem, load_run, problem_of
    from ..patients import patient_at

    # a patient has no problem.toml, so the prior is that of the run
    from_run = run is not None and patient_at(problem) is not None
    loaded = problem_of(load_run(run)) if run and from_run else load_problem(problem)
    values = None if run is None else fitted_values(loaded, run)
    made = export_petab(loaded, out, values=values)
    print_export(made, len(loaded.patient.observations), out)


def fitted_values(problem: FitProblem, run: str) -> dict[str, float]:
    """The estimates of a run for the parameters that are free in the problem."""
    from ..fitting import load_run

    stored = load_run(run, problem.model)
    for name in problem.names:
        if name not in stored.values:
            click.echo(f"Note: {name} was not fitted in {stored.path}; its prior median is "
                       "exported.", err=True)  # fmt: skip
    for name, (then, now) in stored.changed(problem.model).items():
        click.echo(f"Note: {name} was {then:g} in {stored.path}, and is {now:g} now.", err=True)
    return {name: value for name, value in stored.values.items() if name in problem.names}


def print_export(made: Exported, total: int, folder: Path) -> None:
    """Print the observations exported and left out, the two likelihoods, and the files."""
    click.echo(f"{len(made.stated)} of {total} observations exported: {', '.join(made.stated)}")
    reasons: dict[str, list[str]] = {}
    for item in made.left_out:
        reasons.setdefault(item.reason, []).append(item.observation.id)
    for reason, ids in reasons.items():
        click.echo(f"not exported ({reason}): {', '.join(ids)}")
    click.echo(
        f"-2 log-likelihood at the nominal values: {made.deviance:.6g} here, "
        f"{made.deviance + made.constant:.6g} in PEtab, which adds the constant {made.constant:.6g}"
    )
    for name in made.files:
        click.echo(f"wrote {folder / name}")
    click.echo(RESEARCH_ONLY)


MAIN = ("vcn", "ifng", "ifng_total", "il6", "cxcl10", "ferritin", "sil2r", "crp", "psa", "shock",
        "crs_grade")  # fmt: skip
COLUMNS = 8
STOPPED = 130


class Commands(click.Group):
    """Report errors of this package as one message with exit 1; Ctrl-C exits with 130.

    Notices are printed as they are made, each once.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            with notices_printed():
                return super().invoke(ctx)
        except click.NoSuchOption as error:
            meant = misspelt(error.option_name, error.possibilities or ())
            raise click.NoSuchOption(
                error.option_name, possibilities=meant, ctx=error.ctx
            ) from None
        except CrsSimError as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt:
            click.echo("Stopped; no file is incomplete.", err=True)
            ctx.exit(STOPPED)


@contextmanager
def notices_printed() -> Iterator[None]:
    """Print each `Notice` once, to standard error; other warnings go their usual way."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", Notice)
        before, told = warnings.showwarning, set()

        def show_notice(message: Any, category: type[Warning], *more: Any, **named: Any) -> None:
            if not issubclass(category, Notice):
                before(message, category, *more, **named)
            elif str(message) not in told:
                told.add(str(message))
                word = "Question" if issubclass(category, Question) else "Note"
                click.echo(f"{word}: {message}", err=True)

        warnings.showwarning = show_notice
        yield


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]},
             epilog=RESEARCH_ONLY)  # fmt: skip
@click.option("--version", is_flag=True, is_eager=True, expose_value=False,
              callback=lambda ctx, _, version: print_version(ctx) if version else None,
              help="Show the version and exit.")  # fmt: skip
def cli() -> None:
    """Simulate cytokine release syndrome, and fit the model to observations.

    PATIENT, PROBLEM, MODEL and RUN are folders, or names of shipped ones (ruemmele2025, crs).
    """


def print_version(ctx: click.Context) -> None:
    """Print the version and exit."""
    from ..store import package_version

    click.echo(f"crs-sim {package_version()}")
    ctx.exit()


def main() -> None:
    """The entry point of ``crs-sim``."""
    cli(prog_name="crs-sim")


for each in (check, show, list_names, new, fit, fit_all, replay, export, profile, leave_one_out,
             predict, compare, compare_fits, sensitivity, search, population,
             sample):  # fmt: skip
    cli.add_command(each)


# --- simulate -------------------------------------------------------------------------------------


@cli.command(short_help="Simulate the treatment of a patient, or a data set.", epilog=RESEARCH_ONLY)
@click.argument("patient", required=False)
@data_set_options
@click.option("--until", default=40.0, show_default=True, help="Last day.")
@click.option("--every", default="6h", show_default=True, help="Sampling: 6h, 30min, 0.25d.")
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="Set a parameter.")
@click.option("--from", "run", metavar="RUN", help="Use the fitted values of a run.")
@click.option("--method", default="Rosenbrock", show_default=True, help="Solver.")
@click.option("--out", type=click.Path(path_type=Path), metavar="TABLE.csv",
              help="Write all states and quantities; units go to a file beside it.")  # fmt: skip
@click.option("--plot", type=click.Path(path_type=Path), metavar="FIGURE.png",
              help="Write a figure (png, svg or pdf).")  # fmt: skip
@click.pass_context
def simulate(ctx: click.Context, /, patient: str | None, **options: Any) -> None:
    """Simulate the treatment of PATIENT; print the results, or write a table or a figure.

    With --data, simulate every subject of a data set at its own records.
    """
    command_line = click.core.ParameterSource.COMMANDLINE
    given = [name for name in options if ctx.get_parameter_source(name) is command_line]
    source = data_set("simulate", patient, options, given)
    if source is None:
        simulate_patient(str(patient), options)
    else:
        simulate_data(source, options)


def simulate_data(source: DataSetSource, options: dict[str, Any]) -> None:
    """Simulate a data set; print the prediction for each record, or write a table."""
    from ..fitting import failure_message, run_description, simulate_data_set, study_files, summary
    from ..store import write_atomic

    run = simulate_data_set(*source, parameter_values(options["changes"]), options["method"])
    files = {} if options["out"] is None else study_files(run, options["out"])
    write_atomic(files)
    for note in run.study.notes:
        click.echo(f"Note: {note}", err=True)
    if not files:
        print_table(*summary(run))
    click.echo(run_description(run))
    print_written(list(files))
    if run.failures:
        raise CrsSimError(failure_message(run))


def simulate_patient(patient: str, options: dict[str, Any]) -> None:
    """Simulate a patient's scenario; print it, or write a table or a figure."""
    from dataclasses import replace

    from ..patients import check_against, load_patient
    from ..simulation import simulate as run_model
    from ..store import write_atomic

    every = hours_between(options["every"])
    values = parameter_values(options["changes"])
    if options["plot"] is not None:
        from ..figures import check_format

        check_format(options["plot"])
    loaded = load_patient(patient)
    model, run = fitted_model(loaded, options["run"])
    changed = model.with_values(**values)
    loaded = replace(loaded, scenario=loaded.scenario.with_values(**values))
    loaded = check_against(loaded, changed)
    sim = run_model(model, loaded.scenario, until=options["until"],
                    every_hours=every, method=options["method"])  # fmt: skip
    whose = values_words(loaded, run, values)
    options |= {"patient": patient, "run": str(run.path) if run else None, "values": whose}
    files = simulation_files(sim, loaded, options)
    write_atomic(files)
    if options["out"] is None:
        print_courses(sim)
    click.echo(f"values: {whose}")
    print_run(sim, list(files))


def fitted_model(patient: Patient, run: str | None) -> tuple[Model, Run | None]:
    """The patient's model, with the values of a run if one is named."""
    from ..patients import model_for_patient

    model = model_for_patient(patient)
    if run is None:
        return model, None
    from ..fitting import load_run

    stored = load_run(run, model)
    for name, (then, now) in stored.changed(model).items():
        click.echo(f"Note: {name} was {then:g} in {stored.path}, and is {now:g} now.", err=True)
    return stored.applied_to(model), stored


def values_words(patient: Patient, run: Run | None, changes: dict[str, float]) -> str:
    """Whose values a simulation uses: the model's own, or those of a fit, and of which patient."""
    words = "the model's own, not fitted"
    if run is not None:
        about = run.result["problem"]
        other = about.get("patient", patient.id) != patient.id
        whose = f"another patient, {about['patient']}" if other else patient.id
        words = f"fit of {whose} ({run.path.name})"
        for text in run.result.get("warnings", ()):
            click.secho(f"Warning: the fit says: {text}.", bold=True, err=True)
    changed = ", ".join(f"{name} = {value:g}" for name, value in changes.items())
    return f"{words}, but {changed}" if changed else words


def simulation_files(
    sim: Simulation, patient: Patient, options: dict[str, Any]
) -> dict[Path, bytes]:
    """The files of --out and --plot, ready to be written."""
    files: dict[Path, bytes] = {}
    if options["out"] is not None:
        from ..simulation import table_files
        from ..store import versions

        recorded = {name: str(v) if isinstance(v, Path) else v for name, v in options.items()}
        about = {"versions": versions(), "options": recorded}
        files |= table_files(sim, options["out"], about)
    if options["plot"] is not None:
        from ..figures import figure_file, plot_simulation

        with_data = " and observations" if len(patient.observations) else ""
        title = f"{patient.id}: model {sim.model.name}{with_data}\nvalues: {options['values']}"
        figure = plot_simulation(sim, observations=patient.observations, title=title)
        files[options["plot"]] = figure_file(figure, options["plot"])
    return files


def print_courses(sim: Simulation) -> None:
    """Print the main quantities, one row per day."""
    from rich.table import Table

    from ..model import pretty

    names = [name for name in MAIN if name in sim.units]
    names = names or [*sim.model.quantity_ids, *sim.model.state_ids][:COLUMNS]
    table = Table(box=None, pad_edge=False)
    for name in ("day", *names):
        unit = "" if name == "day" else pretty(sim.units[name])
        table.add_column(f"{name}\n{'' if unit == '1' else unit}", justify="right", no_wrap=True)
    for row, day in enumerate(sim.days):
        if abs(day - round(day)) < 1e-9 or row == len(sim.days) - 1:
            table.add_row(f"{day:g}", *(format_short(float(sim[name][row])) for name in names))
    screen().print(table)


def print_run(sim: Simulation, files: Sequence[Path]) -> None:
    """Print the scenario and model, the worst grade, and the files written."""
    given = f"{len(sim.ledger.given)} doses"
    given += f" and {len(sim.ledger.held)} held" if sim.ledger.held else ""
    click.echo(f"{sim.scenario.name}: {given}, day 0 to {sim.days[-1]:g}, model "
               f"{sim.model.name} {sim.model.hash}")  # fmt: skip
    if "crs_grade" in sim.units and len(sim.days) > 1:
        from ..simulation import vasopressor_days, worst_grade

        click.echo(f"worst CRS grade {worst_grade(sim)}; days at grade 3 or above: "
                   f"{vasopressor_days(sim):.1f}")  # fmt: skip
    print_written(files)
