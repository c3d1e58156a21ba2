"""``python -m benchmarks``: measure, print, and write `benchmarks/results/`; some minutes."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from . import case as shipped, growth, machine, precision, results, targets
from .figure import draw

BUILD = Path("build/benchmarks")
WIDTHS = (62, 32, 62, 8, 0)


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--starts", type=int, default=targets.FIT_STARTS, help="of the fit")
    parser.add_argument("--out", type=Path, default=results.FOLDER, help="folder of the results")
    return parser.parse_args(arguments)


def line(cells: Iterable[str]) -> str:
    """One printed row."""
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True))


def main() -> None:
    """Run all benchmarks and write the results."""
    arguments = options()
    case, host = shipped.load(), machine.describe()
    print("; ".join(f"{name} {value}" for name, value in host.items()), flush=True)
    print("reference: Radau at rtol 1e-10 (half a minute, then kept in build/)", flush=True)
    reference = shipped.reference(case, BUILD)
    points = []
    for measure in (precision.ours, precision.roadrunner, precision.copasi, precision.plain):
        points += measure(case, reference)
        print(f"work-precision curve of {points[-1].tool}", flush=True)
    print(line(results.COLUMNS))
    rows = []
    for row in targets.rows(case, reference, points, arguments.starts):
        rows.append(row)
        print(line(vars(row).values()), flush=True)
    grown = []
    for one in growth.measured(case):
        grown.append(one)
        print(f"{one.size} {one.what}: {one.timing}", flush=True)
    results.write_targets(arguments.out, rows, host)
    results.write_points(arguments.out, points)
    results.write_growth(arguments.out, grown)
    caption = f"{host['processor']}, {host['cores']} cores, {host['date']}; minimum of repeats"
    draw(points, grown, arguments.out / "benchmarks.png", caption)
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
