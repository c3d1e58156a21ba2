"""The same work on many items, on a Dask cluster; the only door to dask.distributed.

Each item is a task that changes nothing but gives a result. Should a worker die, the scheduler
gives its tasks to the others; a result is taken once, whoever it comes from.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .errors import CrsSimError
from .workers import each, in_order

if TYPE_CHECKING:
    from distributed import Client

Item = TypeVar("Item")
Result = TypeVar("Result")
Workers = int | str | None
"""So many on this machine (None: one for each core), or a cluster: its scheduler's address."""

REACH = 15.0
"""Seconds to reach a cluster, and for its first worker to be there."""
PATIENCE = 60.0
"""Seconds a cluster may be without workers, or its scheduler silent, before it counts as gone."""
CONNECT = 5.0
"""Seconds to try a connection again before what is behind it counts as gone."""
LOOK = 1.0
SILENT = "its scheduler does not answer any more"
PROTOCOLS = ("tcp", "tls", "ws", "wss")
AHEAD = 2
"""Tasks for each thread of the cluster, so that none waits for us."""


def everywhere(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: Workers = None,
    finished: Callable[[Result], None] | None = None,
) -> list[Result]:
    """``[work(item) for item in items]``, on processes of this machine or on a cluster.

    Parameters
    ----------
    work, items, finished : as in `crs_sim.workers.each`
    workers : int, processes here (default: one for each core); or the address of a Dask scheduler
        (``tcp://host:8786``)

    Raises
    ------
    CrsSimError
        If the cluster cannot be reached, or goes away. What ``work`` raises comes through.

    Examples
    --------
    >>> everywhere(abs, [-1, 2], workers=1)
    [1, 2]
    """
    if not isinstance(workers, str):
        return each(work, items, workers=workers, finished=finished)
    by_place = {}
    for place, result in as_done(workers, work, items):
        by_place[place] = result
        if finished is not None:
            finished(result)
    return [by_place[place] for place in range(len(items))]


def as_done(
    address: str, work: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[tuple[int, Result]]:
    """The place of each item and what work makes of it, on a cluster, in the order they are done.

    Parameters
    ----------
    address : of a Dask scheduler
    work : a function of this package, or a `functools.partial` of one (it travels by pickle)
    items : taken one by one as the cluster has room; ``AHEAD`` for each of its threads wait

    Raises
    ------
    CrsSimError
        If the cluster cannot be reached, has no workers, or goes away.
    """
    with _reached(address) as client:
        yield from _done(address, client, work, items)


class InOrder(Protocol):
    """``map``, on several workers."""

    def __call__(
        self, work: Callable[[Item], Result], items: Sequence[Item], /
    ) -> Iterator[Result]:
        """The results in the order of the items, as they come in."""


@contextmanager
def ordered(workers: Workers, *, together: int = 1) -> Iterator[InOrder]:
    """A ``map`` on threads here, or on one connection to a cluster, for list after list of items.

    Parameters
    ----------
    workers : int, threads (None: one for each core); or the address of a Dask scheduler
    together : items that may be one task of a cluster, where each takes but milliseconds; fewer
        are if some worker would have nothing to do

    Raises
    ------
    CrsSimError
        If the cluster cannot be reached, or goes away. What the work raises comes through.

    Examples
    --------
    >>> with ordered(2) as run_all:
    ...     list(run_all(abs, [-1, 2]))
    [1, 2]
    """
    with ExitStack() as opened:  # closes what is not used up, then the connection
        if isinstance(workers, str):
            client = opened.enter_context(_reached(workers))
            run_all: Any = partial(_sorted, workers, client, together)
        else:
            run_all = partial(in_order, workers=workers)
        yield lambda work, items: opened.enter_context(closing(run_all(work, items)))


def _sorted(
    address: str, client: Client, together: int, work: Callable[[Item], Result],
    items: Sequence[Item],
) -> Iterator[Result]:  # fmt: skip
    with _there(address, client):
        size = max(1, min(together, len(items) // _room(client)))
    pieces = (items[k : k + size] for k in range(0, len(items), size))
    early, place = dict[int, list[Result]](), 0
    for found, results in _done(address, client, partial(_all, work), pieces):
        early[found] = results
        while place in early:
            yield from early.pop(place)
            place += 1


def _all(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [work(item) for item in items]


def _done(
    address: str, client: Client, work: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[tuple[int, Result]]:
    waiting: dict[Any, int] = {}
    rest = enumerate(items)
    while True:
        with _there(address, client):
            for place, item in islice(rest, max(0, _room(client) - len(waiting))):
                waiting[client.submit(work, item, pure=False)] = place
            done = _next(client, address, list(waiting))
            found = [(waiting.pop(future), future.result()) for future in done]
        yield from found
        if not waiting and not found:
            return


def _room(client: Client) -> int:
    """Tasks that a cluster can take at once."""
    threads: int = sum(client.nthreads().values())
    return AHEAD * max(1, threads)


def _next(client: Client, address: str, waiting: list[Any]) -> list[Any]:
    """Those that are done, once one is; none if nothing is waited for."""
    from distributed import wait

    alive = time.monotonic()
    while waiting:
        if client.status != "running":
            raise _gone(address, SILENT)
        with client.as_current(), suppress(TimeoutError):
            return list(wait(waiting, timeout=LOOK, return_when="FIRST_COMPLETED").done)
        if client.nthreads():
            alive = time.monotonic()
        if time.monotonic() - alive > PATIENCE:
            raise _gone(address, f"it has had no worker for {PATIENCE:g} s")
    return []


@contextmanager
def _there(address: str, client: Client) -> Iterator[None]:
    """Says in our words that a cluster went away, whichever way Dask notices it."""
    from distributed import CancelledError, KilledWorker
    from distributed.comm import CommClosedError

    try:
        yield
    except KilledWorker:
        raise CrsSimError(
            f"cluster {address}: several workers died over one and the same piece of work (out of "
            "memory?); give each worker fewer threads or more memory"
        ) from None
    except (CancelledError, CommClosedError, TimeoutError):
        raise _gone(address, SILENT) from None
    except CrsSimError:
        raise
    except (OSError, RuntimeError):
        if client.status == "running":
            raise
        raise _gone(address, SILENT) from None


def _gone(address: str, why: str) -> CrsSimError:
    return CrsSimError(
        f"cluster {address}  went away: {why}; start it again. What was finished "
        "before is kept where a command has --resume"
    )


@contextmanager
def _reached(address: str) -> Iterator[Client]:
    """A connection to a cluster whose workers can do our work; closed at the end."""
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
                parse_host_port(where)  # a client without a port would wait, then tell of itself
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
            with suppress(Exception):  # what is closed because it broke may break once more
                client.close(timeout=LOOK)


def _check_workers(address: str, client: Client) -> None:
    """One at least, and each with this version of the package."""
    try:
        client.wait_for_workers(1, timeout=REACH)
    except TimeoutError:
        raise CrsSimError(
            f"cluster {address}  has no workers; start some with: dask worker {address}"
        ) from None
    ours = version()
    try:
        theirs = client.run(version)
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


def version() -> str:
    """Of this package, wherever this runs."""
    from . import __version__

    return str(__version__)


@contextmanager
def _quiet() -> Iterator[None]:
    """Dask writes tracebacks to the terminal when a cluster goes; one message is enough."""
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
