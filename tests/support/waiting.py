"""Waiting for what another process or thread does: long, for a machine may be slow or busy."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 300.0
"""Seconds; only what never comes takes so long."""


def always() -> bool:
    return True


def wait_until(condition: Callable[[], object], *, alive: Callable[[], bool] = always) -> None:
    """Return once it is so; an error if it never is, or if who should bring it about is gone."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert alive() or condition(), "the process ended before"
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)
