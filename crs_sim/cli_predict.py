"""The commands that use a finished fit: prediction bands, and fits compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import RESEARCH_ONLY
from .cli_profile import PROBLEM_OPTION, fit_and_folder, print_columns

if TYPE_CHECKING:
    import pandas as pd


@click.command(short_help="Prediction bands of a fit.", epilog=RESEARCH_ONLY)
@click.argument("run")
@click.option("--until", default=40.0, show_default=True, help="Last day.")
@click.option("--draws", default=400, show_default=True,
              help="Of the Laplace approximation, weighted.")  # fmt: skip
@click.option("--from", "table", type=click.Path(path_type=Path), metavar="DRAWS.csv",
              help="Draws of a posterior instead: a column for each free parameter.")  # fmt: skip
@click.option("--level", default=0.95, show_default=True, help="Of the bands in the figure.")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FOLDER",
              help="Where predictions.csv and the figure go.")  # fmt: skip
@PROBLEM_OPTION
def predict(run: str, until: float, level: float, out: Path, **options: object) -> None:
    """Bands of every observable of RUN for what was done: of the curve, and of a reading."""
    from .bandplots import plot_predictions
    from .ensemble import Sampling
    from .output import write_whole
    from .plots import figure_file
    from .predictions import predict as run_predict

    result, _ = fit_and_folder(run, options["problem"])  # type: ignore[arg-type]
    draws = options["draws"] if options["table"] is None else read_draws(options["table"])  # type: ignore[arg-type]
    bands = run_predict(result, draws=draws,  # type: ignore[arg-type]
                        sampling=Sampling(until=until, every_hours=6.0))  # fmt: skip
    figure = plot_predictions(
        bands, result.simulation(bands.days), observations=result.problem.patient.observations,
        level=level, title=f"{result.problem.name}: prediction bands and what was observed",
    )  # fmt: skip
    text = bands.table(sorted({0.5, 0.95, level})).to_csv(index=False, lineterminator="\n")
    files = {out / "predictions.csv": text.encode()}
    for suffix in (".png", ".svg"):
        files[out / f"predictions{suffix}"] = figure_file(figure, f"predictions{suffix}")
    write_whole(files)
    click.echo(f"{bands.source}; {len(bands.ensemble.failures)} could not be run")
    for path in files:
        click.echo(f"wrote {path}")
    click.echo(RESEARCH_ONLY)


def read_draws(path: Path) -> pd.DataFrame:
    """A table of parameter values."""
    import pandas as pd

    from .errors import StorageError

    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise StorageError(f"{path}  is no table of draws: {error}") from None


@click.command("compare-fits", short_help="Fits of the same observations, compared.",
               epilog=RESEARCH_ONLY)  # fmt: skip
@click.argument("runs", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), metavar="TABLE.csv", help="Write it.")
def compare_fits(runs: tuple[str, ...], out: Path | None) -> None:
    """Compare RUNS, fits of the same observations, by AIC and BIC; the best first."""
    from .output import write_whole
    from .structures import compare_fits as compare

    table = compare({name: fit_and_folder(name, None)[0] for name in runs})
    shown = ("fit", "free", "effective", "minus_2_ln_l", "prior_penalty", "delta_aic", "delta_bic",
             "delta_aic_effective")  # fmt: skip
    rows = [[v if isinstance(v, str) else f"{v:.4g}" for v in row]
            for row in table[list(shown)].itertuples(index=False)]  # fmt: skip
    print_columns([shown, *rows])
    if out is not None:
        write_whole({out: table.to_csv(index=False, lineterminator="\n").encode()})
        click.echo(f"wrote {out}")
    click.echo(RESEARCH_ONLY)
