"""Operators of a recipe that change colours or sharpness, where each pixel stays in its place.

Meaning, formulas and defaults are those of torchvision's operators of the same meaning (version 2 of its transforms).
"""

from dataclasses import dataclass, field

from imgdata import checks
from imgdata.errors import OptionError


@dataclass(frozen=True, kw_only=True, slots=True)
class GaussianBlur:
    """A blur by a Gaussian of random width: torchvision's `GaussianBlur`; edges are mirrored.

    The kernel is `exp(-d^2 / (2 sigma^2))` of distances d in pixels, and its sum is 1.
    """

    kernel_size: int = field(kw_only=False)
    """Pixels of the kernel across: odd. Three deviations to each side are `2 * 3 * sigma + 1`."""
    sigma: tuple[float, float] = (0.1, 2.0)
    """Least and most standard deviation in pixels of the output."""
    p: float = 1.0

    def __post_init__(self) -> None:
        checks.integer("GaussianBlur.kernel_size", self.kernel_size, 1, 511)
        if self.kernel_size % 2 == 0:
            raise OptionError(f"GaussianBlur.kernel_size must be odd, got {self.kernel_size}")
        checks.limits("GaussianBlur.sigma", self.sigma, 0)
        checks.above_zero("GaussianBlur.sigma", self.sigma[0])
        checks.number("GaussianBlur.p", self.p, 0, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Solarize:
    """Values from `threshold` on are inverted, with probability `p`: torchvision's `RandomSolarize`."""

    threshold: float = field(kw_only=False)
    """0 to 255; BYOL, DINO and DeiT III use 128."""
    p: float = 0.5

    def __post_init__(self) -> None:
        checks.number("Solarize.threshold", self.threshold, 0, 255)
        checks.number("Solarize.p", self.p, 0, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Posterize:
    """The upper `bits` of each value are kept, with probability `p`: torchvision's `RandomPosterize`."""

    bits: int = field(kw_only=False)
    """1 to 8; 8 changes nothing."""
    p: float = 0.5

    def __post_init__(self) -> None:
        checks.integer("Posterize.bits", self.bits, 1, 8)
        checks.number("Posterize.p", self.p, 0, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Equalize:
    """Each channel's values are spread evenly over the range, with probability `p`: torchvision's `RandomEqualize`."""

    p: float = field(default=0.5, kw_only=False)

    def __post_init__(self) -> None:
        checks.number("Equalize.p", self.p, 0, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoContrast:
    """Each channel is stretched to 0 to 255, with probability `p`: torchvision's `RandomAutocontrast`."""

    p: float = field(default=0.5, kw_only=False)

    def __post_init__(self) -> None:
        checks.number("AutoContrast.p", self.p, 0, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sharpness:
    """Distances from a smoothed picture are multiplied, with probability `p`: torchvision's `RandomAdjustSharpness`."""

    factor: float = field(kw_only=False)
    """0 gives the smoothed picture, 1 the picture itself, 2 doubles its sharpness."""
    p: float = 0.5

    def __post_init__(self) -> None:
        checks.number("Sharpness.factor", self.factor, 0)
        checks.number("Sharpness.p", self.p, 0, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Invert:
    """Each value becomes 255 minus itself, with probability `p`: torchvision's `RandomInvert`."""

    p: float = field(default=0.5, kw_only=False)

    def __post_init__(self) -> None:
        checks.number("Invert.p", self.p, 0, 1)
