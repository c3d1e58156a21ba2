"""Virtual cohorts: patients drawn from a product's prior, simulated, and read as a trial reads.

A reading is the level on a day of the trial with the prior's residual error, at most the assay's
ceiling. Columns are made when they are asked for: ``worst``, ``onset``, ``duration``, ``crs_days``,
``calm_21``, ``cleared``, ``given``, ``hlh`` (``own_hlh``: by the model's own quantity),
``hlh_onset``, and of an observable X ``peak_X``,
``tmax_X``, ``fall_X``, ``fold_X``, ``contraction_X``, ``persistence_X``, ``X_d14``.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crs_sim import Ensemble, Model, Noise, Population, Sampling, endpoint
from crs_sim.errors import UnitError
from crs_sim.model import GRADE, conversion_factor
from crs_sim.simulation import Endpoint, days_above, simulate_many

from . import measures
from .design import (
    EVERY_HOURS,
    HLH,
    HLH_IFNG,
    LONG,
    LONG_RUN,
    SEED,
    UNITS,
    UNTIL,
    Product,
    population,
    scenario,
)

Array = NDArray[np.float64]
DEGREES = "temperature"
WAIT_CALM, WAIT_CLEARED = 21.0, 14.0
"""Days after onset, and after the first tocilizumab, by which CRS should be over."""
OF_OBSERVABLE = re.compile(r"(peak|tmax|fall|fold|contraction|persistence)_(\w+)")
ON_A_DAY = re.compile(r"(\w+)_d(\d+)")


class NotInModelError(LookupError):
    """A quantity that the model does not have."""


@dataclass(frozen=True, eq=False)
class Virtual:
    """A simulated cohort of a product in an arm, one row per patient that could be simulated."""

    product: Product
    arm: str
    model: Model
    noise: Noise
    run: Ensemble
    made: dict[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.run.members)

    def column(self, name: str) -> Array:
        """A column, (n_patients,); nan where it does not apply to a patient.

        Raises
        ------
        NotInModelError
            If the model has no such observable.
        """
        if name not in self.made:
            self.made[name] = np.asarray(self._column(name), dtype=float)
        return self.made[name]

    def table(self, names: list[str]) -> pd.DataFrame:
        """Several columns."""
        return pd.DataFrame({name: self.column(name) for name in names})

    @cached_property
    def grades(self) -> Array:
        """The grade at every sample, (n_patients, n_samples)."""
        return self.run.course(GRADE)

    def _column(self, name: str) -> Array:
        if own := OF_OBSERVABLE.fullmatch(name):
            return self._of_observable(own[1], own[2])
        if own := ON_A_DAY.fullmatch(name):
            days, readings = self.readings(own[1])
            return readings[:, int(np.argmin(np.abs(days - float(own[2]))))]
        days = self.run.days
        if name == "worst":
            return self.run.endpoint("worst_grade")
        if name == "crs_days":
            return self.run.endpoint(name)
        if name == "onset":
            return measures.onset(days, self.grades)
        if name == "duration":
            return measures.ended(days, self.grades) - self.column("onset")
        if name == "calm_21":
            return measures.at_rest_after(days, self.grades, self.column("onset"), WAIT_CALM)
        if name in ("given", "cleared"):
            first = self._first_dose()
            done = measures.at_rest_after(days, self.grades, first, WAIT_CLEARED)
            return done if name == "cleared" else 1.0 * ~np.isnan(first)
        if name in ("hlh", "own_hlh", "hlh_onset"):
            return self._hlh(name)
        raise NotInModelError(name)

    def _of_observable(self, what: str, name: str) -> Array:
        days, readings = self.readings(name)
        if what == "peak":
            return np.asarray(readings.max(axis=1))
        if what == "tmax":
            return np.asarray(days[np.argmax(readings, axis=1)])
        if what == "fall":
            return measures.falls(days, readings)
        if what == "fold":
            return measures.fold(readings)
        of_cells = measures.contraction if what == "contraction" else measures.persistence
        return of_cells(days, readings)

    def _hlh(self, name: str) -> Array:
        if HLH in self.run.outputs:
            course = self.run.course(HLH)
            if name == "hlh_onset":
                return measures.onset(self.run.days, course)
            return np.asarray(course.max(axis=1) >= 1, dtype=float)
        if name != "hlh":
            raise NotInModelError(f"no quantity {HLH}, but for the rule by IFN-γ")
        return np.asarray(self.column("peak_ifng") >= HLH_IFNG, dtype=float)

    def _first_dose(self) -> Array:
        ledgers = self.run.ledgers[self.arm]
        first = np.full(len(self), np.nan)
        for k, member in enumerate(self.run.members):
            given = [entry.day for entry in ledgers[member].given if entry.by != "planned"]
            first[k] = min(given, default=np.nan)
        return first

    def readings(self, name: str) -> tuple[Array, Array]:
        """Days of the trial, and readings of an observable (n_patients, n_days) in `UNITS`."""
        if name not in self.run.outputs:
            raise NotInModelError(f"{name} is not in the model")
        days = self.run.days if self.arm == LONG_RUN else np.array(self.product.days)
        levels = self.run.course(name)[:, np.searchsorted(self.run.days, days)]
        if name in self.noise.spreads:
            rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
            z = rng.standard_normal(levels.shape)
            levels = np.asarray(self.noise.spreads[name].reading(levels, z))
        levels = np.maximum(levels, 0.0) * self._factor(name)
        return days, np.minimum(levels, self.product.ceilings.get(name, np.inf))

    def _factor(self, name: str) -> float:
        if name not in UNITS:
            return 1.0
        try:
            unit = self.model[name].unit
            unit = dict(self.model.units).get(unit, unit)  # its definition: a name may mislead
            return conversion_factor(unit, UNITS[name])[0]
        except UnitError as error:
            raise NotInModelError(f"{name}: {error}") from None


def observables(model: Model) -> list[str]:
    """What is kept of a run: what the model has of all that is published."""
    wanted = (*UNITS, DEGREES, HLH, GRADE, "vasopressor", "oxygen")
    return [name for name in wanted if name in model.course_ids]


def endpoints(model: Model) -> tuple[Endpoint, ...]:
    """Worst grade, and days at grade 1 or more, of the whole course."""
    ill = Endpoint("crs_days", "Days with CRS", "day", GRADE,
                   lambda run: days_above(run, GRADE, 1.0))  # fmt: skip
    return endpoint(model, "worst_grade"), ill


def simulate_cohort(
    product: Product, arm: str, patients: int, *,
    dose: float | None = None, people: Population | None = None,
    fixed: dict[str, Array] | None = None,
) -> Virtual:  # fmt: skip
    """Draw and simulate a cohort; the same patients in every arm.

    ``dose`` replaces the product's (cells/kg); ``fixed`` are values of parameters for all.
    """
    people = people or population(product)
    drawn = people.sample(patients, np.random.default_rng(SEED)) | (fixed or {})
    until, hours = (LONG, 24.0) if arm == LONG_RUN else (UNTIL, EVERY_HOURS)
    sampling = Sampling(until=until, every_hours=hours, outputs=observables(people.model),
                        endpoints=endpoints(people.model))  # fmt: skip
    treatment = scenario(product, arm, dose)
    drawn = {name: v for name, v in drawn.items() if name not in treatment.values}
    run = simulate_many(people.model, treatment, drawn, sampling=sampling)
    return Virtual(product, arm, people.model, people.noise, run)
