"""Figures of a stage -> one row of a trace, or one panel of its picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Stage = Literal["load", "decode", "preprocess", "split", "augment", "batch", "train", "evaluate", "layer"]
_ANSWERS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class TraceRow:
    """The output of one step of one stage."""

    stage: Stage
    step: str
    """Name of the operator, the tensor or the layer."""
    count: int
    """Number of such outputs."""
    shape: tuple[int, ...]
    """Height, width, channels of one picture or of what a layer gives; of a batch the shape of its tensor."""
    dtype: str
    """Type of the values; for `load` the format of the files."""
    low: float | None = None
    """The least value of all; for `load` the fewest bytes of a file."""
    high: float | None = None
    example: str = ""
    """Red value of one pixel, before -> after: the same pixel, wherever a crop, flip or rotation puts it."""
    ms_per_image: float | None = None
    """Milliseconds. Before the batch of all from reading on, in one thread; else of the step alone."""
    parameters: int | None = None
    """Weights of the layer."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
    """The example after one step, to look at."""

    stage: Stage
    title: str
    """One or two lines."""
    pixels: NDArray[np.generic] | None = None
    """uint8 or float `(H, W, 3)`, or one channel, float `(H, W)`."""
    place: tuple[int, int] | None = None
    """(row, column) of the followed pixel, where it is in there."""
    answer_K: tuple[tuple[str, float], ...] = ()
    """Classes with their probabilities, the best first."""

    @staticmethod
    def answer(chance_C: NDArray[np.float32], names: Sequence[str]) -> "Panel":
        """Return a panel of the best five classes."""
        best = np.argsort(-chance_C, kind="stable")[:_ANSWERS].tolist()
        return Panel(
            stage="evaluate", title="softmax", answer_K=tuple((names[one], float(chance_C[one])) for one in best)
        )
