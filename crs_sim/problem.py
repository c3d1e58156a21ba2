"""The question asked of data: model, patient, free parameters with priors, noise, acceptance.

A `FitProblem` is checked when it is made, from ``problem.toml`` or in Python: nothing runs on a
question that cannot be answered. It holds no result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from .errors import FileError, InputError, unknown_name
from .formula import evaluate, names
from .model import Model
from .noise import GradeScale, Noise, Spread
from .patient import Patient, check_against, load_patient
from .shipped import locate
from .tables import CellError, Record, at_place, column, place, read_toml

Above0 = Annotated[float, column(gt=0, allow_inf_nan=False)]
Words = Annotated[str, column(min_length=1)]

WIDE = 4.0
"""Bounds that are not given lie this many prior standard deviations from the prior median."""


@dataclass(frozen=True)
class Free:
    """A parameter to be estimated, on the log scale.

    Parameters
    ----------
    name : str, a parameter of the model
    lower, upper : float, bounds in the parameter's unit
    median : float, of the log-normal prior, in the parameter's unit
    sd : float, of the prior on the log scale (0.7: within a factor of two, give or take)
    source : str, where the prior comes from
    why : str, why an estimate far from its prior is believed ("" if it is not far)
    """

    name: str
    lower: float
    upper: float
    median: float
    sd: float
    source: str = ""
    why: str = ""


@dataclass(frozen=True)
class FitProblem:
    """Everything a fit needs, checked.

    Parameters
    ----------
    name : str
    model : Model, its values hold for all parameters that are not free
    patient : Patient, with observations in the model's units
    free : tuple of Free
    noise : Noise
    accept : mapping of observation id to (low, high), in the observable's unit: the verdict
    seed : int, of the starts
    starts : int, how many descents; the first begins at the prior centre
    path : str, the file it came from ("" if none)

    Raises
    ------
    InputError, UnknownNameError
        For anything that cannot be fitted as written.
    """

    name: str
    model: Model
    patient: Patient
    free: tuple[Free, ...]
    noise: Noise
    accept: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    seed: int = 1
    starts: int = 8
    path: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot be fitted as written."""
        for check in (_check_free, _check_values, _check_noise, _check_grades, _check_accept):
            check(self)
        if self.starts < 1 or self.seed < 0:
            raise InputError(f"{self.where('starts, seed')}: starts is at least 1, seed at least 0")

    @property
    def names(self) -> tuple[str, ...]:
        """Ids of the free parameters, in the order of every vector of a fit."""
        return tuple(f.name for f in self.free)

    def where(self, key: str) -> str:
        """The beginning of a message: file (or name of the problem) and key."""
        return place(Path(self.path or self.name), key=f"key {key}")

    def without(self, name: str) -> FitProblem:
        """The problem with one parameter fixed at its prior median."""
        medians = {f.name: f.median for f in self.free}
        return self.fixed_at(name, medians.get(name, math.nan))

    def fixed_at(self, name: str, value: float) -> FitProblem:
        """The problem with one parameter fixed at a value, and no prior for it."""
        if name not in self.names:
            raise unknown_name("free parameter", name, self.names)
        rest = tuple(f for f in self.free if f.name != name)
        return replace(self, model=self.model.with_values(**{name: value}), free=rest)

    def leaving_out(self, *ids: str) -> FitProblem:
        """The problem without some of its observations.

        Raises
        ------
        UnknownNameError, InputError
            If one of them is not there, or nothing would be left.
        """
        rest = self.patient.observations.without(*ids)
        accept = {name: limits for name, limits in self.accept.items() if name not in ids}
        return replace(self, patient=replace(self.patient, observations=rest), accept=accept)


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


class ProblemFile(Record):
    """problem.toml."""

    name: Words
    model: str = "crs"
    data: Words
    seed: int = 1
    starts: int = 8
    free: dict[str, FreeTable]
    noise: dict[str, NoiseTable] = column(default_factory=dict)
    grade: GradeTable | None = None
    accept: dict[str, list[float]] = column(default_factory=dict)

    def check(self) -> None:
        """Something is free, and every accept is a pair."""
        if not self.free:
            raise CellError("free", "there is nothing to fit; add a table [free.NAME]")
        for name, limits in self.accept.items():
            if len(limits) != 2:
                raise CellError(f"accept.{name}", "give two numbers: [lowest, highest]")


def load_problem(name: str | Path) -> FitProblem:
    """The problem in a folder, or the shipped one of that name.

    ``model`` and ``data`` are names of shipped ones, or paths from the folder of problem.toml.

    Raises
    ------
    FileError, InputError, UnknownNameError
        Naming file and key, and the closest match for what is misspelt.
    """
    from .modelfile import load_model  # heavy, and the worker processes of a fit never read a file

    found = locate(name, "fits", "problem.toml")
    path = found / "problem.toml" if found.is_dir() else found
    asked = read_toml(path, ProblemFile)
    model = load_model(_beside(path, asked.model, "model.ant"))
    patient = check_against(load_patient(_beside(path, asked.data, "patient.toml")), model)
    return FitProblem(
        name=asked.name,
        model=model,
        patient=patient,
        free=tuple(_free(model, path, name, table) for name, table in asked.free.items()),
        noise=_noise(asked),
        accept={name: (limits[0], limits[1]) for name, limits in asked.accept.items()},
        seed=asked.seed,
        starts=asked.starts,
        path=str(path),
    )


def _beside(path: Path, name: str, marker: str) -> str:
    """A folder or file named from the problem's folder; else the name as it stands."""
    near = path.parent / name
    return str(near) if near.is_file() or (near / marker).is_file() else name


def _free(model: Model, path: Path, name: str, table: FreeTable) -> Free:
    if name not in model.values:
        where = place(path, key=f"key free.{name}")
        raise at_place(where, unknown_name("parameter", name, model.values))
    median = model.values[name] if table.prior is None else table.prior
    if median <= 0:
        raise FileError(
            f"{place(path, key=f'key free.{name}')}: the model's value is {median:g}, which has "
            "no logarithm; give a prior above 0, or leave the parameter fixed"
        )
    lower = median * math.exp(-WIDE * table.sd) if table.lower is None else table.lower
    upper = median * math.exp(WIDE * table.sd) if table.upper is None else table.upper
    return Free(name, lower, upper, median, table.sd, table.source, table.why)


def _noise(asked: ProblemFile) -> Noise:
    spreads = {name: Spread(table.sd, table.source) for name, table in asked.noise.items()}
    if asked.grade is None:
        return Noise(spreads)
    grade = asked.grade
    return Noise(spreads, GradeScale(grade.latent, tuple(grade.cuts), grade.sd, grade.source))


def _measurable(model: Model) -> set[str]:
    return {*model.state_ids, *model.quantity_ids}


def _check_free(problem: FitProblem) -> None:
    seen = set()
    for free in problem.free:
        where = problem.where(f"free.{free.name}")
        if free.name not in problem.model.values:
            raise at_place(where, unknown_name("parameter", free.name, problem.model.values))
        if free.name in seen:
            raise InputError(f"{where}: is there twice; keep one")
        seen.add(free.name)
        if not (0 < free.sd < math.inf):
            raise InputError(f"{where}: the prior's sd is {free.sd:g}; it must be above 0")
        if not (0 < free.lower < free.median < free.upper < math.inf):
            raise InputError(
                f"{where}: needs 0 < lower < prior < upper, not {free.lower:g}, {free.median:g}, "
                f"{free.upper:g}; widen the bounds or move the prior"
            )
        if free.name in problem.patient.scenario.values:
            raise InputError(
                f"{where}: the patient's own value of {free.name} would override the fit; delete "
                "it in patient.toml, or do not free it"
            )


def _check_values(problem: FitProblem) -> None:
    for free in problem.free:
        value = problem.model.values[free.name]
        if not free.lower <= value <= free.upper:
            raise InputError(
                f"{problem.where(f'free.{free.name}')}: a parameter out of its bounds: the model "
                f"has {free.name} = {value:g}, allowed are {free.lower:g} to {free.upper:g}; "
                "widen the bounds or change the model's value"
            )


def _check_noise(problem: FitProblem) -> None:
    known = _measurable(problem.model)
    for name, spread in problem.noise.spreads.items():
        if name not in known:
            where = problem.where(f"noise.{name}")
            raise at_place(where, unknown_name("observable", name, known))
        if not 0 < spread.sd < math.inf:
            raise InputError(f"{problem.where(f'noise.{name}')}: sd must be above 0")
    if not len(problem.patient.observations):
        raise InputError(f"{problem.where('data')}: the patient has no observations to fit")
    for observation in problem.patient.observations:
        name = observation.observable
        if name not in known:
            where = f"observation {observation.id}"
            raise at_place(where, unknown_name("observable", name, known))
        if observation.kind != "grade" and name not in problem.noise.spreads:
            raise InputError(
                f"{problem.where(f'noise.{name}')}: is missing, but {observation.id} observes "
                f"{name}; add [noise.{name}] with sd and source"
            )


def _check_grades(problem: FitProblem) -> None:
    grades = [o.id for o in problem.patient.observations if o.kind == "grade"]
    scale, model = problem.noise.grade, problem.model
    if scale is None:
        if grades:
            raise InputError(f"{problem.where('grade')}: is missing, but {grades[0]} is a grade")
        return
    latent = _measurable(model)
    if scale.latent not in latent:
        where = problem.where("grade.latent")
        raise at_place(where, unknown_name("latent", scale.latent, latent))
    centre = _constants(problem)
    for cut in scale.cuts:
        if cut not in centre:
            where = problem.where("grade.cuts")
            raise at_place(where, unknown_name("parameter or quantity of them", cut, centre))
    levels = [centre[cut] for cut in scale.cuts]
    if len(levels) != 4 or levels != sorted(set(levels)):
        raise InputError(
            f"{problem.where('grade.cuts')}: needs four ascending cut-points, not "
            f"{', '.join(f'{level:g}' for level in levels)}"
        )
    if not 0 < scale.sd < math.inf:
        raise InputError(f"{problem.where('grade.sd')}: sd must be above 0")


def _constants(problem: FitProblem) -> dict[str, float]:
    """Parameters, and quantities that depend on nothing else, at the prior centre."""
    known = {**problem.model.values, **{f.name: f.median for f in problem.free}}
    for quantity in problem.model.quantities:
        if names(quantity.formula) <= known.keys():
            known[quantity.id] = float(evaluate(quantity.formula, known))
    return known


def _check_accept(problem: FitProblem) -> None:
    ids = problem.patient.observations.ids
    for name, (low, high) in problem.accept.items():
        where = problem.where(f"accept.{name}")
        if name not in ids:
            raise at_place(where, unknown_name("observation", name, ids))
        if not low < high:
            raise InputError(f"{where}: the lowest ({low:g}) must be below the highest ({high:g})")
