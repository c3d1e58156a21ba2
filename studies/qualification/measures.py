"""What is measured of a course: onset, duration, fall after the peak, kinetics of the cells.

Rows are patients, columns days. Each function is of readings or of grades, real or simulated alike.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FALL_DAYS, FALL_SHARE = 7.0, 0.05
"""A fall is read from the last highest reading on, for so many days, while above this share of it.
Of the folder's untreated patients, IFN-g falls by 0.40 [0.30-0.71] a day by this rule, where 0.40
[0.31-0.72] is published; the published rule is not stated."""
CONTRACTION_DAYS = 14.0
LATE = 90.0
"""First day from which the persistence of the cells is read."""


def slope(days: Array, readings: Array) -> float:
    """The fall of ln readings per day, by least squares; nan from fewer than two readings."""
    good = readings > 0
    if good.sum() < 2:
        return math.nan
    return -float(np.polyfit(days[good], np.log(readings[good]), 1)[0])


def fall(days: Array, readings: Array) -> float:
    """The fall after the peak per day, by the rule of `FALL_DAYS` and `FALL_SHARE`.

    >>> days = np.arange(8.0)
    >>> round(fall(days, np.exp(-0.5 * np.abs(days - 2.0))), 6)
    0.5
    """
    top = len(readings) - 1 - int(np.argmax(readings[::-1]))
    near = (days >= days[top]) & (days <= days[top] + FALL_DAYS)
    near &= readings >= FALL_SHARE * readings[top]
    return slope(days[near], readings[near])


def falls(days: Array, readings: Array) -> Array:
    """The fall of each row."""
    return np.array([fall(days, row) for row in readings])


def onset(days: Array, grades: Array) -> Array:
    """The first day at grade 1 or more of each row; nan without CRS.

    >>> onset(np.arange(4.0), np.array([[0, 1, 1, 0], [0, 0, 0, 0]])).tolist()
    [1.0, nan]
    """
    ill = grades >= 1
    return np.where(ill.any(axis=1), days[np.argmax(ill, axis=1)], np.nan)


def ended(days: Array, grades: Array) -> Array:
    """The last day at grade 1 or more of each row; nan without CRS."""
    ill = grades >= 1
    last = ill.shape[1] - 1 - np.argmax(ill[:, ::-1], axis=1)
    return np.where(ill.any(axis=1), days[last], np.nan)


def at_rest_after(days: Array, grades: Array, first: Array, wait: float) -> Array:
    """Whether each row is at grade 0 so many days after its own first day (nan: no such day)."""
    found = np.full(len(grades), np.nan)
    for k, day in enumerate(first):
        if not math.isnan(day) and day + wait <= days[-1]:
            found[k] = grades[k, int(np.searchsorted(days, day + wait))] < 1
    return found


def fold(readings: Array) -> Array:
    """The peak over the lowest level above 0 before it, of each row."""
    found = []
    for row in readings:
        before = row[: int(np.argmax(row)) + 1]
        found.append(row.max() / before[before > 0].min() if row.max() > 0 else math.nan)
    return np.array(found)


def contraction(days: Array, readings: Array) -> Array:
    """The fall of ln level over `CONTRACTION_DAYS` after the peak, of each row."""
    found = []
    for row in readings:
        top = int(np.argmax(row))
        near = (days >= days[top]) & (days <= days[top] + CONTRACTION_DAYS)
        found.append(slope(days[near], row[near]))
    return np.array(found)


def persistence(days: Array, readings: Array) -> Array:
    """The fall of ln level from day `LATE` on, of each row."""
    late = days >= LATE
    return np.array([slope(days[late], row[late]) for row in readings])
