"""Encoded images -> thumbnails and figures of them, from one scaled decode each; hashes of all their pixels.

JPEGs are decoded by `imgdata.native` where that was compiled; it leaves those of other kinds (CMYK, rare chroma) and
damaged ones to simplejpeg and Pillow, which do all the rest as well. Pixels are those that training sees (transparency
dropped), but upright: EXIF orientation is applied.
"""

from collections.abc import Sequence
from threading import Lock
from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray
from PIL import Image

from imgdata import native
from imgdata.auditing.jpeg_quality import jpeg_quality
from imgdata.backends.pillow.crop import decode
from imgdata.dataset.manifest import MAX_PIXELS
from imgdata.errors import ImageError
from imgdata.images.decode import check_structure, refuse_large
from imgdata.images.info import ImageInfo
from imgdata.images.jpeg import decode_jpeg
from imgdata.images.pillow import open_image, pillow_errors
from imgdata.images.probe import probe

LUMA_SIDE = 64
"""Pixels of the thumbnails in gray."""
COLOUR_SIDE = 16
"""Pixels of the thumbnails in colour."""
SHORTEST = 80
"""Pixels that the shorter side keeps at least when the sides are halved, again and again: a picture of 500x375 is made
125x94. Histograms and sharpness are those of this size, so that they don't depend on that of the file."""
_FRAME = 2
"""Rows and columns of the thumbnail in gray that are its frame."""
_UNEVEN = 0.1
"""Standard deviation at which one side of the frame counts as not uniform at all."""
_LARGE_PIXELS = 2**25
"""Pictures of more pixels are decoded one at a time: 100 MB in RGB each."""
_large = Lock()

FIGURES = (
    "brightness",
    "dark",
    "bright",
    "contrast",
    "sharpness",
    "entropy",
    "colourfulness",
    "red",
    "green",
    "blue",
    "border",
    "jpeg_quality",
)
"""What is measured of each picture; `imgdata.auditing.facts.Facts` says what each means."""


class Pixels(NamedTuple):
    """Thumbnails and figures of B pictures; rows of bad ones are 0."""

    luma_BxHxW: NDArray[np.uint8]
    """uint8 `(B, 64, 64)`."""
    colour_BxHxWx3: NDArray[np.uint8]
    """uint8 `(B, 16, 16, 3)`."""
    figure_BxF: NDArray[np.float32]
    """float32 `(B, len(FIGURES))`."""
    bad: dict[int, ImageError]
    """Row -> why the picture can't be used."""


def look(
    files: Sequence[bytes],
    *,
    formats: Sequence[str],
    size_B2: NDArray[np.int32],
    orientation_B: NDArray[np.uint8],
    max_pixels: int = MAX_PIXELS,
) -> Pixels:
    """Return thumbnails and figures of encoded images; the other arguments are what the index says of them.

    `size_B2` is width and height as stored. Raises `MemoryError`.
    """
    count = len(files)
    luma_BxHxW = np.zeros((count, LUMA_SIDE, LUMA_SIDE), np.uint8)
    colour_BxHxWx3 = np.zeros((count, COLOUR_SIDE, COLOUR_SIDE, 3), np.uint8)
    level_Bx256, edge_Bx256 = np.zeros((2, count, 256), np.int32)
    bad: dict[int, ImageError] = {}
    left = list(range(count))
    if native.AVAILABLE:
        own = [row for row in left if _is_native(formats[row], size_B2[row], max_pixels)]
        found = native.thumbnails(
            [files[row] for row in own], size_B2[own], side=LUMA_SIDE, colour_side=COLOUR_SIDE, shortest=SHORTEST
        )
        if np.any(found.outcome_B == native.NO_MEMORY):
            raise MemoryError("no memory to decode a JPEG")
        done = found.outcome_B == native.DONE
        row_D = np.array(own, np.int64)[done]
        luma_BxHxW[row_D], colour_BxHxWx3[row_D] = found.luma_BxHxW[done], found.colour_BxHxWx3[done]
        level_Bx256[row_D], edge_Bx256[row_D] = found.level_Bx256[done], found.edge_Bx256[done]
        left = sorted(set(left) - set(row_D.tolist()))
    for row in left:
        try:
            luma_BxHxW[row], colour_BxHxWx3[row], level_Bx256[row], edge_Bx256[row] = _by_pillow(
                files[row], size_B2[row].tolist(), formats[row], max_pixels
            )
        except ImageError as error:
            bad[row] = error
    for row in np.flatnonzero(orientation_B > 1).tolist():
        luma_BxHxW[row] = upright(luma_BxHxW[row], int(orientation_B[row]))
        colour_BxHxWx3[row] = upright(colour_BxHxWx3[row], int(orientation_B[row]))
    quality_B = np.array([jpeg_quality(file) for file in files])
    figure_BxF = _figures(luma_BxHxW, colour_BxHxWx3, level_Bx256, edge_Bx256, quality_B)
    figure_BxF[sorted(bad)] = 0
    return Pixels(luma_BxHxW, colour_BxHxWx3, figure_BxF, bad)


def pixel_hash(data: bytes, *, max_pixels: int = MAX_PIXELS) -> int:
    """Return xxh64 of all pixels of an encoded image, in RGB and upright, and of its size: equal for a re-saved PNG.

    Decodes the whole picture, for five times the cost of a thumbnail. Raises `ImageError`, `MemoryError`.
    """
    info = probe(data)
    refuse_large(info, max_pixels)
    pixels_HxWx3 = np.ascontiguousarray(upright(decode(data, info), info.orientation))
    return xxhash.xxh64_intdigest(pixels_HxWx3.data, seed=pixels_HxWx3.shape[1])


def upright(pixels_HxW: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Return pixels `(H, W)` or `(H, W, 3)` as EXIF's orientation wants them shown."""
    if orientation >= 5:
        pixels_HxW = pixels_HxW.swapaxes(0, 1)
    down = -1 if orientation in (3, 4, 7, 8) else 1
    across = -1 if orientation in (2, 3, 6, 7) else 1
    return pixels_HxW[::down, ::across]


def scaled_by(width: int, height: int) -> int:
    """Return by what the sides are divided, a power of 2; the same as in the compiled module."""
    return 1 << max(0, (min(width, height) // SHORTEST).bit_length() - 1)


def _is_native(format: str, size_2: NDArray[np.int32], max_pixels: int) -> bool:
    width, height = size_2.tolist()
    return format == "jpeg" and 1 <= width <= 65_500 and 1 <= height <= 65_500 and width * height <= max_pixels


def _by_pillow(
    data: bytes, size: list[int], format: str, max_pixels: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Return what `native.thumbnails` does of one image. Raises `ImageError`."""
    if min(size) < 1:
        raise ImageError("not-an-image", "the index has no size of it: its header could not be read")
    info = probe(data)
    if [info.width, info.height] != size or info.format != format:
        raise ImageError(
            "corrupt",
            f"a {info.format} of {info.width} x {info.height} pixels, the index says {format} of {size[0]} x {size[1]}",
        )
    refuse_large(info, max_pixels)
    if info.width * info.height > _LARGE_PIXELS:
        with _large:
            image = _scaled(data, info)
    else:
        image = _scaled(data, info)
    luma = image.convert("L")
    # From edge to edge of the picture: the last pixels of the scaled one may lie partly outside.
    shrink = scaled_by(info.width, info.height)
    box = (0, 0, info.width / shrink, info.height / shrink)
    small = luma.resize((LUMA_SIDE, LUMA_SIDE), Image.Resampling.BICUBIC, box)
    colour = image.resize((COLOUR_SIDE, COLOUR_SIDE), Image.Resampling.BICUBIC, box)
    luma_HxW = np.asarray(luma)
    return (
        np.asarray(small),
        np.asarray(colour),
        np.bincount(luma_HxW.reshape(-1), minlength=256),
        np.bincount(_edges(luma_HxW).reshape(-1), minlength=256),
    )


def _scaled(data: bytes, info: ImageInfo) -> Image.Image:
    """Return the image in RGB, as stored, its sides divided by `scaled_by`."""
    shrink = scaled_by(info.width, info.height)
    if info.format == "jpeg" and info.mode in ("L", "RGB"):
        pixels = decode_jpeg(data, info, "RGB", shrink=min(shrink, 8))
        image = Image.fromarray(pixels)
    else:
        check_structure(data, info)
        with pillow_errors(), open_image(data, info.format) as opened:
            if info.format == "jpeg":
                opened.draft(None, (-(-info.width // shrink), -(-info.height // shrink)))
            opened.load()
            opened.info.pop("transparency", None)
            image = opened.convert("RGB")
    # Some decoders scale by less, or not at all.
    left = shrink >> max(0, round(np.log2(max(info.width, info.height) / max(image.size))))
    return image.reduce(left) if left > 1 else image


def _edges(luma_HxW: NDArray[np.uint8]) -> NDArray[np.int16]:
    value = luma_HxW.astype(np.int16)
    middle = value[1:-1, 1:-1]
    neighbours = value[:-2, 1:-1] + value[2:, 1:-1] + value[1:-1, :-2] + value[1:-1, 2:]
    return np.asarray(np.minimum(np.abs(4 * middle - neighbours) >> 1, 255))


def _figures(
    luma_BxHxW: NDArray[np.uint8],
    colour_BxHxWx3: NDArray[np.uint8],
    level_Bx256: NDArray[np.int32],
    edge_Bx256: NDArray[np.int32],
    quality_B: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Return the columns of `FIGURES`, float32 `(B, F)`."""
    value_256 = np.arange(256) / 255
    share_Bx256 = level_Bx256 / np.maximum(level_Bx256.sum(axis=1, keepdims=True), 1)
    mean_B = share_Bx256 @ value_256
    spread_B = np.sqrt(np.maximum(share_Bx256 @ value_256**2 - mean_B**2, 0))
    entropy_B = -np.sum(share_Bx256 * np.log2(np.where(share_Bx256 > 0, share_Bx256, 1)), axis=1)
    red_B, green_B, blue_B = colour_BxHxWx3.mean(axis=(1, 2)).T / 255
    columns = (
        mean_B,
        quantile(level_Bx256, 0.05) / 255,
        quantile(level_Bx256, 0.99) / 255,
        spread_B,
        _sharpness(level_Bx256, edge_Bx256),
        entropy_B,
        _colourfulness(colour_BxHxWx3),
        red_B,
        green_B,
        blue_B,
        _border(luma_BxHxW),
        quality_B,
    )
    return np.stack(columns, axis=1).astype(np.float32)


def quantile(count_Bx256: NDArray[np.int32], share: float) -> NDArray[np.int64]:
    """Return the lowest value, 0 to 255, that at least `share` of the counted samples don't exceed, `(B,)`."""
    running_Bx256 = np.cumsum(count_Bx256, axis=1, dtype=np.int64)
    return np.asarray(np.argmax(running_Bx256 >= share * running_Bx256[:, -1:], axis=1))


def _sharpness(level_Bx256: NDArray[np.int32], edge_Bx256: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return the strength of the sharpest hundredth of a picture's edges over its range of luma, `(B,)`.

    A step between two pixels has 1 or more, whatever the contrast; the rest of the picture may be out of focus. A
    picture of one or two pixels has no inside, and 1.
    """
    range_B = quantile(level_Bx256, 0.99) - quantile(level_Bx256, 0.01)
    sharp_B = 2 * _mean_of_highest(edge_Bx256, 0.01) / np.maximum(range_B, 1)
    return np.where(edge_Bx256.any(axis=1), sharp_B, 1.0)


def _mean_of_highest(count_Bx256: NDArray[np.int32], share: float) -> NDArray[np.float64]:
    """Return the mean of the highest `share` of the counted values, at least one, `(B,)`."""
    wanted_Bx1 = np.maximum(np.ceil(share * count_Bx256.sum(axis=1, keepdims=True)), 1)
    falling_Bx256 = count_Bx256[:, ::-1]
    above_Bx256 = np.cumsum(falling_Bx256, axis=1, dtype=np.int64) - falling_Bx256
    taken_Bx256 = np.clip(wanted_Bx1 - above_Bx256, 0, falling_Bx256)
    return np.asarray(taken_Bx256 @ np.arange(255, -1, -1) / wanted_Bx1[:, 0])


def _colourfulness(colour_BxHxWx3: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the measure of Hasler and Süsstrunk ("Measuring colourfulness in natural images", 2003) over 255."""
    red, green, blue = np.moveaxis(colour_BxHxWx3.astype(np.float64), -1, 0)
    across_BxHxW, down_BxHxW = red - green, (red + green) / 2 - blue
    spread_B = np.hypot(across_BxHxW.std(axis=(1, 2)), down_BxHxW.std(axis=(1, 2)))
    mean_B = np.hypot(across_BxHxW.mean(axis=(1, 2)), down_BxHxW.mean(axis=(1, 2)))
    return np.asarray((spread_B + 0.3 * mean_B) / 255)


def _border(luma_BxHxW: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return how uniform the four sides of the frame are, on average: 1 where each has one level."""
    value = luma_BxHxW.astype(np.float64) / 255
    sides = (value[:, :_FRAME], value[:, -_FRAME:], value[:, :, :_FRAME], value[:, :, -_FRAME:])
    spread_4xB = np.stack([side.std(axis=(1, 2)) for side in sides])
    return np.asarray((1 - np.minimum(spread_4xB / _UNEVEN, 1)).mean(axis=0))
