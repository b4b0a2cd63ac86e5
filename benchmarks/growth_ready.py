"""Size, JPEG quality, restart interval, area of the crop -> processor time of a crop from crop-ready and plain files.

One thread, uint8 crops of 224x224, files in memory. The loops take turns, and the least time of each counts.
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.crop_ready import least_costs
from benchmarks.crops import Crops, bare_library
from benchmarks.growth_loading import QUALITIES, SIZES
from imgdata import native

INTERVALS = (1, 2, 4, 8, 16, 32)
"""MCUs between markers: all that divide the 32 of a row of a picture of 500x375, but none."""
AREAS = (0.08, 0.15, 0.25, 0.4, 0.6, 0.8, 1.0)
_USUAL_QUALITY = 97

Rows = list[dict[str, Any]]


def by_size(folder: Path, quick: bool) -> Rows:
    """Pictures of other sizes, in megapixels."""
    return [
        {
            "size": f"{width}x{height}",
            "megapixels": width * height / 1e6,
            **_measured(quick, size=(width, height), images=8 if width > 1000 else 24),
        }
        for width, height in _some(SIZES, quick)
    ]


def by_quality(folder: Path, quick: bool) -> Rows:
    """Pictures of 500x375, of more and more bytes."""
    return [{"quality": quality, **_measured(quick, quality=quality)} for quality in _some(QUALITIES, quick)]


def by_interval(folder: Path, quick: bool) -> Rows:
    """MCUs from one restart marker to the next."""
    return [{"interval": interval, **_measured(quick, interval=interval)} for interval in _some(INTERVALS, quick)]


def by_area(folder: Path, quick: bool) -> Rows:
    """Share of the picture that the crop covers."""
    return [{"area": area, **_measured(quick, area=(area, area))} for area in _some(AREAS, quick)]


def _some(values: tuple[Any, ...], quick: bool) -> tuple[Any, ...]:
    return values[1:-1:3] if quick else values


def _measured(quick: bool, *, images: int = 24, quality: int = _USUAL_QUALITY, interval: int = 0, **how: Any) -> Any:
    """Return bytes of the files, CPU-ms per image by kind of file, and crop-ready's share of the plain files' time."""
    with ExitStack() as stack:
        library = stack.enter_context(bare_library())
        pool = native.Pool(1)
        stack.callback(pool.close)
        plain = stack.enter_context(Crops(images, quality, **how))
        ready = stack.enter_context(Crops(images, quality, crop_ready=True, interval=interval, **how))
        runs: dict[str, Callable[[], object]] = {
            "crop-ready": ready.ours(pool, "uint8"),
            "plain": plain.ours(pool, "uint8"),
            "bare crop decode": plain.bare(library, "crop"),
        }
        cost = least_costs(runs, 2 if quick else 15)
    return {
        "mean_bytes": plain.num_bytes // images,
        "bytes_of_plain": round(ready.num_bytes / plain.num_bytes, 4),
        "time_of_plain": round(cost["crop-ready"] / cost["plain"], 3),
        **{name: {"cpu_ms_per_image": round(seconds / images * 1000, 4)} for name, seconds in cost.items()},
    }
