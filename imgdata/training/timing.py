"""Steps -> seconds in all, and seconds in which the network waited for data."""

import time

import torch


def finish(device: torch.device) -> None:
    """Wait until the device has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Clock:
    """Measures waiting: call `waits` before a batch is requested, `has_batch` when it has come, `take` for the sums.

    On a GPU the device's waiting counts: the time between its last work of a step and its first of the next.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device if device.type == "cuda" else None
        self._gaps: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._idle: torch.cuda.Event | None = None
        self._asked = self._mark = time.perf_counter()
        self._waited = 0.0

    def restart(self) -> None:
        """Forget the time so far, which was neither learning nor waiting."""
        self._settle()
        self._gaps.clear()
        self._waited = 0.0
        self._mark = time.perf_counter()

    def waits(self) -> None:
        """Note that the device has its step, and that the next batch is requested."""
        if self._cuda is None:
            self._asked = time.perf_counter()
        else:
            self._idle = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            self._idle.record(torch.cuda.current_stream(self._cuda))

    def has_batch(self) -> None:
        """Note that the batch has come."""
        if self._cuda is None:
            self._waited += time.perf_counter() - self._asked
        elif self._idle is not None:
            busy = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            busy.record(torch.cuda.current_stream(self._cuda))
            self._gaps.append((self._idle, busy))

    def take(self) -> tuple[float, float]:
        """Return (seconds, seconds of waiting) since the last `take` or `restart`; waits for the device."""
        self._settle()
        now = time.perf_counter()
        seconds, waited = now - self._mark, self._waited
        waited += sum(idle.elapsed_time(busy) for idle, busy in self._gaps) / 1000
        self._gaps.clear()
        self._mark, self._waited = now, 0.0
        return seconds, min(waited, seconds)

    def _settle(self) -> None:
        if self._cuda is not None:
            finish(self._cuda)
