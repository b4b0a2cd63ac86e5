"""Parameters of a batch -> which kept row and column every row and column of its windows comes from."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from imgdata.augment.params import BatchParams
from imgdata.backends.resident.window import Kept


class Places(NamedTuple):
    """Where the windows of N samples lie in the kept pixels. Margins are inside, or -1 where they are black."""

    row_NH: NDArray[np.int64]
    """The kept row that each row of the output shows, bottom up where top and bottom change places."""
    left_N: NDArray[np.int64]
    """The first column, counted from the left end of the margin: never negative."""


def places(params: BatchParams, window: Kept) -> Places:
    """Rows and first columns of all windows."""
    count, height = len(params), params.height
    if not window.moves:
        row_NH, left_N = np.tile(np.arange(height), (count, 1)), np.zeros(count, np.int64)
    else:
        row_NH = mirrored_or_outside(params.offset_N2[:, 1:] + np.arange(height), window.height, window.mirrored)
        left_N = params.offset_N2[:, 0] + window.padding
    if params.vflip_N.any():
        row_NH[params.vflip_N] = row_NH[params.vflip_N, ::-1]
    return Places(row_NH, left_N)


def mirrored_or_outside(place: NDArray[np.int64], side: int, mirrored: bool) -> NDArray[np.int64]:
    """Places along a side, some in its margins -> which of the `side` pixels they show; -1 for black.

    A mirrored margin doesn't show the edge's pixel again.
    """
    if mirrored:
        last = side - 1
        place = last - np.abs(last - np.abs(place))
        return place
    return np.where((place >= 0) & (place < side), place, -1)
