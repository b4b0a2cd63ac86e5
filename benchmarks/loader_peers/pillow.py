"""A JPEG -> its crop, resized by Pillow or Pillow-SIMD, as an array; for loaders that leave the pixels to the user."""

import math
from typing import IO, Any

import numpy as np
from PIL import Image

from benchmarks.loader_peers.task import AREA, MEAN, RATIO, SIDE, STD, Task

_SCALE_C11 = (1 / (255 * np.array(STD, np.float32)))[:, None, None]
_SHIFT_C11 = (-np.array(MEAN, np.float32) / np.array(STD, np.float32))[:, None, None]


def random_box(width: int, height: int, rng: Any) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of torchvision's `RandomResizedCrop`."""
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    for _ in range(10):
        area = width * height * rng.uniform(*AREA)
        ratio = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if w <= width and h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def normalized(pixels_HWC: Any) -> Any:
    """uint8 `(H, W, C)` -> float32 `(C, H, W)`."""
    values_CHW = np.multiply(pixels_HWC.transpose(2, 0, 1), _SCALE_C11, order="C")
    values_CHW += _SHIFT_C11
    return values_CHW


class Augment:
    """A JPEG file and a random generator -> uint8 `(H, W, C)`, or float32 `(C, H, W)`."""

    def __init__(self, task: Task) -> None:
        self._is_float = task.is_float

    def __call__(self, file: IO[bytes], rng: Any) -> Any:
        with Image.open(file) as opened:
            return self.cut(opened.convert("RGB"), rng)

    def cut(self, image: Image.Image, rng: Any) -> Any:
        """Do the same with a decoded image."""
        box = random_box(*image.size, rng)
        small = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box)
        if rng.random() < 0.5:
            small = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels_HWC = np.asarray(small)
        return normalized(pixels_HWC) if self._is_float else pixels_HWC
