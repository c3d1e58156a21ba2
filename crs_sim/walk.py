"""A timeline walked segment by segment, for four parameter sets side by side.

Doses and changes are put in place as a segment begins; `crs_sim.rosenbrock` steps through it. On
the way to a steady state the same segments are walked again until the states repeat themselves.
`crs_sim.steploop` compiles these loops too; the arrays are those of `crs_sim.rosenbrock`.
"""

from __future__ import annotations

from .clock import APART, CYCLE, JOIN, RESET
from .rosenbrock import (
    CONSTANTS,
    DONE,
    EASE,
    HUGE,
    INFLOW,
    INITIAL,
    LANES,
    MOST_CYCLES,
    MOVING,
    NL,
    NO_START,
    NOT_STEADY,
    NOW,
    QUANTITIES,
    ROW,
    RTOL,
    SEGMENT,
    SIZE,
    SMALLEST_SIZE,
    STATUS,
    USED,
    WORK,
    Array,
    Counters,
    P,
    Q,
    advance,
    call,
    ease,
    finite,
    fraction,
    write_down,
)  # fmt: skip

ARRAYS = (
    "i1", "f1", "i2", "f1", "i1", "i1", "i2", "f1", "f3", "f2", "f2", "f3", "f3", "f1", "f2", "i2",
    "f2", "f1", "f1", "f1",
)  # fmt: skip
"""Kind (integers, floats) and dimensions of the arrays of `run_many`, in their order."""
STEADY, STEADY_AT_BEST = 1e-3, 1e-10
"""A state is steady when what is left to come is this times rtol, or the second, of its size."""


# Arrays are copied number by number: what numba compiles for `a[:] = b`, for the sake of the error
# it may end in, takes longer to compile than all of this file.


def clear(m: Counters, w: Array) -> None:
    """Set the work array to zeros."""
    for q in range(m[WORK]):
        w[q] = 0.0


def keep(m: Counters, w: Array, before: Array) -> None:
    """Remember the states."""
    for q in range(m[NL]):
        before[q] = w[m[NOW] + q]


def share(counts: Counters, clock: Array, group: int) -> None:
    """What was counted for the first run of a group holds for its others."""
    for i in range(group + 1, min(group + LANES, len(counts))):
        for k in range(counts.shape[1]):
            counts[i, k] = counts[group, k]
        for k in range(clock.shape[1]):
            clock[i, k] = clock[group, k]


def choose(m: Counters, w: Array, parameters: Array, group: int, version: int) -> None:
    """Put a version of each lane's parameters in place; a last group repeats its last member."""
    for lane in range(LANES):
        i = min(group + lane, len(parameters) - 1)
        for k in range(parameters.shape[2]):
            w[m[P] + k * LANES + lane] = parameters[i, version, k]
    call(m[CONSTANTS], w)


def arrange(m: Counters, w: Array, marks: int, aside: Array) -> None:
    """What a segment begins with: states set aside are added, states are set aside, or reset."""
    if marks & JOIN:
        for q in range(m[NL]):
            w[m[NOW] + q] += aside[q]
    if marks & APART:
        for q in range(m[NL]):
            aside[q] = w[m[NOW] + q]
    if marks & (APART | RESET):
        call(m[INITIAL], w)


def moved(m: Counters, w: Array, before: Array, counts: Counters, rtol: float) -> float:
    """The largest change of a state in a cycle, relative to its size; notes which state it was."""
    largest, small = 0.0, fraction(rtol)
    for q in range(m[NL]):
        now = w[m[NOW] + q]
        size = max(abs(now), abs(before[q])) + small * w[m[SIZE] + q]
        change = abs(now - before[q]) / size
        if not change <= largest:
            largest = change
            counts[MOVING] = q // LANES
    return largest


def steady(change: float, last: float, rtol: float) -> bool:
    """Whether states have settled, from their changes in this cycle and in the one before.

    What is still to come is a geometric series: change (s + s^2 + ...), with s the ratio of the
    two changes.
    """
    limit = max(STEADY * rtol, STEADY_AT_BEST)
    return change == 0.0 or change <= limit * (1.0 - min(1.0, change / last))


def leave(
    counts: Counters, steps: Array, settled: bool, following: bool, group: int
) -> bool:
    """Whether a steady state is reached, told by the steps of another run if they are followed.

    A step of length 0 says so.
    """
    used = counts[USED]
    if following:
        settled = used < len(steps) and steps[used] == 0.0
    elif settled and group == 0 and used < len(steps):
        steps[used] = 0.0
    if settled:
        counts[USED] += 1
    return settled


def give(
    m: Counters, w: Array, segment: int, given: Counters, duration: Array, amount: Array, group: int
) -> None:
    """Begin a segment: add its boluses to the states, and set its inflow."""
    for q in range(m[NL]):
        w[m[INFLOW] + q] = 0.0
    for k in range(len(duration)):
        if given[0, k] <= segment <= given[1, k]:
            for lane in range(LANES):
                i = min(group + lane, len(amount) - 1)
                q = given[2, k] * LANES + lane
                if given[0, k] == given[1, k]:
                    w[m[NOW] + q] += amount[i, k]
                elif segment < given[1, k]:
                    w[m[INFLOW] + q] += amount[i, k] / duration[k]


def begin(
    m: Counters,
    w: Array,
    counts: Counters,
    days: Array,
    states: Array,
    group: int,
    given: Counters,
    amount: Array,
    first: float,
    start: Array,
    rtol: float,
) -> int:
    """Put the initial states in place, and the typical sizes as far as they are known.

    ``start`` (n_runs, n_states) replaces the model's own initial states if it has rows.
    """
    call(m[INITIAL], w)
    for i in range(group, min(group + LANES, len(start))):
        for q in range(m[NL] // LANES):
            w[m[NOW] + q * LANES + i - group] = start[i, q]
    for q in range(m[NL]):
        w[m[SIZE] + q] = max(SMALLEST_SIZE, abs(w[m[NOW] + q]))
        w[m[EASE] + q] = 1.0
    for k in range(amount.shape[1]):
        for lane in range(LANES):
            q = given[2, k] * LANES + lane
            dose = amount[min(group + lane, len(amount) - 1), k]
            w[m[SIZE] + q] = max(w[m[SIZE] + q], dose)
            w[m[EASE] + q] = ease(rtol)
    while counts[ROW] < len(days) and days[counts[ROW]] <= first:
        write_down(m, w, m[NOW], states, group, counts[ROW])
        counts[ROW] += 1
    return finite(m, w, NO_START)


def name(
    m: Counters,
    w: Array,
    version: int,
    version_at: Counters,
    rows: int,
    states: Array,
    named: Array,
    group: int,
) -> None:
    """Compute the named quantities of the samples at which this version of parameters holds."""
    lanes = min(LANES, len(states) - group)
    for row in range(rows):
        if version_at[row] == version:
            for lane in range(LANES):
                i = group + min(lane, lanes - 1)
                for q in range(m[NL] // LANES):
                    w[m[NOW] + q * LANES + lane] = states[i, row, q]
            call(m[QUANTITIES], w)
            write_down(m, w, m[Q], named, group, row)


def run_many(
    m: Counters,
    edges: Array,
    marks: Counters,
    days: Array,
    version: Counters,
    version_at: Counters,
    given: Counters,
    duration: Array,
    parameters: Array,
    amount: Array,
    start: Array,
    following: bool,
    states: Array,
    named: Array,
    steps: Array,
    final: Array,
    counts: Counters,
    clock: Array,
    w: Array,
    before: Array,
    aside: Array,
) -> None:
    """Run a timeline for every row of parameters, four at a time.

    ``parameters`` (n_runs, n_versions, n_parameters) and ``amount`` (n_runs, n_inputs) go in;
    ``states`` (n_runs, n_days, n_states), ``named`` (n_runs, n_days, n_quantities) and ``final``
    (n_runs, n_states), where each run ended, are filled; ``w`` (m[WORK],), ``before`` and
    ``aside`` (m[NL],) are room to work in.
    """
    for group in range(0, len(parameters), LANES):
        mine, time = counts[group], clock[group]
        clear(m, w)
        choose(m, w, parameters, group, version[0])
        status = begin(
            m, w, mine, days, states, group, given, amount, edges[0], start, time[RTOL]
        )
        segment, row, cycles, change = 0, 0, 0, HUGE
        while status == DONE and segment < len(edges) - 1:
            mine[SEGMENT] = segment
            if version[segment + 1] != version[segment]:
                choose(m, w, parameters, group, version[segment + 1])
            if cycles == 0:
                arrange(m, w, marks[0, segment], aside)
            if marks[0, segment] & CYCLE:
                keep(m, w, before)
                row = mine[ROW] if cycles == 0 else row
                mine[ROW] = row
            give(m, w, segment, given, duration, amount, group)
            first, last = edges[segment], edges[segment + 1]
            status = advance(m, w, first, last, mine, time, days, states, group, steps, following)
            coming = segment + 1
            if status == DONE and marks[1, segment] >= 0:
                latest = moved(m, w, before, mine, time[RTOL])
                settled = steady(latest, change, time[RTOL])
                cycles, change = cycles + 1, latest
                if leave(mine, steps, settled, following, group):
                    cycles, change = 0, HUGE
                elif cycles == MOST_CYCLES:
                    status = NOT_STEADY
                else:
                    coming = marks[1, segment]
            segment = coming
        mine[STATUS] = status
        for lane in range(min(LANES, len(final) - group)):
            for q in range(final.shape[1]):
                final[group + lane, q] = w[m[NOW] + q * LANES + lane]
        for k in range(parameters.shape[1]):
            choose(m, w, parameters, group, k)
            name(m, w, k, version_at, mine[ROW], states, named, group)
        share(counts, clock, group)
