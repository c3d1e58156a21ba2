"""The commands that use a fit: prediction bands, alternative scenarios, comparison of fits."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import RESEARCH_ONLY, InputError, StorageError, command
from .options import (
    PROBLEM_OPTION,
    DataSetSource,
    data_set,
    data_set_options,
    file_of_problem,
    folder_of,
    format_short,
    print_columns,
    print_verdict,
    print_written,
    progress_line,
    throttled_progress,
)

if TYPE_CHECKING:
    import pandas as pd
    from rich.progress import Progress

    from ..fitting import Fit
    from ..patients import Observations, Patient
    from ..scenarios import Comparison, Questions
    from ..simulation import Sampling, Simulation
    from ..uncertainty import Draws, Omission, Predictions

VERDICT = "verdict.txt"
"""What the fit says of itself, beside what is made with it."""
POSTERIOR = "posterior/posterior.json"
"""The file `crs-sim sample` writes if its output folder is the problem's ``posterior/``."""


@click.command(short_help="Prediction bands of a fit, or of a prior.", epilog=RESEARCH_ONLY)
@click.argument("run", metavar="RUN|PATIENT", required=False)
@data_set_options
@click.option("--subject", metavar="ID", default="", help="The subject of --data.")
@click.option("--until", default=40.0, show_default=True, help="Last day.")
@click.option("--draws", type=int, help="Draws of the weighted Laplace approximation or a prior  "
              "[default: those in the problem's posterior/, else 400, of the posterior where that "
              "approximation is poor]")  # fmt: skip
@click.option(
    "--from",
    "table",
    type=click.Path(path_type=Path),
    metavar="DRAWS.csv",
    help="Use draws of a posterior (crs-sim sample): the file or its folder.",
)
@click.option("--prior", metavar="NAME", help="Draw patients from this prior, without a fit.")
@click.option("--level", default=0.95, show_default=True, help="Level of the bands in the figure.")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FOLDER",
              help="Output folder of predictions.csv and the figure.")  # fmt: skip
@PROBLEM_OPTION
def predict(run: str | None, subject: str, prior: str | None, **options: Any) -> None:
    """Compute prediction bands for every observable of RUN: of the curve, and of a new reading.

    For a PATIENT without observations, with --prior, and for a subject of --data, the bands are
    those of patients drawn from the prior.
    """
    from ..simulation import EVERY_HOURS, Sampling
    from ..store import check_folder

    source = data_set("predict", run, options)
    check_folder(options["out"])
    sampling = Sampling(until=options["until"], every_hours=EVERY_HOURS)
    patient = (patient_without_data(str(run), prior) if source is None
               else one_subject(source, subject))  # fmt: skip
    if patient is not None:
        predict_from_prior(patient, prior, sampling, options)
        return
    from ..fitting import load_fit, verdict
    from ..uncertainty import predict as run_predict

    result = load_fit(str(run), options["problem"])
    problem = result.problem
    with progress_line() as line:
        draws = requested_draws(str(run), options, result, line)
    print_verdict(result)
    bands = run_predict(result, draws=draws, sampling=sampling)
    write_bands(bands, result.simulation(bands.days), problem.patient.observations,
                f"{problem.name}: prediction bands and observations", options,
                verdict(result).text)  # fmt: skip


def one_subject(source: DataSetSource, id: str) -> Patient:
    """A subject of a data set: the only one, if no id is given."""
    from ..model import load_model
    from ..patients import subject_of

    return subject_of(source.data, load_model(source.model), id, columns=source.columns)


def patient_without_data(name: str, prior: str | None) -> Patient | None:
    """The patient to predict from a prior; None if ``name`` is a run or has observations."""
    from ..patients import FILES, load_patient, patient_at
    from ..store import is_workbook

    if prior is not None:
        return load_patient(name)
    home = Path(name)
    if not (is_workbook(home) or (home / FILES["patient"]).exists()):
        return None
    patient = patient_at(home)
    return None if patient is None or len(patient.observations) else patient


def predict_from_prior(
    patient: Patient, prior: str | None, sampling: Sampling, options: dict[str, Any]
) -> None:
    """Write the bands of patients drawn from a prior, under the treatment of this patient."""
    from ..fitting import load_population
    from ..patients import check_against, model_for_patient
    from ..simulation import simulate
    from ..uncertainty import predict_prior

    for name, option in (("table", "--from"), ("problem", "--problem")):
        if options[name] is not None:
            raise InputError(f"{option}  applies to a fit, not to bands of a prior; leave it out")
    population = load_population(model_for_patient(patient), prior)
    bands = predict_prior(population, patient, count=draw_count(options), sampling=sampling)
    patient = check_against(patient, population.model)
    central = simulate(population.model.with_values(**population.medians), patient.scenario,
                       days=bands.days)  # fmt: skip
    title = f"{patient.id}: prediction bands of the prior"
    write_bands(bands, central, patient.observations, title, options)


def write_bands(
    bands: Predictions, central: Simulation, observed: Observations, title: str,
    options: dict[str, Any], said: str = "",
) -> None:  # fmt: skip
    """Write table, figure and what the fit says of itself; print the source of the bands."""
    from ..figures import figure_files, plot_predictions
    from ..store import csv_file, write_atomic

    level, out = options["level"], options["out"]
    figure = plot_predictions(bands, central, observations=observed, level=level, title=title)
    files = {out / "predictions.csv": csv_file(bands.table(sorted({0.5, 0.95, level}))),
             **figure_files(figure, out / "predictions")}  # fmt: skip
    write_atomic(files | ({out / VERDICT: said.encode()} if said else {}))
    click.echo(f"{bands.source}; {len(bands.ensemble.failures)} could not be run")
    print_written(files)


@click.command(short_help="Compare alternative scenarios.", epilog=RESEARCH_ONLY)
@click.argument("run")
@click.option("--scenarios", "file", type=click.Path(path_type=Path), metavar="SCENARIOS.toml",
              help="Scenarios to compare  [default: scenarios.toml of the problem]")  # fmt: skip
@click.option("--draws", type=int, help="Number of draws of the weighted Laplace approximation  "
              "[default: those in the problem's posterior/, else 400, of the posterior where that "
              "approximation is poor]")  # fmt: skip
@click.option("--from", "table", type=click.Path(path_type=Path), metavar="DRAWS.csv",
              help="Use draws of a posterior, as written by crs-sim sample.")  # fmt: skip
@click.option("--level", default=0.95, show_default=True, help="Level of intervals and bands.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Output folder of comparison.csv and figure  [default: print only]")  # fmt: skip
@click.option("--workers", type=int, help="Threads  [default: one for each core]")
@PROBLEM_OPTION
def compare(
    run: str, file: Path | None, level: float, out: Path | None, workers: int | None,
    **options: Any,
) -> None:  # fmt: skip
    """Compare the treatment of the patient of RUN with alternative scenarios.

    RUN is a fit, or a problem (its latest fit is used). All scenarios are simulated with the same
    parameter draws, so that differences are within one patient. The first row is the treatment as
    given.
    """
    from ..fitting import load_fit
    from ..scenarios import SCENARIOS, compare as run_compare, load_scenarios
    from ..simulation import EVERY_HOURS, Sampling
    from ..store import check_folder

    if not 0 < level < 1:
        raise InputError(f"--level is {level:g}; give a value between 0 and 1, such as 0.95")
    if out is not None:
        check_folder(out)
    result = load_fit(run, options["problem"])
    path = file or file_of_problem(run, SCENARIOS, "--scenarios")
    questions = load_scenarios(path, result.problem.patient.scenario, result.model)
    with progress_line() as line:
        draws = requested_draws(run, options, result, line)
    print_verdict(result)
    with progress_line() as line:
        found = run_compare(
            result, questions.scenarios, questions.endpoints, draws=draws,
            sampling=Sampling(until=questions.until, every_hours=EVERY_HOURS), workers=workers,
            progress=throttled_progress(line, "draws"),
        )  # fmt: skip
    print_comparison(found, level)
    print_written([] if out is None else write_comparison(found, questions, result, out, level))


def requested_draws(
    run: str, options: dict[str, Any], result: Fit, line: Progress, count: int = 0
) -> Draws | int:
    """The draws of --from, else the number --draws, else the posterior beside the problem.

    A posterior of a different problem is reported and ignored. If there is none, ``count`` draws
    are made (0: the usual number), of the posterior where the normal approximation is poor.
    """
    from ..uncertainty import DRAWS, posterior_draws, read_draws

    if options["table"] is not None:
        return read_draws(options["table"], result.problem)
    if options["draws"] is not None:
        return draw_count(options)
    with suppress(InputError):
        beside = file_of_problem(run, POSTERIOR, "--from").parent
        try:
            return read_draws(beside, result.problem)
        except StorageError as error:
            click.echo(f"Note: {error}; its draws are not used", err=True)
    report = throttled_progress(line, "the posterior", "ln posterior {:.1f}".format)
    return posterior_draws(result, count or DRAWS, progress=report)


def draw_count(options: dict[str, Any]) -> int:
    """The number of draws."""
    from ..uncertainty import DRAWS

    count = DRAWS if options["draws"] is None else int(options["draws"])
    if count < 1:
        raise InputError(f"--draws is {count}; give 1 or more")
    return count


def print_comparison(found: Comparison, level: float) -> None:
    """Print one table per endpoint, the extrapolated scenarios, and the source of the draws."""
    from ..figures import unit_text
    from ..scenarios import RESOLUTION

    table, percent = found.table(level), f"{100 * level:g} %"
    head = ["", "median", percent, f"minus {found.scenarios[0]}", percent, "lower in"]
    for end in found.endpoints:
        rows = table[table["endpoint"] == end.name].to_dict("records")
        click.echo(f"{end.label} ({end.name}), {unit_text(end.unit)}")
        print_columns([head, *(_row(row, first=not n) for n, row in enumerate(rows))])
        click.echo()
    for scenario, text in zip(found.scenarios, found.outside, strict=True):
        if text:
            click.echo(f"* {scenario}: extrapolated: {text}")
    click.echo(f"Differences of less than {RESOLUTION:.1%} of the value as given count as 0: they "
               "may be the solver's error.")  # fmt: skip
    failed = len(found.predictions.ensemble.failures)
    click.echo(f"{found.predictions.source.rstrip('.')}; {failed} runs failed")


def _row(row: Mapping[Hashable, Any], *, first: bool) -> list[str]:
    """Table cells of a scenario: its level, then the paired difference from the first scenario."""
    name = f"{row['scenario']}{' *' if row['outside'] else ''}"
    level = [
        name,
        format_short(row["median"]),
        f"{format_short(row['low'])} to {format_short(row['high'])}",
    ]
    if first:
        return [*level, "", "", ""]
    off = f"{format_short(row['difference_low'])} to {format_short(row['difference_high'])}"
    return [
        *level,
        format_short(row["difference"]),
        off,
        f"{100 * row['chance_lower']:.0f} % of draws",
    ]


def write_comparison(
    found: Comparison, questions: Questions, result: Fit, out: Path, level: float
) -> list[Path]:
    """Write the table, the figure, and the doses under every scenario."""
    from ..figures import figure_files, plot_comparison
    from ..fitting import verdict
    from ..store import csv_file, write_atomic

    title = f"{result.problem.name}: treatment as given and alternative scenarios"
    figure = plot_comparison(found, courses=questions.courses, level=level, title=title)
    files = {out / "comparison.csv": csv_file(found.table(level), digits=6)}
    files[out / "ledger.csv"] = csv_file(_ledger(found))
    files[out / VERDICT] = verdict(result).text.encode()
    files |= figure_files(figure, out / "comparison")
    write_atomic(files)
    return list(files)


def _ledger(found: Comparison) -> pd.DataFrame:
    """Every dose given or withheld at the estimates, under every scenario."""
    import pandas as pd

    parts = [run.ledger.table().assign(scenario=run.scenario.name) for run in found.runs]
    return pd.concat(parts, ignore_index=True)


@click.command("compare-fits", short_help="Compare fits of the same observations.",
               epilog=RESEARCH_ONLY)  # fmt: skip
@click.argument("runs", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), metavar="TABLE.csv",
              help="Write the table.")  # fmt: skip
def compare_fits(runs: tuple[str, ...], out: Path | None) -> None:
    """Compare RUNS, fits of the same observations, by AIC and BIC; the best first.

    If leave-one-out has written leave_one_out.jsonl beside a run, its cross-validated predictive
    density is shown too (held_out, -2 ln density: lower is better).
    """
    from ..fitting import load_fit
    from ..store import csv_file, write_atomic
    from ..uncertainty import compare_fits as compare

    fits = {name: load_fit(name) for name in runs}
    table = compare(fits, left_out_of(fits))
    columns = ("fit", "free", "effective", "minus_2_ln_l", "prior_penalty", "delta_aic",
               "delta_bic", "delta_aic_effective", "held_out")  # fmt: skip
    rows = [[v if isinstance(v, str) else "" if v != v else f"{v:.4g}" for v in row]
            for row in table[list(columns)].itertuples(index=False)]  # fmt: skip
    print_columns([columns, *rows])
    for name in table.loc[table["held_out"].isna(), "fit"]:
        click.echo(f"held_out of {name}: {command('leave-one-out', name)} first")
    if out is not None:
        write_atomic({out: csv_file(table)})
        click.echo(f"wrote {out}")
    click.echo(RESEARCH_ONLY)


def left_out_of(fits: Mapping[str, Fit]) -> dict[str, Sequence[Omission]]:
    """The leave-one-out results beside each run, where available."""
    from ..uncertainty import read_omissions

    found = {name: read_omissions(folder_of(name) / "leave_one_out.jsonl", fit)
             for name, fit in fits.items()}  # fmt: skip
    return {name: omissions for name, omissions in found.items() if omissions}
