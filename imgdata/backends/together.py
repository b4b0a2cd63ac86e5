"""One batch for each view of the same samples -> one whose bad samples are bad in all views."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imgdata.backends import postprocess
from imgdata.backends.protocol import BackendSetup, BatchRequest, PendingBatch
from imgdata.errors import ImageError

if TYPE_CHECKING:
    import torch


class PendingViews:
    """The batches of all views that are being made: `PendingBatch`, with images and requests for each view."""

    def __init__(self, batches: Sequence[PendingBatch], setups: Sequence[BackendSetup]) -> None:
        self._batches, self._setups = tuple(batches), tuple(setups)
        self._bad: set[int] = set()

    def wait(self) -> Mapping[int, ImageError]:
        """See `PendingBatch`: the rows that failed in any view."""
        failed: dict[int, ImageError] = {}
        for batch in self._batches:
            failed = {**batch.wait(), **failed}
        self._bad |= set(failed)
        return failed

    def redo(self, rows: NDArray[np.int64], works: Sequence[BatchRequest]) -> Mapping[int, ImageError]:
        """See `PendingBatch`; there is a request for each view."""
        failed: dict[int, ImageError] = {}
        for batch, work in zip(self._batches, works, strict=True):
            failed = {**batch.redo(rows, work), **failed}
        self._bad = (self._bad - set(rows.tolist())) | set(failed)
        return failed

    def images(self) -> "tuple[torch.Tensor, ...]":
        """Return the pixels of each view, `(N, C, H, W)`; rows that failed in one view are black in all."""
        views = tuple(batch.images() for batch in self._batches)
        for images, setup in zip(views, self._setups, strict=True):
            blacken(images, sorted(self._bad), setup)
        return views

    def cancel(self) -> None:
        """See `PendingBatch`."""
        for batch in self._batches:
            batch.cancel()


def blacken(images: "torch.Tensor", rows: list[int], setup: BackendSetup) -> None:
    """Make some pictures of a batch what the backend of `setup` makes of black ones."""
    if not rows:
        return
    import torch

    options = setup.options
    black_C11 = torch.from_numpy(postprocess.black(options.recipe, options.dtype, options.channels).copy())
    images[torch.tensor(rows, device=images.device)] = black_C11.to(images)
