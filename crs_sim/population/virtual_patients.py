"""Virtual patients drawn from a population; synthetic patients with simulated readings.

Patient k is the same whatever the number of patients: patients are drawn in blocks, each block with
its own random stream, and each covariate with another.

The id of each patient and the note of each observation mark them as synthetic.
"""

from __future__ import annotations

import math
import sys
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.random import Generator
from scipy.special import ndtr, ndtri

from ..dosing import Condition, Scenario
from ..errors import InputError, unknown_name
from ..fitting import Noise, Population
from ..model import GRADE, Array, Model
from ..patients import Observation, Observations, Patient
from ..simulation import Simulation, simulate
from ..solver import resolve_triggers

BLOCK = 128
"""Patients drawn together; a multiple of the four simulated together in SIMD lanes."""
SHAPES = ("lognormal", "normal", "uniform")


@dataclass(frozen=True)
class Covariate:
    """The distribution of a covariate over patients.

    Parameters
    ----------
    name : a parameter of the model; or a drug, whose dose then differs between patients
    shape : "lognormal", "normal" or "uniform", truncated at the bounds
    centre : median ("lognormal") or mean ("normal"); unused by "uniform"
    sd : of the natural logarithm ("lognormal"), or in ``unit`` ("normal")
    lower, upper : bounds
    unit, source : str
    dose : the scheduled dose that it replaces, in ``unit``; None for a parameter

    Examples
    --------
    >>> weight = Covariate("weight", "normal", 80, 10, 50, 120, "kg", "assumption: made up")
    >>> weight.at(np.array([0.5])).round(1).tolist()
    [80.0]
    """

    name: str
    shape: str
    centre: float
    sd: float
    lower: float
    upper: float
    unit: str
    source: str
    dose: float | None = None

    def __post_init__(self) -> None:
        where = f"covariate {self.name}"
        if self.shape not in SHAPES:
            raise unknown_name("shape", self.shape, SHAPES, where)
        if not self.lower < self.upper:
            raise InputError(f"{where}: lower ({self.lower:g}) is not below upper ({self.upper:g})")
        if self.shape != "uniform" and not (self.sd > 0 and self.lower < self.centre < self.upper):
            raise InputError(
                f"{where}: give an sd above 0, and a centre ({self.centre:g}) between its bounds "
                f"({self.lower:g} and {self.upper:g})"
            )
        if self.shape == "lognormal" and self.lower < 0:
            raise InputError(f"{where}: a lognormal one is above 0; give no lower bound below 0")
        if self.shape == "uniform" and math.isinf(self.upper - self.lower):
            raise InputError(f"{where}: a uniform one needs both bounds")

    def at(self, chances: Array) -> Array:
        """Quantiles at cumulative probabilities, (n,) each."""
        if self.shape == "uniform":
            return np.asarray(self.lower + chances * (self.upper - self.lower))
        low, high = (ndtr((self._scaled(x) - self._scaled(self.centre)) / self.sd)
                     for x in (self.lower, self.upper))  # fmt: skip
        values = self._scaled(self.centre) + self.sd * ndtri(low + chances * (high - low))
        drawn = np.exp(values) if self.shape == "lognormal" else values
        return np.asarray(np.clip(drawn, self.lower, self.upper))  # rounding may exceed them

    def _scaled(self, value: float) -> float:
        if self.shape == "normal" or math.isinf(value):
            return value
        return math.log(value) if value > 0 else -math.inf

    def describe(self) -> str:
        """Describe the distribution in words."""
        if self.shape == "uniform":
            return f"uniform from {self.lower:g} to {self.upper:g}"
        middle = "median" if self.shape == "lognormal" else "mean"
        spread = f"sd {self.sd:g}" + (" on the log scale" if self.shape == "lognormal" else "")
        bounds = [f"above {self.lower:g}"] * math.isfinite(self.lower) + [
            f"below {self.upper:g}"] * math.isfinite(self.upper)  # fmt: skip
        return ", ".join([f"{self.shape}, {middle} {self.centre:g}", spread, *bounds])


@dataclass(frozen=True)
class Filter:
    """A plausibility criterion for virtual patients, under the treatment as given.

    Parameters
    ----------
    when : Condition on an endpoint (``peak_ifng <= 1e5``)
    source : str, reference or reason
    """

    when: Condition
    source: str


@dataclass(frozen=True, eq=False)
class VirtualPopulation:
    """The joint distribution that virtual patients are drawn from.

    Parameters
    ----------
    model : Model, whose values apply to all that is not drawn
    population : Population, of the parameters that differ
    covariates : tuple of Covariate
    filters : tuple of Filter
    seed : int
    fixed : parameters of the population that are fixed at the model's value

    Examples
    --------
    >>> from crs_sim import load_model, load_population
    >>> crs = load_model("crs")
    >>> virtual = VirtualPopulation(crs, load_population(crs))
    >>> few, more = virtual.draw(0, 3), virtual.draw(0, 300)
    >>> bool((few["k_crp"] == more["k_crp"][:3]).all())
    True
    """

    model: Model = field(repr=False)
    population: Population
    covariates: tuple[Covariate, ...] = ()
    filters: tuple[Filter, ...] = ()
    seed: int = 1
    fixed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        medians = self.population.medians
        for name in self.fixed:
            if name not in medians:
                raise unknown_name("parameter of the population", name, medians)
        for covariate in self.covariates:
            if covariate.dose is not None:
                self.scaled_by(covariate)
            elif covariate.name not in self.model.values:
                raise unknown_name("parameter", covariate.name, self.model.values)
            elif covariate.name in medians and covariate.name not in self.fixed:
                raise InputError(
                    f"{covariate.name} is drawn from population {self.population.name} too; list "
                    "it under 'fixed', or leave out the covariate"
                )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of what is drawn: parameters of the population, then covariates."""
        free = (f.name for f in self.population.free if f.name not in self.fixed)
        return (*free, *(c.name for c in self.covariates))

    def __repr__(self) -> str:
        """Return a one-line summary."""
        return (f"VirtualPopulation({self.population.name!r}: {len(self.names)} drawn, "
                f"{len(self.filters)} filters, seed {self.seed})")  # fmt: skip

    def draw(self, first: int, last: int) -> dict[str, Array]:
        """Draw patients first to last (exclusive): name to values, (n_patients,) each.

        A dose is in the covariate's unit.
        """
        blocks = [self._block(k) for k in range(first // BLOCK, -(-last // BLOCK))]
        skipped = first // BLOCK * BLOCK
        return {
            name: np.concatenate([b[name] for b in blocks])[first - skipped : last - skipped]
            for name in self.names
        }

    def parameters(self, drawn: Mapping[str, Array]) -> dict[str, Array]:
        """Convert what was drawn to model parameters; doses become bioavailabilities."""
        found = {name: np.asarray(values) for name, values in drawn.items()}
        for covariate in self.covariates:
            if covariate.dose is not None:
                scaled = self.scaled_by(covariate)
                value = found.get(scaled, np.full(1, self.model.values[scaled]))
                found[scaled] = value * (found.pop(covariate.name) / covariate.dose)
        return found

    def scaled_by(self, covariate: Covariate) -> str:
        """The parameter that scales a drug's dose for each patient: its bioavailability.

        Raises
        ------
        InputError, UnknownNameError
            If the model has no such drug, or the drug has no bioavailability.
        """
        name = self.model.drug(covariate.name).bioavailability
        if not name:
            raise InputError(
                f"doses of {covariate.name} cannot differ between patients: the drug names no "
                "bioavailability in drugs.toml; name a parameter there (1 by default)"
            )
        return name

    def _block(self, number: int) -> dict[str, Array]:
        drawn = self.population.sample(BLOCK, self._stream(number))
        found = {name: values for name, values in drawn.items() if name not in self.fixed}
        for covariate in self.covariates:
            own = zlib.crc32(covariate.name.encode())
            found[covariate.name] = covariate.at(self._stream(number, own).random(BLOCK))
        return found

    def _stream(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))


SYNTHETIC = "synthetic"


@dataclass(frozen=True)
class Design:
    """Doses and sampling times of a synthetic patient.

    Parameters
    ----------
    scenario : Scenario
    samples : mapping of observable, or ``crs_grade``, to its days
    limits : mapping of observable to its assay's (lower, upper) limit of quantification, in the
        model's unit; a reading beyond becomes ``below`` or ``above`` that limit
    """

    scenario: Scenario
    samples: Mapping[str, tuple[float, ...]]
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def days(self) -> np.ndarray:
        """All sampled days, ascending."""
        return np.unique(np.array([day for days in self.samples.values() for day in days]))


def synthetic_patient(
    model: Model, design: Design, noise: Noise, rng: Generator, *, id: str = "p1"
) -> Patient:
    """Simulate a patient whose observations are the model's curves with measurement error.

    Parameters
    ----------
    model : Model, with the true values of this patient
    design : Design
    noise : Noise, of each observable in the design; errors of grades persist as it says
    rng : Generator, for the measurement errors
    id : str, prefixed with "synthetic_"

    Raises
    ------
    InputError, UnknownNameError
        For an observable without noise, or one that is not in the model.

    Examples
    --------
    >>> from crs_sim import Dose, Schedule, load_model, load_population
    >>> crs = load_model("crs")
    >>> design = Design(Scenario("one dose", Schedule((Dose(0, "cart", 5e6, "cells/kg"),))),
    ...                 {"vcn": (7.0, 14.0)}, {"vcn": (50.0, 1e6)})
    >>> made = synthetic_patient(crs, design, load_population(crs).noise, np.random.default_rng(1))
    >>> made.id, [o.kind for o in made.observations]
    ('synthetic_p1', ['value', 'value'])
    """
    scenario, _ = resolve_triggers(model, design.scenario, until=float(design.days[-1]))
    run = simulate(model, scenario, days=design.days, rtol=1e-7)
    readings = [
        reading
        for name in design.samples
        for reading in (_grades if name == GRADE else _levels)(run, name, design, noise, rng)
    ]
    name = f"{SYNTHETIC}_{id}"
    return Patient(name, model.name, replace(scenario, name=name), Observations(tuple(readings)))


def _id(name: str, day: float) -> str:
    return f"{name}_d{day:g}".replace(".", "_")


def _levels(
    run: Simulation, name: str, design: Design, noise: Noise, rng: Generator
) -> Iterator[Observation]:
    if name not in noise.spreads:
        raise InputError(f"{name} is sampled, but has no noise entry; add it to `noise`")
    low, high = design.limits.get(name, (0.0, math.inf))
    for day in design.samples[name]:
        level = float(run.at(day)[name][0])
        drawn = float(noise.spreads[name].reading(level, rng.standard_normal()))
        value = max(drawn, sys.float_info.min)  # an additive error may go below 0
        kind = "below" if value < low else "above" if value > high else "value"
        yield Observation(_id(name, day), name, kind, day, day, math.nan,
                          min(max(value, low), high), run.units[name], note=SYNTHETIC)  # fmt: skip


def _grades(
    run: Simulation, name: str, design: Design, noise: Noise, rng: Generator
) -> Iterator[Observation]:
    """The grades of a patient: their errors share a state where they persist."""
    scale, days = noise.grade, design.samples[name]
    if scale is None:
        raise InputError("grades are sampled, but the noise has no grade scale; add one")
    ascending = np.unique(days)
    states = dict(zip(ascending.tolist(), scale.states(ascending, rng).tolist(), strict=True))
    for day in days:
        at = run.at(day)
        level = float(at[scale.latent][0]) + states[day] + scale.white * rng.standard_normal()
        cuts = [float(at.values[c]) if c in at.values else float(at[c][0]) for c in scale.cuts]
        grade = float(sum(level >= cut for cut in cuts))
        yield Observation(_id(name, day), GRADE, "grade", day, day, math.nan, grade, "",
                          note=SYNTHETIC)  # fmt: skip
