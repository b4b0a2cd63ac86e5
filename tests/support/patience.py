"""How long tests wait for threads and processes: an end to waiting, never a claim about how fast something is."""

import gc
import time
from collections.abc import Callable

PATIENCE_S = 240
"""Seconds that are enough on the busiest machine."""


def settles(found: Callable[[], object], expected: object) -> bool:
    """Return whether `found()` becomes `expected`: threads need a moment to end."""
    deadline = time.monotonic() + PATIENCE_S
    while found() != expected and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    return found() == expected
