"""Loaders with worker processes of PyTorch's `DataLoader`, opened for a job: torchvision and webdataset."""

import itertools
from collections.abc import Iterator
from typing import Any

import torch
import torchvision as tv
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from imgdata.dataset import Split
from imgdata.loose.opened import open as open_dataset
from imgdata.measure.bench.job import Job
from imgdata.measure.bench.opened import Opened
from imgdata.measure.bench.transforms import Decoded, transforms

_SHUFFLE_BUFFER = 1000
"""Samples of webdataset's `shuffle`, as in its documentation."""


def torchvision(job: Job) -> Opened:
    """Open a loader of encoded images by our index; torchvision decodes them, and works on uint8 tensors."""
    split = open_dataset(job.dataset)[job.split]
    transform = Decoded(transforms(job.options.recipe, job.options.dtype, pil=False))
    return _map_style(_Stored(split, transform), job)


def torchvision_pil(job: Job) -> Opened:
    """Open `Dataset.torch` in place of `ImageFolder`: PIL images, as most code has them."""
    dataset = open_dataset(job.dataset)
    return _map_style(dataset.torch(job.split, transforms(job.options.recipe, job.options.dtype, pil=True)), job)


def webdataset(job: Job) -> Opened:
    """Open our tars as an endless `WebDataset` of shards in random order: each rank and each worker by itself."""
    import webdataset as wds

    dataset = open_dataset(job.dataset)
    split, manifest = dataset[job.split], dataset.manifest
    labelled = manifest.label_from == "cls" and bool((split.index.label_N >= 0).all())
    decoded = Decoded(transforms(job.options.recipe, job.options.dtype, pil=False))
    functions: list[Any] = [decoded, *[int] * labelled]
    samples = (
        split.webdataset(resampled=True)
        .shuffle(_SHUFFLE_BUFFER)
        .to_tuple(manifest.image_extension, *["cls"] * labelled)
        .map_tuple(*functions)
        .batched(job.options.batch_size, partial=False)
    )
    loader = wds.WebLoader(samples, batch_size=None, num_workers=job.options.threads, pin_memory=job.options.on_gpu)
    batches = (batch[0] for batch in loader)
    return Opened(_moved(batches, job.options.device), wds.__version__, group=job.options.threads)


class _Stored(Dataset[tuple[torch.Tensor, int]]):
    """Samples of a split by their positions."""

    def __init__(self, split: Split, transform: Decoded) -> None:
        self._split, self._transform = split, transform

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, position: int) -> tuple[torch.Tensor, int]:
        return self._transform(self._split.read(position)), int(self._split.index.label_N[position])


def _map_style(dataset: Dataset[Any], job: Job) -> Opened:
    sampler: DistributedSampler[Any] | None = None
    if job.world_size > 1:
        sampler = DistributedSampler(dataset, job.world_size, job.rank, shuffle=True, drop_last=True)
    loader = DataLoader(
        dataset,
        batch_size=job.options.batch_size,
        shuffle=sampler is None,
        sampler=sampler,
        num_workers=job.options.threads,
        pin_memory=job.options.on_gpu,
        drop_last=True,
        persistent_workers=True,
    )
    return Opened(_moved(_epochs(loader, sampler), job.options.device), tv.__version__, group=job.options.threads)


def _epochs(loader: DataLoader[Any], sampler: "DistributedSampler[Any] | None") -> Iterator[torch.Tensor]:
    for epoch in itertools.count():
        if sampler is not None:
            sampler.set_epoch(epoch)
        for images, _ in loader:
            yield images


def _moved(batches: Iterator[torch.Tensor], device: str) -> Iterator[torch.Tensor]:
    return (images.to(device, non_blocking=True) for images in batches)
