"""A GPU that is acted: a queue that works behind the host, with the events and waits of `torch.cuda`."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch


class Timeline:
    """Two clocks in seconds: the host's, and the moment at which the GPU has done all that it was given."""

    def __init__(self) -> None:
        self.host = self.free = 0.0

    def compute(self, seconds: float) -> None:
        """Give the GPU work, which begins when it has nothing else to do."""
        self.free = max(self.free, self.host) + seconds

    def synchronize(self, *_: object) -> None:
        """Let the host wait for the GPU."""
        self.host = max(self.host, self.free)

    def event(self, **_: object) -> "Event":
        """Stand in for `torch.cuda.Event`."""
        return Event(self)


class Event:
    """Stands in for an event: its moment is that at which the GPU gets there."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline, self.moment = timeline, 0.0

    def record(self, stream: object = None) -> None:
        """Mark the end of the work so far; the GPU never gets there before the host has said so."""
        self.moment = max(self._timeline.free, self._timeline.host)

    def elapsed_time(self, other: "Event") -> float:
        """Return the milliseconds from this event to the other."""
        return 1000 * (other.moment - self.moment)


def acted_gpu(monkeypatch: pytest.MonkeyPatch, module: Any) -> Timeline:
    """Let `module`, which reads `time.perf_counter`, see this GPU and this clock."""
    timeline = Timeline()
    monkeypatch.setattr(torch.cuda, "Event", timeline.event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: None)
    monkeypatch.setattr(torch.cuda, "synchronize", timeline.synchronize)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: timeline.host))
    return timeline
