"""The scalar functions called by generated code, each safe at zero and just below it.

A solver may evaluate a concentration at 0 or slightly below. There ``x**n`` differentiated as
``n*x**n/x`` divides by zero, so values and derivatives are written out here. Only ``math`` is used:
the same source runs as Python and is compiled by `crs_sim.kernel`.
"""

from __future__ import annotations

import math

__all__ = [
    "hill",
    "hill_slope",
    "log_ratio",
    "positive",
    "power",
    "power_slope",
    "reached",
]


def hill(x: float, K: float, n: float) -> float:
    """Saturation ``x^n/(K^n + x^n)``; 0 for x <= 0, without overflow for any x > 0.

    >>> hill(2.0, 2.0, 3.0), hill(0.0, 2.0, 3.0), hill(1e-300, 2.0, 3.0)
    (0.5, 0.0, 0.0)
    """
    if x <= 0.0:
        return 0.0
    if x < K:
        small = math.pow(x / K, n)
        return small / (1.0 + small)
    return 1.0 / (1.0 + math.pow(K / x, n))


def hill_slope(x: float, K: float, n: float, h: float) -> float:
    """Derivative of `hill` in x, given its value ``h``; at x = 0 the right derivative.

    Where the right derivative is infinite (n < 1), it is 0.

    >>> hill_slope(2.0, 2.0, 1.0, 0.5), hill_slope(0.0, 2.0, 1.0, 0.0)
    (0.125, 0.5)
    >>> hill_slope(0.0, 2.0, 2.5, 0.0)
    0.0
    """
    if x > 0.0:
        return n * h * (1.0 - h) / x
    if x == 0.0 and n == 1.0:
        return 1.0 / K
    return 0.0


def log_ratio(x: float, K: float) -> float:
    """``ln(x/K)``, and 0 for x <= 0, where it is always multiplied by zero.

    >>> log_ratio(3.0, 3.0), log_ratio(0.0, 3.0)
    (0.0, 0.0)
    """
    if x <= 0.0:
        return 0.0
    return math.log(x / K)


def positive(x: float) -> float:
    """The larger of x and 0.

    >>> positive(2.0), positive(-1.0)
    (2.0, 0.0)
    """
    return x if x > 0.0 else 0.0


def power(x: float, n: float) -> float:
    """``x^n``; 0 where it is not real (x < 0 and n not an integer).

    >>> power(4.0, 0.5), power(-2.0, 3.0), power(-1e-9, 0.5)
    (2.0, -8.0, 0.0)
    """
    if x < 0.0 and n != math.floor(n):
        return 0.0
    return math.pow(x, n)


def power_slope(x: float, n: float, value: float) -> float:
    """Derivative of `power` in x, given its value; at x = 0 it is 1 for n = 1 and 0 otherwise.

    >>> power_slope(3.0, 2.0, 9.0), power_slope(0.0, 2.0, 0.0), power_slope(0.0, 1.0, 0.0)
    (6.0, 0.0, 1.0)
    """
    if x != 0.0:
        return n * value / x
    return 1.0 if n == 1.0 else 0.0


def reached(x: float, level: float) -> float:
    """1 where ``x`` is at or above ``level``, else 0.

    >>> reached(2.0, 2.0), reached(1.0, 2.0)
    (1.0, 0.0)
    """
    return 1.0 if x >= level else 0.0
