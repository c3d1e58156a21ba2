"""What is asked of the model: products, cohorts, sampling, and the rules that judge it.

The model's equations are not known here: a product names a prior, doses, and observables by the
names that the data and the published figures use. An observable that the model does not have is
"not in the model", and its rows fail. Research use only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from crs_sim import (
    Condition,
    Dose,
    Population,
    Scenario,
    Schedule,
    Trigger,
    load_model,
    load_patient,
    load_population,
)
from crs_sim.errors import InputError

MODEL = "crs"
CASE = "ruemmele2025"
SEED = 2026
PATIENTS = 600
"""Virtual patients of each product and arm."""
UNTIL, EVERY_HOURS = 60.0, 3.0
"""Last day of a virtual patient, and hours between the samples that grade and onset are read at."""
LONG = 180.0
"""Last day of the runs that the persistence of cells is read from."""

CAR_T, WEIGHT = "cart", 70.0
"""The drug that is the cells; kg, which none of the sources gives (the model's reference)."""
TOCILIZUMAB = Trigger("grade 3", Condition.read("crs_grade >= 3"),
                      Dose(0, "tocilizumab", 8, "mg/kg"), at_most=2, hours_apart=8,
                      every_hours=6)  # fmt: skip
"""Le 2018: 8 mg/kg, at most two doses, by rule at grade 3; rounds every six hours."""

NO_DRUG, TREATED, LONG_RUN, AS_CASE = "no drug", "tocilizumab", "long", "case"
"""Arms: the cells alone; with `TOCILIZUMAB`; cells alone for `LONG` days; the case's schedule."""

BLOOD_DAYS = (0.0, 1.0, 3.0, 5.0, *(float(day) for day in range(6, 22)), 28.0)
"""Days of blood samples in the CD22 trial (of the files in the folder)."""
DAILY = tuple(float(day) for day in range(61))

UNITS = {
    "ifng": "pg/mL", "il6": "pg/mL", "il10": "pg/mL", "tnf": "pg/mL", "il8": "pg/mL",
    "il18": "pg/mL", "il1b": "pg/mL", "gmcsf": "pg/mL", "il15": "pg/mL", "il2": "pg/mL",
    "ccl3": "pg/mL", "crp": "mg/L", "ferritin": "ng/mL", "ldh": "U/L", "car_cells": "cells/uL",
    "cd3_cells": "cells/uL", "vcn": "copies/ug", "wbc": "1e9 cells/L",
}  # fmt: skip
"""Units of the data and of the published figures; temperature is in degC throughout."""
LOWER = {"car_cells": 1.0}
"""Readings below are taken as "below" this: flow cytometry, per uL (assumption; many are 0)."""


@dataclass(frozen=True)
class Product:
    """A CAR-T product, by the prior of its patients and the dose of its cells.

    Parameters
    ----------
    prior : name or path of a prior of the model
    dose : float, cells/kg of a virtual patient
    levels : dose of each dose level of its trial, cells/kg
    days : on which virtual patients are sampled for readings
    ceilings : highest reading of an assay, by observable
    case : bool, whether it is the case's product, so that its virtual patients get its schedule
    model : name or path of the model
    """

    prior: str
    dose: float
    levels: Mapping[int, float] = field(default_factory=dict)
    days: tuple[float, ...] = DAILY
    ceilings: Mapping[str, float] = field(default_factory=dict)
    case: bool = False
    model: str = MODEL


PRODUCTS = {
    # dose levels as Fry 2018 (doi:10.1038/nm.4441), which was not read again; 2 is the commonest
    "cd22": Product("crs", 1e6, {1: 3e5, 2: 1e6, 3: 3e6}, BLOOD_DAYS,
                    {"ifng": 2900.0, "il6": 1500.0, "il10": 730.0}),
    "cd19": Product("crs", 2e6),
    "bpx601": Product("crs", 5e6, case=True),
}  # fmt: skip
"""The products of the published figures. Until each has a prior of its own, all have ``crs``."""


@dataclass(frozen=True)
class Variant:
    """What of a patient is fitted: observables (None: all the model has), and the worst grade."""

    name: str
    observables: tuple[str, ...] | None
    grade: bool = False


MAIN = Variant("IFN-g and IL-6", ("ifng", "il6"))
VARIANTS = (MAIN, Variant("all observables", None),
            Variant("IFN-g, IL-6 and worst grade", ("ifng", "il6"), grade=True))  # fmt: skip
"""Only where the grade is not fitted is it foreseen."""
COUNTED, LAST_FITTED = 1.0, 28.0
"""Lowest grade that is CRS, and the last day of a refitted course."""

RMS_MEDIAN, RMS_WORST, GRADE_EXACT, GRADE_NEAR = 0.5, 1.0, 60.0, 95.0
"""Limits of the refits: rms in ln units; shares in per cent, of the worst grade."""

AFTER_ONSET = 1.0
"""Days after the onset of CRS until which a treated patient is read, and peaks are foreseen."""

HLH = "hlh"
"""A quantity of the model that says so (0 or 1), if it has one; else `HLH_IFNG`."""
HLH_IFNG = 1500.0
"""pg/mL: HLH-like if the highest IFN-g reading is at or above it. All 14 HLH-like patients of the
folder with readings are, and 2 of the 21 others; ferritin is not part of the rule."""

BURDEN = ("tumour_0", "burden", "burden_0", "antigen_0")
"""Names of the parameter that is the tumour's burden; the first that the model has."""
CELL_STATES = ("CAR", "TISSUE")
"""States that hold CAR-T cells, besides those whose names begin with CAR_."""


def products(priors: Sequence[str] = (), model: str = MODEL) -> dict[str, Product]:
    """`PRODUCTS`, with other priors ("cd22=folder") or another model.

    Raises
    ------
    InputError
        For a text that is no product and prior.
    """
    chosen = {name: replace(product, model=model) for name, product in PRODUCTS.items()}
    for text in priors:
        name, _, prior = text.partition("=")
        if name not in chosen or not prior:
            raise InputError(f"{text!r}: write one of {', '.join(chosen)}, =, and a prior")
        chosen[name] = replace(chosen[name], prior=prior)
    return chosen


def population(product: Product) -> Population:
    """The population of a product."""
    return _population(product.model, product.prior)


@cache
def _population(model: str, prior: str) -> Population:
    return load_population(load_model(model), prior)


def scenario(product: Product, arm: str, dose: float | None = None) -> Scenario:
    """The treatment of a virtual patient of a product in an arm."""
    if arm == AS_CASE:
        return replace(load_patient(CASE).scenario, name=arm)
    cells = Dose(0, CAR_T, product.dose if dose is None else dose, "cells/kg")
    rules = (TOCILIZUMAB,) if arm == TREATED else ()
    return Scenario(arm, Schedule((cells,)), values={"weight": WEIGHT}, triggers=rules)
