"""A search on disk: tables of the trials and of the front, and the chosen schedule."""

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
    """The files of a search, for `crs_sim.output.write_whole`.

    Parameters
    ----------
    found : Search
    chosen : the trial that chosen.toml holds
    comparisons : of trials with what was done, by whom they are of (draws of the fit, virtual
        patients)
    folder : where they go

    Returns
    -------
    mapping of path to content: ``trials.csv``; ``front.csv``, a row a trial of the front with its
    variables and endpoints; ``front_draws.csv``, a row for each of those that were run with draws,
    and endpoint; ``chosen.toml``, for ``crs-sim compare``
    """
    table = found.table()
    front = table.set_index("trial").loc[list(found.front)].drop(columns=["front", "failed"])
    front["chosen"] = front.index == chosen
    question = found.question
    ends = [e.name for e in (*question.objectives, *question.endpoints)]
    note = "\n".join([f"Trial {chosen} of a search. Research use only. See it in full with",
                      "crs-sim compare RUN --scenarios chosen.toml",
                      *question.words(found.points[chosen].tolist())])  # fmt: skip
    said = scenarios_text(
        [found.scenario(chosen)], question.given, endpoints=list(dict.fromkeys(ends)),
        courses=question.courses, until=question.plan.until, note=note,
    )  # fmt: skip
    files = {
        folder / "trials.csv": csv_file(table, DIGITS),
        folder / "front.csv": csv_file(front.reset_index(), DIGITS),
        folder / CHOSEN: said.encode(),
    }
    if comparisons:
        parts = [c.table().assign(members=who) for who, c in comparisons.items()]
        files[folder / "front_draws.csv"] = csv_file(pd.concat(parts, ignore_index=True), DIGITS)
    return files
