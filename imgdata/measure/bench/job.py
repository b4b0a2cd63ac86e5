"""What a process is told to measure, and what it found: both as JSON, from process to process."""

import json
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from imgdata.backends.protocol import BackendName, DType
from imgdata.recipes.recipe import Recipe

OURS = "imgdata"
"""Our loader, by the name that it has among the others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One loader, to be measured once."""

    loader: str
    """`imgdata`, or the name of a peer."""
    out: str
    """The dataset's folder."""
    split: str
    recipe: dict[str, Any]
    """As `Recipe.to_dict` gives it."""
    backend: BackendName
    """Figures of our loader."""
    device: str
    """`cpu`, `cuda:0`, ..."""
    batch_size: int
    threads: int
    """Threads or worker processes, whichever the loader has."""
    dtype: DType | None
    """None while it is left to our loader, before the first process starts."""
    rank: int
    world_size: int
    seconds: float

    def to_json(self) -> str:
        """In one line."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(line: str) -> "Job":
        """What `to_json` wrote."""
        return Job(**json.loads(line))

    def ready_recipe(self) -> Recipe:
        """The recipe, built. Raises `OptionError`."""
        return Recipe.from_dict(self.recipe)


class Decided(NamedTuple):
    """A job with nothing left open, and what will be done by it."""

    job: Job
    backend: str
    description: str
    """What makes the batches, in one line."""
    batches_per_epoch: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What one run of a loader came to, or several at the same time."""

    images: int
    """In the measured time."""
    images_per_s: float
    cpu_s: float | None
    """User and system time of all threads and child processes; None where children can't be seen."""
    p50_ms: float
    """From one batch to the next: half of them take no longer, 95 of 100, 99 of 100."""
    p95_ms: float
    p99_ms: float
    first_batch_s: float
    """Seconds from opening the dataset to the first batch; imports left out."""
    warm_up_batches: int
    """Not measured."""
    batches: int
    """Measured."""
    peak_mb: float
    """Most memory of the process, and what worker processes have beside it."""
    gpu_mb: float | None
    """Memory of the GPU that is taken in the end, without CUDA's own; None without a GPU."""
    bad: int
    """Images that could not be decoded, as far as the loader says."""
    version: str
    """Of the loader."""

    def to_json(self) -> str:
        """In one line."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(line: str) -> "Measured":
        """What `to_json` wrote."""
        return Measured(**json.loads(line))
