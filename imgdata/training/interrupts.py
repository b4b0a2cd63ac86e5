"""Ctrl-C, a SIGTERM, memory that is out -> a flag between steps, or one error with advice."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from imgdata.devices import says_no_device_memory
from imgdata.errors import TrainingError


class Stop:
    """Flag: whether the run was asked to stop."""

    def __init__(self) -> None:
        self.asked = False

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: the second one stops at once."""
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def stopping() -> Iterator[Stop]:
    """Yield a flag that signals set inside the block; outside the main thread, which alone handles signals, none do."""
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


@contextmanager
def memory_advice(advice: Callable[[], str]) -> Iterator[None]:
    """Raise `TrainingError` with `advice` where memory is out in the block."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not says_no_device_memory(str(error)):
            raise
        raise TrainingError(advice()) from error
