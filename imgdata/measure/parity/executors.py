"""Pictures + parameters -> windows of pixels, by one backend's decoder or another."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from imgdata.augment.params import BatchParams
from imgdata.backends.pillow import crop, operators
from imgdata.dataset.manifest import MAX_PIXELS
from imgdata.measure.parity.pictures import Picture
from imgdata.recipes.recipe import Recipe

Executor = Callable[[Sequence[Picture], BatchParams, Recipe], NDArray[np.uint8] | None]
"""N pictures, their parameters, the recipe -> uint8 `(N, H, W, 3)`, all that comes before `Normalize` done; None for a
recipe that is not for it."""


def by_pillow(pictures: Sequence[Picture], params: BatchParams, recipe: Recipe) -> NDArray[np.uint8]:
    """Make pixels by simplejpeg and Pillow (or Pillow-SIMD): `imgdata.backends.pillow.crop`."""
    return np.stack([_by_host(picture, params, row, recipe) for row, picture in enumerate(pictures)])


def _by_host(picture: Picture, params: BatchParams, row: int, recipe: Recipe) -> NDArray[np.uint8]:
    size = picture.width, picture.height
    image = crop.cut_image(
        picture.data, size=size, format=picture.format, params=params, row=row, recipe=recipe, max_pixels=MAX_PIXELS
    )
    return np.asarray(operators.apply_image(image, params, row, recipe))
