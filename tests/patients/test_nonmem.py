"""Data sets in NONMEM's and Monolix's form: what they mean, and every way in which one is wrong."""

from __future__ import annotations

import csv
import math
import re

import numpy as np
import pytest
from click.testing import CliRunner
from small_models import small

from crs_sim.cli.command_line import cli
from crs_sim.errors import CrsSimError, FileError, UnitError, UnknownNameError
from crs_sim.fitting.datasets import run_study, subjects_with_observations
from crs_sim.model.model import Drug
from crs_sim.model.model_file import load_model
from crs_sim.patients.nonmem import read_nonmem, subject_of
from crs_sim.patients.patient_checks import check_against

ONE = load_model("one_compartment")
TWO = load_model("two_compartment")
K = ONE.values["cl"] / ONE.values["v"] / 24
"""Elimination, per hour."""


@pytest.fixture
def study(tmp_path):
    """A data set from its rows, and perhaps its map."""

    def read(rows, columns=None, model=ONE):
        (tmp_path / "study.csv").write_text(rows.strip() + "\n")
        path = None
        if columns is not None:
            path = tmp_path / "map.toml"
            path.write_text(columns)
        return read_nonmem(tmp_path / "study.csv", model, columns=path)

    return read


def predicted(study, model=ONE):
    return run_study(model, study, rtol=1e-9).table["c_central"].to_numpy() * 30


# --- what a data set means ------------------------------------------------------------------------


def test_a_study_end_to_end(study):
    found = study("""
ID,TIME,DV,AMT,RATE,EVID,CMT,II,ADDL
7,0,.,100,0,1,2,12,1
7,2,2.5,.,.,0,2,.,.
7,24,1.1,.,.,0,2,.,.
8,0,.,60,20,1,2,0,0
8,2,1.1,.,.,0,2,.,.
8,5,NA,.,.,0,2,.,.
""")
    seven, eight = found
    assert [p.id for p in found] == ["7", "8"]
    assert [(d.day, d.drug, d.amount) for d in seven.scenario.doses] == [
        (0, "iv", 100), (0.5, "iv", 100)]  # fmt: skip
    assert [(o.observable, o.day, o.value, o.unit, o.row) for o in seven.observations] == [
        ("c_central", 2 / 24, 2.5, "mg_per_L", 3),
        ("c_central", 1.0, 1.1, "mg_per_L", 4),
    ]
    assert eight.scenario.doses.doses[0].rate == 20
    e = lambda hours: np.exp(-K * hours)  # noqa: E731
    during = 20 / K
    assert predicted(found) == pytest.approx(
        [100, 100 * e(2), 100 * (e(24) + e(12)),
         0, during * (1 - e(2)), during * (1 - e(3)) * e(2)], rel=1e-7, abs=1e-6)  # fmt: skip
    assert "records without DV are predicted and not fitted" in found.notes
    assert check_against(seven, ONE).observations == seven.observations


def test_patients_are_those_of_the_study(tmp_path):
    (tmp_path / "study.csv").write_text("ID,TIME,AMT,CMT,DV\n1,0,5,2,.\n1,1,.,2,3\n")
    (patient,) = read_nonmem(tmp_path / "study.csv", ONE).patients
    assert repr(patient) == "Patient('1': 1 doses of 1 drugs, 1 observations)"


def test_order_of_records_at_one_time_is_the_files(study):
    found = study("""
ID,TIME,DV,AMT,EVID,CMT
1,0,.,100,1,2
1,6,9,.,0,2
1,6,.,50,1,2
1,6,9,.,0,2
1,6,.,.,3,2
1,6,9,.,0,2
1,6,.,40,1,2
1,6,9,.,0,2
1,6,.,10,4,2
1,6,9,.,0,2
1,6,.,5,1,2
1,7,9,.,0,2
""")
    left = 100 * np.exp(-6 * K)
    expected = [100, left, left + 50, left + 50, 0, 0, 40, 40, 10, 10, 15, 15 * np.exp(-K)]
    assert predicted(found) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert run_study(ONE, found).table["TIME"].tolist() == ["0", *["6"] * 10, "7"]


def test_a_sample_at_the_time_of_an_additional_dose_follows_it(study):
    rows = "ID,TIME,DV,AMT,EVID,CMT,II,ADDL\n1,0,.,100,1,2,12,2\n1,12,9,.,0,2,.,.\n"
    assert predicted(study(rows))[1] == pytest.approx(100 * (1 + np.exp(-12 * K)), rel=1e-7)
    # a dose of its own record does not, if the sample stands before it
    rows = "ID,TIME,DV,AMT,EVID,CMT\n1,0,.,100,1,2\n1,12,9,.,0,2\n1,12,.,100,1,2\n"
    assert predicted(study(rows))[1] == pytest.approx(100 * np.exp(-12 * K), rel=1e-7)


def test_a_lagged_dose_arrives_before_the_samples_of_that_instant(study):
    """As in NONMEM 7.4.3 and 7.5.1; the map may say otherwise."""
    rows = """
ID,TIME,DV,AMT,EVID,CMT,II,ADDL
1,0,.,100,1,2,6,1
1,3,9,.,0,2,.,.
1,9,9,.,0,2,.,.
1,9,.,50,1,2,.,.
1,9,9,.,0,2,.,.
"""
    lagged, left = ONE.with_values(lag_iv=3 / 24), 100 * np.exp(-6 * K)
    found = predicted(study(rows), lagged)
    assert found == pytest.approx([0, 100, left + 100, left + 100, left + 100], rel=1e-7)
    found = predicted(study(rows, 'lagged_doses = "after samples"\n'), lagged)
    assert found[:3] == pytest.approx([0, 0, left], rel=1e-7)


@pytest.mark.parametrize("lag", [4, 24, 28])
@pytest.mark.parametrize("ss", [1, 2])
def test_the_lag_of_a_steady_state_whatever_its_length(study, lag, ss):
    """Samples at and around the arrival, against the doses written out one by one."""
    times = (3, lag % 24, lag % 24 + 1, lag, lag + 1, lag + 24)
    samples = "".join(f"1,{t + 1},9,.,0,2,.,.\n" for t in sorted({t for t in times if t}))
    head = "ID,TIME,DV,AMT,EVID,CMT,II,SS\n1,0,9,.,0,2,.,.\n"
    lagged = ONE.with_values(lag_iv=lag / 24)
    found = predicted(study(f"{head}1,1,.,100,1,2,24,{ss}\n{samples}"), lagged)[1:]

    def level(t):
        last = lag if t >= lag else lag - 24 * (1 + (lag - t - 1e-9) // 24)
        return 100 * np.exp(-K * (t - last)) / (1 - np.exp(-24 * K)) if t < lag + 24 else 0

    expected = [level(t) for t in sorted({t for t in times if t})]
    beyond = 100 * np.exp(-24 * K) / (1 - np.exp(-24 * K))
    expected = [e if e else beyond for e in expected]
    assert found[1:] == pytest.approx(expected, rel=1e-6)


def superposed(t, doses):
    """Amount after boluses (hour, amount), each there from its own hour on."""
    return sum(amount * np.exp(-K * (t - hour)) for hour, amount in doses if t >= hour)


def test_two_doses_at_one_time_have_the_values_of_their_own_records(study):
    """Share, lag, duration and rate; in either order, and with samples between."""
    head = "ID,TIME,DV,AMT,RATE,EVID,CMT,f_iv,lag_iv,d_iv\n"
    after = "".join(f"1,{t},3,.,.,0,2,0.9,0,0.3\n" for t in (0, 1, 2, 4))
    one, two = "1,0,.,100,0,1,2,0.5,0.125,0.1\n", "1,0,.,60,0,1,2,0.25,0,0.2\n"
    between = "1,0,9,.,.,0,2,0.7,0.5,0.4\n"
    expected = [15, *(superposed(t, ((0, 15), (3, 50))) for t in (1, 2, 4))]
    for rows in (one + two, two + one, one + between + two, between + two + one):
        assert predicted(study(head + rows + after))[-4:] == pytest.approx(expected, rel=1e-6)
    drips = "1,0,.,100,-2,1,2,0.5,0,0.25\n1,0,.,100,-2,1,2,0.5,0,0.125\n"
    found = predicted(study(head + drips + "1,9,3,.,.,0,2,1,0,0\n"))[-1]
    e = lambda hours: np.exp(-K * hours)  # noqa: E731
    assert found == pytest.approx(50 / 6 / K * (1 - e(6)) * e(3) + 50 / 3 / K * (1 - e(3)) * e(6),
                                  rel=1e-6)  # fmt: skip


def test_a_sample_has_the_covariates_of_its_own_record(study):
    """Volume 30 for the sample, 60 for the dose of the same time; samples after it have theirs."""
    found = study("""
ID,TIME,EVID,AMT,CMT,DV,v
1,0,1,300,2,.,30
1,5,0,.,2,9,30
1,5,1,300,2,.,60
1,5,0,.,2,9,30
1,5,0,.,2,9,60
1,5,0,.,2,9,15
""")
    level = predicted(found) / 30
    left = 300 * np.exp(-5 * K)
    assert level[1:] == pytest.approx(
        [left / 30, (left + 300) / 60, (left + 300) / 30, (left + 300) / 60, (left + 300) / 15],
        rel=1e-6)  # fmt: skip


def test_covariates_carried_backward_as_nonmem_does(study):
    rows = """
ID,TIME,DV,AMT,EVID,CMT,cl
1,0,.,100,1,2,72
1,4,3,.,0,2,24
1,8,3,.,0,2,.
1,10,3,.,0,2,96
1,10,.,50,1,2,48
1,12,3,.,0,2,36
"""
    found = study(rows, 'covariates_between = "backward"\n')
    sums = np.array([4 * 24, 4 * 96, 2 * 96])
    expected = 100 * np.exp(-np.cumsum(sums) / 24 / 30)
    last = (expected[-1] + 50) * np.exp(-2 * 36 / 24 / 30)
    assert predicted(found)[1:] == pytest.approx([*expected, expected[-1] + 50, last], rel=1e-6)
    assert any("cl changes; each value holds from the record before" in n for n in found.notes)
    late = "ID,TIME,AMT,CMT,DV,cl\n1,0,100,2,.,.\n1,3,.,2,3,48\n"
    found = predicted(study(late, 'covariates_between = "backward"\n'))
    assert found[1] == pytest.approx(100 * np.exp(-3 * 48 / 24 / 30), rel=1e-6)


def test_additional_doses_keep_the_values_of_their_record(study):
    """Whatever a record at the time of one of them says."""
    found = study("""
ID,TIME,DV,AMT,EVID,CMT,II,ADDL,f_iv
1,0,.,100,1,2,6,2,0.5
1,6,9,.,0,2,.,.,1.0
1,6,.,10,1,2,.,.,0.1
1,13,9,.,0,2,.,.,1.0
""")
    doses = ((0, 50), (6, 50), (6, 1), (12, 50))
    assert predicted(found)[[1, 3]] == pytest.approx(
        [superposed(6, doses) - 1, superposed(13, doses)], rel=1e-6)  # fmt: skip


def test_time_may_go_back_at_a_reset(study):
    found = study("""
ID,TIME,DV,AMT,EVID,CMT,II,ADDL
1,0,.,100,1,2,24,5
1,30,2,.,0,2,.,.
1,0,.,50,4,2,.,.
1,3,2,.,0,2,.,.
1,30,2,.,0,2,.,.
""")
    assert predicted(found)[2:] == pytest.approx(
        [50, 50 * np.exp(-3 * K), 50 * np.exp(-30 * K)], rel=1e-7)  # fmt: skip
    assert [s.day for s in found.samples] == pytest.approx([0, 1.25, 1.25, 1.375, 2.5])


def test_without_evid_a_record_is_what_it_holds(study):
    found = study("ID,TIME,DV,AMT,CMT,MDV\n1,0,.,100,2,1\n1,1,3,.,2,0\n1,2,9,.,2,1\n")
    assert [s.event for s in found.samples] == [1, 0, 2]
    assert [o.value for o in found.patients[0].observations] == [3]
    assert "DV is not used on records that are not observations" in found.notes


def test_constant_covariates_are_the_patients_values(study):
    found = study(
        "ID,TIME,DV,AMT,CMT,cl,V1L\n1,0,.,100,2,48,20\n1,1,3,.,2,48,20\n",
        '[covariates]\nv = "V1L"\n',
    )
    (patient,) = found
    assert dict(patient.scenario.values) == {"v": 20, "cl": 48}
    assert patient.scenario.changes == ()
    assert predicted(found)[1] / 30 == pytest.approx(100 / 20 * np.exp(-48 / 20 / 24), rel=1e-7)


def test_a_covariate_holds_until_the_next_value(study):
    found = study("""
ID,TIME,DV,AMT,EVID,CMT,cl
1,0,.,100,1,2,72
1,4,.,.,2,.,24
1,8,3,.,0,2,.
1,10,3,.,0,2,96
1,12,3,.,0,2,96
""")
    (patient,) = found
    assert [(c.first, c.last, c.value) for c in patient.scenario.changes] == [
        (4 / 24, 10 / 24, 24), (10 / 24, np.inf, 96)]  # fmt: skip
    run = np.array([100, -4 * 72, -4 * 24, -2 * 24, -2 * 96])
    expected = 100 * np.exp(np.cumsum(run[1:]) / 24 / 30)
    assert predicted(found)[1:] == pytest.approx(expected, rel=1e-7)
    assert any("cl changes; each value holds until the next" in note for note in found.notes)


def test_lag_and_share_from_columns_are_those_of_the_doses_own_record(study):
    found = study("""
ID,TIME,DV,AMT,EVID,CMT,II,ADDL,f_iv,lag_iv
1,0,.,100,1,2,10,1,0.5,0.041666666666666664
1,5,3,.,0,2,.,.,1.0,0
1,14,3,.,0,2,.,.,1.0,0
""")
    e = lambda hours: np.exp(-K * hours)  # noqa: E731
    assert predicted(found)[1:] == pytest.approx([50 * e(4), 50 * (e(13) + e(3))], rel=1e-6)


def test_dates_become_days_whatever_the_clocks_do(study):
    rows = "ID,DATE,TIME,DV,AMT,CMT\n1,2024-03-30,20:00,.,100,2\n1,2024-03-31,8:00,3,.,2\n"
    found = study(rows, 'time_zone = "Europe/Vienna"\n')
    # the night in which summer time began has eleven hours
    assert found.samples[1].day == pytest.approx(11 / 24)
    zoned = study("ID,TIME,DV,AMT,CMT\n1,2024-03-30T20:00+01:00,.,100,2\n"
                  "1,2024-03-31T08:00+02:00,3,.,2\n")  # fmt: skip
    assert zoned.samples[1].day == pytest.approx(11 / 24)


def test_units_of_the_map_and_of_columns(study):
    days = study("ID,TIME,DV,AMT,RATE,CMT\n1,0,.,0.1,0.2,2\n1,1,2000,.,.,2\n", """
time_unit = "days"
amount_unit = "g"
[observables]
2 = { name = "c_central", unit = "ug/L" }
""")  # fmt: skip
    (patient,) = days
    assert patient.observations.observations[0].value == pytest.approx(2.0)
    assert patient.scenario.doses.doses[0].rate == pytest.approx(0.2 / 24)
    assert not any("hours" in note for note in days.notes)
    after = 200 / (K * 24) * (1 - np.exp(-K * 12)) * np.exp(-K * 12)
    assert predicted(days)[1] == pytest.approx(after, rel=1e-6)
    column = study("ID,TIME,DV,AMT,CMT,AMTUNIT,DVUNIT\n1,0,.,0.1,2,g,\n1,1,2000,.,2,,ng/mL\n")
    assert column.patients[0].observations.observations[0].value == pytest.approx(2.0)
    assert predicted(column)[0] == pytest.approx(100)


@pytest.mark.parametrize(
    ("head", "row", "kind", "value"),
    [
        ("CENS,LIMIT", "0.5,1,.", "below", 0.5),
        ("CENS,LIMIT", "0.5,1,0", "below", 0.5),
        ("CENS,LLOQ", ".,1,0.4", "below", 0.4),
        ("CENS,LIMIT", "9,-1,.", "above", 9.0),
        ("BLQ,LLOQ", ".,1,0.3", "below", 0.3),
        ("BLQ,LLOQ", "2,0,0.3", "value", 2.0),
        ("SKIP,LLOQ", "0.1,0,0.3", "below", 0.3),
        ("SKIP,LLOQ", "<0.5,0,.", "below", 0.5),
        ("CENS,LIMIT", "> 9,.,.", "above", 9.0),
        ("CENS,LIMIT", ">=9,-1,.", "above", 9.0),
        ("BLQ,LLOQ", "<0.5,1,.", "below", 0.5),
        ("BLQ,LLOQ", ">9,0,0.3", "above", 9.0),
    ],
)
def test_censoring(study, head, row, kind, value):
    found = study(f"ID,TIME,AMT,CMT,DV,{head}\n1,0,100,2,.,.,.\n1,1,.,2,{row}\n")
    (observation,) = found.patients[0].observations
    assert (observation.kind, observation.value) == (kind, value)


def test_observables_by_dvid_and_by_name(study):
    found = study("""
ID,TIME,DV,AMT,CMT,DVID
1,0,.,100,2,.
1,1,3,.,.,1
1,1,2,.,.,c_peripheral
""", '[observables]\n1 = "c_central"\n', model=TWO)  # fmt: skip
    assert [o.observable for o in found.patients[0].observations] == ["c_central", "c_peripheral"]


def test_compartments_by_name_and_by_map(study):
    rows = "ID,TIME,AMT,CMT,DV\n1,0,1,{},.\n1,1,.,.,3\n"
    for cmt, words, drug in (
        ("oral", None, "oral"), ("CENTRAL", None, "CENTRAL"), ("1.0", None, "oral"),
        ("5", '[drugs]\n5 = "iv"\n', "iv"), (".", 'drug = "oral"\n', "oral"),
    ):  # fmt: skip
        found = study(rows.format(cmt), words)
        assert found.patients[0].scenario.doses.drugs == (drug,)


def test_modelled_duration_and_rate_belong_to_the_drug(study):
    found = study("ID,TIME,DV,AMT,RATE,CMT\n1,0,.,60,-2,2\n1,0,.,60,-1,2\n1,9,3,.,.,2\n")
    assert [d.modelled for d in found.patients[0].scenario.doses] == ["duration", "rate"]


def test_every_column_is_used_or_named(study):
    found = study(
        "C,ID,TIME,DV,AMT,CMT,AGE,COMMENT\n.,1,0,.,100,2,50,first\nC,1,1,8,.,2,50,\n"
        ".,1,1,3,.,2,50,\n", 'ignore = ["COMMENT"]\n',
    )  # fmt: skip
    assert "column AGE is not used" in found.notes
    assert "rows marked in column C are excluded: 1" in found.notes
    assert not any("COMMENT" in note for note in found.notes)
    assert [o.value for o in found.patients[0].observations] == [3]


def test_patients_with_one_observation_or_none_are_kept_and_named(study):
    found = study("ID,TIME,DV,AMT,CMT\n1,0,.,5,2\n2,0,.,5,2\n2,4,1,.,2\n3,0,.,5,2\n4,2,.,5,2\n")
    assert [len(p.observations) for p in found] == [0, 1, 0, 0]
    notes = "\n".join(found.notes)
    assert "subjects 1, 3, 4: no observation: only the prior is informative" in notes
    assert "subject 2: a single observation" in notes
    assert "subject 4: day 0 is the first record, at TIME 2" in notes


# --- what is wrong with one -----------------------------------------------------------------------

DOSE = "1,0,.,100,0,1,2,0,0,0"
HEAD = "ID,TIME,DV,AMT,RATE,EVID,CMT,II,ADDL,SS"
BAD = {
    "time goes back": (
        f"{HEAD}\n{DOSE}\n1,5,3,.,.,0,2,.,.,.\n1,3,3,.,.,0,2,.,.,.",
        "row 4, column TIME: 3 is before the record above (row 3)"),
    "subjects interleaved": (
        f"{HEAD}\n{DOSE}\n2{DOSE[1:]}\n1,5,3,.,.,0,2,.,.,.",
        "row 4, column ID: subject 1 reappears; its records up to row 2 are not contig"),
    "event": (f"{HEAD}\n1,0,.,100,0,5,2,0,0,0", "row 2, column EVID: 5 is none of 0 (observation)"),
    "rate without amount": (
        f"{HEAD}\n1,0,.,0,10,1,2,0,0,0", "row 2, column AMT: RATE = 10 with AMT = 0 is no dose"),
    "dose of nothing": (f"{HEAD}\n1,0,.,.,.,1,2,0,0,0", "column AMT: a dose with AMT = 0"),
    "no such rate": (f"{HEAD}\n1,0,.,5,-3,1,2,0,0,0", "column RATE: -3 is none of 0"),
    "negative amount": (f"{HEAD}\n1,0,.,-5,0,1,2,0,0,0", "column AMT: -5"),
    "additional without interval": (
        f"{HEAD}\n1,0,.,100,0,1,2,0,3,0", "row 2, column II: ADDL = 3 needs II"),
    "interval without additional": (
        f"{HEAD}\n1,0,.,100,0,1,2,12,0,0", "column II: 12 is a time between doses, but ADDL"),
    "steady without interval": (f"{HEAD}\n1,0,.,100,0,1,2,0,0,1", "column II: SS = 1 needs II"),
    "constant with interval": (
        f"{HEAD}\n1,0,.,0,10,1,2,12,0,1", "a constant infusion (SS, AMT = 0) has neither II"),
    "constant without rate": (f"{HEAD}\n1,0,.,0,0,1,2,0,0,1", "it needs a RATE above 0"),
    "no such steady state": (f"{HEAD}\n1,0,.,9,0,1,2,12,0,3", "column SS: 3 is none of 0, 1, 2"),
    "amount on an observation": (
        f"{HEAD}\n1,0,3,100,0,0,2,0,0,0", "column AMT: EVID = 0 is an observation, but AMT = 100"),
    "compartment off": (f"{HEAD}\n1,0,.,.,.,2,-2,.,.,.", "column CMT: -2 turns a compartment off"),
    "no such compartment": (f"{HEAD}\n1,0,.,5,0,1,9,.,.,.", "9, but the model has 2 compartments"),
    "no number": (f"{HEAD}\n1,0,.,five,0,1,2,.,.,.", "row 2, column AMT: 'five' is not a number"),
    "below nothing": (
        "ID,TIME,AMT,CMT,DV,CENS\n1,0,5,2,.,.\n1,1,.,2,.,1",
        "row 3, column CENS: CENS = 1, but no limit"),
    "below without limit": (
        "ID,TIME,AMT,CMT,DV,BLQ\n1,0,5,2,.,.\n1,1,.,2,.,1",
        "column BLQ: BLQ = 1, but no limit: fill in LLOQ"),
    "interval": (
        "ID,TIME,AMT,CMT,DV,CENS,LIMIT\n1,0,5,2,.,.,.\n1,1,.,2,3,1,1",
        "column LIMIT: 1 makes it interval censored"),
    "contradiction": (
        "ID,TIME,AMT,CMT,DV,BLQ,LLOQ\n1,0,5,2,.,.,.\n1,1,.,2,0.1,0,0.5",
        "column DV: 0.1 is below LLOQ 0.5, but BLQ is 0"),
    "no drug": ("ID,TIME,AMT,DV\n1,0,5,.", 'no drug given; write drug = "oral"'),
    "no zone": (
        "ID,TIME,AMT,CMT,DV\n1,2024-03-11T08:00,5,2,.",
        "row 2, column TIME: '2024-03-11T08:00' has no time zone"),
    "date without zone": (
        "ID,DATE,TIME,AMT,CMT,DV\n1,2024-03-11,8:00,5,2,.", "'2024-03-11T08:00' has no time zone"),
    "clock without date": ("ID,TIME,AMT,CMT,DV\n1,8:00,5,2,.", "'8:00' is a time of day; it needs"),
    "half dated": (
        "ID,TIME,AMT,CMT,DV\n1,0,5,2,.\n1,2024-03-11T08:00Z,.,2,3", "a date in one record and a"),
    "misspelt column": ("ID,TIME,AMT,CMT,DV,ADLL\n1,0,5,2,.,3", "unknown column 'ADLL': did you"),
    "infusion time of nothing": (
        "ID,TIME,AMT,CMT,RATE,SS,DV,TINF\n1,0,.,2,5,1,.,3", "column TINF: an infusion time needs"),
    "infusion time and rate": (
        "ID,TIME,AMT,RATE,CMT,DV,DUR\n1,0,5,5,2,.,3", "column DUR (TINF): 3 is not AMT/RATE = 1"),
    "infusion time of a sample": (
        "ID,TIME,AMT,CMT,DV,TINF\n1,0,5,2,.,1\n1,1,.,2,3,1", "column TINF: "),
    "bolus of rxode2 elsewhere": (
        "ID,TIME,AMT,EVID,CMT,DV\n1,0,5,101,2,.", "101 is a bolus into compartment 1 in rxode2"),
    "other event of rxode2": ("ID,TIME,AMT,EVID,CMT,DV\n1,0,5,5,2,.", "5 is none of 0 (obs"),
    "no time": ("ID,AMT,CMT,DV\n1,5,2,.", "row 1: there is no column TIME; the columns are ID"),
    "blanks": ("ID TIME AMT\n1 0 5", "row 1: columns are separated by blanks; save the file with"),
    "below in DV": (
        "ID,TIME,AMT,CMT,DV,CENS\n1,0,5,2,.,.\n1,1,.,2,<0.5,0",
        "column CENS: is 0, but DV is below a limit, <0.5; write 1, or the number alone in DV"),
    "above in DV": (
        "ID,TIME,AMT,CMT,DV,BLQ\n1,0,5,2,.,.\n1,1,.,2,>9,1",
        "column BLQ: is 1, but DV is above a limit, >9; write 0, or the number alone in DV"),
    "a word below in DV": (
        "ID,TIME,AMT,CMT,DV\n1,0,5,2,.\n1,1,.,2,<LOQ",
        "column DV: '<LOQ' is not a number; write the limit as a number: <4.2"),
    "commas and points": (
        "ID;TIME;AMT;CMT;DV\n1;0;5,5;2;.\n1;1.5;.;2;3",
        "row 2: '5,5' has a comma, and '1.5' in row 3 a point"),
    "points or thousands": (
        "ID;TIME;AMT;CMT;DV\n1;0;5;2;.\n1;1;.;2;21.033", "row 3: '21.033' may be a decimal number"),
    "commas or thousands": (
        "ID\tTIME\tAMT\tCMT\tDV\n1\t0\t3,000\t2\t.", "row 2: '3,000' may be a decimal number"),
    "covariate of one missing": (
        "ID,TIME,AMT,CMT,DV,cl\n1,0,5,2,.,70\n2,0,5,2,.,.",
        "row 3, column cl: subject 2 has no cl"),
    "covariate late": (
        "ID,TIME,AMT,CMT,DV,cl\n1,0,5,2,.,.\n1,3,.,2,3,70",
        "row 3, column cl: is the first value of cl for subject 1"),
    "covariate is text": ("ID,TIME,AMT,CMT,DV,cl\n1,0,5,2,.,low", "column cl: 'low' is not a num"),
    "nothing left": ("C,ID,TIME,AMT,CMT,DV\nC,1,0,5,2,.", "every row is marked in column C"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_named_with_its_place(study, case):
    rows, words = BAD[case]
    with pytest.raises(FileError, match=re.escape(words)) as raised:
        study(rows)
    assert "study.csv" in str(raised.value)


def test_a_number_without_an_observable(study):
    rows = "ID,TIME,AMT,CMT,DV\n1,0,5,2,.\n1,1,.,2,3"
    with pytest.raises(FileError, match=r"row 3, column CMT: DV without an observable; write 2 ="):
        study(rows, model=TWO)
    unnumbered = "ID,TIME,AMT,DV\n1,0,5,.\n1,1,.,3"
    said = r'row 3, column CMT: DV without an observable; write observable = "c_central" in the map'
    with pytest.raises(FileError, match=said):
        study(unnumbered, 'drug = "iv"\n', model=TWO)
    found = study(unnumbered, 'drug = "iv"\nobservable = "c_central"\n', model=TWO)
    assert [o.observable for o in found.patients[0].observations] == ["c_central"]
    rows = "ID,TIME,AMT,CMT,DV,DVID\n1,0,5,2,.,.\n1,1,.,2,3,7"
    with pytest.raises(FileError, match=r"column DVID: DV without an observable; write 7 ="):
        study(rows)
    rows = rows.replace(",3,7", ",3,c_centrla")
    with pytest.raises(UnknownNameError, match=r"row 3, column DVID: .* did you mean 'c_central'"):
        study(rows)


def test_two_numbers_are_not_taken_for_one_observable(study):
    """Levels of a drug and of its metabolite must not be fitted as one curve."""
    two = "ID,TIME,AMT,CMT,DV\n1,0,5,2,.\n1,1,.,2,3\n1,1,.,1,9"
    with pytest.raises(FileError, match=r"row 4, column CMT: is 1, and 2 in row 3; it is amb"):
        study(two)
    with pytest.raises(FileError, match=r"whether both are CENTRAL; write 2 = \"CENTRAL\" and 1"):
        study(two, 'observable = "CENTRAL"\n')
    found = study(two, '[observables]\n2 = "c_central"\n1 = "DEPOT"\n')
    assert [o.observable for o in found.patients[0].observations] == ["c_central", "DEPOT"]
    one = "ID,TIME,AMT,CMT,DV,DVID\n1,0,5,2,.,.\n1,1,.,2,3,1\n1,1,.,2,9,2"
    with pytest.raises(FileError, match=r"row 3, column DVID: DV without an observable; write 1 ="):
        study(one, 'observable = "c_central"\n')
    alone = study("ID,TIME,AMT,CMT,DV\n1,0,5,2,.\n1,1,.,1,3")
    said = "observations of CMT 1 are taken as c_central; the map can override this"
    assert said in alone.notes


def test_an_id_written_in_two_ways_is_refused(study):
    with pytest.raises(FileError, match=r"row 3, column ID: 7.0 is the same number as 7 \(row 2\)"):
        study("ID,TIME,AMT,CMT,DV\n7,0,5,2,.\n7.0,1,.,2,3")


def test_a_dv_that_mdv_takes_out_is_noted(study):
    found = study("ID,TIME,AMT,EVID,MDV,CMT,DV\n1,0,5,1,1,2,.\n1,1,.,0,1,2,9\n1,2,.,0,0,2,3")
    assert [o.value for o in found.patients[0].observations] == [3]
    assert "DV is not used where MDV is 1" in found.notes


@pytest.mark.parametrize("column", ["DVUNIT", "AMTUNIT"])
def test_a_unit_that_disagrees_with_the_model(study, column):
    rows = f"ID,TIME,AMT,CMT,DV,{column}\n1,0,5,2,.,L\n1,1,.,2,3,L"
    with pytest.raises(UnitError, match=rf"study.csv, row \d, column {column}: 'L' cannot be conv"):
        study(rows)


def test_a_drug_two_of_which_enter_a_compartment(study):
    model = small("two", {"A": ("0", "-A")}, {}, {"c": "A"},
                  (Drug("pill", "A", "mg"), Drug("drip", "A", "mg")))  # fmt: skip
    with pytest.raises(FileError, match="1 is A, which pill and drip enter; write 1 ="):
        study("ID,TIME,AMT,CMT,DV\n1,0,5,1,.", model=model)
    with pytest.raises(FileError, match="RATE = -2 takes the duration from the model, but pill"):
        study("ID,TIME,AMT,RATE,CMT,DV\n1,0,5,-2,pill,.", model=model)
    with pytest.raises(UnknownNameError, match="unknown drug 'pil': did you mean 'pill'"):
        study("ID,TIME,AMT,CMT,DV\n1,0,5,pil,.", model=model)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ('[columns]\nDV = "CONC"\n', "unknown column 'CONC'"),
        ('[columns]\nDVV = "DV"\n', "'DVV' is not a standard name"),
        ('[covariates]\nclearance = "DV"\n', "unknown parameter 'clearance'"),
        ('time_unit = "weeks"\n', "weeks"),
        ('timeunit = "days"\n', "unknown key 'timeunit': did you mean 'time_unit'"),
    ],
)
def test_a_map_that_is_wrong(study, words, said):
    with pytest.raises(CrsSimError, match=said):
        study("ID,TIME,AMT,CMT,DV\n1,0,5,2,.\n1,1,.,2,3", words)


def test_a_renamed_column_is_named_as_it_stands_in_the_file(study):
    with pytest.raises(FileError, match=r"column CONC \(DV\): 'low' is not a number"):
        study("ID,TIME,AMT,CMT,CONC\n1,0,5,2,.\n1,1,.,2,low", '[columns]\nDV = "CONC"\n')


# --- what people have -----------------------------------------------------------------------------

ROWS = ("ID,TIME,AMT,CMT,DV", "1,0,5.5,2,.", "1,1.5,.,2,0.25")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("decimal", [".", ","])
@pytest.mark.parametrize("head", ["", "#", "# ", "# made by hand\n#"])
def test_headers_and_separators(study, separator, decimal, head):
    if separator == decimal:
        return
    rows = [row.replace(",", separator).replace(".", decimal) for row in ROWS]
    rows[1] = rows[1][:-1] + "."
    rows[2] = rows[2].replace(f"{separator}{decimal}{separator}", f"{separator}.{separator}")
    found = study(head + "\n".join(rows))
    assert [d.amount for d in found.patients[0].scenario.doses] == [5.5]
    assert [(o.day, o.value) for o in found.patients[0].observations] == [(1.5 / 24, 0.25)]


def test_infusion_times(study):
    """TINF or DUR, with or without RATE = -2; a share scales the amount, not the time."""
    e = np.exp(-K)
    for head, cell in (("TINF", "2,."), ("DUR", "2,0"), ("tinf", "2,-2"), ("TINF", "2,50")):
        rows = f"ID,TIME,AMT,CMT,DV,{head},RATE\n1,0,100,2,.,{cell}\n1,3,.,2,3,.,.\n"
        assert predicted(study(rows))[1] == pytest.approx(50 / K * (1 - e**2) * e, rel=1e-6)
    rows = "ID,TIME,AMT,CMT,DV,TINF,f_iv\n1,0,100,2,.,0.125,0.5\n1,0.5,.,2,3,.,0.5\n"
    (dose,) = study(rows, 'time_unit = "days"\n').patients[0].scenario.doses
    assert dose.hours == 3.0


def test_rxode2_boluses(study):
    rows = "ID,TIME,AMT,EVID,CMT,DV\n1,0,100,{},{},.\n1,1,.,0,2,3\n"
    for event, cmt, drug in ((101, 1, "oral"), (201, 2, "iv"), (201, ".", "iv")):
        (patient,) = study(rows.format(event, cmt))
        assert patient.scenario.doses.drugs == (drug,)


@pytest.mark.parametrize("name", ["RACE", "DATA", "SEX", "AGE", "RATIO", "SITE", "OCC", "DAY"])
def test_ordinary_columns_are_not_taken_for_misspelt_ones(study, name):
    found = study(f"ID,TIME,AMT,CMT,DV,{name}\n1,0,5,2,.,1\n1,1,.,2,3,1")
    assert f"column {name} is not used" in found.notes


def test_codes_of_missing_values_are_those_of_the_map_alone(study):
    rows = "ID,TIME,AMT,CMT,DV,v,AGE\n1,0,100,2,.,30,99\n1,99,.,2,99,99,.\n1,100,.,2,9,-99.0,.\n"
    with_code = study(rows, "[missing]\nv = [99, -99]\n")
    assert dict(with_code.patients[0].scenario.values) == {"v": 30}
    assert with_code.patients[0].scenario.changes == ()
    assert [o.value for o in with_code.patients[0].observations] == [99, 9]
    without = study(rows.replace("-99.0", "98"))
    assert [c.value for c in without.patients[0].scenario.changes] == [99, 98]
    with pytest.raises(UnknownNameError, match=r"\[missing\] VV: unknown column 'VV'"):
        study(rows, "[missing]\nVV = [99]\n")


TWO_ANALYTES = """
ID,TIME,AMT,DVID,DV,MDV
1,0,100,0,.,1
1,0,.,2,90,0
1,2,.,1,2.0,0
1,24,.,2,44,0
"""


@pytest.mark.parametrize("left", ["2", '"2"', '"2.0"'])
def test_an_analyte_that_the_map_leaves_out(study, left):
    found = study(
        TWO_ANALYTES,
        f"""
drug = "oral"
leave_out = [{left}]
[observables]
1 = "c_central"
""",
    )
    assert [(o.row, o.value) for o in found.patients[0].observations] == [(4, 2.0)]
    assert [s.observable for s in found.samples] == ["", "", "c_central", ""]
    assert "DV of DVID 2 is left out, as the map says" in found.notes


def test_no_second_analyte_is_advised_to_be_the_first(study):
    with pytest.raises(FileError, match="DVID 2 is not in the map: leave_out") as raised:
        study(TWO_ANALYTES, 'drug = "oral"\n[observables]\n1 = "c_central"\n')
    assert "c_central" not in str(raised.value)
    with pytest.raises(FileError) as raised:
        study(TWO_ANALYTES, 'drug = "oral"\nobservable = "c_central"\n')
    assert '2 = "c_central"' not in str(raised.value)
    said = 'write 2 = "..." under [observables] in the map if it is one of c_central; leave_out'
    assert said in str(raised.value)
    found = study(TWO_ANALYTES, 'drug = "oral"\nignore = ["DVID"]\n')
    assert "column DVID is ignored, so that every DV is taken as c_central" in found.notes
    found = study("ID,TIME,AMT,CMT,DV\n1,0,5,2,.\n1,1,.,2,3\n1,1,.,3,9", "leave_out = [3]\n")
    assert [o.value for o in found.patients[0].observations] == [3]


def test_a_level_of_zero_is_predicted_and_not_fitted(study):
    for dv in ("0", "-0.1"):
        found = study(f"ID,TIME,AMT,CMT,DV\n7,0,100,2,.\n7,1,.,2,{dv}\n7,2,.,2,2\n")
        assert predicted(found)[1] == pytest.approx(100 * np.exp(-K), rel=1e-6)
        assert "DV of 0 or below is predicted and cannot be fitted" in found.notes
        with pytest.raises(FileError, match=rf"row 3, column DV: {dv} has no logarithm"):
            subjects_with_observations(found)
        with pytest.raises(FileError, match=r"row 3, column DV"):
            subject_of(found.path, ONE)
    other = study("ID,TIME,AMT,CMT,DV\n7,0,9,2,.\n7,1,.,2,0\n8,0,9,2,.\n8,1,.,2,2\n")
    assert [p.id for p in subjects_with_observations(other, "8")] == ["8"]


def test_the_time_unit_reaches_lags_durations_and_rates_of_columns(study):
    """Each from a column of another name, and from one of its own."""
    model = ONE.with_values(cl=0)  # nothing is lost: the level is what has arrived
    rows = "ID,TIME,AMT,RATE,CMT,DV,{}\n1,0,120,{},2,.,{}\n1,3,.,.,2,3,{}\n"
    cases = [("lag_iv", 0, 4, 0), ("d_iv", -2, 6, 60), ("r_iv", -1, 10, 30)]
    for parameter, rate, value, expected in cases:
        for unit, factor in (("hours", 1), ("days", 1 / 24)):
            scaled = value / factor if rate == -1 else value * factor
            mapped = rows.replace("1,3,", f"1,{3 * factor!r},")
            mapped = mapped.format("COL", rate, repr(scaled), repr(scaled))
            words = f'time_unit = "{unit}"\n[covariates]\n{parameter} = "COL"\n'
            found = study(mapped, words)
            assert predicted(found, model)[1] == pytest.approx(expected, rel=1e-6, abs=1e-9)
            assert any(note.startswith("units of covariates: COL (") for note in found.notes)
            named = mapped.replace("COL", parameter)
            found = study(named, f'time_unit = "{unit}"\n')
            assert predicted(found, model)[1] == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_a_unit_for_each_mapped_column(study):
    found = study(
        "ID,TIME,AMT,CMT,DV,LAG,CLH\n1,0,100,2,.,90,3\n1,3,.,2,3,90,3\n",
        '[covariates]\nlag_iv = { column = "LAG", unit = "min" }\n'
        'cl = { column = "CLH", unit = "L/h" }\n',
    )
    assert dict(found.patients[0].scenario.values) == pytest.approx({"lag_iv": 1.5 / 24, "cl": 72})
    assert any("LAG (min), CLH (L/h)" in note for note in found.notes)
    with pytest.raises(UnitError, match=r"column LAG \(lag_iv\): 'mg' cannot be converted"):
        study("ID,TIME,AMT,CMT,DV,LAG\n1,0,9,2,.,90\n",
              '[covariates]\nlag_iv = { column = "LAG", unit = "mg" }\n')  # fmt: skip


def test_mistakes_are_reported_together(study):
    with pytest.raises(FileError) as raised:
        study("ID,TIME,AMT,EVID,CMT,DV,v,ADLL\n1,0,five,1,2,x,30,1\n1,2,.,0,2,3,30,.\n"
              "1,1,.,0,2,3,30,.\n2,0,5,9,2,.,30,1\n3,0,5,1,9,.,30,1\n3,1,5,1,9,.,30,1\n"
              "4,0,5,1,2,.,.,1\n1,4,.,0,2,.,30,.\n")  # fmt: skip
    said = str(raised.value)
    for words in (
        "8 mistakes:", "unknown column 'ADLL'", "row 2, column AMT: 'five'",
        "row 2, column DV: 'x'", "row 4, column TIME: 1 is before", "row 5, column EVID: 9 is none",
        "row 6, column CMT: 9, but the model has 2 compartments (also in row 7)",
        "row 8, column v: subject 4 has no v", "row 9, column ID: subject 1 reappears",
    ):  # fmt: skip
        assert words in said


def test_notes_name_subjects_only_where_they_are_about_subjects(study):
    rows = "".join(f"{k},0,5,2,.,1\n{k},1,.,2,.,1\n" for k in range(1, 8))
    found = study(f"ID,TIME,AMT,CMT,DV,A|B\n{rows}")
    assert "records without DV are predicted and not fitted" in found.notes
    assert "column A|B is not used" in found.notes
    assert ("subjects 1, 2, 3, 4, 5 and 2 more: no observation: only the prior is informative"
            in found.notes)  # fmt: skip
    assert len(found.notes) == len(set(found.notes))


# --- the command line -----------------------------------------------------------------------------


def run(*words):
    return CliRunner().invoke(cli, ["simulate", *map(str, words)])


def test_simulate_runs_a_study(tmp_path):
    (tmp_path / "study.csv").write_text("ID,TIME,DV,AMT,CMT\nA,0,.,100,2\nA,2,2.5,.,2\n")
    out = tmp_path / "out.csv"
    shown = run("--data", tmp_path / "study.csv", "--model", "one_compartment")
    assert shown.exit_code == 0, shown.output
    assert "c_central" in shown.output and "2.729" in shown.output
    assert "1 subjects, 2 records" in shown.output
    assert "Note: TIME, II and RATE are taken in hours" in shown.stderr
    done = run("--data", tmp_path / "study.csv", "--model", "one_compartment", "--out", out,
               "--set", "cl=0")  # fmt: skip
    assert done.exit_code == 0, done.output
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["ID"], r["row"], r["TIME"]) for r in rows] == [("A", "2", "0"), ("A", "3", "2")]
    assert float(rows[1]["predicted"]) == pytest.approx(100 / 30)
    assert (tmp_path / "out.csv.meta.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "s.csv"], "takes a PATIENT, or --data STUDY.csv with --model"),
        (["--data", "s.csv", "--model", "crs", "--until", "3"], "--until  does not apply with"),
        (["nobody", "--data", "s.csv", "--model", "crs"], "takes a PATIENT, or --data"),
        ([], "takes a PATIENT, or --data"),
        (["s.csv"], "s.csv  is a table: a NONMEM or Monolix data set is given as --data s.csv"),
    ],
)
def test_what_does_not_go_with_a_study_is_refused(words, said):
    result = run(*words)
    assert result.exit_code == 1
    assert said in result.stderr


def test_a_subject_that_fails_is_told_and_the_others_are_kept(study):
    model = small("fragile", {"A": ("0", "k*A^2")}, {"k": 0.0}, {"c": "A"})
    rows = ("ID,TIME,DV,AMT,CMT,k\n1,0,.,1,A,-1\n1,24,1,.,c,-1\n"
            "2,0,.,1,A,5\n2,24,1,.,c,5\n3,0,.,1,A,0\n3,24,1,.,c,0\n")  # fmt: skip
    ran = run_study(model, study(rows, '[observables]\nc = "c"\n', model=model))
    assert list(ran.failures) == ["2"]
    assert "the run failed on day" in ran.failures["2"]
    table = ran.table.set_index(["ID", "TIME"])["predicted"]
    assert table["1", "24"] == pytest.approx(0.5, rel=1e-5)
    assert np.isnan(table["2", "24"])
    assert table["3", "24"] == pytest.approx(1.0)


def test_a_covariate_without_sense_is_refused_at_its_cell(tmp_path):
    path = tmp_path / "study.csv"
    path.write_text("ID,TIME,AMT,CMT,EVID,DV,v\n1,0,100,2,1,.,30\n1,1,.,2,0,1,-5\n")
    with pytest.raises(CrsSimError, match=r"study.csv, row 3, column v:  v = -5 is outside 0 to"):
        read_nonmem(path, load_model("one_compartment"))


HEADER_ADDL = "ID,TIME,EVID,AMT,CMT,II,ADDL,DV,"


def sampled_at(tmp_path, rows, column, map_text=""):
    (tmp_path / "study.csv").write_text("\n".join([HEADER_ADDL + column, *rows]))
    (tmp_path / "map.toml").write_text('time_unit = "hours"\n' + map_text)
    model = load_model("one_compartment")
    study = read_nonmem(tmp_path / "study.csv", model, columns=tmp_path / "map.toml")
    return run_study(model, study, rtol=1e-9).table["c_central"].to_numpy()


@pytest.mark.parametrize("before", ["1,0,0,.,2,.,.,.,30", "1,0,0,.,2,.,.,.,60", ""])
def test_a_sample_at_an_additional_dose_is_after_it_whatever_came_before_the_first(
    before, tmp_path
):
    rows = ["1,0,1,100,2,6,3,.,60", "1,6,0,.,2,.,.,.,60", "1,12,0,.,2,.,.,.,60"]
    found = sampled_at(tmp_path, [before, *rows] if before else rows, "v")
    left = math.exp(-72 / 60 / 4)
    right = [100 * (1 + left) / 60, 100 * (1 + left + left**2) / 60]
    assert found[-2:] == pytest.approx(right, rel=1e-6)


def test_so_is_one_after_a_dose_between_two_samples_of_the_same_time(tmp_path):
    rows = ["1,0,1,10,2,.,.,.,60", "1,0,0,.,2,.,.,5,60", "1,0,1,100,2,6,3,.,60",
            "1,6,0,.,2,.,.,5,60", "1,6.001,0,.,2,.,.,5,60"]  # fmt: skip
    left = math.exp(-72 / 60 / 4)
    assert sampled_at(tmp_path, rows, "v")[-2] == pytest.approx((110 * left + 100) / 60, rel=1e-6)


@pytest.mark.parametrize(("order", "level"), [("before samples", 100 / 30), ("after samples", 0)])
def test_an_additional_dose_that_is_still_in_its_lag_moves_no_sample(order, level, tmp_path):
    rows = ["1,0,1,100,2,6,1,.,6", "1,6,0,.,2,.,.,.,6", "1,7,0,.,2,.,.,.,6"]
    found = sampled_at(tmp_path, rows, "lag_iv", f'lagged_doses = "{order}"\n')
    assert found[1] == pytest.approx(level, rel=1e-6, abs=1e-9)
    assert found[2] == pytest.approx(100 / 30 * math.exp(-72 / 30 / 24), rel=1e-6)
