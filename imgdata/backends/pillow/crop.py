"""Encoded bytes + one row of `BatchParams` -> its window of pixels, by simplejpeg and Pillow, on the processor.

The pixels are those of torchvision's operators on PIL images, exactly, with the same Pillow. Pillow-SIMD rounds a
resize differently: 1.4% of a random crop's values by one step, and with bicubic 0.01% by more.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgdata.augment.params import BatchParams
from imgdata.dataset.manifest import MAX_PIXELS
from imgdata.errors import ImageError
from imgdata.images.decode import check_structure, refuse_large
from imgdata.images.info import ImageInfo
from imgdata.images.jpeg import decode_jpeg
from imgdata.images.pillow import open_image, pillow_errors
from imgdata.images.probe import probe
from imgdata.recipes.recipe import Recipe

_RESAMPLINGS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_WASTE = 4
"""How many times the window's pixels are made at most, where exact pixels were not requested."""
_EXACT_PIXELS = 2**28
"""Pixels of a resized picture, at most, that are made for exact pixels: a gigabyte."""


def cut(
    data: bytes,
    *,
    size: tuple[int, int],
    format: str,
    params: BatchParams,
    row: int,
    recipe: Recipe,
    max_pixels: int = MAX_PIXELS,
) -> NDArray[np.uint8]:
    """Return the window of sample `row` with all geometry up to the flips, uint8 `(height, width, 3)`, read-only.

    `size` (width, height) and `format` are those of the index. Raises `ImageError` for bytes that are not such a
    picture, are damaged or cut short anywhere, or have more than `max_pixels`.
    """
    image = cut_image(data, size=size, format=format, params=params, row=row, recipe=recipe, max_pixels=max_pixels)
    return np.asarray(image)


def cut_image(
    data: bytes,
    *,
    size: tuple[int, int],
    format: str,
    params: BatchParams,
    row: int,
    recipe: Recipe,
    max_pixels: int = MAX_PIXELS,
    exact: bool = False,
    channels: int = 3,
    deep: bool = False,
) -> Image.Image:
    """Return what `cut` does, as a Pillow image in RGB: spares two copies where `operators.apply_image` follows.

    With one channel it is in L, with four in RGBA; see `decode_channels` for `deep`.
    `exact`: the pixels are torchvision's in very long pictures too, which are resized whole for that.
    """
    info = probe(data)
    _check_index(info, size, format)
    refuse_large(info, max_pixels)
    box_4 = params.box_N4[row].tolist()
    if channels == 3:
        image = _part(decode(data, info), box_4)
    else:
        left, top, width, height = box_4
        image = decode_channels(data, info, channels, deep=deep).crop((left, top, left + width, top + height))
    image = _resized(image, params, row, recipe, exact=exact)
    # Pillow mirrors in a ninth of NumPy's time, whose inner loop would be the three channels.
    if params.flip_N[row]:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if params.vflip_N[row]:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return image


def decode(data: bytes, info: ImageInfo) -> NDArray[np.uint8]:
    """Return the first frame as stored, uint8 `(H, W, 3)`: gray has three equal channels, all else is `convert("RGB")`.

    No rotation by EXIF. Raises `ImageError`; call `refuse_large` before.

    simplejpeg's pixels of a JPEG equal Pillow's, which passes over more faults; a 500x375 one takes 0.55 ms with it,
    and 0.60 ms with Pillow.
    """
    if info.format == "jpeg" and info.mode in ("L", "RGB"):
        return decode_jpeg(data, info, "RGB")
    check_structure(data, info)
    with pillow_errors(), open_image(data, info.format) as image:
        image.load()
        # A transparent colour changes no pixel of RGB, but Pillow would warn of what it does with it.
        image.info.pop("transparency", None)
        return np.asarray(image.convert("RGB"))


def decode_channels(data: bytes, info: ImageInfo, channels: int, *, deep: bool) -> Image.Image:
    """Return the first frame as stored, in L for one channel, in RGBA for four. Raises `ImageError`.

    Gray of a colour picture is its luma (ITU-R BT.601), of a JPEG what it stores. Pictures of 16 bits become floats
    from 0 to 255 in mode F if `deep`, else their upper 8 bits. What has no transparency is opaque.
    """
    if channels == 1 and info.format == "jpeg" and info.mode in ("L", "RGB"):
        return Image.fromarray(decode_jpeg(data, info, "GRAY")[:, :, 0])
    check_structure(data, info)
    with pillow_errors(), open_image(data, info.format) as image:
        image.load()
        if channels == 4:
            return image.convert("RGBA")
        if not image.mode.startswith("I"):
            return image.convert("L")
        value_HW = np.asarray(image).astype(np.float32).clip(0, 65535)
        if deep:
            return Image.fromarray(value_HW / np.float32(257))
        return Image.fromarray((value_HW / 256).astype(np.uint8))


def _check_index(info: ImageInfo, size: tuple[int, int], format: str) -> None:
    if (info.width, info.height) != tuple(size) or info.format != format:
        raise ImageError(
            "corrupt",
            f"a {info.format} of {info.width} x {info.height} pixels, the index says {format} of {size[0]} x {size[1]}",
        )


def _part(pixels_HWC: NDArray[np.uint8], box_4: list[int]) -> Image.Image:
    """Return the part (left, top, width, height) of C-contiguous pixels; nothing but the part is copied."""
    left, top, width, height = box_4
    row_bytes = pixels_HWC.strides[0]
    value_V = pixels_HWC.reshape(-1)[top * row_bytes + 3 * left :]
    return Image.frombuffer("RGB", (width, height), value_V, "raw", "RGB", row_bytes, 1)


def _resized(image: Image.Image, params: BatchParams, row: int, recipe: Recipe, *, exact: bool) -> Image.Image:
    """Return the window of the resized image, with its margins. Raises `ImageError`.

    The whole is resized, and then cut, unless that makes `_WASTE` times the window: very long pictures would take
    gigabytes. Pillow can resize to a window at once, but takes its place in float32, and so some values (0.1% on a
    photograph made smaller, 3% on one enlarged) are one step off: not where pixels have to be exact. Two passes of
    one's own would not do for those either, since it depends on the sizes which pass Pillow makes first.
    """
    width, height = params.resized_N2[row].tolist()
    left, top = params.offset_N2[row].tolist()
    if image.size == (width, height):
        return _window(image, left, top, params, recipe)
    assert recipe.resampling is not None, "parameters resize, the recipe does not"
    resampling = _RESAMPLINGS[recipe.resampling]
    if exact and width * height > _EXACT_PIXELS:
        raise ImageError(
            "too-large", f"{width} x {height} pixels when resized, the limit is {_EXACT_PIXELS} for exact pixels"
        )
    if exact or width * height <= _WASTE * params.width * params.height:
        return _window(image.resize((width, height), resampling), left, top, params, recipe)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + params.width, width), min(top + params.height, height)
    of_width, of_height = image.size
    box_4 = (of_width * x0 / width, of_height * y0 / height, of_width * x1 / width, of_height * y1 / height)
    return _window(image.resize((x1 - x0, y1 - y0), resampling, box_4), left - x0, top - y0, params, recipe)


def _window(image: Image.Image, left: int, top: int, params: BatchParams, recipe: Recipe) -> Image.Image:
    right, bottom = left + params.width, top + params.height
    if (left, top, right, bottom) == (0, 0, *image.size):
        return image
    inside = left >= 0 and top >= 0 and right <= image.width and bottom <= image.height
    if inside or not recipe.mirrors_margins:
        # Pillow fills with black what lies outside.
        return image.crop((left, top, right, bottom))
    row_H, column_W = _mirrored(top, params.height, image.height), _mirrored(left, params.width, image.width)
    return Image.fromarray(np.asarray(image)[row_H[:, None], column_W])


def _mirrored(start: int, count: int, side: int) -> NDArray[np.int64]:
    """Return which of `side` pixels is at `start`, `start + 1`, ...: mirrored outside, the edge pixel once."""
    last = side - 1
    place_P: NDArray[np.int64] = last - np.abs(last - np.abs(np.arange(start, start + count)))
    return place_P
