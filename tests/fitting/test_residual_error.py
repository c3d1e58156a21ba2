"""The residual error: four forms, stated or estimated, against SciPy's densities and optimisers.

All readings are synthetic: made by a closed form, with errors from a seeded generator.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.optimize import curve_fit, minimize
from scipy.stats import norm
from small_fits import DECAY, asked, free, seen

from crs_sim.cli.command_line import cli
from crs_sim.errors import CrsSimError, InputError
from crs_sim.exchange.petab_export import petab_files
from crs_sim.fitting.diagnostics import accepted, judge, verdict
from crs_sim.fitting.fitting import fit
from crs_sim.fitting.noise import SPAN, Noise, Spread
from crs_sim.fitting.objective import Objective, level_at, noise_record, point_of
from crs_sim.fitting.problem import estimated_noise
from crs_sim.population.population_fit import fit_all
from crs_sim.uncertainty.cross_validation import minus_2_ln_likelihood
from crs_sim.uncertainty.profiling import profile

DAYS = np.linspace(0.0, 6.0, 24)
SPREADS = {
    "log-normal": Spread(0.3, "made up"),
    "proportional": Spread(0.2, "made up", "proportional"),
    "additive": Spread(0.4, "made up", "additive"),
    "combined": Spread(0.15, "made up", "combined", 0.3),
}
EVERY = pytest.mark.parametrize("error", SPREADS)


def truth(days=DAYS, a0=10.0, k=0.5):
    return a0 * np.exp(-k * np.asarray(days))


def readings(spread, seed=3):
    """Synthetic readings with this error, at levels where it leaves them above 0."""
    levels = truth()
    made = spread.reading(levels, np.random.default_rng(seed).standard_normal(len(levels)))
    pairs = zip(DAYS.tolist(), made.tolist(), strict=True)
    return tuple(seen(f"r{k}", "A", day, v) for k, (day, v) in enumerate(pairs) if v > 0.05)


def question(spread, observations=None, sd=30.0):
    """Initial amount, rate and, if it is to be, the error are free, nearly without priors."""
    observations = readings(spread) if observations is None else observations
    plain = asked(free("a0", 9.0, sd), free("k", 0.4, sd), observations=observations,
                  noise=Noise({"A": spread}))  # fmt: skip
    model, more = estimated_noise(DECAY, plain.noise, plain.patient)
    return replace(plain, model=model, free=(*plain.free, *more))


def minus_2_ln_l(spread, observations, a0, k):
    """By SciPy's normal density: of the logarithms for a log-normal error."""
    days, values = (np.array([getattr(o, name) for o in observations]) for name in ("day", "value"))
    level = truth(days, a0, k)
    if spread.error == "log-normal":
        return -2 * np.sum(norm.logpdf(np.log(values), np.log(level), spread.sd))
    sd = {"proportional": spread.sd * level, "additive": spread.sd + 0 * level,
          "combined": np.hypot(spread.sd * level, spread.additive)}[spread.error]  # fmt: skip
    return -2 * np.sum(norm.logpdf(values, level, sd))


def with_parts(spread, factor):
    return replace(spread, **{name: x * factor for name, x in spread.parts.items()})


@EVERY
@pytest.mark.parametrize("estimate", [False, True])
def test_the_sum_of_squares_is_the_likelihood_up_to_one_constant(error, estimate):
    spread = replace(SPREADS[error], estimate=estimate)
    problem = question(spread)
    objective, observed = Objective(problem), problem.patient.observations
    off = []
    for a0, k, factor in ((9.0, 0.4, 1.0), (12.0, 0.55, 3.0), (6.0, 0.3, 0.2), (10.0, 0.5, 1.1)):
        now = with_parts(spread, factor if estimate else 1.0)
        values = {"a0": a0, "k": k, **{f"{part}_A": x for part, x in now.parts.items()}}
        residuals = objective.residuals(point_of(problem, values))[: -len(problem.free)]
        off.append(residuals @ residuals - minus_2_ln_l(now, observed, a0, k))
    assert np.ptp(off) < 2e-3 * len(observed)  # the least proportional error, a thousandth


@EVERY
@pytest.mark.parametrize("estimate", [False, True])
@pytest.mark.parametrize("kind", ["below", "above"])
def test_a_limit_has_the_probability_beyond_it_under_the_error_of_its_observable(
    error, estimate, kind
):
    spread, rest = replace(SPREADS[error], estimate=estimate), readings(SPREADS[error])
    problem = question(spread, (seen("limit", "A", 1.0, 5.0, kind), *rest))
    objective = Objective(problem)
    for a0, k, factor in ((9.0, 0.4, 1.0), (12.0, 0.55, 3.0), (6.0, 0.3, 0.5)):
        now = with_parts(spread, factor if estimate else 1.0)
        values = {"a0": a0, "k": k, **{f"{part}_A": x for part, x in now.parts.items()}}
        level, limit = float(truth(1.0, a0, k)), 5.0
        sd = {"proportional": now.sd * level, "additive": now.sd,
              "combined": np.hypot(now.sd * level, now.additive)}.get(error)  # fmt: skip
        z = np.log(limit / level) / now.sd if sd is None else (limit - level) / sd
        chance = norm.logcdf(z) if kind == "below" else norm.logsf(z)
        assert objective.residuals(point_of(problem, values))[0] ** 2 == pytest.approx(
            -2 * chance, rel=1e-3
        )


@EVERY
def test_estimates_are_those_of_scipy_and_their_errors_those_of_theory(error):
    spread = replace(SPREADS[error], estimate=True)
    start = with_parts(spread, 0.3)  # stated far from the truth
    problem = question(start, readings(spread))
    result = fit(problem, starts=4, workers=1)
    assert result.polish.converged
    observed = problem.patient.observations

    def cost(x):
        parts = dict(zip(spread.parts, np.exp(x[2:]), strict=True))
        return minus_2_ln_l(replace(spread, **parts), observed, *np.exp(x[:2]))

    first = np.log([10.0, 0.5, *spread.parts.values()])
    best = minimize(cost, first, method="Nelder-Mead",
                    options={"xatol": 1e-7, "fatol": 1e-9, "maxiter": 5000}).x  # fmt: skip
    mine = point_of(problem, result.values)
    errors = np.sqrt(np.diag(result.covariance))
    assert mine == pytest.approx(best, abs=0.02 * errors.max())
    if error != "combined":
        assert errors[2] == pytest.approx(1 / math.sqrt(2 * len(observed)), rel=0.15)
    assert minus_2_ln_likelihood(result) - cost(mine) == pytest.approx(
        0.0 if error == "log-normal" else -2 * sum(math.log(o.value) for o in observed), abs=0.05
    )


def test_scatter_beyond_the_stated_noise_is_estimated_as_least_squares_would():
    """A one-compartment course with nine times the scatter stated: sd and intervals by SciPy."""
    observations = readings(Spread(0.45), seed=8)
    result = fit(question(Spread(0.05, estimate=True), observations), starts=2, workers=1)
    days = np.array([o.day for o in observations])
    values = np.log([o.value for o in observations])
    best, covariance = curve_fit(lambda t, a, k: a - k * t, days, values)
    rss = float(np.sum((values - (best[0] - best[1] * days)) ** 2))
    n = len(observations)
    found = {e.parameter: e for e in result.estimates}
    assert found["sd_A"].estimate == pytest.approx(math.sqrt(rss / n), rel=1e-3)
    assert found["sd_A"].standard_error == pytest.approx(1 / math.sqrt(2 * n), rel=1e-3)
    assert math.log(found["a0"].estimate) == pytest.approx(best[0], abs=1e-3)
    widened = math.sqrt(n / (n - 2))  # least squares divides by n - 2
    assert widened * found["a0"].standard_error == pytest.approx(
        math.sqrt(covariance[0, 0]), rel=0.01
    )
    said = verdict(result)
    assert not any("times the stated noise" in text for text in said.warnings)
    corrected = f"sd {math.sqrt(rss / n):.3g}, or {math.sqrt(rss / (n - 2)):.3g} and intervals"
    assert any(corrected in text for text in said.statements)
    assert sum(row.verdict == "pass" for row in judge(result)) >= 0.8 * n


def test_a_stated_noise_is_judged_beside_an_estimated_one():
    wild = tuple(replace(seen(f"s{k}", "signal", 0.5 * k, 30 * truth(0.5 * k) / 10), value=v)
                 for k, v in enumerate((90.0, 10.0, 30.0, 2.0)))  # fmt: skip
    noise = Noise({"A": Spread(0.1, estimate=True), "signal": Spread(0.05)})
    plain = asked(free("a0", 9.0, 3.0), observations=(*readings(Spread(0.3)), *wild), noise=noise)
    model, more = estimated_noise(DECAY, noise, plain.patient)
    result = fit(replace(plain, model=model, free=(*plain.free, *more)), starts=2, workers=1)
    (told,) = [text for text in verdict(result).warnings if "times the stated noise" in text]
    assert "over 4 readings" in told
    assert any("residual error of A, estimated" in text for text in verdict(result).statements)


def test_an_estimated_error_that_hides_a_wrong_model_is_a_warning():
    falling = fit(question(Spread(0.1, estimate=True)), starts=2, workers=1)
    held = replace(falling.problem, free=tuple(f for f in falling.problem.free if f.name != "k"))
    held = replace(held, model=held.model.with_values(k=-0.5))  # the model rises, the levels fall
    told = verdict(fit(held, starts=2, workers=1)).warnings
    assert any("almost any course passes" in text for text in told)
    assert not any("almost any course" in text for text in verdict(falling).warnings)


def test_a_profile_holds_the_estimated_error():
    result = fit(question(Spread(0.1, estimate=True), readings(Spread(0.3))), starts=2, workers=1)
    (one,) = profile(result, ["sd_A"], workers=1)
    low, high = one.interval()
    n = len(result.problem.patient.observations)
    assert math.log(high / low) == pytest.approx(2 * 1.96 / math.sqrt(2 * n), rel=0.15)
    assert result.values["sd_A"] < (low * high) ** 0.5  # skewed, as the sd of few readings is


@EVERY
@pytest.mark.parametrize("z", [-3.0, -1.0, 0.5, 1.96])
def test_the_level_of_an_error_is_the_inverse_of_the_reading(error, z):
    spread = SPREADS[error]
    for level in (2.0, 10.0, 300.0):
        reading = float(spread.reading(level, z))
        if reading > 0:
            assert float(level_at(spread, reading, z)) == pytest.approx(level, rel=1e-9)


def test_a_reading_within_twice_a_wide_error_is_met_by_any_higher_level():
    problem = question(Spread(0.6, "", "proportional"))
    low, high = accepted(seen("x", "A", 0.0, 10.0), problem)
    assert low == pytest.approx(10 / (1 + 1.96 * 0.6), rel=1e-3) and math.isinf(high)


def test_what_is_stored_of_a_plain_noise_has_not_changed():
    assert noise_record(Noise({"A": Spread(0.2, "x")})) == {
        "spreads": {"A": {"sd": 0.2, "source": "x"}}, "grade": None
    }  # fmt: skip
    stored = noise_record(Noise({"A": SPREADS["combined"]}))["spreads"]["A"]
    assert Spread(**stored) == SPREADS["combined"]


def test_what_cannot_be_estimated_is_refused():
    spread = Spread(0.1, estimate=True)
    with pytest.raises(InputError, match=r"2 readings of A .* from 3 or more: delete the key"):
        question(spread, readings(spread)[:2])
    problem = question(spread)
    assert (problem.free[-1].lower, problem.free[-1].upper) == (0.1 / SPAN, 0.1 * SPAN)
    with pytest.raises(InputError, match="only a stated log-normal error is exported"):
        petab_files(problem)
    ratio = replace(seen("half", "A", 3.0, 0.5, "ratio"), reference=1.0)
    with pytest.raises(InputError, match="half is a ratio, whose error is a share"):
        question(SPREADS["additive"], (ratio,))


PRIOR = """name = "wide"
[free.cl]
sd = 3
source = "made up"
[free.v]
sd = 3
source = "made up"
[noise.c_central]
sd = 0.05
source = "made up"
"""


def command(*words):
    done = CliRunner().invoke(cli, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A synthetic subject: 100 mg at cl 72 L/day and v 30 L, and a scatter of 0.43 in ln."""
    folder = tmp_path_factory.mktemp("scatter")
    hours, rng = np.linspace(1.0, 24.0, 16), np.random.default_rng(15)
    values = 100 / 30 * np.exp(-72 / 30 * hours / 24 + 0.43 * rng.standard_normal(16))
    rows = [f"1,{t:.4f},0,.,2,{y:.4f}" for t, y in zip(hours, values, strict=True)]
    text = "\n".join(["ID,TIME,EVID,AMT,CMT,DV", "1,0,1,100,2,.", *rows])
    (folder / "study.csv").write_text(text + "\n", encoding="utf-8")
    (folder / "stated.toml").write_text(PRIOR, encoding="utf-8")
    (folder / "estimated.toml").write_text(PRIOR + "estimate = true\n", encoding="utf-8")
    return folder


def fitted(study, prior):
    return command("fit", "--data", study / "study.csv", "--model", "one_compartment", "--prior",
                   study / f"{prior}.toml", "--out", study / prior, "--starts", 2, "--no-drop",
                   "--workers", 1)  # fmt: skip


def test_a_wild_scatter_is_said_first_where_the_noise_is_stated(study):
    lines = fitted(study, "stated").splitlines()
    told = [line for line in lines if line.startswith("Warning:")]
    assert "more than by chance" in told[0] and "times the stated noise" in told[1]
    assert "estimate = true in [noise]" in told[1]


def test_all_goes_on_from_a_fit_with_an_estimated_error(study):
    text = fitted(study, "estimated")
    assert "residual error of c_central, estimated by maximum likelihood: sd 0." in text
    assert "Warning" not in text and "sd_c_central" in text
    home = study / "estimated"
    assert "The same" in command("replay", home)
    bands = command("predict", home, "--draws", 50, "--until", 1, "--out", study / "bands")
    assert "residual error of c_central, estimated" in bands
    command("simulate", "--data", study / "study.csv", "--model", "one_compartment")
    two = [estimate_problem(study, number) for number in ("1", "2")]
    with pytest.raises(CrsSimError, match="sd_c_central is estimated only where"):
        fit_all(two, load_prior(study), draws=0)


def estimate_problem(study, number):
    from crs_sim.fitting.problem import load_problem

    problem = load_problem(study / "estimated")
    return replace(problem, patient=replace(problem.patient, id=number))


def load_prior(study):
    from crs_sim import load_model
    from crs_sim.fitting.priors import load_population

    return load_population(load_model("one_compartment"), study / "estimated.toml")
