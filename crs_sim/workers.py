"""The same work on many items, in processes or in threads; the same results in the same order.

Processes are started afresh (never forked), run nothing of the user's script, and end with it: on
Ctrl-C each stops at its next `stop_if_asked`; if the parent is killed they notice and go too.
Threads are for work that lets go of Python's lock, as the compiled kernel does.
"""

# Ours round concurrent.futures, since workers of loky (3.7) outlive a parent that was killed, and
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
from itertools import islice
from multiprocessing.synchronize import Event
from typing import TypeVar

from .errors import CrsSimError, InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

_stop: Event | None = None


class StoppedError(Exception):
    """Raised inside a worker whose result nobody waits for any more."""


def stop_if_asked() -> None:
    """To be called now and then by long work; raises `StoppedError` in a worker told to stop."""
    if _stop is not None and _stop.is_set():
        raise StoppedError


def each(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int | None = None,
    finished: Callable[[Result], None] | None = None,
) -> list[Result]:
    """``[work(item) for item in items]``, on several processes.

    Parameters
    ----------
    work : a function of this package, or a `functools.partial` of one (it travels by pickle)
    items : what to work on
    workers : int, processes; 1 stays in this one, None takes one for each core
    finished : called in this process with each result as it comes in, in any order

    Raises
    ------
    InputError
        If ``workers`` is below 1.
    CrsSimError
        If a process was killed. What ``work`` raises comes through as it is.

    Examples
    --------
    >>> each(abs, [-1, 2], workers=1)
    [1, 2]
    """
    count = min(count_of(workers), len(items))
    results = _here(work, items) if count <= 1 else _there(work, items, count)
    by_place = {}
    for place, result in results:
        by_place[place] = result
        if finished is not None:
            finished(result)
    return [by_place[place] for place in range(len(items))]


def in_order(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int | None = None,
    stop: threading.Event | None = None,
) -> Iterator[Result]:
    """``map(work, items)`` on several threads, a few items ahead of whoever takes the results.

    Parameters
    ----------
    work : a function that lets go of Python's lock
    items : taken one by one as they are needed; twice as many as there are threads wait at most
    workers : int, threads; None takes one for each core
    stop : set when the rest is not wanted any more (an error, Ctrl-C, the iterator closed), so
        that long work can look at it and end; what has not begun then never does

    Raises
    ------
    InputError
        If ``workers`` is below 1. What ``work`` raises comes through as it is.

    Examples
    --------
    >>> list(in_order(abs, [-1, 2], workers=2))
    [1, 2]
    """
    count = count_of(workers)
    return _threads(work, iter(items), count, stop or threading.Event())


def _threads(
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


def count_of(workers: int | None) -> int:
    """How many workers: as many as asked for, or one for each core."""
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}; give 1 or more")
    return workers or os.cpu_count() or 1


def _here(
    work: Callable[[Item], Result], items: Sequence[Item]
) -> Iterator[tuple[int, Result]]:
    for place, item in enumerate(items):
        yield place, work(item)


def _there(
    work: Callable[[Item], Result], items: Sequence[Item], count: int
) -> Iterator[tuple[int, Result]]:
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(count, context, _begin, (stop,))
    try:
        with _script_hidden():
            futures: dict[Future[Result], int] = {
                pool.submit(work, item): place for place, item in enumerate(items)
            }
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool:
        raise CrsSimError(
            "a worker process was killed (out of memory?); try fewer workers"
        ) from None
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(stop: Event) -> None:
    """First thing in a worker: leave Ctrl-C to the parent, and watch that it lives."""
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


@contextmanager
def _script_hidden() -> Iterator[None]:
    """Keep new processes from importing the user's script, which may call us without a guard."""
    main = sys.modules["__main__"]
    hidden: dict[str, object] = {
        name: main.__dict__.pop(name) for name in ("__file__", "__spec__") if name in vars(main)
    }
    main.__spec__ = None
    try:
        yield
    finally:
        main.__dict__.update(hidden)
