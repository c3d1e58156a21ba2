"""Straight-line code for a sparse LU: which entries fill in, in which order, written once.

A model's Jacobian has the same few non-zero entries at every step, so elimination without
pivoting can be spelled out when the model is compiled, as KPP does for atmospheric chemistry
(Damian et al. 2002, doi:10.1016/S0098-1354(02)00128-X).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

Entry = tuple[int, int]
Place = Callable[[str, int], str]
"""How entry k of an array is written in the text: ``a[3]``, or its place in a larger array."""


def elimination_order(size: int, entries: Iterable[Entry]) -> list[int]:
    """Pivots in greedy minimum-degree order: next is the one that can fill in least (Markowitz).

    >>> elimination_order(3, [(0, 1), (0, 2), (1, 0), (2, 0)])   # an arrow: its head goes last
    [1, 0, 2]
    """
    pattern = set(entries) | {(i, i) for i in range(size)}
    left = set(range(size))
    order = []
    while left:
        rows = {k: {j for j in left if (k, j) in pattern and j != k} for k in left}
        columns = {k: {i for i in left if (i, k) in pattern and i != k} for k in left}
        pivot = min(left, key=lambda k: (len(rows[k]) * len(columns[k]), k))
        pattern |= {(i, j) for i in columns[pivot] for j in rows[pivot]}
        left.remove(pivot)
        order.append(pivot)
    return order


@dataclass(frozen=True)
class Elimination:
    """The plan of an LU of ``d*I - J``: the pivots, and each pivot's row and column below it."""

    entries: tuple[Entry, ...]
    order: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]
    columns: tuple[tuple[int, ...], ...]
    filled: frozenset[Entry]

    @property
    def size(self) -> int:
        """Numbers kept: the entries of J, then its factor with fill-in and reciprocal pivots."""
        return len(self.entries) + len(self.filled)

    @property
    def place(self) -> dict[Entry, int]:
        """Where each entry of the factor is kept: after those of J."""
        return {entry: k for k, entry in enumerate(sorted(self.filled), len(self.entries))}


def plan(size: int, entries: Iterable[Entry]) -> Elimination:
    """Eliminate symbolically: the order, the fill-in, and what each pivot touches.

    >>> len(plan(3, [(0, 1), (0, 2), (1, 0), (2, 0)]).filled)    # 4 entries, 3 pivots: no fill-in
    7
    """
    given = tuple(sorted(set(entries)))
    order = elimination_order(size, given)
    pattern = set(given) | {(i, i) for i in range(size)}
    left = set(range(size))
    rows, columns = [], []
    for pivot in order:
        left.remove(pivot)
        row = tuple(j for j in sorted(left) if (pivot, j) in pattern)
        column = tuple(i for i in sorted(left) if (i, pivot) in pattern)
        pattern |= {(i, j) for i in column for j in row}
        rows.append(row)
        columns.append(column)
    return Elimination(given, tuple(order), tuple(rows), tuple(columns), frozenset(pattern))


def factor_lines(steps: Elimination, at: Place) -> list[str]:
    """Lines that leave in array ``a``, after the entries of J, the LU of d*I - J."""
    given = {entry: k for k, entry in enumerate(steps.entries)}
    lines = []
    for entry in sorted(steps.filled):
        known = f" - {at('a', given[entry])}" if entry in given else ""
        lines.append(f"{_name(entry)} = {'d' if entry[0] == entry[1] else '0.0'}{known}")
    for pivot, row, column in zip(steps.order, steps.rows, steps.columns, strict=True):
        lines.append(f"{_name((pivot, pivot))} = 1.0 / {_name((pivot, pivot))}")
        for i in column:
            below = _name((i, pivot))
            lines.append(f"{below} *= {_name((pivot, pivot))}")
            lines += [f"{_name((i, j))} -= {below} * {_name((pivot, j))}" for j in row]
    return lines + [f"{at('a', k)} = {_name(entry)}" for entry, k in steps.place.items()]


def solve_lines(steps: Elimination, at: Place) -> list[str]:
    """Lines that turn array ``f`` into the solution x of (d*I - J) x = f."""
    place = steps.place
    lines = [f"b{i} = {at('f', i)}" for i in range(len(steps.order))]
    for pivot, column in zip(steps.order, steps.columns, strict=True):
        lines += [f"b{i} -= {at('a', place[i, pivot])} * b{pivot}" for i in column]
    for pivot, row in zip(reversed(steps.order), reversed(steps.rows), strict=True):
        known = "".join(f" - {at('a', place[pivot, j])} * b{j}" for j in row)
        lines.append(f"b{pivot} = (b{pivot}{known}) * {at('a', place[pivot, pivot])}")
    return lines + [f"{at('f', i)} = b{i}" for i in range(len(steps.order))]


def _name(entry: Entry) -> str:
    return f"m{entry[0]}_{entry[1]}"
