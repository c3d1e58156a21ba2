"""python -m studies.nmtests FOLDER: every scenario of the suites in a folder, with a verdict."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from .design import CONTROL_STREAM, ROUNDING, Suite, suites, verdicts

HERE = Path(__file__).parent


def main() -> None:
    """Run the study and write a table for each suite; exit with 1 if a scenario is wrong."""
    parser = argparse.ArgumentParser(prog="python -m studies.nmtests", description=__doc__)
    parser.add_argument("folder", type=Path, help="holds NAME.csv with NAME.tab, or a column cp")
    parser.add_argument("--out", type=Path, default=HERE / "found")
    options = parser.parse_args()
    found = suites(options.folder) if options.folder.is_dir() else []
    if not found:
        parser.error(f"{options.folder}: no NAME.csv with NAME.tab or a column cp in it")
    options.out.mkdir(parents=True, exist_ok=True)
    wrong = 0
    for suite in found:
        table = verdicts(suite)
        table.to_csv(options.out / f"{suite.path.stem}.csv", index=False, lineterminator="\n")
        text = page(suite, table)
        (options.out / f"{suite.path.stem}.md").write_text(text, encoding="utf-8")
        print(text)
        wrong += int((table["verdict"] == "wrong").sum())
    parser.exit(min(wrong, 1))


def page(suite: Suite, table: pd.DataFrame) -> str:
    """The verdicts of a suite as a Markdown page."""
    counts = table["verdict"].value_counts()
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    values = ", ".join(f"{name} {value:g}" for name, value in CONTROL_STREAM.items())
    lines = [
        f"# {suite.path.stem}, {len(table)} scenarios: {said}",
        "",
        f"Model one_compartment with {values} (litres and days), relative tolerance 1e-9. As "
        f"published: no record differs by more than {ROUNDING:g} of the published value, the "
        "rounding of its five digits. The closed form is the sum over all doses "
        "(`closed_form.py`). Command: `make nmtests` (`python -m studies.nmtests FOLDER`); the "
        "suite is read from the folder and is not part of this repository.",
        "",
        "| scenario | what | records | off | largest difference | times off | from closed form "
        "| verdict |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in table.itertuples(index=False)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
