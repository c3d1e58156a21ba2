"""The study design: synthetic patients, their measurements, and the parameters to fit."""

from __future__ import annotations

from dataclasses import replace

from crs_sim import Dose, Population, Scenario, Schedule, load_model, load_population
from crs_sim.population.virtual_patients import Design

FREE = ("engraftment", "r_switch", "d_mac", "k_ifng_car", "k_crp", "k_ferritin", "ferritin_0")
"""Cells, the loop, cytokine and markers; all other parameters are known in this study."""
SEED = 2025
STARTS = 2
HIGH_LIMIT = 20.0
"""pg/mL: a higher lower limit of the IFN-g assay, to study censoring."""
LEVELS = (0.5, 0.8, 0.95)
NOISES = ("stated", "estimated")
"""Residual error: as the patients were made, or estimated with the parameters, starting there."""

DOSES = Schedule((
    Dose(0, "cart", 5e6, "cells/kg"),
    Dose(2.5, "tocilizumab", 8, "mg/kg"),
    Dose(3, "dexamethasone", 10, "mg"),
    Dose(3.5, "dexamethasone", 10, "mg"),
    Dose(11, "rimiducid", 0.4, "mg/kg"),
))  # fmt: skip
SAMPLES = {
    "vcn": (4.0, 7.0, 11.0, 14.0, 18.0, 21.0),
    "ifng": (0.0, 1.0, 2.0, 4.0, 7.0, 12.0, 14.0, 18.0),
    "crp": (0.0, 1.0, 2.0, 4.0, 7.0, 13.0, 16.0),
    "ferritin": (0.0, 3.0, 7.0, 14.0, 18.0),
}
LIMITS = {"vcn": (50.0, 1e6), "ifng": (4.2, 1e5), "crp": (3.0, 1e4), "ferritin": (10.0, 1e6)}

SDS = tuple(f"sd_{name}" for name in SAMPLES)
"""The residual errors of the observables, as parameters."""


def design(lowest_ifng: float = LIMITS["ifng"][0]) -> Design:
    """The doses of the case until its first rimiducid, and 26 readings in three weeks."""
    scenario = Scenario("synthetic", DOSES, (), {"weight": 70.0})
    return Design(scenario, SAMPLES, LIMITS | {"ifng": (lowest_ifng, LIMITS["ifng"][1])})


def population() -> Population:
    """The shipped prior of the parameters that are free here."""
    whole = load_population(load_model("crs"))
    return replace(whole, free=tuple(f for f in whole.free if f.name in FREE))
