"""A network's name -> the pictures that it takes: side, resize, mean and deviation; as a recipe of evaluation."""

import math
from dataclasses import dataclass

from imgdata.errors import OptionError
from imgdata.models.catalogue import timm_config
from imgdata.recipes import CIFAR_MEAN, CIFAR_STD, CenterCrop, Normalize, Recipe, Resize
from imgdata.recipes.ops import Resampling

Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInput:
    """Pictures as a network was trained on, or is meant for."""

    size: int
    """Side of what the network gets, in pixels."""
    resize: int
    """Shorter side of a whole picture in evaluation, in pixels; the middle of the picture is cut out."""
    mean: Triple
    """Mean of red, green and blue, on the scale from 0 to 1."""
    std: Triple
    interpolation: Resampling
    squash: bool = False
    """Both sides become `resize` in evaluation, whatever the picture's shape."""

    def __post_init__(self) -> None:
        if not 1 <= self.size <= self.resize:
            raise OptionError(f"size must be 1 to resize, {self.resize}, got {self.size}")

    def eval_recipe(self, size: int | None = None) -> Recipe:
        """Return the recipe of evaluation; with another `size` the same part of each picture is shown."""
        size = self.size if size is None else size
        resize = round(self.resize * size / self.size)
        return Recipe(
            Resize(size=(resize, resize) if self.squash else resize, interpolation=self.interpolation),
            CenterCrop(size=size),
            Normalize(mean=self.mean, std=self.std),
        )


_OWN = {
    "cnn": ModelInput(size=64, resize=64, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), interpolation="bilinear"),
    "resnet9": ModelInput(size=32, resize=32, mean=CIFAR_MEAN, std=CIFAR_STD, interpolation="bilinear"),
}


def model_input(name: str) -> ModelInput:
    """Return the network's default input; for timm's, as their weights were evaluated. Raises as `create_model`."""
    if name in _OWN:
        return _OWN[name]
    config = timm_config(name)
    # A few are for pictures that are no squares.
    size = min(config.input_size[1:])
    return ModelInput(
        size=size,
        # Rounded down as in timm.data.transforms_factory. A few show black margins as well: here without.
        resize=max(size, math.floor(size / config.crop_pct)),
        mean=tuple(config.mean),
        std=tuple(config.std),
        interpolation=config.interpolation,
        squash=config.crop_mode == "squash",
    )
