"""Pairs of thumbnails, and how one may show the other -> how alike they are once they are aligned."""

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from imgdata.auditing.hashes import QUERIES, SIDE

ALIKE = 0.9
"""Correlation from which two pictures count as copies. Measured on tiles of photographs with near hashes: 99 % of those
that are encoded again, halved or cropped reach it; of 237 million pairs of other tiles a dozen did, most of them parts
of one straight edge."""
COARSELY_ALIKE = 0.96
"""The same for pairs whose coarse hashes are near, in coarse cells."""
ALIKE_IN_DETAIL = 0.6
"""The same for details, where one of the two is clear: all but a few copies in a thousand reach it."""
FLAT_ALIKE_IN_DETAIL = 0.85
"""The same where both have little structure: most wrong pairs are such."""
COARSE = 16
"""Cells of a side that outlast strong encoding, and halving a small picture."""

_CELLS = 32  # Fine enough to tell textures apart, coarse enough that halving a picture of 64 pixels changes little.
_LARGE_STEP = 0.25  # Of the root mean square of the steps.
_BATCH = 64  # As float64 they stay in the cache.


def correlations(
    luma_MxHxW: NDArray[np.uint8],
    owner_P: NDArray[np.int64],
    target_P: NDArray[np.int64],
    query_P: NDArray[np.int64],
    cells: int = _CELLS,
) -> NDArray[np.float32]:
    """Return the normalised correlation of what each query shows of its owner with the whole target, float32 `(P,)`.

    From -1 to 1; 0 where a picture is of one colour. Thumbnails are uint8 `(M, 64, 64)`.
    """
    return _compared(luma_MxHxW, owner_P, target_P, query_P, cells, _levels)


def details(
    luma_MxHxW: NDArray[np.uint8],
    owner_P: NDArray[np.int64],
    target_P: NDArray[np.int64],
    query_P: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Return the same of the steps between neighbouring coarse cells, large ones cut off, float32 `(P,)`.

    One strong edge at the same place makes unlike pictures correlate, but not the rest of them; nor does a frame, since
    the outermost cells are left out.
    """
    return _compared(luma_MxHxW, owner_P, target_P, query_P, COARSE, _steps)


def _compared(
    luma_MxHxW: NDArray[np.uint8],
    owner_P: NDArray[np.int64],
    target_P: NDArray[np.int64],
    query_P: NDArray[np.int64],
    cells: int,
    feature: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> NDArray[np.float32]:
    found_P = np.zeros(len(owner_P), np.float32)
    order_P = np.argsort(query_P, kind="stable")
    ends = np.flatnonzero(np.diff(query_P[order_P])) + 1
    for same in np.split(order_P, ends):
        for start in range(0, len(same), _BATCH):
            rows = same[start : start + _BATCH]
            one = feature(_shown(luma_MxHxW[owner_P[rows]], int(query_P[rows[0]]), cells))
            other = feature(_shown(luma_MxHxW[target_P[rows]], 0, cells))
            length_B = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
            product_B = (one * other).sum(1)
            # Less than a hundredth of a level is what rounding makes of one colour.
            known_B = length_B > (0.01 * cells) ** 2
            found_P[rows] = np.divide(product_B, length_B, out=np.zeros_like(length_B), where=known_B)
    return found_P


def _levels(shown_BxCxC: NDArray[np.float64]) -> NDArray[np.float64]:
    flat = shown_BxCxC.reshape(len(shown_BxCxC), -1)
    return np.asarray(flat - flat.mean(1, keepdims=True))


def _steps(shown_BxCxC: NDArray[np.float64]) -> NDArray[np.float64]:
    inner = shown_BxCxC[:, 1:-1, 1:-1]
    steps = [np.diff(inner, axis=axis).reshape(len(inner), -1) for axis in (1, 2)]
    flat = np.concatenate(steps, axis=1)
    most_B1 = _LARGE_STEP * np.sqrt((flat * flat).mean(1, keepdims=True))
    return np.clip(flat, -most_B1, most_B1)


def _shown(luma_BxHxW: NDArray[np.uint8], query: int, cells: int) -> NDArray[np.float64]:
    """Return what a query shows, in so many cells a side, float64 `(B, cells, cells)`."""
    box = QUERIES[query].box
    across, down = _cells(box.left, box.right, cells), _cells(box.top, box.bottom, cells)
    shown: NDArray[np.float64] = down @ luma_BxHxW.astype(np.float64) @ across.T
    return shown[:, :, ::-1] if QUERIES[query].mirrored else shown


@cache
def _cells(start: float, end: float, cells: int) -> NDArray[np.float64]:
    """Return how much of each cell each pixel of a row covers, float64 `(cells, 64)`; they divide a part evenly."""
    edge_E = (np.arange(SIDE + 1) / SIDE - start) / (end - start) * cells
    cell_C1 = np.arange(cells)[:, None]
    covered: NDArray[np.float64] = np.clip(
        np.minimum(edge_E[1:], cell_C1 + 1) - np.maximum(edge_E[:-1], cell_C1), 0.0, None
    )
    return covered
