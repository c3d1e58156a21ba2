"""The schemas of problem.toml (a fitting problem) and prior.toml (a population prior).

A problem's own tables override those of the prior it names. The prior of a model is found by the
model's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from .errors import FileError, unknown_name, with_location
from .files import locate, root
from .model import Model
from .noise import GradeScale, Noise, Spread
from .tables import CellError, Record, column, place, read_toml

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
    """One ``[noise.OBSERVABLE]``."""

    sd: Above0
    source: Words


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
    says: PriorFile


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
        noise, grade = override(noise, prior.says.noise), grade or prior.says.grade
    spreads = {name: Spread(table.sd, table.source) for name, table in noise.items()}
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
