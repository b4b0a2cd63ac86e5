"""Sizes -> the datasets that the phases read, made once in the folder that they share.

| folder | what |
|---|---|
| `jpegs` | ImageNet-like JPEGs: three quarters 4:2:0, the others 4:4:4, 4:2:2, progressive and gray |
| `odd` | the same, with CMYK and one picture of tens of megapixels: not every loader reads them |
| `small` | 32 x 32 pictures, as many as CIFAR-10 has |
| `few`, `bad` | a part of the first, whole, and with pictures that no decoder reads |

Photographs are those of `benchmarks.photos`; where the packages that ship them are missing, smooth noise.
"""

import shutil
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import imgdata
from benchmarks import photos
from benchmarks.gpu.running import Running, Settings
from benchmarks.raw_cifar import Cifar, write_cifar_binary
from benchmarks.synthetic_index import repeat
from imgdata.devices import own_cores

CLASSES = 10
BAD_EVERY = 64
"""Of so many pictures of `bad`, one can't be decoded."""
_SIZES = ((500, 375), (500, 375), (500, 375), (375, 500), (500, 333))
"""ImageNet's usual ones, about as often as there."""
_ONE_TAR = 10**12


def ready(phase: Running, *names: str) -> bool:
    """Return whether the datasets that a phase reads are there, made where they were not; without them it can't run."""
    return phase.attempt("pictures", work=lambda: _made(phase.settings, names)) is not None


def _made(settings: Settings, names: tuple[str, ...]) -> dict[str, Any]:
    begun = time.monotonic()
    for name in names:
        folder(settings, name)
    different, times = settings.sizes.pictures, settings.sizes.times
    return {
        "source": source(),
        "different": different,
        "samples": different * times,
        "seconds": round(time.monotonic() - begun, 1),
    }


def folder(settings: Settings, name: str) -> Path:
    """Return the dataset of this name, made where it is not there yet."""
    path = settings.folder / name
    if not path.exists():
        partial_path = path.with_name(f"{name}.partial")
        shutil.rmtree(partial_path, ignore_errors=True)
        _MAKERS[name](settings, partial_path)
        partial_path.rename(path)
    return path


def crops(count: int, size: tuple[int, int], seed: int) -> Iterator[Image.Image]:
    """Yield `count` RGB pictures of `size` (width, height)."""
    try:
        yield from photos.photo_crops(count, size, seed)
    except (ModuleNotFoundError, FileNotFoundError):
        yield from _noise(count, size, seed)


def source() -> str:
    """Return what the pictures are made of."""
    try:
        photos.photographs()
    except (ModuleNotFoundError, FileNotFoundError) as error:
        return f"smooth noise ({error})"
    return "photographs"


def jpeg(number: int, image: Image.Image) -> bytes:
    """Return a JPEG of about 0.45 bytes a pixel; its kind follows from its number."""
    match number % 24:
        case 3 | 15:
            return photos.encoded(image, "JPEG", quality=95, subsampling="4:4:4")
        case 7:
            return photos.encoded(image, "JPEG", quality=96, subsampling="4:2:2")
        case 11:
            return photos.encoded(image, "JPEG", quality=97, subsampling="4:2:0", progressive=True)
        case 19:
            return photos.encoded(image.convert("L"), "JPEG", quality=97)
    return photos.jpeg(image)


def _noise(count: int, size: tuple[int, int], seed: int) -> Iterator[Image.Image]:
    generator = np.random.Generator(np.random.Philox(key=[seed, 9]))
    for _ in range(count):
        coarse = Image.fromarray(generator.integers(0, 256, (7, 9, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
        grain = generator.integers(-12, 13, (size[1], size[0], 1))
        yield Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8))


def _batch(scale: float, first: int, count: int) -> list[bytes]:
    """Return some of the pictures: the same, however many make the others."""
    found = []
    for number in range(first, first + count):
        width, height = _SIZES[number % len(_SIZES)]
        size = round(scale * width), round(scale * height)
        found.append(jpeg(number, next(crops(1, size, 7000 + number))))
    return found


def _encoded(settings: Settings) -> list[bytes]:
    """Return the different pictures, from all cores."""
    count, scale = settings.sizes.pictures, settings.sizes.picture_scale
    step = max(1, count // (4 * len(own_cores())))
    starts = list(range(0, count, step))
    if not settings.sizes.apart:
        return _batch(scale, 0, count)
    with ProcessPoolExecutor(len(own_cores())) as pool:
        parts = pool.map(partial(_batch, scale), starts, [min(step, count - first) for first in starts])
        return [one for part in parts for one in part]


def _write(out: Path, pictures: Iterable[bytes], *, check: str = "header") -> None:
    with imgdata.Writer(
        out,
        classes=[f"class{number}" for number in range(CLASSES)],
        check=check,  # type: ignore[arg-type]
        shard_bytes=_ONE_TAR,
        shuffle=False,
    ) as writer:
        for number, data in enumerate(pictures):
            writer.write(data, number % CLASSES)


def _jpegs(settings: Settings, out: Path) -> None:
    """Write the different pictures once: an epoch as long as it should be reads them again under other names."""
    _write(out, _encoded(settings))
    repeat(out, settings.sizes.pictures * settings.sizes.times, settings.sizes.times)


def _odd(settings: Settings, out: Path) -> None:
    large = next(crops(1, settings.sizes.outlier, 1))
    cmyk = [
        photos.encoded(next(crops(1, (250, 190), seed)).convert("CMYK"), "JPEG", quality=90) for seed in range(20, 23)
    ]
    _write(out, [*_rows(settings), photos.jpeg(large, 85), *cmyk])


def _small(settings: Settings, out: Path) -> None:
    different, times = settings.sizes.small_pictures, settings.sizes.small_times
    pictures = [np.asarray(image) for image in crops(different, (32, 32), 3)]
    test = pictures[: max(CLASSES, different // 20)]
    data = Cifar(
        images={"train": np.stack(pictures), "test": np.stack(test)},
        labels={"train": np.arange(different) % CLASSES, "test": np.arange(len(test)) % CLASSES},
        coarse={},
    )
    raw = write_cifar_binary(out.with_name("raw-small"), data)
    imgdata.shard(raw, out, imgdata.ShardOptions(check="none", shuffle=False))
    repeat(out, different * times, times)


def _few(settings: Settings, out: Path) -> None:
    _write(out, islice(_rows(settings), settings.sizes.few))


def _bad(settings: Settings, out: Path) -> None:
    pictures = list(islice(_rows(settings), settings.sizes.few))
    for number in range(BAD_EVERY // 8, len(pictures), BAD_EVERY):
        pictures[number] = without_tables(pictures[number])
    _write(out, pictures, check="none")


def _rows(settings: Settings) -> Iterator[bytes]:
    split = imgdata.open(folder(settings, "jpegs"))["train"]
    return (split.read(row) for row in range(settings.sizes.pictures))


def without_tables(data: bytes) -> bytes:
    """Return a JPEG of the same length whose quantization tables are comments: no decoder reads it."""
    return data.replace(b"\xff\xdb", b"\xff\xfe")


_MAKERS = {"jpegs": _jpegs, "odd": _odd, "small": _small, "few": _few, "bad": _bad}
