"""The same work on many items, on one process or several, with the same results in the same order.

Processes are started afresh (never forked), run nothing of the user's script, and end with it: on
Ctrl-C each stops at its next `stop_if_asked`; if the parent is killed they notice and go too.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
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
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}; give 1 or more")
    count = min(workers or os.cpu_count() or 1, len(items))
    results = _here(work, items) if count <= 1 else _there(work, items, count)
    by_place = {}
    for place, result in results:
        by_place[place] = result
        if finished is not None:
            finished(result)
    return [by_place[place] for place in range(len(items))]


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
