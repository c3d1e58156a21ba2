"""The published figures, ``published.csv``, and how far from each the model may be.

Each row has a ``rule`` for its interval; the row passes if the model's value lies in it:

================  ==================================================================================
IQR               95 % interval of a median: each side from the quartile there, as if normal (on
                  the logarithm if all are above 0): 1.253 (quartile distance/0.674) 1.96/sqrt(n)
range             the same, the sd from the largest and smallest of n expected in a normal sample
quartiles         n is not known: between the published quartiles
binomial          exact 95 % interval (Clopper and Pearson) of a share of n patients
interval          as published, or as the commission of the model states it
folder            no spread is published: bootstrap 95 % interval of the median of the patients in
                  the folder, read by the same rule, widened to include the published value
factor F          published/F to published times F, where nothing but a median is known
within D          published +- D
at most           up to the upper limit given
================  ==================================================================================

Values are widened by half of their last digit where they are rounded to whole days.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import beta, norm

Array = NDArray[np.float64]
TABLE = Path(__file__).parent / "published.csv"
OF_MEDIAN = math.sqrt(math.pi / 2.0)
"""Standard error of the median of a normal sample, in those of its mean."""
QUARTILE, WIDE = 0.6744897501960817, 1.959963984540054
RESAMPLES = 2000
HALF_DAY = 0.5


@dataclass(frozen=True)
class Target:
    """A published figure; ``measure`` and ``among`` are expressions of columns of a cohort.

    ``statistic`` is the median of the measure, or the share (in per cent) for which it is true.
    ``low`` and ``high`` are what was published beside it (quartiles, range, interval), nan if
    nothing was; ``n`` is 0 if it is not known.
    """

    id: str
    product: str
    arm: str
    panel: str
    quantity: str
    measure: str
    among: str
    statistic: str
    published: float
    low: float
    high: float
    n: int
    unit: str
    rule: str
    source: str


def targets(path: Path = TABLE) -> list[Target]:
    """All rows of the table."""
    table = pd.read_csv(path, keep_default_na=False)
    rows = []
    for row in table.to_dict("records"):
        numbers = {k: float(row[k]) if row[k] != "" else math.nan for k in ("low", "high")}
        rows.append(Target(**{str(k): v for k, v in row.items()} | numbers | {
            "published": float(row["published"]), "n": int(float(row["n"] or 0)),
        }))  # fmt: skip
    return rows


def interval(target: Target, folder: Array | None = None) -> tuple[float, float]:
    """The interval in which the model's value passes.

    ``folder`` are the values of the patients in the folder, for the rule "folder"; without them
    (or with fewer than four) it is a factor of two.
    """
    rule, value = target.rule, target.published
    if rule == "IQR":
        low, high = _median(value, target.low, target.high, target.n, QUARTILE)
    elif rule == "range":
        low, high = _median(value, target.low, target.high, target.n, expected_top(target.n))
    elif rule == "binomial":
        low, high = binomial(value, target.n)
    elif rule in ("interval", "quartiles"):
        low, high = target.low, target.high
    elif rule == "at most":
        low, high = 0.0, target.high
    elif rule == "folder" and folder is not None and len(folder) >= 4:
        low, high = bootstrap(folder, "median", len(folder))
        low, high = min(low, value), max(high, value)
    elif rule.startswith("within"):
        low, high = value - float(rule.split()[1]), value + float(rule.split()[1])
    else:
        factor = 2.0 if rule == "folder" else float(rule.split()[1])
        low, high = value / factor, value * factor
    if target.unit == "day" and rule in ("IQR", "range"):
        low, high = min(low, value - HALF_DAY), max(high, value + HALF_DAY)
    return low, high


def _median(value: float, low: float, high: float, n: int, distance: float) -> tuple[float, float]:
    """An interval of a median from two points, each ``distance`` sds from it."""
    logs = min(value, low, high) > 0
    centre, below, above = np.log([value, low, high]) if logs else np.array([value, low, high])
    half = WIDE * OF_MEDIAN / math.sqrt(n) / distance
    ends = centre - half * (centre - below), centre + half * (above - centre)
    return (math.exp(ends[0]), math.exp(ends[1])) if logs else (float(ends[0]), float(ends[1]))


def expected_top(n: int) -> float:
    """The largest expected of n standard normal numbers (Blom).

    >>> round(expected_top(108), 2)
    2.51
    """
    return float(norm.ppf((n - 0.375) / (n + 0.25)))


def binomial(percent: float, n: int) -> tuple[float, float]:
    """The exact 95 % interval of a share, in per cent.

    >>> tuple(round(x, 1) for x in binomial(50.0, 10))
    (18.7, 81.3)
    """
    hits = round(percent * n / 100.0)
    low = float(beta.ppf(0.025, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0
    return 100.0 * low, 100.0 * high


def statistic(values: Array, which: str) -> float:
    """The median, or the share in per cent of what is not 0; of the values that are there."""
    there = values[~np.isnan(values)]
    if not len(there):
        return math.nan
    return float(np.median(there) if which == "median" else 100.0 * np.mean(there != 0))


def bootstrap(values: Array, which: str, n: int, seed: int = 1) -> tuple[float, float]:
    """The middle 95 % of a statistic in samples of n, drawn with replacement."""
    there, rng = values[~np.isnan(values)], np.random.default_rng(seed)
    if not len(there):
        return math.nan, math.nan
    drawn = there[rng.integers(len(there), size=(RESAMPLES, n))]
    found = np.median(drawn, axis=1) if which == "median" else 100.0 * np.mean(drawn != 0, axis=1)
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)
