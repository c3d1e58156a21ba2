"""Commands that run nothing: look at a model, make a patient's files, write for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import RESEARCH_ONLY
from .errors import CrsSimError

if TYPE_CHECKING:
    from .export import Exported
    from .problem import FitProblem


@click.command(short_help="Look for mistakes in a model.")
@click.argument("model", default="crs")
def check(model: str) -> None:
    """Look for wrong units, hidden factors, unused names, missing sources in MODEL."""
    from .checks import check_model
    from .modelfolder import load_model

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
@click.option("--sbml", "as_sbml", is_flag=True, help="SBML instead, for other tools.")
def show(model: str, as_sbml: bool) -> None:
    """List the equations and every number of MODEL with unit and source."""
    from .modelfolder import load_model

    loaded = load_model(model)
    if as_sbml:
        from .modelfile import sbml

        click.echo(sbml(loaded), nl=False)
        return
    from .checks import listing

    click.echo(listing(loaded), nl=False)


@click.command(short_help="Make a patient's files to fill in.")
@click.argument("place", metavar="DIR|FILE.xlsx", type=click.Path(path_type=Path))
def new(place: Path) -> None:
    """Make a folder with three files for a patient, or an Excel workbook; each explains itself."""
    from .newpatient import new_patient

    made = new_patient(place)
    for file in sorted(made.iterdir()) if made.is_dir() else [made]:
        click.echo(str(file))
    click.echo(f"Fill them in, then: crs-sim simulate {made}\n"
               f"               and: crs-sim fit {made}")  # fmt: skip


@click.command(short_help="Write a problem for other tools (PEtab v2).", epilog=RESEARCH_ONLY)
@click.argument("problem")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FOLDER",
              help="Where the SBML file and the tables go.")  # fmt: skip
@click.option("--from", "run", metavar="RUN",
              help="Nominal values: those fitted in a run  [default: prior medians]")  # fmt: skip
def export(problem: str, out: Path, run: str | None) -> None:
    """Write PROBLEM as a PEtab v2 folder; what PEtab cannot state is named."""
    from .export import export_petab
    from .problem import load_problem, patient_at
    from .storage import load_run, problem_of

    alone = run is not None and patient_at(problem) is not None  # then the run knows the prior
    asked = problem_of(load_run(run)) if run and alone else load_problem(problem)
    values = None if run is None else fitted_values(asked, run)
    made = export_petab(asked, out, values=values)
    print_export(made, len(asked.patient.observations), out)


def fitted_values(problem: FitProblem, run: str) -> dict[str, float]:
    """The estimates of a run for the parameters that are free in the problem."""
    from .storage import load_run

    stored = load_run(run, problem.model)
    for name in problem.names:
        if name not in stored.values:
            click.echo(f"Note: {name} was not fitted in {stored.path}; its prior median is "
                       "written.", err=True)  # fmt: skip
    for name, (then, now) in stored.changed(problem.model).items():
        click.echo(f"Note: {name} was {then:g} in {stored.path}, and is {now:g} now.", err=True)
    return {name: value for name, value in stored.values.items() if name in problem.names}


def print_export(made: Exported, total: int, folder: Path) -> None:
    """What is in it, what is not and why, and how the likelihoods compare."""
    click.echo(f"{len(made.stated)} of {total} observations are in it: {', '.join(made.stated)}")
    reasons: dict[str, list[str]] = {}
    for item in made.left_out:
        reasons.setdefault(item.reason, []).append(item.observation.id)
    for reason, ids in reasons.items():
        click.echo(f"not in it ({reason}): {', '.join(ids)}")
    click.echo(
        f"-2 log-likelihood at the nominal values: {made.deviance:.6g} here, "
        f"{made.deviance + made.constant:.6g} in PEtab, which adds {made.constant:.6g} everywhere"
    )
    for name in made.files:
        click.echo(f"wrote {folder / name}")
    click.echo(RESEARCH_ONLY)
