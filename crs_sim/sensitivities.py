"""`sensitivity`: which parameters drive an endpoint, over their whole ranges at once.

The indices are of a number on the scale on which differences of it are told: where that is ratios,
and all values are above 0, of its logarithm. What moved between a quarter, half and all of the runs
says whether the ranking has settled.
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

from .batches import BATCH, Batch, plan_of, run_batch
from .cluster import InOrder, Workers, ordered
from .endpoints import Endpoint, Members
from .ensemble import EVERY_HOURS, Ensemble, Sampling
from .errors import InputError
from .fitting import Fit
from .indices import LEADING, block, design, indices
from .kernel import compile_kernel
from .objective import Array
from .posterior import problem_hash
from .ranges import Range, fit_ranges, prior_ranges
from .runlog import append, begin

TAIL = 0.05
"""Tornado and Morris's grid go from this share of each range to as much below its other end."""
MOST_SPOILT = 0.1
PARTS = (4, 2, 1)
MOVED = 0.05
"""A leading index that moves by less than this (of Morris's: of the largest) has settled."""
LEADS = 0.2
"""Of the largest index: a parameter above it is one of those that drive."""
LOG = "runs.jsonl"


@dataclass(frozen=True)
class SensitivityPlan:
    """What is asked, and how.

    Parameters
    ----------
    endpoints : tuple of Endpoint
    method : "sobol" or "morris"
    samples : int, blocks of the design (see `crs_sim.indices.design`)
    seed : int
    until : float, last day of each run
    within : None for the priors; or the level of the fit's intervals

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
    """Endpoints as one parameter after the other is moved, all others at their estimates.

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
    """What drives the endpoints of a fit.

    Parameters
    ----------
    problem : str
    plan : SensitivityPlan
    ranges : tuple of Range, n_free
    points : (n_rows, n_free) of the whole blocks that ran, between 0 and 1
    values : (n_rows, n_endpoints)
    runs : int, how many were made
    failures : what went wrong, in the order of the runs
    tornado : Tornado
    """

    problem: str
    plan: SensitivityPlan
    ranges: tuple[Range, ...]
    points: Array = field(repr=False)
    values: Array = field(repr=False)
    runs: int
    failures: tuple[str, ...] = field(repr=False)
    tornado: Tornado = field(repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters."""
        return tuple(r.name for r in self.ranges)

    @property
    def leading(self) -> str:
        """The index that ranks."""
        return LEADING[self.plan.method]

    def scale(self, place: int) -> str:
        """The scale on which the indices of an endpoint are: log or linear."""
        log = self.plan.endpoints[place].log and bool((self.values[:, place] > 0).all())
        return "log" if log else "linear"

    def indices(self, place: int, part: int = 1, level: float = 0.95) -> dict[str, Array]:
        """Of an endpoint, from the first 1/``part`` of the blocks; each (n_free,)."""
        size = block(self.plan.method, len(self.ranges))
        rows = slice(0, len(self.values) // size // part * size)
        values = self.values[rows, place]
        told = np.log(values) if self.scale(place) == "log" else values
        return indices(self.plan.method, self.points[rows], told, seed=self.plan.seed, level=level)

    def table(self, level: float = 0.95) -> pd.DataFrame:
        """One row for each endpoint and parameter, the leading ones first."""
        parts = [pd.DataFrame({"endpoint": e.name, "scale": self.scale(k), "parameter": self.names,
                               **self.indices(k, level=level)})
                 .sort_values(self.leading, ascending=False, kind="stable")
                 for k, e in enumerate(self.plan.endpoints)]  # fmt: skip
        return pd.concat(parts, ignore_index=True)

    def convergence(self, level: float = 0.95) -> pd.DataFrame:
        """The leading index from a quarter, half and all of the blocks, a row each."""
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
            told = np.log(t.moved[..., k]) if self._ratios(k) else t.moved[..., k]
            span = np.abs(told[1] - told[0])
            rows += [{
                "endpoint": e.name, "unit": e.unit, "parameter": self.names[j],
                "low": t.ends[0, j], "high": t.ends[1, j], "at_estimate": t.estimate[k],
                "at_low": t.moved[0, j, k], "at_high": t.moved[1, j, k],
            } for j in np.argsort(-np.nan_to_num(span, nan=-1.0), kind="stable")]  # fmt: skip
        return pd.DataFrame(rows)

    def _ratios(self, place: int) -> bool:
        """Whether the tornado of an endpoint is told in ratios."""
        levels = self.tornado.moved[..., place]
        return self.plan.endpoints[place].log and not (levels <= 0).any()

    def verdict(self, place: int) -> str:
        """Whether the ranking of an endpoint has settled, in words."""
        name = self.plan.endpoints[place].name
        if not np.ptp(self.values[:, place]):
            return f"{name}: it never changes, so nothing drives it"
        half, all_of_it = (self.indices(place, part)[self.leading] for part in (2, 1))
        largest = float(all_of_it.max())
        unit = 1.0 if self.plan.method == "sobol" else largest
        moved = float(np.abs(all_of_it - half).max()) / unit
        firm = [j for j in np.argsort(-all_of_it, kind="stable") if all_of_it[j] >= LEADS * largest]
        led = ", ".join(self.names[j] for j in firm)
        of = "" if unit == 1.0 else " of the largest"
        how = f"from half of the runs to all, {self.leading} moved by {moved:.2g}{of} at most"
        kept = not any(
            all_of_it[a] - all_of_it[b] > MOVED * unit and half[a] < half[b]
            for k, a in enumerate(firm) for b in firm[k + 1 :]
        )  # fmt: skip
        said = "kept their order" if kept else "changed their order"
        if not kept:
            settled = "the ranking has not settled"
        elif moved > MOVED:
            settled = "the ranking has settled, the indices have not"
        else:
            settled = "the ranking has settled"
        more = "" if settled.endswith("has settled") else ": ask for more samples"
        return f"{name}: {settled} ({how}; {led} {said}){more}"

    def __repr__(self) -> str:
        """One line."""
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
    """Which free parameters of a fit drive some endpoints of what was done to the patient.

    Parameters
    ----------
    result : Fit
    plan : SensitivityPlan
    folder : where runs are kept as they are made; None keeps them in memory alone
    resume : go on with those that are in the folder
    workers : int, threads; or the address of a Dask scheduler; the numbers do not depend on it
    progress : called as (runs done, of how many)

    Raises
    ------
    InputError
        If the plan cannot be carried out, or failed runs spoil more than a tenth of the blocks.
    StorageError
        If the folder holds the runs of something else, or cannot be written to.
    CrsSimError
        If a cluster cannot be reached, or goes away.

    Examples
    --------
    ``sensitivity(best, SensitivityPlan((endpoint(best.model, "peak_ifng"),))).table()``
    """
    from_fit = plan.within is not None
    ranges = fit_ranges(result, plan.within or 0.0) if from_fit else prior_ranges(result)
    points = design(plan.method, len(ranges), samples=plan.samples, seed=plan.seed)
    asked = _drawn(ranges, points if plan.method == "sobol" else TAIL + (1 - 2 * TAIL) * points)
    path = None if folder is None else Path(folder) / LOG
    compile_kernel(result.problem.model)  # before any thread, so that its message comes first
    with ordered(workers) as run_all:  # no file before the cluster is there
        done = [] if path is None else begin(path, _header(result, plan, points), resume=resume)
        first = len(done) - len(done) % BATCH  # those of a batch take the same steps: all or none
        for rows in _run(run_all, result, plan, asked, first):
            fresh, first = rows[len(done) - first :], first + len(rows)
            if path is not None:
                append(path, fresh)
            done += fresh
            if progress is not None:
                progress(len(done), len(asked))
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
    """`run_rows` of a table's batches, from a row on."""
    outputs = tuple(dict.fromkeys(e.needs for e in plan.endpoints))
    sampling = Sampling(until=plan.until, every_hours=EVERY_HOURS, outputs=outputs)
    runs = plan_of(result.problem.model, result.problem.patient.scenario, values, sampling)
    return run_all(partial(run_rows, plan.endpoints), [*runs.batches()][first // BATCH :])


def run_rows(ends: Sequence[Endpoint], batch: Batch) -> list[list[Any]]:
    """The endpoints of each member of a batch, and what went wrong ("" if nothing)."""
    found = run_batch(batch)
    told = _told(found, ends)
    failed = {f.member: str(f) for f in found.failures}
    nothing: list[Any] = [None] * len(ends)
    return [[*told.get(m, nothing), failed.get(m, "")] for m in batch.members]


def _told(found: Ensemble, ends: Sequence[Endpoint]) -> Mapping[Any, list[Any]]:
    if not found.members:
        return {}
    members = Members(found, found.scenarios[0].name)
    columns = np.array([e.of(members) for e in ends], dtype=np.float64)
    return dict(zip(found.members, columns.T.tolist(), strict=True))


def _drawn(ranges: Sequence[Range], points: Array) -> pd.DataFrame:
    return pd.DataFrame({r.name: r.at(points[:, k]) for k, r in enumerate(ranges)})


def _whole(values: Array, size: int, failures: tuple[str, ...]) -> NDArray[np.intp]:
    """The rows of the blocks in which every run finished."""
    bad = np.asarray(np.isnan(values).reshape(len(values) // size, -1).any(axis=1))
    if bad.mean() > MOST_SPOILT:
        raise InputError(
            f"{len(failures)} of {len(values)} runs failed, which spoils {bad.sum()} of {len(bad)} "
            "blocks of the design; indices of the rest would say little. Narrow the ranges "
            f"(--within). The first: {failures[0]}"
        )
    return np.flatnonzero(np.repeat(~bad, size))


def _tornado(
    run_all: InOrder, result: Fit, plan: SensitivityPlan, ranges: Sequence[Range]
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
    """All that decides the numbers."""
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
