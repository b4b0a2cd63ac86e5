"""Crops by imgdata.native.Pool for the tests: pictures, geometries, and one job for some files in memory."""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from imgdata import native

SAMPLINGS = {"4:4:4": "444", "4:2:2": "422", "4:4:0": "440", "4:2:0": "420"}


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """One crop, and the size of the output."""

    box: tuple[int, int, int, int]
    resized: tuple[int, int]
    offset: tuple[int, int] = (0, 0)
    flip: bool = False
    vflip: bool = False
    output: tuple[int, int] = (0, 0)
    """Width and height; that of `resized` where they are 0."""
    bicubic: bool = False
    mirrored_margins: bool = False

    @property
    def size(self) -> tuple[int, int]:
        return self.output if all(self.output) else self.resized


class Files:
    """Encoded images, one behind the other in a file without a name."""

    def __init__(self, images: Sequence[bytes]) -> None:
        self.descriptor = os.memfd_create("images")
        self.size_M = np.array([len(data) for data in images])
        self.byte_M = np.cumsum(self.size_M) - self.size_M
        os.write(self.descriptor, b"".join(images))

    def __enter__(self) -> "Files":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)


def size_of(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data)) as image:
        return image.size


def submit(
    pool: native.Pool,
    files: Files,
    sources: Sequence[tuple[int, int]],
    geometry: Geometry,
    images: NDArray[Any],
    **options: Any,
) -> native.Job:
    """Every file with the same geometry, one after the other."""
    count = len(sources)
    settings = {
        "planar": False,
        "row_M": np.zeros(count, np.int64),
        "target_M": np.arange(count),
        "file_M": np.full(count, files.descriptor),
        "byte_M": files.byte_M,
        "size_M": files.size_M,
        "source_M2": np.array(sources).reshape(count, 2),
        "box_N4": np.array([geometry.box]),
        "resized_N2": np.array([geometry.resized]),
        "offset_N2": np.array([geometry.offset]),
        "flip_N": np.array([geometry.flip]),
        "vflip_N": np.array([geometry.vflip]),
        "bicubic": geometry.bicubic,
        "mirrored_margins": geometry.mirrored_margins,
    }
    return pool.submit(images, **{**settings, **options})


def cropped(
    pool: native.Pool, data: bytes, geometry: Geometry, *, channels: int = 3, **options: Any
) -> NDArray[np.uint8]:
    """uint8 `(H, W, C)`, from a JPEG that the pool has to take."""
    width, height = geometry.size
    images = np.full((1, height, width, channels), 77, np.uint8)
    with Files([data]) as files:
        assert submit(pool, files, [size_of(data)], geometry, images, **options).wait().tolist() == [native.DONE]
    return images[0]


def outcome(
    pool: native.Pool, data: bytes, geometry: Geometry | None = None, size: tuple[int, int] = (160, 120)
) -> int:
    geometry = geometry or Geometry(box=(0, 0, *size), resized=(32, 32))
    images = np.zeros((1, *geometry.size[::-1], 3), np.uint8)
    with Files([data]) as files:
        return int(submit(pool, files, [size], geometry, images).wait()[0])


def gentle(width: int, height: int, seed: int, contrast: int = 90) -> Image.Image:
    """A picture of soft, pale colours: nothing is clipped on its way from YCbCr to red, green and blue."""
    coarse = np.random.Generator(np.random.Philox(key=seed)).integers(-contrast, contrast, (6, 7, 3)) / 2 + 128
    return Image.fromarray(coarse.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, sampling: str, quality: int = 92, *, progressive: bool = False) -> bytes:
    if progressive:
        file = io.BytesIO()
        # Pillow has no word for 4:4:0.
        options = {} if sampling in ("gray", "4:4:0") else {"subsampling": sampling}
        image.save(file, "JPEG", quality=quality, progressive=True, **options)
        return file.getvalue()
    pixels_HWC = np.asarray(image).reshape(image.height, image.width, -1)
    color = "RGB" if sampling != "gray" else "GRAY"
    data: bytes = simplejpeg.encode_jpeg(pixels_HWC, quality, color, SAMPLINGS.get(sampling, "gray"))
    return data


def decoded(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


@st.composite
def geometries(draw: st.DrawFn, width: int, height: int) -> Geometry:
    box_width, box_height = draw(st.integers(1, width)), draw(st.integers(1, height))
    resized = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    output = draw(st.integers(1, 80)), draw(st.integers(1, 80))
    mirrored = draw(st.booleans()) and min(resized) > 1
    return Geometry(
        box=(draw(st.integers(0, width - box_width)), draw(st.integers(0, height - box_height)), box_width, box_height),
        resized=resized,
        offset=(draw(st.integers(-90, 90)), draw(st.integers(-90, 90))),
        output=output,
        flip=draw(st.booleans()),
        vflip=draw(st.booleans()),
        bicubic=draw(st.booleans()),
        mirrored_margins=mirrored,
    )
