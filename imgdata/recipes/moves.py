"""Operators of a recipe that move pixels, and those that resize by a random factor.

Meaning, formulas and defaults are those of torchvision's operators of the same meaning (version 2 of its transforms).
"""

from dataclasses import dataclass, field

from imgdata import checks
from imgdata.errors import OptionError
from imgdata.recipes.ops import Fill, Resampling, Sampling
from imgdata.recipes.sizes import MAX_SIDE, Size, check_size

_RESAMPLINGS = ("bilinear", "bicubic")
_SAMPLINGS = ("nearest", "bilinear")
_MOST_SHEAR = 89.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Affine:
    """A random rotation, shift, scaling and shear about the middle; the size stays: torchvision's `RandomAffine`."""

    degrees: float | tuple[float, float] = field(kw_only=False)
    """Least and most angle, clockwise as in torchvision, or one number for (-degrees, degrees)."""
    translate: tuple[float, float] = (0.0, 0.0)
    """Most shift to either side, as shares of the width and of the height; whole pixels are drawn."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Least and most factor of the sides."""
    shear: float | tuple[float, float] | tuple[float, float, float, float] = 0.0
    """Degrees: x for -x to x along the width; least and most of that; or these, and those along the height."""
    p: float = 1.0
    fill: Fill = 0.0
    interpolation: Sampling = "nearest"

    def __post_init__(self) -> None:
        if isinstance(self.degrees, tuple):
            checks.limits("Affine.degrees", self.degrees, -360, 360)
        else:
            checks.number("Affine.degrees", self.degrees, 0, 360)
        if not (isinstance(self.translate, tuple) and len(self.translate) == 2):
            raise OptionError(f"Affine.translate must be two shares, of width and height, got {self.translate!r}")
        for share in self.translate:
            checks.number("Affine.translate", share, 0, 1)
        checks.limits("Affine.scale", self.scale, 0.001, 1000)
        shear = self.shear
        if not isinstance(shear, tuple):
            checks.number("Affine.shear", shear, 0, _MOST_SHEAR)
        elif len(shear) == 4:
            checks.limits("Affine.shear", shear[:2], -_MOST_SHEAR, _MOST_SHEAR)
            checks.limits("Affine.shear", shear[2:], -_MOST_SHEAR, _MOST_SHEAR)
        else:
            checks.limits("Affine.shear", shear, -_MOST_SHEAR, _MOST_SHEAR)
        checks.number("Affine.p", self.p, 0, 1)
        checks.channels("Affine.fill", self.fill, 0, 255)
        checks.choice("Affine.interpolation", self.interpolation, _SAMPLINGS)

    @property
    def angles(self) -> tuple[float, float]:
        """Least and most angle in degrees."""
        return self.degrees if isinstance(self.degrees, tuple) else (-self.degrees, self.degrees)

    @property
    def shears(self) -> tuple[float, float, float, float]:
        """Least and most shear along the width, then along the height, in degrees."""
        shear = self.shear if isinstance(self.shear, tuple) else (-self.shear, self.shear)
        return shear if len(shear) == 4 else (*shear, 0.0, 0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Perspective:
    """The corners move inwards at random, with probability `p`: torchvision's `RandomPerspective`."""

    distortion: float = field(default=0.5, kw_only=False)
    """How far, at most, as a share of half the width and height."""
    p: float = 0.5
    fill: Fill = 0.0
    interpolation: Sampling = "bilinear"

    def __post_init__(self) -> None:
        checks.number("Perspective.distortion", self.distortion, 0, 1)
        checks.number("Perspective.p", self.p, 0, 1)
        checks.channels("Perspective.fill", self.fill, 0, 255)
        checks.choice("Perspective.interpolation", self.interpolation, _SAMPLINGS)


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomResize:
    """The whole picture, its shorter side resized to a random size: torchvision's `RandomResize`; a crop must follow.

    With `PadRandomCrop` it is the scale jitter of VGG (Simonyan and Zisserman, 2014): `RandomResize(256, 513)`.
    """

    min_size: int = field(kw_only=False)
    """Least size of the shorter side in pixels."""
    max_size: int = field(kw_only=False)
    """One more than the largest size, as in torchvision."""
    interpolation: Resampling = "bilinear"

    def __post_init__(self) -> None:
        checks.integer("RandomResize.min_size", self.min_size, 1, MAX_SIDE - 1)
        checks.integer("RandomResize.max_size", self.max_size, self.min_size + 1, MAX_SIDE)
        checks.choice("RandomResize.interpolation", self.interpolation, _RESAMPLINGS)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleJitter:
    """The picture, fitted into the output, times a random factor; then a crop at a random place, or black margins.

    Large-scale jitter of Ghiasi et al., "Simple copy-paste", 2020 (arXiv 2012.07177): torchvision's `ScaleJitter` and
    the fixed-size crop of its reference training of detectors, whose margins are at the right and below.
    """

    size: Size = field(kw_only=False)
    """Size of the output: a side, (height, width), a `Schedule` or a `Ramp`."""
    scale: tuple[float, float] = (0.1, 2.0)
    """Least and most factor."""
    interpolation: Resampling = "bilinear"

    def __post_init__(self) -> None:
        check_size("ScaleJitter.size", self.size)
        checks.limits("ScaleJitter.scale", self.scale, 0.001, 1000)
        checks.choice("ScaleJitter.interpolation", self.interpolation, _RESAMPLINGS)
