"""prior.toml and problem.toml: free parameters, noise, and the `Population` they state.

A problem's own tables override those of the prior it names. The prior of a model is found by the
model's name.

A `Population` is a prior.toml with its model. It is the distribution of virtual patients, the prior
of a patient's fit, and the result of fitting several patients.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import numpy as np
from numpy.random import Generator
from scipy.special import ndtr, ndtri

from ..errors import FileError, InputError, unknown_name, with_location
from ..model import Array, Model, pretty
from ..store import CellError, Record, column, locate, place, read_toml, root
from .noise import FLAT, NORMAL_95, GradeScale, Noise, Spread

if TYPE_CHECKING:
    import pandas as pd

Above0 = Annotated[float, column(gt=0, allow_inf_nan=False)]
Words = Annotated[str, column(min_length=1)]
Entry = TypeVar("Entry")

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


class GradeTable(Record):
    """``[grade]``."""

    latent: str
    cuts: list[str]
    sd: Above0
    source: Words


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
        Naming file and key, and the closest match for a misspelt name.
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


def override(own: Mapping[str, Entry], prior: Mapping[str, Entry]) -> dict[str, Entry]:
    """A problem's own tables, then those of the prior that it does not override.

    >>> override({"b": 1}, {"a": 2, "b": 3})
    {'b': 1, 'a': 2}
    """
    return {**own, **{name: table for name, table in prior.items() if name not in own}}


def noise_of(file: ProblemFile | PriorFile, prior: Prior | None = None) -> Noise:
    """The noise given in a file, completed from the prior it names."""
    noise, grade = file.noise, file.grade
    if prior is not None:
        noise, grade = override(noise, prior.content.noise), grade or prior.content.grade
    spreads = {name: table.spread for name, table in noise.items()}
    if grade is None:
        return Noise(spreads)
    return Noise(spreads, GradeScale(grade.latent, tuple(grade.cuts), grade.sd, grade.source))


def without(tables: Mapping[str, Entry], fixed: list[str], path: Path) -> dict[str, Entry]:
    """The tables without those of the parameters that a problem fixes.

    Raises
    ------
    UnknownNameError
        For a parameter that is not free in the prior.
    """
    for name in fixed:
        if name not in tables:
            error = unknown_name("free parameter of the prior", name, tables)
            raise with_location(place(path, key="key fixed"), error)
    return {name: table for name, table in tables.items() if name not in fixed}


BOUND_SDS = 4.0
"""Prior standard deviations from the prior median to the default bounds."""
MAX_LOG_DISTANCE = 600.0
"""Largest log distance of a default bound, so that the bound does not overflow."""


@dataclass(frozen=True)
class Free:
    """A parameter to be estimated, on the log scale.

    Parameters
    ----------
    name : str, a parameter of the model
    lower, upper : float, bounds in the parameter's unit
    median : float, of the log-normal prior, in the parameter's unit
    sd : float, of the prior on the log scale (0.7: about a factor of two)
    source : str, where the prior comes from
    why : str, why an estimate far from its prior is plausible ("" if it is not far)
    """

    name: str
    lower: float
    upper: float
    median: float
    sd: float
    source: str = ""
    why: str = ""


def _free(model: Model, path: Path, name: str, table: FreeTable) -> Free:
    if name not in model.values:
        where = place(path, key=f"key free.{name}")
        raise with_location(where, unknown_name("parameter", name, model.values))
    median = model.values[name] if table.prior is None else table.prior
    if median <= 0:
        raise FileError(
            f"{place(path, key=f'key free.{name}')}: the model's value is {median:g}, which has "
            "no logarithm; give a prior above 0, or leave the parameter fixed"
        )
    low, high = _default_bounds(median, table.sd)
    least, most = model.bounds[name]  # so that a share does not end above 1
    lower = max(low, least) if table.lower is None else table.lower
    upper = min(high, most) if table.upper is None else table.upper
    return Free(name, lower, upper, median, table.sd, table.source, table.why)


def _default_bounds(median: float, sd: float) -> tuple[float, float]:
    """The default bounds: wide enough for every patient."""
    far = min(BOUND_SDS * sd, MAX_LOG_DISTANCE)
    return median * math.exp(-far), median * math.exp(far)


def _all_free(model: Model, path: Path, file: ProblemFile, prior: Prior | None) -> tuple[Free, ...]:
    own = [_free(model, path, name, table) for name, table in file.free.items()]
    if prior is None:
        return tuple(own)
    others = without(prior.content.free, file.fixed, path)
    more = [_free(model, prior.path, n, t) for n, t in others.items() if n not in file.free]
    return (*own, *more)


def free_of(model: Model, prior: Prior) -> tuple[Free, ...]:
    """The free parameters of a prior; medians it does not give are the model's values."""
    tables = prior.content.free.items()
    return tuple(_free(model, prior.path, name, table) for name, table in tables)


NO_SOURCE = "not given"


@dataclass(frozen=True)
class Population:
    """Parameters that differ between patients, log-normal and independent of each other.

    Parameters
    ----------
    name : str
    model : Model, whose values apply to all other parameters
    free : tuple of Free: medians, standard deviations on the log scale, bounds and sources
    noise : Noise, of the measurements
    patients : float, its weight as a prior, in patients, when others are fitted

    Examples
    --------
    >>> from crs_sim import load_model
    >>> crs = load_population(load_model("crs"))
    >>> values = crs.sample(3, np.random.default_rng(1))
    >>> values["k_crp"].shape
    (3,)
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
        """Standard deviation of the natural logarithm of each parameter."""
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
        return {f.name: _drawn(f, chances[:, k]) for k, f in enumerate(self.free)}

    def table(self) -> pd.DataFrame:
        """One row per parameter: label, unit, median, 95 % interval of patients, source."""
        import pandas as pd

        return pd.DataFrame([
            {
                "parameter": f.name,
                "label": self.model[f.name].label,
                "unit": pretty(self.model[f.name].unit),
                "median": f.median,
                "sd": f.sd,
                "low": f.median * math.exp(-NORMAL_95 * f.sd),
                "high": f.median * math.exp(NORMAL_95 * f.sd),
                "source": f.source,
            }
            for f in self.free
        ])  # fmt: skip

    def toml(self, note: str = "") -> str:
        """The population as text of a prior.toml; ``note`` is a comment at its top."""
        lines = [f"# {line}".rstrip() for line in note.splitlines()]
        lines += ["", f"name = {_text(self.name)}", f"patients = {self.patients:.15g}"]
        for f in self.free:
            lines += free_lines(f)
        for name, spread in self.noise.spreads.items():
            lines += ["", f"[noise.{name}]", *_noise_lines(spread)]
        if self.noise.grade is not None:
            grade = self.noise.grade
            lines += ["", "[grade]", f"latent = {_text(grade.latent)}",
                      f"cuts = [{', '.join(map(_text, grade.cuts))}]", f"sd = {grade.sd!r}",
                      f"source = {_text(grade.source)}"]  # fmt: skip
        return "\n".join(lines).lstrip("\n") + "\n"


def load_population(model: Model, name: str | Path | None = None) -> Population:
    """Load the population of a model: from the prior of that name, or the model's own.

    Raises
    ------
    FileError, InputError, UnknownNameError
        Naming file and key, and the closest match of a misspelt name.
    """
    prior = prior_of(model) if name is None else read_prior(name)
    free, table = free_of(model, prior), prior.content
    return Population(table.name, model, free, noise_of(table), table.patients)


def _drawn(free: Free, chances: Array) -> Array:
    low, high = (ndtr(math.log(x / free.median) / free.sd) for x in (free.lower, free.upper))
    logs = math.log(free.median) + free.sd * ndtri(low + chances * (high - low))
    return np.asarray(np.exp(logs))


def free_lines(free: Free, comment: str = "") -> list[str]:
    """A free parameter as the ``[free.NAME]`` of a prior.toml or problem.toml."""
    return ["", f"[free.{free.name}]{comment}", f"prior = {free.median!r}", f"sd = {free.sd!r}",
            f"lower = {free.lower!r}", f"upper = {free.upper!r}",
            f"source = {_text(free.source)}"]  # fmt: skip


def _noise_lines(spread: Spread) -> list[str]:
    lines = [f"observable = {_text(spread.observable)}"] if spread.observable else []
    lines += [f"sd = {spread.sd!r}", f"source = {_text(spread.source)}"]
    if spread.error != "log-normal":
        lines += [f"error = {_text(spread.error)}"]
        lines += [f"additive = {spread.additive!r}"] if spread.error == "combined" else []
    if spread.estimate:
        lines += ["estimate = true", f"prior_sd = {spread.prior_sd!r}"]
    return lines


def _text(text: str) -> str:
    return json.dumps(text or NO_SOURCE, ensure_ascii=False)
