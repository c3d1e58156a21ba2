"""Parallel map over processes or threads, with results in the order of the items.

Processes are spawned (never forked), do not run the user's script, and end with the parent: on
Ctrl-C each stops at its next `raise_if_stopped`; if the parent is killed they exit too. Threads are
for work that releases the GIL, as the compiled kernel does.
"""

# Ours, around concurrent.futures, since workers of loky (3.7) outlive a parent that was killed, and
# joblib's generator runs ahead of a slow reader without bound.

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing.synchronize import Event
from typing import TypeVar

from ..errors import CrsSimError, InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

_stop: Event | None = None


class StoppedError(Exception):
    """Raised in a worker whose result is no longer needed."""


def raise_if_stopped() -> None:
    """Raise `StoppedError` if this worker should stop; long work calls it regularly."""
    if _stop is not None and _stop.is_set():
        raise StoppedError


@dataclass(frozen=True)
class Processes:
    """Processes that stay for several calls of `process_map`; made by `processes`."""

    pool: ProcessPoolExecutor


@contextmanager
def processes(count: int) -> Iterator[Processes]:
    """Keep this many processes until the block is left; what they do then is stopped."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(count, context, _start_worker, (stop,))
    try:
        yield Processes(pool)
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def process_map(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int | Processes | None = None,
    finished: Callable[[Result], None] | None = None,
) -> list[Result]:
    """``[work(item) for item in items]`` in several processes.

    Parameters
    ----------
    work : a function of this package, or a `functools.partial` of one (it is pickled)
    items : arguments of ``work``
    workers : int, processes; 1 runs in this one, None uses one for each core; or `Processes`
    finished : called in this process with each result as it arrives, in any order

    Raises
    ------
    InputError
        If ``workers`` is below 1.
    CrsSimError
        If a process was killed. Exceptions of ``work`` are raised unchanged.

    Examples
    --------
    >>> process_map(abs, [-1, 2], workers=1)
    [1, 2]
    """
    if isinstance(workers, Processes):
        results = _in_processes(work, items, workers)
    else:
        count = min(worker_count(workers), len(items))
        results = _in_this_process(work, items) if count <= 1 else _in_new(work, items, count)
    by_place = {}
    for place, result in results:
        by_place[place] = result
        if finished is not None:
            finished(result)
    return [by_place[place] for place in range(len(items))]


def thread_map(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int | None = None,
    stop: threading.Event | None = None,
) -> Iterator[Result]:
    """``map(work, items)`` in several threads, a few items ahead of the consumer.

    Parameters
    ----------
    work : a function that releases the GIL
    items : taken one by one as needed; at most two per thread are queued
    workers : int, threads; None uses one for each core
    stop : set when the rest is no longer needed (an error, Ctrl-C, the iterator closed), so that
        long work can check it and end; queued items are then never started

    Raises
    ------
    InputError
        If ``workers`` is below 1. Exceptions of ``work`` are raised unchanged.

    Examples
    --------
    >>> list(thread_map(abs, [-1, 2], workers=2))
    [1, 2]
    """
    count = worker_count(workers)
    return _in_threads(work, iter(items), count, stop or threading.Event())


def _in_threads(
    work: Callable[[Item], Result], items: Iterator[Item], count: int, stop: threading.Event
) -> Iterator[Result]:
    pool = ThreadPoolExecutor(count, "crs_sim")
    try:
        waiting = deque(pool.submit(work, item) for item in islice(items, 2 * count))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(work, item) for item in islice(items, 1))
            yield result
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def worker_count(workers: int | None) -> int:
    """The requested number of workers, or one for each core."""
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}; give 1 or more")
    return workers or os.cpu_count() or 1


def _in_this_process(
    work: Callable[[Item], Result], items: Sequence[Item]
) -> Iterator[tuple[int, Result]]:
    for place, item in enumerate(items):
        yield place, work(item)


def _in_new(
    work: Callable[[Item], Result], items: Sequence[Item], count: int
) -> Iterator[tuple[int, Result]]:
    with processes(count) as several:
        yield from _in_processes(work, items, several)


def _in_processes(
    work: Callable[[Item], Result], items: Sequence[Item], several: Processes
) -> Iterator[tuple[int, Result]]:
    try:
        with _script_hidden():
            futures: dict[Future[Result], int] = {
                several.pool.submit(work, item): place for place, item in enumerate(items)
            }
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool:
        raise CrsSimError(
            "a worker process was killed (out of memory?); try fewer workers"
        ) from None


def _start_worker(stop: Event) -> None:
    """Initialise a worker: leave Ctrl-C to the parent, and exit if the parent is killed."""
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


@contextmanager
def _script_hidden() -> Iterator[None]:
    """Hide the user's script from new processes: it may lack an ``if __name__`` guard."""
    main = sys.modules["__main__"]
    hidden: dict[str, object] = {
        name: main.__dict__.pop(name) for name in ("__file__", "__spec__") if name in vars(main)
    }
    main.__spec__ = None
    try:
        yield
    finally:
        main.__dict__.update(hidden)
