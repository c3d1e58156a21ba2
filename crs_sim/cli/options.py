"""What commands share: option values, common options, patients, progress and tables.

The command line imports this file at start-up, so it imports nothing slow.
"""

# Bars and tables on a terminal are rich's; ours is what to say where there is none, since
# rich then says nothing, and wraps rows that are long.

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..errors import RESEARCH_ONLY, CrsSimError, InputError, command

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from ..fitting import Fit
    from ..model import Model
    from ..patients import Patient

HOURS = {"h": 1.0, "min": 1 / 60, "d": 24.0, "day": 24.0, "days": 24.0, "": 1.0}
ALONE = {"until": "--until", "every": "--every", "run": "--from", "plot": "--plot"}
"""Options that apply only to a single patient, not to --data."""


def hours_between(text: str) -> float:
    """Parse a time interval into hours.

    >>> [hours_between(t) for t in ("6h", "30min", "0.25d", "12")]
    [6.0, 0.5, 6.0, 12.0]
    """
    match = re.fullmatch(r"\s*([0-9.eE+-]+)\s*([A-Za-z]*)\s*", text)
    try:
        if match is None or match[2] not in HOURS:
            raise ValueError
        return float(match[1]) * HOURS[match[2]]
    except ValueError:
        raise InputError(f"--every {text}  is not a time; write 6h, 30min or 0.25d") from None


def parameter_values(texts: Sequence[str]) -> dict[str, float]:
    """Parameters by name from ``name=value`` texts; a name given twice is refused."""
    values: dict[str, float] = {}
    for text in texts:
        name, sign, number = (part.strip() for part in text.partition("="))
        if not (name and sign):
            raise InputError(f"--set {text}  has no value; write --set name=value")
        if name in values:
            raise InputError(f"--set {text}  sets {name} a second time; keep one")
        try:
            values[name] = float(number.replace("_", "no digit"))  # to float, 1_0 is 10
        except ValueError:
            raise InputError(f"--set {text}  {number!r} is no number; write {name}=1.5") from None
    return values


def format_short(value: float) -> str:
    """A level with at most three significant digits (`crs_sim.store.level_text`).

    >>> [format_short(x) for x in (21033.0, 0.2912, -1e-22, 4.0)]
    ['21000', '0.291', '0', '4']
    """
    from ..store import level_text

    return level_text(value)


class DataSetSource(NamedTuple):
    """The data set named on the command line: file, model, and column map."""

    data: Path
    model: str
    columns: Path | None


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


def _refuse_tables(patients: str | tuple[str, ...]) -> None:
    """Refuse a table where a folder is expected, and state what to type instead."""
    for name in (patients,) if isinstance(patients, str) else patients:
        if name.lower().endswith(".csv"):
            raise InputError(
                f"{name}  is a table: a NONMEM or Monolix data set is given as --data {name} "
                "--model MODEL; a patient by the folder with patient.toml"
            )


def data_set(
    command: str, patients: str | tuple[str, ...] | None, options: dict[str, Any],
    given: Collection[str] = (),
) -> DataSetSource | None:  # fmt: skip
    """Remove the data set from the options and return it; None if ``patients`` is given instead.

    Raises
    ------
    InputError
        If neither or both are given, or ``given`` contains an option that does not apply to a data
        set.
    """
    data, model, columns = (options.pop(name) for name in ("data", "model", "columns"))
    if patients and not (data or model or columns):
        _refuse_tables(patients)
        return None
    if patients or data is None or model is None:
        raise InputError(f"{command}  takes a PATIENT, or --data STUDY.csv with --model MODEL")
    for name in given:
        if name in ALONE:
            raise InputError(
                f"{ALONE[name]}  does not apply with --data, which is sampled at its own records; "
                "leave it out"
            )
    return DataSetSource(data, model, columns)


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
        new = command("new", path / "patient1")
        raise InputError(f"{path}  has no patient: neither folders with {FILES['patient']} nor "
                         f"{SUFFIX} files; create one ({new})")  # fmt: skip
    return inside


PROBLEM_OPTION = click.option(
    "--problem", metavar="PROBLEM", help="The problem of the run  [default: found from its folder]"
)
OUT_OPTION = click.option(
    "--out", type=click.Path(path_type=Path), metavar="FOLDER",
    help="Output folder  [default: the run's folder]",
)  # fmt: skip


def workers_options(what: str, on_cluster: str = "") -> Callable[..., Any]:
    """Add --workers and --cluster, passed on as one ``workers``: a number, an address, or None.

    Parameters
    ----------
    what : str, the kind of local workers: Threads, Processes
    on_cluster : str, note on work that is not done on the cluster, if any
    """

    def added(command: Callable[..., Any]) -> Callable[..., Any]:
        @click.option("--workers", type=int, help=f"{what}  [default: one for each core]")
        @click.option(
            "--cluster",
            default="",
            metavar="ADDRESS",
            help=f"Use a Dask cluster instead: tcp://host:8786.{on_cluster}",
        )
        @wraps(command)
        def run(*, workers: int | None, cluster: str, **options: Any) -> Any:
            if cluster and workers is not None:
                raise InputError("--workers  is for this machine; leave it out with --cluster")
            return command(workers=cluster or workers, **options)

        return run

    return added


def folder_of(run: str) -> Path:
    """The folder for files that are added to a run."""
    from ..fitting import load_run
    from ..store import results_folder

    return results_folder(load_run(run).path)


def file_of_problem(run: str, name: str, option: str) -> Path:
    """The path of a file beside a run or beside its problem, such as its scenarios.toml."""
    from ..fitting import load_run, problem_of

    stored = load_run(run)
    folder = stored.path
    for above in (folder, *folder.resolve().parents[:2]):
        if (above / name).is_file():
            return above / name
    with suppress(CrsSimError):  # a run that was written elsewhere, with --out
        problem = problem_of(stored).path
        if problem and (beside := Path(problem).parent / name).is_file():
            return beside
    raise InputError(f"{folder}  has no {name} beside it; write one (see the README) or name it "
                     f"with {option}")  # fmt: skip


LINES = 20
WIDE = 118


def progress_line() -> Progress:
    """A progress bar on the terminal; disabled if there is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(),
               TextColumn("{task.completed} of {task.total}  {task.fields[last]}"),
               TimeElapsedColumn())  # fmt: skip
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def progress_of(
    progress: Progress, name: str, words: Callable[[Any], str]
) -> Callable[[int, int, Any], None]:
    """A callback (finished, total, latest item) that updates a progress bar.

    Without a terminal it writes one line per call.
    """
    task = progress.add_task(name, total=None, last="")

    def report(finished: int, total: int, item: Any) -> None:
        progress.update(task, completed=finished, total=total, last=words(item))
        if not progress.console.is_terminal:
            click.echo(f"{name}: {finished} of {total}, {words(item)}", err=True)

    return report


def throttled_progress(
    progress: Progress, name: str, words: Callable[[Any], str] = str
) -> Callable[..., None]:
    """As `progress_of`, with arguments (finished, total) or (finished, total, latest item).

    Without a terminal it writes about `LINES` lines.
    """
    update, last = progress_of(progress, name, words), 0

    def report(finished: int, total: int, *item: Any) -> None:
        nonlocal last
        due = progress.console.is_terminal or finished - last >= total / LINES
        if due or finished == total:
            update(finished, total, *item or (f"{100 * finished / total:.0f} %",))
            last = finished

    return report


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a plain table; rows with the verdict "miss" are red."""
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        style = "bold red" if "miss" in row else ""
        table.add_row(*(Text(cell, style=style) for cell in row))
    screen().print(table)


def print_verdict(result: Fit) -> None:
    """Print what a fit says of itself: the first lines of all that is made with it."""
    from ..fitting import verdict

    said = verdict(result)
    for text in said.warnings:
        click.secho(f"Warning: {text}.", bold=True)
    for text in said.statements:
        click.echo(text)
    click.echo()


def print_columns(rows: Sequence[Sequence[str]], *, right: bool = False) -> None:
    """Print a plain table with a header row; ``right`` aligns all columns but the first."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    sides = [str.ljust, *[str.rjust if right else str.ljust] * (len(widths) - 1)]
    for row in rows:
        cells = (pad(cell, n) for pad, cell, n in zip(sides, row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def screen() -> Console:
    """Standard output; `WIDE` columns where there is no terminal."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDE)


def print_written(files: Iterable[Path]) -> None:
    """Print the files written, and the research-only notice."""
    for path in files:
        click.echo(f"wrote {path}")
    click.echo(RESEARCH_ONLY)
