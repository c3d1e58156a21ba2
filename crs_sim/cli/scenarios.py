"""The commands `search`, `sensitivity`, `population` and `list`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import RESEARCH_ONLY, InputError, command
from .options import (
    PROBLEM_OPTION,
    file_of_problem,
    format_short,
    print_columns,
    print_verdict,
    print_written,
    progress_line,
    throttled_progress,
    workers_options,
)
from .predict import VERDICT, requested_draws

if TYPE_CHECKING:
    from rich.progress import Progress

    from ..fitting import Fit
    from ..model import Model
    from ..population import Results
    from ..scenarios import Comparison, Search, Sensitivity
    from ..simulation import Workers

FIT, PRIOR = "draws of the fit", "virtual patients of the prior"
FRONT_DRAWS = 200
"""Draws for the front, if there is no posterior beside the problem."""


@click.command(short_help="Search for Pareto-optimal schedules.", epilog=RESEARCH_ONLY)
@click.argument("run")
@click.option(
    "--space",
    type=click.Path(path_type=Path),
    metavar="SEARCH.toml",
    help="Variables and endpoints of the search  [default: search.toml of the problem]",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Output folder of trials, tables, figure and chosen.toml.",
)
@click.option("--resume", is_flag=True, help="Resume with the trials in FOLDER.")
@click.option(
    "--choose",
    type=int,
    metavar="TRIAL",
    help="Trial for chosen.toml  [default: the one on the front nearest to its corner]",
)
@click.option("--draws", type=int, help="Draws of the weighted Laplace approximation for the "
              "front; 0 for none  [default: those in the problem's posterior/, else 200, of the "
              "posterior where that approximation is poor]")  # fmt: skip
@click.option("--from", "table", type=click.Path(path_type=Path), metavar="DRAWS.csv",
              help="Use draws of a posterior, as written by crs-sim sample.")  # fmt: skip
@click.option("--patients", default=0, show_default=True,
              help="Virtual patients from the problem's prior, for the front.")  # fmt: skip
@workers_options("Threads", " Trials run there; draws on the front run in local threads.")
@PROBLEM_OPTION
def search(
    run: str, space: Path | None, out: Path, resume: bool, workers: Workers, **options: Any
) -> None:
    """Search schedules for the patient of RUN: the Pareto front of two endpoints.

    Each schedule is simulated at the estimates; those on the front are then simulated with draws
    of the parameters and compared with the treatment as given. Trials are saved as they are made;
    after an interruption, continue with --resume.
    """
    from ..fitting import load_fit
    from ..reports import CHOSEN
    from ..scenarios import SEARCH, load_search, search as run_search
    from ..store import check_folder

    for name in ("draws", "patients"):
        if options[name] is not None and options[name] < 0:
            raise InputError(f"--{name} is {options[name]}; give 0 or more")
    result = load_fit(run, options["problem"])
    file = space or file_of_problem(run, SEARCH, "--space")
    question = load_search(file, result.problem.patient.scenario, result.model)
    check_folder(out)
    print_verdict(result)
    with progress_line() as line:
        found = run_search(result, question, folder=out, resume=resume, workers=workers,
                           progress=throttled_progress(line, "trials"))  # fmt: skip
        chosen = found.best if options["choose"] is None else options["choose"]
        found.scenario(chosen)  # raises an error if there is no such trial
        local = None if isinstance(workers, str) else workers
        comparisons = _drawn(result, found, chosen, {**options, "run": run}, local, line)
    _print_search(found, chosen)
    _print_outside(comparisons, f"trial {chosen}")
    print_written(_write_search(found, chosen, comparisons, out, result))
    click.echo(f"Full comparison: {command('compare', run, '--scenarios', out / CHOSEN)}")


def _drawn(
    result: Fit, found: Search, chosen: int, options: dict[str, Any], workers: int | None,
    line: Progress,
) -> dict[str, Comparison]:  # fmt: skip
    """The front with draws of the fit and in virtual patients, as far as requested."""
    from ..scenarios import compare_trials, prior_draws, thin_front

    trials = thin_front(found.front, chosen)
    samples: dict[str, Any] = {}
    if options["table"] is not None or options["draws"] != 0:
        samples[FIT] = requested_draws(options["run"], options, result, line, FRONT_DRAWS)
    if options["patients"]:
        samples[PRIOR] = prior_draws(result, options["patients"], seed=found.question.plan.seed)
    return {
        label: compare_trials(result, found, trials, draws=draws, workers=workers,
                     progress=throttled_progress(line, label))
        for label, draws in samples.items()
    }  # fmt: skip


def _print_search(found: Search, chosen: int) -> None:
    """Print the front with the chosen trial marked, and the schedule as given below it."""
    question = found.question
    ends = [e.name for e in question.objectives]
    rows = [[f"{'>' if t == chosen else ' '} {t}", *map("{:g}".format, found.points[t]),
             *map(format_short, found.values[t])] for t in found.front]  # fmt: skip
    head = ["  trial", *(v.name for v in question.variables), *ends]
    units = ["", *(v.unit for v in question.variables), *(e.unit for e in question.objectives)]
    given = ["  as given", *("" for _ in question.variables), *map(format_short, found.given)]
    print_columns([head, units, *rows, given])
    click.echo(f"\n{found.verdict()}")
    for trial, text in list(found.failures.items())[:5]:
        click.echo(f"trial {trial} failed: {text}")


def _print_outside(comparisons: dict[str, Comparison], name: str) -> None:
    """Print where the chosen schedule extrapolates beyond the data, and the source of draws."""
    for seen in comparisons.values():
        text = seen.outside[seen.scenarios.index(name)]
        if text:
            click.echo(f"{name}: extrapolated: {text}")
            break
    for seen in comparisons.values():
        failed = len(seen.predictions.ensemble.failures)
        click.echo(f"{seen.predictions.source}; {failed} runs failed")


def _write_search(
    found: Search, chosen: int, comparisons: dict[str, Comparison], out: Path, result: Fit
) -> list[Path]:
    from ..figures import figure_files, plot_front
    from ..fitting import verdict
    from ..reports import files_of_search
    from ..store import write_atomic

    files = files_of_search(found, chosen, comparisons=comparisons, folder=out)
    title = f"{result.problem.name}: schedules tried, and the Pareto front"
    first = next(iter(comparisons.values()), None)
    figure = plot_front(found, first, chosen=chosen, title=title)
    files |= figure_files(figure, out / "pareto")
    files[out / VERDICT] = verdict(result).text.encode()
    write_atomic(files)
    return list(files)


SAMPLES = {"sobol": 256, "morris": 64}
PRINTED = 5


@click.command(short_help="Global sensitivity analysis of endpoints.", epilog=RESEARCH_ONLY)
@click.argument("run")
@click.option("--endpoint", "names", multiple=True, required=True, metavar="NAME",
              help="peak_X, day_of_peak_X, auc_X, X_dDAY, worst_grade, vasopressor_days; "
                   "repeatable.")  # fmt: skip
@click.option("--method", default="sobol", show_default=True,
              help="sobol (shares of the variance), or morris (cheap, ranking only).")  # fmt: skip
@click.option(
    "--samples",
    type=int,
    help="Sobol points, a power of two  [256]; Morris trajectories  [64].",
)
@click.option("--within", type=float, metavar="LEVEL",
              help="Vary over the fit's intervals of this level, not the priors.")  # fmt: skip
@click.option("--until", default=40.0, show_default=True, help="Last day.")
@click.option("--seed", default=1, show_default=True, help="Random seed of the design.")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FOLDER",
              help="Output folder of runs, tables and figures.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Resume with the runs in FOLDER.")
@workers_options("Threads")
@PROBLEM_OPTION
def sensitivity(
    run: str, names: tuple[str, ...], out: Path, resume: bool, workers: Workers,
    **options: Any,
) -> None:  # fmt: skip
    """Find the parameters that drive endpoints under the treatment of the patient of RUN.

    All free parameters are varied together over their priors (or --within the fit's intervals),
    then one at a time for the tornado plot. Each run is saved; after an interruption, continue
    with --resume.
    """
    from ..fitting import load_fit
    from ..scenarios import SensitivityPlan, sensitivity as analyse
    from ..simulation import endpoint
    from ..store import check_folder

    result = load_fit(run, options["problem"])
    method, samples = options["method"], options["samples"]
    plan = SensitivityPlan(
        tuple(endpoint(result.model, n, options["until"]) for n in dict.fromkeys(names)), method,
        SAMPLES.get(method, 0) if samples is None else samples,
        options["seed"], options["until"], options["within"],
    )  # fmt: skip
    check_folder(out)
    print_verdict(result)
    with progress_line() as line:
        found = analyse(result, plan, folder=out, resume=resume, workers=workers,
                        progress=throttled_progress(line, "runs"))  # fmt: skip
    _print_sensitivity(found)
    print_written(_write_sensitivity(found, out))


def _print_sensitivity(found: Sensitivity) -> None:
    """Print the leading parameters of each endpoint, and whether the indices have converged."""
    table, key = found.table(), found.leading
    for place, end in enumerate(found.plan.endpoints):
        leading = table[table["endpoint"] == end.name].head(PRINTED)
        click.echo(f"{end.name} ({found.scale(place)} scale)")
        rows = [[r["parameter"], format_short(r[key]), f"{format_short(r[f'{key}_low'])} to "
                 f"{format_short(r[f'{key}_high'])}"]
                for r in leading.to_dict("records")]  # fmt: skip
        print_columns([["", key, "95 %"], *rows])
        click.echo(f"{found.verdict(place)}\n")
    click.echo(f"{found.runs} runs, {len(found.failures)} failed")
    for text in found.failures[:PRINTED]:
        click.echo(text)


def _write_sensitivity(found: Sensitivity, out: Path) -> list[Path]:
    """Write tables, verdicts and figures."""
    from ..figures import figure_files, plot_sensitivity, plot_tornado
    from ..store import csv_file, write_atomic

    verdicts = [found.verdict(k) for k in range(len(found.plan.endpoints))]
    text = "\n".join([repr(found), *verdicts, *found.failures, RESEARCH_ONLY, ""])
    files = {
        out / "sensitivity.csv": csv_file(found.table(), digits=6),
        out / "convergence.csv": csv_file(found.convergence(), digits=6),
        out / "tornado.csv": csv_file(found.tornado_table(), digits=6),
        out / "verdict.txt": text.encode(),
        **figure_files(plot_sensitivity(found), out / "sensitivity"),
        **figure_files(plot_tornado(found), out / "tornado"),
    }
    write_atomic(files)
    return list(files)


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


# --- what there is to choose from -----------------------------------------------------------------


@click.command("list", short_help="List drugs, observables, endpoints, units, runs, scenarios.")
@click.argument("what", type=click.Choice(["drugs", "observables", "endpoints", "parameters",
                                           "units", "runs", "scenarios"]))  # fmt: skip
@click.argument("of", required=False, metavar="[MODEL|PROBLEM]")
def list_names(what: str, of: str | None) -> None:
    """List the drugs, observables, endpoints or parameters of MODEL, with their units and names.

    Or the units that can be written, or the stored runs or the scenarios of PROBLEM. Without a name
    those of the shipped model (crs) and case (ruemmele2025).
    """
    if what in ("runs", "scenarios"):
        rows = runs_of(of or "ruemmele2025") if what == "runs" else edits_of(of or "ruemmele2025")
    else:
        from ..model import load_model

        model = load_model(of or "crs")
        rows = endpoints_of(model) if what == "endpoints" else names_of(model, what)
    print_columns(rows)


def names_of(model: Model, what: str) -> list[Sequence[str]]:
    """A header and one row for each drug, observable or parameter of a model; or each unit."""
    from ..model import COMMON_UNITS, dimension_of, pretty, read_unit

    def called(kind: str, name: str) -> tuple[str, str]:
        entry = model.usual.of(kind, name)
        most = f"{entry.most:g} {entry.unit}" if entry and entry.unit else ""
        return most, ", ".join(entry.names) if entry else ""

    if what == "units":
        return [("unit", "measures"), *((u, dimension_of(read_unit(u))) for u in COMMON_UNITS)]
    if what == "drugs":
        return [("drug", "unit", "usual at most", "also called", "meaning"),
                *((d.name, pretty(d.unit), *called("drug", d.name), d.label)
                  for d in model.drugs)]  # fmt: skip
    if what == "parameters":
        return [("parameter", "value", "unit", "meaning"),
                *((p.id, f"{p.value:.6g}", pretty(p.unit), p.label)
                  for p in model.parameters)]  # fmt: skip
    first = model.usual.named("level")
    names = [*first, *(name for name in model.quantity_ids if name not in first)]
    return [("observable", "unit", "usual at most", "also called", "meaning"),
            *((name, pretty(model[name].unit), *called("level", name), model[name].label)
              for name in names or model.state_ids)]  # fmt: skip


def endpoints_of(model: Model) -> list[Sequence[str]]:
    """A header and one row for each endpoint of a model's observables."""
    from ..model import pretty
    from ..simulation import grade_endpoints, kinds_of_endpoint

    ends = [*(grade_endpoints() if "crs_grade" in model.course_ids else ())]
    names = model.usual.named("level") or model.quantity_ids or model.state_ids
    ends += [end for name in names for end in kinds_of_endpoint(model, name)]
    rows = [(end.name, " ".join(map(pretty, end.unit.split())), end.label) for end in ends]
    return [("endpoint", "unit", "meaning"), *rows]


def runs_of(problem: str) -> list[Sequence[str]]:
    """A header and one row for each stored run of a problem, the latest first."""
    from ..fitting import RESULT, load_run

    latest = load_run(problem)
    runs = [load_run(path) for path in latest.path.parent.iterdir() if (path / RESULT).is_file()]
    runs.sort(key=lambda run: run.created, reverse=True)
    rows = [(str(run.path), run.created[:16], run.problem, str(len(run.values)),
             f"{run.result['cost']:.4g}") for run in runs]  # fmt: skip
    return [("run", "made", "problem", "free parameters", "cost"), *rows]


def edits_of(problem: str) -> list[Sequence[str]]:
    """A header and one row for each scenario of a problem: its doses and rules."""
    from ..dosing import AS_GIVEN
    from ..fitting import load_fit
    from ..scenarios import SCENARIOS, load_scenarios

    path = file_of_problem(problem, SCENARIOS, "--scenarios")
    fitted = load_fit(problem).problem
    found = load_scenarios(path, fitted.patient.scenario, fitted.model).scenarios
    rows = []
    for each in (fitted.patient.scenario, *found):
        doses = [f"{len(each.doses.only(drug))} {drug}" for drug in each.doses.drugs]
        rules = [t.name for t in each.triggers] + [str(hold) for hold in each.holds]
        name = AS_GIVEN if each is fitted.patient.scenario else each.name
        rows.append((name, ", ".join(doses), "; ".join(rules)))
    return [("scenario", "doses", "triggers and holds"), *rows]
