"""Problems are read strictly and checked before anything runs; one test a mistake."""

import math
import re
import shutil
from dataclasses import replace

import pytest
from paths import ROOT
from small_fits import DECAY, GRADED, LEVELS, NOISE, asked, free, seen

from crs_sim.dosing.scenario import Scenario
from crs_sim.errors import CrsSimError, FileError, InputError, StorageError, UnknownNameError
from crs_sim.fitting.datasets import write_problem
from crs_sim.fitting.local_optimisation import informed
from crs_sim.fitting.noise import GradeScale, Noise, Spread
from crs_sim.fitting.priors import Free
from crs_sim.fitting.problem import load_problem, patient_problem
from crs_sim.patients.patient import load_patient

MODEL = """
model decay
  unit per_day = 1 / 86400 second;
  unit pg_per_mL = 1e-12 gram / 1e-3 litre;
  k = 0.5 per_day;  k is "Loss";  k description "assumption: a test";
  a0 = 10 pg_per_mL;  a0 is "Start";  a0 description "assumption: a test";
  A = a0;  A has pg_per_mL;  A is "Level";  A description "assumption: a test";
  A' = -k*A;
end
"""
OBSERVATIONS = """\
id,observable,kind,day,until,reference,value,unit,sd,note
first,A,value,0,,,0.012,ng/mL,,
second,A,below,3,,,4,pg/mL,,
"""
PROBLEM = """\
name = "decay"
model = "model.ant"
data = "patient"
seed = 3
starts = 2

[free.k]
sd = 0.5
source = "assumption: a test"

[free.a0]
prior = 11
sd = 0.3
lower = 1
upper = 100
source = "assumption: a test"

[noise.A]
sd = 0.2
source = "assumption: a test"

[accept]
first = [10, 14]
"""


@pytest.fixture
def folder(tmp_path):
    patient = tmp_path / "patient"
    patient.mkdir()
    (tmp_path / "model.ant").write_text(MODEL)
    (tmp_path / "problem.toml").write_text(PROBLEM)
    (patient / "patient.toml").write_text('id = "p"\nmodel = "decay"\nuntreated = true\n')
    (patient / "observations.csv").write_text(OBSERVATIONS)
    return tmp_path


def test_a_problem_file_becomes_a_checked_problem(folder):
    problem = load_problem(folder)
    assert problem.names == ("k", "a0")
    assert problem.free[1] == Free("a0", 1.0, 100.0, 11.0, 0.3, "assumption: a test")
    assert problem.free[0].median == 0.5
    assert problem.free[0].lower == pytest.approx(0.5 * math.exp(-2.0))
    assert problem.patient.observations["first"].value == pytest.approx(12.0)
    assert problem.accept == {"first": (10.0, 14.0)}
    assert problem.noise.spreads["A"].sd == 0.2
    assert (problem.seed, problem.starts) == (3, 2)
    assert load_problem(folder / "problem.toml") == problem


BAD_FILES = {
    "misspelt key": ("seed = 3", "sede = 3", "unknown key 'sede': did you mean 'seed'"),
    "misspelt key of a free": ("lower = 1", "lowr = 1", "free.a0.lowr.*did you mean 'lower'"),
    "misspelt parameter": ("free.a0", "free.ao", "unknown parameter 'ao': known are a0, k"),
    "no source": ('upper = 100\nsource = "assumption: a test"', "", "free.a0.source.*missing"),
    "empty source": (
        '[noise.A]\nsd = 0.2\nsource = "assumption: a test"',
        '[noise.A]\nsd = 0.2\nsource = ""',
        "noise.A.source",
    ),
    "negative prior": ("prior = 11", "prior = -11", "free.a0.prior.*must be above 0"),
    "prior outside its bounds": ("prior = 11", "prior = 200", "lower < prior < upper, not 1, 200"),
    "bounds the wrong way": ("upper = 100", "upper = 0.5", "needs 0 < lower < prior < upper"),
    "zero sd": ("sd = 0.3", "sd = 0", "free.a0.sd.*must be above 0, not 0"),
    "text for a number": ("sd = 0.3", 'sd = "0.3"', "free.a0.sd.*must be a number"),
    "model out of bounds": (
        "lower = 1",
        "lower = 10.5",
        "a parameter out of its bounds: the model has a0 = 10, allowed are "
        "10.5 to 100; widen the bounds .lower or upper in the problem's or",
    ),
    "no noise": ("noise.A", "noise.a0", "noise.a0: unknown observable 'a0'"),
    "unknown accept": (
        "first = [10, 14]",
        "frist = [10, 14]",
        "accept.frist: unknown observation 'frist': did you mean 'first'",
    ),
    "accept of three": ("[10, 14]", "[10, 12, 14]", "accept.first: give two numbers"),
    "accept the wrong way": ("[10, 14]", "[14, 10]", "the lowest .14. must be below the highest"),
    "no starts": ("starts = 2", "starts = 0", "starts is at least 1"),
    "misspelt data": ('"patient"', '"pateint"', "pateint"),
    "no TOML": ("[free.k]", "[free.k", "is not TOML"),
}


@pytest.mark.parametrize("mistake", BAD_FILES)
def test_a_bad_file_is_refused_with_place_and_advice(folder, mistake):
    old, new, words = BAD_FILES[mistake]
    assert old in PROBLEM
    (folder / "problem.toml").write_text(PROBLEM.replace(old, new))
    with pytest.raises(CrsSimError) as caught:
        load_problem(folder)
    assert re.search(words, str(caught.value), re.DOTALL)
    if mistake != "misspelt data":
        assert "problem.toml" in str(caught.value)


def test_a_prior_may_lie_far_from_the_models_own_value(folder):
    """As that of another drug does; nothing but the fit's own bounds says what is too far."""
    table = re.search(r"\[free\.a0\].*?(?=\n\[)", PROBLEM, re.DOTALL)[0]
    far = '[free.a0]\nprior = 2000\nsd = 0.3\nsource = "assumption: a test"\n'
    (folder / "problem.toml").write_text(PROBLEM.replace(table, far))
    (a0,) = (f for f in load_problem(folder).free if f.name == "a0")
    assert a0.lower > 500 and (a0.median, a0.upper) == (2000, pytest.approx(2000**2 / a0.lower))


def test_a_prior_that_says_nothing_has_bounds_that_are_numbers(folder):
    (folder / "problem.toml").write_text(PROBLEM.replace("sd = 0.5", "sd = 1e12"))
    (k,) = (f for f in load_problem(folder).free if f.name == "k")
    assert 0 < k.lower < 1e-200 and 1e200 < k.upper < math.inf


def test_nothing_to_fit_is_refused(folder):
    text = 'name = "x"\ndata = "patient"\nfree = {}\n'
    (folder / "problem.toml").write_text(text)
    with pytest.raises(FileError, match="nothing to fit; add a table"):
        load_problem(folder)


def test_a_value_without_logarithm_cannot_be_free(folder):
    (folder / "model.ant").write_text(MODEL.replace("k = 0.5", "k = 0"))
    with pytest.raises(FileError, match=r"free.k: the model's value is 0, which has no logarithm"):
        load_problem(folder)


A0 = free("a0", 10.0, 0.4)
GRADE = (seen("g1", "crs_grade", 1.0, 2.0, "grade"),)


def test_a_parameter_is_free_only_once():
    with pytest.raises(InputError, match=r"free.a0: appears twice"):
        asked(A0, A0)


def test_the_patients_own_value_may_not_hide_a_free_parameter():
    problem = asked(A0)
    owner = replace(problem.patient, scenario=Scenario("s", values={"a0": 9.0}))
    with pytest.raises(InputError, match="patient's own value of a0 would override the fit"):
        replace(problem, patient=owner)


def test_every_observable_needs_its_noise():
    with pytest.raises(InputError, match=r"noise.signal: is missing, but amplified observes"):
        asked(A0, noise=Noise({"A": Spread(0.2)}))
    with pytest.raises(UnknownNameError, match="observable 'B'"):
        asked(A0, observations=(seen("b", "B", 0.0, 1.0),))
    with pytest.raises(InputError, match="no observations to fit"):
        asked(A0, observations=())
    with pytest.raises(InputError, match=r"noise.A: sd must be above 0"):
        asked(A0, noise=Noise({"A": Spread(-1.0)}))


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        (None, "key grade: is missing, but g1 is a grade"),
        (GradeScale("B", GRADED.grade.cuts, 0.5), "grade.latent: unknown latent 'B'"),
        (GradeScale("A", ("grade_5",) * 4, 0.5), "quantity of them 'grade_5': known are"),
        (GradeScale("A", GRADED.grade.cuts[:3], 0.5), "four ascending cut-points, not 1, 2, 4"),
        (GradeScale("A", GRADED.grade.cuts[::-1], 0.5), "four ascending cut-points, not 8, 4"),
        (GradeScale("A", GRADED.grade.cuts, 0.0), "grade.sd: sd must be above 0"),
    ],
)
def test_grades_need_a_scale(scale, words):
    with pytest.raises(CrsSimError, match=words):
        asked(A0, observations=GRADE, noise=Noise(NOISE.spreads, scale))


def test_prior_centres_of_cut_points_must_ascend():
    with pytest.raises(InputError, match="cut-points, not 3, 2, 4, 8"):
        asked(free("grade_1", 3.0, 0.5), observations=GRADE, noise=GRADED)


def test_without_fixes_a_parameter_at_its_prior_median():
    problem = asked(free("a0", 8.0, 0.4), free("k", 0.9, 0.7))
    smaller = problem.without("a0")
    assert smaller.names == ("k",)
    assert smaller.model.values["a0"] == 8.0
    assert problem.model is DECAY
    with pytest.raises(UnknownNameError, match="unknown free parameter 'gain'"):
        problem.without("gain")


def test_observations_of_the_example_are_the_ones_fitted():
    assert tuple(asked(A0).patient.observations) == LEVELS


# --- a prior --------------------------------------------------------------------------------------

PRIOR = """\
name = "assumed"
patients = 2
[free.a0]
sd = 0.9
source = "assumption: a test"
[free.k]
prior = 0.4
sd = 0.3
source = "assumption: a test"
[noise.A]
sd = 0.4
source = "assumption: a test"
"""


@pytest.fixture
def alone(folder):
    """A patient without problem.toml; the prior lies beside the model."""
    (folder / "problem.toml").unlink()
    (folder / "prior.toml").write_text(PRIOR)
    (folder / "patient" / "patient.toml").write_text(
        'id = "p"\nmodel = "../model.ant"\nuntreated = true\n'
    )
    return folder / "patient"


def test_a_patient_without_problem_is_asked_with_the_models_prior(alone):
    problem = load_problem(alone)
    assert problem.names == ("a0", "k")
    assert [(f.median, f.sd) for f in problem.free] == [(10.0, 0.9), (0.4, 0.3)]
    assert (problem.name, problem.path) == ("p", str(alone))
    assert problem.noise.spreads["A"].sd == 0.4
    assert load_problem(alone / "patient.toml") == problem == patient_problem(load_patient(alone))


def test_another_prior_can_be_named(alone, tmp_path):
    (tmp_path / "other.toml").write_text(PRIOR.replace("0.9", "0.1"))
    assert load_problem(alone, prior=tmp_path / "other.toml").free[0].sd == 0.1
    with pytest.raises(UnknownNameError, match=r"unknown prior .* 'csr': did you mean 'crs'"):
        load_problem(alone, prior="csr")


def test_what_the_patients_own_values_state_is_not_fitted(alone):
    with (alone / "patient.toml").open("a") as file:
        file.write("[values]\na0 = 11\n")
    assert load_problem(alone).names == ("k",)


def test_without_any_prior_the_message_says_where_it_would_be(alone):
    (alone.parent / "prior.toml").unlink()
    with pytest.raises(FileError, match=r"prior.toml: not found, .* with --prior"):
        load_problem(alone)


def test_one_observation_is_enough_and_its_own_spread_stands(alone):
    only = "".join(OBSERVATIONS.splitlines(keepends=True)[:2]).replace("ng/mL,,", "ng/mL,0.1,")
    (alone / "observations.csv").write_text(only)
    text = PRIOR[: PRIOR.index("[noise.A]")]
    (alone.parent / "prior.toml").write_text(text)
    problem = load_problem(alone)
    assert len(problem.patient.observations) == 1
    assert problem.noise.spreads == {}
    (alone / "observations.csv").write_text(only.replace("0.1", ""))
    with pytest.raises(InputError, match="or fill in the column sd of the observations"):
        load_problem(alone)


def test_a_problem_takes_from_a_prior_what_it_does_not_say_itself(folder):
    (folder / "prior.toml").write_text(PRIOR)
    text = PROBLEM.replace("seed = 3", 'prior = "prior.toml"')
    own_noise, own_k = text.index("[noise.A]"), text.index("[free.k]")
    (folder / "problem.toml").write_text(text[:own_noise] + text[text.index("[accept]") :])
    problem = load_problem(folder)
    assert [(f.name, f.sd) for f in problem.free] == [("k", 0.5), ("a0", 0.3)]
    assert problem.noise.spreads["A"].sd == 0.4
    (folder / "problem.toml").write_text(text[:own_k] + text[text.index("[noise.A]") :])
    problem = load_problem(folder)
    assert [(f.name, f.sd) for f in problem.free] == [("a0", 0.9), ("k", 0.3)]
    assert problem.noise.spreads["A"].sd == 0.2
    fixed = text.replace("starts = 2", 'fixed = ["a0"]')
    (folder / "problem.toml").write_text(fixed[: fixed.index("[free.a0]")])
    assert load_problem(folder).names == ("k",)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "seed = 3",
            'prior = "prior.toml"\nfixed = ["a1"]',
            "key fixed: unknown .*: known are a0, k",
        ),
        ("seed = 3", 'fixed = ["a0"]', "key fixed: fixes parameters of a prior, but there"),
        ("seed = 3", 'prior = "csr"', "unknown prior .* did you mean 'crs'"),
    ],
)
def test_mistakes_with_a_prior(folder, old, new, words):
    (folder / "prior.toml").write_text(PRIOR)
    (folder / "problem.toml").write_text(PROBLEM.replace(old, new))
    with pytest.raises(CrsSimError, match=words):
        load_problem(folder)


def test_a_problem_is_not_asked_with_another_prior(folder):
    with pytest.raises(InputError, match="a problem with its own prior"):
        load_problem(folder, prior="crs")


def test_a_folder_that_is_neither_problem_nor_patient(tmp_path):
    with pytest.raises(InputError, match=r"neither problem.toml nor patient.toml.*crs-sim new"):
        load_problem(tmp_path)


def test_a_written_problem_leaves_an_estimated_noise_to_its_own_table(tmp_path):
    """It is made from [noise], so a [free] table of it would be a second one."""
    (tmp_path / "prior.toml").write_text(
        'name = "n"\n[free.cl]\nsd = 0.5\nsource = "s"\n'
        '[noise.c_central]\nsd = 0.2\nestimate = true\nsource = "s"\n'
    )
    (tmp_path / "patient.toml").write_text('id = "p"\nmodel = "one_compartment"\n')
    (tmp_path / "doses.csv").write_text("day,drug,amount,unit\n0,iv,100,mg\n")
    rows = [f"o{n},c_central,value,{n / 4},{x},mg/L" for n, x in enumerate((3.3, 1.8, 1.0))]
    head = "id,observable,kind,day,value,unit"
    (tmp_path / "observations.csv").write_text("\n".join([head, *rows]))
    write_problem(load_patient(tmp_path), prior=tmp_path / "prior.toml")
    assert load_problem(tmp_path).names == ("cl", "sd_c_central")


def test_a_problem_written_for_a_patient_is_what_fit_would_fit(tmp_path):
    home = tmp_path / "p"
    shutil.copytree(ROOT / "fits" / "data" / "ruemmele2025", home)
    asked = load_problem(home)
    path = write_problem(load_patient(home))
    assert path == home / "problem.toml"
    written = load_problem(home)
    smaller, idle = informed(asked)
    assert written.names == smaller.names and not set(idle) & set(written.names)
    for one, other in zip(written.free, smaller.free, strict=True):
        assert one == replace(other, why=one.why)
    assert written.noise == smaller.noise
    with pytest.raises(StorageError, match="is there already"):
        write_problem(load_patient(home))
    path.write_text(path.read_text().replace("upper = ", "upper = 1e9  # ", 1))
    assert load_problem(home).free[0].upper == 1e9
