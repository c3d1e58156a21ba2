"""The amount in the centre of one compartment with absorption, record by record, in closed form.

A sum over all doses, those before a steady state included; nothing of the package is used. Times
are hours, amounts milligrams.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

CL, V, KA = 1.1, 20.0, 1.5
K = CL / V
FADED = 45.0
"""A dose is forgotten after so many times 1/k: exp(-45) is 3e-20."""


@dataclass(frozen=True)
class Doses:
    """Equal doses into a compartment (1 absorption, 2 centre), starting at ``starts`` (n,)."""

    starts: np.ndarray
    compartment: int
    amount: float
    length: float

    def at(self, time: float) -> float:
        """Their amount in the centre at a time; a bolus counts from its own instant on."""
        since = time - self.starts
        since = since[since >= -1e-9].clip(0.0)
        if not self.length:
            return float(self.amount * decay(since, self.compartment).sum())
        after = np.maximum(since - self.length, 0.0)
        inside = integral(since, self.compartment) - integral(after, self.compartment)
        return float(self.amount / self.length * inside.sum())


def decay(since: np.ndarray, compartment: int) -> np.ndarray:
    """Share of a bolus in the centre, some hours later."""
    if compartment == 2:
        return np.exp(-K * since)
    return KA / (KA - K) * (np.exp(-K * since) - np.exp(-KA * since))


def integral(since: np.ndarray, compartment: int) -> np.ndarray:
    """The integral of `decay` from the bolus on."""
    slow = -np.expm1(-K * since) / K
    if compartment == 2:
        return slow
    return KA / (KA - K) * (slow + np.expm1(-KA * since) / KA)


def amounts(records: pd.DataFrame) -> np.ndarray:
    """The amount in the centre at each record of one subject, in the order of the file.

    A record's own dose counts at its own time; a reset (EVID 3, 4) or SS = 1 ends all before it.
    """
    given: list[Doses] = []
    found = []
    for record in records.itertuples(index=False):
        if record.evid in (3, 4) or (record.evid == 1 and record.ss == 1):
            given = []
        if record.evid in (1, 4):
            given.append(_doses(record))
        found.append(sum(doses.at(record.time) for doses in given))
    return np.array(found)


def _doses(record: tuple) -> Doses:
    """The doses of a record: of its ADDL, and of the endless series before a steady state."""
    own = record.cmt == 2
    share, lag = (record.bioav, record.lagt) if own else (1.0, 0.0)
    if record.ss and not record.amt:  # a constant infusion up to now
        length = FADED / K
        return Doses(np.array([record.time - length]), int(record.cmt), record.rate * length,
                     length)  # fmt: skip
    amount, length = record.amt * share, 0.0
    if record.rate > 0:
        length = amount / record.rate
    elif record.rate:
        length = record.dur2 if record.rate == -2 else amount / record.rat2
    before = math.ceil((FADED / K + length + lag) / record.ii) if record.ss else 0
    turns = np.arange(-before, int(record.addl) + 1)
    return Doses(record.time + lag + turns * record.ii, int(record.cmt), amount, length)
