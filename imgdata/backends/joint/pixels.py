"""A member's bytes + one row of `BatchParams` -> its window of pixels, cut, resized and moved as the picture is.

Masks take the nearest pixel: of a resize the one that torchvision's `resize` takes of a `Mask`, of a rotation and the
like the one that Pillow takes, by which pictures are moved as well. Images are resampled as the recipe says.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgdata.augment.crops import Ints
from imgdata.augment.motion import Move, moves_of, moves_pixels
from imgdata.augment.params import BatchParams
from imgdata.backends.pillow import crop
from imgdata.dataset.members import Member
from imgdata.errors import ImageError
from imgdata.images.decode import check_structure, refuse_large
from imgdata.images.info import ImageInfo
from imgdata.images.pillow import open_image, pillow_errors
from imgdata.images.probe import probe
from imgdata.recipes.recipe import Recipe
from imgdata.sample import pixel_numbers

_SMALL_NUMBERS = ("1", "L", "P", "PA")
_LARGE_NUMBERS = ("I;16", "I")
_SAMPLINGS = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR}
_OF_16_BITS = np.float32(257)
"""`crop.cut_image` makes 0 to 255 of 16 bits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """What the batches of a member are: the same for all samples, by some that were looked at."""

    member: Member
    deep: bool
    """Whether values have 16 bits."""
    channels: int
    """Of an image: 1 or 3; of a mask 1, which has no axis of its own."""
    ignore_index: int
    """What a mask has where it shows nothing of the sample."""

    @property
    def dtype(self) -> str:
        """The dtype of the values."""
        if self.member.kind == "image":
            return "float32" if self.deep else "uint8"
        return "int32" if self.deep or not 0 <= self.ignore_index <= 255 else "uint8"

    @property
    def nothing(self) -> int:
        """The value of a sample of which nothing is known."""
        return self.ignore_index if self.member.kind == "mask" else 0

    def shape(self, height: int, width: int) -> tuple[int, ...]:
        """Return the shape of one sample of a batch."""
        return (height, width) if self.member.kind == "mask" else (self.channels, height, width)


def form_of(member: Member, seen: Sequence[bytes], ignore_index: int) -> Form:
    """Return the form of a member, of which some samples have the bytes `seen`; bad ones are passed over."""
    modes = [info.mode for info in map(_info, seen) if info is not None]
    if member.kind == "image":
        # One that has another number of bits is bad; gray becomes colour where others have it.
        modes = [mode for mode in modes if (mode in _LARGE_NUMBERS) == (modes[0] in _LARGE_NUMBERS)]
    gray = bool(modes) and all(mode in (*_LARGE_NUMBERS, "1", "L") for mode in modes)
    return Form(
        member=member,
        deep=any(mode in _LARGE_NUMBERS for mode in modes),
        channels=1 if gray else 3,
        ignore_index=ignore_index,
    )


def decode_mask(data: bytes, form: Form, size: tuple[int, int], max_pixels: int) -> NDArray[Any]:
    """Return the numbers of a mask as stored, `(H, W)`; those of a palette picture are its indices.

    Raises `ImageError`, also for a mask of another size than its picture's, (width, height).
    """
    info = probe(data)
    if info.mode not in (*_SMALL_NUMBERS, *_LARGE_NUMBERS) or info.format == "jpeg":
        raise ImageError(
            "unsupported", f"a {info.format} of mode {info.mode} has no whole numbers; use a gray or palette PNG"
        )
    if (info.width, info.height) != size:
        raise ImageError("corrupt", f"{info.width} x {info.height} pixels, its picture has {size[0]} x {size[1]}")
    if info.mode in _LARGE_NUMBERS and form.dtype == "uint8":
        raise ImageError("unsupported", "16 bits, others in the split have 8; ignore_index=-1 makes int32 of all")
    refuse_large(info, max_pixels)
    check_structure(data, info)
    with pillow_errors(), open_image(data, info.format) as image:
        image.load()
        return pixel_numbers(image, info.bits).astype(form.dtype, copy=False)


def mask_window(value_HW: NDArray[Any], params: BatchParams, row: int, recipe: Recipe, form: Form) -> NDArray[Any]:
    """Return what the output of sample `row` shows of a mask, `(height, width)`."""
    from_H, from_W = sources(params, row, recipe)
    window_HW = value_HW.take(from_H, axis=0).take(from_W, axis=1)
    window_HW[from_H < 0] = form.ignore_index
    window_HW[:, from_W < 0] = form.ignore_index
    moves = moves_of(recipe, params, row) if moves_pixels(recipe) else ()
    if not moves:
        return window_HW
    image = Image.fromarray(window_HW)
    for move in moves:
        image = moved(image, move, Image.Resampling.NEAREST, form.ignore_index)
    return np.asarray(image)


def image_window(
    data: bytes, params: BatchParams, row: int, recipe: Recipe, form: Form, *, size: tuple[int, int], max_pixels: int
) -> NDArray[Any]:
    """Return what the output of sample `row` shows of a further picture, `(C, height, width)`. Raises `ImageError`."""
    info = probe(data)
    if (info.mode in _LARGE_NUMBERS) != form.deep:
        bits, first = (8, 16) if form.deep else (16, 8)
        raise ImageError("unsupported", f"{bits} bits, the first one in the split has {first}")
    image = crop.cut_image(
        data,
        size=size,
        format=info.format,
        params=params,
        row=row,
        recipe=recipe,
        max_pixels=max_pixels,
        channels=form.channels,
        deep=form.deep,
    )
    for move in moves_of(recipe, params, row) if moves_pixels(recipe) else ():
        image = moved(image, move, _SAMPLINGS[move.op.interpolation], _fill(move.op.fill, form))
    value_HW = np.asarray(image)
    if form.deep:
        value_HW = np.rint(value_HW * _OF_16_BITS)
    return value_HW[None] if value_HW.ndim == 2 else value_HW.transpose(2, 0, 1)


def moved(image: Image.Image, move: Move, resampling: Image.Resampling, fill: Any) -> Image.Image:
    """Return the image after one move; `fill` comes in from outside."""
    if move.degrees is not None:
        return image.rotate(move.degrees, resampling, fillcolor=fill)
    method = Image.Transform.AFFINE if len(move.place_K) == 6 else Image.Transform.PERSPECTIVE
    return image.transform(image.size, method, move.place_K, resampling, fillcolor=fill)


def sources(params: BatchParams, row: int, recipe: Recipe) -> tuple[Ints, Ints]:
    """Return which row and which column of a mask each of the output's shows, int64 `(H,)` and `(W,)`; -1: none."""
    left, top, width, height = params.box_N4[row].tolist()
    resized_width, resized_height = params.resized_N2[row].tolist()
    offset_x, offset_y = params.offset_N2[row].tolist()
    mirrors = recipe.mirrors_margins
    from_H = _line(top, height, resized_height, offset_y, params.height, mirrors=mirrors)
    from_W = _line(left, width, resized_width, offset_x, params.width, mirrors=mirrors)
    return from_H[::-1] if params.vflip_N[row] else from_H, from_W[::-1] if params.flip_N[row] else from_W


def _line(first: int, side: int, resized: int, offset: int, count: int, *, mirrors: bool) -> Ints:
    """Return which pixel of a side each pixel of the output takes."""
    place_P = np.arange(offset, offset + count)
    if mirrors:
        place_P = (resized - 1) - np.abs((resized - 1) - np.abs(place_P))
    outside_P = (place_P < 0) | (place_P >= resized)
    if side == resized:
        from_P: Ints = first + place_P
    else:
        # In float32, as torchvision has it: another pixel may be the nearest otherwise.
        step = np.float32(side) / np.float32(resized)
        from_P = first + np.floor(place_P.astype(np.float32) * step).astype(np.int64).clip(0, side - 1)
    from_P[outside_P] = -1
    return from_P


def _info(data: bytes) -> ImageInfo | None:
    try:
        return probe(data)
    except ImageError:
        return None


def _fill(fill: Any, form: Form) -> Any:
    """Return what comes in from outside, for Pillow."""
    if form.channels == 1:
        value = 0.0 if isinstance(fill, tuple) else float(fill)
        return value if form.deep else int(value)
    return tuple(map(int, fill if isinstance(fill, tuple) else (fill,) * 3))
