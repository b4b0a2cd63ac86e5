"""A device -> moments of its time, and how far they are apart."""

import time

import numpy as np
import torch
from numpy.typing import NDArray


class Ticks:
    """Marks moments: on an NVIDIA GPU those at which it gets there, for which nothing waits."""

    def __init__(self, device: str) -> None:
        self._cuda = torch.device(device) if device.startswith("cuda") else None
        self._mps = device == "mps"
        self._times: list[float] = []
        self._events: list[torch.cuda.Event] = []

    def mark(self) -> float:
        """Mark this moment of the device; the seconds of the host's clock are returned."""
        now = time.perf_counter()
        self._times.append(now)
        if self._cuda is not None:
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(self._cuda))
            self._events.append(event)
        return now

    def wait(self) -> None:
        """Until the device has done all its work."""
        if self._cuda is not None:
            torch.cuda.synchronize(self._cuda)
        elif self._mps:
            torch.mps.synchronize()

    def gaps_ms(self) -> NDArray[np.float64]:
        """Milliseconds from each mark to the next, float64 `(marks - 1,)`; `wait` first."""
        if self._cuda is None:
            return 1000 * np.diff(self._times)
        pairs = zip(self._events, self._events[1:], strict=False)
        return np.array([before.elapsed_time(after) for before, after in pairs], np.float64)
