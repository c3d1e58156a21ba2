"""Fit the case in its own process: ``python -m benchmarks.fitted STARTS WORKERS``."""

from __future__ import annotations

import json
import sys
import time

from crs_sim import fit, load_problem

if __name__ == "__main__":
    starts, workers = (int(text) for text in sys.argv[1:3])
    begun = time.perf_counter()
    result = fit(load_problem("ruemmele2025"), starts=starts, workers=workers)
    seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds, "cost": result.cost, "runs": result.runs}))
