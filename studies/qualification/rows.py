"""Published figures row by row, beside those of virtual cohorts."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .cohort import Cohort
from .measures import fall
from .published import Target, bootstrap, interval, statistic
from .virtual import NotInModelError

Array = NDArray[np.float64]
FEWEST = 20
"""Fewest virtual patients from which a statistic is taken."""
USUAL = 50
"""Patients of a virtual trial where the number of the published one is not known."""
NAME = re.compile(r"[A-Za-z_]\w*")
WORDS = {"and", "or", "not"}
NEAR = 1.5
"""Days from the day asked within which a marker of a real patient is read."""


class Columns(Protocol):
    """Anything with columns of numbers, one row per patient."""

    def column(self, name: str) -> Array:
        """A column, or NotInModelError."""


@dataclass(frozen=True)
class Row:
    """A published figure and the model's. Intervals are of 95 %.

    ``low`` and ``high``: the interval of the published figure, by its rule; ``model_low`` and
    ``model_high``: of the model's statistic in trials of the published size.
    """

    id: str
    product: str
    panel: str
    quantity: str
    unit: str
    published: float
    low: float
    high: float
    rule: str
    model: float
    model_low: float
    model_high: float
    patients: int
    passed: bool
    reason: str
    source: str
    folder: float = math.nan


def values_of(cohort: Columns, target: Target) -> Array:
    """The measure of each patient that the figure is about; nan where it is not known.

    Raises
    ------
    NotInModelError
        If one of the columns is not there.
    """
    names = set(NAME.findall(f"{target.measure} {target.among}")) - WORDS
    table = pd.DataFrame({name: cohort.column(name) for name in sorted(names)})
    if target.among:
        table = table[table.eval(target.among)]
    found = table.eval(target.measure)
    unknown = table[sorted(set(NAME.findall(target.measure)) - WORDS)].isna().any(axis=1)
    return np.asarray(found.astype(float).where(~unknown), dtype=float)


def row_of(target: Target, cohort: Columns | None, real: Cohort | None, why: str = "") -> Row:
    """The row of a published figure; ``why`` says why there is no cohort."""
    inside = None if real is None else folder_values(real, target)
    low, high = interval(target, inside)
    folder = math.nan if inside is None else statistic(inside, target.statistic)
    values, reason = np.zeros(0), why
    if cohort is not None:
        try:
            values = values_of(cohort, target)
        except NotInModelError as error:
            reason = f"not in the model: {error}"
    there = values[~np.isnan(values)]
    if not reason and len(there) < FEWEST:
        reason = f"only {len(there)} virtual patients are such"
    value, ends = math.nan, (math.nan, math.nan)
    if not reason:
        value = statistic(there, target.statistic)
        ends = bootstrap(there, target.statistic, target.n or USUAL)
        reason = _verdict(value, low, high)
    return Row(target.id, target.product, target.panel, target.quantity, target.unit,
               target.published, low, high, target.rule, value, *ends, len(there),
               reason == "", reason, target.source, folder)  # fmt: skip


def _verdict(value: float, low: float, high: float) -> str:
    """Nothing if a value lies in the interval, else where it lies."""
    if low <= value <= high:
        return ""
    if value > high:
        return f"too high: {value / high:.2g} times the upper end" if high > 0 else "too high"
    return f"too low: {value / low:.2g} of the lower end" if low > 0 else "too low"


def table(rows: Iterable[Row]) -> pd.DataFrame:
    """All rows as a table."""
    return pd.DataFrame([asdict(row) for row in rows])


# --- the same measures of the patients in the folder ----------------------------------------------


@dataclass(frozen=True, eq=False)
class Real:
    """Columns of the real patients, by the rules that virtual ones are read by."""

    cohort: Cohort

    def column(self, name: str) -> Array:
        """A column; nan where a patient was not read."""
        about = self.cohort.patients
        own = {"worst": about["grade"], "hlh": about["hlh"], "own_hlh": about["hlh"],
               "onset": about["onset"]}  # fmt: skip
        if name in own:
            return np.asarray(own[name], dtype=float)
        if on_day := re.fullmatch(r"(\w+)_d(\d+)", name):
            return self._each(lambda days, x: _near(days, x, float(on_day[2])), on_day[1])
        what, _, observable = name.partition("_")
        if what == "peak":
            return self._each(lambda _, x: float(x.max()), observable)
        if what == "tmax":
            return self._each(lambda days, x: float(days[np.argmax(x)]), observable)
        if what == "fall":
            return self._each(fall, observable)
        raise NotInModelError(name)

    def _each(self, of: Callable[[Array, Array], float], observable: str) -> Array:
        found = []
        for id in self.cohort.patients.index:
            readings = self.cohort.of(str(id), observable)
            days, x = readings["day"].to_numpy(float), readings["value"].to_numpy(float)
            found.append(float(of(days, x)) if len(x) else math.nan)
        return np.array(found)


def _near(days: Array, x: Array, day: float) -> float:
    """The reading nearest to a day, if it is within `NEAR` of it."""
    k = int(np.argmin(np.abs(days - day)))
    return float(x[k]) if abs(days[k] - day) <= NEAR else math.nan


def folder_values(real: Cohort, target: Target) -> Array | None:
    """The measure of the folder's patients for a figure of their trial; None for another's."""
    if target.product != "cd22":
        return None
    cohort = real
    if target.arm == "no drug":
        mine = real.patients[real.patients["untreated"]]
        cohort = Cohort(mine, real.readings)
    try:
        values = values_of(Real(cohort), target)
    except NotInModelError:
        return None
    return values[~np.isnan(values)]
