"""One batch: what came out of the pipeline, the host's rows, replaced ones -> the finished images on the device."""

import queue
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from imgdata.backends import finish
from imgdata.backends.cpu_batch import closed
from imgdata.backends.dali.part import Part, failures
from imgdata.backends.work import Work
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
        # Something to take out each time that a part is through, or all is given up. No event: the collector may call
        # `cancel` while this same thread holds the event's lock.
        self._ended: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._fault: BaseException | None = None
        self._cancelled = False
        self._part: Part | None = None

    def begin(self) -> None:
        """Start on all rows but those to skip, which become black."""
        self._start(self._work, self._row_N)

    def wait(self) -> Mapping[int, ImageError]:
        """See `Pending`."""
        self._await()
        part = self._part
        assert part is not None, "wait() comes once behind begin()"
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
            self._run(partial(finish.mix_images, self._images, self._work.mix))
            self._await()
        return self._images

    def cancel(self) -> None:
        """See `Pending`."""
        self._cancelled = True
        self._fault = None
        part, self._part = self._part, None
        if part is not None:
            part.cancel()
        self._ended.put(None)

    # --- steps -------------------------------------------------------------------------------------------------

    def _start(self, work: Work, row_N: NDArray[np.int64]) -> None:
        self._row_N = row_N
        self._part = part = Part(self._backend, work, self._through)
        if self._cancelled:
            part.cancel()
        part.begin()

    def _await(self) -> None:
        """Until what was begun is over. Raises what went wrong."""
        if not self._cancelled:
            self._ended.get()
        if self._cancelled:
            raise closed()
        fault, self._fault = self._fault, None
        try:
            if fault is not None:
                raise fault
        finally:
            # Its traceback holds this frame.
            del fault

    def _through(self, part: Part) -> None:
        """The part's rows are there; called by any thread."""
        self._fault = part.fault
        if part.fault or part.cancelled or self._backend.finisher is None:
            self._ended.put(None)
        else:
            self._run(partial(self._finish, part))

    def _finish(self, part: Part) -> None:
        """Put the part's finished rows into the batch."""
        images = self._backend.finished(part)
        if self._images is None:
            self._images = images
        else:
            self._images[torch.from_numpy(self._row_N).to(images.device)] = images

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
            if not self._cancelled:
                task()
        except BaseException as error:  # Whatever it is, it is raised where the batch is wanted.
            self._fault = error
        self._ended.put(None)
