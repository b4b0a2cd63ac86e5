"""Pairs of thumbnails, and how one may show the other -> how alike they are once they are aligned."""

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
COARSE = 16
"""Cells of a side that outlast strong encoding, and halving a small picture."""

_CELLS = 32  # Fine enough to tell textures apart, coarse enough that halving a picture of 64 pixels changes little.
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
    found_P = np.zeros(len(owner_P), np.float32)
    order_P = np.argsort(query_P, kind="stable")
    ends = np.flatnonzero(np.diff(query_P[order_P])) + 1
    for same in np.split(order_P, ends):
        for start in range(0, len(same), _BATCH):
            rows = same[start : start + _BATCH]
            shown = _shown(luma_MxHxW[owner_P[rows]], int(query_P[rows[0]]), cells)
            found_P[rows] = (shown * _shown(luma_MxHxW[target_P[rows]], 0, cells)).sum(1)
    return found_P


def _shown(luma_BxHxW: NDArray[np.uint8], query: int, cells: int) -> NDArray[np.float64]:
    """Return what a query shows in so many cells a side, less their mean and of length 1, float64 `(B, cells**2)`."""
    box = QUERIES[query].box
    across, down = _cells(box.left, box.right, cells), _cells(box.top, box.bottom, cells)
    shown = down @ luma_BxHxW.astype(np.float64) @ across.T
    if QUERIES[query].mirrored:
        shown = shown[:, :, ::-1]
    flat = shown.reshape(len(shown), -1)
    flat = flat - flat.mean(1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    # Less than a hundredth of a level is what rounding makes of one colour.
    return np.asarray(np.divide(flat, length, out=np.zeros_like(flat), where=length > 0.01 * cells))


@cache
def _cells(start: float, end: float, cells: int) -> NDArray[np.float64]:
    """Return how much of each cell each pixel of a row covers, float64 `(cells, 64)`; they divide a part evenly."""
    edge_E = (np.arange(SIDE + 1) / SIDE - start) / (end - start) * cells
    cell_C1 = np.arange(cells)[:, None]
    covered: NDArray[np.float64] = np.clip(
        np.minimum(edge_E[1:], cell_C1 + 1) - np.maximum(edge_E[:-1], cell_C1), 0.0, None
    )
    return covered
