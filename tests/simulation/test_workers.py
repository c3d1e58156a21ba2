"""Work on several processes: order, errors, interruption, and nothing left running."""

import os
import signal
import subprocess
import sys
from math import sqrt
from pathlib import Path

import pytest
from paths import child_environment
from waiting import PATIENCE, wait_until

from crs_sim.errors import CrsSimError, InputError
from crs_sim.simulation.workers import process_map

JOB = """
import os, time
from pathlib import Path
from crs_sim.simulation.workers import raise_if_stopped

def job(folder):
    Path(folder, str(os.getpid())).touch()
    while True:
        raise_if_stopped()
        time.sleep(0.02)
"""
SCRIPT = """
from job import job
from crs_sim.simulation.workers import process_map
process_map(job, ["pids", "pids"], workers=2)
"""


@pytest.mark.parametrize("workers", [1, 2, None])
def test_results_come_back_in_the_order_of_the_items(workers):
    items = [4.0, 9.0, 1.0]
    seen = []
    assert process_map(sqrt, items, workers=workers, finished=seen.append) == [2.0, 3.0, 1.0]
    assert sorted(seen) == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_the_work_comes_through(workers):
    with pytest.raises(ValueError, match=r"math domain error|nonnegative"):
        process_map(sqrt, [4.0, -1.0], workers=workers)


def test_a_killed_worker_is_said():
    with pytest.raises(CrsSimError, match="a worker process was killed"):
        process_map(os._exit, [3, 3], workers=2)


def test_workers_must_be_at_least_one():
    with pytest.raises(InputError, match="workers is 0; give 1 or more"):
        process_map(sqrt, [1.0], workers=0)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks processes up in /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_script_leaves_no_process_behind(how, tmp_path):
    """The script has no __main__ guard: a process that ran it again would start two more."""
    (tmp_path / "job.py").write_text(JOB)
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "pids").mkdir()
    parent = subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=child_environment(),
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: len(list((tmp_path / "pids").iterdir())) == 2,
               alive=lambda: parent.poll() is None)  # fmt: skip
    parent.send_signal(how)
    assert parent.wait(PATIENCE) != 0
    workers = [int(path.name) for path in (tmp_path / "pids").iterdir()]
    assert len(workers) == 2
    wait_until(lambda: not any(map(alive, workers)))


def alive(pid):
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    return "\nState:\tZ" not in status
