"""One batch of the resident backend: work -> a finished tensor, made in a thread."""

import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imgdata.backends import finish
from imgdata.backends.cpu_batch import closed
from imgdata.backends.work import Work
from imgdata.errors import ImageError

if TYPE_CHECKING:
    import torch

    from imgdata.backends.resident.backend import ResidentBackend


class ResidentBatch:
    """See `Pending`. One task at a time is in work for it."""

    def __init__(self, backend: "ResidentBackend", work: Work) -> None:
        """`begin` starts."""
        self._backend, self._mix = backend, work.mix
        self._images: torch.Tensor | None = None
        self._mixed = work.mix.kind == "none"
        self._failed: dict[int, ImageError] = {}
        self._fault: BaseException | None = None
        self.cancelled = False
        self._mark: torch.cuda.Event | None = None
        self._done = threading.Event()

    def begin(self, work: Work) -> None:
        """Start on all rows but those to skip, which become black."""
        self._submit(partial(self._make, work))

    def wait(self) -> Mapping[int, ImageError]:
        """See `Pending`."""
        self._done.wait()
        if self.cancelled:
            raise closed()
        if self._fault is not None:
            raise self._fault
        failed, self._failed = self._failed, {}
        return failed

    def redo(self, rows: NDArray[np.int64], work: Work) -> Mapping[int, ImageError]:
        """See `Pending`."""
        self._submit(partial(self._make_again, rows, work))
        return self.wait()

    def images(self) -> "torch.Tensor":
        """See `Pending`."""
        if not self._mixed:
            self._submit(self._mix_images)
            self.wait()
        return self._backend.hand_over(self._made(), self._mark)

    def cancel(self) -> None:
        """See `Pending`."""
        self.cancelled = True
        self._done.set()

    def _make(self, work: Work) -> None:
        self._images, self._failed = self._backend.make(work)
        # Where rows are bad, others have to take their place first.
        if not (self._mixed or self._failed):
            self._mix_images()

    def _make_again(self, row_M: NDArray[np.int64], work: Work) -> None:
        images, failed = self._backend.make(work)
        self._backend.replace(self._made(), row_M, images)
        self._failed = {int(row_M[number]): error for number, error in failed.items()}

    def _mix_images(self) -> None:
        self._mixed = True
        with self._backend.lane():
            finish.mix_images(self._made(), self._mix)

    def _made(self) -> "torch.Tensor":
        assert self._images is not None, "`wait` was not called"
        return self._images

    def _submit(self, task: Callable[[], None]) -> None:
        self._done.clear()
        self._backend.submit(partial(self._run, task))
        if self.cancelled:
            self._done.set()

    def _run(self, task: Callable[[], None]) -> None:
        try:
            if not self.cancelled:
                task()
                self._mark = self._backend.mark()
        except BaseException as error:  # Whatever it is, `wait` raises it where the batch is wanted.
            self._fault = error
        self._done.set()
