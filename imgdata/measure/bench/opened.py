"""What a loader is to the clock: batches without end, and what has to be known of them."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from imgdata.storage.shard_state import CacheFacts


class Opened(NamedTuple):
    """A loader, opened for a job; nothing has been read yet."""

    batches: Iterator[torch.Tensor]
    """Images `(N, 3, H, W)` on the job's device, epoch after epoch."""
    version: str
    group: int = 1
    """Batches that come at about the same time: one from each worker process."""
    bad: Callable[[], int] = lambda: 0
    """Number of images that could not be decoded so far."""
    cache: Callable[[], CacheFacts | None] = lambda: None
    """What a cache of shards has done so far; None where nothing is kept."""
