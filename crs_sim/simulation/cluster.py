"""Parallel map on a Dask cluster; the only module that imports dask.distributed.

Each item is a task without side effects. If a worker dies, the scheduler reassigns its tasks; each
result is used once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..errors import CrsSimError
from ..store import package_version
from .workers import Processes, process_map, processes, thread_map, worker_count

if TYPE_CHECKING:
    from distributed import Client

Item = TypeVar("Item")
Result = TypeVar("Result")
Workers = int | str | None
"""Workers on this machine (None: one for each core), or the address of a Dask scheduler."""


@contextmanager
def kept_workers(workers: Workers, items: int) -> Iterator[int | str | Processes]:
    """Workers for several calls of `parallel_map` with so many items: the same processes."""
    if isinstance(workers, str) or (count := min(worker_count(workers), items)) <= 1:
        yield workers if isinstance(workers, str) else 1
        return
    with processes(count) as several:
        yield several


REACH = 15.0
"""Seconds to connect to a cluster, and to wait for its first worker."""
PATIENCE = 60.0
"""Seconds without workers, or without an answer of the scheduler, until a cluster is lost."""
CONNECT = 5.0
"""Seconds to retry a connection before it is lost."""
POLL = 1.0
"""Seconds between checks of a cluster."""
SILENT = "its scheduler no longer answers"
PROTOCOLS = ("tcp", "tls", "ws", "wss")
AHEAD = 2
"""Tasks queued for each thread of the cluster, so that none is idle."""


def parallel_map(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: Workers | Processes = None,
    finished: Callable[[Result], None] | None = None,
) -> list[Result]:
    """``[work(item) for item in items]`` in processes of this machine or on a cluster.

    Parameters
    ----------
    work, items, finished : as in `crs_sim.simulation.process_map`
    workers : int, processes here (default: one for each core); or the address of a Dask scheduler
        (``tcp://host:8786``); or those of `kept_workers`

    Raises
    ------
    CrsSimError
        If the cluster cannot be reached, or is lost. Exceptions of ``work`` are raised unchanged.

    Examples
    --------
    >>> parallel_map(abs, [-1, 2], workers=1)
    [1, 2]
    """
    if not isinstance(workers, str):
        return process_map(work, items, workers=workers, finished=finished)
    by_place = {}
    for place, result in completed_on_cluster(workers, work, items):
        by_place[place] = result
        if finished is not None:
            finished(result)
    return [by_place[place] for place in range(len(items))]


def completed_on_cluster(
    address: str, work: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[tuple[int, Result]]:
    """Run on a cluster; yield the index and result of each item as it completes.

    Parameters
    ----------
    address : of a Dask scheduler
    work : a function of this package, or a `functools.partial` of one (it is pickled)
    items : taken one by one as the cluster has capacity, ``AHEAD`` for each of its threads

    Raises
    ------
    CrsSimError
        If the cluster cannot be reached, has no workers, or is lost.
    """
    with _reached(address) as client:
        yield from _completed(address, client, work, items)


class InOrder(Protocol):
    """A ``map`` over several workers."""

    def __call__(
        self, work: Callable[[Item], Result], items: Sequence[Item], /
    ) -> Iterator[Result]:
        """Yield the results in the order of the items."""


@contextmanager
def ordered_map(workers: Workers, *, together: int = 1) -> Iterator[InOrder]:
    """A ``map`` over threads here or over one connection to a cluster, for repeated use.

    Parameters
    ----------
    workers : int, threads (None: one for each core); or the address of a Dask scheduler
    together : most items in one task of a cluster, for items of a few milliseconds; fewer if a
        worker would otherwise be idle

    Raises
    ------
    CrsSimError
        If the cluster cannot be reached, or is lost. Exceptions of the work are raised unchanged.

    Examples
    --------
    >>> with ordered_map(2) as run_all:
    ...     list(run_all(abs, [-1, 2]))
    [1, 2]
    """
    with ExitStack() as opened:  # closes unfinished iterators, then the connection
        if isinstance(workers, str):
            client = opened.enter_context(_reached(workers))
            run_all: Any = partial(_in_item_order, workers, client, together)
        else:
            run_all = partial(thread_map, workers=workers)
        yield lambda work, items: opened.enter_context(closing(run_all(work, items)))


def _in_item_order(
    address: str, client: Client, together: int, work: Callable[[Item], Result],
    items: Sequence[Item],
) -> Iterator[Result]:  # fmt: skip
    with _cluster_errors(address, client):
        size = max(1, min(together, len(items) // _capacity(client)))
    chunks = (items[k : k + size] for k in range(0, len(items), size))
    early, following = dict[int, list[Result]](), 0
    for found, results in _completed(address, client, partial(_each_of, work), chunks):
        early[found] = results
        while following in early:
            yield from early.pop(following)
            following += 1


def _each_of(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [work(item) for item in items]


def _completed(
    address: str, client: Client, work: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[tuple[int, Result]]:
    waiting: dict[Any, int] = {}
    rest = enumerate(items)
    while True:
        with _cluster_errors(address, client):
            for place, item in islice(rest, max(0, _capacity(client) - len(waiting))):
                waiting[client.submit(work, item, pure=False)] = place
            done = _next_completed(client, address, list(waiting))
            found = [(waiting.pop(future), future.result()) for future in done]
        yield from found
        if not waiting and not found:
            return


def _capacity(client: Client) -> int:
    """Number of tasks that a cluster can hold at once."""
    threads: int = sum(client.nthreads().values())
    return AHEAD * max(1, threads)


def _next_completed(client: Client, address: str, waiting: list[Any]) -> list[Any]:
    """Wait until at least one task is done and return the done ones; [] if none are waiting."""
    from distributed import wait

    alive = time.monotonic()
    while waiting:
        if client.status != "running":
            raise _lost(address, SILENT)
        with client.as_current(), suppress(TimeoutError):
            return list(wait(waiting, timeout=POLL, return_when="FIRST_COMPLETED").done)
        if client.nthreads():
            alive = time.monotonic()
        if time.monotonic() - alive > PATIENCE:
            raise _lost(address, f"it has had no worker for {PATIENCE:g} s")
    return []


@contextmanager
def _cluster_errors(address: str, client: Client) -> Iterator[None]:
    """Turn any error by which Dask reports a lost cluster into a CrsSimError."""
    from distributed import CancelledError, KilledWorker
    from distributed.comm import CommClosedError

    try:
        yield
    except KilledWorker:
        raise CrsSimError(
            f"cluster {address}: several workers died on the same task (out of "
            "memory?); give each worker fewer threads or more memory"
        ) from None
    except (CancelledError, CommClosedError, TimeoutError):
        raise _lost(address, SILENT) from None
    except CrsSimError:
        raise
    except (OSError, RuntimeError):
        if client.status == "running":
            raise
        raise _lost(address, SILENT) from None


def _lost(address: str, why: str) -> CrsSimError:
    return CrsSimError(
        f"cluster {address}  was lost: {why}; restart it. Finished results are kept by "
        "commands with --resume"
    )


@contextmanager
def _reached(address: str) -> Iterator[Client]:
    """A connection to a cluster with workers of this version; closed at the end."""
    try:
        from dask import config
        from distributed import Client
        from distributed.comm.addressing import parse_address, parse_host_port
    except ImportError:
        raise CrsSimError(
            "--cluster needs dask.distributed; install it with: pip install 'crs-sim[cluster]'"
        ) from None
    with _quiet(), config.set({"distributed.comm.timeouts.connect": f"{CONNECT}s"}):
        try:
            protocol, where = parse_address(address)
            if protocol in PROTOCOLS:
                parse_host_port(where)  # without a port a client waits, then reports its own error
            client = Client(address, timeout=REACH, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise CrsSimError(
                f"cluster {address}  cannot be reached ({_first_line(error)}); is `dask scheduler` "
                "running there, and is this its address (tcp://host:8786)?"
            ) from None
        try:
            _check_workers(address, client)
            yield client
        finally:
            with suppress(Exception):  # closing a broken connection may fail too
                client.close(timeout=POLL)


def _check_workers(address: str, client: Client) -> None:
    """Check for at least one worker, and that all have this version of the package."""
    try:
        client.wait_for_workers(1, timeout=REACH)
    except TimeoutError:
        raise CrsSimError(
            f"cluster {address}  has no workers; start some with: dask worker {address}"
        ) from None
    ours = package_version()
    try:
        theirs = client.run(package_version)
    except (ImportError, AttributeError):
        raise CrsSimError(
            f"cluster {address}: its workers have no crs-sim; install version {ours} there"
        ) from None
    for worker, found in theirs.items():
        if found != ours:
            raise CrsSimError(
                f"cluster {address}: worker {worker} has crs-sim {found}, this is {ours}; install "
                "the same version everywhere, or the numbers may differ"
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the tracebacks that Dask logs when a cluster is lost; one message is enough."""
    logs = [logging.getLogger(name) for name in sorted(logging.root.manager.loggerDict)
            if f"{name}.".startswith("distributed.")]  # fmt: skip
    before = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for log, level in zip(logs, before, strict=True):
            log.setLevel(level)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
