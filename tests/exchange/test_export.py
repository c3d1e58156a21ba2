"""A problem as PEtab v2: its linter passes, and another engine finds our -2 log-likelihood."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from petab.v2 import Problem
from petab.v2.calculate import calculate_llh
from petab_referee import minus_two_log_likelihood, predictions
from tiny_case import write_case

from crs_sim.cli.command_line import cli
from crs_sim.dosing.doses import Dose, Schedule
from crs_sim.dosing.scenario import Change, Scenario
from crs_sim.errors import InputError, StorageError, UnknownNameError
from crs_sim.exchange.petab_experiments import regimen, rests_on
from crs_sim.exchange.petab_export import WHY_NOT, Exported, export_petab, petab_files
from crs_sim.fitting.noise import Noise, Spread, days_needed, residual_vector
from crs_sim.fitting.objective import curves
from crs_sim.fitting.priors import Free
from crs_sim.fitting.problem import FitProblem, load_problem
from crs_sim.fitting.storage import load_run
from crs_sim.model.model import Drug
from crs_sim.model.model_file import read_model
from crs_sim.patients.patient import Observation, Observations, Patient
from crs_sim.patients.patient_files import KINDS

# petab 0.8 still says inplace=True to pandas
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")

MODEL = """\
function hill(x, K, n)
  x^n/(K^n + x^n)
end
model small
  unit mg = 1e-3 gram;
  unit kg = 1e3 gram;
  unit per_day = 1 / 86400 second;
  weight = 70 kg; weight is "Body weight"; weight description "assumption: made up";
  F = 0.8 dimensionless; F is "Share"; F description "assumption: made up";
  k = 0.4 per_day; k is "Loss"; k description "assumption: made up";
  k_b = 0.9 per_day; k_b is "Loss of B"; k_b description "assumption: made up";
  K = 30 mg; K is "Half effect"; K description "assumption: made up";
  a0 = 5 mg; a0 is "A before all"; a0 description "assumption: made up";
  steep = 1.5 dimensionless; steep is "Steepness"; steep description "assumption: made up";
  start := a0*k_b/k; start has mg; start is "A on day 0";
  effect := hill(A, K, steep); effect has dimensionless; effect is "Effect";
  loss := k*A; loss has mg_per_day; loss is "What is lost";
  unit mg_per_day = 1e-3 gram / 86400 second;
  A = start; A has mg; A is "Amount A"; A description "assumption: made up";
  B = 0; B has mg; B is "Amount B"; B description "assumption: made up";
  A' = -loss;
  B' = loss*(1 - effect) - k_b*B;
end
"""
DRUGS = (
    Drug("pill", "A", "mg", 0.0, "F"),
    Drug("drip", "A", "mg", 6.0),
    Drug("shot", "B", "mg", 0.0),
)
DOSES = (
    Dose(0, "pill", 40),  # on the first sampled day
    Dose(0, "drip", 12, "mg", 12),  # starts on day 0
    Dose(1, "shot", 0.2, "mg/kg"),
    Dose(2, "pill", 30),  # on a sampled day, twice
    Dose(2, "shot", 5),
    Dose(2.25, "drip", 20, "mg", 24),  # two infusions overlap
    Dose(2.5, "drip", 20, "mg", 6),
    Dose(4, "pill", 10),
    Dose(6, "pill", 10),  # on the last sampled day: seen by nothing
)
CHANGES = (
    Change("k", first=-math.inf, last=0, factor=1.3),  # decides the initial value only
    Change("k", first=1.5, last=2, factor=2.0),
    Change("k", first=2, last=3, value=0.3),
    Change("k", first=3, last=5, value=0.3),
    Change("k_b", first=0, last=2.25, factor=0.5),  # begins on day 0: not in the initial value
)


def seen(
    id: str, observable: str, day: float, value: float, *, kind: str = "value",
    reference: float = math.nan, sd: float = math.nan,
) -> Observation:  # fmt: skip
    return Observation(id, observable, kind, day, day, reference, value, "mg", sd)


LEVELS = (
    seen("a_0", "A", 0, 11.0),
    seen("b_0", "B", 0.5, 4.0),
    seen("a_2", "A", 2, 9.0),
    seen("b_2", "B", 2.25, 30.0, sd=0.35),
    seen("loss_3", "loss", 3, 8.0),
    seen("effect_4", "effect", 4, 0.5),
    seen("b_fall", "B", 4.5, 0.4, kind="ratio", reference=2.0),
    seen("loss_rise", "loss", 4, 1.4, kind="ratio", reference=2.6),
    seen("a_6", "A", 6, 12.0),
)
FREE = (
    Free("k", 0.04, 4.0, 0.5, 0.6, "made up"),
    Free("F", 0.1, 1.0, 0.7, 0.3, "made up"),
    Free("a0", 0.5, 50.0, 6.0, 0.5, "made up"),
)
NOISE = Noise({"A": Spread(0.2), "B": Spread(0.15), "loss": Spread(0.25), "effect": Spread(0.1)})
OTHER = {"k": 0.31, "F": 0.9, "a0": 3.0}


def asked(
    *levels: Observation, changes: tuple[Change, ...] = CHANGES, text: str = MODEL,
    free: tuple[Free, ...] = FREE, noise: Noise = NOISE, weight: float | None = 62.0,
) -> FitProblem:  # fmt: skip
    """A small problem with everything in it that an export has to write."""
    model = read_model(text, "small.ant", DRUGS)
    values = {} if weight is None else {"weight": weight}
    scenario = Scenario("given", Schedule(DOSES), changes, values)
    patient = Patient("p", "small", scenario, Observations(levels or LEVELS))
    return FitProblem("small one", model, patient, free, noise)


def ours(problem: FitProblem, ids: tuple[str, ...], values: dict[str, float]) -> float:
    """Our -2 log-likelihood of these observations, up to a constant."""
    stated = [problem.patient.observations[id] for id in ids]
    run = curves(problem, values, days_needed(stated))
    parts = residual_vector(stated, run, problem.noise)
    return float(parts @ parts)


def centre(problem: FitProblem) -> dict[str, float]:
    return {f.name: f.median for f in problem.free}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[FitProblem, Path, Exported]:
    folder = tmp_path_factory.mktemp("petab") / "out"
    problem = asked()
    return problem, folder, export_petab(problem, folder)


# --- the linter and the referee -------------------------------------------------------------------


def test_the_linter_has_nothing_to_say(written) -> None:
    issues = Problem.from_yaml(written[1] / "problem.yaml").validate()
    assert [str(issue) for issue in issues] == []


def test_the_linter_would_see_a_mistake(written) -> None:
    problem = Problem.from_yaml(written[1] / "problem.yaml")
    problem.measurement_tables[0].elements[0].observable_id = "nothing_of_the_sort"
    assert problem.validate().has_errors()


@pytest.mark.parametrize("values", [None, OTHER], ids=["prior centre", "elsewhere"])
def test_another_engine_finds_our_likelihood(written, values) -> None:
    problem, folder, made = written
    values = values or centre(problem)
    expected = ours(problem, made.stated, values) + made.constant
    assert minus_two_log_likelihood(folder, values) == pytest.approx(expected, rel=1e-5)


def test_every_single_prediction_agrees(written) -> None:
    _, folder, made = written
    read = Problem.from_yaml(folder / "problem.yaml")
    theirs = predictions(read, made.values)
    mine = pd.read_csv(folder / "simulations.tsv", sep="\t")
    assert mine["observationId"].tolist() == [o.id for o in LEVELS]
    np.testing.assert_allclose(theirs["simulation"], mine["simulation"], rtol=1e-6)


def test_our_own_simulation_table_gives_the_likelihood_we_state(written) -> None:
    _, folder, made = written
    read = Problem.from_yaml(folder / "problem.yaml")
    measured, mine = table(made, "measurements"), table(made, "simulations")
    llh = calculate_llh(measured, mine, read.observable_df, read.parameter_df)
    assert -2 * llh == pytest.approx(made.deviance + made.constant, rel=1e-12)


def test_priors_differ_from_ours_by_what_the_readme_says(written) -> None:
    problem, folder, made = written
    read = Problem.from_yaml(folder / "problem.yaml")

    def difference(values: dict[str, float]) -> float:
        theirs = sum(-2 * math.log(p.prior_dist.pdf(values[p.id])) for p in read.parameters)
        mine = sum((math.log(values[f.name] / f.median) / f.sd) ** 2 for f in problem.free)
        return theirs - mine - 2 * sum(math.log(v) for v in values.values())

    assert difference(OTHER) == pytest.approx(difference(dict(made.values)), rel=1e-10)
    read_values = {p.id: p.nominal_value for p in read.parameters}
    assert read_values == pytest.approx(centre(problem), rel=1e-14)


# --- what the tables say --------------------------------------------------------------------------


def table(made: Exported, name: str) -> pd.DataFrame:
    return pd.read_csv(BytesIO(made.files[f"{name}.tsv"]), sep="\t", keep_default_na=False)


def test_a_sample_at_a_bolus_has_an_experiment_that_ends_before_it(written) -> None:
    made = written[2]
    measured = table(made, "measurements").set_index("observationId")["experimentId"]
    assert measured["a_0"] == "until_day_0" and measured["a_2"] == "until_day_2"
    assert measured["effect_4"] == "until_day_4"
    assert measured["b_2"] == "course"  # an infusion starts there, which moves nothing at once
    assert measured["a_6"] == "course"  # nothing follows the last sample
    conditions = table(made, "conditions")
    targets = conditions.groupby("conditionId")["targetId"].agg(set)
    assert targets["before_dose_on_day_2"] == {"k_now", "B_on_day_2"}
    assert targets["day_2"] == {"k_now", "B_on_day_2", "A", "B"}
    experiments = table(made, "experiments")
    until = experiments[experiments["experimentId"] == "until_day_2"]
    assert until["time"].max() == 2.0
    assert until["conditionId"].iloc[-1] == "before_dose_on_day_2"


def test_free_parameters_stay_symbols_and_fixed_ones_are_numbers(written) -> None:
    rows = table(written[2], "conditions").set_index(["conditionId", "targetId"])["targetValue"]
    assert rows["day_0", "given_at_start_A"] == "40.0*F"
    assert rows["day_0", "k_now"] == "k"
    assert rows["day_1_5", "k_now"] == "2.0*k"
    assert rows["day_2", "k_now"] == "0.3"
    assert rows["day_5", "k_now"] == "k"
    assert rows["day_0", "k_b_now"] == "0.45" and rows["day_2_25", "k_b_now"] == "0.9"
    assert rows["day_1", "B"] == "B + 12.4"  # 0.2 mg/kg at 62 kg
    assert rows["day_2_5", "inflow_A"] == "20.0 + 80.0"
    assert rows["day_2_75", "inflow_A"] == "20.0"
    assert rows["day_3_25", "inflow_A"] == "0"


def test_a_free_body_weight_stays_a_symbol() -> None:
    problem = asked(free=(Free("weight", 30, 120, 70, 0.2, "made up"),), weight=None)
    first = {p.day: dict(p.after) for p in regimen(problem, [3.0]).periods}
    assert first[1.0]["B"] == "B + 0.2*weight"


def test_names_that_are_taken_are_left_alone() -> None:
    text = MODEL.replace("  B' =", '  inflow_A = 3 mg; inflow_A is "Mine"; '
                         'inflow_A description "assumption: made up";\n  B\' =')  # fmt: skip
    plan = regimen(asked(text=text), [3.0])
    assert plan.model["inflow_A"].label == "Mine"
    assert plan.model["inflow_A_"].unit == "mg_per_day"


def test_no_dose_and_no_change_is_an_export_too(tmp_path: Path) -> None:
    problem = asked(seen("a_3", "A", 3, 2.0), changes=())
    patient = replace(problem.patient, scenario=Scenario("none"))
    made = export_petab(replace(problem, patient=patient), tmp_path)
    read = Problem.from_yaml(tmp_path / "problem.yaml")
    assert [str(issue) for issue in read.validate()] == []
    expected = made.deviance + made.constant
    assert minus_two_log_likelihood(tmp_path, made.values) == pytest.approx(expected, rel=1e-6)


def test_only_a_sample_before_the_first_dose(tmp_path: Path) -> None:
    problem = asked(seen("a_0", "A", 0, 2.0))
    made = export_petab(problem, tmp_path)
    assert table(made, "experiments")["time"].tolist() == [0.0]
    # k was 1.3 times as large before day 0, k_b not yet halved
    assert table(made, "simulations")["simulation"][0] == pytest.approx(6.0 * 0.9 / (1.3 * 0.5))
    expected = made.deviance + made.constant
    assert minus_two_log_likelihood(tmp_path, made.values) == pytest.approx(expected, rel=1e-9)


# --- what is left out -----------------------------------------------------------------------------


def test_every_kind_is_either_stated_or_has_a_reason() -> None:
    assert set(WHY_NOT) | {"value", "ratio"} == set(KINDS)


def test_what_petab_cannot_state_is_named(tmp_path: Path) -> None:
    made = export_petab(load_problem(write_case(tmp_path) / "fit"), tmp_path / "out")
    assert made.stated == ("a1", "a6")
    read = Problem.from_yaml(tmp_path / "out" / "problem.yaml")
    assert [str(issue) for issue in read.validate()] == []
    left_out = pd.read_csv(tmp_path / "out" / "not_exported.csv")
    assert left_out["id"].tolist() == ["a2", "a3", "a4", "a5", "a7", "a8", "g1", "g2", "g3"]
    assert left_out["reason"][1] == "a reading under a limit: PEtab has no censored error"
    readme = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "an ordinal grade: PEtab has no such error: g1, g2, g3" in readme
    assert f"there finds {made.deviance + made.constant:.8g}" in readme
    assert "is therefore not a fit of the whole problem" in readme


def test_ratios_whose_reference_cannot_be_kept() -> None:
    made = petab_files(asked(
        seen("a_3", "A", 3, 2.0),
        seen("to_0", "A", 4, 2.0, kind="ratio", reference=0.0),
        seen("to_change", "loss", 4, 2.0, kind="ratio", reference=3.0),
        seen("not_by_change", "effect", 4, 2.0, kind="ratio", reference=3.0),
    ))  # fmt: skip
    assert made.stated == ("a_3", "not_by_change")
    reasons = {item.observation.id: item.reason for item in made.left_out}
    assert "day 0" in reasons["to_0"] and "k, which it depends on" in reasons["to_change"]


def test_rests_on_follows_quantities() -> None:
    model = read_model(MODEL, "small.ant", DRUGS)
    assert rests_on(model, "start") == {"start", "a0", "k_b", "k"}


# --- refused --------------------------------------------------------------------------------------


def test_nothing_to_state_is_refused() -> None:
    with pytest.raises(InputError, match="none of the observations can be expressed"):
        petab_files(asked(seen("low", "A", 1, 2.0, kind="below")))


def test_a_name_that_is_a_word_of_petab_is_refused() -> None:
    text = MODEL.replace("loss :=", "Log10 :=").replace("loss has", "Log10 has")
    text = text.replace("loss is", "Log10 is").replace("-loss", "-Log10").replace("loss*", "Log10*")
    levels, noise = seen("x", "Log10", 3, 2.0), Noise({"Log10": Spread(0.2)})
    with pytest.raises(InputError, match="'Log10' is a reserved word of PEtab; rename it"):
        petab_files(asked(levels, text=text, noise=noise))


def test_values_of_what_is_not_free_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown free parameter 'kk': did you mean 'k'"):
        petab_files(asked(), {"kk": 1.0})


@pytest.mark.parametrize("value", [0.0, 4.1, math.nan])
def test_values_out_of_bounds_are_refused(value: float) -> None:
    with pytest.raises(InputError, match=r"key free\.k: the value .* allowed are 0\.04 to 4;"):
        petab_files(asked(), {"k": value})


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine", encoding="utf-8")
    with pytest.raises(StorageError, match=r"contains a README\.md that is not from an earlier"):
        export_petab(asked(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["README.md"]


def test_an_earlier_export_is_replaced(tmp_path: Path) -> None:
    first = export_petab(asked(), tmp_path)
    second = export_petab(asked(), tmp_path, values=OTHER)
    assert first.files["conditions.tsv"] == second.files["conditions.tsv"]
    assert b"0.31" in (tmp_path / "parameters.tsv").read_bytes()


# --- the shipped case, and the command ------------------------------------------------------------


def petablint(path: Path) -> subprocess.CompletedProcess[str]:
    """What the README tells a user to run: libSBML's checks too, within 4 GB."""
    limit = "import resource as r; r.setrlimit(r.RLIMIT_AS, (4 << 30, 4 << 30))"
    words = f"{limit}; from petab.petablint import main; main()"
    return subprocess.run([sys.executable, "-W", "ignore", "-c", words, str(path)],
                          capture_output=True, text=True, check=False)  # fmt: skip


def test_the_command_line_linter_would_see_a_mistake(written, tmp_path: Path) -> None:
    shutil.copytree(written[1], tmp_path / "out")
    table = tmp_path / "out" / "measurements.tsv"
    head, rest = table.read_text().split("\n", 1)
    table.write_text(f"{head}\nnothing_{rest}")  # an observable that is not there
    assert "nothing_" in petablint(tmp_path / "out" / "problem.yaml").stderr


def test_the_case(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["export", "ruemmele2025", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "6 of 47 observations exported: psa_d0" in result.output
    assert "not exported (a reading under a limit" in result.output and "grade_d32" in result.output
    assert "`petablint problem.yaml`" in (tmp_path / "README.md").read_text()
    checked = petablint(tmp_path / "problem.yaml")
    assert (checked.returncode, checked.stdout) == (0, ""), checked.stdout
    problem = load_problem("ruemmele2025")
    made = petab_files(problem)
    off = {f.name: f.median * math.exp((-1) ** k * f.sd / 2) for k, f in enumerate(problem.free)}
    for values in (centre(problem), off):
        expected = ours(problem, made.stated, values) + made.constant
        # CVODE fails at finer ones where a drug starts from 0
        found = minus_two_log_likelihood(tmp_path, values, tolerances=(1e-8, 1e-6))
        assert found == pytest.approx(expected, rel=1e-4)


def test_fitted_values_of_a_run_become_nominal_ones(tmp_path: Path) -> None:
    case = str(write_case(tmp_path) / "fit")
    fitted = CliRunner().invoke(cli, ["fit", case, "--starts", "1", "--no-drop", "--workers", "1"])
    assert fitted.exit_code == 0, fitted.output
    out = tmp_path / "out"
    result = CliRunner().invoke(cli, ["export", case, "--out", str(out), "--from", case])
    assert result.exit_code == 0, result.output
    nominal = pd.read_csv(out / "parameters.tsv", sep="\t").set_index("parameterId")["nominalValue"]
    assert nominal.to_dict() == pytest.approx(load_run(case).values, rel=1e-14)


def test_a_command_that_cannot_work_says_so(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["export", "ruemmele", "--out", str(tmp_path / "x")])
    assert result.exit_code == 1 and "ruemmele2025" in result.output
    assert not (tmp_path / "x").exists()
