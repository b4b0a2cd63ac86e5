"""Pictures + parameters -> windows of pixels, by one backend's decoder or another."""

import tempfile
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from imgdata import native
from imgdata.augment.ops import PadRandomCrop, RandomResizedCrop, Resize
from imgdata.augment.params import BatchParams
from imgdata.augment.recipe import Recipe
from imgdata.backends import host, operators
from imgdata.manifest import MAX_PIXELS
from imgdata.measure.pictures import Picture

Executor = Callable[[Sequence[Picture], BatchParams, Recipe], NDArray[np.uint8] | None]
"""N pictures, their parameters, the recipe -> uint8 `(N, H, W, 3)`, all that comes before `Normalize` done; None for a
recipe that is not for it."""


def by_pillow(pictures: Sequence[Picture], params: BatchParams, recipe: Recipe) -> NDArray[np.uint8]:
    """Simplejpeg and Pillow (or Pillow-SIMD): `imgdata.backends.host`."""
    return np.stack([_by_host(picture, params, row, recipe) for row, picture in enumerate(pictures)])


def by_native(pictures: Sequence[Picture], params: BatchParams, recipe: Recipe) -> NDArray[np.uint8]:
    """`imgdata.native` for the JPEGs that it takes, Pillow for the others and for all that follows the crop."""
    size_N = np.array([len(picture.data) for picture in pictures])
    row_M = np.flatnonzero([picture.format == "jpeg" for picture in pictures])
    window_NHWC = np.zeros((len(pictures), params.height, params.width, 3), np.uint8)
    resizing, pad = recipe.find(RandomResizedCrop) or recipe.find(Resize), recipe.find(PadRandomCrop)
    with tempfile.TemporaryFile() as file:
        file.write(b"".join(picture.data for picture in pictures))
        file.flush()
        pool = native.Pool(1)
        try:
            job = pool.submit(
                window_NHWC,
                planar=False,
                row_M=row_M,
                target_M=row_M,
                file_M=np.full(len(row_M), file.fileno()),
                byte_M=(np.cumsum(size_N) - size_N)[row_M],
                size_M=size_N[row_M],
                source_M2=np.array([(picture.width, picture.height) for picture in pictures])[row_M],
                box_N4=params.box_N4,
                resized_N2=params.resized_N2,
                offset_N2=params.offset_N2,
                flip_N=params.flip_N,
                vflip_N=params.vflip_N,
                bicubic=resizing is not None and resizing.interpolation == "bicubic",
                mirrored_margins=pad is not None and pad.mode == "reflect",
            )
            done = row_M[job.wait() == native.DONE].tolist()
        finally:
            # Before the file: no thread may read from a number that is another file's by then.
            pool.close()
    for row, picture in enumerate(pictures):
        if row in done:
            window_NHWC[row] = operators.apply(window_NHWC[row], params, row, recipe)
        else:
            window_NHWC[row] = _by_host(picture, params, row, recipe)
    return window_NHWC


def _by_host(picture: Picture, params: BatchParams, row: int, recipe: Recipe) -> NDArray[np.uint8]:
    size = picture.width, picture.height
    image = host.cut_image(
        picture.data, size=size, format=picture.format, params=params, row=row, recipe=recipe, max_pixels=MAX_PIXELS
    )
    return np.asarray(operators.apply_image(image, params, row, recipe))
