"""The encoded bytes of a mask -> its whole numbers, moved along with a picture that is stored upright or resized."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgdata.errors import ImageError
from imgdata.images.encode import UPRIGHT
from imgdata.images.info import ImageInfo
from imgdata.images.pillow import open_image, pillow_errors
from imgdata.sample import pixel_numbers

_LOSSY = ("jpeg", "webp", "jpeg2000", "avif")
"""Formats that may change the numbers; a lossless WebP has colours, and no numbers."""
_MOST = 0xFFFF
"""Largest number of a PNG's gray."""


def refuse_lossy(info: ImageInfo) -> None:
    """Raise `ImageError` for a mask in a format that does not keep numbers."""
    if info.format in _LOSSY:
        raise ImageError(
            "unsupported", f"{info.format} changes the numbers of pixels, so it can't hold a mask; make it a PNG"
        )


def is_plain_mask(info: ImageInfo) -> bool:
    """Return whether a mask can be stored with the bytes that it has: a PNG of 8 or 16 bits, or with a palette."""
    return info.format == "png" and (info.mode in ("P", "PA", "I;16") or (info.mode == "L" and info.bits == 8))


def read_numbers(data: bytes, info: ImageInfo) -> NDArray[Any]:
    """Return the whole number of each pixel, `(H, W)`.

    A mask in colour whose channels are all equal is a gray one. Raises `ImageError`.
    """
    refuse_lossy(info)
    with pillow_errors(), open_image(data, info.format) as image:
        image.load()
        if info.mode in ("RGB", "RGBA", "LA"):
            return _gray(np.asarray(image.convert("RGBA")), info)
        return pixel_numbers(image, info.bits)


def _gray(pixels_HWC: NDArray[np.uint8], info: ImageInfo) -> NDArray[np.uint8]:
    gray = pixels_HWC[..., 0]
    if (pixels_HWC[..., :3] != gray[..., None]).any() or (pixels_HWC[..., 3] != 255).any():
        raise ImageError(
            "unsupported",
            f"a mask must have one number for each pixel, got colours ({info.mode}); write the number of each pixel's "
            "class, as gray or with a palette",
        )
    return gray


def write_numbers(numbers_HW: NDArray[Any]) -> bytes:
    """Return whole numbers from 0 to 65535 as a gray PNG of 8 bits, or of 16 where they need it.

    Raises `ImageError` for other numbers.
    """
    if numbers_HW.size and not 0 <= int(numbers_HW.min()) <= int(numbers_HW.max()) <= _MOST:
        raise ImageError(
            "unsupported", f"numbers of a mask must be 0 to {_MOST}, got {numbers_HW.min()} to {numbers_HW.max()}"
        )
    narrow = numbers_HW.dtype != np.uint16 and (not numbers_HW.size or int(numbers_HW.max()) <= 255)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(numbers_HW, np.uint8 if narrow else np.uint16)).save(file, "PNG")
    return file.getvalue()


def moved_numbers(numbers_HW: NDArray[Any], orientation: int, size: tuple[int, int]) -> NDArray[Any]:
    """Return numbers made upright as EXIF's `orientation` says, then resized to `size` (width, height) by the nearest.

    The nearest pixel is that under the middle of each new one.
    """
    moved = np.asarray(numbers_HW)
    if orientation in UPRIGHT:
        moved = _UPRIGHT[orientation](moved)
    height, width = moved.shape
    if (width, height) == size:
        return np.ascontiguousarray(moved)
    row_H = ((np.arange(size[1]) + 0.5) * (height / size[1])).astype(np.int64).clip(max=height - 1)
    column_W = ((np.arange(size[0]) + 0.5) * (width / size[0])).astype(np.int64).clip(max=width - 1)
    return np.ascontiguousarray(moved[row_H][:, column_W])


_UPRIGHT = {
    2: lambda numbers: numbers[:, ::-1],
    3: lambda numbers: numbers[::-1, ::-1],
    4: lambda numbers: numbers[::-1],
    5: lambda numbers: numbers.T,
    6: lambda numbers: numbers.T[:, ::-1],
    7: lambda numbers: numbers[::-1, ::-1].T,
    8: lambda numbers: numbers.T[::-1],
}
"""The transpositions of `encode.UPRIGHT`, for arrays."""
