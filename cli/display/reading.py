"""How far the first reading of raw images is: a bar, or lines where another bar is or there is no terminal."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from .console import PLAIN_LINE_SECONDS, Counting, Display

_QUIET_SECONDS = 0.5
"""A reading that ends within this time shows nothing."""


class Reading:
    """Display of the reading of raw images that a command opens for the first time, if it takes long."""

    def __init__(self, *, quiet: Callable[[], bool]) -> None:
        self._quiet = quiet
        self._what = ""
        self._from_s = 0.0
        self._line_s = 0.0
        self._bar: Counting | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def progress(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` images are read."""
        now = time.monotonic()
        if what != self._what:
            self._stop()
            self._what, self._from_s, self._line_s = what, now, now
        if done == total:
            self._stop()
        elif self._quiet() or now - self._from_s < _QUIET_SECONDS:
            return
        elif (other := Display.shown) is not None and other is not self._bar:
            # A terminal has one bar at a time; lines go above it.
            if now - self._line_s >= PLAIN_LINE_SECONDS:
                self._line_s = now
                other.console.print(f"{what}: {done:,} of {total:,} images")
        else:
            bar = self._bar or Counting(what, "images", quiet=False)
            bar.progress(done, total)
            if self._bar is None:
                self._bar = bar.__enter__()

    def _stop(self) -> None:
        """Take the bar away; what is read next begins anew."""
        if self._bar is not None:
            self._bar.stop()
        self._bar, self._what = None, ""
