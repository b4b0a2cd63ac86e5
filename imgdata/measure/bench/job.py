"""The job of a measuring process, and its result: both as JSON, from process to process."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

from imgdata.backends.options import LoaderOptions
from imgdata.backends.protocol import BackendKind

OURS = "imgdata"
"""Our loader, by the name that it has among the others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One loader, to be measured once."""

    loader: str
    """`imgdata`, or the name of a peer."""
    dataset: str
    """The dataset's folder."""
    split: str
    options: LoaderOptions
    """Our loader's settings; other loaders use those that they know: recipe, device, batch size, dtype, threads."""
    rank: int
    world_size: int
    seconds: float
    read: Mapping[str, Any] = field(default_factory=dict)
    """How raw images are read, where their layout leaves a choice."""

    def to_json(self) -> str:
        """Return the job in one line."""
        plain = {one.name: getattr(self, one.name) for one in fields(self)}
        return json.dumps({**plain, "options": self.options.to_dict()})

    @staticmethod
    def from_json(line: str) -> "Job":
        """Return the job that `to_json` wrote."""
        content = json.loads(line)
        return Job(**{**content, "options": LoaderOptions.from_dict(content["options"])})


class Decided(NamedTuple):
    """The settings that our loader chose for a job."""

    kind: BackendKind
    description: str
    """Description of the backend in one line."""
    batches_per_epoch: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """The result of one run of a loader, or of several at the same time."""

    images: int
    """Images in the measured time."""
    images_per_s: float
    cpu_s: float | None
    """User and system time of all threads and child processes; None where children can't be seen."""
    p50_ms: float
    """Milliseconds from one batch to the next: half of them take no longer, 95 of 100, 99 of 100."""
    p95_ms: float
    p99_ms: float
    first_batch_s: float
    """Seconds from opening the dataset to the first batch; imports left out."""
    warm_up_batches: int
    """Number of batches before the measurement."""
    batches: int
    """Measured."""
    peak_mb: float
    """Most memory of the process, and what worker processes have beside it."""
    gpu_mb: float | None
    """Memory of the GPU that is taken in the end, without CUDA's own; None without a GPU."""
    bad: int
    """Images that could not be decoded, as far as the loader says."""
    version: str
    """Version of the loader."""
    cache_hits: float | None = None
    """Share of the images that a cache of shards had; None where shards of an object store are not kept."""
    fetched_mb_per_s: float | None = None
    """Bytes that came from the store, in 10^6 for each second."""
    store_wait_s: float | None = None
    """Seconds for which batches waited for the store, all batches together."""

    def to_json(self) -> str:
        """Return all of it in one line."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(line: str) -> "Measured":
        """Return what `to_json` wrote."""
        return Measured(**json.loads(line))
