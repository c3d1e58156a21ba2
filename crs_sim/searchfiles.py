"""Files of a schedule search: tables of the trials and of the Pareto front, and a schedule."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from .comparison import Comparison
from .output import csv_file
from .scenariotext import scenarios_text
from .searching import Search

CHOSEN = "chosen.toml"
DIGITS = 6


def search_files(
    found: Search, chosen: int, *, comparisons: Mapping[str, Comparison], folder: Path
) -> dict[Path, bytes]:
    """Format the files of a search, for `crs_sim.output.write_atomic`.

    Parameters
    ----------
    found : Search
    chosen : the trial written to chosen.toml
    comparisons : of trials with the treatment as given, by the source of their members (draws of
        the fit, virtual patients)
    folder : of the files

    Returns
    -------
    mapping of path to content: ``trials.csv``; ``front.csv``, one row per trial of the front with
    its variables and endpoints; ``front_draws.csv``, one row for each trial simulated with draws,
    and endpoint; ``chosen.toml``, for ``crs-sim compare``
    """
    table = found.table()
    front = table.set_index("trial").loc[list(found.front)].drop(columns=["front", "failed"])
    front["chosen"] = front.index == chosen
    question = found.question
    ends = [e.name for e in (*question.objectives, *question.endpoints)]
    note = "\n".join([f"Trial {chosen} of a search. Research use only. Simulate it with",
                      "crs-sim compare RUN --scenarios chosen.toml",
                      *question.words(found.points[chosen].tolist())])  # fmt: skip
    text = scenarios_text(
        [found.scenario(chosen)], question.given, endpoints=list(dict.fromkeys(ends)),
        courses=question.courses, until=question.plan.until, note=note,
    )  # fmt: skip
    files = {
        folder / "trials.csv": csv_file(table, DIGITS),
        folder / "front.csv": csv_file(front.reset_index(), DIGITS),
        folder / CHOSEN: text.encode(),
    }
    if comparisons:
        parts = [c.table().assign(members=members) for members, c in comparisons.items()]
        files[folder / "front_draws.csv"] = csv_file(pd.concat(parts, ignore_index=True), DIGITS)
    return files
