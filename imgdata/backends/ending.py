"""The last task of a batch, a fault of one, or that nobody wants it any more -> the thread that waits for it."""

import queue
import weakref
from typing import TypeVar

from imgdata.errors import OptionError

T = TypeVar("T")


class Ending:
    """How a batch ends. Any thread tells, one waits; safe in threads."""

    def __init__(self) -> None:
        self.cancelled = False
        self._fault: BaseException | None = None
        # Something to take out each time. No event: the collector may call `cancel` while this same thread holds the
        # event's lock.
        self._told: queue.SimpleQueue[None] = queue.SimpleQueue()

    @property
    def given_up(self) -> bool:
        """Whether nothing more need be done for it."""
        return self.cancelled or self._fault is not None

    def fail(self, fault: BaseException) -> None:
        """Let the next `wait` raise `fault`; `tell` ends it."""
        self._fault = None if self.cancelled else fault

    def tell(self) -> None:
        """End one `wait`."""
        self._told.put(None)

    def cancel(self) -> None:
        """End it for good."""
        self.cancelled = True
        self._fault = None
        self.tell()

    def wait(self) -> None:
        """Until something is told. Raises what went wrong, and `OptionError` once it is cancelled."""
        if not self.cancelled:
            self._told.get()
        if self.cancelled:
            raise closed()
        fault, self._fault = self._fault, None
        try:
            if fault is not None:
                raise fault
        finally:
            # Its traceback holds this frame.
            del fault


def closed() -> OptionError:
    """What using a closed backend or loader raises."""
    return OptionError("this loader is closed; make another Loader")


def begun(batches: list[weakref.ref[T]], batch: T) -> list[weakref.ref[T]]:
    """Those of `batches` that somebody holds yet, and `batch`.

    No set of them, which runs Python code wherever one goes: Ctrl-C there would be lost.
    """
    return [*(known for known in batches if known() is not None), weakref.ref(batch)]


def alive(batches: list[weakref.ref[T]]) -> list[T]:
    """The batches that somebody holds yet."""
    return [batch for known in batches if (batch := known()) is not None]
