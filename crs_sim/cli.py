"""The command line: it reads options, calls the package and prints; it decides nothing.

Nothing heavy is imported before a command needs it, so that ``crs-sim --help`` is there at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import RESEARCH_ONLY
from .cli_compare import compare
from .cli_export import export
from .cli_models import check, new, show
from .cli_population import fit_all
from .cli_predict import compare_fits, predict
from .cli_profile import leave_one_out, profile, write_profiles
from .cli_sample import sample
from .cli_virtual import population
from .errors import CrsSimError
from .options import hours_between, parameter_values, short, whole_study
from .progress import progress_line, progress_of

if TYPE_CHECKING:
    from rich.console import Console

    from .fitting import Dropped, Fit
    from .model import Model
    from .patient import Patient
    from .problem import FitProblem
    from .simulation import Simulation
    from .storage import Run
    from .verdict import Judged

MAIN = ("vcn", "ifng", "ifng_total", "il6", "cxcl10", "ferritin", "sil2r", "crp", "psa", "shock",
        "crs_grade")  # fmt: skip
COLUMNS = 8
WIDE = 118
STOPPED = 130


class Commands(click.Group):
    """Every error of ours is one message and exit 1; Ctrl-C is a short one and exit 130."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except CrsSimError as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt:
            click.echo("Stopped; nothing is half-written.", err=True)
            ctx.exit(STOPPED)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]},
             epilog=RESEARCH_ONLY)  # fmt: skip
@click.option("--version", is_flag=True, is_eager=True, expose_value=False,
              callback=lambda ctx, _, asked: print_version(ctx) if asked else None,
              help="Show the version and exit.")  # fmt: skip
def cli() -> None:
    """Simulate cytokine release syndrome, and fit the model to what was measured.

    PATIENT, PROBLEM, MODEL and RUN are folders, or names of what is shipped (ruemmele2025, crs).
    """


def print_version(ctx: click.Context) -> None:
    """The version, and no more."""
    from . import __version__

    click.echo(f"crs-sim {__version__}")
    ctx.exit()


def main() -> None:
    """The entry point of ``crs-sim``."""
    cli(prog_name="crs-sim")


for command in (check, show, new, export, profile, leave_one_out, predict, compare, compare_fits,
                sample, fit_all, population):  # fmt: skip
    cli.add_command(command)


# --- simulate -------------------------------------------------------------------------------------


@cli.command(short_help="Simulate what was done to a patient, or to a study.", epilog=RESEARCH_ONLY)
@click.argument("patient", required=False)
@click.option("--data", type=click.Path(path_type=Path), metavar="STUDY.csv",
              help="A NONMEM or Monolix data set instead of PATIENT; with --model.")  # fmt: skip
@click.option("--model", metavar="MODEL", help="The model for --data.")
@click.option("--columns", type=click.Path(path_type=Path), metavar="MAP.toml",
              help="What the columns of --data mean, where their names do not say.")  # fmt: skip
@click.option("--until", default=40.0, show_default=True, help="Last day.")
@click.option("--every", default="6h", show_default=True, help="Between samples: 6h, 30min, 0.25d.")
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="A parameter's value.")
@click.option("--from", "run", metavar="RUN", help="Take the fitted values of a run.")
@click.option("--method", default="Rosenbrock", show_default=True, help="Solver.")
@click.option("--out", type=click.Path(path_type=Path), metavar="TABLE.csv",
              help="Write all states and quantities; units go beside it.")  # fmt: skip
@click.option("--plot", type=click.Path(path_type=Path), metavar="FIGURE.png",
              help="Draw it (png, svg or pdf).")  # fmt: skip
@click.pass_context
def simulate(ctx: click.Context, /, patient: str | None, **options: Any) -> None:
    """Simulate what was done to PATIENT; print it, or write a table or a figure.

    With --data, simulate every subject of a data set at its own records.
    """
    data, model, columns = (options.pop(name) for name in ("data", "model", "columns"))
    typed = click.core.ParameterSource.COMMANDLINE
    given = [name for name in options if ctx.get_parameter_source(name) is typed]
    if whole_study(patient, data, model, columns, given=given):
        simulate_data(data, model, columns, options)
    else:
        simulate_patient(str(patient), options)


def simulate_data(data: Path, model: str, columns: Path | None, options: dict[str, Any]) -> None:
    """Run a data set; print what was predicted of each record, or write a table."""
    from .output import write_whole
    from .study import failed, simulated, study_files, summary, what_ran

    run = simulated(data, model, columns, parameter_values(options["changes"]), options["method"])
    files = {} if options["out"] is None else study_files(run, options["out"])
    write_whole(files)
    for note in run.study.notes:
        click.echo(f"Note: {note}", err=True)
    if not files:
        print_table(*summary(run))
    click.echo(what_ran(run))
    print_written(list(files))
    if run.failures:
        raise CrsSimError(failed(run))


def simulate_patient(patient: str, options: dict[str, Any]) -> None:
    """Run a patient's scenario; print it, or write a table or a figure."""
    from .output import write_whole
    from .patient import check_against, load_patient
    from .simulation import simulate as run_model

    every = hours_between(options["every"])
    values = parameter_values(options["changes"])
    if options["plot"] is not None:
        from .plots import check_format

        check_format(options["plot"])
    who = load_patient(patient)
    model, run = fitted_model(who, options["run"])
    who = check_against(who, model.with_values(**values))
    sim = run_model(model, who.scenario.with_values(**values), until=options["until"],
                    every_hours=every, method=options["method"])  # fmt: skip
    options |= {"patient": patient, "run": str(run.path) if run else None}
    files = simulation_files(sim, who, options)
    write_whole(files)
    if options["out"] is None:
        print_courses(sim)
    print_run(sim, list(files))


def fitted_model(patient: Patient, run: str | None) -> tuple[Model, Run | None]:
    """The patient's model, with the values of a run if one is named."""
    from .problem import model_of

    model = model_of(patient)
    if run is None:
        return model, None
    from .storage import load_run

    stored = load_run(run, model)
    for name, (then, now) in stored.changed(model).items():
        click.echo(f"Note: {name} was {then:g} in {stored.path}, and is {now:g} now.", err=True)
    return stored.applied_to(model), stored


def simulation_files(
    sim: Simulation, patient: Patient, options: dict[str, Any]
) -> dict[Path, bytes]:
    """What --out and --plot ask for, ready to be written."""
    files: dict[Path, bytes] = {}
    if options["out"] is not None:
        from .output import table_files
        from .storage import versions

        said = {name: str(v) if isinstance(v, Path) else v for name, v in options.items()}
        about = {"versions": versions(), "options": said}
        files |= table_files(sim, options["out"], about)
    if options["plot"] is not None:
        from .plots import figure_file, plot_simulation

        words = " and what was observed" if len(patient.observations) else ""
        figure = plot_simulation(sim, observations=patient.observations,
                                 title=f"{patient.id}: model {sim.model.name}{words}")  # fmt: skip
        files[options["plot"]] = figure_file(figure, options["plot"])
    return files


def print_courses(sim: Simulation) -> None:
    """The main quantities, one row a day."""
    from rich.table import Table

    from .units import pretty

    names = [name for name in MAIN if name in sim.units]
    names = names or [*sim.model.quantity_ids, *sim.model.state_ids][:COLUMNS]
    table = Table(box=None, pad_edge=False)
    for name in ("day", *names):
        unit = "" if name == "day" else pretty(sim.units[name])
        table.add_column(f"{name}\n{'' if unit == '1' else unit}", justify="right", no_wrap=True)
    for row, day in enumerate(sim.days):
        if abs(day - round(day)) < 1e-9 or row == len(sim.days) - 1:
            table.add_row(f"{day:g}", *(short(float(sim[name][row])) for name in names))
    screen().print(table)


def print_run(sim: Simulation, files: Sequence[Path]) -> None:
    """What was run, the worst grade, and what was written."""
    click.echo(f"{sim.scenario.name}: {len(sim.ledger)} doses, day 0 to {sim.days[-1]:g}, model "
               f"{sim.model.name} {sim.model.hash}")  # fmt: skip
    if "crs_grade" in sim.units and len(sim.days) > 1:
        from .endpoints import vasopressor_days, worst_grade

        click.echo(f"worst CRS grade {worst_grade(sim)}; days at grade 3 or above: "
                   f"{vasopressor_days(sim):.1f}")  # fmt: skip
    print_written(files)


def print_written(files: Sequence[Path]) -> None:
    """What was written, and what it is for."""
    for path in files:
        click.echo(f"wrote {path}")
    click.echo(RESEARCH_ONLY)


# --- fit ------------------------------------------------------------------------------------------


@cli.command(short_help="Fit a model to a patient.", epilog=RESEARCH_ONLY)
@click.argument("problem", metavar="PROBLEM|PATIENT")
@click.option("--prior", help="For a patient: name or file of a prior  [default: the model's]")
@click.option("--starts", type=int, help="Descents  [default: the problem's]")
@click.option("--seed", type=int, help="Of the starts  [default: the problem's]")
@click.option("--workers", type=int, help="Processes  [default: one for each core]")
@click.option("--cluster", default="", metavar="ADDRESS",
              help="Descend on a Dask cluster instead: tcp://host:8786.")
@click.option("--drop/--no-drop", default=True, show_default=True,
              help="Also fit again without each free parameter, for its change of AIC.")
@click.option("--profiles", is_flag=True,
              help="Also profile each parameter: what the data tell of it; takes minutes.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Where runs/<date>_<hash> goes  [default: the problem's folder]")  # fmt: skip
def fit(
    problem: str, prior: str | None, drop: bool, profiles: bool, out: Path | None, **options: Any
) -> None:  # fmt: skip
    """Fit the free parameters of PROBLEM; write a run folder and print what came out.

    A PATIENT's folder or Excel file needs no problem.toml: the population prior of the model says
    what is free, and how far from its median it may be.
    """
    from .fitting import drop_one
    from .fitting import fit as run_fit
    from .output import check_folder
    from .problem import load_problem, patient_at
    from .report import write_report
    from .storage import save_run
    from .verdict import judge

    who = patient_at(problem)
    if who is not None and not len(who.observations):
        print_prior(who, prior)
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
            dropped = drop_one(result, workers=options["workers"], cluster=options["cluster"],
                               progress=told)  # fmt: skip
    written = save_run(result, folder, dropped=dropped,
                       also=lambda part: write_report(result, part, dropped))  # fmt: skip
    print_fit(result, judge(result))
    if profiles:  # the fit is safe by now: should this be stopped, `profile --resume` goes on
        write_profiles(result, written, workers=options["workers"])
    click.echo(f"tables, figures and report.md are in {written}")
    click.echo(RESEARCH_ONLY)


def print_prior(patient: Patient, name: str | None) -> None:
    """What is known of a patient of whom nothing was measured: the prior."""
    from .population import load_population
    from .problem import model_of

    known = load_population(model_of(patient), name)
    own = patient.scenario.values
    click.echo(f"{patient.id}: no observation; nothing to fit. What is known is the prior "
               f"{known.name}:\n")  # fmt: skip
    rows = [(row.parameter, f"{row.median:.3g}", f"{row.low:.3g} to {row.high:.3g}")
            for row in known.table().itertuples() if row.parameter not in own]  # fmt: skip
    print_table(("parameter", "median", "95 % of patients"), rows)
    click.echo(f"\nIts medians are the model's own: crs-sim simulate {patient.path}\n"
               f"{RESEARCH_ONLY}")  # fmt: skip


def run_folder(problem: FitProblem, out: Path | None) -> Path:
    """The folder that gets ``runs/``: as asked; else the problem's or the patient's; for a shipped
    problem, one of ours."""
    from .shipped import PACKAGE

    if out is not None:
        return out.parent if out.name == "runs" else out
    path = Path(problem.path)
    if path.suffix == ".xlsx":
        return path.with_suffix("")
    home = path if path.is_dir() else path.parent
    inside_wheel = home.resolve().is_relative_to(PACKAGE)
    return Path("fits") / home.name if inside_wheel else home


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


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A plain table; misses stand out."""
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        style = "bold red" if "miss" in row else ""
        table.add_row(*(Text(cell, style=style) for cell in row))
    screen().print(table)


def screen() -> Console:
    """Standard output; wide enough for our tables where nobody said how wide it is."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDE)
