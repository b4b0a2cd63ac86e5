"""Threads, picture size, JPEG quality, batch size -> images/s of the loader, beside another one and the bound.

Each figure is the median of rounds in which the loaders take turns, each in a process of its own.
"""

import os
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import loader_data, photos
from benchmarks.loader_peers.registry import OURS
from benchmarks.loader_run import WARM_BATCHES
from benchmarks.processes import run_json
from benchmarks.raw_files import write_file

LOADERS = (OURS, "bare crop decode", "torchvision v2")
SIZES = ((160, 120), (320, 240), (500, 375), (800, 600), (1600, 1200), (3200, 2400))
QUALITIES = (50, 75, 85, 92, 97, 100)
BATCHES = (16, 32, 64, 128, 256, 512)
_USUAL_SIZE, _USUAL_QUALITY, _USUAL_BATCH = (500, 375), 97, 64
_DIFFERENT = 64
"""The pictures repeat after so many."""
_MEASURED_PIXELS = 3e8
"""So many pixels are decoded at least, and `_LEAST` pictures."""
_LEAST, _MOST = 192, 2048
_AHEAD_BATCHES = 6
"""Batches that loaders may prefetch at the end."""

Rows = list[dict[str, Any]]


def by_threads(folder: Path, quick: bool) -> Rows:
    """1 to all cores."""
    cores = len(os.sched_getaffinity(0))
    counts = [count for count in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128) if count < cores]
    images = 512 if quick else 2048
    data = _data(folder / "usual", images)
    return [{"threads": count, **_measured(data, images, quick, threads=count)} for count in [*counts, cores]]


def by_size(folder: Path, quick: bool) -> Rows:
    """Pictures of other sizes, in megapixels; always crops of 224, in batches of 16: large pictures are many bytes."""
    rows, batch = [], 16
    for width, height in _some(SIZES, quick):
        images = _images((width, height), quick)
        data = _data(folder / f"{width}x{height}", images, size=(width, height), batch=batch)
        figures = _measured(data, images, quick, batch=batch)
        rows.append({"size": f"{width}x{height}", "megapixels": width * height / 1e6, **_bytes(data), **figures})
    return rows


def by_quality(folder: Path, quick: bool) -> Rows:
    """Pictures of 500x375, of more and more bytes."""
    rows = []
    for quality in _some(QUALITIES, quick):
        images = _images(_USUAL_SIZE, quick)
        data = _data(folder / f"q{quality}", images, quality=quality)
        rows.append({"quality": quality, **_bytes(data), **_measured(data, images, quick)})
    return rows


def by_batch(folder: Path, quick: bool) -> Rows:
    """Images of a batch."""
    batches = _some(BATCHES, quick)
    data = _data(folder / "batches", _LEAST, batch=max(batches))
    return [
        {
            "batch": batch,
            **_measured(data, max(_LEAST, 2 * batch), quick, batch=batch, loaders=(OURS, "torchvision v2")),
        }
        for batch in batches
    ]


def _some(values: Sequence[Any], quick: bool) -> Sequence[Any]:
    return values[1:-1:2] if quick else values


def _images(size: tuple[int, int], quick: bool) -> int:
    wanted = _MEASURED_PIXELS / (size[0] * size[1])
    return int(min(max(wanted / (8 if quick else 1), _LEAST), _MOST))


def _data(
    folder: Path,
    images: int,
    *,
    size: tuple[int, int] = _USUAL_SIZE,
    quality: int = _USUAL_QUALITY,
    batch: int = _USUAL_BATCH,
) -> Path:
    """`folders` and `shards` of as many pictures as one measurement reads."""
    samples = images + batch * (WARM_BATCHES + _AHEAD_BATCHES)
    different = [photos.jpeg(image, quality) for image in photos.photo_crops(_DIFFERENT, size, seed=5)]
    for number in range(samples):
        path = folder / "folders" / f"class{number % 8}" / f"{number:06d}.jpg"
        if number < _DIFFERENT:
            write_file(path, different[number])
        else:
            # One file under several names: memory is for the shards.
            path.hardlink_to(path.with_name(f"{number % _DIFFERENT:06d}.jpg"))
    loader_data.build(folder, samples, {"shards"})
    return folder


def _bytes(data: Path) -> dict[str, int]:
    sizes = [path.stat().st_size for path in (data / "folders").rglob("*.jpg")]
    return {"mean_bytes": sum(sizes) // len(sizes)}


def _measured(
    data: Path,
    images: int,
    quick: bool,
    *,
    threads: int | None = None,
    batch: int = _USUAL_BATCH,
    loaders: Iterable[str] = LOADERS,
) -> dict[str, dict[str, float]]:
    """By loader: images/s and CPU-ms per image."""
    cores = len(os.sched_getaffinity(0))
    settings = ["--batch", batch, "--images", images, "--threads", threads or cores, "--cores", cores]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in loaders}
    for _ in range(1 if quick else 3):
        for name, found in runs.items():
            found.append(run_json("benchmarks.loader_run", name, data, *settings))
    return {
        name: {
            "images_per_s": round(statistics.median(run["images_per_s"] for run in found), 1),
            "cpu_ms_per_image": round(statistics.median(run["cpu_ms_per_image"] for run in found), 4),
        }
        for name, found in runs.items()
    }
