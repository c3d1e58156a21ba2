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
