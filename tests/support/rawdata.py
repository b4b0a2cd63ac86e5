"""Small raw datasets of real images for tests."""

import io
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A smooth colour image of `size` (width, height) that differs for each seed."""
    coarse = np.random.Generator(np.random.Philox(key=[seed, 0])).integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(seed: int, size: tuple[int, int] = (64, 48), format: str = "JPEG", mode: str = "RGB") -> bytes:
    """The file of a picture."""
    buffer = io.BytesIO()
    picture(seed, size).convert(mode).save(buffer, format, quality=90)
    return buffer.getvalue()


def class_folders(root: Path, splits: Mapping[str, int], classes: tuple[str, ...] = ("cat", "dog", "newt")) -> Path:
    """`root/SPLIT/CLASS/NUMBER.jpg`, so many images of each class; split "" means none. Returns `root`."""
    seed = 0
    for split, count in splits.items():
        for name in classes:
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                seed += 1
                # Widths differ, and with them the sizes in bytes.
                (folder / f"{number:03d}.jpg").write_bytes(encoded(seed, (48 + seed % 32, 48)))
    return root


def pictures_of(root: Path, counts: Mapping[str, int], first: int = 0) -> Path:
    """`root/SPLIT/CLASS/NUMBER.jpg`, as many as `counts` says of each `SPLIT/CLASS`, from number `first` on."""
    for place, count in counts.items():
        (root / place).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            seed = zlib.crc32(f"{place}/{number}".encode())
            (root / place / f"{number:03d}.jpg").write_bytes(encoded(seed, (40 + seed % 32, 48)))
    return root
