"""Read population.toml: virtual patients, scenarios, and the results stored for each patient.

The scenarios are those of a scenarios.toml beside it, edits of a patient's treatment as given.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from ..dosing import AS_GIVEN, Condition, Scenario
from ..errors import InputError, error_location
from ..fitting import load_population
from ..model import Model, convert
from ..patients import check_against, load_patient, model_for_patient
from ..scenarios import SCENARIOS, load_scenarios
from ..simulation import EVERY_HOURS, Sampling, endpoint
from ..store import CellError, Record, column, locate, place, read_toml
from .virtual_patients import Covariate, Filter, VirtualPopulation

if TYPE_CHECKING:
    from ..patients import Patient

Words = Annotated[str, column(min_length=1)]
Real = Annotated[float, column(allow_inf_nan=False)]
Above0 = Annotated[float, column(gt=0, allow_inf_nan=False)]

POPULATION = "population.toml"
POPULATIONS = "fits/populations"


class CovariateTable(Record):
    """One ``[covariate.PARAMETER]`` or ``[dose.DRUG]``."""

    shape: Literal["lognormal", "normal", "uniform"]
    median: Real | None = None
    mean: Real | None = None
    sd: Above0 | None = None
    lower: Real | None = None
    upper: Real | None = None
    unit: str
    source: Words

    def check(self) -> None:
        """Check that exactly the keys of the shape are given."""
        needs = {"lognormal": ("median", "sd"), "normal": ("mean", "sd"),
                 "uniform": ("lower", "upper")}[self.shape]  # fmt: skip
        for key in ("median", "mean", "sd", "lower", "upper"):
            given = getattr(self, key) is not None
            if key in needs and not given:
                raise CellError(key, f"is missing; {self.shape} needs {' and '.join(needs)}")
            if given and key not in (*needs, "lower", "upper"):
                raise CellError(key, f"does not apply to {self.shape}, which takes {needs[0]}")


class FilterTable(Record):
    """One ``[[filter]]``."""

    when: Words
    source: Words


class PopulationFile(Record):
    """population.toml."""

    name: Words
    patient: Words
    prior: Words | None = None
    scenarios: Words = SCENARIOS
    number: Annotated[int, column(ge=1, le=10_000_000)]
    seed: Annotated[int, column(ge=0)] = 1
    every_hours: Annotated[float, column(gt=0, le=24, allow_inf_nan=False)] = 6.0
    keep_courses: bool = True
    fixed: list[str] = column(default_factory=list)
    covariate: dict[str, CovariateTable] = column(default_factory=dict)
    dose: dict[str, CovariateTable] = column(default_factory=dict)
    filter: list[FilterTable] = column(default_factory=list)


@dataclass(frozen=True, eq=False)
class PopulationStudy:
    """Design of a simulation of virtual patients under scenarios.

    Parameters
    ----------
    name : str
    virtual : VirtualPopulation
    scenarios : tuple of Scenario; the first is the treatment as given, to which filters apply
    endpoints : names, see `crs_sim.simulation.endpoint`
    courses : names of the time courses stored once a day
    sampling : Sampling; its outputs are set automatically
    number : int, patients drawn; filters may keep fewer
    """

    name: str
    virtual: VirtualPopulation
    scenarios: tuple[Scenario, ...]
    endpoints: tuple[str, ...]
    courses: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=lambda: Sampling(every_hours=EVERY_HOURS))
    number: int = 1000

    @property
    def model(self) -> Model:
        """The model, with the values of all that is not drawn."""
        return self.virtual.model

    def __repr__(self) -> str:
        """Return a one-line summary."""
        return (f"PopulationStudy({self.name!r}: {self.number} patients, "
                f"{len(self.scenarios)} scenarios, {len(self.endpoints)} endpoints)")  # fmt: skip

    def settings(self) -> dict[str, Any]:
        """Everything the results depend on except the number of patients, as JSON values."""
        virtual = self.virtual
        return {
            "values": dict(sorted(self.model.values.items())),
            "prior": [[f.name, f.median, f.sd, f.lower, f.upper, *f.scale_told]
                      for f in virtual.population.free],
            "fixed": list(virtual.fixed),
            "covariates": [_plain(asdict(c)) for c in virtual.covariates],
            "filters": [[str(f.when), f.source] for f in virtual.filters],
            "seed": virtual.seed,
            "scenarios": [[s.name, repr((s.doses, s.changes, sorted(s.values.items()), s.resets,
                                         s.triggers, s.holds))] for s in self.scenarios],
            "endpoints": list(self.endpoints),
            "courses": list(self.courses),
            "sampling": [self.sampling.until, self.sampling.every_hours, self.sampling.rtol],
        }  # fmt: skip


def _plain(table: dict[str, Any]) -> dict[str, Any]:
    """Replace non-finite numbers, which JSON does not have, by None."""
    return {key: None if isinstance(v, float) and not math.isfinite(v) else v
            for key, v in table.items()}  # fmt: skip


def load_study(name: str | Path) -> PopulationStudy:
    """Load the study of a population.toml, or the shipped one of that name.

    Parameters
    ----------
    name : the file, its folder, or the name of a shipped study

    Raises
    ------
    FileError, InputError, UnknownNameError
        Naming file and key, and the closest match of a misspelt name.

    Examples
    --------
    >>> load_study("crs")
    PopulationStudy('crs': 11500 patients, 10 scenarios, 7 endpoints)
    """
    found = locate(name, POPULATIONS, POPULATION)
    path = found / POPULATION if found.is_dir() else found
    content = read_toml(path, PopulationFile)
    with _key(path, "patient"):
        patient = load_patient(_near(path, content.patient))
        model = model_for_patient(patient)
        patient = check_against(patient, model)
    virtual = _virtual(content, patient, model, path)
    base = Scenario(AS_GIVEN, patient.scenario.doses, patient.scenario.changes,
                    resets=patient.scenario.resets)  # fmt: skip
    with _key(path, "scenarios"):
        listed = load_scenarios(_near(path, content.scenarios), base, virtual.model)
        _check_not_drawn(virtual, listed.scenarios)
    return PopulationStudy(
        content.name, virtual, (base, *listed.scenarios), tuple(e.name for e in listed.endpoints),
        listed.courses if content.keep_courses else (),
        Sampling(until=listed.until, every_hours=content.every_hours), content.number,
    )  # fmt: skip


def _virtual(
    content: PopulationFile, patient: Patient, model: Model, path: Path
) -> VirtualPopulation:
    prior = None if content.prior is None else _near(path, content.prior)
    with _key(path, "prior"):
        population = load_population(model, prior)
    covariates = []
    for name, table in content.covariate.items():
        with _key(path, f"covariate.{name}"):
            covariates.append(_covariate(name, table, model[name].unit))
    for name, table in content.dose.items():
        with _key(path, f"dose.{name}"):
            covariates.append(_dose(name, table, patient.scenario))
    filters = []
    for number, criterion in enumerate(content.filter, start=1):
        with _key(path, f"filter {number}"):
            condition = Condition.read(criterion.when)
            endpoint(model, condition.quantity)
            filters.append(Filter(condition, criterion.source))
    with _key(path, "fixed, covariate, dose"):
        return VirtualPopulation(
            model.with_values(**patient.scenario.values), population, tuple(covariates),
            tuple(filters), content.seed, tuple(content.fixed),
        )  # fmt: skip


def _covariate(name: str, table: CovariateTable, unit: str, dose: float | None = None) -> Covariate:
    """The covariate of a table, converted to another unit."""
    factor = convert(1.0, table.unit, unit)
    centre = table.mean if table.median is None else table.median
    low = 0.0 if table.shape == "lognormal" else -math.inf
    sd = 0.0 if table.sd is None else table.sd
    return Covariate(
        name, table.shape,
        math.nan if centre is None else centre * factor,
        sd if table.shape == "lognormal" else sd * factor,
        low if table.lower is None else table.lower * factor,
        math.inf if table.upper is None else table.upper * factor,
        unit, table.source, dose,
    )  # fmt: skip


def _dose(name: str, table: CovariateTable, base: Scenario) -> Covariate:
    """The distribution of a drug's dose; all its doses in the schedule must be the same."""
    given = {(d.amount, d.unit) for d in base.doses if d.drug == name}
    if len(given) != 1:
        raise InputError(
            f"the schedule has {len(given) or 'no'} different doses of {name}; a dose that differs "
            "between patients must replace exactly one"
        )
    amount, unit = given.pop()
    if not amount > 0:
        raise InputError(f"the schedule's dose of {name} is 0, so it cannot be scaled; give one "
                         "above 0")  # fmt: skip
    return _covariate(name, table, unit or table.unit, amount)


def _check_not_drawn(virtual: VirtualPopulation, scenarios: tuple[Scenario, ...]) -> None:
    """Refuse a scenario that sets a parameter that is drawn for each patient."""
    drawn = virtual.parameters({name: np.ones(1) for name in virtual.names})
    for scenario in scenarios:
        for name in scenario.values:
            if name in drawn:
                raise InputError(
                    f"scenario {scenario.name!r} sets {name}, which is drawn for each patient; use "
                    "a [[scenario.change]] with a factor, or list it under 'fixed'"
                )


def with_number(study: PopulationStudy, number: int | None, seed: int | None) -> PopulationStudy:
    """Return the study with another number of patients, or another seed.

    >>> with_number(load_study("crs"), 200, None).number
    200
    """
    if number is not None and number < 1:
        raise InputError(f"number is {number}; give 1 patient or more")
    virtual = study.virtual if seed is None else replace(study.virtual, seed=seed)
    return replace(study, virtual=virtual, number=study.number if number is None else number)


def _near(path: Path, name: str) -> str:
    """The path relative to the file's folder if it exists; otherwise the name unchanged."""
    beside = path.parent / name
    return str(beside) if beside.exists() else name


def _key(path: Path, key: str) -> AbstractContextManager[None]:
    return error_location(place(path, key=key))
