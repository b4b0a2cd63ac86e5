"""A dataset whose samples have masks, depth, boxes and keypoints; pictures show the mask's numbers, times `STEP`."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

import imgdata

SAMPLES, SHARD_SAMPLES = 40, 7
HEIGHT, STEP = 48, 40
"""Rows of all pictures; difference of two classes in the picture."""
CLASSES = 6


def width(number: int) -> int:
    return 48 + 8 * (number % 4)


def numbers(number: int) -> np.ndarray:
    """The mask of a sample, uint8 `(H, W)`: a class for each square of 8 pixels."""
    square = np.random.default_rng(number).integers(0, CLASSES, (HEIGHT // 8, width(number) // 8), np.uint8)
    return square.repeat(8, 0).repeat(8, 1)


def fields(number: int) -> dict[str, object]:
    """Boxes of the upper left square and of all, a class for each, and two points of each."""
    w = width(number)
    return {
        "boxes": [[0, 0, 8, 8], [4.5, 4, w - 2, HEIGHT]],
        "box_labels": [number, 1],
        "iscrowd": [0, 1],
        "keypoints": [[[1, 1, 2], [7, 7, 0]], [[w / 2, HEIGHT / 2, 1], [w - 3, 40, 2]]],
    }


def encoded(array: np.ndarray, format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, format, **options)
    return file.getvalue()


def palette(array: np.ndarray) -> bytes:
    """A mask with a palette, as Pascal VOC has them."""
    image = Image.fromarray(array)
    image.putpalette([value * 37 % 256 for value in range(768)])
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def parts(number: int) -> dict[str, bytes]:
    """The members of a sample by extension."""
    mask = numbers(number)
    picture = (mask * STEP)[:, :, None].repeat(3, 2)
    # JPEGs for the extension, and some PNGs for Pillow, whose bytes decide.
    image = encoded(picture) if number % 10 == 9 else encoded(picture, "JPEG", quality=100, subsampling=0)
    return {
        "cls": b"%d" % (number % 3),
        "depth.png": encoded(mask.astype(np.uint16) * 1000),
        "jpg": image,
        "json": json.dumps(fields(number)).encode(),
        "mask.png": palette(mask) if number % 2 else encoded(mask),
    }


def dataset(folder: Path, changed: Mapping[tuple[int, str], bytes | None] | None = None, count: int = SAMPLES) -> Path:
    """An indexed dataset; `changed` has other bytes for some members, by number and extension, or None for none."""
    changed = changed or {}
    for shard, first in enumerate(range(0, count, SHARD_SAMPLES)):
        with tarfile.open(folder / f"joint-train-{shard:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for number in range(first, min(first + SHARD_SAMPLES, count)):
                for extension, data in {**parts(number), **_of(changed, number)}.items():
                    if data is not None:
                        member = tarfile.TarInfo(f"s{number:04d}.{extension}")
                        member.size = len(data)
                        tar.addfile(member, io.BytesIO(data))
    imgdata.index(folder, workers=1)
    return folder


def _of(changed: Mapping[tuple[int, str], bytes | None], number: int) -> dict[str, bytes | None]:
    return {extension: data for (of, extension), data in changed.items() if of == number}
