"""A phase's name -> its limit and what it finds out; in the order in which they run, the most valuable first."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One part of the run, in a process of its own."""

    name: str
    limit_s: float
    """Seconds after which it is ended, and counts as failed."""
    what: str
    package: str = "benchmarks.gpu"

    @property
    def module(self) -> str:
        """Module whose function `run` is the phase."""
        return f"{self.package}.{self.name}"


PHASES = {
    phase.name: phase
    for phase in (
        Phase(name="machine", limit_s=30, what="driver, versions, JPEG engines, NVML, doctor, the trial of crops"),
        Phase(name="suite", limit_s=120, what="the tests that need a GPU, one by one"),
        Phase(name="loaders", limit_s=150, what="images/s, CPU time and GPU memory beside other loaders"),
        Phase(name="end_to_end", limit_s=95, what="training with the loader, and with batches that stay on the GPU"),
        Phase(name="faults", limit_s=40, what="memory over epochs, bad pictures, a full GPU"),
        Phase(name="training", limit_s=40, what="runs, resume, compile, EMA, fp16, evaluate, one rank of NCCL"),
    )
}
"""Together less than 8 minutes."""
