"""The compiled engine: its order, its agreement with the plain path, many runs, replays, cache."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from paths import child_environment
from scipy.integrate import solve_ivp
from small_models import EXPLODING, LOOP, ONE, SATURABLE, small
from waiting import PATIENCE

from crs_sim.dosing.doses import Dose, Schedule
from crs_sim.dosing.scenario import Change, Scenario
from crs_sim.dosing.timeline import build_timeline, empty_timeline
from crs_sim.errors import CrsSimError
from crs_sim.model.codegen import compile_model
from crs_sim.model.model_file import load_model
from crs_sim.patients.patient import load_patient
from crs_sim.simulation.simulation import simulate
from crs_sim.solver import kernel
from crs_sim.solver.kernel import compile_kernel, gradient
from crs_sim.solver.ode_solver import Rosenbrock, Setup
from crs_sim.solver.rosenbrock import DONE, WORDS, fraction
from crs_sim.solver.segment_loop import ARGUMENTS, Kind, kinds
from crs_sim.store import files as codecache

DOSES = Schedule((Dose(0.5, "E", 3), Dose(1, "S", 2, hours=2), Dose(1.5, "S", 1)))
CASE = Scenario("case", DOSES, (Change("r", first=1.2, last=3, factor=0.4),))
DAYS = np.linspace(0, 6, 25)


def nominal(model):
    return np.array([p.value for p in model.parameters])


def steps_over(last, count):
    return np.full(count, last / count)


@pytest.mark.parametrize(
    ("model", "start", "fewest"), [(SATURABLE, [9.0], 1), (LOOP, [5.0, 0.4, 30.0, 1.0], 16)]
)
def test_order_of_convergence_is_five(model, start, fewest):
    engine, p, y = compile_kernel(model), nominal(model)[None], np.array([start])
    line = empty_timeline(0.0, 0.5)
    true = engine.run(line, p, rtol=1e-13, start=y).final
    errors = [
        np.abs(engine.replay(line, p, steps_over(0.5, n), start=y).final / true - 1).max()
        for n in (fewest, 2 * fewest, 4 * fewest)
    ]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert orders == pytest.approx(5, abs=0.5)


def test_dense_output_is_of_order_four():
    engine, p, y = compile_kernel(SATURABLE), nominal(SATURABLE)[None], np.array([[9.0]])
    inside = np.linspace(0.01, 1.99, 57)
    true = engine.run(empty_timeline(0.0, 2.0).sampled(inside), p, rtol=1e-13, start=y).states
    errors = []
    for n in (8, 16, 32):
        again = engine.replay(
            empty_timeline(0.0, 2.0).sampled(inside), p, steps_over(2.0, n), start=y
        )
        errors.append(np.abs(again.states - true).max())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert orders.min() > 3.6


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(-0.7, 0.7), min_size=len(LOOP.parameters), max_size=len(LOOP.parameters)),
    st.lists(
        st.tuples(st.floats(0, 6), st.sampled_from("ES"), st.floats(0.01, 20), st.floats(0, 30)),
        max_size=5,
    ),
)
def test_agrees_with_radau_on_random_schedules_and_parameters(shifts, doses):
    values = {p.id: p.value * np.exp(s) for p, s in zip(LOOP.parameters, shifts, strict=True)}
    given = Schedule(
        tuple(Dose(day, drug, amount, "", hours) for day, drug, amount, hours in doses)
    )
    scenario = Scenario("random", given, values=values)
    fast = simulate(LOOP, scenario, days=DAYS, rtol=1e-7)
    plain = simulate(LOOP, scenario, days=DAYS, method="Radau", rtol=1e-8)
    size = np.abs(plain.states).max(axis=0)
    assert fast.states == pytest.approx(plain.states, rel=1e-5, abs=float((1e-6 * size).max()))


def test_quantities_are_those_of_the_plain_path():
    fast = simulate(LOOP, CASE, days=DAYS, rtol=1e-8)
    again = compile_model(LOOP)
    line, _ = build_timeline(fast.model, CASE, DAYS)
    rows = np.tile(nominal(LOOP), (len(DAYS), 1))
    rows[(DAYS >= 1.2) & (DAYS < 3), LOOP.parameter_ids.index("r")] *= 0.4
    assert fast.quantities == pytest.approx(again.quantities(fast.states, rows), rel=1e-12)
    assert len(line.versions) == 2


def test_stiff_binding_and_zero_states():
    model = small(
        "binding",
        {"L": ("0", "-kon*L*R + koff*C"), "R": ("0", "-kon*L*R + koff*C"),
         "C": ("0", "kon*L*R - koff*C - k*C")},
        {"kon": 1e4, "koff": 3.0, "k": 0.2},
    )  # fmt: skip
    doses = Scenario("both", Schedule((Dose(0, "L", 2), Dose(1, "R", 3, hours=1))))
    fast = simulate(model, doses, until=4, rtol=1e-7)
    plain = simulate(model, doses, until=4, method="Radau", rtol=1e-9)
    assert fast.states == pytest.approx(plain.states, rel=1e-5, abs=1e-8)
    assert (fast.states > -1e-9).all()


@pytest.mark.parametrize("n_runs", [1, 3, 4, 9])
def test_many_runs_are_each_its_own(n_runs):
    rng = np.random.default_rng(n_runs)
    values = nominal(LOOP) * rng.uniform(0.7, 1.4, (n_runs, len(LOOP.parameters)))
    line, _ = build_timeline(LOOP, CASE, DAYS)
    runs = compile_kernel(LOOP).run(line, values, rtol=1e-8)
    assert (runs.status == DONE).all()
    for row, states in zip(values, runs.states, strict=True):
        alone = simulate(LOOP.with_values(**dict(zip(LOOP.parameter_ids, row, strict=True))), CASE,
                         days=DAYS, rtol=1e-8)  # fmt: skip
        assert states == pytest.approx(alone.states, rel=1e-5, abs=1e-7)


def test_a_step_ends_at_each_sample_which_is_more_accurate_than_between_steps():
    model = small("fast", {"A": ("0", "-k*A"), "B": ("1", "-B")}, {"k": 30.0})
    line, _ = build_timeline(
        model, Scenario("given", Schedule((Dose(0, "A", 1),))), np.array([0.0, 4.0])
    )
    engine, p, days = compile_kernel(model), nominal(model)[None], np.linspace(0.25, 0.55, 13)
    unaware = engine.run(line, p, rtol=1e-4)
    between = engine.replay(line.sampled(days), p, unaware.steps).states[0, :, 0]
    landed = []
    for day in days:
        run = engine.run(line.sampled(np.array([0.0, day, 4.0])), p, rtol=1e-4)
        landed.append(run.states[0, 1, 0])
        assert np.abs(np.cumsum(run.steps) - day).min() < 1e-12
        assert len(run.steps) <= len(unaware.steps) + 3
    true = np.exp(-30 * days)
    assert np.abs(landed - true).max() < 0.25 * np.abs(between - true).max()


def test_few_steps_are_rejected_where_doses_set_off_stiff_states():
    scenario = load_patient("ruemmele2025").scenario
    model = load_model("crs").with_values(**scenario.values)
    line, _ = build_timeline(model, scenario, np.arange(41.0))
    run = compile_kernel(model).run(line, nominal(model)[None], rtol=1e-5)
    assert run.status[0] == DONE
    assert run.rejected[0] < 0.1 * run.accepted[0]


def test_a_tighter_tolerance_asks_more_of_a_state_the_smaller_it_is():
    rtols = np.array([1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-9])
    small_ones = np.array([fraction(rtol) for rtol in rtols])
    assert small_ones[1] == pytest.approx(0.003)
    assert (np.diff(small_ones) >= 0).all()
    assert (np.diff(small_ones * rtols) < 0).all()


def test_samples_closer_than_the_clock_can_tell():
    days = 3.0 + 1e-15 * np.array([0, 1, 2, 5e3, 1e7])
    states = compile_kernel(ONE).run(empty_timeline(0.0, 4.0).sampled(days), nominal(ONE)[None],
                                     start=np.array([[8.0, 0.0]])).states  # fmt: skip
    assert states[0, :, 0] == pytest.approx(8 * np.exp(-0.7 * days), rel=1e-6)


def test_the_same_four_give_the_same_bits():
    values = nominal(LOOP) * np.random.default_rng(0).uniform(0.7, 1.4, (8, len(LOOP.parameters)))
    line, _ = build_timeline(LOOP, CASE, DAYS)
    engine = compile_kernel(LOOP)
    both = engine.run(line, values).states
    assert np.array_equal(both[4:], engine.run(line, values[4:]).states)


def test_a_failed_run_leaves_its_neighbours_alone():
    model = small("some", {"A": ("1", "k*A^2")}, {"k": 0.1})
    line, _ = build_timeline(model, Scenario("none"), np.array([0.0, 1.0, 2.0]))
    runs = compile_kernel(model).run(line, np.array([[0.1], [0.9], [-1.0], [0.2], [0.3]]))
    assert runs.status.tolist() == [0, 1, 0, 0, 0]
    assert WORDS[runs.status[1]] == "the step size became too small"
    assert runs.reached[1] == pytest.approx(1 / 0.9, abs=1e-6)
    assert np.isnan(runs.states[1, 2]).all()
    assert runs.states[[0, 2, 3, 4], 2, 0] == pytest.approx([1 / 0.8, 1 / 3, 1 / 0.6, 1 / 0.4])


def test_a_replay_is_the_run_and_smooth():
    line, _ = build_timeline(LOOP, CASE, DAYS)
    engine, p = compile_kernel(LOOP), nominal(LOOP)
    run = engine.run(line, p[None], rtol=1e-4)
    again = engine.replay(line, p[None], run.steps)
    assert np.array_equal(again.states, run.states)
    k = LOOP.parameter_ids.index("k_i")
    scale = np.exp(np.outer([-2e-5, -1e-5, 0, 1e-5, 2e-5], np.eye(len(p))[k]))
    curve = engine.replay(line, p * scale, run.steps).states[:, -1]
    bends = np.diff(curve, n=2, axis=0)
    assert np.abs(bends / curve[0]).max() < 1e-9


def test_gradient_against_differences_of_a_tight_run():
    line, _ = build_timeline(LOOP, CASE, DAYS)
    engine, p = compile_kernel(LOOP), nominal(LOOP)
    free = [LOOP.parameter_ids.index(n) for n in ("r", "K", "n", "beta", "m", "K_i")]
    slopes = gradient(engine, line, p, free, rtol=1e-6)
    assert not slopes.failed.any()
    for row, k in zip(slopes.states, free, strict=True):
        steps = np.exp(np.outer([-2e-3, -1e-3, 1e-3, 2e-3], np.eye(len(p))[k]))
        far_down, down, up, far_up = engine.run(line, p * steps, rtol=1e-12).states
        true = (8 * (up - down) - (far_up - far_down)) / (12 * 1e-3)
        size = np.abs(true).max(axis=0)
        assert np.abs(row - true).max(axis=0) == pytest.approx(0 * size, abs=1e-4 * size.max())


def test_solver_with_events_and_dense_output():
    engine, p = compile_kernel(ONE), nominal(ONE)

    def half(day, y):
        return y[0] - 4

    half.terminal = True
    setup = Setup(engine, p, rtol=1e-9, max_step=0.25)
    solution = solve_ivp(None, (0, 5), [8.0, 0.0], method=Rosenbrock, events=half,
                         dense_output=True, setup=setup)  # fmt: skip
    assert solution.t_events[0] == pytest.approx(np.log(2) / 0.7, rel=1e-7)
    days = np.linspace(0, solution.t[-1], 37)
    assert solution.sol(days)[0] == pytest.approx(8 * np.exp(-0.7 * days), rel=1e-7)


def test_solver_says_why_it_stopped():
    solution = solve_ivp(None, (0, 5), [1.0, 1.0], method=Rosenbrock,
                         setup=Setup(compile_kernel(EXPLODING), np.zeros(0)))  # fmt: skip
    assert not solution.success
    assert "step size" in solution.message


def test_parameters_are_arguments_not_part_of_the_code():
    assert compile_kernel(ONE) is compile_kernel(ONE.with_values(k=3.0))


def test_machine_code_that_is_damaged_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(kernel, "KNOWN", {})
    ready = kernel.step_loop()
    monkeypatch.setattr(kernel, "step_loop", lambda say: ready)
    monkeypatch.setenv("CRS_SIM_CACHE", str(tmp_path))
    compile_kernel(ONE)
    (file,) = tmp_path.glob("*.o")
    file.write_bytes(file.read_bytes()[:-100])
    kernel.KNOWN.clear()
    assert compile_kernel(ONE).n_states == 2
    assert codecache.is_intact(file)


def test_what_compiles_is_loaded_only_to_compile():
    compile_kernel(LOOP)
    script = (
        "import sys; from small_models import LOOP; from crs_sim import simulate\n"
        "simulate(LOOP, until=3); print('numba' in sys.modules, 'sympy' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True,
                         env=child_environment())  # fmt: skip
    assert run.stdout.split() == ["False", "False"]
    assert run.stderr == ""


@pytest.mark.slow
def test_loop_is_compiled_here_where_no_process_can_be_started(tmp_path, monkeypatch):
    (line, _), values = build_timeline(LOOP, CASE, DAYS), nominal(LOOP)[None]
    wanted = compile_kernel(LOOP).run(line, values)
    for name in ("KNOWN", "LOOPS"):
        monkeypatch.setattr(kernel, name, {})
    monkeypatch.setenv("CRS_SIM_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    said = []
    runs = compile_kernel(LOOP, said.append).run(line, values)
    assert runs.states == pytest.approx(wanted.states, rel=1e-12)
    assert "once for this machine" in said[0]


def test_compiler_that_is_stopped_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(kernel, "LOOPS", {})
    monkeypatch.setenv("CRS_SIM_CACHE", str(tmp_path))
    stopped = subprocess.CompletedProcess([], -2, b"half", b"")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: stopped)
    with pytest.raises(CrsSimError, match=r"stopped \(signal 2\)"):
        kernel.step_loop(lambda _: None)
    assert not list(tmp_path.glob("*.o"))


def test_array_of_another_kind_never_reaches_machine_code():
    plan, members, tables, room = (
        group(*(np.zeros((2,) * kind.dimensions, kind.dtype) for kind in kinds(group).values()))
        for group in ARGUMENTS
    )
    loop, others = compile_kernel(LOOP).loop, {"tables": tables, "room": room, "following": False}
    for wrong in (np.zeros((2, 2)), np.zeros(2, np.int64), np.zeros((2, 2), np.int64).T):
        with pytest.raises(TypeError, match=r"^marks: .* contiguous int64 array of 2"):
            loop(plan._replace(marks=wrong), members, **others)


def test_kinds_of_arrays_are_those_declared():
    assert kinds(ARGUMENTS[1]) == {
        "parameters": Kind("float64", 3), "amount": Kind("float64", 2), "start": Kind("float64", 2),
    }  # fmt: skip


@pytest.mark.slow
def test_two_processes_compile_everything_at_once(tmp_path):
    script = (
        "from small_models import LOOP; from crs_sim import simulate\n"
        "print(simulate(LOOP, until=3).states.tolist())"
    )
    environment = child_environment(CRS_SIM_CACHE=str(tmp_path), PATH="")
    both = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]  # fmt: skip
    (one, first), (two, _) = (process.communicate(timeout=PATIENCE) for process in both)
    assert "[" in one
    assert one == two
    assert "once for this machine" in first


def test_the_steps_kept_are_the_first_runs_however_many_run():
    engine, (line, _) = compile_kernel(LOOP), build_timeline(LOOP, CASE, DAYS)
    values = nominal(LOOP)
    others = values * np.linspace(1.0, 1.02, 9)[:, None]
    alone = engine.run(line, np.tile(values, (4, 1)))
    many = engine.run(line, np.vstack([np.tile(values, (4, 1)), others]))
    assert many.steps.tolist() == alone.steps.tolist()
