"""Write the result tables: CSV for programs, Markdown for readers."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from .growth import Grown
from .precision import Point
from .targets import Row

FOLDER = Path(__file__).parent / "results"
COLUMNS = ("what", "target", "measured", "met", "accuracy")


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows with the same keys, which become the header."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_targets(folder: Path, rows: Sequence[Row], machine: Mapping[str, str]) -> None:
    """Write targets.csv (machine in every row), targets.md (machine below) and machine.json."""
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "targets.csv", [asdict(row) | dict(machine) for row in rows])
    (folder / "targets.md").write_text(markdown(rows, machine), encoding="utf-8")
    text = json.dumps(dict(machine), indent=1) + "\n"
    (folder / "machine.json").write_text(text, encoding="utf-8")


def markdown(rows: Sequence[Row], machine: Mapping[str, str]) -> str:
    """The table of targets, with the machine below."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    lines += [f"| {' | '.join(asdict(row)[name] for name in COLUMNS)} |" for row in rows]
    host = "; ".join(f"{name} {value}" for name, value in machine.items())
    notes = (
        "Accuracy: the largest relative error in every state and named quantity at daily times "
        "against Radau at rtol 1e-10 (floor: 1/1000 of the curve's maximum), unless stated "
        "otherwise. Each tool runs at its fastest tolerance and setting at which it and every "
        "tighter tolerance tried are within 1e-4. Times are the minimum of several repeats, with "
        "the median; whole processes are judged by the median."
    )
    return "\n".join([*lines, "", notes, "", f"Measured on: {host}.", ""])


def write_points(folder: Path, points: Sequence[Point]) -> None:
    """Write work_precision.csv."""
    write_csv(folder / "work_precision.csv", [
        {"tool": p.tool, "setting": p.setting, "rtol": p.rtol, "error": f"{p.error:.3e}",
         **seconds(p)} for p in points
    ])  # fmt: skip


def write_growth(folder: Path, grown: Sequence[Grown]) -> None:
    """Write growth.csv."""
    write_csv(folder / "growth.csv", [
        {"what": g.what, "size": g.size, **seconds(g), "note": g.note} for g in grown
    ])  # fmt: skip


def seconds(measured: Point | Grown) -> dict[str, object]:
    """Times as columns."""
    timing = measured.timing
    return {"minimum_s": f"{timing.minimum:.6f}", "median_s": f"{timing.median:.6f}",
            "repeats": len(timing.seconds)}  # fmt: skip
