"""What was measured -> the settings that would help, each with the images/s that it promises."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from imgdata.backends.protocol import BackendKind
from imgdata.backends.resident.kind import ResidentKind
from imgdata.measure.doctor.pipeline import SOURCES, USUAL_WINDOW, Pipeline
from imgdata.measure.doctor.trials import InMemory, Resized, Rewritten, Sharded
from imgdata.measure.machine.disk import DiskRates

_MORE = 1.05
"""Room of a cache over the bytes of its shards: small files are in it as well."""
_LEAST_GAIN = 1.05
"""Less is within what two measurements differ by."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Advice:
    """One setting."""

    setting: str
    """The option to type, or the code to write."""
    predicted_images_per_s: float
    """Images/s of training where a network was given, else of the loader."""
    why: str


class Measured(NamedTuple):
    """All that advice is drawn from."""

    pipeline: Pipeline
    disk: DiskRates
    kind: BackendKind
    """The backend that is used."""
    dtype: str
    device: str
    finish_ms: float
    resized: Resized | None = None
    crop_ready: Rewritten | None = None
    sharded: Sharded | None = None
    in_memory: InMemory | None = None
    others: tuple[tuple[BackendKind, float], ...] = ()
    """Other backends that can be used on the same device, with the images/s of the loader with each."""
    larger_batch: tuple[int, float] | None = None
    """A batch size and the loader's images/s with it, where the one that is used is small."""


def advise(measured: Measured) -> list[Advice]:
    """Return what would help, the best first. Empty where nothing does, such as where the network sets the pace."""
    now = _with_loader(measured, measured.pipeline.alone)
    found = [
        advice
        for rule in (_threads, _shards, _cache, _resize, _crop_ready, _memory, _bytes, _others, _window, _batch)
        for advice in rule(measured)
    ]
    helpful = [advice for advice in found if advice.predicted_images_per_s >= _LEAST_GAIN * now]
    return sorted(helpful, key=lambda advice: -advice.predicted_images_per_s)


def _with_loader(measured: Measured, rate: float, *, smaller: float = 1.0) -> float:
    """Return images/s in all with another rate of the loader; copy and network stay as they are.

    So does the disk, but for images that are `smaller` times as large in bytes.
    """
    pipeline = measured.pipeline
    disk = [stage.images_per_s / smaller for stage in pipeline.stages if stage.lane in SOURCES and stage.counted]
    return pipeline.ceiling(min([rate, *disk]))[0]


def _gaining(measured: Measured, gain: float, *, smaller: float = 1.0) -> float:
    """Return the same where an image takes the processor so many times less time than in the measured run.

    That run counts as it would have been without other programs.
    """
    return _with_loader(measured, gain * measured.pipeline.alone, smaller=smaller)


def _threads(measured: Measured) -> Iterator[Advice]:
    pipeline = measured.pipeline
    most = max(1, int(pipeline.cores))
    if pipeline.streams and pipeline.threads < most:
        yield Advice(
            setting=f"threads={most}",
            predicted_images_per_s=_gaining(measured, most / pipeline.width),
            why=f"{pipeline.threads} of {most} cores are used",
        )


def _shards(measured: Measured) -> Iterator[Advice]:
    sharded, pipeline = measured.sharded, measured.pipeline
    if sharded is None or not pipeline.streams:
        return
    why = f"an image in shards takes {1 / sharded.gain:.0%} of the processor's time of a loose one"
    yield Advice(
        setting="imgdata shard DATASET NEW",
        predicted_images_per_s=_gaining(measured, sharded.gain),
        why=f"{why}, by {sharded.after.images} that were written so",
    )
    if pipeline.ceiling()[1] == "disk" and sharded.shards_cold is not None:
        cpu = 1000 * pipeline.width / pipeline.cpu_ms
        yield Advice(
            setting='imgdata shard DATASET NEW, and shuffle="window"',
            predicted_images_per_s=pipeline.ceiling(min(cpu, sharded.shards_cold.images_per_s))[0],
            why=f"the split is larger than memory; in order the disk gives {sharded.shards_cold.mb_per_s:,.0f} MB/s",
        )


def _cache(measured: Measured) -> Iterator[Advice]:
    pipeline, disk, store = measured.pipeline, measured.disk, measured.disk.store
    if store is None or pipeline.ceiling()[1] != "store" or not pipeline.streams:
        return
    cpu = 1000 * pipeline.width / pipeline.cpu_ms
    gigabytes = math.ceil(_MORE * disk.split_bytes / 1e9)
    held = f"the cache of shards may hold {store.cache_bytes / 1e9:,.1f}" if store.cache else "nothing is kept of it"
    free = store.cache_bytes + store.free_bytes >= 1e9 * gigabytes
    yield Advice(
        setting=f"cache={gigabytes}"
        if free
        else f"IMGDATA_CACHE on a disk with {gigabytes:,} GB, and cache={gigabytes}",
        predicted_images_per_s=pipeline.ceiling(cpu)[0],
        why=f"the split has {disk.split_bytes / 1e9:,.1f} GB, and {held}: the rest comes anew in every epoch "
        f"(--cache {gigabytes}, or IMGDATA_CACHE_GB={gigabytes} for all commands)",
    )
    window = store.cache_bytes // (2 * store.shard_bytes)
    if disk.cold_in_order is not None and 1 <= window < USUAL_WINDOW // 2:
        yield Advice(
            setting=f"window_shards={window}",
            predicted_images_per_s=pipeline.ceiling(min(cpu, disk.cold_in_order.images_per_s))[0],
            why=f"a window of shards that the cache holds comes in whole shards, at {store.mb_per_s:,.0f} MB/s",
        )


def _resize(measured: Measured) -> Iterator[Advice]:
    resized = measured.resized
    if resized is None or not measured.pipeline.streams:
        return
    yield Advice(
        setting=f"imgdata shard SOURCE NEW --resize {resized.shorter_side}",
        predicted_images_per_s=_gaining(measured, resized.gain, smaller=resized.smaller),
        why=f"pictures with a shorter side of {resized.shorter_side} pixels take {1 / resized.gain:.0%} of the "
        f"processor's time and {resized.smaller:.0%} of the disk, by {resized.after.images} that were re-encoded; "
        "small crops get fewer details",
    )


def _crop_ready(measured: Measured) -> Iterator[Advice]:
    ready = measured.crop_ready
    if ready is None or not measured.pipeline.streams:
        return
    yield Advice(
        setting="imgdata shard DATASET NEW --crop-ready",
        predicted_images_per_s=_gaining(measured, ready.gain, smaller=ready.smaller),
        why=f"JPEGs with restart markers, of which only the crop is decoded, take {1 / ready.gain:.0%} of the "
        f"processor's time and {ready.smaller:.0%} of the disk, by {ready.after.images} that were written so; "
        "the same pixels",
    )


def _memory(measured: Measured) -> Iterator[Advice]:
    trial, pipeline = measured.in_memory, measured.pipeline
    if trial is None or measured.kind.decodes_once:
        return
    once_s = pipeline.cpu_ms / 1000 / pipeline.width
    yield Advice(
        setting=f'backend="{ResidentKind.name}"',
        # No disk is read any more.
        predicted_images_per_s=pipeline.ceiling(trial.images_per_s(pipeline.cores))[0],
        why=f"decoded once, all pictures take {trial.num_bytes / 1e6:,.0f} MB, which fit into memory"
        + (f"; that costs {once_s * 1000:.2g} s for 1,000 pictures in the first run" if once_s else ""),
    )


def _bytes(measured: Measured) -> Iterator[Advice]:
    pipeline = measured.pipeline
    if not pipeline.streams or measured.dtype == "uint8" or pipeline.model_on_cpu or not measured.finish_ms:
        return
    share = "a quarter" if measured.dtype == "float32" else "half"
    yield Advice(
        setting='dtype="uint8"',
        predicted_images_per_s=_gaining(measured, pipeline.cpu_ms / (pipeline.cpu_ms - measured.finish_ms)),
        why=f"bytes, normalised on the device that trains: {share} of the memory to copy, and no work for the cores",
    )


def _others(measured: Measured) -> Iterator[Advice]:
    for kind, rate in measured.others:
        yield Advice(
            setting=f'backend="{kind.name}"',
            predicted_images_per_s=_with_loader(measured, rate),
            why=f"measured: {kind.benefit}" if kind.benefit else "measured",
        )


def _window(measured: Measured) -> Iterator[Advice]:
    pipeline, disk = measured.pipeline, measured.disk
    if pipeline.ceiling()[1] != "disk" or disk.cold_in_order is None:
        return
    cpu = 1000 * pipeline.width / pipeline.cpu_ms
    yield Advice(
        setting='shuffle="window"',
        predicted_images_per_s=pipeline.ceiling(min(cpu, disk.cold_in_order.images_per_s))[0],
        why=f"the split is larger than memory; in order the disk gives {disk.cold_in_order.mb_per_s:,.0f} MB/s",
    )


def _batch(measured: Measured) -> Iterator[Advice]:
    if measured.larger_batch is not None:
        size, rate = measured.larger_batch
        yield Advice(
            setting=f"batch_size={size}",
            predicted_images_per_s=_with_loader(measured, rate),
            why="measured: what is done once for each batch counts with small ones",
        )
