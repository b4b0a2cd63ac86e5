"""DALI's tensors that a stream is about to read -> held until it has."""

import threading
import weakref
from collections import deque
from typing import Any

import torch

_Reads = deque[tuple[torch.cuda.Event, Any]]


class Held:
    """Tensors of DALI's that work already given to a GPU still reads. Safe in threads.

    DALI takes its memory back when the last tensor of it is gone, in an order of its own: kernels that still read it
    would see the next batch.
    """

    def __init__(self) -> None:
        self._reads: _Reads = deque()
        self._lock = threading.Lock()
        # When called, when `self` is no longer referenced, or when the program ends.
        self.close = weakref.finalize(self, _wait, self._reads)

    def until_read(self, tensors: Any, device: torch.device) -> None:
        """Hold `tensors` until the current stream of this thread has done what it was given so far."""
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(device))
        with self._lock:
            while self._reads and self._reads[0][0].query():  # type: ignore[no-untyped-call]
                self._reads.popleft()
            self._reads.append((event, tensors))


def _wait(reads: _Reads) -> None:
    while reads:
        event, _ = reads.popleft()
        event.synchronize()
