"""Batches as the CPU backend makes them, counted."""

from imgdata.backends.cpu.backend import CpuBackend
from imgdata.backends.protocol import BatchRequest, PendingBatch


class FakeBackend(CpuBackend):
    started = 0
    """Batches of all backends of this kind."""

    def start(self, work: BatchRequest) -> PendingBatch:
        FakeBackend.started += 1
        return super().start(work)
