"""Summarise the records of all patients as tables, a figure and a Markdown page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .design import FREE, LEVELS, SDS
from .patients import ANALYSES, shift

Records = Sequence[dict[str, Any]]
BLUE, ORANGE, VERMILION, GREY = "#0072B2", "#E69F00", "#D55E00", "#888888"


def bias(records: Records) -> pd.DataFrame:
    """One row per parameter: bias and rmse of ln(estimate/truth), and spread of the true values.

    ``mean_z`` and ``sd_z`` are mean and sd of ln(estimate/truth) over its standard error; sd_z
    should be 1.
    """
    rows = []
    for name in (n for n in (*FREE, *SDS) if n in records[0]["truth"]):
        d = np.array([shift(r, "fit", name) for r in records])
        error = np.array([r["fit"]["errors"][name] for r in records])
        truth = np.log([r["truth"][name] for r in records])
        rows.append({
            "parameter": name,
            "bias": d.mean(),
            "bias_error": d.std(ddof=1) / np.sqrt(len(d)),
            "rmse": np.sqrt(np.mean(d**2)),
            "spread_of_truth": truth.std(ddof=1),
            "mean_z": (d / error).mean(),
            "sd_z": (d / error).std(ddof=1),
        })  # fmt: skip
    return pd.DataFrame(rows)


def coverage(records: Records, names: Sequence[str] = FREE, together: str = "all") -> pd.DataFrame:
    """Coverage: one row per method, parameter (and all together) and level."""
    rows = []
    for method in records[0]["fit"]["intervals"]:
        covered = np.array([
            [[_covers(r, method, name, k) for k in range(len(LEVELS))] for name in names]
            for r in records
        ])  # fmt: skip
        each_name = zip(names, np.moveaxis(covered, 1, 0), strict=True)
        for name, share in (*each_name, (together, None)):
            each = covered.mean(axis=1) if share is None else share.astype(float)
            for k, level in enumerate(LEVELS):
                rows.append({
                    "method": method, "parameter": name, "level": level,
                    "coverage": each[:, k].mean(),
                    "error": each[:, k].std(ddof=1) / np.sqrt(len(each)),
                })  # fmt: skip
    return pd.DataFrame(rows)


def _covers(record: dict[str, Any], method: str, name: str, k: int) -> bool:
    low, high = record["fit"]["intervals"][method][name][k]
    return bool(low <= record["truth"][name] <= high)


def censoring(records: Records) -> pd.DataFrame:
    """One row per analysis and parameter: bias of ln(estimate/truth), and 95 % coverage."""
    rows = []
    for analysis in ANALYSES:
        for name in FREE:
            d = np.array([shift(r, analysis, name) for r in records])
            error = np.array([r[analysis]["errors"][name] for r in records])
            rows.append({
                "analysis": analysis, "parameter": name, "bias": d.mean(),
                "bias_error": d.std(ddof=1) / np.sqrt(len(d)), "rmse": np.sqrt(np.mean(d**2)),
                "coverage_95": np.mean(np.abs(d) < 1.959963984540054 * error),
            })  # fmt: skip
    return pd.DataFrame(rows)


ALL_SDS = "all sds"


def estimated_coverage(records: Records) -> pd.DataFrame:
    """The coverage of the model's parameters, then of the residual errors."""
    return pd.concat([coverage(records), coverage(records, SDS, ALL_SDS)], ignore_index=True)


def residual_errors(records: Records) -> pd.DataFrame:
    """One row per residual error: the geometric mean of estimate/truth, as it is and corrected."""
    rows = []
    for name in SDS:
        ratios = {
            "estimated": [r["fit"]["values"][name] / r["truth"][name] for r in records],
            "corrected": [r["fit"]["corrected"][name] / r["truth"][name] for r in records],
        }
        row = {"parameter": name, "truth": records[0]["truth"][name]}
        for which, each in ratios.items():
            d = np.log(each)
            row |= {which: np.exp(d.mean()), f"{which}_error": d.std(ddof=1) / np.sqrt(len(d))}
            row |= {f"{which}_variance": np.mean(np.square(each))}
        rows.append(row)
    return pd.DataFrame(rows)


def figure(records: Records, *, estimated: bool = False) -> Figure:
    """Estimate/truth ratios, coverage by level, and bias under three treatments of censoring."""
    drawn = Figure(figsize=(11, 3.8), layout="constrained")
    left, middle, right = drawn.subplots(1, 3)
    if estimated:
        drawn.suptitle(f"{len(records)} synthetic patients, residual error estimated", fontsize=10)
        _scatter(left, records, (*FREE, *SDS))
        for ax, table in ((middle, coverage(records)), (right, coverage(records, SDS, "all"))):
            _coverage(ax, table, 0)
        middle.set_title("parameters of the model", fontsize=9)
        right.set_title("residual errors", fontsize=9)
        return drawn
    _scatter(left, records, FREE)
    _coverage(middle, coverage(records))
    _censoring(right, censoring(records))
    drawn.suptitle(f"{len(records)} synthetic patients", fontsize=10)
    return drawn


def _scatter(ax: Any, records: Records, names: Sequence[str]) -> None:
    for k, name in enumerate(names):
        d = [shift(r, "fit", name) for r in records]
        rng = np.random.default_rng(k)
        ax.plot(d, k + 0.3 * (rng.random(len(d)) - 0.5), ".", ms=3, color=BLUE, alpha=0.5)
        ax.plot(np.mean(d), k, "|", ms=14, color=VERMILION)
    ax.axvline(0, color=GREY, lw=0.8)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set_xlabel("ln(estimate/truth); red: mean")


def _coverage(ax: Any, table: pd.DataFrame, least: int = 40) -> None:
    ax.plot([0, 100], [0, 100], color=GREY, lw=0.8)
    methods = zip((BLUE, ORANGE, VERMILION), (-1.2, 1.2, 0.0), table.groupby("method"),
                  strict=False)  # fmt: skip
    for colour, aside, (method, rows) in methods:
        whole = rows[rows["parameter"] == "all"]
        single = rows[rows["parameter"] != "all"]
        ax.plot(100 * single["level"] + aside, 100 * single["coverage"], "_", ms=9, color=colour)
        ax.errorbar(100 * whole["level"] + aside, 100 * whole["coverage"],
                    yerr=196 * whole["error"], fmt="o", ms=5, color=colour,
                    label=f"{method}; strokes: single parameters")  # fmt: skip
    ax.axhspan(90, 98, color="#EEEEEE", lw=0, zorder=0)
    ax.set_xlim(40, 100)
    ax.set_ylim(least, 101)
    ax.set_xlabel("level, %")
    ax.set_ylabel("coverage, %")
    ax.legend(frameon=False, fontsize=8, loc="upper left" if least == 40 else "lower right")


def _censoring(ax: Any, table: pd.DataFrame) -> None:
    for k, (colour, analysis) in enumerate(zip((BLUE, ORANGE, VERMILION), ANALYSES, strict=True)):
        rows = table[table["analysis"] == analysis]
        ax.errorbar(rows["bias"], np.arange(len(rows)) + 0.2 * (k - 1),
                    xerr=1.96 * rows["bias_error"], fmt="o", ms=4, color=colour,
                    label=analysis)  # fmt: skip
    ax.axvline(0, color=GREY, lw=0.8)
    ax.set_yticks(range(len(FREE)), FREE, fontsize=8)
    ax.set_xlabel("bias of ln estimate, limit of IFN-γ raised")
    ax.legend(frameon=False, fontsize=8)


def page(records: Records, command: str, failed: Records) -> str:
    """The tables as a Markdown page, with the command that produced them."""
    below, readings = np.sum([r["censored"] for r in records], axis=0)
    parts = [
        *_first_parts(records, command, failed),
        "## Coverage\n\nThe share of intervals that contain the true value; all: all parameters.",
        markdown(_wide(coverage(records))),
        f"## Readings below the limit\n\nThe same patients with an IFN-γ assay of a higher limit: "
        f"{below} of {readings} IFN-γ readings are below it. They are modelled (censored "
        "likelihood), dropped, or set to half the limit.",
        markdown(censoring(records)),
    ]
    return "\n\n".join(parts) + "\n"


def estimated_page(records: Records, command: str, failed: Records) -> str:
    """The tables of the fits with estimated residual error."""
    parts = [
        *_first_parts(records, command, failed),
        "The residual errors (sd) have flat priors: theirs is the maximum of the likelihood.",
        "## Residual errors\n\nGeometric mean of estimate/truth with its standard error (of the "
        "logarithm), and the mean of the variance ratio; as estimated, and corrected for the "
        "parameters fitted, as in the verdict.",
        markdown(residual_errors(records)),
        "## Coverage\n\nThe share of intervals that contain the true value; all: all parameters "
        f"of the model; {ALL_SDS}: all residual errors.",
        markdown(_wide(estimated_coverage(records))),
    ]
    return "\n\n".join(parts) + "\n"


def _first_parts(records: Records, command: str, failed: Records) -> list[str]:
    agreed = sum(record["fit"]["agreeing"] > 1 for record in records)
    return [
        "# Results",
        f"Made by `{command}`. All patients are synthetic. {len(records)} were fitted, "
        f"{len(failed)} failed" + "".join(f"; {r['number']}: {r['error']}" for r in failed) + ". "
        f"In {agreed} both starts ended within 0.5 of the best cost.",
        "## Bias\n\nBias of ln(estimate/truth) with its standard error. The estimate is the "
        "maximum a posteriori under the prior the patients were drawn from.",
        markdown(bias(records)),
    ]


def _wide(table: pd.DataFrame) -> pd.DataFrame:
    table = table.assign(level=[f"{100 * level:.0f} %" for level in table["level"]])
    wide = table.pivot(index=["method", "parameter"], columns="level", values="coverage")
    order = table[["method", "parameter"]].drop_duplicates()
    return wide.loc[list(order.itertuples(index=False, name=None))].reset_index()


def markdown(table: pd.DataFrame) -> str:
    """A table with three decimals."""
    rows = [[f"{x:.3f}" if isinstance(x, float) else str(x) for x in row]
            for row in table.itertuples(index=False)]  # fmt: skip
    lines = [list(table.columns), ["---"] * len(table.columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
