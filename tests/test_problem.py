"""Problems are read strictly and checked before anything runs; one test a mistake."""

import math
import re
from dataclasses import replace

import pytest
from small_fits import DECAY, GRADED, LEVELS, NOISE, asked, free, seen

from crs_sim.errors import CrsSimError, FileError, InputError, UnknownNameError
from crs_sim.noise import GradeScale, Noise, Spread
from crs_sim.problem import Free, load_problem
from crs_sim.scenario import Scenario

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
    (patient / "patient.toml").write_text('id = "p"\nmodel = "decay"\n')
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
    "misspelt parameter": ("free.a0", "free.ao", "key free.ao: unknown parameter 'ao': did you"),
    "no source": ('upper = 100\nsource = "assumption: a test"', "", "free.a0.source.*missing"),
    "empty source": ('[noise.A]\nsd = 0.2\nsource = "assumption: a test"',
                     '[noise.A]\nsd = 0.2\nsource = ""', "noise.A.source"),
    "negative prior": ("prior = 11", "prior = -11", "free.a0.prior.*must be above 0"),
    "prior outside its bounds": ("prior = 11", "prior = 200", "lower < prior < upper, not 1, 200"),
    "bounds the wrong way": ("upper = 100", "upper = 0.5", "needs 0 < lower < prior < upper"),
    "zero sd": ("sd = 0.3", "sd = 0", "free.a0.sd.*must be above 0, not 0"),
    "text for a number": ("sd = 0.3", 'sd = "0.3"', "free.a0.sd.*must be a number"),
    "model out of bounds": ("lower = 1", "lower = 10.5",
                            "a parameter out of its bounds: the model has a0 = 10, allowed are "
                            "10.5 to 100"),
    "no noise": ("noise.A", "noise.a0", "noise.a0: unknown observable 'a0'"),
    "unknown accept": ("first = [10, 14]", "frist = [10, 14]", "accept.frist: unknown observation "
                       "'frist': did you mean 'first'"),
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
    with pytest.raises(InputError, match=r"free.a0: is there twice"):
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
        (GradeScale("A", ("grade_5",) * 4, 0.5), "parameter or quantity of them 'grade_5': did"),
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
