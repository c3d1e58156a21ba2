"""`Posterior`: MCMC draws of the parameters given data and priors, with convergence diagnostics.

`Posterior.verdict` states whether the draws have converged; see `crs_sim.convergence`.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import FileError, InputError, StorageError, command, unknown_name, with_location
from ..fitting import FitProblem, Free, address_of, from_scale, noise_record
from ..model import Array, pretty
from ..store import number, place, read_cells
from .draws import (
    ESS_NEEDED,
    RHAT_LIMIT,
    WALKERS_LIMIT,
    Convergence,
    Draws,
    Part,
    check_same_run,
    convergence,
    join,
    read,
)

if TYPE_CHECKING:
    import pandas as pd

WARM_UP = 0.3
"""Share of the draws, from the start, that is discarded as warm-up."""
FEWEST_WALKERS = 16
WALKERS_EACH = 2.4
"""Default walkers of a group per free parameter; differential evolution needs more than one."""
SAMPLER = "emcee DEMove 0.9, DEMove gamma 1 0.1"
ROUNDED = 50
DRAWS_FILE, ABOUT, CHAIN = "draws.csv", "posterior.json", "chain"
"""Written by `crs-sim sample`: draws for other programs, their metadata, the folder of chains."""


@dataclass(frozen=True)
class SamplePlan:
    """How much to sample.

    Parameters
    ----------
    draws : int, kept of each walker, warm-up included
    thin : int, thinning interval: moves of each walker from one draw to the next
    groups : int, independent groups of walkers, which R-hat compares
    walkers : int, in each group; even (default: 2.4 for each free parameter)
    seed : int

    Examples
    --------
    >>> SamplePlan(draws=200).of_size(20).walkers
    48
    """

    draws: int = 500
    thin: int = 10
    groups: int = 4
    walkers: int | None = None
    seed: int = 1

    def of_size(self, n_free: int) -> SamplePlan:
        """Return the plan for ``n_free`` free parameters, with its number of walkers.

        Raises
        ------
        InputError
            If there are too few groups, walkers or draws.
        """
        usual = max(FEWEST_WALKERS, 8 * math.ceil(WALKERS_EACH * n_free / 8))
        walkers = usual if self.walkers is None else self.walkers
        if n_free == 0:
            raise InputError("there is nothing to sample: no parameter is free")
        for name in ("draws", "thin"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; give 1 or more")
        if self.groups < 2:
            raise InputError(f"groups is {self.groups}; convergence needs 2 or more (4 is usual)")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}; give 0 or more")
        lowest = max(2 * n_free, 6)
        if walkers < lowest or walkers % 2:
            raise InputError(
                f"walkers is {walkers}; give an even number, at least {lowest} for {n_free} free "
                f"parameters ({usual} is usual)"
            )
        return SamplePlan(self.draws, self.thin, self.groups, walkers, self.seed)


@dataclass(frozen=True, eq=False)
class Posterior:
    """Draws of the free parameters of a problem.

    Parameters
    ----------
    problem : FitProblem
    plan : SamplePlan, with its number of walkers
    chain : (n_draws, n_groups, n_walkers, n_free) scaled parameters, warm-up included
    log_posterior : (n_draws, n_groups, n_walkers), up to a constant
    counts : (n_groups, 3) moves accepted, runs made, runs that failed
    """

    problem: FitProblem
    plan: SamplePlan
    chain: Array = field(repr=False)
    log_posterior: Array = field(repr=False)
    counts: np.ndarray[Any, np.dtype[np.int64]] = field(repr=False)

    @property
    def warm_up(self) -> int:
        """Number of draws of each walker, from the start, that are discarded as warm-up."""
        return math.ceil(WARM_UP * len(self.chain))

    @property
    def kept(self) -> Array:
        """The draws after the warm-up, (n_kept, n_groups, n_walkers, n_free) scaled parameters."""
        return self.chain[self.warm_up :]

    @property
    def runs(self) -> int:
        """Simulations made."""
        return int(self.counts[:, 1].sum())

    @property
    def failed_runs(self) -> int:
        """Simulations that failed; such a move is never accepted."""
        return int(self.counts[:, 2].sum())

    @property
    def acceptance(self) -> float:
        """Share of the moves that were accepted."""
        moves = math.prod(self.log_posterior.shape) * self.plan.thin
        return float(self.counts[:, 0].sum() / moves) if moves else math.nan

    @cached_property
    def convergence(self) -> tuple[Convergence, ...]:
        """Convergence diagnostics of each parameter."""
        return convergence(self.kept, self.problem.names, self.plan.thin)

    @property
    def converged(self) -> bool:
        """Whether every parameter is within every limit."""
        return all(c.reached for c in self.convergence)

    @property
    def more_draws(self) -> int:
        """Estimate of the draws of each walker still needed; 0 once converged."""
        if self.converged:
            return 0
        factors = [_factor(c) for c in self.convergence]
        finite = [factor for factor in factors if math.isfinite(factor)]
        factor = max(finite) if len(finite) == len(factors) else 4.0
        needed = len(self.chain) * max(1.2, min(factor, 20.0))
        return ROUNDED * math.ceil((needed - len(self.chain)) / ROUNDED)

    @property
    def verdict(self) -> str:
        """Whether the draws have converged, and if not, why and what to do, in words."""
        checks: tuple[tuple[str, float, str], ...] = (
            ("rhat", RHAT_LIMIT, "R-hat of the groups is {0:.3f} for {1} (limit {2:g})"),
            ("walkers_rhat", WALKERS_LIMIT,
             "R-hat of single walkers is {0:.2f} for {1} (limit {2:g})"),
            ("ess", ESS_NEEDED, "the effective sample size of {1} is {0:.0f} ({2:g} is needed)"),
        )  # fmt: skip
        if any(math.isnan(c.ess) or math.isnan(c.rhat) for c in self.convergence):
            problems = ["too few draws for diagnostics"]
        else:
            problems = [text for check in checks for text in self._breach(*check)]
        if not problems:
            fewest = min(self.convergence, key=lambda c: c.ess)
            worst = max(c.rhat for c in self.convergence)
            return (
                f"Converged: R-hat at most {worst:.3f}, effective sample size at least "
                f"{fewest.ess:.0f} ({fewest.parameter})."
            )
        total = len(self.chain) + self.more_draws
        return (
            f"Not converged: {'; '.join(problems)}. Resume with --resume --draws {total} (about "
            f"{self.more_draws} more of each walker)."
        )

    def _breach(self, name: str, limit: float, words: str) -> list[str]:
        sign = -1.0 if name == "ess" else 1.0
        worst = max(self.convergence, key=lambda c: sign * float(getattr(c, name)))
        value = float(getattr(worst, name))
        beyond = sign * value > sign * limit
        return [words.format(value, worst.parameter, limit)] if beyond else []

    def values(self, count: int | None = None) -> pd.DataFrame:
        """Draws of the parameters in their own units: one row per draw, one column per parameter.

        Parameters
        ----------
        count : int, number of rows, picked at random (with the plan's seed); all of them if None
            or if there are fewer. Each is a draw of the posterior; neighbours may be correlated

        Raises
        ------
        InputError
            If ``count`` is below 1.
        """
        import pandas as pd  # slow to load

        rows = self.kept.reshape(-1, self.kept.shape[-1])
        if count is not None:
            if count < 1:
                raise InputError(f"count is {count}; give 1 or more")
            if count < len(rows):
                rng = np.random.default_rng(self.plan.seed)
                rows = rows[np.sort(rng.choice(len(rows), count, replace=False))]
        table = from_scale(rows, self.problem.scales)
        return pd.DataFrame(table, columns=[*self.problem.names]).rename_axis("draw")

    def summary(self) -> pd.DataFrame:
        """One row per parameter: quantiles, sd on its scale, prior, convergence diagnostics."""
        import pandas as pd

        found = np.quantile(self.kept, [0.05, 0.5, 0.95], axis=(0, 1, 2))
        quantiles, rows = from_scale(found, self.problem.scales), []
        for k, (free, one) in enumerate(zip(self.problem.free, self.convergence, strict=True)):
            parameter = self.problem.model[free.name]
            rows.append({
                "parameter": free.name,
                "label": parameter.label,
                "unit": pretty(parameter.unit),
                **dict(zip(("q05", "q50", "q95"), quantiles[:, k].tolist(), strict=True)),
                "scale": free.scale,
                "sd": float(self.kept[..., k].std()),
                "prior_median": free.median,
                "prior_sd": free.sd,
                **{name: value for name, value in asdict(one).items() if name != "parameter"},
                "converged": one.reached,
            })  # fmt: skip
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        """The posterior in one line."""
        n_draws, n_groups, n_walkers, n_free = self.chain.shape
        return (
            f"Posterior({self.problem.name!r}: {n_free} parameters, {n_groups} groups of "
            f"{n_walkers} walkers, {n_draws} draws each, "
            f"{'converged' if self.converged else 'NOT converged'})"
        )


def _factor(diagnostics: Convergence) -> float:
    """Factor by which the number of draws must grow, if further draws are like these."""
    return max(
        ESS_NEEDED / diagnostics.ess,
        (diagnostics.rhat**2 - 1.0) / (RHAT_LIMIT**2 - 1.0),
        (diagnostics.walkers_rhat**2 - 1.0) / (WALKERS_LIMIT**2 - 1.0),
    )


def posterior_from_parts(problem: FitProblem, plan: SamplePlan, parts: list[Part]) -> Posterior:
    """The posterior of the parts of a run; the first part has the initial positions."""
    first, *rest = parts
    empty = Part(first.chain[:0], first.log_posterior[:0], first.words, first.places, first.counts)
    whole = join([empty, *rest])
    return Posterior(problem, plan, whole.chain, whole.log_posterior, whole.counts)


def load_posterior(folder: str | Path, problem: FitProblem) -> Posterior:
    """Load the posterior that was sampled into a folder.

    Raises
    ------
    StorageError
        If there is none, it is damaged, or it was sampled from another problem.
    """
    path = Path(folder)
    header, parts = read(path)
    plan = SamplePlan(0, *(header[name] for name in ("thin", "groups", "walkers", "seed")))
    check_same_run(path, header, run_header(problem, plan))
    return posterior_from_parts(problem, plan, parts)


def read_draws(place_of: str | Path, problem: FitProblem) -> Draws:
    """Read draws of a problem's parameters from a CSV, such as ``draws.csv`` of `crs-sim sample`.

    If `ABOUT` is beside it, as `crs-sim sample` writes it, the source includes the convergence
    verdict, and draws of a problem with other data, priors or noise are refused.

    Parameters
    ----------
    place_of : the file, or the folder that holds draws.csv
    problem : FitProblem, whose free parameters are the columns, in any order

    Raises
    ------
    FileError, StorageError, UnknownNameError
        Naming file, row and column; or if the draws are of another problem.
    """
    path = Path(place_of)
    path = path / DRAWS_FILE if path.is_dir() else path
    verdict = _stored_verdict(path, problem)  # first: another problem may have other columns too
    head, header, rows = read_cells(path)
    for name in header:
        if name not in problem.names:
            error = unknown_name("free parameter", name, problem.names)
            raise with_location(place(path, head), error)
    for name in problem.names:
        if name not in header:
            raise FileError(f"{place(path, head)}: no column {name}, which is free in "
                            f"{problem.name}; give one for each free parameter")  # fmt: skip
    values = [[_drawn(path, row, free, cells.get(free.name, "")) for free in problem.free]
              for row, cells in rows]  # fmt: skip
    import pandas as pd

    told = f"of the posterior. {verdict}" if verdict else f"given in {path.name}"
    table = pd.DataFrame(values, columns=list(problem.names))
    return Draws(table, f"{len(rows)} draws {told}", float(len(rows)))


def _stored_verdict(path: Path, problem: FitProblem) -> str:
    """The convergence verdict stored beside a file of draws; "" if they are not the sampler's."""
    about = path.parent / ABOUT
    if path.name != DRAWS_FILE or not about.is_file():
        return ""
    again = command("sample", address_of(problem), "--out", "NEW_FOLDER")
    try:
        stored = json.loads(about.read_text(encoding="utf-8"))
        stored_hash, verdict = stored["problem_hash"], str(stored["verdict"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StorageError(f"{about}  is damaged ({error}); sample again ({again}), or delete it"
                           ) from None  # fmt: skip
    if stored_hash != problem_hash(problem):
        raise StorageError(
            f"{path}  was sampled from another version of {problem.name}: its model, priors, "
            f"noise, data or doses have changed since; sample again ({again})"
        )
    return verdict


def _drawn(path: Path, row: int, free: Free, text: str) -> float:
    """Parse one value of a table of draws."""
    try:
        value = number(text)
    except ValueError as error:
        raise FileError(f"{place(path, row, free.name)}: {error}") from None
    share = free.scale == "logit"
    if not 0.0 < value < (1.0 if share else math.inf):
        raise FileError(f"{place(path, row, free.name)}: {value:g} is not a finite number above 0"
                        f"{' and below 1' * share}; a free parameter must be one")  # fmt: skip
    return value


def run_header(problem: FitProblem, plan: SamplePlan) -> dict[str, Any]:
    """Header of a run of the sampler: all its numbers depend on, except the starting points."""
    return {
        "problem": problem.name,
        "model_hash": problem.model.hash,
        "problem_hash": problem_hash(problem),
        "names": list(problem.names),
        "seed": plan.seed,
        "groups": plan.groups,
        "walkers": plan.walkers,
        "thin": plan.thin,
        "sampler": SAMPLER,
    }


def _told(fields: dict[str, Any]) -> dict[str, Any]:
    """Without what few doses, readings or triggers have, so that hashes on disk hold."""
    return {k: _told(v) if isinstance(v, dict) else v for k, v in fields.items()
            if v or k not in ("early", "assay", "course", "also")}  # fmt: skip


def problem_hash(problem: FitProblem) -> str:
    """A hash, twelve hexadecimal digits, of everything the posterior depends on."""
    patient = problem.patient
    content: dict[str, Any] = {
        "model": problem.model.hash,
        "fixed": {k: v for k, v in problem.model.values.items() if k not in problem.names},
        "free": [(f.name, f.lower, f.upper, f.median, f.sd, *f.scale_told) for f in problem.free],
        "noise": noise_record(problem.noise),
        "observations": [_told({**asdict(o), "row": 0, "note": ""}) for o in patient.observations],
        "doses": [_told(asdict(dose)) for dose in patient.scenario.doses],
        "changes": [asdict(change) for change in patient.scenario.changes],
        "resets": list(patient.scenario.resets),
        "values": dict(patient.scenario.values),
    }
    if not patient.scenario.decided:
        content |= {"triggers": [_told(asdict(t)) for t in patient.scenario.triggers],
                  "holds": [_told(asdict(hold)) for hold in patient.scenario.holds]}  # fmt: skip
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
