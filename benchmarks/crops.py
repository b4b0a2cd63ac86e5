"""Photographs in memory -> random crops of them, by one thread of the extension or by libjpeg-turbo alone."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from benchmarks import photos
from benchmarks.loader_peers import bare_crop
from benchmarks.loader_peers.task import AREA, SIDE
from imgdata import native, recipes
from imgdata.augment.params import params

_SIZE = (500, 375)


class Crops:
    """JPEGs of one size one behind the other in memory, in a file that has no name, and a crop of each."""

    def __init__(
        self,
        count: int,
        quality: int = 95,
        *,
        size: tuple[int, int] = _SIZE,
        area: tuple[float, float] = AREA,
        crop_ready: bool = False,
        interval: int = 0,
    ) -> None:
        self._size = size
        self.pictures = [photos.jpeg(image, quality) for image in photos.photo_crops(count, size, seed=11)]
        if crop_ready:
            self.pictures = [_crop_ready(picture, interval) for picture in self.pictures]
        self.num_bytes = sum(map(len, self.pictures))
        self.size_N = np.array([len(picture) for picture in self.pictures], np.int64)
        self.byte_N = np.cumsum(self.size_N) - self.size_N
        joined = b"".join(self.pictures)
        self._memory = np.frombuffer(joined, np.uint8)
        self.params = params(
            recipes.Recipe(recipes.RandomResizedCrop(size=SIDE, scale=area), recipes.HorizontalFlip()),
            *(np.full(count, side) for side in size),
            seed=0,
            epoch=0,
            position_N=np.arange(count),
        )
        self._file = os.memfd_create("crops")
        os.write(self._file, joined)

    def __enter__(self) -> "Crops":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._file)

    def bare(self, library: Any, part: bare_crop.Part) -> Callable[[], None]:
        """libjpeg-turbo, and nothing else; `library` comes from `bare_crop.build`."""
        address_N = self._memory.ctypes.data + self.byte_N

        def decode() -> None:
            bare_crop.decode(library, address_N, self.size_N, self.params.box_N4, threads=1, part=part)

        return decode

    def bare_on_slices(self, library: Any) -> Callable[[], None]:
        """Cut the segments of each crop out of its file, and decode the crop by libjpeg-turbo, and nothing else."""
        box_N4 = self.params.box_N4.copy()

        def decode() -> None:
            parts = [self._slice(row) for row in range(len(self.pictures))]
            box_N4[:, :2] = self.params.box_N4[:, :2] - np.array([place for _, *place in parts])
            held = [np.frombuffer(data, np.uint8) for data, *_ in parts]
            address_N = np.array([data.ctypes.data for data in held], np.int64)
            size_N = np.array([len(data) for data in held], np.int64)
            bare_crop.decode(library, address_N, size_N, box_N4, threads=1, part="crop")

        return decode

    def _slice(self, row: int) -> tuple[bytes, int, int]:
        left, top, width, height = self.params.box_N4[row].tolist()
        data = self.pictures[row]
        return native.slice_jpeg(data, self._size, (left, top, left + width, top + height)) or (data, 0, 0)

    def ours(self, pool: native.Pool, dtype: str) -> Callable[[], None]:
        """Crop, resize and mirror by the extension: uint8 `(N, H, W, C)`, floats `(N, C, H, W)` from 0 to 255."""
        count, number_N = len(self.pictures), np.arange(len(self.pictures))
        planar = dtype != "uint8"
        images = np.empty((count, 3, SIDE, SIDE) if planar else (count, SIDE, SIDE, 3), dtype)
        arrays: dict[str, Any] = {
            "row_M": number_N,
            "target_M": number_N,
            "file_M": np.full(count, self._file, np.int64),
            "byte_M": self.byte_N,
            "size_M": self.size_N,
            "source_M2": np.tile(np.array(self._size, np.int64), (count, 1)),
            "box_N4": self.params.box_N4,
            "resized_N2": self.params.resized_N2,
            "offset_N2": self.params.offset_N2,
            "flip_N": self.params.flip_N,
            "vflip_N": self.params.vflip_N,
        }

        def make() -> None:
            if (pool.submit(images, planar=planar, **arrays).wait() != native.DONE).any():
                raise RuntimeError("the extension must make all of the pictures; run the tests of imgdata.native")

        return make


def _crop_ready(picture: bytes, interval: int) -> bytes:
    made = native.make_crop_ready(picture, interval=interval)
    if made is None:
        raise RuntimeError("the extension must make all of the pictures crop-ready; run the tests of imgdata.native")
    return made[0]


@contextmanager
def bare_library() -> Iterator[Any]:
    """`bare_crop.c`, compiled. Raises `ImportError` without gcc or libjpeg-turbo's headers."""
    with tempfile.TemporaryDirectory() as folder:
        yield bare_crop.build(Path(folder))
