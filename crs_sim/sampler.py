"""`sample`: walkers that wander through the posterior. The only door to emcee.

Moves are differential evolution (ter Braak 2006). emcee is small and well kept, and its state can
be stored, so a chain goes on bit for bit. Whether a sampler that uses gradients would need less
time, when each costs as many runs as there are parameters, has not been measured to the end.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import emcee
import numpy as np

from .chains import Array, Part, append, begin, join, read, refuse_other
from .errors import InputError
from .fitting import Fit, fit
from .objective import ROUGH_RTOL, Objective, logs
from .posterior import Posterior, SamplePlan, header_of, of_parts
from .problem import FitProblem
from .workers import StoppedError, in_order

SAVE_EVERY = 10.0
"""Seconds of work that a killed run may lose."""
WIDER = 1.5
"""Walkers start this many times as far out as the normal approximation says."""
TRIED = 8
"""Points tried for each walker that starts."""
SHRINK, SHRINKS = 0.7, 8
"""Where too few of them will do, the next are this much nearer; so many times at most."""
BATCH = 256
SAME_DEPTH = 12.0
"""Descents that end within this cost of the best may be other peaks: walkers start there too."""
MOST_CENTRES = 4


@dataclass(frozen=True, eq=False)
class Peak:
    """Where a posterior is thought to be high: what a fit found.

    Parameters
    ----------
    problem : FitProblem
    centres : (n_centres, n_free) log parameters, the best first
    covariance : (n_free, n_free), of the log parameters, at the best
    """

    problem: FitProblem
    centres: Array = field(repr=False)
    covariance: Array = field(repr=False)


def peak_of(
    problem: FitProblem,
    values: Mapping[str, float],
    covariance: Array,
    starts: Sequence[tuple[float, Mapping[str, float]]] = (),
) -> Peak:
    """The peak that a fit found: its estimates, covariance, and other descents as good.

    Parameters
    ----------
    starts : (cost, values) of every descent

    Raises
    ------
    InputError
        If the fit was of other parameters.
    """
    if tuple(values) != problem.names:
        raise InputError(
            f"{problem.name}: the fit was of {', '.join(values)}, but free are "
            f"{', '.join(problem.names)}; fit again"
        )
    centres = [logs(problem, values)]
    best = min((cost for cost, _ in starts), default=0.0)
    for cost, found in sorted(starts, key=lambda start: start[0]):
        x = logs(problem, found)
        new = all(np.max(np.abs(x - centre)) > 0.05 for centre in centres)
        if new and cost < best + SAME_DEPTH and len(centres) < MOST_CENTRES:
            centres.append(x)
    return Peak(problem, np.array(centres), np.asarray(covariance))


def sample(
    question: FitProblem | Fit | Peak,
    plan: SamplePlan | None = None,
    *,
    folder: str | Path | None = None,
    resume: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> Posterior:
    """Sample the posterior of a problem.

    Several groups of walkers start around the fit, wider than its covariance says, and never hear
    of each other: `Posterior.convergence` compares them.

    Parameters
    ----------
    question : Fit or Peak; a FitProblem is fitted first
    plan : SamplePlan, default 500 draws of each walker
    folder : where the draws are kept as they are made, so that a run that is killed can go on
    resume : go on with the run in ``folder``, up to the plan's draws; the numbers are those of a
        run that was never interrupted
    workers : int, threads (default: one for each core); the numbers do not depend on it
    progress : called as (draws, of how many, median log posterior of the walkers)

    Raises
    ------
    InputError
        If the plan cannot work, or no start can be found.
    StorageError
        If the folder holds another run, or cannot be written.

    Examples
    --------
    >>> from crs_sim import load_problem
    >>> sample(load_problem("ruemmele2025"), SamplePlan(groups=1))
    Traceback (most recent call last):
    crs_sim.errors.InputError: groups is 1; convergence needs 2 or more (4 is usual)
    """
    problem = question if isinstance(question, FitProblem) else question.problem
    sized = (plan or SamplePlan()).of_size(len(problem.free))
    path = None if folder is None else Path(folder)
    header = header_of(problem, sized)
    if resume:
        parts = _stored(path, header)
    else:
        peak = question if isinstance(question, Peak) else _peak(question, workers)
        parts = [_first(peak, sized)]
        if path is not None:
            begin(path, header, parts[0])
    return _go_on(problem, sized, parts, _Run(path, workers, progress))


@dataclass(frozen=True)
class _Run:
    """How a run is made; its numbers do not depend on it."""

    folder: Path | None
    workers: int | None
    progress: Callable[[int, int, float], None] | None


def _stored(path: Path | None, header: Mapping[str, Any]) -> list[Part]:
    if path is None:
        raise InputError("resume needs the folder of the run to go on with")
    stored, parts = read(path)
    refuse_other(path, stored, header)
    return parts


def _peak(question: FitProblem | Fit, workers: int | None) -> Peak:
    found = question if isinstance(question, Fit) else fit(question, workers=workers)
    starts = [(start.cost, start.values) for start in found.starts]
    return peak_of(found.problem, found.values, found.covariance, starts)


def _go_on(problem: FitProblem, plan: SamplePlan, parts: list[Part], run: _Run) -> Posterior:
    """Draw until the plan's number is there; whatever is complete is kept, also on Ctrl-C."""
    objectives = [Objective(problem, ROUGH_RTOL) for _ in range(plan.groups)]
    done = sum(len(part.chain) for part in parts[1:])
    last, fresh, saved = parts[-1], list[Part](), time.monotonic()
    try:
        while done < plan.draws:
            last = _draw(objectives, last, plan.thin, run.workers)
            fresh.append(last)
            done += 1
            if run.folder is not None and time.monotonic() - saved >= SAVE_EVERY:
                fresh, saved = _kept(parts, fresh, run.folder), time.monotonic()
            if run.progress is not None:
                run.progress(done, plan.draws, float(np.median(last.log_posterior)))
    finally:
        _kept(parts, fresh, run.folder)
    return of_parts(problem, plan, parts)


def _kept(parts: list[Part], fresh: list[Part], folder: Path | None) -> list[Part]:
    """Put new draws with the parts, and on disk; nothing is left."""
    if fresh:
        part = join(fresh)
        if folder is not None:
            append(folder, len(parts), part)
        parts.append(part)
    return []


def _draw(
    objectives: Sequence[Objective], last: Part, moves: int, workers: int | None
) -> Part:
    """The next draw of every walker; each group in a thread."""
    stop = threading.Event()
    places = range(len(objectives))
    work = partial(_advance, last=last, moves=moves, stop=stop)
    items = zip(objectives, places, strict=True)
    found = list(in_order(work, items, workers=workers, stop=stop))
    return Part(
        np.stack([state.coords for state, _ in found])[None],
        np.stack([state.log_prob for state, _ in found])[None],
        np.stack([state.random_state[1] for state, _ in found]),
        np.array([state.random_state[2:] for state, _ in found], dtype=np.float64),
        last.counts + np.array([counts for _, counts in found]),
    )


def _advance(
    item: tuple[Objective, int], *, last: Part, moves: int, stop: threading.Event
) -> tuple[emcee.State, tuple[int, int, int]]:
    """Some moves of one group; its new state, and what was accepted, run and failed."""
    objective, group = item
    place, waits, number = last.places[group]
    state = emcee.State(
        last.chain[-1, group],
        log_prob=last.log_posterior[-1, group].copy(),
        random_state=("MT19937", last.words[group], int(place), int(waits), float(number)),
    )
    walkers, n_free = state.coords.shape
    sampler = emcee.EnsembleSampler(
        walkers, n_free, objective.log_posteriors, moves=_moves(), vectorize=True
    )
    runs, failed, accepted = objective.runs, objective.failed, 0
    for _ in repeat(None, moves):
        if stop.is_set():
            raise StoppedError
        before = state.coords
        state = next(
            sampler.sample(state, iterations=1, store=False, skip_initial_state_check=True)
        )
        accepted += int((state.coords != before).any(axis=1).sum())
    return state, (accepted, objective.runs - runs, objective.failed - failed)


def _moves() -> list[tuple[Any, float]]:
    """Steps along the difference of two other walkers; now and then the whole of it.

    A whole difference leads from one peak to another. emcee's snooker move is not among them: in
    emcee 3.1.6 it does not leave the posterior as it is (a 20-dimensional standard normal comes
    out with standard deviations of 0.75).
    """
    return [(emcee.moves.DEMove(), 0.9), (emcee.moves.DEMove(gamma0=1.0), 0.1)]


def _first(peak: Peak, plan: SamplePlan) -> Part:
    """Where the walkers start, each group with random numbers of its own."""
    assert plan.walkers is not None
    objective = Objective(peak.problem, ROUGH_RTOL)
    streams = np.random.SeedSequence(plan.seed).spawn(plan.groups + 1)
    rng = np.random.default_rng(streams[-1])
    points, found = _start_points(objective, peak, plan.groups * plan.walkers, rng)
    shape = (1, plan.groups, plan.walkers)
    states = [
        np.random.RandomState(s.generate_state(16)).get_state(legacy=False) for s in streams[:-1]
    ]
    return Part(
        points.reshape(*shape, -1),
        found.reshape(shape),
        np.stack([np.asarray(s["state"]["key"], dtype=np.uint32) for s in states]),
        np.array([(s["state"]["pos"], s["has_gauss"], s["gauss"]) for s in states], dtype=float),
        np.zeros((plan.groups, 3), dtype=np.int64),
    )


def _start_points(
    objective: Objective, peak: Peak, count: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Log parameters (count, n_free) spread widely around the peak, and their log posteriors.

    The normal approximation may reach far beyond a cliff of the posterior. Of many points, those
    count that a walker could be at; as long as they are too few, nearer ones are tried.

    Raises
    ------
    InputError
        If there are none but the peak itself.
    """
    n_free = peak.covariance.shape[0]
    factor = np.linalg.cholesky(peak.covariance)
    highest = float(objective.log_posteriors(peak.centres).max())
    lowest = highest - 0.5 * n_free - 5.0 * math.sqrt(0.5 * n_free) - 5.0
    points, found = np.empty((0, n_free)), np.empty(0)
    for k in range(SHRINKS):
        centres = peak.centres[rng.integers(len(peak.centres), size=TRIED * count)]
        steps = rng.standard_normal((TRIED * count, n_free)) @ factor.T
        tried = centres + WIDER * SHRINK**k * steps
        batches = np.split(tried, range(BATCH, len(tried), BATCH))
        heights = np.concatenate([objective.log_posteriors(batch) for batch in batches])
        points = np.vstack([points, tried[heights > lowest]])
        found = np.concatenate([found, heights[heights > lowest]])
        if len(points) >= count:
            return points[:count], found[:count]
    raise InputError(
        f"{peak.problem.name}: no start for the walkers: around the fit the posterior falls off "
        "at once; fit again, and see that the fit has converged"
    )
