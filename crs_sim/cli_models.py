"""Commands that look at a model, or make the folder of a new patient."""

from __future__ import annotations

from pathlib import Path

import click

from .errors import CrsSimError


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


@click.command(short_help="Make a patient folder to fill in.")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def new(folder: Path) -> None:
    """Make a patient folder to fill in; every file explains itself."""
    from .patient import new_patient

    made = new_patient(folder)
    for file in sorted(made.iterdir()):
        click.echo(str(file))
    click.echo(f"Fill them in, then: crs-sim simulate {made}")
