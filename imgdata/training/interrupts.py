"""Ctrl-C or a SIGTERM -> a flag that is looked at between steps, so that the run can be saved first."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from imgdata.errors import TrainingError


class Stop:
    """Whether somebody asked to stop."""

    def __init__(self) -> None:
        self.asked = False

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: the second one stops at once."""
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def stopping() -> Iterator[Stop]:
    """A flag that signals set inside the block; only the main thread may handle signals, others never stop."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_SIGNS = ("out of memory", "DefaultCPUAllocator")
"""In PyTorch's errors: of a GPU, pinned memory or its context, and of the processor's memory."""


@contextmanager
def memory_told(advice: Callable[[], str]) -> Iterator[None]:
    """Raises `TrainingError` with `advice` where memory is out in the block."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(sign in str(error) for sign in _SIGNS):
            raise
        raise TrainingError(advice()) from error
