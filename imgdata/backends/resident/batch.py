"""One batch of the resident backend: work -> a finished tensor, made in a thread."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imgdata.backends import postprocess
from imgdata.backends.ending import Ending
from imgdata.backends.protocol import Work
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
        self._ending = Ending()
        self._mark: torch.cuda.Event | None = None

    @property
    def cancelled(self) -> bool:
        """Whether nobody wants it any more."""
        return self._ending.cancelled

    def begin(self, work: Work) -> None:
        """Start on all rows but those to skip, which become black."""
        self._submit(partial(self._make, work))

    def wait(self) -> Mapping[int, ImageError]:
        """See `Pending`."""
        self._ending.wait()
        failed, self._failed = self._failed, {}
        return failed

    def redo(self, rows: NDArray[np.int64], work: Work) -> Mapping[int, ImageError]:
        """See `Pending`."""
        self._submit(partial(self._make_again, rows, work))
        return self.wait()

    def images(self) -> "torch.Tensor":
        """See `Pending`."""
        if not self._mixed:
            self._backend.mix(partial(self._run, self._mix_images))
            self.wait()
        return self._backend.hand_over(self._made(), self._mark)

    def cancel(self) -> None:
        """See `Pending`."""
        self._ending.cancel()

    def _make(self, work: Work) -> bool:
        self._images, self._failed = self._backend.make(work)
        # Where rows are bad, others have to take their place first.
        if self._mixed or self._failed:
            return True
        self._backend.mix(partial(self._run, self._mix_images))
        return False

    def _make_again(self, row_M: NDArray[np.int64], work: Work) -> bool:
        images, failed = self._backend.make(work)
        self._backend.replace(self._made(), row_M, images)
        self._failed = {int(row_M[number]): error for number, error in failed.items()}
        return True

    def _mix_images(self) -> bool:
        self._mixed = True
        with self._backend.lane():
            postprocess.mix_images(self._made(), self._mix)
        return True

    def _made(self) -> "torch.Tensor":
        assert self._images is not None, "`wait` was not called"
        return self._images

    def _submit(self, task: Callable[[], bool]) -> None:
        self._backend.submit(partial(self._run, task))

    def _run(self, task: Callable[[], bool]) -> None:
        """A task, which says whether the batch is done; otherwise it has begun another one."""
        try:
            if not self.cancelled:
                if not task():
                    return
                self._mark = self._backend.mark()
        except BaseException as error:  # Whatever it is, `wait` raises it where the batch is wanted.
            self._ending.fail(error)
        self._ending.tell()
