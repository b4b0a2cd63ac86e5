"""Which random numbers mean what. A number here never changes: it would change every augmented picture."""

from enum import IntEnum


class Stream(IntEnum):
    """The streams of `imgdata.augment.philox`. Adding an operator to a recipe leaves the draws of the others alone."""

    CROP = 0
    """Block 0: area and ratio of the first try, top, left. Blocks 1 to 5: area and ratio of the other nine."""
    TURN = 1
    """Horizontal flip, vertical flip, whether to rotate, angle."""
    JITTER = 2
    """Brightness, contrast, saturation, hue."""
    COLOR = 3
    """Whether to jitter, order of the jitter, whether to make gray, whether to erase."""
    POLICY = 4
    """A block for each operation: which, strength, sign, whether."""
    ERASE = 5
    """Block 0: area and ratio of the first try, top, left. Blocks 1 to 5: area and ratio of the other nine."""
    NOISE = 6
    """Noise of an erased rectangle."""
    MIX = 7
    """By the offset of the global batch: whether, which, x, y, then the draws of Beta."""
    REPLACE = 8
    """By the position of a bad image: which sample takes its place, a number for each attempt."""
