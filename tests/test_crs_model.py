"""What a model of this syndrome must do, fitted or not; each check on the shipped model.

`FITTED` is the model with the values of the committed run of the case, `NOMINAL` the model file
as it stands. A check that speaks of the case's own course runs on the fitted one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from paths import SHIPPED_RUN

from crs_sim.dosing.doses import Dose, Schedule
from crs_sim.dosing.scenario import Scenario
from crs_sim.fitting.diagnostics import judge
from crs_sim.fitting.fitting import fit
from crs_sim.fitting.noise import days_needed, predicted
from crs_sim.fitting.problem import load_problem
from crs_sim.fitting.storage import load_run
from crs_sim.model.model import Model
from crs_sim.model.model_file import load_model
from crs_sim.patients.patient import load_patient
from crs_sim.patients.patient_checks import check_against
from crs_sim.simulation.endpoints import peak, worst_grade
from crs_sim.simulation.simulation import Simulation, simulate

NOMINAL = load_model("crs")
FITTED = NOMINAL.with_values(**load_run(SHIPPED_RUN, NOMINAL).values)
CASE = check_against(load_patient("ruemmele2025"), NOMINAL).scenario
DOSES = CASE.doses
TREATMENTS = tuple(d for d in DOSES.drugs if d not in ("cart", "rimiducid"))
BOTH = pytest.mark.parametrize("model", [NOMINAL, FITTED], ids=["nominal", "fitted"])
MARKERS = ("ifng", "ifng_total", "il6", "il6_signal", "cxcl10", "sil2r", "ferritin", "crp", "shock")


def run(model: Model, doses: Schedule, **options: object) -> Simulation:
    """The case's patient under another schedule, sampled every six hours."""
    return simulate(model, CASE.with_doses(doses), **options)  # type: ignore[arg-type]


@BOTH
def test_without_car_cells_every_marker_stays_at_baseline(model: Model) -> None:
    sim = run(model, Schedule(), until=60.0)
    for name in (*MARKERS, "vcn"):
        np.testing.assert_allclose(sim[name], sim[name][0], rtol=1e-3, atol=1e-9, err_msg=name)
    assert worst_grade(sim) == 0


@BOTH
def test_treatment_after_day_11_helps(model: Model) -> None:
    treated = run(model, DOSES)
    untreated = run(model, DOSES.between(0, 11) + DOSES.only("cart", "rimiducid").between(11, 40))
    assert np.all(untreated["crs_grade"] >= treated["crs_grade"])
    assert peak(untreated, "shock") > peak(treated, "shock")
    assert peak(untreated, "ifng") > peak(treated, "ifng")


@BOTH
@pytest.mark.parametrize("day", [8, 20])
def test_tocilizumab_raises_measured_il6_and_lowers_its_signal(model: Model, day: float) -> None:
    """Between the waves, and in the untreated second episode (where CRP is near its ceiling)."""
    episode = DOSES.only("cart", "rimiducid")
    plain = run(model, episode)
    blocked = run(model, episode + Dose(day, "tocilizumab", 8, "mg/kg"))
    for name, low, high in (("il6", 3, 10), ("il6_signal", 0, 0.1), ("crp", 0, 0.9)):
        fold = blocked.at(day + 3)[name][0] / plain.at(day + 3)[name][0]
        assert low <= fold <= high, name


@BOTH
def test_tocilizumab_raises_resting_il6_by_the_receptors_share(model: Model) -> None:
    sim = run(model, Schedule((Dose(1, "tocilizumab", 8, "mg/kg"),)), until=10)
    share = 1 + model.values["d_il6_receptor"] / model.values["d_il6"]
    assert sim["il6"][-1] / sim["il6"][0] == pytest.approx(share, rel=0.02)
    assert sim["crp"][-1] < 0.1 * sim["crp"][0]


def test_emapalumab_alone_ends_free_ifng_and_leaves_il6_and_car_cells() -> None:
    episode = DOSES.only("cart", "rimiducid")
    days = np.array([0, 24, 24.5, 27])
    plain = run(FITTED, episode, days=days)
    treated = run(FITTED, episode + Dose(24, "emapalumab", 1, "mg/kg"), days=days)
    before, after_12h, after_3d = (treated.at(day) for day in (24, 24.5, 27))
    assert before["crs_grade"][0] == 4, "there must be an episode to end"
    assert after_12h["ifng"][0] < 0.01 * before["ifng"][0]
    assert after_12h["ifng_total"][0] > 1.5 * before["ifng_total"][0]
    assert after_3d["il6"][0] >= 0.9 * before["il6"][0]
    assert after_3d["vcn"][0] >= 0.99 * plain.at(27)["vcn"][0]


@BOTH
def test_siltuximab_raises_assayed_il6_while_its_signal_falls(model: Model) -> None:
    episode = DOSES.only("cart", "rimiducid")
    plain = run(model, episode)
    treated = run(model, episode + Dose(20, "siltuximab", 11, "mg/kg"))
    assert treated.at(24)["il6"][0] > 3 * plain.at(24)["il6"][0]
    assert treated.at(24)["il6_signal"][0] < 0.01 * plain.at(24)["il6_signal"][0]


@BOTH
@pytest.mark.parametrize("cytokine", ["ifng", "il6"])
def test_burden_moves_peak_cytokines_more_than_cell_dose(model: Model, cytokine: str) -> None:
    """The first wave, before any drug: later pulses meet normal tissue only."""
    cells = DOSES.only("cart")
    plain = peak(run(model, cells, until=10), cytokine)
    more_cells = peak(run(model, cells.scaled(4), until=10), cytokine)
    more_tumour = peak(run(model.with_values(tumour_0=4.0), cells, until=10), cytokine)
    assert more_tumour > more_cells > plain


def test_without_the_second_pulse_there_is_no_grade_4() -> None:
    days = np.arange(0, 40.01, 0.05)
    pulses = DOSES.only("rimiducid").between(0, 12)
    assert worst_grade(run(FITTED, DOSES, days=days)) == 4
    assert worst_grade(run(FITTED, DOSES.without("rimiducid") + pulses, days=days)) < 4


def test_emapalumab_on_day_19_shortens_grade_4() -> None:
    days = np.arange(0, 40.01, 0.05)
    given = run(FITTED, DOSES, days=days)
    early = run(FITTED, DOSES + Dose(19, "emapalumab", 1, "mg/kg"), days=days)
    assert np.sum(early["crs_grade"] == 4) < 0.5 * np.sum(given["crs_grade"] == 4)


def test_six_drugs_fail_and_the_seventh_does_not() -> None:
    """Blocking the IL-6 receptor does not end the second episode; blocking IFN-g does."""
    without = run(FITTED, DOSES.without("emapalumab"), until=30)
    assert np.all(without.at([24, 26, 28])["crs_grade"] == 4)
    assert run(FITTED, DOSES, until=30).at(28)["crs_grade"][0] == 0


@BOTH
def test_no_amount_or_concentration_falls_below_zero(model: Model) -> None:
    sim = run(model, DOSES, until=60.0)
    scale = np.maximum(sim.states.max(axis=0), 1e-6)
    assert np.all(sim.states.min(axis=0) >= -1e-6 * scale)


def test_every_fitted_day_is_a_number() -> None:
    for weight in (60.0, 90.0):
        patient = Scenario("as given", DOSES, CASE.changes, {**CASE.values, "weight": weight})
        sim = simulate(FITTED, patient)
        assert np.all(np.isfinite(sim.states))
        assert np.all(np.isfinite(sim.quantities))


@pytest.mark.parametrize(
    ("drug", "states", "off"),
    [
        ("rimiducid", ("RIM", "RIM2"), {"cl_rim": 0.0}),
        ("siltuximab", ("SIL", "SIL2"), {"cl_sil": 0.0}),
        ("emapalumab", ("EMA", "EMA2"), {"cl_ema": 0.0, "cl_ema_ifng": 0.0}),
        ("tocilizumab", ("TOC", "TOC2"), {"cl_toc": 1e-30, "cl_toc_icu": 1e-30, "vmax_toc": 0.0}),
        ("dexamethasone", ("DEX", "DEX2"), {"cl_dex": 1e-30, "cl_dex_icu": 1e-30}),
    ],
)
def test_what_is_given_and_not_cleared_is_all_there(
    drug: str, states: tuple[str, ...], off: dict[str, float]
) -> None:
    sim = simulate(FITTED.with_values(**off), CASE, until=40)
    given = sum(dose.amount for dose in sim.inputs if dose.drug == drug)
    assert sum(sim[state][-1] for state in states) == pytest.approx(given, rel=1e-8)


def test_ifng_in_proportion_to_blood_vcn_cannot_fit_the_case() -> None:
    """The second pulse has a quarter of the first's VCN and is the one that reaches grade 4."""
    full = load_problem("ruemmele2025")
    blood_only = {
        "k_ifng_host": 0.0, "tissue_weight": 0.0, "w_switch": 0.0, "imax_gc": 0.0,
        "antigen_off": 1e6,  # every cell engaged, always
    }  # fmt: skip
    names = ("engraftment", "r_switch", "k_exhaust", "d_exhausted", "k_ifng_car", "ifng_shock")
    problem = replace(
        full,
        model=full.model.with_values(**blood_only, r_antigen=0.6),
        free=tuple(replace(f, sd=2.0, lower=f.median / 1e4, upper=f.median * 1e4)
                   for f in full.free if f.name in names),
    )  # fmt: skip
    variant = fit(problem, starts=2, workers=1)
    missed = {row.id for row in judge(variant) if row.verdict == "miss"}
    assert "all_grades" in missed
    assert len(missed & set(full.accept)) >= 4
    assert variant.cost > load_run(SHIPPED_RUN).result["cost"] + 100


def test_the_committed_run_meets_every_row_of_the_case() -> None:
    """Simulated anew from the stored values, not read from the run's own tables."""
    problem = load_problem("ruemmele2025")
    observations = problem.patient.observations
    sim = simulate(FITTED, CASE, days=days_needed(observations), rtol=1e-8)
    off = {}
    for observation in observations:
        value = predicted(observation, sim)
        if observation.kind == "grade":
            off[observation.id] = abs(value - observation.value)
        else:
            low, high = problem.accept[observation.id]
            assert low <= value <= high, observation.id
    assert len(off) == 27
    assert max(off.values()) <= 1
    assert sum(difference == 0 for difference in off.values()) >= 0.9 * len(off)
