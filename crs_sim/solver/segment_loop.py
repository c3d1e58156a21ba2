"""The segments of a timeline in their order, for four parameter sets side by side.

Doses and changes are applied as a segment starts; `crs_sim.solver.rosenbrock` steps through it. On
the way to a steady state the same segments are repeated until the states no longer change from one
repetition to the next. `crs_sim.solver.step_loop` compiles these loops too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, NamedTuple, get_type_hints

import numpy as np

from ..dosing import APART, CYCLE, JOIN, RESET
from ..model import Array, Indices
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
    NEW,
    NL,
    NO_START,
    NOT_STEADY,
    NOW,
    PIECES,
    QUANTITIES,
    ROW,
    RTOL,
    SEGMENT,
    SIZE,
    SMALLEST_SIZE,
    STATUS,
    USED,
    WORK,
    Counters,
    P,
    Q,
    Record,
    advance,
    call,
    ease,
    finite,
    fraction,
    note_piece,
    write_down,
)


class Kind(NamedTuple):
    """How compiled code takes an array.

    ``bare``: as a pointer without its length, which compiles faster; no index is negative.
    """

    dtype: str
    dimensions: int
    bare: bool = False


Floats = Annotated[Array, Kind("float64", 1)]
FloatTable = Annotated[Array, Kind("float64", 2)]
FloatBlock = Annotated[Array, Kind("float64", 3)]
FloatBlocks = Annotated[Array, Kind("float64", 4)]
Integers = Annotated[Counters, Kind("int64", 1)]
IntegerTable = Annotated[Counters, Kind("int64", 2)]
BareFloats = Annotated[Array, Kind("float64", 1, bare=True)]
BareIntegers = Annotated[Counters, Kind("int64", 1, bare=True)]
STEADY, STEADY_AT_BEST = 1e-3, 1e-10
"""A state is steady when the change still to come is below this times rtol, or below the second,
relative to its size."""


class Plan(NamedTuple):
    """What happens in a run, and when: the same for all runs (see `crs_sim.dosing.Timeline`).

    ``given`` (3, n_inputs) holds, for each input, the segment that starts with it, the first
    segment without it, and the state it enters; ``duration`` (n_inputs,) its days. ``watched``
    (n_watched,) are the states whose courses between the samples are kept.
    """

    edges: Floats
    marks: IntegerTable
    days: Floats
    version: BareIntegers
    version_at: BareIntegers
    given: IntegerTable
    duration: BareFloats
    watched: Integers


class Members(NamedTuple):
    """What differs between runs.

    ``parameters`` (n_runs, n_versions, n_parameters) and ``amount`` (n_runs, n_inputs); ``start``
    (n_runs, n_states) replaces the model's own initial states if it has rows.
    """

    parameters: FloatBlock
    amount: FloatTable
    start: FloatTable


class Tables(NamedTuple):
    """The results of many runs.

    ``states`` (n_runs, n_days, n_states), ``named`` (n_runs, n_days, n_quantities), ``final``
    (n_runs, n_states), where each run ended, and ``pieces`` are filled. ``steps``, ``pieces``, and
    the rows of ``counts`` and ``clock``, one a run, are those of `crs_sim.solver.Record`; of each
    four runs that share their steps, only the first run's rows of the last two are used.
    """

    states: FloatBlock
    named: FloatBlock
    final: FloatTable
    steps: Floats
    counts: IntegerTable
    clock: FloatTable
    pieces: FloatBlocks


@dataclass(frozen=True)
class Runs:
    """The results of many runs of one timeline.

    Parameters
    ----------
    states : (n_runs, n_days, n_states); from the day a run failed on, NaN
    quantities : (n_runs, n_days, n_quantities)
    final : (n_runs, n_states) where each run ended, or failed
    status : (n_runs,) one of `rosenbrock.WORDS`; 0 for success
    reached : (n_runs,) last day reached
    segment : (n_runs,) last segment started
    accepted, rejected : (n_runs,) steps
    steps : sizes of the accepted steps of the first run, for `Kernel.replay`; 0 where a steady
        state was reached
    moving : (n_runs,) the state that moved most in the last cycle before a steady state
    pieces : for each run the courses of the states that were watched, (HEAD + NODES *
        n_watched, n_pieces), a column for each step (see `rosenbrock.HEAD`), on the clock
    """

    states: Array
    quantities: Array
    final: Array
    status: Indices
    reached: Array
    segment: Indices
    accepted: Indices
    rejected: Indices
    steps: Array
    moving: Indices
    pieces: list[Array] = field(default_factory=list)

    def of(self, rows: Indices) -> Runs:
        """Some of the runs."""
        taken = {
            name: getattr(self, name)[rows]
            for name in self.__dataclass_fields__
            if name not in ("steps", "pieces")
        }
        return Runs(**taken, steps=self.steps, pieces=[self.pieces[i] for i in rows])


def gathered(parts: list[tuple[Indices, Runs]]) -> Runs:
    """Runs of several cuts of a timeline as one, in the order of their rows; steps of the first."""
    if len(parts) == 1:
        return parts[0][1]
    order = np.argsort(np.concatenate([rows for rows, _ in parts]))
    columns = {
        name: np.concatenate([getattr(runs, name) for _, runs in parts])[order]
        for name in Runs.__dataclass_fields__
        if name not in ("steps", "pieces")
    }
    pieces = [piece for _, runs in parts for piece in runs.pieces]
    kept = [pieces[k] for k in order] if pieces else []
    return Runs(**columns, steps=parts[0][1].steps, pieces=kept)


class Room(NamedTuple):
    """A model's machine code, and the memory in which four runs are computed.

    ``m`` holds the addresses of its functions and the places in ``w`` (m[WORK],); ``before``
    (m[NL],) are the states at the start of a cycle, ``aside`` (m[NL],) those that were set aside.
    """

    m: BareIntegers
    w: BareFloats
    before: BareFloats
    aside: BareFloats


ARGUMENTS = (Plan, Members, Tables, Room)


def kinds(group: type[tuple[Array | Counters, ...]]) -> dict[str, Kind]:
    """The kind of each array of one of `ARGUMENTS`, as declared."""
    hints = get_type_hints(group, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items()}


# Arrays are copied number by number: numba compiles `a[:] = b` to code that can raise an error,
# and that takes longer to compile than all of this file.


def clear(m: Counters, w: Array) -> None:
    """Set the work array to zeros."""
    for q in range(m[WORK]):
        w[q] = 0.0


def keep(m: Counters, w: Array, before: Array) -> None:
    """Remember the states."""
    for q in range(m[NL]):
        before[q] = w[m[NOW] + q]


def load_parameters(m: Counters, w: Array, parameters: Array, group: int, version: int) -> None:
    """Load a version of each run's parameters; an incomplete group repeats its last run."""
    for lane in range(LANES):
        i = min(group + lane, len(parameters) - 1)
        for k in range(parameters.shape[2]):
            w[m[P] + k * LANES + lane] = parameters[i, version, k]
    call(m[CONSTANTS], w)


def arrange(m: Counters, w: Array, marks: int, aside: Array) -> None:
    """Add the states that were set aside, set the states aside, or reset them, as marks say."""
    if marks & JOIN:
        for q in range(m[NL]):
            w[m[NOW] + q] += aside[q]
    if marks & APART:
        for q in range(m[NL]):
            aside[q] = w[m[NOW] + q]
    if marks & (APART | RESET):
        call(m[INITIAL], w)


def largest_change(m: Counters, w: Array, before: Array, counts: Counters, rtol: float) -> float:
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
    """Whether states are steady, given their changes in this cycle and in the one before.

    The changes still to come are a geometric series: change (s + s^2 + ...), with s the ratio of
    the two.
    """
    limit = max(STEADY * rtol, STEADY_AT_BEST)
    return change == 0.0 or change <= limit * (1.0 - min(1.0, change / last))


def cycle_ends(record: Record, is_steady: bool) -> bool:
    """Whether to stop repeating a cycle; if the steps of another run are followed, they decide.

    A step of length 0 marks the place.
    """
    used, steps = record.counts[USED], record.steps
    if record.following:
        is_steady = used < len(steps) and steps[used] == 0.0
    elif is_steady and record.group == 0 and used < len(steps):
        steps[used] = 0.0
    if is_steady:
        record.counts[USED] += 1
    return is_steady


def apply_doses(m: Counters, w: Array, segment: int, plan: Plan, amount: Array, group: int) -> None:
    """Add the boluses of a segment's start to the states, and set its inflow."""
    given = plan.given
    for q in range(m[NL]):
        w[m[INFLOW] + q] = 0.0
    for k in range(given.shape[1]):
        if given[0, k] <= segment <= given[1, k]:
            for lane in range(LANES):
                i = min(group + lane, len(amount) - 1)
                q = given[2, k] * LANES + lane
                if given[0, k] == given[1, k]:
                    w[m[NOW] + q] += amount[i, k]
                elif segment < given[1, k]:
                    w[m[INFLOW] + q] += amount[i, k] / plan.duration[k]


def initialize(
    m: Counters, w: Array, first: float, given: Counters, members: Members, record: Record
) -> int:
    """Set the initial states and, as far as they can be estimated already, the typical sizes."""
    group, amount, start, rtol = record.group, members.amount, members.start, record.clock[RTOL]
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
    counts, days = record.counts, record.days
    while counts[ROW] < len(days) and days[counts[ROW]] <= first:
        write_down(m, w, m[NOW], record.states, group, counts[ROW])
        counts[ROW] += 1
    return finite(m, w, NO_START)


def fill_quantities(
    m: Counters, w: Array, version: int, version_at: Counters, named: Array, record: Record
) -> None:
    """Compute the named quantities of the samples at which this version of parameters holds."""
    group, states = record.group, record.states
    lanes = min(LANES, len(states) - group)
    for row in range(record.counts[ROW]):
        if version_at[row] == version:
            for lane in range(LANES):
                i = group + min(lane, lanes - 1)
                for q in range(m[NL] // LANES):
                    w[m[NOW] + q * LANES + lane] = states[i, row, q]
            call(m[QUANTITIES], w)
            write_down(m, w, m[Q], named, group, row)


def run_four(plan: Plan, members: Members, room: Room, record: Record) -> int:
    """Run a timeline for one group; the status it ended with."""
    edges, marks, version, parameters = plan.edges, plan.marks, plan.version, members.parameters
    m, w, group, counts, rtol = room.m, room.w, record.group, record.counts, record.clock[RTOL]
    clear(m, w)
    load_parameters(m, w, parameters, group, version[0])
    status = initialize(m, w, edges[0], plan.given, members, record)
    counts[SEGMENT] = -1
    for q in range(m[NL]):
        w[m[NEW] + q] = w[m[NOW] + q]
    note_piece(m, w, edges[0], edges[0], record)  # the states before any dose
    counts[SEGMENT] = 0
    segment, row, piece, cycles, change = 0, 0, 0, 0, HUGE
    while status == DONE and segment < len(edges) - 1:
        counts[SEGMENT] = segment
        if version[segment + 1] != version[segment]:
            load_parameters(m, w, parameters, group, version[segment + 1])
        if cycles == 0:
            arrange(m, w, marks[0, segment], room.aside)
        if marks[0, segment] & CYCLE:
            keep(m, w, room.before)
            row = counts[ROW] if cycles == 0 else row
            piece = counts[PIECES] if cycles == 0 else piece
            counts[ROW], counts[PIECES] = row, piece
        apply_doses(m, w, segment, plan, members.amount, group)
        status = advance(m, w, edges[segment], edges[segment + 1], record)
        back = marks[1, segment]
        segment += 1
        if status == DONE and back >= 0:
            latest = largest_change(m, w, room.before, counts, rtol)
            is_steady = steady(latest, change, rtol)
            cycles, change = cycles + 1, latest
            if cycle_ends(record, is_steady):
                cycles, change = 0, HUGE
            elif cycles == MOST_CYCLES:
                status = NOT_STEADY
            else:
                segment = back
    return status


def run_many(plan: Plan, members: Members, tables: Tables, room: Room, following: bool) -> None:
    """Run a timeline for every row of ``members``, four at a time."""
    parameters, final, m, w = members.parameters, tables.final, room.m, room.w
    for group in range(0, len(parameters), LANES):
        counts, clock = tables.counts[group], tables.clock[group]
        record = Record(
            group, plan.days, tables.states, counts, clock, tables.steps, following, plan.watched,
            tables.pieces[group // LANES],
        )  # fmt: skip
        counts[STATUS] = run_four(plan, members, room, record)
        for lane in range(min(LANES, len(final) - group)):
            for q in range(final.shape[1]):
                final[group + lane, q] = w[m[NOW] + q * LANES + lane]
        for k in range(parameters.shape[1]):
            load_parameters(m, w, parameters, group, k)
            fill_quantities(m, w, k, plan.version_at, tables.named, record)
