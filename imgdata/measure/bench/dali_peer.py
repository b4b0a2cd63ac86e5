"""A pipeline for NVIDIA DALI over our tars, written by hand, opened for a job: DALI's reader and random crops."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import torch

from imgdata.backends.dali.available import load
from imgdata.backends.dali.crop_probe import crop_decode_is_safe
from imgdata.loose.opened import open as open_dataset
from imgdata.measure.bench.job import Job
from imgdata.measure.bench.opened import Opened
from imgdata.recipes.ops import CenterCrop, HorizontalFlip, Normalize, RandomResizedCrop, Resize
from imgdata.recipes.recipe import Recipe

_SHUFFLE_BUFFER = 1024
"""Samples of the reader's `initial_fill`, DALI's default."""
_DALI = load()
# Here, so that the clock doesn't count it.
_FN, _TYPES = import_module("nvidia.dali.fn"), import_module("nvidia.dali.types")
_TORCH, _BASE = import_module("nvidia.dali.plugin.pytorch"), import_module("nvidia.dali.plugin.base_iterator")


def dali(job: Job) -> Opened:
    """Open the pipeline that suits the machine: it decodes on the processor, or on the GPU where the batches go there.

    Where the GPU doesn't decode parts of pictures rightly and faster, it decodes whole ones and crops them.
    """
    device_id = _device_id(job)
    return _opened(job, whole=device_id is not None and not crop_decode_is_safe(device_id))


def dali_fused(job: Job) -> Opened:
    """Open the pipeline whose decoder crops, whatever the machine: it may end this process."""
    return _opened(job, whole=False)


def _opened(job: Job, *, whole: bool) -> Opened:
    pipeline = make_pipeline(job, whole=whole, device_id=_device_id(job))
    pipeline.build()
    batches = _TORCH.DALIGenericIterator(
        pipeline, ["images"], reader_name="reader", last_batch_policy=_BASE.LastBatchPolicy.DROP, auto_reset=True
    )
    return Opened(_images(batches, job), f"{_DALI.__version__}, whole pictures" if whole else _DALI.__version__)


def _device_id(job: Job) -> int | None:
    return None if job.options.device == "cpu" else torch.device(job.options.device).index


def make_pipeline(job: Job, *, whole: bool, device_id: int | None) -> Any:
    """Return the pipeline, not built yet; with `whole`, pictures are decoded whole where a random crop follows."""
    dataset = open_dataset(job.dataset)
    tars = dataset[job.split].shards
    pipeline = import_module("nvidia.dali.pipeline").Pipeline(
        batch_size=job.options.batch_size, num_threads=job.options.threads, device_id=device_id, seed=1
    )
    with pipeline:
        encoded = _FN.readers.webdataset(
            paths=list(map(str, tars)),
            index_paths=[str(tar.with_suffix(".idx")) for tar in tars],
            ext=[dataset.manifest.image_extension],
            missing_component_behavior="error",
            random_shuffle=True,
            initial_fill=_SHUFFLE_BUFFER,
            shard_id=job.rank,
            num_shards=job.world_size,
            name="reader",
        )
        pipeline.set_outputs(_finished(_cut(encoded, job, whole=whole), job))
    return pipeline


def _cut(encoded: Any, job: Job, *, whole: bool) -> Any:
    """Return decoded images, resized to the size of the output or, where a crop follows, to the size before it."""
    recipe = job.options.recipe
    # Without `affine`, which some machines refuse: the decoder's threads would choose cores of their own.
    where = {"device": "cpu"} if job.options.device == "cpu" else {"device": "mixed", "affine": False}
    crop, resize, size = recipe.find(RandomResizedCrop), recipe.find(Resize), recipe.output_size(0)
    if crop is not None:
        drawn = {"random_area": list(crop.scale), "random_aspect_ratio": list(crop.ratio), "num_attempts": 10}
        resized = {"size": size, "interp_type": _filter(crop.interpolation), "antialias": True}
        if whole:
            images = _FN.decoders.image(encoded, output_type=_TYPES.RGB, **where)
            return _FN.random_resized_crop(images, **drawn, **resized)
        return _FN.resize(_FN.decoders.image_random_crop(encoded, output_type=_TYPES.RGB, **drawn, **where), **resized)
    images = _FN.decoders.image(encoded, output_type=_TYPES.RGB, **where)
    if resize is None:
        return images
    to = {"size": resize.size} if isinstance(resize.size, tuple) else {"resize_shorter": resize.size}
    return _FN.resize(images, **to, interp_type=_filter(resize.interpolation), antialias=True)


def _finished(images: Any, job: Job) -> Any:
    recipe = job.options.recipe
    flip, normalize = recipe.find(HorizontalFlip), recipe.find(Normalize)
    mirror = 0 if flip is None else _FN.random.coin_flip(probability=flip.p)
    crop = {"crop": recipe.output_size(0), "out_of_bounds_policy": "pad"} if _crops(recipe) else {}
    if job.options.dtype == "uint8":
        images = _FN.crop(images, **crop) if crop else images
        return images if flip is None else _FN.flip(images, horizontal=mirror)
    mean, std = ((0.0,) * 3, (1.0,) * 3) if normalize is None else (normalize.mean, normalize.std)
    return _FN.crop_mirror_normalize(
        images,
        mirror=mirror,
        mean=[255 * value for value in mean],
        std=[255 * value for value in std],
        dtype=_TYPES.FLOAT16 if job.options.dtype == "float16" else _TYPES.FLOAT,
        output_layout="CHW",
        **crop,
    )


def _crops(recipe: Recipe) -> bool:
    return recipe.find(CenterCrop) is not None


def _filter(interpolation: str) -> Any:
    return _TYPES.INTERP_CUBIC if interpolation == "bicubic" else _TYPES.INTERP_LINEAR


def _images(batches: Any, job: Job) -> Iterator[torch.Tensor]:
    while True:
        for batch in batches:
            images: torch.Tensor = batch[0]["images"]
            yield images.permute(0, 3, 1, 2) if job.options.dtype == "uint8" else images
