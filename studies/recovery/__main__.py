"""python -m studies.recovery: simulate and fit synthetic patients; resumes after a stop."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from crs_sim.errors import CrsSimError
from crs_sim.simulation.workers import process_map
from crs_sim.store.records import append_rows, read_rows

from .design import NOISES
from .intervals import METHODS
from .patients import jobs, recover, recover_estimated
from .summary import (
    bias,
    censoring,
    coverage,
    estimated_coverage,
    estimated_page,
    figure,
    page,
    residual_errors,
)

HERE = Path(__file__).parent


def main() -> None:
    """Run the study and write the results."""
    options = _options()
    estimated = options.noise == "estimated"
    records = _records(options.patients, options.methods, options.workers, options.kept, estimated)
    good = [r for r in records if "error" not in r]
    failed = [r for r in records if "error" in r]
    if not good:
        raise SystemExit(f"no patient could be fitted: {failed[0]['error']}")
    options.out.mkdir(parents=True, exist_ok=True)
    for name, table in (ESTIMATED if estimated else STATED).items():
        frame = table(good)
        frame.to_csv(options.out / f"{name}.csv", index=False, float_format="%.5g",
                     lineterminator="\n")  # fmt: skip
    drawn = "estimated" if estimated else "recovery"
    figure(good, estimated=estimated).savefig(options.out / f"{drawn}.png", dpi=120)
    command = f"make recovery (python -m studies.recovery --noise {options.noise} --patients " \
              f"{options.patients} --methods {','.join(options.methods)})"  # fmt: skip
    text = (estimated_page if estimated else page)(good, command, failed)
    (options.out / f"{'estimated' if estimated else 'found'}.md").write_text(text, encoding="utf-8")
    print(f"wrote {options.out}")


STATED = {"bias": bias, "coverage": coverage, "censoring": censoring}
ESTIMATED = {
    "estimated_bias": bias,
    "estimated_coverage": estimated_coverage,
    "estimated_sds": residual_errors,
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m studies.recovery", description=__doc__)
    parser.add_argument("--patients", type=int, default=200)
    parser.add_argument("--methods", default=",".join(METHODS), type=lambda t: t.split(","),
                        help=f"of {', '.join(METHODS)}")  # fmt: skip
    parser.add_argument("--noise", choices=NOISES, default="stated",
                        help="residual error as the readings were made, or estimated")  # fmt: skip
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument(
        "--kept",
        type=Path,
        default=Path("build/recovery"),
        help="folder of finished patients; delete it to start again",
    )
    parser.add_argument("--out", type=Path, default=HERE / "found")
    options = parser.parse_args()
    unknown = [m for m in options.methods if m not in METHODS]
    if unknown or options.patients < 2:
        parser.error(f"methods are {', '.join(METHODS)}; patients at least 2")
    return options


def _records(
    count: int, methods: list[str], workers: int | None, kept: Path, estimated: bool
) -> list[dict[str, Any]]:
    """Load finished patients and run the rest; results do not depend on order or machine."""
    path = kept / f"{'estimated_' * estimated}{'_'.join(methods)}.jsonl"

    def finished(record: dict[str, Any]) -> None:
        append_rows(path, [record])
        done[record["number"]] = record
        print(f"{len(done)} of {count}", file=sys.stderr)

    try:
        done = {record["number"]: record for record in read_rows(path, dict[str, Any])}
        left = [job for job in jobs(count, methods) if job.number not in done]
        process_map(
            recover_estimated if estimated else recover, left, workers=workers, finished=finished
        )
    except CrsSimError as error:
        raise SystemExit(str(error)) from None
    return [done[k] for k in range(count)]


if __name__ == "__main__":
    main()
