"""Synthetic patients simulated from a model, to check whether a fit recovers their parameters.

The id of each patient and the note of each observation mark them as synthetic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.random import Generator

from .errors import InputError
from .model import Model
from .noise import Noise
from .patient import Observation, Observations, Patient
from .patientfiles import GRADE
from .scenario import Scenario
from .settling import resolve_triggers
from .simulation import Simulation, simulate

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
    noise : Noise, of each observable in the design
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
        _reading(run, name, day, design, noise, rng)
        for name, days in design.samples.items()
        for day in days
    ]
    name = f"{SYNTHETIC}_{id}"
    return Patient(name, model.name, replace(scenario, name=name), Observations(tuple(readings)))


def _reading(
    run: Simulation, name: str, day: float, design: Design, noise: Noise, rng: Generator
) -> Observation:
    at = run.at(day)
    id = f"{name}_d{day:g}".replace(".", "_")
    if name == GRADE:
        grade = _grade(at, noise, rng)
        return Observation(id, GRADE, "grade", day, day, math.nan, grade, "", note=SYNTHETIC)
    if name not in noise.spreads:
        raise InputError(f"{name} is sampled, but has no noise entry; add it to `noise`")
    value = float(at[name][0]) * math.exp(noise.spreads[name].sd * rng.standard_normal())
    low, high = design.limits.get(name, (0.0, math.inf))
    kind = "below" if value < low else "above" if value > high else "value"
    level = min(max(value, low), high)
    return Observation(id, name, kind, day, day, math.nan, level, run.units[name], note=SYNTHETIC)


def _grade(at: Simulation, noise: Noise, rng: Generator) -> float:
    scale = noise.grade
    if scale is None:
        raise InputError("grades are sampled, but the noise has no grade scale; add one")
    level = float(at[scale.latent][0]) + scale.sd * rng.standard_normal()
    cuts = [float(at.values[c]) if c in at.values else float(at[c][0]) for c in scale.cuts]
    return float(sum(level >= cut for cut in cuts))
