"""Work on a real cluster of three worker processes: one killed half-way, nothing lost or twice."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from dask import config
from distributed import Client, LocalCluster
from paths import child_environment
from small_fits import asked, free
from tiny_case import write_case
from tiny_population import write_population_case
from waiting import PATIENCE, wait_until

from crs_sim.cli.command_line import cli
from crs_sim.errors import CrsSimError, InputError
from crs_sim.fitting.fitting import drop_one, fit
from crs_sim.fitting.priors import Population
from crs_sim.fitting.problem import load_problem
from crs_sim.fitting.storage import save_run
from crs_sim.population.population_fit import fit_all
from crs_sim.population.study_file import load_study, with_number
from crs_sim.population.virtual_run import run_population
from crs_sim.scenarios.search_space import load_search
from crs_sim.scenarios.searching import search
from crs_sim.scenarios.sensitivities import SensitivityPlan, sensitivity
from crs_sim.simulation import cluster as door
from crs_sim.simulation.cluster import completed_on_cluster, parallel_map
from crs_sim.simulation.endpoints import endpoint
from crs_sim.uncertainty.cross_validation import leave_out
from crs_sim.uncertainty.profiling import profile

WORKERS = 3


@pytest.fixture(scope="module")
def running():
    # a busy machine may need longer than Dask's 15 s to start a lost worker again, and then none is
    patient = config.set({"distributed.deploy.lost-worker-timeout": f"{PATIENCE}s"})
    with patient, LocalCluster(n_workers=WORKERS, threads_per_worker=1, processes=True,
                               dashboard_address=":0", silence_logs=60) as cluster:  # fmt: skip
        yield cluster


@pytest.fixture
def cluster(running):
    """All workers are there, whatever the test before did to them."""
    with Client(running.scheduler_address, set_as_default=False) as client:
        client.wait_for_workers(WORKERS, timeout=PATIENCE)
    return running


@pytest.fixture
def impatient(monkeypatch):
    """For tests where nothing answers."""
    monkeypatch.setattr(door, "CONNECT", 1.0)
    monkeypatch.setattr(door, "REACH", 0.5)


def processes(running: LocalCluster) -> dict[str, int]:
    """Process of each worker, by its address."""
    with Client(running.scheduler_address, set_as_default=False) as client:
        return dict(client.run(os.getpid))


def noted(folder: Path, item: int) -> int:
    """The square of an item; leaves a file when it begins, waits while held, and one as it ends."""
    (folder / f"began-{item}-{os.getpid()}").touch()
    while (folder / f"held-{os.getpid()}").exists():
        time.sleep(0.01)
    (folder / f"ended-{item}-{os.getpid()}").touch()
    return item * item


def refusing(item: int) -> int:
    if item == 2:
        raise InputError("item 2 cannot be used")
    return item


def test_a_worker_killed_half_way_loses_nothing(cluster, tmp_path):
    found = {}
    victim = next(iter(processes(cluster).values()))
    (tmp_path / f"held-{victim}").touch()  # so that it has not ended its work when it is killed
    for place, result in completed_on_cluster(
        cluster.scheduler_address, partial(noted, tmp_path), range(18)
    ):
        assert place not in found
        found[place] = result
        if len(found) == 6:
            wait_until(lambda: cut_short(tmp_path, victim))
            os.kill(victim, signal.SIGKILL)
    assert [found[k] for k in range(18)] == [k * k for k in range(18)]
    lost = cut_short(tmp_path, victim)
    assert lost  # it was killed over its work, which another did
    for item in lost:
        assert list(tmp_path.glob(f"ended-{item}-*"))


def cut_short(folder: Path, process: int) -> set[str]:
    """Items that a process began and did not end."""
    began, ended = ({p.name.split("-")[1] for p in folder.glob(f"{what}-*-{process}")}
                    for what in ("began", "ended"))  # fmt: skip
    return began - ended


def test_a_population_is_the_same_on_a_cluster_that_loses_a_worker(cluster, tmp_path):
    study = with_number(load_study(write_population_case(tmp_path)), 900, None)
    here = run_population(study, tmp_path / "here", workers=1)
    victims = list(processes(cluster).values())[:1]

    def kill(done: int, total: int) -> None:
        while done >= total / 3 and victims:
            os.kill(victims.pop(), signal.SIGKILL)

    there = run_population(study, tmp_path / "there", workers=cluster.scheduler_address,
                           progress=kill)  # fmt: skip
    assert not victims
    ours, theirs = (
        {p.relative_to(r.folder): p.read_bytes() for p in sorted(r.folder.rglob("*.*"))}
        for r in (here, there)
    )
    assert ours == theirs
    assert there.members()["member"].tolist() == list(range(900))


@pytest.fixture(scope="module")
def best(tmp_path_factory):
    folder = write_case(tmp_path_factory.mktemp("tiny")) / "fit"
    (folder / "search.toml").write_text(SEARCH, encoding="utf-8")
    result = fit(load_problem(folder), workers=1)
    save_run(result, folder)
    return result


SEARCH = """
until = 12
minimise = ["peak_amount"]
maximise = ["amount_d12"]
method = "nsga2"
trials = 120
generation = 20
[[vary]]
drug = "pill"
what = "factor"
between = [0.5, 2]
"""


def home(best) -> Path:
    return Path(best.problem.path).parent


def searched(best, folder, **options):
    question = load_search(home(best), best.problem.patient.scenario, best.model)
    return search(best, question, folder=folder, **options).table()


def driven(best, folder, **options):
    ends = tuple(endpoint(best.model, name) for name in ("shock_d1", "worst_grade"))
    found = sensitivity(best, SensitivityPlan(ends, samples=128, until=12.0), folder=folder,
                        **options)  # fmt: skip
    return pd.concat([found.table(), found.tornado_table()])


@pytest.mark.parametrize(
    ("job", "log"),
    [pytest.param(searched, "trials.jsonl", marks=pytest.mark.slow), (driven, "runs.jsonl")],
)
def test_rows_are_the_same_on_a_cluster_that_loses_a_worker(cluster, best, tmp_path, job, log):
    here = job(best, tmp_path / "here", workers=1)
    victims = list(processes(cluster).values())[:1]
    told = []

    def kill(done: int, total: int) -> None:
        told.append(done)
        while done >= total / 3 and victims:
            os.kill(victims.pop(), signal.SIGKILL)

    there = job(best, tmp_path / "there", workers=cluster.scheduler_address, progress=kill)
    assert not victims and told == sorted(set(told))
    whole = (tmp_path / "here" / log).read_bytes()
    assert (tmp_path / "there" / log).read_bytes() == whole
    assert there.equals(here)
    half = tmp_path / "half"
    half.mkdir()
    (half / log).write_bytes(whole[: len(whole) // 2])  # gone on with elsewhere
    again = job(best, half, workers=cluster.scheduler_address, resume=True)
    assert (half / log).read_bytes() == whole and again.equals(here)


def test_one_connection_does_for_a_whole_search(cluster, best, tmp_path, monkeypatch):
    opened, plain = [], door._reached
    monkeypatch.setattr(door, "_reached", lambda address: opened.append(address) or plain(address))
    searched(best, tmp_path, workers=cluster.scheduler_address)
    assert opened == [cluster.scheduler_address]


def test_profiles_and_fits_without_an_observation_are_the_same_on_a_cluster(cluster, best):
    address = cluster.scheduler_address
    (here,), (there,) = (profile(best, ["k"], workers=who) for who in (1, address))
    assert (there.points == here.points).all() and (there.costs == here.costs).all()
    (here,), (there,) = (leave_out(best, [["a1"]], workers=who) for who in (1, address))
    assert there.fit.values == here.fit.values and there.held_out == here.held_out


def test_patients_fitted_at_once_are_the_same_on_a_cluster(cluster):
    what = (free("k", 0.5, 0.5), free("a0", 10.0, 0.5))
    one = asked(*what, starts=1)
    two = replace(one, patient=replace(one.patient, id="another"))
    assumed = Population("assumed", one.model, what, one.noise, 0.0)
    here, there = (
        fit_all([one, two], assumed, workers=who) for who in (1, cluster.scheduler_address)
    )
    assert there.rounds == here.rounds and there.table().equals(here.table())


@pytest.mark.parametrize("command", [
    ["search", "RUN"], ["sensitivity", "RUN", "--endpoint", "peak_amount"], ["fit", "RUN"],
    ["profile", "RUN"], ["leave-one-out", "RUN"], ["population", "crs"],
])  # fmt: skip
@pytest.mark.usefixtures("impatient")
def test_a_command_without_its_cluster_is_one_message(command, best, tmp_path):
    out = tmp_path / "out"
    words = [str(home(best)) if word == "RUN" else word for word in command]
    done = CliRunner().invoke(cli, [*words, "--out", str(out), "--cluster", "tcp://127.0.0.1:1"])
    *verdict, last = done.output.splitlines()  # the verdict of the fit is printed first
    assert done.exit_code == 1 and "Error" not in "".join(verdict), done.output
    assert last.startswith("Error: cluster tcp://127.0.0.1:1  cannot be reached")
    assert not out.exists()


def test_workers_here_and_a_cluster_are_one_too_many(best):
    both = ["profile", str(home(best)), "--workers", "2", "--cluster", "tcp://127.0.0.1:1"]
    done = CliRunner().invoke(cli, both)
    assert done.exit_code == 1 and "leave it out with --cluster" in done.output


def test_a_fit_is_the_same_on_a_cluster(cluster, tmp_path):
    problem = load_problem(write_case(tmp_path) / "fit")
    here = fit(problem, starts=3, workers=1)
    address = cluster.scheduler_address
    there = fit(problem, starts=3, workers=address)
    assert there.values == here.values
    assert [s.cost for s in there.starts] == [s.cost for s in here.starts]
    assert drop_one(here, workers=address) == drop_one(here, workers=1)


def test_an_error_in_the_work_comes_through(cluster):
    with pytest.raises(InputError, match="item 2 cannot be used"):
        parallel_map(refusing, [1, 2, 3], workers=cluster.scheduler_address)


def test_work_that_kills_every_worker_is_said(cluster):
    with pytest.raises(CrsSimError, match="several workers died on the same task"):
        parallel_map(os._exit, [3], workers=cluster.scheduler_address)


def test_a_cluster_that_goes_away_is_one_message(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(door, "CONNECT", 1.0)
    monkeypatch.setattr(door, "REACH", 8.0)  # the cluster is there at first
    running = LocalCluster(n_workers=1, threads_per_worker=1, processes=True,
                           dashboard_address=":0", silence_logs=60)  # fmt: skip
    work = completed_on_cluster(running.scheduler_address, partial(noted, tmp_path), range(50))
    next(work)
    running.close()
    with pytest.raises(CrsSimError, match=r"was lost: .*; restart it.*--resume"):
        list(work)
    assert capfd.readouterr().err.count("\n") < 3  # Dask's own tracebacks are kept back


def test_a_cluster_without_workers_is_said(monkeypatch):
    monkeypatch.setattr(door, "REACH", 5.0)  # the scheduler is there
    said = "has no workers; start some with: dask worker tcp://"
    empty = LocalCluster(n_workers=0, processes=True, dashboard_address=":0")
    with empty as running, pytest.raises(CrsSimError, match=said):
        parallel_map(abs, [1], workers=running.scheduler_address)


def test_another_version_on_a_worker_is_refused(cluster, monkeypatch):
    monkeypatch.setattr("crs_sim.store.files.version", lambda _: "99.0")
    with pytest.raises(CrsSimError, match=r"has crs-sim .*, this is 99.0; install the same"):
        parallel_map(abs, [1], workers=cluster.scheduler_address)


NOWHERE = ("tcp://127.0.0.1:{}", "nonsense://x", "tcp://no-such-host.invalid:1", "host",
           "tcp://host", "tcp://host:port")  # fmt: skip


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("address", NOWHERE)
def test_a_cluster_that_cannot_be_reached(address):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = address.format(free.getsockname()[1])
    with pytest.raises(CrsSimError, match=r"cannot be reached .*`dask scheduler`"):
        parallel_map(abs, [1], workers=where)


def test_an_address_without_a_port_leaves_nothing_behind_that_complains(tmp_path):
    """A client that was half made waited 30 s as Python ended, and left a traceback."""
    home = write_population_case(tmp_path)
    command = [sys.executable, "-m", "crs_sim", "population", str(home), "--out",
               str(tmp_path / "out"), "--cluster", "host"]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False,
                           env=child_environment())  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1 and "missing port number" in ended.stderr


@pytest.mark.usefixtures("impatient")
def test_nothing_is_left_of_a_population_without_its_cluster(tmp_path):
    study, out = load_study(write_population_case(tmp_path)), tmp_path / "out"
    with pytest.raises(CrsSimError, match="cannot be reached"):
        run_population(study, out, workers="tcp://127.0.0.1:1")
    assert not out.exists()
