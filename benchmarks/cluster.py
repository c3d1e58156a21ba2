"""``python -m benchmarks.cluster``: speed-up by a second worker of a Dask cluster.

Virtual patients of the shipped population run on one and on two worker processes of this machine,
alternately, each after a warm-up. The workers run without Dask's profiler and memory trimming
(`PLAIN`), which add a fifth to the time. Only meaningful on an otherwise idle machine: the load
before is printed and written beside the results.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from crs_sim.population.study_file import PopulationStudy, load_study, with_number
from crs_sim.population.virtual_run import run_population

from . import machine, results
from .timing import Timing

PATIENTS, WARM = 1536, 256
REPEATS = 3
TARGET = 1.8
PLAIN = {"distributed.nanny.pre-spawn-environ": {}, "distributed.worker.profile.enabled": False}
"""Dask configuration."""


def seconds(study: PopulationStudy, workers: int) -> float:
    """Time of a study on a cluster of ``workers`` single-threaded processes."""
    import dask
    from distributed import LocalCluster

    with (
        dask.config.set(PLAIN),
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
    ):
        address = cluster.scheduler_address
        run_population(with_number(study, WARM, None), Path(folder) / "warm", workers=address)
        began = time.perf_counter()
        run_population(study, Path(folder) / "out", workers=address)
        return time.perf_counter() - began


def main() -> None:
    """Measure, print, and write `benchmarks/results/cluster.csv`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--patients", type=int, default=PATIENTS)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--out", type=Path, default=results.FOLDER, help="folder of the results")
    options = parser.parse_args()
    study, load = with_number(load_study("crs"), options.patients, None), os.getloadavg()[0]
    found: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(options.repeats):
        for workers, times in found.items():
            times.append(seconds(study, workers))
            print(f"{workers} worker processes: {times[-1]:.1f} s", flush=True)
    one, two = (Timing(tuple(times)) for times in found.values())
    ratio = one.minimum / two.minimum
    runs = options.patients * len(study.scenarios)
    print(f"two do {ratio:.2f} times the work of one (target {TARGET}); {runs} runs; load before "
          f"{load:.1f}")  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    results.write_csv(options.out / "cluster.csv", [
        {"workers": n, "runs": runs, "minimum_s": f"{t.minimum:.2f}", "median_s": f"{t.median:.2f}",
         "repeats": len(t.seconds), "load_before": f"{load:.1f}", **machine.describe()}
        for n, t in ((1, one), (2, two))
    ])  # fmt: skip


if __name__ == "__main__":
    main()
