"""Prediction bands of every observable, under the given treatment and alternative scenarios.

Two kinds. The band of the *curve* reflects parameter uncertainty: where the patient's true course
lies if the model is right. The band of a *reading* adds residual variability: where the next
measurement should lie.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from ..dosing import Scenario
from ..errors import InputError, unknown_name
from ..fitting import Fit, Noise, Population
from ..model import Array, Model, pretty
from ..patients import Patient, check_against
from ..simulation import EVERY_HOURS, Ensemble, Sampling, simulate_many
from .draws import Draws, weighted_draws

LEVELS = (0.5, 0.95)
DRAWS = 400
SHADES = 32
"""Equally likely errors that represent the residual variability of a reading, for each course."""


class Band(NamedTuple):
    """Lower end, middle (median) and upper end on each day, each (n_days,)."""

    low: Array
    middle: Array
    high: Array


@dataclass(frozen=True, eq=False)
class Predictions:
    """Prediction bands of every observable under some scenarios.

    Parameters
    ----------
    ensemble : Ensemble, a run for each draw that succeeded, under every scenario
    draws : DataFrame, (n_draws, n_free), the parameter values
    noise : Noise, of the readings
    source : str, origin of the draws, shown with every table and figure
    """

    ensemble: Ensemble
    draws: pd.DataFrame = field(repr=False)
    noise: Noise = field(repr=False)
    source: str

    @property
    def days(self) -> Array:
        """(n_days,) float, day after infusion, ascending."""
        return self.ensemble.days

    @property
    def scenarios(self) -> tuple[str, ...]:
        """Names of the scenarios."""
        return tuple(s.name for s in self.ensemble.scenarios)

    def curve(self, name: str, level: float = 0.95, *, scenario: str = "") -> Band:
        """The band of the course itself: parameter uncertainty only.

        Raises
        ------
        UnknownNameError, InputError
            For an unknown observable or scenario, or a level not between 0 and 1.
        """
        return _band(self.ensemble.course(name, scenario), level)

    def noise_entries(self, name: str) -> tuple[str, ...]:
        """The noise entries of an observable: its own, and those of assays that measure it."""
        spreads = self.noise.spreads.items()
        return tuple(entry for entry, s in spreads if (s.observable or entry) == name)

    def reading(self, name: str, level: float = 0.95, *, scenario: str = "") -> Band:
        """The band of a new reading of an observable, or by an assay that has its own error.

        It includes parameter uncertainty and residual variability.

        Raises
        ------
        UnknownNameError, InputError
            As `curve`; and if the noise model has no entry for this observable.
        """
        if name not in self.noise.spreads:
            raise unknown_name("noise entry", name, self.noise.spreads)
        courses = self.ensemble.course(self.noise.spreads[name].observable or name, scenario)
        ran = self.draws.loc[list(self.ensemble.members)]
        own = {str(n): column.to_numpy()[:, None] for n, column in ran.items()}
        spread = self.noise.spreads[name].at(name, own)
        readings = spread.reading(courses[:, None, :], _shades()[None, :, None])
        return _band(readings.reshape(-1, courses.shape[1]), level)

    def grade_chances(self, scenario: str = "") -> Array:
        """The probability that each grade is observed on each day, (n_days, 5).

        Of a day by itself, whatever the grades of other days are: with the whole sd of the error.

        Raises
        ------
        InputError
            If the noise has no grade scale.
        """
        scale = self.noise.grade
        if scale is None:
            raise InputError("grades are requested, but the noise has no grade scale; add [grade]")
        latent = self.ensemble.course(scale.latent, scenario)
        below = np.array([
            ndtr((self._cut(cut, scenario) - latent) / scale.sd).mean(axis=0) for cut in scale.cuts
        ])  # fmt: skip
        edges = np.vstack([np.zeros_like(below[:1]), below, np.ones_like(below[:1])])
        return np.diff(edges, axis=0).T

    def table(self, levels: Sequence[float] = LEVELS) -> pd.DataFrame:
        """One row for each scenario, observable and day, with both bands.

        Columns: scenario, observable, unit, day, median, then ``curve_low_95``, ``curve_high_95``,
        ``reading_low_95``, ... for each level; no reading for an observable without noise entry.
        Where assays have their own errors, a column assay, and rows for each of them.
        """
        parts, assays = [], any(spread.observable for spread in self.noise.spreads.values())
        for scenario in self.scenarios:
            rows = [(name, entry) for name in self.ensemble.outputs
                    for entry in self.noise_entries(name) or ("",)]  # fmt: skip
            for name, entry in rows:
                columns: dict[str, object] = {"scenario": scenario, "observable": name}
                columns |= {"assay": "" if entry == name else entry} if assays else {}
                columns |= {
                    "unit": pretty(self.ensemble.units[name]), "day": self.days,
                    "median": self.curve(name, 0.5, scenario=scenario).middle,
                }  # fmt: skip
                for level in levels:
                    columns |= self._ends(name, entry, level, scenario)
                parts.append(pd.DataFrame(columns))
        return pd.concat(parts, ignore_index=True)

    def _ends(self, name: str, entry: str, level: float, scenario: str) -> dict[str, object]:
        curve = self.curve(name, level, scenario=scenario)
        percent = f"{100 * level:g}"
        ends: dict[str, object] = {f"curve_low_{percent}": curve.low,
                                   f"curve_high_{percent}": curve.high}  # fmt: skip
        if entry:
            reading = self.reading(entry, level, scenario=scenario)
            ends |= {f"reading_low_{percent}": reading.low, f"reading_high_{percent}": reading.high}
        return ends

    def _cut(self, name: str, scenario: str) -> Array | float:
        """A grade cut-point for each member, (n_members, 1) or (n_members, n_days)."""
        if name in self.ensemble.outputs:
            return self.ensemble.course(name, scenario)
        if name in self.draws.columns:
            drawn = self.draws[name].loc[list(self.ensemble.members)]
            return np.asarray(drawn, dtype=np.float64)[:, None]
        name_of_scenario = scenario or self.scenarios[0]
        own = next(s.values for s in self.ensemble.scenarios if s.name == name_of_scenario)
        return float(own.get(name, self.ensemble.model.values[name]))

    def __repr__(self) -> str:
        """Return a one-line summary."""
        return (
            f"Predictions({len(self.ensemble.outputs)} observables, {len(self.scenarios)} "
            f"scenarios, {len(self.ensemble.members)} of {len(self.draws)} draws ran; "
            f"{self.source})"
        )


def predict(
    result: Fit,
    scenarios: Scenario | Sequence[Scenario] | None = None,
    *,
    draws: pd.DataFrame | Draws | int = DRAWS,
    sampling: Sampling | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Predictions:
    """Predict every observable under the patient's treatment as given, or under other scenarios.

    Parameters
    ----------
    result : Fit
    scenarios : what to predict; None is the treatment as given. The patient's own values (body
        weight, ...) apply in each, unless the scenario sets them itself
    draws : DataFrame of parameter values, one column per free parameter (draws of a posterior); or
        the number to take from the weighted Laplace approximation (`crs_sim.uncertainty.draws`); or
        `Draws`
    sampling : Sampling; by default every 6 h until day 40, all that is observed or has noise
    workers, progress : as in `crs_sim.simulation.simulate_many`

    Raises
    ------
    InputError, UnknownNameError
        If columns are missing or not free, or no draw could be run.

    Examples
    --------
    ``predict(best, no_emapalumab).reading("ifng")`` is the 95 % band of a reading without it.
    """
    problem = result.problem
    drawn = _drawn(result, draws, workers)
    about = Population(problem.name, problem.model, problem.free, problem.noise)
    return _predicted(about, problem.patient, drawn, scenarios, sampling=sampling, workers=workers,
                      progress=progress)  # fmt: skip


def predict_prior(
    population: Population,
    patient: Patient,
    *,
    count: int = DRAWS,
    seed: int = 1,
    sampling: Sampling | None = None,
    workers: int | None = None,
) -> Predictions:
    """Prior predictive bands of every observable: patients drawn from the prior, before any data.

    Parameters
    ----------
    population : Population, the prior of patients
    patient : Patient, whose doses are given; their own values (body weight, ...) apply in every
        draw, and their observations are not used
    count : int, patients drawn
    seed : int
    sampling, workers : as in `predict`

    Raises
    ------
    InputError, UnknownNameError
        If the patient does not match the model, sets every parameter that varies, or no draw could
        be simulated.

    Examples
    --------
    >>> from crs_sim import load_model
    >>> from crs_sim import load_population
    >>> from crs_sim import Dose, Schedule
    >>> doses = Schedule((Dose(0, "iv", 100),))
    >>> patient = Patient("next", "one_compartment", Scenario("100 mg", doses))
    >>> prior = load_population(load_model("one_compartment"))
    >>> bands = predict_prior(prior, patient, count=50, sampling=Sampling(until=1), workers=1)
    >>> band = bands.reading("c_central", 0.95)
    >>> bool(band.low[1] < band.middle[1] < band.high[1])
    True
    >>> bands.source
    '50 patients drawn from the prior one_compartment, without any observation of next'
    """
    checked, own = check_against(patient, population.model), patient.scenario.values
    drawn = population.sample(count, np.random.default_rng(seed))
    values = pd.DataFrame({name: v for name, v in drawn.items() if name not in own})
    if values.empty:
        raise InputError(f"{patient.id}  sets every parameter that varies in the prior "
                         f"{population.name}; remove some from [values]")  # fmt: skip
    source = (f"{count} patients drawn from the prior {population.name}, without any observation "
              f"of {patient.id}")  # fmt: skip
    drawn_from = Draws(values, source, float(count))
    return _predicted(population, checked, drawn_from, sampling=sampling, workers=workers)


def _predicted(
    about: Population, patient: Patient, drawn: Draws,
    scenarios: Scenario | Sequence[Scenario] | None = None,
    *, sampling: Sampling | None, **how: Any,
) -> Predictions:  # fmt: skip
    """Simulate the draws; the patient's own values apply unless a scenario sets them itself."""
    scenarios = patient.scenario if scenarios is None else scenarios
    several = (scenarios,) if isinstance(scenarios, Scenario) else tuple(scenarios)
    complete = [replace(s, values={**patient.scenario.values, **s.values}) for s in several]
    sampling = sampling or Sampling(every_hours=EVERY_HOURS)
    if sampling.outputs is None:
        sampling = replace(sampling, outputs=observables(about.model, about.noise, patient))
    found = simulate_many(about.model, complete, drawn.values, sampling=sampling, **how)
    if not found.members:
        raise InputError(f"{patient.id}: no draw could be run. {found.failures[0]}")
    return Predictions(found, drawn.values, about.noise, drawn.source)


def observables(model: Model, noise: Noise, patient: Patient) -> tuple[str, ...]:
    """Names of all that is observed or has noise, and of what the grades are computed from."""
    scale = noise.grade
    graded = () if scale is None else (scale.latent, *scale.cuts)
    observed = (o.observable for o in patient.observations)
    measured = (spread.observable or name for name, spread in noise.spreads.items())
    names = dict.fromkeys((*measured, *observed, *graded))
    return tuple(n for n in names if n in model.course_ids)


def _drawn(result: Fit, draws: pd.DataFrame | Draws | int, workers: int | None) -> Draws:
    if isinstance(draws, Draws):
        return draws
    if isinstance(draws, int):
        return weighted_draws(result, draws, workers=workers)
    if draws.empty:
        raise InputError("draws: the table has no row; give one or more")
    names = result.problem.names
    for column in draws.columns:
        if column not in names:
            raise unknown_name("free parameter (column of the draws)", str(column), names)
    for name in names:
        if name not in draws.columns:
            raise InputError(f"draws: no column {name}, which is free in {result.problem.name}; "
                             "give one for each free parameter")  # fmt: skip
    return Draws(draws, f"{len(draws)} draws given", float(len(draws)))


def _shades() -> Array:
    """Equally likely errors of a standard normal distribution, (SHADES,)."""
    return np.asarray(ndtri((np.arange(SHADES) + 0.5) / SHADES))


def _band(courses: Array, level: float) -> Band:
    if not 0.0 < level < 1.0:
        raise InputError(f"level {level:g}: give one between 0 and 1, such as 0.95")
    tail = 0.5 * (1.0 - level)
    return Band(*np.quantile(courses, [tail, 0.5, 1.0 - tail], axis=0))
