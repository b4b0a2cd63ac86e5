"""Steps -> seconds in all, and seconds in which the network waited for data."""

import time

import torch


def finish(device: torch.device) -> None:
    """Wait for what the device was told to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Clock:
    """Call `waits` before a batch is asked for, `has_batch` when it is there, and `take` now and then.

    On a GPU it is the device whose waiting counts: the time between its last work of a step and its first of the next.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device if device.type == "cuda" else None
        self._gaps: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._idle: torch.cuda.Event | None = None
        self._asked = self._mark = time.perf_counter()
        self._waited = 0.0

    def restart(self) -> None:
        """Forget what came before: what has been done since was neither learning nor waiting."""
        self._settle()
        self._gaps.clear()
        self._waited = 0.0
        self._mark = time.perf_counter()

    def waits(self) -> None:
        """The step is given to the device, and the next batch is asked for."""
        if self._cuda is None:
            self._asked = time.perf_counter()
        else:
            self._idle = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            self._idle.record(torch.cuda.current_stream(self._cuda))

    def has_batch(self) -> None:
        """The batch is there."""
        if self._cuda is None:
            self._waited += time.perf_counter() - self._asked
        elif self._idle is not None:
            busy = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            busy.record(torch.cuda.current_stream(self._cuda))
            self._gaps.append((self._idle, busy))

    def take(self) -> tuple[float, float]:
        """(seconds, seconds of waiting) since the last `take` or `restart`; waits for the device."""
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
