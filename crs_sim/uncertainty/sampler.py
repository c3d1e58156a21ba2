"""`sample`: ensemble MCMC of the posterior with emcee, which only this file imports.

Moves are differential evolution (ter Braak 2006). emcee is small and well maintained, and its state
can be stored, so a resumed chain is identical bit for bit. Whether a gradient-based sampler (HMC)
would need less time, with a gradient as costly as one run per parameter, has not been fully tested.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import emcee
import numpy as np

from ..errors import InputError
from ..fitting import ROUGH_RTOL, Fit, FitProblem, Objective, fit, point_of
from ..model import Array
from ..simulation import StoppedError, thread_map
from .draws import (
    FEW,
    Draws,
    Part,
    append,
    begin,
    check_same_run,
    join,
    read,
    weighted_draws,
)
from .posterior import Posterior, SamplePlan, posterior_from_parts, run_header

SAVE_EVERY = 10.0
"""Seconds between saves: what a killed run may lose."""
WIDER = 1.5
"""Initial spread of the walkers, in standard deviations of the normal approximation."""
TRIED = 8
"""Candidate points for each initial walker."""
SHRINK, SHRINKS = 0.7, 8
"""If too few candidates are acceptable the spread shrinks by this factor, at most so many times."""
BATCH = 256
SAME_DEPTH = 12.0
"""Local optima within this cost of the best may be other modes: walkers start there too."""
MOST_CENTRES = 4
RUNS, FEWEST = 150_000, 60
"""Simulations for draws that were not asked for by name, and the fewest draws of each walker."""


@dataclass(frozen=True, eq=False)
class PosteriorMode:
    """The modes of a posterior as a fit found them, where the walkers start.

    Parameters
    ----------
    problem : FitProblem
    centres : (n_centres, n_free) scaled parameters, the best first
    covariance : (n_free, n_free), of the scaled parameters, at the best
    """

    problem: FitProblem
    centres: Array = field(repr=False)
    covariance: Array = field(repr=False)


def posterior_mode(
    problem: FitProblem,
    values: Mapping[str, float],
    covariance: Array,
    starts: Sequence[tuple[float, Mapping[str, float]]] = (),
) -> PosteriorMode:
    """The modes that a fit found: its estimates and covariance, and other optima as good.

    Parameters
    ----------
    starts : (cost, values) of every local optimisation

    Raises
    ------
    InputError
        If the fit was of other parameters.
    """
    if tuple(values) != problem.names:
        raise InputError(
            f"{problem.name}: the fit was of {', '.join(values)}, but the free parameters are "
            f"{', '.join(problem.names)}; fit again"
        )
    centres = [point_of(problem, values)]
    best = min((cost for cost, _ in starts), default=0.0)
    for cost, found in sorted(starts, key=lambda start: start[0]):
        x = point_of(problem, found)
        new = all(np.max(np.abs(x - centre)) > 0.05 for centre in centres)
        if new and cost < best + SAME_DEPTH and len(centres) < MOST_CENTRES:
            centres.append(x)
    return PosteriorMode(problem, np.array(centres), np.asarray(covariance))


def sample(
    question: FitProblem | Fit | PosteriorMode,
    plan: SamplePlan | None = None,
    *,
    folder: str | Path | None = None,
    resume: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> Posterior:
    """Sample the posterior of a problem.

    Several groups of walkers start around the fit, spread wider than its covariance. They are
    independent of each other, and `Posterior.convergence` compares them.

    Parameters
    ----------
    question : Fit or Peak; a FitProblem is fitted first
    plan : SamplePlan, default 500 draws of each walker
    folder : where the draws are saved as they are made, so that an interrupted run can be resumed
    resume : resume the run in ``folder``, up to the plan's draws; the numbers are those of an
        uninterrupted run
    workers : int, threads (default: one for each core); the numbers do not depend on it
    progress : called as (draws, of how many, median log posterior of the walkers)

    Raises
    ------
    InputError
        If the plan is invalid, or no starting points can be found.
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
    full_plan = (plan or SamplePlan()).of_size(len(problem.free))
    path = None if folder is None else Path(folder)
    header = run_header(problem, full_plan)
    if resume:
        parts = _stored(path, header)
    else:
        peak = question if isinstance(question, PosteriorMode) else _peak(question, workers)
        parts = [_first(peak, full_plan)]
        if path is not None:
            begin(path, header, parts[0])
    return _continue(problem, full_plan, parts, _Run(path, workers, progress))


def posterior_draws(
    result: Fit,
    count: int = 400,
    *,
    workers: int | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> Draws:
    """Draws around a fit, of the normal approximation or, where that is poor, of the posterior.

    If weighted draws of the normal approximation are worth fewer than `FEW`, the posterior is
    sampled, with about `RUNS` simulations; whether that was enough is in the source of the draws.

    Parameters
    ----------
    result : Fit
    count : int, rows
    workers, progress : as in `sample`

    Raises
    ------
    InputError
        As `weighted_draws` and `sample`.
    """
    weighted = weighted_draws(result, count, workers=workers)
    if weighted.effective >= FEW:
        return weighted
    plan = SamplePlan(seed=result.seed).of_size(len(result.problem.free))
    each = RUNS // (plan.groups * (plan.walkers or 1) * plan.thin)
    found = sample(result, replace(plan, draws=max(each, FEWEST)), workers=workers,
                   progress=progress)  # fmt: skip
    values = found.values(count).reset_index(drop=True)
    verdict = found.verdict.partition(" Resume with")[0].rstrip(".")
    source = (f"{len(values)} draws of the posterior, since the normal approximation is worth only "
              f"{weighted.effective:.0f}. {verdict}")  # fmt: skip
    if not found.converged:
        source += "; sample more of them, and give these with --from"
    return Draws(values, source, min(c.ess for c in found.convergence))


@dataclass(frozen=True)
class _Run:
    """Settings of a run that its numbers do not depend on."""

    folder: Path | None
    workers: int | None
    progress: Callable[[int, int, float], None] | None


def _stored(path: Path | None, header: Mapping[str, Any]) -> list[Part]:
    if path is None:
        raise InputError("resume needs the folder of the stored run; give folder")
    stored, parts = read(path)
    check_same_run(path, stored, header)
    return parts


def _peak(question: FitProblem | Fit, workers: int | None) -> PosteriorMode:
    found = question if isinstance(question, Fit) else fit(question, workers=workers)
    starts = [(start.cost, start.values) for start in found.starts]
    return posterior_mode(found.problem, found.values, found.covariance, starts)


def _continue(problem: FitProblem, plan: SamplePlan, parts: list[Part], run: _Run) -> Posterior:
    """Sample up to the plan's number of draws; complete draws are saved, also on Ctrl-C."""
    objectives = [Objective(problem, ROUGH_RTOL) for _ in range(plan.groups)]
    done = sum(len(part.chain) for part in parts[1:])
    last, fresh, saved = parts[-1], list[Part](), time.monotonic()
    try:
        while done < plan.draws:
            last = _draw(objectives, last, plan.thin, run.workers)
            fresh.append(last)
            done += 1
            if run.folder is not None and time.monotonic() - saved >= SAVE_EVERY:
                fresh, saved = _save(parts, fresh, run.folder), time.monotonic()
            if run.progress is not None:
                run.progress(done, plan.draws, float(np.median(last.log_posterior)))
    finally:
        _save(parts, fresh, run.folder)
    return posterior_from_parts(problem, plan, parts)


def _save(parts: list[Part], fresh: list[Part], folder: Path | None) -> list[Part]:
    """Append new draws to the parts, and to disk; return an empty list."""
    if fresh:
        part = join(fresh)
        if folder is not None:
            append(folder, len(parts), part)
        parts.append(part)
    return []


def _draw(objectives: Sequence[Objective], last: Part, moves: int, workers: int | None) -> Part:
    """The next draw of every walker, with one thread per group."""
    stop = threading.Event()
    places = range(len(objectives))
    work = partial(_advance, last=last, moves=moves, stop=stop)
    items = zip(objectives, places, strict=True)
    found = list(thread_map(work, items, workers=workers, stop=stop))
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
    """Make some moves of one group; return its state and counts (accepted, runs, failed)."""
    objective, group = item
    position, has_gauss, cached_gauss = last.places[group]
    state = emcee.State(
        last.chain[-1, group],
        log_prob=last.log_posterior[-1, group].copy(),
        random_state=("MT19937", last.words[group], int(position), int(has_gauss),
                      float(cached_gauss)),
    )  # fmt: skip
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
    """Differential evolution moves; one in ten with gamma 1, the whole difference of two walkers.

    The whole difference leads from one mode to another. emcee's snooker move is not used: in
    emcee 3.1.6 it does not leave the posterior invariant (a 20-dimensional standard normal comes
    out with standard deviations of 0.75).
    """
    return [(emcee.moves.DEMove(), 0.9), (emcee.moves.DEMove(gamma0=1.0), 0.1)]


def _first(peak: PosteriorMode, plan: SamplePlan) -> Part:
    """The initial walkers, each group with its own random number stream."""
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
    objective: Objective, peak: PosteriorMode, count: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Scaled parameters (count, n_free) overdispersed around the modes, and their log posteriors.

    The posterior may fall off much faster than its normal approximation. Candidates with too low a
    posterior are rejected; while too few remain, the spread is reduced.

    Raises
    ------
    InputError
        If too few candidates are acceptable.
    """
    n_free = peak.covariance.shape[0]
    factor = np.linalg.cholesky(peak.covariance)
    highest = float(objective.log_posteriors(peak.centres).max())
    lowest = highest - 0.5 * n_free - 5.0 * math.sqrt(0.5 * n_free) - 5.0
    points, found = np.empty((0, n_free)), np.empty(0)
    for k in range(SHRINKS):
        centres = peak.centres[rng.integers(len(peak.centres), size=TRIED * count)]
        steps = rng.standard_normal((TRIED * count, n_free)) @ factor.T
        candidates = centres + WIDER * SHRINK**k * steps
        batches = np.split(candidates, range(BATCH, len(candidates), BATCH))
        heights = np.concatenate([objective.log_posteriors(batch) for batch in batches])
        points = np.vstack([points, candidates[heights > lowest]])
        found = np.concatenate([found, heights[heights > lowest]])
        if len(points) >= count:
            return points[:count], found[:count]
    raise InputError(
        f"{peak.problem.name}: no starting points for the walkers: the posterior falls off steeply "
        "around the fit; fit again, and check that the fit has converged"
    )
