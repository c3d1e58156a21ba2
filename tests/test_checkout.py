"""What a user's own runs leave in a checkout is nothing to the tests, nor to the shipped run."""

from __future__ import annotations

import re
import shutil

import pytest
from paths import ROOT, SHIPPED_RUN, tracked

from crs_sim.cli.options import file_of_problem
from crs_sim.fitting.storage import load_fit, load_run

NEWEST = re.compile(r"load_(run|fit)\(\W*ruemmele2025\W*[,)]")
"""A shipped name alone stands for the newest run, which may be a user's."""


def test_nothing_that_is_tested_takes_the_newest_run_of_the_case():
    paths = [path for pattern in ("tests/**/*.py", "crs_sim/**/*.py", "benchmarks/**/*.py",
                                  "studies/**/*.py", "notebooks/*.ipynb")
             for path in tracked(pattern)]  # fmt: skip
    assert len(paths) > 150
    assert [path.name for path in paths if NEWEST.search(path.read_text("utf-8"))] == []


def test_the_shipped_run_is_the_only_one_that_is_shipped():
    shipped = {path.parent for path in tracked("fits/ruemmele2025/runs/*/result.json")}
    assert shipped == {SHIPPED_RUN}
    assert SHIPPED_RUN.name in (ROOT / "README.md").read_text(encoding="utf-8")


def test_make_case_leaves_the_shipped_runs_alone():
    rules = (ROOT / "Makefile").read_text(encoding="utf-8")
    (case,) = re.findall(r"^case:.*\n((?:\t.*\n)+)", rules, re.MULTILINE)
    written = re.findall(r"--(?:out|plot) (\S+)", case)
    assert len(written) == 3 and all(path.startswith("build/case") for path in written)
    assert "build/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", ["scenarios.toml", "search.toml", "posterior/posterior.json"])
def test_a_run_written_elsewhere_is_asked_what_its_problem_asks(tmp_path, name):
    """`make case`, then `crs-sim compare build/case`."""
    copied = shutil.copytree(SHIPPED_RUN, tmp_path / "runs" / "one")
    assert load_run(tmp_path).path == copied
    assert file_of_problem(str(tmp_path), name, "--it") == ROOT / "fits" / "ruemmele2025" / name
    assert load_fit(tmp_path).values == load_run(SHIPPED_RUN).values
