"""The textbook models under NONMEM's records, against superposed closed forms.

Every combination of bolus or infusion (of given, modelled or endless length), additional doses,
lag, bioavailability, steady state and reset, written as a data set and read back.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from superposed import Given, central

from crs_sim.dosing.doses import Dose, Schedule
from crs_sim.dosing.scenario import Scenario
from crs_sim.fitting.datasets import run_study
from crs_sim.model.model_file import load_model
from crs_sim.patients.nonmem import read_nonmem
from crs_sim.simulation.simulation import simulate

MODELS = {name: load_model(name) for name in ("one_compartment", "two_compartment")}
ROUTES = {1: ("DEPOT", "oral"), 2: ("CENTRAL", "iv")}
AMOUNT, INTERVAL, DURATION, MODEL_RATE = 100.0, 12.0, 2.5, 900.0
RATES = {"bolus": 0.0, "infusion": 25.0, "longer than II": 4.0, "duration": -2.0, "rate": -1.0}
HEADER = "ID,TIME,DV,AMT,RATE,EVID,CMT,II,ADDL,SS,F,LAG"
SAMPLES = (1.0, 5.0, 5.5, 9.0, 20.0, 24.0, 29.0, 40.0, 47.0, 75.0)
DOSED, CLEARED = 5.0, 29.0
MAP = """
time_unit = "hours"
observable = "CENTRAL"
[covariates]
f_{drug} = "F"
lag_{drug} = "LAG"
"""


def length(kind, share):
    """Days that a dose takes, of which a share arrives."""
    rate = RATES[kind]
    if rate > 0:
        return share * AMOUNT / rate / 24
    return {"bolus": 0.0, "duration": DURATION / 24, "rate": share * AMOUNT / MODEL_RATE}[kind]


def rows_of(id, kind, compartment, case):
    """A subject's rows: an infusion before, the dose in question, samples, perhaps a reset."""
    additional, lag, share, steady, reset = case
    tail = f"{share},{lag!r}"
    interval = INTERVAL if additional or steady else 0
    rows = [
        (1.0, 0, f"{id},1,.,40,8,1,2,0,0,0,{tail}"),
        (DOSED, 0, f"{id},{DOSED},.,{AMOUNT},{RATES[kind]},1,{compartment},{interval},"
                   f"{additional},{steady},{tail}"),
        *((t, 1, f"{id},{t},1,.,.,0,.,.,.,.,{tail}") for t in SAMPLES),
    ]  # fmt: skip
    if reset == 3:
        rows.append((CLEARED, 0, f"{id},{CLEARED},.,.,.,3,.,.,.,.,{tail}"))
    if reset == 4:
        rows.append((CLEARED, 0, f"{id},{CLEARED},.,30,0,4,2,.,.,.,{tail}"))
    return [row for _, _, row in sorted(rows, key=lambda r: r[:2])]


def expected(model, kind, compartment, case):
    """The central amount at the samples."""
    additional, lag, share, steady, reset = case
    into, drug = ROUTES[compartment]
    own = (share, lag / 24) if drug == "iv" else (1.0, 0.0)
    records = [
        Given(1 / 24, 40 * own[0], "CENTRAL", own[0] * 5 / 24, lag=own[1]),
        Given(DOSED / 24, AMOUNT * share, into, length(kind, share), additional, INTERVAL / 24,
              steady, lag / 24),
    ]  # fmt: skip
    if reset == 4:
        records.append(Given(CLEARED / 24, 30 * own[0], "CENTRAL", lag=own[1]))
    resets = [CLEARED / 24] if reset else []
    return central(model.values, records, resets, np.array(SAMPLES) / 24)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("compartment", ROUTES)
@pytest.mark.parametrize("kind", RATES)
def test_every_combination(name, compartment, kind, tmp_path):
    drug = ROUTES[compartment][1]
    model = MODELS[name].with_values(
        **{f"d_{drug}": DURATION / 24, f"r_{drug}": MODEL_RATE},
    )
    cases = list(product((0, 2), (0.0, 0.7, 16.5), (1.0, 0.6), (0, 1, 2), (0, 3, 4)))
    rows = [row for id, case in enumerate(cases) for row in rows_of(id, kind, compartment, case)]
    (tmp_path / "study.csv").write_text("\n".join([HEADER, *rows]))
    (tmp_path / "map.toml").write_text(MAP.format(drug=drug))
    study = read_nonmem(tmp_path / "study.csv", model, columns=tmp_path / "map.toml")
    run = run_study(model, study, rtol=1e-8)
    table = run.table[run.table["EVID"] == 0].set_index("ID")
    assert len(study) == len(cases) == 108
    for id, case in enumerate(cases):
        found = table.loc[str(id), "CENTRAL"].to_numpy()
        assert found == pytest.approx(expected(model, kind, compartment, case), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("share", [1.0, 0.6])
@pytest.mark.parametrize("compartment", ROUTES)
def test_a_constant_infusion_has_gone_on_for_ever_and_ends(name, compartment, share, tmp_path):
    into, drug = ROUTES[compartment]
    model = MODELS[name].with_values(**{f"f_{drug}": share})
    rows = ["1,0,.,50,0,1,2,0,0,0", f"1,6,.,0,8,1,{compartment},0,0,1",
            *(f"1,{t},1,.,.,0,.,.,.,." for t in (6, 8, 15, 30))]  # fmt: skip
    head = "ID,TIME,DV,AMT,RATE,EVID,CMT,II,ADDL,SS"
    (tmp_path / "study.csv").write_text("\n".join([head, *rows]))
    (tmp_path / "map.toml").write_text('observable = "CENTRAL"')
    study = read_nonmem(tmp_path / "study.csv", model, columns=tmp_path / "map.toml")
    found = run_study(model, study, rtol=1e-8).table["CENTRAL"].to_numpy()[2:]
    whole = 500.0
    # an infusion that began 500 days ago; the rate is as given, whatever share arrives
    past = Given(0.25, 8 * 24 * whole, into, whole, lag=-whole)
    after = central(model.values, [past], [], np.array([6.0, 8.0, 15.0, 30.0]) / 24)
    assert found == pytest.approx(after, rel=1e-6)


RECORD = st.fixed_dictionaries({
    "hours": st.sampled_from((0.0, 1.5, 30.0)),
    "drug": st.sampled_from(("oral", "iv")),
    "amount": st.floats(1.0, 100.0),
    "steady": st.sampled_from(("", "", "alone", "added")),
    "every": st.sampled_from((8.0, 12.0, 24.0)),
    "more": st.integers(0, 3),
})  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(sorted(MODELS)),
    times=st.lists(st.integers(0, 96), min_size=1, max_size=5, unique=True),
    records=st.lists(RECORD, min_size=5, max_size=5),
    resets=st.lists(st.integers(0, 96).map(lambda t: t + 0.5), max_size=2, unique=True),
    lag=st.sampled_from((0.0, 0.25, 13.0)),
    method=st.sampled_from(("Rosenbrock", "Rosenbrock", "LSODA")),
)
def test_any_regimen(name, times, records, resets, lag, method):
    model = MODELS[name].with_values(lag_oral=lag / 24, f_oral=0.7)
    doses, told = [], []
    for time, record in zip(sorted(times), records, strict=False):
        day, oral = time / 24, record["drug"] == "oral"
        every = record["every"]
        for k in range(record["more"] + 1):
            steady = record["steady"] if k == 0 else ""
            doses.append(Dose(day + k * every / 24, record["drug"], record["amount"], "mg",
                              record["hours"], steady=steady, every=every if steady else 0.0,
                              ordered=day))  # fmt: skip
        told.append(Given(
            day, record["amount"] * (0.7 if oral else 1.0), "DEPOT" if oral else "CENTRAL",
            record["hours"] / 24, record["more"], every / 24,
            ("", "alone", "added").index(record["steady"]), lag / 24 if oral else 0.0,
        ))  # fmt: skip
    days = np.array([0.25, 3.25, 11.75, 12.75, 30.25, 50.25, 97.25, 110.25, 150.25]) / 24
    reset_days = [t / 24 for t in resets]
    scenario = Scenario("any", Schedule(tuple(doses)), resets=tuple(reset_days))
    run = simulate(model, scenario, days=days, rtol=1e-8, method=method)
    expected = central(model.values, told, reset_days, days)
    assert run["CENTRAL"] == pytest.approx(expected, rel=1e-5, abs=1e-5)
