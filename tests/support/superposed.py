"""Linear models by superposition of closed forms: nothing of the package's engine is in here.

A dose of one unit gives sums of exponentials (one or two compartments, into the depot or the
blood); an infusion is the integral of that; a regimen is a sum over doses, and a steady state a
sum over so many past doses that none is missing. Times are in days, amounts in mg.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PAST = 200
"""Doses before a steady state; the slowest model of these tests forgets one in thirty."""


@dataclass(frozen=True)
class Given:
    """One record: an amount into a compartment, over a length, repeated, perhaps for ever."""

    time: float
    amount: float
    into: str
    length: float = 0.0
    additional: int = 0
    interval: float = 0.0
    steady: int = 0
    lag: float = 0.0


def exponentials(values, into):
    """Coefficients and rates of the central amount after a unit bolus: sum of c exp(-r t)."""
    ka = values["ka"]
    if "v2" in values:
        k, k12, k21 = (values["cl"] / values["v1"], values["q"] / values["v1"],
                       values["q"] / values["v2"])  # fmt: skip
        total, product = k + k12 + k21, k * k21
        root = np.sqrt(total**2 - 4 * product)
        alpha, beta = (total + root) / 2, (total - root) / 2
        c = np.array([(alpha - k21) / (alpha - beta), (k21 - beta) / (alpha - beta)])
        r = np.array([alpha, beta])
    else:
        c, r = np.array([1.0]), np.array([values["cl"] / values["v"]])
    if into == "CENTRAL":
        return c, r
    c = c * ka / (ka - r)
    return np.append(c, -c.sum()), np.append(r, ka)


def response(values, into, since, length):
    """The central amount so long after the start of a unit dose, which takes a length."""
    c, r = exponentials(values, into)
    t = np.maximum(since, 0.0)[..., None]
    if length == 0:
        course = np.exp(-r * t)
    else:
        during = np.minimum(t, length)
        course = (1 - np.exp(-r * during)) / (r * length) * np.exp(-r * (t - during))
    return np.where(since >= 0, (course * c).sum(axis=-1), 0.0)


def starts(record):
    """When doses of a record arrive, from the distant past of a steady state on."""
    first = -PAST if record.steady else 0
    k = np.arange(first, record.additional + 1)
    return record.time + record.lag + k * record.interval


def central(values, records, resets, times):
    """The central amount at times (n,), each sampled after all that happens then."""
    wiping = [*resets, *(r.time for r in records if r.steady == 1)]
    total = np.zeros_like(times)
    for record in records:
        end = min((t for t in wiping if t > record.time), default=np.inf)
        since = times[:, None] - starts(record)
        course = record.amount * response(values, record.into, since, record.length).sum(axis=1)
        total += np.where((times >= record.time) & (times < end), course, 0.0)
    return total
