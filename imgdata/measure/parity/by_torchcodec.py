"""Pictures + parameters -> windows of pixels, by TorchCodec's decoder and torchvision's operators on tensors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from imgdata.augment.params import BatchParams
from imgdata.images.pillow import open_image, pillow_errors
from imgdata.images.probe import probe
from imgdata.measure import torch_codec
from imgdata.measure.parity import reference
from imgdata.measure.parity.pictures import Picture
from imgdata.recipes.recipe import Recipe

_ITS_FORMATS = ("jpeg", "png", "webp", "gif")


def by_torchcodec(pictures: Sequence[Picture], params: BatchParams, recipe: Recipe) -> NDArray[np.uint8]:
    """Make pixels by TorchCodec and torchvision. Raises `MissingExtraError` without TorchCodec.

    Pillow decodes what TorchCodec doesn't know or would turn upright: the boxes are those of the picture as stored.
    """
    decoders, _ = torch_codec.load()
    decoded = (_decoded(picture, decoders) for picture in pictures)
    windows = [reference.window(image_CHW, params, row, recipe) for row, image_CHW in enumerate(decoded)]
    return torch.stack(windows).permute(0, 2, 3, 1).numpy()


def _decoded(picture: Picture, decoders: Any) -> torch.Tensor:
    """Return uint8 `(3, H, W)`."""
    if picture.format in _ITS_FORMATS and probe(picture.data).orientation == 1:
        image_CHW: torch.Tensor = decoders.decode_image(picture.data, mode="RGB")
        return image_CHW
    with pillow_errors(), open_image(picture.data, picture.format) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
