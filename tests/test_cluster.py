"""Work on a real cluster of three worker processes: one killed half-way, nothing lost or twice."""

from __future__ import annotations

import os
import signal
import socket
import time
from functools import partial
from pathlib import Path

import pytest
from distributed import Client, LocalCluster
from tiny_case import write_case
from tiny_population import write_population_case

from crs_sim import cluster as door
from crs_sim.cluster import as_done, everywhere
from crs_sim.errors import CrsSimError, InputError
from crs_sim.fitting import drop_one, fit
from crs_sim.populationfile import load_study, with_number
from crs_sim.populationrun import run_population
from crs_sim.problem import load_problem

WORKERS = 3


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(n_workers=WORKERS, threads_per_worker=1, processes=True,
                      dashboard_address=":0", silence_logs=60) as running:  # fmt: skip
        yield running


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(door, "CONNECT", 1.0)


def processes(running: LocalCluster) -> dict[str, int]:
    """Process of each worker, by its address."""
    with Client(running.scheduler_address, set_as_default=False) as client:
        return dict(client.run(os.getpid))


def noted(folder: Path, item: int) -> int:
    """The square of an item, after a while; leaves a file when it begins and one when it ends."""
    (folder / f"began-{item}-{os.getpid()}").touch()
    time.sleep(0.15)
    (folder / f"ended-{item}-{os.getpid()}").touch()
    return item * item


def refusing(item: int) -> int:
    if item == 2:
        raise InputError("item 2 cannot be used")
    return item


def test_a_worker_killed_half_way_loses_nothing(cluster, tmp_path):
    found = {}
    victim = next(iter(processes(cluster).values()))
    for place, result in as_done(cluster.scheduler_address, partial(noted, tmp_path), range(18)):
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

    there = run_population(study, tmp_path / "there", cluster=cluster.scheduler_address,
                           progress=kill)  # fmt: skip
    assert not victims
    ours, theirs = (
        {p.relative_to(r.folder): p.read_bytes() for p in sorted(r.folder.rglob("*.*"))}
        for r in (here, there)
    )
    assert ours == theirs
    assert there.members()["member"].tolist() == list(range(900))


def test_a_fit_is_the_same_on_a_cluster(cluster, tmp_path):
    problem = load_problem(write_case(tmp_path) / "fit")
    here = fit(problem, starts=3, workers=1)
    address = cluster.scheduler_address
    there = fit(problem, starts=3, cluster=address)
    assert there.values == here.values
    assert [s.cost for s in there.starts] == [s.cost for s in here.starts]
    assert drop_one(here, cluster=address) == drop_one(here, workers=1)


def test_an_error_in_the_work_comes_through(cluster):
    with pytest.raises(InputError, match="item 2 cannot be used"):
        everywhere(refusing, [1, 2, 3], cluster=cluster.scheduler_address)


def test_work_that_kills_every_worker_is_said(cluster):
    with pytest.raises(CrsSimError, match="several workers died over one and the same piece"):
        everywhere(os._exit, [3], cluster=cluster.scheduler_address)


def test_a_cluster_that_goes_away_is_one_message(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(door, "REACH", 3.0)
    running = LocalCluster(n_workers=1, threads_per_worker=1, processes=True,
                           dashboard_address=":0", silence_logs=60)  # fmt: skip
    work = as_done(running.scheduler_address, partial(noted, tmp_path), range(50))
    next(work)
    running.close()
    with pytest.raises(CrsSimError, match=r"went away: .*; start it again.*--resume"):
        list(work)
    assert capfd.readouterr().err.count("\n") < 3  # Dask's own tracebacks are kept back


def test_a_cluster_without_workers_is_said(monkeypatch):
    monkeypatch.setattr(door, "REACH", 0.5)
    said = "has no workers; start some with: dask worker tcp://"
    empty = LocalCluster(n_workers=0, processes=True, dashboard_address=":0")
    with empty as running, pytest.raises(CrsSimError, match=said):
        everywhere(abs, [1], cluster=running.scheduler_address)


def test_another_version_on_a_worker_is_refused(cluster, monkeypatch):
    monkeypatch.setattr("crs_sim.__version__", "99.0", raising=False)
    with pytest.raises(CrsSimError, match=r"has crs-sim .*, this is 99.0; install the same"):
        everywhere(abs, [1], cluster=cluster.scheduler_address)


NOWHERE = ("tcp://127.0.0.1:{}", "nonsense://x", "tcp://no-such-host.invalid:1")


@pytest.mark.parametrize("address", NOWHERE)
def test_a_cluster_that_cannot_be_reached(address, monkeypatch):
    monkeypatch.setattr(door, "REACH", 0.5)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = address.format(free.getsockname()[1])
    with pytest.raises(CrsSimError, match=r"cannot be reached .*`dask scheduler`"):
        everywhere(abs, [1], cluster=where)


def test_nothing_is_left_of_a_population_without_its_cluster(tmp_path, monkeypatch):
    monkeypatch.setattr(door, "REACH", 0.5)
    study, out = load_study(write_population_case(tmp_path)), tmp_path / "out"
    with pytest.raises(CrsSimError, match="cannot be reached"):
        run_population(study, out, cluster="tcp://127.0.0.1:1")
    assert not out.exists()


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)
