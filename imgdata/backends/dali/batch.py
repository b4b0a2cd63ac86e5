"""One batch: what came out of the pipeline, the host's rows, replaced ones -> the finished images on the device."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from imgdata.backends import postprocess
from imgdata.backends.dali.pipeline_run import Part, failures
from imgdata.backends.ending import Ending, closed
from imgdata.backends.protocol import Work
from imgdata.backends.torch_ops.batched import upload
from imgdata.errors import ImageError

if TYPE_CHECKING:
    from imgdata.backends.dali.backend import DaliBackend

Task = Callable[[], Any]


class DaliBatch:
    """See `Pending`."""

    def __init__(self, backend: "DaliBackend", work: Work) -> None:
        """`begin` starts."""
        self._backend, self._work = backend, work
        self._row_N = np.arange(len(work.position_N))
        self._images: torch.Tensor | None = None
        self._mixed = work.mix.kind == "none"
        self._ending = Ending()
        self._part: Part | None = None

    def begin(self) -> None:
        """Start on all rows but those to skip, which become black."""
        self._start(self._work, self._row_N)

    def wait(self) -> Mapping[int, ImageError]:
        """See `Pending`."""
        self._ending.wait()
        part = self._part
        if part is None:
            # Cancelled by another thread, right now.
            raise closed()
        if self._backend.finisher is None:
            # Here, not before: it goes into the stream of the thread that wants the batch.
            self._finish(part)
        self._part = None
        return failures(part, self._row_N)

    def redo(self, rows: NDArray[np.int64], work: Work) -> Mapping[int, ImageError]:
        """See `Pending`."""
        self._start(work, rows)
        return self.wait()

    def images(self) -> torch.Tensor:
        """See `Pending`."""
        assert self._images is not None, "images() comes behind wait()"
        if not self._mixed:
            self._mixed = True
            self._run(partial(postprocess.mix_images, self._images, self._work.mix))
            self._ending.wait()
        return self._images

    def cancel(self) -> None:
        """See `Pending`."""
        self._ending.cancel()
        part, self._part = self._part, None
        if part is not None:
            part.cancel()

    # --- steps -------------------------------------------------------------------------------------------------

    def _start(self, work: Work, row_N: NDArray[np.int64]) -> None:
        self._row_N = row_N
        self._part = part = Part(self._backend, work, self._through)
        if self._ending.cancelled:
            part.cancel()
        part.begin()

    def _through(self, part: Part) -> None:
        """The part's rows are there; called by any thread."""
        if part.fault is not None:
            self._ending.fail(part.fault)
        if part.fault or part.cancelled or self._backend.finisher is None:
            self._ending.tell()
        else:
            self._run(partial(self._finish, part))

    def _finish(self, part: Part) -> None:
        """Put the part's finished rows into the batch."""
        device_id = self._backend.spec.device_id
        # What is pinned takes memory of the current device; -1 changes nothing.
        with torch.cuda.device(-1 if device_id is None else device_id):
            images = self._backend.finished(part)
            if self._images is None:
                self._images = images
            else:
                put_rows(self._images, self._row_N, images)

    def _run(self, task: Task) -> None:
        """Do it; on the processor in a thread for that.

        PyTorch starts threads for each thread that has much to do, and they don't survive a fork of it.
        """
        finisher = self._backend.finisher
        if finisher is None:
            self._guard(task)
        else:
            finisher.submit(partial(self._guard, task))

    def _guard(self, task: Task) -> None:
        try:
            if not self._ending.cancelled:
                task()
        except BaseException as error:  # Whatever it is, it is raised where the batch is wanted.
            self._ending.fail(error)
        self._ending.tell()


def put_rows(images: torch.Tensor, row_K: NDArray[np.int64], pixels: torch.Tensor | NDArray[Any]) -> None:
    """`(K, C, H, W)`, or what each of the rows gets, into `(N, C, H, W)`; the host does not wait for a GPU.

    On the processor by NumPy: waking PyTorch's threads takes longer than copying a few rows.
    """
    if images.device.type == "cpu":
        images.numpy()[row_K] = np.asarray(pixels)
        return
    (rows,) = upload([row_K], images.device)
    images[rows] = pixels if isinstance(pixels, torch.Tensor) else upload([pixels], images.device)[0]
