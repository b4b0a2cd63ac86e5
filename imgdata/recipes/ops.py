"""The operators of a recipe: frozen settings, checked when built; none of them touches a pixel.

The first argument of an operator may be given by position where it is the obvious one: `RandomResizedCrop(224)`.
Defaults are those of torchvision's operator of the same name (version 2 of its transforms), where there is one.
Sizes are in pixels of the output, and (height, width) where there are two.
"""

from dataclasses import dataclass, field
from typing import Literal

from imgdata import checks
from imgdata.errors import OptionError
from imgdata.recipes.sizes import Size, check_size

Resampling = Literal["bilinear", "bicubic"]
"""How a picture is resized: always antialiased."""
Sampling = Literal["nearest", "bilinear"]
"""How a picture is rotated, sheared and shifted."""
Place = Literal["top-left", "top-right", "bottom-left", "bottom-right", "middle"]
"""Where a crop is."""
Fill = float | tuple[float, float, float]
"""What comes in from outside the picture: 0 to 255, for all channels or for red, green and blue."""

_RESAMPLINGS = ("bilinear", "bicubic")
_SAMPLINGS = ("nearest", "bilinear")
_LEAST_RATIO = 1e-3
PLACES: tuple[Place, ...] = ("top-left", "top-right", "bottom-left", "bottom-right", "middle")
"""The crops of `FiveCrop`, in its order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomResizedCrop:
    """A crop of random area and aspect ratio, resized: Szegedy et al., "Going deeper with convolutions", 2014."""

    size: Size = field(kw_only=False)
    """Size of the output: a side, (height, width), a `Schedule` or a `Ramp`."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Least and most area of the crop, as a share of the picture's."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Least and most width / height of the crop; drawn evenly in the logarithm."""
    interpolation: Resampling = "bilinear"

    def __post_init__(self) -> None:
        check_size("RandomResizedCrop.size", self.size)
        checks.limits("RandomResizedCrop.scale", self.scale, 0, 1)
        checks.limits("RandomResizedCrop.ratio", self.ratio, _LEAST_RATIO, 1 / _LEAST_RATIO)
        checks.choice("RandomResizedCrop.interpolation", self.interpolation, _RESAMPLINGS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Resize:
    """The whole picture, resized: its shorter side to `size`, or to exactly (height, width)."""

    size: Size = field(kw_only=False)
    """One number (or a `Schedule` or `Ramp` of them) is the shorter side, and a crop must follow."""
    interpolation: Resampling = "bilinear"

    def __post_init__(self) -> None:
        check_size("Resize.size", self.size)
        checks.choice("Resize.interpolation", self.interpolation, _RESAMPLINGS)


@dataclass(frozen=True, kw_only=True, slots=True)
class CenterCrop:
    """The middle of the picture; a smaller picture gets black margins."""

    size: Size = field(kw_only=False)

    def __post_init__(self) -> None:
        check_size("CenterCrop.size", self.size)


@dataclass(frozen=True, kw_only=True, slots=True)
class FixedCrop:
    """A corner of the picture, or its middle: one crop of torchvision's `FiveCrop` and `TenCrop`.

    Where the picture is smaller, it is in the middle, between black margins.
    """

    size: Size = field(kw_only=False)
    place: Place = "middle"
    """Which part of the picture it is."""
    mirrored: bool = False
    """Whether the place is one of the mirror image, which `HorizontalFlip(p=1)` has to make behind it."""

    def __post_init__(self) -> None:
        check_size("FixedCrop.size", self.size)
        checks.choice("FixedCrop.place", self.place, PLACES)
        if not isinstance(self.mirrored, bool):
            raise OptionError(f"FixedCrop.mirrored must be True or False, got {self.mirrored!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class PadRandomCrop:
    """Margins all round, then a crop at a random place: He et al., "Deep residual learning", 2015, for CIFAR.

    torchvision's `RandomCrop(size, padding=..., padding_mode=...)`.
    """

    size: Size = field(kw_only=False)
    padding: int = 0
    """Width of the margins in pixels."""
    mode: Literal["zero", "reflect"] = "zero"
    """Margins are black, or the picture mirrored at its edge, whose pixels are not repeated."""

    def __post_init__(self) -> None:
        check_size("PadRandomCrop.size", self.size)
        checks.integer("PadRandomCrop.padding", self.padding, 0, 65_535)
        checks.choice("PadRandomCrop.mode", self.mode, ("zero", "reflect"))


@dataclass(frozen=True, kw_only=True, slots=True)
class HorizontalFlip:
    """Left and right change places, with probability `p`."""

    p: float = field(default=0.5, kw_only=False)

    def __post_init__(self) -> None:
        checks.number("HorizontalFlip.p", self.p, 0, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class VerticalFlip:
    """Top and bottom change places, with probability `p`."""

    p: float = field(default=0.5, kw_only=False)

    def __post_init__(self) -> None:
        checks.number("VerticalFlip.p", self.p, 0, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rotate:
    """A rotation about the middle by a random angle, counter-clockwise; the size stays: `RandomRotation`."""

    degrees: float | tuple[float, float] = field(kw_only=False)
    """Least and most angle, or one number for (-degrees, degrees)."""
    p: float = 1.0
    fill: Fill = 0.0
    interpolation: Sampling = "nearest"

    def __post_init__(self) -> None:
        if isinstance(self.degrees, tuple):
            checks.limits("Rotate.degrees", self.degrees, -360, 360)
        else:
            checks.number("Rotate.degrees", self.degrees, 0, 360)
        checks.number("Rotate.p", self.p, 0, 1)
        checks.channels("Rotate.fill", self.fill, 0, 255)
        checks.choice("Rotate.interpolation", self.interpolation, _SAMPLINGS)

    @property
    def limits(self) -> tuple[float, float]:
        """Least and most angle in degrees."""
        return self.degrees if isinstance(self.degrees, tuple) else (-self.degrees, self.degrees)


@dataclass(frozen=True, kw_only=True, slots=True)
class ColorJitter:
    """Random brightness, contrast, saturation and hue, in a random order.

    One number x means factors from max(0, 1 - x) to 1 + x, for the hue shifts from -x to x; two are the limits
    themselves. What can't change anything is left out.
    """

    brightness: float | tuple[float, float] = 0.0
    contrast: float | tuple[float, float] = 0.0
    saturation: float | tuple[float, float] = 0.0
    hue: float | tuple[float, float] = 0.0
    """Shift as a share of the colour circle: at most 0.5."""
    p: float = 1.0

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            _check_jitter(f"ColorJitter.{name}", getattr(self, name), 0)
        _check_jitter("ColorJitter.hue", self.hue, -0.5, 0.5)
        checks.number("ColorJitter.p", self.p, 0, 1)

    @property
    def limits(self) -> tuple[tuple[float, float], ...]:
        """(least, most) of the factors of brightness, contrast and saturation, and of the shift of the hue."""
        factors = tuple(
            value if isinstance(value, tuple) else (max(0.0, 1.0 - value), 1.0 + value)
            for value in (self.brightness, self.contrast, self.saturation)
        )
        return *factors, self.hue if isinstance(self.hue, tuple) else (-self.hue, self.hue)


def _check_jitter(where: str, value: float | tuple[float, float], low: float, high: float = float("inf")) -> None:
    if isinstance(value, tuple):
        checks.limits(where, value, low, high)
    else:
        checks.number(where, value, 0, high)


@dataclass(frozen=True, kw_only=True, slots=True)
class Grayscale:
    """All colour is taken out, with probability `p`; three channels stay. torchvision's `RandomGrayscale`."""

    p: float = field(default=0.1, kw_only=False)

    def __post_init__(self) -> None:
        checks.number("Grayscale.p", self.p, 0, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class RandAugment:
    """`n` random operations of one strength: Cubuk et al., "RandAugment", 2019 (arXiv 1909.13719)."""

    n: int = 2
    """Operations, one after the other."""
    m: int = 9
    """Which of the `bins` strengths: 0 to bins - 1."""
    bins: int = 31
    fill: Fill = 0.0
    interpolation: Sampling = "nearest"

    def __post_init__(self) -> None:
        checks.integer("RandAugment.n", self.n, 1, 64)
        checks.integer("RandAugment.bins", self.bins, 2, 1000)
        checks.integer("RandAugment.m", self.m, 0, self.bins - 1)
        checks.channels("RandAugment.fill", self.fill, 0, 255)
        checks.choice("RandAugment.interpolation", self.interpolation, _SAMPLINGS)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrivialAugment:
    """One random operation of random strength, from the wide range: Müller and Hutter, "TrivialAugment", 2021."""

    bins: int = 31
    """Number of strengths."""
    fill: Fill = 0.0
    interpolation: Sampling = "nearest"

    def __post_init__(self) -> None:
        checks.integer("TrivialAugment.bins", self.bins, 2, 1000)
        checks.channels("TrivialAugment.fill", self.fill, 0, 255)
        checks.choice("TrivialAugment.interpolation", self.interpolation, _SAMPLINGS)


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoAugment:
    """One of 25 learned pairs of operations: Cubuk et al., "AutoAugment", 2018 (arXiv 1805.09501)."""

    policy: Literal["imagenet", "cifar10", "svhn"] = "imagenet"
    """What it was learned on."""
    fill: Fill = 0.0
    interpolation: Sampling = "nearest"

    def __post_init__(self) -> None:
        checks.choice("AutoAugment.policy", self.policy, ("imagenet", "cifar10", "svhn"))
        checks.channels("AutoAugment.fill", self.fill, 0, 255)
        checks.choice("AutoAugment.interpolation", self.interpolation, _SAMPLINGS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Normalize:
    """(value / 255 - mean) / std for each channel."""

    mean: tuple[float, ...]
    """Means of red, green and blue, on the scale from 0 to 1; one or four for a loader of so many channels."""
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if not (isinstance(values, tuple) and len(values) in (1, 3, 4) and all(map(checks.is_number, values))):
                raise OptionError(
                    f"Normalize.{name} must be three numbers, for red, green and blue, or one or four for a loader of "
                    f"so many channels, got {values!r}"
                )
        if len(self.mean) != len(self.std):
            raise OptionError(f"Normalize.std must be {len(self.mean)} numbers, as many as mean, got {self.std!r}")
        for value in self.std:
            checks.above_zero("Normalize.std", value)


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomErasing:
    """A random rectangle is painted over: Zhong et al., "Random erasing", 2017 (arXiv 1708.04896)."""

    p: float = field(default=0.5, kw_only=False)
    scale: tuple[float, float] = (0.02, 0.33)
    """Least and most area, as a share of the picture's."""
    ratio: tuple[float, float] = (0.3, 3.3)
    """Least and most height / width; drawn evenly in the logarithm."""
    value: float | tuple[float, float, float] | Literal["random"] = 0.0
    """What it becomes, in the units of the batch (after `Normalize`, 0 is the mean); random: Gaussian noise."""

    def __post_init__(self) -> None:
        checks.number("RandomErasing.p", self.p, 0, 1)
        checks.limits("RandomErasing.scale", self.scale, 0, 1)
        checks.limits("RandomErasing.ratio", self.ratio, _LEAST_RATIO, 1 / _LEAST_RATIO)
        if self.value != "random":
            checks.channels("RandomErasing.value", self.value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cutout:
    """A square about a random pixel is painted over: DeVries and Taylor, "Cutout", 2017 (arXiv 1708.04552).

    It may stick out of the picture. An odd size loses a pixel, as in the authors' code.
    """

    size: int = field(kw_only=False)
    """Side in pixels of the output: 16 for CIFAR-10 and 8 for CIFAR-100 in the paper."""
    value: float | tuple[float, float, float] = 0.0
    """What it becomes, in the units of the batch."""

    def __post_init__(self) -> None:
        checks.integer("Cutout.size", self.size, 1)
        checks.channels("Cutout.value", self.value)


@dataclass(frozen=True, kw_only=True, slots=True)
class MixUp:
    """Pairs of samples are blended: Zhang et al., "mixup", 2017 (arXiv 1710.09412)."""

    alpha: float = field(default=1.0, kw_only=False)
    """The share of the one is drawn from Beta(alpha, alpha), once for a batch."""
    p: float = 1.0
    """Probability that a batch is mixed."""

    def __post_init__(self) -> None:
        checks.above_zero("MixUp.alpha", self.alpha)
        checks.number("MixUp.p", self.p, 0, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class CutMix:
    """A rectangle is taken over from another sample: Yun et al., "CutMix", 2019 (arXiv 1905.04899)."""

    alpha: float = field(default=1.0, kw_only=False)
    """The area that is kept is drawn from Beta(alpha, alpha), once for a batch."""
    p: float = 1.0
    """Probability that a batch is mixed."""

    def __post_init__(self) -> None:
        checks.above_zero("CutMix.alpha", self.alpha)
        checks.number("CutMix.p", self.p, 0, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class MixUpOrCutMix:
    """Each batch gets one of the two. The values are those of torchvision's reference training of ImageNet."""

    mixup_alpha: float = 0.2
    cutmix_alpha: float = 1.0
    cutmix_p: float = 0.5
    """Probability that a mixed batch gets `CutMix`."""
    p: float = 1.0
    """Probability that a batch is mixed."""

    def __post_init__(self) -> None:
        checks.above_zero("MixUpOrCutMix.mixup_alpha", self.mixup_alpha)
        checks.above_zero("MixUpOrCutMix.cutmix_alpha", self.cutmix_alpha)
        checks.number("MixUpOrCutMix.cutmix_p", self.cutmix_p, 0, 1)
        checks.number("MixUpOrCutMix.p", self.p, 0, 1)
