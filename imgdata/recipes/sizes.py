"""An output size, fixed or changing -> (height, width) in pixels at an epoch."""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from imgdata import checks
from imgdata.errors import OptionError

MAX_SIDE = 65_535
"""Longest side of a picture in pixels: that of a JPEG."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A size that changes at given epochs: `Schedule(((0, 128), (6, 160), (12, 224)))`."""

    steps: tuple[tuple[int, int], ...]
    """Pairs (epoch, side in pixels), from epoch 0 on; a side holds until the next pair."""

    def __post_init__(self) -> None:
        steps = self.steps
        if not (isinstance(steps, tuple) and steps and all(isinstance(s, tuple) and len(s) == 2 for s in steps)):
            raise OptionError(
                f"Schedule.steps must be pairs (epoch, size), such as ((0, 128), (6, 160)), got {steps!r}"
            )
        for epoch, side in steps:
            checks.integer("Schedule: an epoch", epoch, 0)
            checks.integer("Schedule: a size", side, 1, MAX_SIDE)
        if steps[0][0] != 0 or any(after <= before for (before, _), (after, _) in pairwise(steps)):
            raise OptionError(f"Schedule: epochs must start at 0 and rise, got {[epoch for epoch, _ in steps]}")

    def side(self, epoch: int) -> int:
        """Return the side in pixels at `epoch`."""
        return next(side for start, side in reversed(self.steps) if start <= epoch)

    def epochs(self) -> Iterable[int]:
        """Return all epochs at which the size can change."""
        return [epoch for epoch, _ in self.steps]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ramp:
    """A size that grows (or shrinks) linearly from one epoch to another, rounded to a multiple.

    The rule of FFCV's ImageNet training (github.com/libffcv/ffcv-imagenet, `get_resolution`): linear in between,
    constant outside, halves rounded to the even multiple.
    """

    start_epoch: int = 0
    """Up to this epoch the size is `start_size`."""
    end_epoch: int
    """From this epoch on the size is `end_size`."""
    start_size: int
    """Side in pixels; a multiple of `multiple`."""
    end_size: int
    """Side in pixels; a multiple of `multiple`."""
    multiple: int = 32

    def __post_init__(self) -> None:
        checks.integer("Ramp.start_epoch", self.start_epoch, 0)
        checks.integer("Ramp.end_epoch", self.end_epoch, self.start_epoch + 1)
        checks.integer("Ramp.multiple", self.multiple, 1)
        for name, side in (("start_size", self.start_size), ("end_size", self.end_size)):
            checks.integer(f"Ramp.{name}", side, 1, MAX_SIDE)
            if side % self.multiple:
                raise OptionError(f"Ramp.{name} must be a multiple of {self.multiple}, got {side}")

    def side(self, epoch: int) -> int:
        """Return the side in pixels at `epoch`."""
        epoch = min(max(epoch, self.start_epoch), self.end_epoch)
        gone, left = epoch - self.start_epoch, self.end_epoch - epoch
        exact = Fraction(self.start_size * left + self.end_size * gone, (gone + left) * self.multiple)
        return round(exact) * self.multiple

    def epochs(self) -> Iterable[int]:
        """Return all epochs at which the size can change."""
        return range(self.start_epoch, self.end_epoch + 1)


Size = int | tuple[int, int] | Schedule | Ramp
"""Side of a square, (height, width), or a side by epoch; in pixels."""


def check_size(where: str, size: object) -> None:
    """Raise `OptionError` unless `size` is a `Size`."""
    if isinstance(size, Schedule | Ramp):
        return
    sides = size if isinstance(size, tuple) else (size,)
    if len(sides) not in (1, 2) or (isinstance(size, tuple) and len(sides) == 1):
        raise OptionError(f"{where} must be a side, (height, width) or a Schedule, got {size!r}")
    for side in sides:
        checks.integer(where, side, 1, MAX_SIDE)


def sides_at(size: Size, epoch: int) -> tuple[int, int]:
    """Return (height, width) in pixels at `epoch`."""
    if isinstance(size, Schedule | Ramp):
        size = size.side(epoch)
    return size if isinstance(size, tuple) else (size, size)


def epochs_of(size: Size) -> Iterable[int]:
    """Return all epochs at which `size` can change; epoch 0 among them."""
    return {0, *size.epochs()} if isinstance(size, Schedule | Ramp) else {0}
