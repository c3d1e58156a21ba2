"""Several assays of one observable, each with its own error, from the files to what is reported."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, replace
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from small_fits import DECAY, asked, free, seen
from tiny_case import write_case

from crs_sim.errors import CrsSimError, InputError
from crs_sim.exchange.petab_export import petab_files
from crs_sim.figures.prediction_plots import plot_predictions
from crs_sim.fitting.diagnostics import verdict
from crs_sim.fitting.fitting import fit
from crs_sim.fitting.noise import Noise, Spread
from crs_sim.fitting.objective import Objective, noise_record, point_of
from crs_sim.fitting.priors import Population, load_population
from crs_sim.fitting.problem import estimated_noise, load_problem
from crs_sim.model.model_file import load_model
from crs_sim.patients.nonmem import read_nonmem
from crs_sim.uncertainty.posterior import problem_hash
from crs_sim.uncertainty.predictions import predict

ELISA = Spread(0.1, "made up", observable="A")
BEADS = Spread(0.4, "made up", observable="A")
NOISE = Noise({"A": Spread(0.2, "made up"), "elisa": ELISA, "beads": BEADS})
DAYS = np.linspace(0.0, 6.0, 12)


def readings(assays=("", "elisa", "beads"), seed=5):
    """Synthetic readings of A by several assays, with the errors of `NOISE`."""
    rng, made = np.random.default_rng(seed), []
    for assay in assays:
        sd = NOISE.spreads[assay or "A"].sd
        values = 10 * np.exp(-0.5 * DAYS + sd * rng.standard_normal(len(DAYS)))
        made += [replace(seen(f"{assay}{k}", "A", float(day), float(value)), assay=assay)
                 for k, (day, value) in enumerate(zip(DAYS, values, strict=True))]  # fmt: skip
    return tuple(made)


def question(noise=NOISE, observations=None):
    observations = readings() if observations is None else observations
    plain = asked(free("a0", 9.0, 30.0), free("k", 0.4, 30.0), observations=observations,
                  noise=noise)  # fmt: skip
    model, more = estimated_noise(DECAY, plain.noise, plain.patient)
    return replace(plain, model=model, free=(*plain.free, *more))


def estimated(*names):
    spreads = {n: replace(s, sd=0.2, estimate=n in names) for n, s in NOISE.spreads.items()}
    return question(Noise(spreads))


def test_each_reading_has_the_error_of_its_assay():
    problem, values = question(), {"a0": 9.0, "k": 0.45}
    squares = Objective(problem).residuals(point_of(problem, values)) ** 2
    for o, square in zip(problem.patient.observations, squares, strict=False):
        sd = {"": 0.2, "elisa": 0.1, "beads": 0.4}[o.assay]
        z = (math.log(o.value) - math.log(9.0) + 0.45 * o.day) / sd
        assert square == pytest.approx(z**2, rel=1e-5, abs=1e-8)
        assert norm.logpdf(z) == pytest.approx(-0.5 * square + norm.logpdf(0), rel=1e-5)


def test_the_error_of_each_assay_is_estimated_by_maximum_likelihood():
    problem = estimated("A", "elisa", "beads")
    assert problem.names == ("a0", "k", "sd_A", "sd_elisa", "sd_beads")
    assert problem.of_model == ("a0", "k")
    result = fit(problem, starts=2, workers=1)
    for assay in ("", "elisa", "beads"):
        off = [math.log(o.value) - math.log(result.values["a0"]) + result.values["k"] * o.day
               for o in problem.patient.observations if o.assay == assay]  # fmt: skip
        sd = math.sqrt(np.mean(np.square(off)))  # the maximum of the likelihood, in closed form
        assert result.values[f"sd_{assay or 'A'}"] == pytest.approx(sd, rel=1e-3)
    assert result.noise.spreads["elisa"].sd == result.values["sd_elisa"]
    said = " ".join(verdict(result).statements)
    assert "residual error of elisa" in said and "residual error of beads" in said


def test_one_assay_may_be_estimated_beside_others_that_are_stated():
    problem = estimated("beads")
    assert problem.names == ("a0", "k", "sd_beads")
    assert fit(problem, starts=1, workers=1).values["sd_beads"] == pytest.approx(0.4, rel=0.5)


@pytest.mark.parametrize(
    ("spreads", "assay", "words"),
    [
        ({"A": ELISA}, "elisa", "key noise.elisa: is missing, but first observes A with it; add "
         '[noise.elisa] with observable = "A", sd and source'),
        ({"A": ELISA, "elisa": replace(ELISA, observable="signal")}, "elisa",
         "key noise.elisa: is of signal, but first observes A; correct the assay of first"),
        ({"A": replace(ELISA, observable="")}, "signal", "key noise.signal: is missing"),
        ({"A": ELISA, "x": replace(ELISA, observable="B")}, "", "unknown observable 'B'"),
        ({"A": ELISA, "signal": ELISA}, "", "key noise.signal: signal is an observable; give the "
         "assay of A another name"),
        ({"elisa": ELISA}, "", "key noise.A: is missing, but first observes A; add [noise.A] with"),
    ],
)  # fmt: skip
def test_an_assay_without_its_error_is_refused(spreads, assay, words):
    observations = (replace(seen("first", "A", 1.0, 5.0), assay=assay),)
    with pytest.raises(CrsSimError, match=re.escape(words)):
        asked(free("k", 0.4, 1.0), observations=observations, noise=Noise(spreads))


def test_too_few_readings_of_an_assay_are_not_enough_for_its_error():
    observations = (*readings(("",)), *readings(("elisa",))[:2])
    noise = Noise({"A": Spread(0.2), "elisa": replace(ELISA, estimate=True)})
    with pytest.raises(InputError, match=r"noise.elisa.estimate: p has 2 readings of elisa"):
        question(noise, observations)


def tiny(folder, noise, column="assay", cells=("elisa", "", "", "", "")):
    home = write_case(folder)
    path = home / "data" / "observations.csv"
    head, *rows = path.read_text().splitlines()
    more = [*cells, *[""] * len(rows)]
    lines = [f"{head},{column}", *(f"{row},{cell}" for row, cell in zip(rows, more, strict=False))]
    path.write_text("\n".join(lines) + "\n")
    with (home / "fit" / "problem.toml").open("a") as file:
        file.write(noise)
    return home / "fit"


ENTRY = '[noise.elisa]\nobservable = "amount"\nsd = 0.05\nsource = "made up"\n'


def test_an_assay_is_read_from_the_files(tmp_path):
    problem = load_problem(tiny(tmp_path, ENTRY))
    first, second, *_ = problem.patient.observations
    assert (first.assay, second.assay) == ("elisa", "")
    assert problem.noise.spread(first).sd == 0.05
    assert problem.noise.spread(second).sd == 0.2


@pytest.mark.parametrize(
    ("noise", "cells", "words"),
    [
        ("", ("elisa",), "noise.elisa: is missing, but a1 observes amount with it"),
        (ENTRY.replace("amount", "shock"), ("elisa",), "noise.elisa: is of shock, but a1 observes"),
        (ENTRY, ("the elisa",), "row 2, column assay: 'the elisa' is not a valid name"),
        (ENTRY, ("", "", "", "", "", "", "", "", "elisa"), "column assay: a grade has no assay"),
    ],
)
def test_what_is_wrong_with_an_assay_in_the_files_is_named(tmp_path, noise, cells, words):
    with pytest.raises(CrsSimError, match=re.escape(words)):
        load_problem(tiny(tmp_path, noise, cells=cells))


def test_a_prior_keeps_its_assays(tmp_path):
    people = Population("few", DECAY, (free("k", 0.4, 1.0),), NOISE)
    path = tmp_path / "prior.toml"
    path.write_text(people.toml())
    assert load_population(DECAY, path).noise == NOISE


ROWS = "ID,TIME,AMT,CMT,DV,DVID\n1,0,100,1,.,.\n1,1,.,.,3,1\n1,2,.,.,2.5,2\n1,3,.,.,<0.1,2\n"
MAP = '[observables]\n1 = "c_central"\n2 = "c_central"\n'


def test_a_data_set_names_the_assay_of_a_dvid(tmp_path):
    (tmp_path / "s.csv").write_text(ROWS)
    (tmp_path / "map.toml").write_text(MAP + '[assays]\n2 = "elisa"\n')
    one = load_model("one_compartment")
    (patient,) = read_nonmem(tmp_path / "s.csv", one, columns=tmp_path / "map.toml")
    assert [(o.kind, o.assay) for o in patient.observations] == [
        ("value", ""), ("value", "elisa"), ("below", "elisa")]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [('3 = "elisa"', "3 is not under [observables]"), ('2 = "an elisa"', "is not a valid name")],
)
def test_an_assay_of_nothing_in_the_map(tmp_path, words, said):
    (tmp_path / "s.csv").write_text(ROWS)
    (tmp_path / "map.toml").write_text(f"{MAP}[assays]\n{words}\n")
    with pytest.raises(CrsSimError, match=re.escape(said)):
        read_nonmem(tmp_path / "s.csv", load_model("one_compartment"),
                    columns=tmp_path / "map.toml")  # fmt: skip


def test_bands_of_readings_are_those_of_each_assay():
    result = fit(question(), starts=1, workers=1)
    made = predict(result, draws=40, workers=1)
    assert made.noise_entries("A") == ("A", "elisa", "beads")
    early, readings_of = made.days < 2, {e: made.reading(e) for e in ("A", "elisa", "beads")}
    wide = {e: float(np.mean(np.log(r.high / r.low)[early])) for e, r in readings_of.items()}
    assert wide["elisa"] < wide["A"] < wide["beads"]
    assert wide["beads"] == pytest.approx(2 * 1.96 * 0.4, rel=0.1)
    table = made.table((0.95,))
    assert list(table["assay"].unique()) == ["", "elisa", "beads"]
    rows = table[(table["observable"] == "A") & (table["assay"] == "beads")]
    assert rows["reading_high_95"].to_numpy() == pytest.approx(made.reading("beads").high)
    figure = plot_predictions(made, result.simulation(made.days))
    assert len(figure.axes[0].collections) >= 4


def test_each_measurement_has_the_error_of_its_assay_in_petab():
    files = petab_files(question()).files
    table = pd.read_csv(BytesIO(files["measurements.tsv"]), sep="\t")
    sd = dict(zip(table["observationId"], table["noiseParameters"], strict=True))
    assert (sd["0"], sd["elisa0"], sd["beads0"]) == (0.2, 0.1, 0.4)
    assert set(table["observableId"]) == {"observed_A"}


def test_hashes_on_disk_are_those_of_before_there_were_assays():
    plain = question(Noise({"A": Spread(0.2, "made up")}), readings(("",)))
    assert problem_hash(plain) == "60dca0d29278"
    assert "observable" not in noise_record(plain.noise)["spreads"]["A"]
    assert "assay" not in repr(plain.patient.observations)
    assert asdict(plain.patient.observations["0"])["assay"] == ""
    other = question(Noise({"A": Spread(0.2, "made up"), "elisa": ELISA}), readings(("elisa",)))
    assert "assay='elisa'" in repr(other.patient.observations)
