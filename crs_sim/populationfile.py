"""population.toml: which virtual patients, under which scenarios, and what is kept of each.

Scenarios are those of a scenarios.toml beside it, made of what a patient was given.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from .endpoints import endpoint
from .ensemble import EVERY_HOURS, Sampling
from .errors import InputError, placed
from .model import Model
from .modelfolder import model_of
from .patient import check_against, load_patient
from .population import load_population
from .scenario import AS_GIVEN, Scenario
from .scenariofile import SCENARIOS, load_scenarios
from .shipped import locate
from .tables import CellError, Record, column, place, read_toml
from .triggers import Condition
from .units import convert
from .virtual import Covariate, Filter, VirtualPopulation

if TYPE_CHECKING:
    from .patient import Patient

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
        """What the shape needs, and nothing else."""
        needs = {"lognormal": ("median", "sd"), "normal": ("mean", "sd"),
                 "uniform": ("lower", "upper")}[self.shape]  # fmt: skip
        for key in ("median", "mean", "sd", "lower", "upper"):
            given = getattr(self, key) is not None
            if key in needs and not given:
                raise CellError(key, f"is missing; {self.shape} needs {' and '.join(needs)}")
            if given and key not in (*needs, "lower", "upper"):
                raise CellError(key, f"says nothing of {self.shape}, which has {needs[0]}")


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
    """Virtual patients under scenarios: all that decides the numbers, but how many patients.

    Parameters
    ----------
    name : str
    virtual : VirtualPopulation
    scenarios : tuple of Scenario, the first is what is given; filters are of it
    endpoints : names, see `crs_sim.endpoints.endpoint`
    courses : names of what is kept of each patient once a day
    sampling : Sampling, its outputs are seen to
    number : int, patients drawn; those kept may be fewer
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
        """The model, with what is not drawn."""
        return self.virtual.model

    def __repr__(self) -> str:
        """One line."""
        return (f"PopulationStudy({self.name!r}: {self.number} patients, "
                f"{len(self.scenarios)} scenarios, {len(self.endpoints)} endpoints)")  # fmt: skip

    def settings(self) -> dict[str, Any]:
        """Everything that decides the numbers, as JSON can hold it, by what a person calls it."""
        virtual = self.virtual
        return {
            "values": dict(sorted(self.model.values.items())),
            "prior": [[f.name, f.median, f.sd, f.lower, f.upper] for f in virtual.population.free],
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
    """Without infinities, which JSON has not."""
    return {key: None if isinstance(v, float) and not math.isfinite(v) else v
            for key, v in table.items()}  # fmt: skip


def load_study(name: str | Path) -> PopulationStudy:
    """What a population.toml asks; or the shipped one of that name.

    Parameters
    ----------
    name : the file, its folder, or the name of what is shipped

    Raises
    ------
    FileError, InputError, UnknownNameError
        Naming file and key, and the closest match for what is misspelt.

    Examples
    --------
    >>> load_study("crs")
    PopulationStudy('crs': 11500 patients, 10 scenarios, 7 endpoints)
    """
    found = locate(name, POPULATIONS, POPULATION)
    path = found / POPULATION if found.is_dir() else found
    says = read_toml(path, PopulationFile)
    with _key(path, "patient"):
        who = load_patient(_near(path, says.patient))
        model = model_of(who)
        who = check_against(who, model)
    virtual = _virtual(says, who, model, path)
    base = Scenario(AS_GIVEN, who.scenario.doses, who.scenario.changes,
                    resets=who.scenario.resets)  # fmt: skip
    with _key(path, "scenarios"):
        asked = load_scenarios(_near(path, says.scenarios), base, virtual.model)
        _check_apart(virtual, asked.scenarios)
    return PopulationStudy(
        says.name, virtual, (base, *asked.scenarios), tuple(e.name for e in asked.endpoints),
        asked.courses if says.keep_courses else (),
        Sampling(until=asked.until, every_hours=says.every_hours), says.number,
    )  # fmt: skip


def _virtual(
    says: PopulationFile, who: Patient, model: Model, path: Path
) -> VirtualPopulation:
    prior = None if says.prior is None else _near(path, says.prior)
    with _key(path, "prior"):
        population = load_population(model, prior)
    covariates = []
    for name, table in says.covariate.items():
        with _key(path, f"covariate.{name}"):
            covariates.append(_covariate(name, table, model[name].unit))
    for name, table in says.dose.items():
        with _key(path, f"dose.{name}"):
            covariates.append(_dose(name, table, who.scenario))
    filters = []
    for number, asked in enumerate(says.filter, start=1):
        with _key(path, f"filter {number}"):
            condition = Condition.read(asked.when)
            endpoint(model, condition.quantity)
            filters.append(Filter(condition, asked.source))
    with _key(path, "fixed, covariate, dose"):
        return VirtualPopulation(
            model.with_values(**who.scenario.values), population, tuple(covariates),
            tuple(filters), says.seed, tuple(says.fixed),
        )  # fmt: skip


def _covariate(name: str, table: CovariateTable, unit: str, dose: float | None = None) -> Covariate:
    """What a table says, in another unit."""
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
    """A drug's own dose: all doses of the schedule must be the same, or none would be meant."""
    given = {(d.amount, d.unit) for d in base.doses if d.drug == name}
    if len(given) != 1:
        raise InputError(
            f"the schedule has {len(given) or 'no'} different doses of {name}; a dose that differs "
            "between patients must stand for one"
        )
    amount, unit = given.pop()
    if not amount > 0:
        raise InputError(f"the schedule's dose of {name} is 0, so no other is a multiple of it")
    return _covariate(name, table, unit or table.unit, amount)


def _check_apart(virtual: VirtualPopulation, scenarios: tuple[Scenario, ...]) -> None:
    drawn = virtual.parameters({name: np.ones(1) for name in virtual.names})
    for scenario in scenarios:
        for name in scenario.values:
            if name in drawn:
                raise InputError(
                    f"scenario {scenario.name!r} sets {name}, which is drawn for each patient; use "
                    "a [[scenario.change]] with a factor, or list it under 'fixed'"
                )


def with_number(study: PopulationStudy, number: int | None, seed: int | None) -> PopulationStudy:
    """The study with another number of patients, or another seed.

    >>> with_number(load_study("crs"), 200, None).number
    200
    """
    if number is not None and number < 1:
        raise InputError(f"number is {number}; give 1 patient or more")
    virtual = study.virtual if seed is None else replace(study.virtual, seed=seed)
    return replace(study, virtual=virtual, number=study.number if number is None else number)


def _near(path: Path, name: str) -> str:
    """A file or folder named from the file's folder; else the name as it stands."""
    beside = path.parent / name
    return str(beside) if beside.exists() else name


def _key(path: Path, key: str) -> AbstractContextManager[None]:
    return placed(place(path, key=key))
