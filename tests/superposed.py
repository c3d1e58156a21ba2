"""Linear models by superposition of closed forms: nothing of the package's engine is in here.

A dose of one unit gives sums of exponentials (one or two compartments, into the depot or the
blood); an infusion is the integral of that; a regimen is a sum over doses, and a steady state a
sum over so many past doses that none is missing. Times are in days, amounts in mg.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

PAST = 200


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
    """The central amount so long after the start of a unit dose (n,), which takes a length."""
    c, r = exponentials(values, into)
    t = np.maximum(since, 0.0)[:, None]
    if length == 0:
        course = np.exp(-r * t)
    else:
        during = np.minimum(t, length)
        course = (1 - np.exp(-r * during)) / (r * length) * np.exp(-r * (t - during))
    return np.where(since >= 0, (course * c).sum(axis=1), 0.0)


def trains(record, last):
    """The times at which doses of a record arrive, from the distant past of a steady state on."""
    first = -PAST if record.steady else 0
    return [record.time + record.lag + k * record.interval
            for k in range(first, record.additional + 1)]  # fmt: skip


def central(values, records, resets, times):
    """The central amount at times (n,), each sampled after all that happens then."""
    total = np.zeros_like(times)
    for record in records:
        wiping = [*resets, *(r.time for r in records if r.steady == 1)]
        end = min((t for t in wiping if t > record.time), default=np.inf)
        for start in trains(record, times[-1]):
            alive = (times >= record.time) & (times < end)
            since = times - start
            total += np.where(alive, record.amount * response(
                values, record.into, since, record.length), 0.0)  # fmt: skip
    return total


def with_share(record, share):
    """The record of which only a share arrives; a rate, if there is one, stays as it is."""
    return replace(record, amount=record.amount * share)
