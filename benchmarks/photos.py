"""Photographs that installed packages ship -> crops of them, the same on every run; nothing is downloaded."""

import io
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

PHOTOGRAPHS = (
    ("sklearn", "datasets/images/flower.jpg"),
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("sklearn", "datasets/images/china.jpg"),
    ("skimage", "data/rocket.jpg"),
    ("skimage", "data/motorcycle_left.png"),
    ("skimage", "data/hubble_deep_field.jpg"),
    ("skimage", "data/retina.jpg"),
    ("skimage", "data/ihc.png"),
)
"""(package, file); so different from each other that classes made of them can be learnt."""


@cache
def photographs() -> tuple[Image.Image, ...]:
    """Return the photographs of `PHOTOGRAPHS` as RGB images of 450x300 to 1411x1411 pixels."""
    return tuple(Image.open(package_file(*place)).convert("RGB") for place in PHOTOGRAPHS)


def labelled_photographs(dataset: str) -> list[tuple[Path, int]]:
    """Return file and class of foolbox's 20 labelled images of `imagenet` (JPEG), `cifar10` or `cifar100` (PNG)."""
    files = sorted(package_file("foolbox", "data").glob(f"{dataset}_[0-9][0-9]_*"))
    return [(file, int(file.stem.rpartition("_")[2])) for file in files]


def photo_crops(
    count: int, size: tuple[int, int] = (500, 375), seed: int = 0, photo: int | None = None
) -> Iterator[Image.Image]:
    """`count` RGB images of `size` (width, height), each another crop in another light.

    `photo` takes all of them from one photograph, so that they make a class; None mixes the photographs.
    """
    width, height = size
    generator = np.random.Generator(np.random.Philox(key=[seed, 0 if photo is None else photo + 1]))
    for _ in range(count):
        which = int(generator.integers(len(PHOTOGRAPHS))) if photo is None else photo % len(PHOTOGRAPHS)
        image = photographs()[which]
        largest = min(image.width / width, image.height / height)
        scale = largest * generator.uniform(0.6, 1.0)
        left = generator.uniform(0, image.width - scale * width)
        top = generator.uniform(0, image.height - scale * height)
        box = (left, top, left + scale * width, top + scale * height)
        crop = image.resize(size, Image.Resampling.BICUBIC, box=box)
        if generator.random() < 0.5:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if photo is not None and photo >= len(PHOTOGRAPHS):
            crop = _turned_hue(crop, 67 * (photo // len(PHOTOGRAPHS)))
        yield ImageEnhance.Brightness(crop).enhance(generator.uniform(0.8, 1.2))


def jpeg(image: Image.Image, quality: int = 97) -> bytes:
    """Encode a baseline 4:2:0 JPEG; at the default quality it has about 0.45 bytes a pixel, as in ImageNet."""
    return encoded(image, "JPEG", quality=quality, subsampling="4:2:0")


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    """`image` as the bytes of a file in Pillow's `format`."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def package_file(package: str, file: str) -> Path:
    """Return the path of a file inside an installed package, without importing the package."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{package} ships photographs that this needs: pip install {package}", name=package)
    return Path(spec.submodule_search_locations[0]) / file


def _turned_hue(image: Image.Image, degrees: int) -> Image.Image:
    hsv = np.array(image.convert("HSV"))
    hsv[..., 0] += np.uint8(degrees * 256 // 360 % 256)
    return Image.frombytes("HSV", image.size, hsv.tobytes()).convert("RGB")
