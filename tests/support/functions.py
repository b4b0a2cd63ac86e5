"""Functions that recipes name in tests."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

NUMBER = 3


def noisy(pixels: NDArray[np.uint8], generator: np.random.Generator) -> Any:
    """The pixels with noise."""
    return pixels + generator.integers(0, 50, pixels.shape, dtype=np.uint8)
