"""A fitting problem: model, patient, free parameters with priors, noise, acceptance ranges.

A `FitProblem` is checked when it is made, from ``problem.toml`` or in Python, before anything runs.
It holds no result.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import InputError, unknown_name, with_location
from ..model import Model, Parameter, evaluate, names
from ..patients import Observation, Patient, check_against, load_patient, patient_at, subject_of
from ..store import is_plain, locate, place, read_toml
from .noise import RATIOS, SPAN, Noise, Spread
from .priors import (
    DATA_SET,
    PRIOR,
    PROBLEM,
    Free,
    ProblemFile,
    _all_free,
    _default_bounds,
    free_of,
    noise_of,
    prior_of,
    read_prior,
    scale_of,
)


@dataclass(frozen=True)
class FitProblem:
    """All inputs of a fit, checked.

    Parameters
    ----------
    name : str
    model : Model, with the values of all parameters that are not free
    patient : Patient, with observations in the model's units
    free : tuple of Free
    noise : Noise
    accept : mapping of observation id to (low, high), the fitted values that pass, in the
        observable's unit
    seed : int, of the starting points
    starts : int, number of local optimisations; the first starts at the prior centre
    path : str, problem.toml, or the patient's path if there is none ("" if made in Python)

    Raises
    ------
    InputError, UnknownNameError
        If it cannot be fitted as given.
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
        """Check that the problem can be fitted as given."""
        for check in (_check_free, _check_values, _check_noise, _check_grades, _check_accept):
            check(self)
        if self.starts < 1 or self.seed < 0:
            raise InputError(f"{self.where('starts, seed')}: starts is at least 1, seed at least 0")

    @property
    def names(self) -> tuple[str, ...]:
        """Ids of the free parameters, in the order of all parameter vectors of a fit."""
        return tuple(f.name for f in self.free)

    @property
    def scales(self) -> tuple[str, ...]:
        """The scale of each free parameter."""
        return tuple(f.scale for f in self.free)

    @property
    def of_model(self) -> tuple[str, ...]:
        """The free parameters without those of an estimated residual error."""
        return tuple(name for name in self.names if name not in self.noise.estimated)

    def where(self, key: str) -> str:
        """Prefix of an error message: file (or name of the problem) and key."""
        return place(Path(self.path or self.name), key=f"key {key}")

    def without(self, name: str) -> FitProblem:
        """The problem with one parameter fixed at its prior median."""
        medians = {f.name: f.median for f in self.free}
        return self.fixed_at(name, medians.get(name, math.nan))

    def fixed_at(self, name: str, value: float) -> FitProblem:
        """The problem with one parameter fixed at a value, without its prior."""
        if name not in self.names:
            raise unknown_name("free parameter", name, self.names)
        rest = tuple(f for f in self.free if f.name != name)
        return replace(self, model=self.model.with_values(**{name: value}), free=rest)

    def leaving_out(self, *ids: str) -> FitProblem:
        """The problem without some of its observations.

        Raises
        ------
        UnknownNameError, InputError
            If one of them does not exist, or none would remain.
        """
        rest = self.patient.observations.without(*ids)
        accept = {name: limits for name, limits in self.accept.items() if name not in ids}
        return replace(self, patient=replace(self.patient, observations=rest), accept=accept)


def load_problem(name: str | Path, *, prior: str | Path | None = None) -> FitProblem:
    """Load the problem in a folder, or the shipped one of that name (`patient_problem`: a patient).

    ``model``, ``data`` and ``prior`` of a problem.toml are shipped names, or paths from its folder;
    ``data`` may also be a data set (.csv), with ``subject`` and the column map ``columns``. The
    file's own tables override those of the prior; parameters in ``fixed`` are not free.

    Parameters
    ----------
    name : a folder with problem.toml, or a patient's folder or workbook
    prior : for a patient, instead of the model's prior

    Raises
    ------
    FileError, InputError, UnknownNameError
        Naming file and key, and the closest match for a misspelt name.

    Examples
    --------
    >>> load_problem("ruemmele2025").names[:2]
    ('engraftment', 'r_switch')
    """
    from ..model import load_model

    patient = patient_at(name)
    if patient is not None:
        return patient_problem(patient, prior=prior)
    if prior is not None:
        raise InputError(f"{name}  is a problem with its own prior; --prior is for a patient only")
    found = locate(name, "fits", PROBLEM)
    path = found / PROBLEM if found.is_dir() else found
    file = read_toml(path, ProblemFile)
    model = load_model(_beside(path, file.model, "model.ant"))
    population_prior = None if file.prior is None else read_prior(_beside(path, file.prior, PRIOR))
    patient = check_against(_patient(path, file, model), model)
    noise = noise_of(file, population_prior)
    model, residual_error = estimated_noise(model, noise, patient, str(path))
    return FitProblem(
        name=file.name,
        model=model,
        patient=patient,
        free=(*_all_free(model, path, file, population_prior), *residual_error),
        noise=noise,
        accept={name: (limits[0], limits[1]) for name, limits in file.accept.items()},
        seed=file.seed,
        starts=file.starts,
        path=str(path),
    )


FEWEST = 3
"""Fewest readings from which a residual error is estimated."""


def estimated_noise(
    model: Model, noise: Noise, patient: Patient, path: str = "", fewest: int = FEWEST
) -> tuple[Model, tuple[Free, ...]]:
    """The model with the estimated sds as parameters (of the same equations), and these as free.

    Raises
    ------
    InputError
        If there are too few readings of an observable, or the model has the name already.
    """
    made, free = list[Parameter](), list[Free]()
    observed = [o.noise_entry for o in noise.with_term(patient.observations)]
    for name in dict.fromkeys(o.noise_entry for o in patient.observations if o.kind != "grade"):
        spread = noise.spreads.get(name, Spread(1.0))
        if not spread.estimate:
            continue
        where = place(Path(path or model.name), key=f"key noise.{name}.estimate")
        if observed.count(name) < fewest:
            raise InputError(
                f"{where}: {patient.id} has {observed.count(name)} readings of {name} with a "
                f"level; its residual error is estimated from {fewest} or more: delete the key"
            )
        for part, sd in spread.parts.items():
            id, level = f"{part}_{name}", "additive" in (part, spread.error)
            unit = model[spread.observable or name].unit if level else "dimensionless"
            if id in model.symbols:
                raise InputError(f"{where}: the model has a {id} of its own; rename it there")
            label = f"Residual error of {name}, {spread.error if part == 'sd' else part}"
            made.append(Parameter(id, sd, unit, label, spread.source))
            free.append(Free(id, sd / SPAN, sd * SPAN, sd, spread.prior_sd, spread.source))
    if not made:
        return model, ()
    more = replace(model, parameters=(*model.parameters, *made))
    more.__dict__["hash"] = model.hash  # no equation has changed
    return more, tuple(free)


def patient_problem(
    patient: Patient, *, model: Model | None = None, prior: str | Path | None = None,
    fewest: int = FEWEST,
) -> FitProblem:  # fmt: skip
    """The problem of a patient's data under a population prior; no problem.toml is needed.

    The free parameters are those of the prior, except those that the patient's own values set.

    Parameters
    ----------
    patient : Patient, with at least one observation
    model : Model  [default: the patient's]
    prior : name or path of a prior  [default: `crs_sim.problemfiles.prior_of` the model]
    fewest : int, readings an estimated residual error needs; 0 for one patient of several

    Raises
    ------
    FileError, InputError, UnknownNameError
        If there is no prior for the model, or prior or patient do not match the model.

    Examples
    --------
    >>> patient_problem(load_patient("ruemmele2025")).noise.spreads["crp"].sd
    0.1
    """
    from ..patients import model_for_patient

    model = model_for_patient(patient) if model is None else model
    population_prior = prior_of(model) if prior is None else read_prior(prior)
    own = patient.scenario.values
    patient, noise = check_against(patient, model), noise_of(population_prior.content)
    free = tuple(free for free in free_of(model, population_prior) if free.name not in own)
    where = str(population_prior.path)
    model, more = estimated_noise(model, noise, patient, where, fewest)
    return FitProblem(patient.id, model, patient, (*free, *more), noise, path=patient.path)


def _patient(path: Path, file: ProblemFile, model: Model) -> Patient:
    """The patient of a problem: from a folder or workbook, or a subject of a data set."""
    if not file.data.lower().endswith(DATA_SET):
        return load_patient(_beside(path, file.data, "patient.toml"))
    columns = None if file.columns is None else path.parent / file.columns
    return subject_of(path.parent / file.data, model, file.subject or "", columns=columns)


def _beside(path: Path, name: str, marker: str) -> str:
    """A path relative to the problem's folder if it exists; else the name unchanged.

    A file without a suffix is meant by a name with a separator only, as ``./crs``.
    """
    near = path.parent / name
    is_file = near.is_file() and (bool(near.suffix) or not is_plain(name))
    return str(near) if is_file or (near / marker).is_file() else name


def _check_free(problem: FitProblem) -> None:
    for free in problem.free:
        where = problem.where(f"free.{free.name}")
        if free.name not in problem.model.values:
            raise with_location(where, unknown_name("parameter", free.name, problem.model.values))
        if problem.names.count(free.name) > 1:
            raise InputError(f"{where}: appears twice; keep one")
        if not (0 < free.sd < math.inf):
            raise InputError(f"{where}: the prior's sd is {free.sd:g}; it must be above 0")
        logit = scale_of(problem.model, free.name, free.scale, where) == "logit"
        most = problem.model.bounds[free.name][1]
        if free.upper > most or free.median >= most or (logit and free.upper == most):
            raise InputError(
                f"{where}: {most:g} is the most that makes sense for {free.name} "
                f"({problem.model[free.name].label}), but its prior is {free.median:g}, upper "
                f"{free.upper:g}; state a prior below it, and no upper above{' or at' * logit} it"
            )
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
        usual = _default_bounds(problem.model, free.name, free.median, free.sd, free.scale)
        edge = free.scale == "logit" and value in (0.0, 1.0)  # a model's F = 1: inside no bounds
        if [free.lower, free.upper] != usual and not (edge or free.lower <= value <= free.upper):
            raise InputError(
                f"{problem.where(f'free.{free.name}')}: a parameter out of its bounds: the model "
                f"has {free.name} = {value:g}, allowed are {free.lower:g} to {free.upper:g}; "
                "widen the bounds (lower or upper in the problem's or the prior's file) or change "
                "the model's value"
            )


def _check_noise(problem: FitProblem) -> None:
    observables, spreads = problem.model.course_ids, problem.noise.spreads
    for name, spread in spreads.items():
        where = problem.where(f"noise.{name}")
        if (measured := spread.observable or name) not in observables:
            raise with_location(where, unknown_name("observable", measured, observables))
        if name in observables and name != measured:
            raise InputError(f"{where}: {name} is an observable; give the assay of {measured} "
                             "another name")  # fmt: skip
        if not all(0 < sd < math.inf for sd in spread.parts.values()):
            raise InputError(f"{where}: {' and '.join(spread.parts)} must be above 0")
        of_ratio = [o.id for o in problem.patient.observations
                    if o.noise_entry == name and o.kind in RATIOS and math.isnan(o.sd)]  # fmt: skip
        if of_ratio and spread.error == "additive":
            raise InputError(f"{where}: {of_ratio[0]} is a ratio, whose error is a share, but the "
                             "error here is additive; give the ratio an sd of its own")  # fmt: skip
    if not len(problem.patient.observations):
        raise InputError(f"{problem.where('data')}: the patient has no observations to fit")
    for observation in problem.patient.observations:
        if observation.observable not in observables:
            where = f"observation {observation.id}"
            raise with_location(where, unknown_name("observable", observation.observable,
                                                    observables))  # fmt: skip
        if observation.kind != "grade":
            _check_noise_of(problem, observation)


def _check_noise_of(problem: FitProblem, observation: Observation) -> None:
    """Check that a level has its own sd, or the noise entry of its assay or observable."""
    entry, observed = observation.noise_entry, observation.observable
    spread = problem.noise.spreads.get(entry)
    where, of = problem.where(f"noise.{entry}"), f"observable = {json.dumps(observed)}, "
    if spread is None and math.isnan(observation.sd):
        raise InputError(
            f"{where}: is missing, but {observation.id} observes {observed}"
            f"{' with it' if observation.assay else ''}; add [noise.{entry}] with "
            f"{of if observation.assay else ''}sd and source to the problem or its prior, or "
            "fill in the column sd of the observations"
        )
    if spread is not None and (spread.observable or entry) != observed:
        raise InputError(
            f"{where}: is of {spread.observable or entry}, but {observation.id} observes "
            f"{observed}; correct the assay of {observation.id}, or what the entry observes"
        )


def _check_grades(problem: FitProblem) -> None:
    grades = [o.id for o in problem.patient.observations if o.kind == "grade"]
    scale, model = problem.noise.grade, problem.model
    if scale is None:
        if grades:
            raise InputError(f"{problem.where('grade')}: is missing, but {grades[0]} is a grade")
        return
    if scale.latent not in model.course_ids:
        where = problem.where("grade.latent")
        raise with_location(where, unknown_name("latent", scale.latent, model.course_ids))
    centre = _constants(problem)
    for cut in scale.cuts:
        if cut not in centre:
            where = problem.where("grade.cuts")
            raise with_location(where, unknown_name("parameter or quantity of them", cut, centre))
    levels = [centre[cut] for cut in scale.cuts]
    if len(levels) != 4 or levels != sorted(set(levels)):
        raise InputError(
            f"{problem.where('grade.cuts')}: needs four ascending cut-points, not "
            f"{', '.join(f'{level:g}' for level in levels)}"
        )
    key, text = scale.wrong()
    if text:
        raise InputError(f"{problem.where(f'grade.{key}')}: {text}")


def _constants(problem: FitProblem) -> dict[str, float]:
    """Parameters, and quantities that depend on parameters alone, at the prior centre."""
    constants = {**problem.model.values, **{f.name: f.median for f in problem.free}}
    for quantity in problem.model.quantities:
        if names(quantity.formula) <= constants.keys():
            constants[quantity.id] = float(evaluate(quantity.formula, constants))
    return constants


def _check_accept(problem: FitProblem) -> None:
    ids = problem.patient.observations.ids
    for name, (low, high) in problem.accept.items():
        where = problem.where(f"accept.{name}")
        if name not in ids:
            raise with_location(where, unknown_name("observation", name, ids))
        if not low < high:
            raise InputError(f"{where}: the lowest ({low:g}) must be below the highest ({high:g})")
