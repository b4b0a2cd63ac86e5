"""What every loader of the benchmark is given, and what several of them share."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SIDE = 224
"""Height and width of all outputs in pixels."""
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
AREA = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)

Batches = Iterable[Any]
"""Pairs (images, labels) of a batch, as arrays of the loader's own kind: uint8 `(N, H, W, C)` or `(N, C, H, W)`, or
float32 `(N, C, H, W)`, normalised."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One run of a loader."""

    data: Path
    """Folder with the same images in every layout: `loader_data` says which."""
    dtype: str
    """`uint8` or `float32`."""
    threads: int
    """Threads or worker processes, whichever the loader has."""
    batch: int
    """Images of a batch."""

    @property
    def is_float(self) -> bool:
        return self.dtype == "float32"


def tensor_transform(task: Task) -> Callable[[bytes], Any]:
    """JPEG bytes -> `(C, H, W)`: torchvision's decoder and v2 operators on uint8 tensors, as its docs advise."""
    import numpy as np
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    augment = torchvision_v2(task)

    def transform(data: bytes) -> Any:
        # A copy: PyTorch takes no read-only memory without a warning.
        encoded = torch.from_numpy(np.frombuffer(data, np.uint8).copy())
        return augment(decode_jpeg(encoded, mode=ImageReadMode.RGB))

    return transform


def torchvision_v2(task: Task, *first: Any) -> Any:
    """Return the recipe in torchvision's v2 operators; `first` come between the flip and the rest."""
    import torch
    from torchvision.transforms import v2

    crop = v2.RandomResizedCrop(SIDE, scale=AREA, ratio=RATIO, antialias=True)
    normalize = (v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)) if task.is_float else ()
    return v2.Compose([crop, v2.RandomHorizontalFlip(), *first, *normalize])


def data_loader(task: Task, dataset: Any, **options: Any) -> Batches:
    """PyTorch's `DataLoader` with `threads` workers; they work in one thread each by its default."""
    from torch.utils.data import DataLoader

    settings = {"batch_size": task.batch, "num_workers": task.threads, "drop_last": True, **options}
    return DataLoader(dataset, **settings)
