"""A Rosenbrock method of order 5 over one segment, for four parameter sets side by side.

Rodas5P (Steinebach 2023, doi:10.1007/s10543-023-00967-x): eight stages, stiffly accurate, embedded
order 4, dense output of order 4; one Jacobian and one LU a step, no Newton iteration.

`segment_loop` goes from segment to segment. `step_loop` compiles both, once for all models;
what belongs to one model is machine code, called by its address in ``m``. All numbers are in one
flat array ``w``, in rows of four SIMD lanes, one lane for each of four runs. The four take the
same steps, as small as the least accurate of them needs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..model import Array

Counters = NDArray[np.int64]

LANES = 4
STAGES = 8
GAMMA = 0.21193756319429014
# fmt: off
A = np.array([
    [0.0, 0.0, 0.0, 0.0, 0.0],
    [3.0, 0.0, 0.0, 0.0, 0.0],
    [2.849394379747939, 0.45842242204463923, 0.0, 0.0, 0.0],
    [-6.954028509809101, 2.489845061869568, -10.358996098473584, 0.0, 0.0],
    [2.8029986275628964, 0.5072464736228206, -0.3988312541770524, -0.04721187230404641, 0.0],
    [-7.502846399306121, 2.561846144803919, -11.627539656261098,
     -0.18268767659942256, 0.030198172008377946],
])
"""Stage i is at y + sum of A[i, j]*k[j]; the last two add k[5] and k[6] to the one before."""
C = np.array([
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    [-14.155112264123755, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    [-17.97296035885952, -2.859693295451294, 0.0, 0.0, 0.0, 0.0, 0.0],
    [147.12150275711716, -1.41221402718213, 71.68940251302358, 0.0, 0.0, 0.0, 0.0],
    [165.43517024871676, -0.4592823456491126, 42.90938336958603, -5.961986721573306,
     0.0, 0.0, 0.0],
    [24.854864614690072, -3.0009227002832186, 47.4931110020768, 5.5814197821558125,
     -0.6610691825249471, 0.0, 0.0],
    [30.91273214028599, -3.1208243349937974, 77.79954646070892, 34.28646028294783,
     -19.097331116725623, -28.087943162872662, 0.0],
    [37.80277123390563, -3.2571969029072276, 112.26918849496327, 66.9347231244047,
     -40.06618937091002, -54.66780262877968, -9.48861652309627],
])
"""Stage i solves (I/(h GAMMA) - J) k[i] = rates there + sum of C[i, j]*k[j]/h."""
DENSE = np.array([
    [25.948786856663858, -2.5579724845846235, 10.433815404888879, -2.3679251022685204,
     0.524948541321073, 1.1241088310450404, 0.4272876194431874, -0.17202221070155493],
    [-9.91568850695171, -0.9689944594115154, 3.0438037242978453, -24.495224566215796,
     20.176138334709044, 15.98066361424651, -6.789040303419874, -5.041038724349047],
    [11.419903575922262, 2.8879645146136994, 72.92137995996029, 80.12511834622643,
     -52.072871366152654, -59.78993625266729, -0.15582684282751913, 3.2138898401393976],
])
"""Between the ends: (1-x) y0 + x (y1 + (1-x) (b[0] + x (b[1] + x b[2]))), b = DENSE k. The last
stage, which is of the size of the error, is weighted such that the integral over a step is that of
the method itself, as if it were one more state: of order 5, and exact where rates are linear.
Steinebach's own weights are -6.7102 and 4.8831: a term x^2 (1-x)^2 makes up the difference."""
# fmt: on

FRACTION, TIGHT = 0.05, 3.6e-7
"""A state's absolute tolerance is its typical size times rtol times FRACTION; for an rtol looser
than TIGHT, it is also multiplied by sqrt(TIGHT/rtol), which makes the factor 0.003 at 1e-4. So a
tighter rtol gives small states relatively more accuracy; with a constant factor, a run with a loose
rtol would take most of its steps for drugs that are nearly eliminated."""
DOSED, EXACT = 1.0 / FRACTION, 1e-8
"""The absolute tolerance of a state that receives doses is DOSED times larger: what remains of a
drug matters relative to its dose, and more accuracy cost a sixth of all steps. The factor is
smaller for an rtol below DOSED times EXACT, and 1 from EXACT down."""
SMALLEST_SIZE = 1e-6
"""No typical size of a state is smaller than this."""
SOON = 1.0 / 24.0
"""Days over which a state's rate at the start of a segment is used to estimate its size."""
SAFETY, SHRINK, GROW = 0.9, 0.2, 8.0
ORDER = 5.0
MOST_STEPS = 100_000
SMALLEST_STEP = 1e-13
"""Times max(1, day): below it a step no longer moves the clock safely."""
HUGE = 1e300

MOST_CYCLES = 5_000
"""Equal doses after which the search for a steady state ends."""

DONE, TOO_SMALL, TOO_MANY, NO_START, NOT_FINITE, NOT_STEADY, OTHER_ORDER = 0, 1, 2, 3, 4, 5, 6
WORDS = (
    "done",
    "the step size became too small",
    f"no end after {MOST_STEPS} steps",
    "an initial state is not finite",
    "a state is not finite",
    f"no steady state after {MOST_CYCLES} cycles",
    "doses come in another order than in the run whose steps are repeated",
)
ROW, USED, REJECTED, SEGMENT, STATUS, MOVING, PIECES = 0, 1, 2, 3, 4, 5, 6
"""Entries of ``counts``: next row of the table, steps accepted, rejected, segment, status, the
state that moved most in the last cycle of equal doses, and pieces of the courses."""
ENTRIES = 7
DAY, RTOL = 0, 1
"""Entries of ``clock``: day reached, relative tolerance."""

FUNCTIONS = (
    "constants", "initial", "rates", "jacobian", "quantities", "take_step", "lane_errors", "bend",
    "between", "move",
)  # fmt: skip
"""The functions of a model (see `simd_code`), in the order of their addresses in ``m``."""
CONSTANTS, INITIAL, RATES, JACOBIAN, QUANTITIES, TAKE_STEP, ERRORS, BENDS, BETWEENS, MOVE = range(
    10
)
PLACES = (
    "NL", "RATE", "NEW", "BETWEEN", "SIZE", "EASE", "NOW", "INFLOW", "WORST", "STEP", "Q", "P",
    "BEND", "WORK",
)  # fmt: skip
"""Where arrays begin in ``w``, in their order in ``m``, after the addresses; NL is the size of
n_states rows, WORK of all."""
NL, RATE, NEW, BETWEEN, SIZE, EASE, NOW, INFLOW, WORST, STEP, Q, P, BEND, WORK = range(10, 24)

SHARES = (0.0, 0.5 - 21**0.5 / 14, 0.5, 0.5 + 21**0.5 / 14, 1.0)
"""The shares of a step at which its polynomial is kept: those of Lobatto's rule of order 8."""
HEAD, NODES = 3, 5
"""Rows of a piece of the courses: start, end and segment; then, for each state that is watched,
its values at `SHARES` of the step."""


class Record(NamedTuple):
    """Four runs side by side: which they are, their progress, and where their results go.

    Parameters
    ----------
    group : the index of the first of the four among all runs
    days : (n_days,) when to sample
    states : (n_runs, n_days, n_states), of all runs, filled
    counts : (`ENTRIES`,) integers of these four
    clock : (2,) numbers of these four
    steps : step sizes: those of the first four runs are stored here as far as they fit, or, if
        ``following``, the steps to take
    following : whether ``steps`` are taken as they are, without error control
    watched : (n_watched,) states whose courses between the samples are kept
    pieces : (n_most, HEAD + NODES * n_watched, LANES), of the four runs, filled step by step
    """

    group: int
    days: Array
    states: Array
    counts: Counters
    clock: Array
    steps: Array
    following: bool
    watched: Counters
    pieces: Array


def call(address: int, w: Array) -> None:
    """Placeholder for a call of machine code."""


def call_with(address: int, w: Array, number: float) -> None:
    """Placeholder for a call of machine code with a number."""


def fraction(rtol: float) -> float:
    """A state's absolute tolerance in units of its typical size times rtol."""
    return FRACTION * math.sqrt(TIGHT / max(rtol, TIGHT))


def ease(rtol: float) -> float:
    """The factor on the absolute tolerance of a state that receives doses."""
    return min(DOSED, max(1.0, rtol / EXACT))


def worst_error(m: Counters, w: Array, rtol: float) -> float:
    """The last step's largest error over states and lanes, in units of the tolerance."""
    call_with(m[ERRORS], w, fraction(rtol))
    worst = w[m[WORST]]
    for lane in range(1, LANES):
        if not w[m[WORST] + lane] <= worst:
            worst = w[m[WORST] + lane]
    return float(worst / rtol)


def sample(m: Counters, w: Array, first: float, last: float, record: Record) -> None:
    """Fill the rows whose days are in the step just taken, from first to last."""
    days, row = record.days, record.counts[ROW]
    if row < len(days) and days[row] <= last:
        call(m[BENDS], w)
    while row < len(days) and days[row] <= last:
        call_with(m[BETWEENS], w, min(1.0, (days[row] - first) / (last - first)))
        write_down(m, w, m[BETWEEN], record.states, record.group, row)
        row += 1
    record.counts[ROW] = row


def write_down(m: Counters, w: Array, place: int, table: Array, group: int, row: int) -> None:
    """Copy an array at a place of the work array into each lane's table."""
    for lane in range(min(LANES, len(table) - group)):
        for q in range(table.shape[2]):
            table[group + lane, row, q] = w[place + q * LANES + lane]


def note_piece(m: Counters, w: Array, first: float, last: float, record: Record) -> None:
    """Keep the step just taken as a piece of each lane's courses, if there is room for it."""
    pieces, watched, k = record.pieces, record.watched, record.counts[PIECES]
    record.counts[PIECES] = k + 1
    if k >= len(pieces):
        return
    call(m[BENDS], w)
    for lane in range(LANES):
        pieces[k, 0, lane] = first
        pieces[k, 1, lane] = last
        pieces[k, 2, lane] = record.counts[SEGMENT]
    for i in range(len(watched)):
        at, q = HEAD + NODES * i, watched[i] * LANES
        for lane in range(LANES):
            start, end, bend = w[m[NOW] + q + lane], w[m[NEW] + q + lane], m[BEND] + q + lane
            b, c, d = w[bend], w[bend + m[NL]], w[bend + 2 * m[NL]]
            for node in range(NODES):
                x = SHARES[node]
                curve = end + (1.0 - x) * (b + x * (c + x * d))
                pieces[k, at + node, lane] = start + x * (curve - start)


def first_step(m: Counters, w: Array, length: float, rtol: float) -> float:
    """A first step for a segment: a share of the time in which its rates move the states."""
    for q in range(m[NL]):
        w[m[NEW] + q] = w[m[NOW] + q]
    call(m[RATES], w)
    fastest = 1e-9
    for q in range(m[NL]):
        rate = abs(w[m[RATE] + q] + w[m[INFLOW] + q])
        w[m[SIZE] + q] = max(w[m[SIZE] + q], abs(w[m[NOW] + q]), rate * min(length, SOON))
        fastest = max(fastest, rate / w[m[SIZE] + q])
    return float(min(length, 0.5 * rtol ** (1.0 / ORDER) / fastest))


def next_step(
    m: Counters, w: Array, day: float, last: float, counts: Counters, rtol: float
) -> float:
    """Try steps from this day, ever smaller, until one is accurate; its size, or 0 if none is.

    ``w[m[STEP]]`` is the size to try first, and then the size of the step after this one. In the
    fast decay of a stiff state, which a dose may cause, the error falls more slowly than the power
    of h that the order promises: from the second rejection on, h shrinks by a fixed factor.
    """
    size = w[m[STEP]]
    left, rejected = last - day, counts[REJECTED]
    call(m[JACOBIAN], w)
    while True:
        h = left if size * 1.05 >= left else min(size, 0.5 * left)
        call_with(m[TAKE_STEP], w, h)
        error = worst_error(m, w, rtol)
        if error <= 1.0:
            longer = h * min(GROW, SAFETY * max(error, 1e-10) ** (-1.0 / ORDER))
            w[m[STEP]] = longer if h >= size else max(size, longer)
            return h
        shorter = SHRINK
        if counts[REJECTED] == rejected and error < HUGE:
            shorter = max(SHRINK, SAFETY * error ** (-1.0 / ORDER))
        counts[REJECTED] += 1
        size = h * shorter
        if size < SMALLEST_STEP * max(1.0, day):
            return 0.0


def advance(m: Counters, w: Array, first: float, last: float, record: Record) -> int:
    """Run one segment; the status it ended with.

    A step ends at each sample: between the ends of a step, the states of a drug that vanishes
    within it are far less accurate than at them.
    """
    counts, days, steps, following = record.counts, record.days, record.steps, record.following
    rtol, day = record.clock[RTOL], first
    w[m[STEP]] = 0.0 if following else first_step(m, w, last - first, rtol)
    limit = counts[USED] + MOST_STEPS + len(days)
    while day < last:
        record.clock[DAY] = day
        stop = min(last, days[counts[ROW]]) if counts[ROW] < len(days) else last
        if following:
            if counts[USED] == len(steps):
                return TOO_MANY
            h = steps[counts[USED]]
            call(m[JACOBIAN], w)
            call_with(m[TAKE_STEP], w, h)
        else:
            h = next_step(m, w, day, stop, counts, rtol)
            if h == 0.0:
                return TOO_SMALL
            if record.group == 0 and counts[USED] < len(steps):
                steps[counts[USED]] = h
        counts[USED] += 1
        end = day + h
        for mark in (stop, last):
            if abs(mark - end) <= 1e-9 * h + SMALLEST_STEP * max(1.0, day):
                end = mark
        sample(m, w, day, end, record)
        note_piece(m, w, day, end, record)
        call(m[MOVE], w)
        day = end
        if counts[USED] > limit:
            return TOO_MANY
    return finite(m, w, NOT_FINITE)


def finite(m: Counters, w: Array, otherwise: int) -> int:
    """DONE if every state is a number, else the other status."""
    for q in range(m[NL]):
        if not abs(w[m[NOW] + q]) < HUGE:
            return otherwise
    return DONE
