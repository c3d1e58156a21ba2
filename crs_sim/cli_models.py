"""Commands without simulation: check and show a model, create patient files, export PEtab."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import RESEARCH_ONLY
from .errors import CrsSimError

if TYPE_CHECKING:
    from .export import Exported
    from .problem import FitProblem


@click.command(short_help="Check a model for mistakes.")
@click.argument("model", default="crs")
def check(model: str) -> None:
    """Check MODEL for wrong units, hidden factors, unused names and missing sources."""
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
@click.option("--sbml", "as_sbml", is_flag=True, help="Print SBML instead, for other tools.")
def show(model: str, as_sbml: bool) -> None:
    """List the equations of MODEL, and every number with unit and source."""
    from .modelfolder import load_model

    loaded = load_model(model)
    if as_sbml:
        from .modelfile import sbml

        click.echo(sbml(loaded), nl=False)
        return
    from .checks import listing

    click.echo(listing(loaded), nl=False)


@click.command(short_help="Create template files for a patient.")
@click.argument("place", metavar="DIR|FILE.xlsx", type=click.Path(path_type=Path))
def new(place: Path) -> None:
    """Create a folder with three commented files for a patient, or an Excel workbook."""
    from .patientfiles import new_patient

    made = new_patient(place)
    for file in sorted(made.iterdir()) if made.is_dir() else [made]:
        click.echo(str(file))
    click.echo(f"Fill them in, then: crs-sim simulate {made}\n"
               f"               and: crs-sim fit {made}")  # fmt: skip


@click.command(short_help="Export a problem as PEtab v2.", epilog=RESEARCH_ONLY)
@click.argument("problem")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FOLDER",
              help="Output folder of the SBML file and the tables.")  # fmt: skip
@click.option("--from", "run", metavar="RUN",
              help="Run with the nominal (fitted) values  [default: prior medians]")  # fmt: skip
def export(problem: str, out: Path, run: str | None) -> None:
    """Export PROBLEM as a PEtab v2 folder; observations PEtab cannot express are listed."""
    from .export import export_petab
    from .problem import load_problem, patient_at
    from .storage import load_run, problem_of

    # a patient has no problem.toml, so the prior is that of the run
    from_run = run is not None and patient_at(problem) is not None
    loaded = problem_of(load_run(run)) if run and from_run else load_problem(problem)
    values = None if run is None else fitted_values(loaded, run)
    made = export_petab(loaded, out, values=values)
    print_export(made, len(loaded.patient.observations), out)


def fitted_values(problem: FitProblem, run: str) -> dict[str, float]:
    """The estimates of a run for the parameters that are free in the problem."""
    from .storage import load_run

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
