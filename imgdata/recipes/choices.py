"""Operators of a recipe that choose among operators on pixels, or mix what several of them make."""

from dataclasses import dataclass, field
from typing import Any

from imgdata import checks
from imgdata.errors import OptionError
from imgdata.recipes import functions, moves, ops, tones
from imgdata.recipes.ops import Fill, Sampling

LEAVES: tuple[type, ...] = (
    ops.Rotate,
    moves.Affine,
    moves.Perspective,
    ops.RandAugment,
    ops.TrivialAugment,
    ops.AutoAugment,
    ops.ColorJitter,
    ops.Grayscale,
    tones.GaussianBlur,
    tones.Solarize,
    tones.Posterize,
    tones.Equalize,
    tones.AutoContrast,
    tones.Sharpness,
    tones.Invert,
    functions.Apply,
)
"""Operators on pixels that hold no others."""


def _check_ops(where: str, held: Any) -> None:
    """Check that `held` is a tuple of operators on pixels."""
    if not (isinstance(held, tuple) and held):
        raise OptionError(f"{where} must be operators on pixels, such as (GaussianBlur(9),), got {held!r}")
    for op in held:
        if not isinstance(op, (*LEAVES, RandomApply, RandomChoice, ThreeAugment, AugMix)):
            names = ", ".join(kind.__name__ for kind in (*LEAVES, RandomApply, RandomChoice, ThreeAugment, AugMix))
            raise OptionError(f"{where} must be operators on pixels ({names}), got {op!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomApply:
    """All of `ops`, one after the other, with probability `p`; otherwise none: torchvision's `RandomApply`."""

    ops: tuple[Any, ...] = field(kw_only=False)
    """Operators on pixels, which may hold others."""
    p: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "ops", tuple(self.ops) if isinstance(self.ops, list) else self.ops)
        _check_ops("RandomApply.ops", self.ops)
        checks.number("RandomApply.p", self.p, 0, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomChoice:
    """One of `ops`, chosen at random: torchvision's `RandomChoice`."""

    ops: tuple[Any, ...] = field(kw_only=False)
    """Operators on pixels, which may hold others."""
    weights: tuple[float, ...] | None = None
    """How often each is chosen, relative to the others; None: all equally often."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "ops", tuple(self.ops) if isinstance(self.ops, list) else self.ops)
        _check_ops("RandomChoice.ops", self.ops)
        if self.weights is None:
            return
        if not (isinstance(self.weights, tuple) and len(self.weights) == len(self.ops)):
            raise OptionError(f"RandomChoice.weights must be {len(self.ops)} numbers, got {self.weights!r}")
        for weight in self.weights:
            checks.number("RandomChoice.weights", weight, 0)
        checks.above_zero("the sum of RandomChoice.weights", sum(self.weights))


@dataclass(frozen=True, kw_only=True, slots=True)
class ThreeAugment:
    """Gray, solarized or blurred, each in a third of the cases: Touvron et al., "DeiT III", 2022 (arXiv 2204.07118).

    The authors' recipe is `RandomResizedCrop` (or `Resize` and `PadRandomCrop(padding=4, mode="reflect")`),
    `HorizontalFlip`, this, and `ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3)`. They blur by Pillow's
    approximation; here it is `GaussianBlur` of the same widths.
    """

    threshold: float = 128
    """Of `Solarize`."""
    kernel_size: int = 13
    """Of `GaussianBlur`: three of the widest deviations to each side."""
    sigma: tuple[float, float] = (0.1, 2.0)
    """Of `GaussianBlur`."""

    def __post_init__(self) -> None:
        self.held()

    def held(self) -> "tuple[ops.Grayscale, tones.Solarize, tones.GaussianBlur]":
        """Return the three operators. Raises `OptionError` for values without meaning."""
        blur = tones.GaussianBlur(kernel_size=self.kernel_size, sigma=self.sigma)
        return ops.Grayscale(p=1.0), tones.Solarize(threshold=self.threshold, p=1.0), blur


@dataclass(frozen=True, kw_only=True, slots=True)
class AugMix:
    """Chains of random operations, mixed with each other and with the picture: Hendrycks et al., "AugMix", 2019.

    arXiv 1912.02781, in torchvision's form, with its operations and strengths.
    """

    severity: int = 3
    """How strong operations are at most: 1 to 10."""
    width: int = 3
    """Chains that are mixed."""
    depth: int = -1
    """Operations of a chain; -1: one to three, drawn for each chain."""
    alpha: float = 1.0
    """Of the Dirichlet and Beta distributions from which shares are drawn."""
    all_ops: bool = True
    """Brightness, colour, contrast and sharpness too, which overlap with the corruptions of ImageNet-C."""
    fill: Fill = 0.0
    interpolation: Sampling = "bilinear"

    def __post_init__(self) -> None:
        checks.integer("AugMix.severity", self.severity, 1, 10)
        checks.integer("AugMix.width", self.width, 1, 16)
        if self.depth != -1:
            checks.integer("AugMix.depth", self.depth, 1, 16)
        checks.above_zero("AugMix.alpha", self.alpha)
        if not isinstance(self.all_ops, bool):
            raise OptionError(f"AugMix.all_ops must be True or False, got {self.all_ops!r}")
        checks.channels("AugMix.fill", self.fill, 0, 255)
        checks.choice("AugMix.interpolation", self.interpolation, _SAMPLINGS)


_SAMPLINGS = ("nearest", "bilinear")
PIXELS: tuple[type, ...] = (*LEAVES, RandomApply, RandomChoice, ThreeAugment, AugMix)
"""All operators on pixels: they come behind crop and flips, in any order."""
HOLDERS = (RandomApply, RandomChoice)
"""Operators that hold others."""
