"""prior.toml and problem.toml: free parameters, noise, and the `Population` they state.

A problem's own tables override those of the prior it names. A `Population`, a prior.toml with its
model, is the distribution of virtual patients, the prior of a fit, and what fitting several gives.

A parameter is estimated on its scale: ln(value) or, of a share, ln(value/(1 - value)).
"""

from __future__ import annotations

import json
import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from ..errors import FileError, InputError, unknown_name, with_location
from ..model import Array, Model, pretty
from ..store import CellError, Record, column, locate, place, read_toml, root
from .grades import GradeTable
from .noise import FLAT, NORMAL_95, Noise, Spread

if TYPE_CHECKING:
    import pandas as pd

Above0 = Annotated[float, column(gt=0, allow_inf_nan=False)]
Words = Annotated[str, column(min_length=1)]

PROBLEM, PRIOR = "problem.toml", "prior.toml"
PRIORS = "fits/priors"
DATA_SET = ".csv"
"""Suffix of ``data`` where it names a data set rather than a patient."""


class FreeTable(Record):
    """One ``[free.NAME]``."""

    prior: Above0 | None = None
    sd: Above0
    lower: Above0 | None = None
    upper: Above0 | None = None
    scale: Literal["log", "logit"] | None = None
    source: Words
    why: str = ""


class NoiseTable(Record):
    """One ``[noise.OBSERVABLE]`` or ``[noise.ASSAY]``; see `Spread`."""

    sd: Above0
    source: Words
    error: Literal["log-normal", "proportional", "additive", "combined"] = "log-normal"
    additive: Above0 | None = None
    estimate: bool = False
    prior_sd: Above0 | None = None
    observable: str = ""

    def check(self) -> None:
        """Check that a combined error, and no other, has two parts, and what prior_sd is for."""
        if (self.error == "combined") != (self.additive is not None):
            raise CellError("additive", 'belongs to error = "combined", which needs it beside sd')
        if self.prior_sd is not None and not self.estimate:
            raise CellError("prior_sd", "is the prior of an estimate; add estimate = true")

    @property
    def spread(self) -> Spread:
        """As `Spread`."""
        return Spread(self.sd, self.source, self.error, self.additive or 0.0, self.estimate,
                      self.prior_sd or FLAT, self.observable)  # fmt: skip


class PriorFile(Record):
    """prior.toml."""

    name: Words
    patients: Annotated[float, column(ge=0, allow_inf_nan=False)] = 1.0
    free: dict[str, FreeTable]
    noise: dict[str, NoiseTable] = column(default_factory=dict)
    grade: GradeTable | None = None

    def check(self) -> None:
        """Check that at least one parameter varies."""
        if not self.free:
            raise CellError("free", "no parameter varies; add a table [free.NAME]")


class ProblemFile(Record):
    """problem.toml."""

    name: Words
    model: str = "crs"
    data: Words
    columns: Words | None = None
    subject: Words | None = None
    prior: Words | None = None
    fixed: list[str] = column(default_factory=list)
    seed: int = 1
    starts: int = 8
    free: dict[str, FreeTable] = column(default_factory=dict)
    noise: dict[str, NoiseTable] = column(default_factory=dict)
    grade: GradeTable | None = None
    accept: dict[str, list[float]] = column(default_factory=dict)

    def check(self) -> None:
        """Check that something is free, that subject has a data set, and that accept has pairs."""
        for key in ("columns", "subject"):
            if getattr(self, key) is not None and not self.data.lower().endswith(DATA_SET):
                raise CellError(key, f"belongs to a data set, but data = {self.data!r} is no .csv")
        if not self.free and self.prior is None:
            raise CellError("free", "there is nothing to fit; add a table [free.NAME], or a prior")
        if self.fixed and self.prior is None:
            raise CellError("fixed", "fixes parameters of a prior, but there is no key 'prior'")
        for name, limits in self.accept.items():
            if len(limits) != 2:
                raise CellError(f"accept.{name}", "give two numbers: [lowest, highest]")


@dataclass(frozen=True)
class Prior:
    """A prior.toml: its path and its contents."""

    path: Path
    content: PriorFile


def read_prior(name: str | Path) -> Prior:
    """Read the prior in a folder or file, or the shipped one of that name.

    Raises
    ------
    FileError, InputError, UnknownNameError
        Naming file and key.
    """
    found = locate(name, PRIORS, PRIOR)
    path = found / PRIOR if found.is_dir() else found
    return Prior(path, read_toml(path, PriorFile))


def prior_of(model: Model) -> Prior:
    """The prior of a model: prior.toml beside its model file, else the shipped one of its name.

    Raises
    ------
    FileError
        If there is none.
    """
    beside = Path(model.path).with_name(PRIOR) if model.path else Path(PRIOR)
    if model.path and beside.is_file():
        return read_prior(beside)
    if (root() / PRIORS / model.name / PRIOR).is_file():
        return read_prior(root() / PRIORS / model.name)
    raise FileError(
        f"{place(beside)}: not found, so it is unknown which parameters of model {model.name} "
        "differ between patients. Write it ([free.NAME] with sd and source for each of them, "
        "[noise.OBSERVABLE] with sd and source for each observable), or name one with --prior"
    )


def noise_of(file: ProblemFile | PriorFile, prior: Prior | None = None) -> Noise:
    """The noise given in a file, completed from the prior it names."""
    noise, grade = file.noise, file.grade
    if prior is not None:
        others = {n: table for n, table in prior.content.noise.items() if n not in noise}
        noise, grade = {**noise, **others}, grade or prior.content.grade
    spreads = {name: table.spread for name, table in noise.items()}
    return Noise(spreads, None if grade is None else grade.scale)


BOUND_SDS = 4.0  # prior standard deviations from the prior median to the default bounds
FARTHEST, MOST_LOGIT = 600.0, 30.0
"""Largest distance of a default bound on its scale; largest logit, so that a share is below 1."""
SHARE, BELOW_1 = (0.0, 1.0), float(np.nextafter(1.0, 0.0))


def to_scale(values: ArrayLike, scales: str | Sequence[str]) -> Array:
    """Values of parameters on their scales: one for all, or one for each of the last axis."""
    shares = np.where(np.asarray(scales) == "logit", values, 0.0)
    return np.asarray(np.log(values) - np.log1p(-shares))


def from_scale(points: ArrayLike, scales: str | Sequence[str]) -> Array:
    """The values of points on these scales, the inverse of `to_scale`; a share stays below 1.

    >>> from_scale([0.0, 0.0], ["log", "logit"]).tolist()
    [1.0, 0.5]
    """
    logit, values = np.asarray(scales) == "logit", np.exp(points)
    shares = np.minimum(values / (1.0 + values), BELOW_1) if logit.any() else values
    return np.where(logit, shares, values)


@dataclass(frozen=True)
class Free:
    """A parameter to be estimated.

    Parameters
    ----------
    name : str, a parameter of the model
    lower, upper, median : float, bounds and median of the prior, in the parameter's unit
    sd : float, of the prior on the parameter's scale (0.7 on the log scale: about a factor of two)
    source : str, where the prior comes from
    why : str, why an estimate far from its prior is plausible ("" if it is not far)
    scale : "log", or "logit" of a share, on which the prior is normal
    """

    name: str
    lower: float
    upper: float
    median: float
    sd: float
    source: str = ""
    why: str = ""
    scale: str = "log"

    def to_scale(self, value: float) -> float:
        """A value on the parameter's scale."""
        return float(to_scale(value, self.scale))

    @property
    def scale_told(self) -> tuple[str, ...]:
        """The scale for records whose hashes are stored: none for log, which was the only one."""
        return () if self.scale == "log" else (self.scale,)

    def at(self, sds: float) -> float:
        """The value so many standard deviations of the prior from its median."""
        return float(from_scale(self.to_scale(self.median) + sds * self.sd, self.scale))

    def drawn(self, chances: Array) -> Array:
        """Quantiles of the prior within the bounds, at cumulative probabilities."""
        centre = self.to_scale(self.median)
        low, high = (ndtr((self.to_scale(x) - centre) / self.sd) for x in (self.lower, self.upper))
        return from_scale(centre + self.sd * ndtri(low + chances * (high - low)), self.scale)


def _free(model: Model, path: Path, name: str, table: FreeTable) -> Free:
    where = place(path, key=f"key free.{name}")
    if name not in model.values:
        raise with_location(where, unknown_name("parameter", name, model.values))
    median = model.values[name] if table.prior is None else table.prior
    if median <= 0:
        raise FileError(f"{where}: the model's value is {median:g}, which has no logarithm; give "
                        "a prior above 0, or leave the parameter fixed")  # fmt: skip
    scale = scale_of(model, name, table.scale, where)
    stated = {"prior": median, "lower": table.lower, "upper": table.upper}
    for key, value in stated.items() if scale == "logit" else ():
        if value is not None and value >= 1.0:
            raise FileError(
                f"{where}.{key}: {value:g} is not between 0 and 1, where {name} "
                f"({model[name].label}) is, as a share; state one below 1"
            )
    low, high = _default_bounds(model, name, median, table.sd, scale)
    lower, upper = table.lower or low, table.upper or high
    return Free(name, lower, upper, median, table.sd, table.source, table.why, scale)


def scale_of(model: Model, name: str, stated: str | None, where: str = "") -> str:
    """The scale of a parameter: logit for a share, unless stated otherwise, and for no other."""
    least, most = model.bounds[name]
    if stated == "logit" and (least, most) != SHARE:
        raise InputError(
            f"{where}.scale: {name} is no share: its model allows {least:g} to {most:g}, and only "
            'a share, from 0 to 1, has a logit; write scale = "log", or delete the key'
        )
    return stated or ("logit" if (least, most) == SHARE else "log")


def _default_bounds(model: Model, name: str, median: float, sd: float, scale: str) -> list[float]:
    """The default bounds: wide enough for every patient, and within those of the model."""
    far, (least, most) = min(BOUND_SDS * sd, FARTHEST), model.bounds[name]
    if scale == "log":  # not from the logarithm: stored problems are compared to the last bit
        return [max(median * math.exp(-far), least), min(median * math.exp(far), most)]
    centre = float(to_scale(median, scale))
    ends: list[float] = from_scale([centre - far, min(centre + far, MOST_LOGIT)], scale).tolist()
    return ends


def _all_free(model: Model, path: Path, file: ProblemFile, prior: Prior | None) -> tuple[Free, ...]:
    own = tuple(_free(model, path, name, table) for name, table in file.free.items())
    if prior is None:
        return own
    for name in file.fixed:
        if name not in prior.content.free:
            error = unknown_name("free parameter of the prior", name, prior.content.free)
            raise with_location(place(path, key="key fixed"), error)
    return own + free_of(model, prior, {*file.fixed, *file.free})


def free_of(model: Model, prior: Prior, without: Container[str] = ()) -> tuple[Free, ...]:
    """The free parameters of a prior; medians it does not give are the model's values."""
    tables = prior.content.free.items()
    return tuple(_free(model, prior.path, n, table) for n, table in tables if n not in without)


@dataclass(frozen=True)
class Population:
    """Parameters that differ between patients, normal on their scales and independent.

    Parameters
    ----------
    name : str
    model : Model, whose values apply to all other parameters
    free : tuple of Free: medians, standard deviations on their scales, bounds and sources
    noise : Noise, of the measurements
    patients : float, its weight as a prior, in patients, when others are fitted
    """

    name: str
    model: Model
    free: tuple[Free, ...]
    noise: Noise
    patients: float = 1.0

    @property
    def medians(self) -> dict[str, float]:
        """Median of each parameter, in its unit."""
        return {free.name: free.median for free in self.free}

    @property
    def sds(self) -> dict[str, float]:
        """Standard deviation of each parameter on its scale."""
        return {free.name: free.sd for free in self.free}

    def sample(self, n: int, rng: Generator) -> dict[str, Array]:
        """Draw parameters of virtual patients, each (n,), between their bounds.

        Raises
        ------
        InputError
            If n is below 1.
        """
        if n < 1:
            raise InputError(f"sample of {self.name}: {n} patients; give 1 or more")
        chances = rng.random((n, len(self.free)))
        return {f.name: f.drawn(chances[:, k]) for k, f in enumerate(self.free)}

    def table(self) -> pd.DataFrame:
        """One row per parameter: label, unit, median, 95 % interval of patients, source."""
        import pandas as pd

        columns = ("parameter", "label", "unit", "median", "sd", "low", "high", "source")
        rows = [
            (f.name, self.model[f.name].label, pretty(self.model[f.name].unit), f.median, f.sd,
             f.at(-NORMAL_95), f.at(NORMAL_95), f.source)
            for f in self.free
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=columns)

    def toml(self, note: str = "") -> str:
        """The population as text of a prior.toml; ``note`` is a comment at its top."""
        lines = [f"# {line}".rstrip() for line in note.splitlines()]
        lines += ["", f"name = {_text(self.name)}", f"patients = {self.patients:.15g}"]
        for f in self.free:
            lines += free_lines(f, self.model)
        usual, grade = asdict(Spread(0.0)), self.noise.grade
        for name, spread in self.noise.spreads.items():
            own = {k: v for k, v in asdict(spread).items() if k == "source" or (
                v != usual[k] and (k != "prior_sd" or spread.estimate))}  # fmt: skip
            lines += ["", f"[noise.{name}]", *_lines(own)]
        lines += ["", "[grade]", *_lines(grade.record)] if grade else []
        return "\n".join(lines).lstrip("\n") + "\n"


def load_population(model: Model, name: str | Path | None = None) -> Population:
    """Load the population of a model: from a prior, as `read_prior`, or its own, as `prior_of`."""
    prior = prior_of(model) if name is None else read_prior(name)
    free, table = free_of(model, prior), prior.content
    return Population(table.name, model, free, noise_of(table), table.patients)


def free_lines(free: Free, model: Model, comment: str = "") -> list[str]:
    """A free parameter as the ``[free.NAME]`` of a prior.toml or problem.toml."""
    usual = free.scale == scale_of(model, free.name, None)
    return ["", f"[free.{free.name}]{comment}", *_lines({
        "prior": free.median, "sd": free.sd, "lower": free.lower, "upper": free.upper,
        **({} if usual else {"scale": free.scale}), "source": free.source,
    })]  # fmt: skip


def _lines(table: Mapping[str, object]) -> list[str]:
    return [f"{key} = {_text(value)}" for key, value in table.items()]


def _text(value: object) -> str:
    return json.dumps("not given" if value == "" else value, ensure_ascii=False)
