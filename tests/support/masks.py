"""Small masks, and datasets of pictures with masks, as tools write them."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from support.rawdata import encoded


def numbers(seed: int, size: tuple[int, int] = (64, 48), *, most: int = 21, dtype: Any = np.uint8) -> NDArray[Any]:
    """Whole numbers `(H, W)` below `most` for a picture of `size`, in blocks that differ for each seed."""
    blocks = np.random.Generator(np.random.Philox(key=[seed, 1])).integers(0, most, (6, 8), dtype)
    rows, columns = np.arange(size[1]) * 6 // size[1], np.arange(size[0]) * 8 // size[0]
    return blocks[rows][:, columns]


def png(pixels: NDArray[Any] | Image.Image, mode: str | None = None) -> bytes:
    """The file of an array or a PIL image; with mode `P` the numbers are indices of a palette."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    if mode == "P":
        image.putpalette([value for index in range(256) for value in (index * 7 % 256, index * 13 % 256, index)])
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def image_folder(root: Path, pairs: dict[str, int], *, images: str = "images", masks: str = "masks") -> Path:
    """`root/images/SPLIT/NUMBER.jpg` and `root/masks/SPLIT/NUMBER.png`, so many of each split; split "" means none."""
    seed = 0
    for split, count in pairs.items():
        for folder in (images, masks):
            (root / folder / split).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            seed += 1
            size = (48 + seed % 16, 40)
            (root / images / split / f"{number:03d}.jpg").write_bytes(encoded(seed, size))
            (root / masks / split / f"{number:03d}.png").write_bytes(png(numbers(seed, size), "P"))
    return root


def write_dataset(out: Path, count: int = 6, **options: Any) -> list[NDArray[Any]]:
    """A dataset of pictures with masks by `imgdata.Writer`, in order; returns the numbers of the masks."""
    import imgdata

    masks = [numbers(seed, (48 + seed, 40)) for seed in range(count)]
    with imgdata.Writer(out, shuffle=False, **options) as writer:
        for seed, mask in enumerate(masks):
            writer.write(encoded(seed, (48 + seed, 40)), seed % 2, mask=mask)
    return masks
