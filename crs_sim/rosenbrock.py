"""A Rosenbrock method of order 5 over a whole timeline: the step, its error, the step sizes.

Rodas5P (Steinebach 2023, doi:10.1007/s10543-023-00967-x): eight stages, stiffly accurate, embedded
order 4, dense output of order 4; one Jacobian and one LU a step, no Newton iteration.

This text is pasted after a model's generated functions (`constants`, `initial`, `rates`,
`jacobian`, `factor`, `solve`), whose names stand empty here: `crs_sim.kernel` compiles the whole,
and the same whole runs as plain Python.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Counters = NDArray[np.int64]

STAGES = 8
GAMMA = 0.21193756319429014
A = np.array(
    [
        [0.0, 0.0, 0.0, 0.0, 0.0],
        [3.0, 0.0, 0.0, 0.0, 0.0],
        [2.849394379747939, 0.45842242204463923, 0.0, 0.0, 0.0],
        [-6.954028509809101, 2.489845061869568, -10.358996098473584, 0.0, 0.0],
        [2.8029986275628964, 0.5072464736228206, -0.3988312541770524, -0.04721187230404641, 0.0],
        [
            -7.502846399306121,
            2.561846144803919,
            -11.627539656261098,
            -0.18268767659942256,
            0.030198172008377946,
        ],
    ]
)
"""Stage i is at y + sum of A[i, j]*k[j]; the last two add k[5] and k[6] to the one before."""
C = np.array(
    [
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [-14.155112264123755, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [-17.97296035885952, -2.859693295451294, 0.0, 0.0, 0.0, 0.0, 0.0],
        [147.12150275711716, -1.41221402718213, 71.68940251302358, 0.0, 0.0, 0.0, 0.0],
        [
            165.43517024871676,
            -0.4592823456491126,
            42.90938336958603,
            -5.961986721573306,
            0.0,
            0.0,
            0.0,
        ],
        [
            24.854864614690072,
            -3.0009227002832186,
            47.4931110020768,
            5.5814197821558125,
            -0.6610691825249471,
            0.0,
            0.0,
        ],
        [
            30.91273214028599,
            -3.1208243349937974,
            77.79954646070892,
            34.28646028294783,
            -19.097331116725623,
            -28.087943162872662,
            0.0,
        ],
        [
            37.80277123390563,
            -3.2571969029072276,
            112.26918849496327,
            66.9347231244047,
            -40.06618937091002,
            -54.66780262877968,
            -9.48861652309627,
        ],
    ]
)
DENSE = np.array(
    [
        [
            25.948786856663858,
            -2.5579724845846235,
            10.433815404888879,
            -2.3679251022685204,
            0.524948541321073,
            1.1241088310450404,
            0.4272876194431874,
            -0.17202221070155493,
        ],
        [
            -9.91568850695171,
            -0.9689944594115154,
            3.0438037242978453,
            -24.495224566215796,
            20.176138334709044,
            15.98066361424651,
            -6.789040303419874,
            -6.710236069923372,
        ],
        [
            11.419903575922262,
            2.8879645146136994,
            72.92137995996029,
            80.12511834622643,
            -52.072871366152654,
            -59.78993625266729,
            -0.15582684282751913,
            4.883087185713722,
        ],
    ]
)

FRACTION = 0.01
"""A state's absolute tolerance is this times rtol times its typical size."""
SMALLEST_SIZE = 1e-6
"""No state is taken as typically smaller than this."""
SOON = 1.0 / 24.0
"""Days over which a state's rate at the start of a segment says how large it is going to be."""
SAFETY, SHRINK, GROW = 0.9, 0.2, 8.0
ORDER = 5.0
MOST_STEPS = 100_000
SMALLEST_STEP = 1e-13
"""Times max(1, day): below it a step no longer moves the clock safely."""

DONE, TOO_SMALL, TOO_MANY, NO_START, NOT_FINITE = 0, 1, 2, 3, 4
RATE, NEW, BEND, SIZE, NOW, INFLOW, ROWS_OF_WORK = 8, 9, 10, 13, 14, 15, 16
"""Rows of the work array after the stages: rates, the point they are taken at (after a step, the
new states), three of dense output, typical sizes, states, inflow."""
ROW, USED, ACCEPTED, REJECTED, SEGMENT = 0, 1, 2, 3, 4
"""Entries of ``counts``: next row of the table, steps written, accepted, rejected, segment."""
DAY, STEP, RTOL = 0, 1, 2
"""Entries of ``clock``: day reached, next step size, relative tolerance."""


def constants(p: Array, c: Array) -> None:
    """Stands for the model's own."""


def initial(c: Array, y: Array) -> None:
    """Stands for the model's own."""


def rates(y: Array, c: Array, f: Array) -> None:
    """Stands for the model's own."""


def jacobian(y: Array, c: Array, a: Array) -> None:
    """Stands for the model's own."""


def quantities(y: Array, c: Array, q: Array) -> None:
    """Stands for the model's own."""


def factor(d: float, a: Array) -> None:
    """Stands for the model's own."""


def solve(a: Array, b: Array) -> None:
    """Stands for the model's own."""


def take_step(w: Array, c: Array, a: Array, h: float) -> None:
    """One step of size h from ``w[NOW]``: new states in ``w[NEW]``, error estimate in ``w[7]``.

    The Jacobian at ``w[NOW]`` must be at the start of ``a``.
    """
    f, g, y = w[RATE], w[NEW], w[NOW]
    n = len(y)
    factor(1.0 / (h * GAMMA), a)
    for i in range(STAGES):
        if i < 6:
            for q in range(n):
                g[q] = y[q]
            for r in range(i):
                weight = A[i, r]
                for q in range(n):
                    g[q] += weight * w[r, q]
        else:
            for q in range(n):
                g[q] += w[i - 1, q]
        rates(g, c, f)
        for q in range(n):
            f[q] += w[INFLOW, q]
        for r in range(i):
            weight = C[i, r] / h
            for q in range(n):
                f[q] += weight * w[r, q]
        solve(a, f)
        for q in range(n):
            w[i, q] = f[q]
    for q in range(n):
        g[q] += w[7, q]


def error_of(w: Array, rtol: float) -> float:
    """The last step's largest error, in units of each state's tolerance."""
    worst = 0.0
    for q in range(w.shape[1]):
        size = max(abs(w[NOW, q]), abs(w[NEW, q])) + FRACTION * w[SIZE, q]
        error = abs(w[7, q]) / (rtol * size)
        if not error <= worst:
            worst = error
    return worst


def sample(
    w: Array, counts: Counters, days: Array, table: Array, first: float, last: float
) -> None:
    """Fill the table's rows whose days lie in the step just taken, from first to last."""
    row = counts[ROW]
    if row == len(days) or days[row] > last:
        return
    n = w.shape[1]
    for d in range(3):
        for q in range(n):
            w[BEND + d, q] = 0.0
        for r in range(STAGES):
            weight = DENSE[d, r]
            for q in range(n):
                w[BEND + d, q] += weight * w[r, q]
    while row < len(days) and days[row] <= last:
        x = min(1.0, (days[row] - first) / (last - first))
        for q in range(n):
            bend = w[BEND, q] + x * (w[BEND + 1, q] + x * w[BEND + 2, q])
            table[row, q] = (1.0 - x) * w[NOW, q] + x * (w[NEW, q] + (1.0 - x) * bend)
        row += 1
    counts[ROW] = row


def first_step(w: Array, c: Array, length: float, rtol: float) -> float:
    """A first step for a segment: a share of the time in which its rates move the states."""
    rates(w[NOW], c, w[RATE])
    fastest = 1e-9
    for q in range(w.shape[1]):
        rate = abs(w[RATE, q] + w[INFLOW, q])
        w[SIZE, q] = max(w[SIZE, q], abs(w[NOW, q]), rate * min(length, SOON))
        fastest = max(fastest, rate / w[SIZE, q])
    share: float = 0.5 * rtol ** (1.0 / ORDER) / fastest
    return min(length, share)


def move(w: Array, counts: Counters, steps: Array, h: float) -> None:
    """Go to the end of the step just taken, and write its size down if there is room."""
    for q in range(w.shape[1]):
        w[NOW, q] = w[NEW, q]
        w[SIZE, q] = max(w[SIZE, q], abs(w[NEW, q]))
    if counts[USED] < len(steps):
        steps[counts[USED]] = h
    counts[USED] += 1
    counts[ACCEPTED] += 1


def advance(
    w: Array,
    c: Array,
    a: Array,
    first: float,
    last: float,
    counts: Counters,
    clock: Array,
    days: Array,
    table: Array,
    steps: Array,
) -> int:
    """Run one segment with error control; the status it ended with."""
    day, rtol = first, clock[RTOL]
    wanted = first_step(w, c, last - first, rtol)
    limit = counts[ACCEPTED] + MOST_STEPS
    while day < last:
        jacobian(w[NOW], c, a)
        while True:
            clock[DAY] = day
            left = last - day
            h = left if wanted * 1.05 >= left else min(wanted, 0.5 * left)
            take_step(w, c, a, h)
            error = error_of(w, rtol)
            if error <= 1.0:
                break
            counts[REJECTED] += 1
            wanted = h * (max(SHRINK, SAFETY * error ** (-1.0 / ORDER)) if error < 1e30 else 0.1)
            if wanted < SMALLEST_STEP * max(1.0, day):
                return TOO_SMALL
        end = last if h == left else day + h
        sample(w, counts, days, table, day, end)
        move(w, counts, steps, h)
        longer = h * min(GROW, SAFETY * max(error, 1e-10) ** (-1.0 / ORDER))
        wanted = longer if h >= wanted else max(wanted, longer)
        day = end
        if counts[ACCEPTED] > limit:
            return TOO_MANY
    return DONE


def follow(
    w: Array,
    c: Array,
    a: Array,
    first: float,
    last: float,
    counts: Counters,
    clock: Array,
    days: Array,
    table: Array,
    steps: Array,
) -> int:
    """Run one segment over steps that another run wrote down, without error control."""
    day = first
    while day < last:
        h = steps[counts[USED]]
        end = day + h
        if last - end < 1e-9 * h:
            end = last
        clock[DAY] = day
        jacobian(w[NOW], c, a)
        take_step(w, c, a, h)
        sample(w, counts, days, table, day, end)
        move(w, counts, steps, h)
        day = end
    for q in range(w.shape[1]):
        if not abs(w[NOW, q]) < 1e300:
            return NOT_FINITE
    return DONE
