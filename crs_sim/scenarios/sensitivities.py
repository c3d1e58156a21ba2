"""`sensitivity`: global sensitivity analysis of endpoints, over the whole range of each parameter.

The indices are of the logarithm of an endpoint if its differences are reported as ratios and all
values are above 0. The ranking has converged if it is the same with a quarter, half and all of the
runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import InputError
from ..fitting import Fit
from ..model import Array
from ..simulation import (
    BATCH,
    Batch,
    Endpoint,
    Ensemble,
    InOrder,
    Sampling,
    Workers,
    ordered_map,
    plan_batches,
    run_batch,
)
from ..solver import compile_kernel
from ..store import append_rows, open_log
from ..uncertainty import problem_hash
from .indices import (
    LEADING,
    ParameterInterval,
    block,
    design,
    fit_intervals,
    indices,
    prior_intervals,
)

TAIL = 0.05
"""Tornado and Morris grid span the quantiles from this probability to 1 minus it."""
MOST_SPOILT = 0.1
PARTS = (4, 2, 1)
MOVED = 0.05
"""Change below which a leading index has converged (Morris: relative to the largest)."""
LEADS = 0.2
"""Share of the largest index above which a parameter is influential."""
LOG = "runs.jsonl"


@dataclass(frozen=True)
class SensitivityPlan:
    """Settings of a sensitivity analysis.

    Parameters
    ----------
    endpoints : tuple of Endpoint
    method : "sobol" or "morris"
    samples : int, blocks of the design (see `crs_sim.scenarios.design`)
    seed : int
    until : float, last day of each run
    within : None for the priors; or the level of the fit's confidence intervals

    Raises
    ------
    InputError
        If there is no endpoint.
    """

    endpoints: tuple[Endpoint, ...]
    method: str = "sobol"
    samples: int = 256
    seed: int = 1
    until: float = 40.0
    within: float | None = None

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise InputError("a sensitivity needs at least one endpoint, such as peak_ifng")


@dataclass(frozen=True, eq=False)
class Tornado:
    """One-at-a-time sensitivity: endpoints with one parameter changed, the others as estimated.

    Parameters
    ----------
    ends : (2, n_free), the low and the high value of each parameter
    estimate : (n_endpoints,)
    moved : (2, n_free, n_endpoints); NaN where a run failed
    """

    ends: Array = field(repr=False)
    estimate: Array
    moved: Array = field(repr=False)


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Result of a sensitivity analysis of a fit's endpoints.

    Parameters
    ----------
    problem : str
    plan : SensitivityPlan
    ranges : tuple of Range, n_free
    points : (n_rows, n_free) of the complete blocks, between 0 and 1
    values : (n_rows, n_endpoints)
    runs : int, number of simulations
    failures : error messages, in the order of the runs
    tornado : Tornado
    """

    problem: str
    plan: SensitivityPlan
    ranges: tuple[ParameterInterval, ...]
    points: Array = field(repr=False)
    values: Array = field(repr=False)
    runs: int
    failures: tuple[str, ...] = field(repr=False)
    tornado: Tornado = field(repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return tuple(r.name for r in self.ranges)

    @property
    def leading(self) -> str:
        """Name of the index used for ranking."""
        return LEADING[self.plan.method]

    def scale(self, place: int) -> str:
        """The scale of an endpoint for its indices: log or linear."""
        log = self.plan.endpoints[place].log and bool((self.values[:, place] > 0).all())
        return "log" if log else "linear"

    def indices(self, place: int, part: int = 1, level: float = 0.95) -> dict[str, Array]:
        """Indices of an endpoint, from the first 1/``part`` of the blocks; each (n_free,)."""
        size = block(self.plan.method, len(self.ranges))
        rows = slice(0, len(self.values) // size // part * size)
        values = self.values[rows, place]
        y = np.log(values) if self.scale(place) == "log" else values
        return indices(self.plan.method, self.points[rows], y, seed=self.plan.seed, level=level)

    def table(self, level: float = 0.95) -> pd.DataFrame:
        """One row for each endpoint and parameter, the leading ones first."""
        parts = [pd.DataFrame({"endpoint": e.name, "scale": self.scale(k), "parameter": self.names,
                               **self.indices(k, level=level)})
                 .sort_values(self.leading, ascending=False, kind="stable")
                 for k, e in enumerate(self.plan.endpoints)]  # fmt: skip
        return pd.concat(parts, ignore_index=True)

    def convergence(self, level: float = 0.95) -> pd.DataFrame:
        """The leading index from a quarter, half and all of the blocks, one row each."""
        size, key = block(self.plan.method, len(self.ranges)), self.leading
        parts = []
        for k, e in enumerate(self.plan.endpoints):
            for part in PARTS:
                found = self.indices(k, part, level)
                shown = {c: found[c] for c in (key, f"{key}_low", f"{key}_high")}
                blocks = len(self.values) // size // part
                parts.append(pd.DataFrame({"endpoint": e.name, "blocks": blocks,
                                           "parameter": self.names, **shown}))  # fmt: skip
        return pd.concat(parts, ignore_index=True)

    def tornado_table(self) -> pd.DataFrame:
        """One row for each endpoint and parameter, the widest first."""
        t, rows = self.tornado, []
        for k, e in enumerate(self.plan.endpoints):
            scaled = np.log(t.moved[..., k]) if self._ratios(k) else t.moved[..., k]
            span = np.abs(scaled[1] - scaled[0])
            rows += [{
                "endpoint": e.name, "unit": e.unit, "parameter": self.names[j],
                "low": t.ends[0, j], "high": t.ends[1, j], "at_estimate": t.estimate[k],
                "at_low": t.moved[0, j, k], "at_high": t.moved[1, j, k],
            } for j in np.argsort(-np.nan_to_num(span, nan=-1.0), kind="stable")]  # fmt: skip
        return pd.DataFrame(rows)

    def _ratios(self, place: int) -> bool:
        """Whether the tornado of an endpoint is on a log scale."""
        levels = self.tornado.moved[..., place]
        return self.plan.endpoints[place].log and not (levels <= 0).any()

    def verdict(self, place: int) -> str:
        """Whether the ranking of an endpoint has converged, in words."""
        name = self.plan.endpoints[place].name
        if not np.ptp(self.values[:, place]):
            return f"{name}: constant, so no parameter influences it"
        half, whole = (self.indices(place, part)[self.leading] for part in (2, 1))
        largest = float(whole.max())
        unit = 1.0 if self.plan.method == "sobol" else largest
        moved = float(np.abs(whole - half).max()) / unit
        order = np.argsort(-whole, kind="stable")
        influential = [j for j in order if whole[j] >= LEADS * largest]
        listed = ", ".join(self.names[j] for j in influential)
        of = "" if unit == 1.0 else " of the largest"
        how = f"from half of the runs to all, {self.leading} changed by at most {moved:.2g}{of}"
        kept = not any(
            whole[a] - whole[b] > MOVED * unit and half[a] < half[b]
            for k, a in enumerate(influential) for b in influential[k + 1 :]
        )  # fmt: skip
        change = "kept their order" if kept else "changed their order"
        if not kept:
            status = "the ranking has not converged"
        elif moved > MOVED:
            status = "the ranking has converged, the indices have not"
        else:
            status = "the ranking has converged"
        more = "" if status.endswith("has converged") else ": use more samples"
        return f"{name}: {status} ({how}; {listed} {change}){more}"

    def __repr__(self) -> str:
        """Return a one-line summary."""
        return (
            f"Sensitivity({self.problem}: {len(self.plan.endpoints)} endpoints, "
            f"{len(self.ranges)} parameters, {self.plan.method}, {self.runs} runs, "
            f"{len(self.failures)} failed)"
        )


def sensitivity(
    result: Fit,
    plan: SensitivityPlan,
    *,
    folder: str | Path | None = None,
    resume: bool = False,
    workers: Workers = None,
    progress: Callable[[int, int], None] | None = None,
) -> Sensitivity:
    """Global sensitivity of endpoints, as treated, to the free parameters of a fit.

    Parameters
    ----------
    result : Fit
    plan : SensitivityPlan
    folder : where runs are saved as they are made; None keeps them in memory only
    resume : resume the analysis in the folder
    workers : int, threads; or the address of a Dask scheduler; the numbers do not depend on it
    progress : called as (runs done, of how many)

    Raises
    ------
    InputError
        If the plan is invalid, or more than a tenth of the blocks have failed runs.
    StorageError
        If the folder holds the runs of another analysis, or cannot be written.
    CrsSimError
        If a cluster cannot be reached, or the connection is lost.

    Examples
    --------
    ``sensitivity(best, SensitivityPlan((endpoint(best.model, "peak_ifng"),))).table()``
    """
    from_fit = plan.within is not None
    ranges = fit_intervals(result, plan.within or 0.0) if from_fit else prior_intervals(result)
    points = design(plan.method, len(ranges), samples=plan.samples, seed=plan.seed)
    chances = points if plan.method == "sobol" else TAIL + (1 - 2 * TAIL) * points
    samples = _drawn(ranges, chances)
    path = None if folder is None else Path(folder) / LOG
    compile_kernel(result.problem.model)  # before any thread, so that its message comes first
    with ordered_map(workers) as run_all:  # connect before writing any file
        done = [] if path is None else open_log(path, _header(result, plan, points), resume=resume)
        first = len(done) - len(done) % BATCH  # a batch shares its steps: rerun it as a whole
        for rows in _run(run_all, result, plan, samples, first):
            fresh, first = rows[len(done) - first :], first + len(rows)
            if path is not None:
                append_rows(path, fresh)
            done += fresh
            if progress is not None:
                progress(len(done), len(samples))
        tornado = _tornado(run_all, result, plan, ranges)
    values = np.array([row[:-1] for row in done], dtype=np.float64)
    failures = tuple(row[-1] for row in done if row[-1])
    whole = _whole(values, block(plan.method, len(ranges)), failures)
    return Sensitivity(
        result.problem.name, plan, ranges, points[whole], values[whole], len(values), failures,
        tornado,
    )  # fmt: skip


def _run(
    run_all: InOrder, result: Fit, plan: SensitivityPlan, values: pd.DataFrame, first: int = 0
) -> Iterator[list[list[Any]]]:
    """Simulate a table's batches with `run_rows`, starting at a row."""
    sampling = Sampling(days=(0.0, plan.until), outputs=(), endpoints=plan.endpoints)
    runs = plan_batches(result.problem.model, result.problem.patient.scenario, values, sampling)
    return run_all(partial(run_rows, plan.endpoints), [*runs.batches()][first // BATCH :])


def run_rows(ends: Sequence[Endpoint], batch: Batch) -> list[list[Any]]:
    """The endpoints of each member of a batch, and the error message ("" if none)."""
    found = run_batch(batch)
    values = _endpoint_values(found, ends)
    failed = {f.member: str(f) for f in found.failures}
    empty: list[Any] = [None] * len(ends)
    return [[*values.get(m, empty), failed.get(m, "")] for m in batch.members]


def _endpoint_values(found: Ensemble, ends: Sequence[Endpoint]) -> Mapping[Any, list[Any]]:
    if not found.members:
        return {}
    columns = np.array([found.endpoint(e.name) for e in ends], dtype=np.float64)
    return dict(zip(found.members, columns.T.tolist(), strict=True))


def _drawn(ranges: Sequence[ParameterInterval], points: Array) -> pd.DataFrame:
    return pd.DataFrame({r.name: r.at(points[:, k]) for k, r in enumerate(ranges)})


def _whole(values: Array, size: int, failures: tuple[str, ...]) -> NDArray[np.intp]:
    """The rows of the blocks in which every run finished."""
    bad = np.asarray(np.isnan(values).reshape(len(values) // size, -1).any(axis=1))
    if bad.mean() > MOST_SPOILT:
        raise InputError(
            f"{len(failures)} of {len(values)} runs failed, in {bad.sum()} of {len(bad)} blocks of "
            "the design; indices of the rest would be unreliable. Narrow the parameter intervals "
            f"(--within). The first: {failures[0]}"
        )
    return np.flatnonzero(np.repeat(~bad, size))


def _tornado(
    run_all: InOrder, result: Fit, plan: SensitivityPlan, ranges: Sequence[ParameterInterval]
) -> Tornado:
    n = len(ranges)
    ends = np.array([r.at(np.array([TAIL, 1 - TAIL])) for r in ranges]).T
    rows = np.tile([result.values[r.name] for r in ranges], (2 * n + 1, 1))
    for side in range(2):
        rows[1 + side * n + np.arange(n), np.arange(n)] = ends[side]
    table = pd.DataFrame(rows, columns=[r.name for r in ranges])
    parts = _run(run_all, result, plan, table)
    found = np.array([row[:-1] for rows in parts for row in rows], dtype=float)
    return Tornado(ends, found[0], found[1:].reshape(2, n, -1))


def _header(result: Fit, plan: SensitivityPlan, points: Array) -> dict[str, Any]:
    """Everything the results depend on."""
    plain = ("method", "samples", "seed", "until", "within")
    return {
        "problem": result.problem.name,
        "model": result.problem.model.hash,
        "question": problem_hash(result.problem),
        "endpoints": [e.name for e in plan.endpoints],
        **{name: getattr(plan, name) for name in plain},
        "design": hashlib.sha256(points.tobytes()).hexdigest()[:12],
        "estimates": dict(result.values) if plan.within is not None else None,
        "covariance": float(np.trace(result.covariance)) if plan.within is not None else None,
    }
