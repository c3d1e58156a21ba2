"""`search`: schedules evaluated on a grid or by NSGA-II, and their Pareto front.

Only this file imports optuna. Of the libraries with two objectives, optuna 5.0 was chosen (MIT,
widely used, pure Python, six dependencies) over pymoo 0.6 (also NSGA-II; eleven dependencies, some
compiled; late to support numpy 2) and scipy (no multi-objective optimiser). A whole generation of
NSGA-II (Deb 2002, https://doi.org/10.1109/4235.996017) is requested at once and its results are
reported in order, so the same seed gives the same schedules on any number of workers. To resume a
search, the stored results are reported again, and the optimiser continues from the same state.

A point is on the front if no other is better in one endpoint and no worse in the other. Each is
then simulated with the same parameter draws as the treatment as given
(`crs_sim.scenarios.comparison`), which shows whether its advantage depends on one set of parameter
values.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..dosing import Scenario
from ..errors import InputError, IntegrationError, StorageError
from ..fitting import METHOD, RTOL, Fit
from ..model import Array, Model
from ..simulation import EVERY_HOURS, Sampling, Workers, ordered_map, simulate
from ..solver import compile_kernel
from ..store import append_rows, open_log
from ..uncertainty import Draws, problem_hash
from .comparison import Comparison, compare
from .search_space import SearchPlan, SearchQuestion, Variable

Point = tuple[float, ...]
Values = tuple[float, float]
Results = Sequence[Values | None]
"""The two objectives of each point, both to be minimised; None for a failed run."""
GRID_DIGITS = 9


def proposals(question: SearchQuestion) -> Generator[list[Point], Results, None]:
    """Generator of generations of points; send it the results of the last generation.

    Parameters
    ----------
    question : SearchQuestion, with the method and number of trials
    """
    if question.plan.method == "grid":
        yield from _grid(question)
    else:
        yield from _nsga2(question)


def _grid(question: SearchQuestion) -> Generator[list[Point], Results, None]:
    """Every grid point once, the last variable varying fastest."""
    points = itertools.product(*(v.levels() for v in question.variables))
    while generation := list(itertools.islice(points, question.plan.generation)):
        yield generation


def _nsga2(question: SearchQuestion) -> Generator[list[Point], Results, None]:
    import optuna

    plan = question.plan
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = {str(k): _distribution(v) for k, v in enumerate(question.variables)}
    study = optuna.create_study(directions=["minimize"] * 2, sampler=_sampler(plan))
    for first in range(0, plan.trials, plan.generation):
        size = min(plan.generation, plan.trials - first)
        trials = [study.ask(space) for _ in range(size)]
        results = yield [
            tuple(round(float(t.params[k]), GRID_DIGITS) for k in space) for t in trials
        ]
        for trial, values in zip(trials, results, strict=True):
            if values is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, values)


def _sampler(plan: SearchPlan) -> Any:
    """NSGA-II with the crossover and mutation of its publication.

    On three test functions with known fronts they were better than optuna's default, for the same
    number of trials.
    """
    import optuna
    from optuna.samplers.nsgaii import PolynomialMutation, SBXCrossover

    with warnings.catch_warnings():  # optuna calls both experimental: their arguments may change
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.NSGAIISampler(
            population_size=plan.generation, seed=plan.seed, crossover=SBXCrossover(),
            mutation=PolynomialMutation(),
        )  # fmt: skip


def _distribution(variable: Variable) -> object:
    from optuna.distributions import FloatDistribution

    high = variable.high if variable.step is None else variable.level(variable.n_levels - 1)
    return FloatDistribution(variable.low, high, step=variable.step)


LOG = "trials.jsonl"
TOGETHER = 10
"""Trials, of about 10 ms each, per task of a cluster."""
MOST_DRAWN = 12
"""Points of the front that are simulated with draws, evenly spaced if there are more."""
DIGITS, SAME = 6, 1e-6
"""Values of an endpoint with a smaller relative difference are the same."""


@dataclass(frozen=True, eq=False)
class Search:
    """The schedules that were evaluated, and their Pareto front.

    Parameters
    ----------
    question : SearchQuestion
    points : (n_trials, n_variables)
    values : (n_trials, 2), the objectives as shown in tables; NaN where the run failed
    given : (2,), of the treatment as given
    failures : error messages, by trial
    """

    question: SearchQuestion
    points: Array = field(repr=False)
    values: Array = field(repr=False)
    given: Array
    failures: dict[int, str] = field(repr=False)

    @property
    def front(self) -> tuple[int, ...]:
        """The trials on the Pareto front, ascending in the first objective (as minimised)."""
        return front_of(self.values * np.array(self.question.signs))

    @property
    def best(self) -> int:
        """The best compromise: the trial of the front nearest to the ideal point."""
        front = np.array(self.front)
        costs = self.values[front] * np.array(self.question.signs)
        spread = np.where(np.ptp(costs, axis=0) > 0, np.ptp(costs, axis=0), 1.0)
        distance = np.linalg.norm((costs - costs.min(axis=0)) / spread, axis=1)
        return int(front[distance.argmin()])

    def table(self) -> pd.DataFrame:
        """One row per trial: the variables, the objectives, whether on the front, the error."""
        names = [v.name for v in self.question.variables]
        table = pd.DataFrame(self.points, columns=names)
        for k, end in enumerate(self.question.objectives):
            table[end.name] = self.values[:, k]
        table["front"] = np.isin(np.arange(len(table)), self.front)
        table["failed"] = [self.failures.get(k, "") for k in range(len(table))]
        return table.rename_axis("trial").reset_index()

    def scenario(self, trial: int) -> Scenario:
        """The scenario of a trial.

        Raises
        ------
        InputError
            If there is no such trial.
        """
        if not 0 <= trial < len(self.points):
            raise InputError(f"there is no trial {trial}; choose 0 to {len(self.points) - 1}")
        return self.question.scenario(self.points[trial].tolist(), f"trial {trial}")

    def verdict(self) -> str:
        """Compare the treatment as given with the front, in words."""
        signs = np.array(self.question.signs)
        costs, given = self.values[list(self.front)] * signs, self.given * signs
        tolerance = SAME * np.maximum(1.0, np.abs(given))
        better = (costs <= given + tolerance).all(axis=1) & (costs < given - tolerance).any(axis=1)
        text = f"{len(self.points)} schedules evaluated, {len(self.failures)} failed; " \
               f"{len(costs)} on the front"  # fmt: skip
        if not better.any():
            return f"{text}; none dominates the treatment as given (better in one endpoint, no " \
                   "worse in the other)"  # fmt: skip
        return f"{text}; {better.sum()} of them dominate the treatment as given (better in one " \
               "endpoint, no worse in the other)"  # fmt: skip

    def __repr__(self) -> str:
        """Return a one-line summary."""
        names = " against ".join(e.name for e in self.question.objectives)
        return f"Search({names}: {len(self.points)} trials, {len(self.front)} on the front)"


def search(
    result: Fit,
    question: SearchQuestion,
    *,
    folder: str | Path | None = None,
    resume: bool = False,
    workers: Workers = None,
    progress: Callable[[int, int], None] | None = None,
) -> Search:
    """Search dosing schedules for a patient, at the estimates of a fit.

    Parameters
    ----------
    result : Fit
    question : SearchQuestion, from `crs_sim.searchfile.load_search`
    folder : where trials are saved as they are made; None keeps them in memory only
    resume : resume the search in the folder
    workers : int, threads; or the address of a Dask scheduler; the numbers do not depend on it
    progress : called as (trials done, of how many)

    Raises
    ------
    InputError
        If no schedule could be simulated.
    StorageError
        If the folder holds the trials of another search, or cannot be written.
    CrsSimError
        If a cluster cannot be reached, or the connection is lost.

    Examples
    --------
    ``search(best, load_search("search.toml", patient.scenario, best.model)).table()``
    """
    path = None if folder is None else Path(folder) / LOG
    compile_kernel(result.model)  # before any thread, so that its message comes first
    done, total = list[list[Any]](), _total(question)
    optimiser = proposals(question)
    generation = next(optimiser, None)
    with ordered_map(workers, together=TOGETHER) as run_all:  # connect before writing any file
        rows = [] if path is None else open_log(path, _header(result, question), resume=resume)
        row_of = {tuple(row[0]): row for row in rows}
        while generation is not None:
            stored = rows[len(done) : len(done) + len(generation)]
            _check_same(path, stored, generation)
            rest = generation[len(stored) :]
            fresh = [p for p in dict.fromkeys(rest) if p not in row_of]
            results = run_all(partial(run_point, result.model, question), fresh)
            done += stored
            for point in rest:
                row_of[point] = row_of.get(point) or next(results)
                if path is not None:
                    append_rows(path, [row_of[point]])
                done.append(row_of[point])
                if progress is not None:
                    progress(len(done), total)
            generation = _next(optimiser, done[-len(generation) :], question)
    return _found(result, question, done)


def run_point(model: Model, question: SearchQuestion, point: Point) -> list[Any]:
    """Simulate a schedule: the point, its two endpoints (None if it failed), the error."""
    try:
        values = _ends(model, question, question.scenario(point, "trial"))
    except IntegrationError as error:
        return [list(point), None, str(error)]
    return [list(point), values, ""]


def compare_trials(
    result: Fit,
    found: Search,
    trials: Sequence[int],
    *,
    draws: pd.DataFrame | Draws | int,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Compare trials with the treatment as given, under the same parameter draws.

    Parameters
    ----------
    result : Fit
    found : Search
    trials : their numbers
    draws, workers, progress : as in `crs_sim.scenarios.compare`
    """
    question = found.question
    ends = {e.name: e for e in (*question.objectives, *question.endpoints)}
    outputs = tuple(dict.fromkeys([*question.courses, *(e.needs for e in ends.values())]))
    sampling = Sampling(until=question.plan.until, every_hours=EVERY_HOURS, outputs=outputs)
    scenarios = [found.scenario(trial) for trial in trials]
    return compare(result, scenarios, tuple(ends.values()), draws=draws, sampling=sampling,
                   workers=workers, progress=progress)  # fmt: skip


def thin_front(trials: Sequence[int], chosen: int, most: int = MOST_DRAWN) -> list[int]:
    """Thin the trials to about ``most``, keeping both ends and the chosen one.

    >>> thin_front(range(10), 4, most=3)
    [0, 4, 9]
    """
    kept = list(trials)
    if len(kept) > most:
        kept_at = np.unique(np.linspace(0, len(kept) - 1, most).round().astype(int))
        kept = [kept[k] for k in kept_at]
    return kept if chosen in kept else sorted({*kept, chosen}, key=[*trials, chosen].index)


def front_of(costs: Array) -> tuple[int, ...]:
    """Rows of the Pareto front (non-dominated), ascending in the first column.

    Values are rounded to `DIGITS` digits, as smaller differences are solver error; of equal rows
    the first counts; rows with NaN never do.

    >>> front_of(np.array([[1.0, 5.0], [2.0, 2.0], [3.0, 3.0], [4.0, 1.0], [np.nan, 0.0]]))
    (0, 1, 3)
    """
    rows = np.flatnonzero(np.isfinite(costs).all(axis=1))
    rounded = np.vectorize(lambda x: float(f"{x:.{DIGITS}g}"), otypes=[float])(costs)
    order = rows[np.lexsort((rows, rounded[rows, 1], rounded[rows, 0]))]
    lowest, kept = np.inf, list[int]()
    for row in order.tolist():
        if rounded[row, 1] < lowest:
            lowest = float(rounded[row, 1])
            kept.append(row)
    return tuple(kept)


def _ends(model: Model, question: SearchQuestion, scenario: Scenario) -> list[float]:
    run = simulate(model, scenario, days=(0.0, question.plan.until), method=METHOD, rtol=RTOL)
    return [float(e.of(run)) for e in question.objectives]


def _check_same(path: Path | None, stored: Sequence[Any], generation: Sequence[Point]) -> None:
    for row, point in zip(stored, generation, strict=False):
        if tuple(row[0]) != point:
            raise StorageError(
                f"{path}  cannot be resumed: it has {row[0]} where {list(point)} is proposed now "
                "(another version of optuna?); search into another folder"
            )


def _next(optimiser: Any, rows: list[list[Any]], question: SearchQuestion) -> list[Point] | None:
    """The next generation, given the results of the last one; None at the end."""
    (a, b) = question.signs
    objectives = [None if row[1] is None else (a * row[1][0], b * row[1][1]) for row in rows]
    try:
        return list(optimiser.send(objectives))
    except StopIteration:
        return None


def _found(result: Fit, question: SearchQuestion, rows: list[list[Any]]) -> Search:
    failures = {k: row[2] for k, row in enumerate(rows) if row[2]}
    if len(failures) == len(rows):
        raise InputError(f"none of {len(rows)} schedules could be simulated; the first: "
                         f"{failures[0]}")  # fmt: skip
    values = np.array([row[1] or (np.nan, np.nan) for row in rows], dtype=np.float64)
    given = _ends(result.model, question, question.given)
    points = np.array([row[0] for row in rows], dtype=np.float64)
    return Search(question, points, values, np.array(given), failures)


def _total(question: SearchQuestion) -> int:
    if question.plan.method == "grid":
        return int(np.prod([len(v.levels()) for v in question.variables]))
    return question.plan.trials


def _header(result: Fit, question: SearchQuestion) -> dict[str, Any]:
    """Everything the results depend on."""
    return {
        "problem": result.problem.name,
        "model": result.problem.model.hash,
        "question": problem_hash(result.problem),
        "estimates": dict(result.values),
        "search": dict(question.said),
    }
