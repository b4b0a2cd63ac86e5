"""A place in an epoch -> its batches, one after the other, with some made ahead."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from imgdata.backends.joint.batch import PendingJoint
from imgdata.backends.options import OnBad
from imgdata.backends.postprocess import mixed_targets, soft_labels
from imgdata.backends.protocol import PendingBatch
from imgdata.backends.together import PendingViews
from imgdata.errors import FunctionError, ImageError, ImgdataError
from imgdata.loader.bad_images import BadImages
from imgdata.loader.batch_functions import applied, named
from imgdata.loader.columns import BatchColumns, joint_columns
from imgdata.loader.delivery import Engine
from imgdata.loader.planner import ATTEMPTS, Draft, Planner
from imgdata.loader.remote_cache import shard_needs
from imgdata.recipes.functions import BatchApply
from imgdata.sample import Batch

if TYPE_CHECKING:
    import torch


@dataclass(kw_only=True, slots=True, eq=False)
class Cursor:
    """How far an iterator is. The loader reads it, so that it needn't reference the iterator."""

    epoch: int
    samples: int
    """Samples of the epoch, over all ranks, before the iterator's first batch."""
    taken: int = 0
    """Batches that were handed out."""


class Lane(NamedTuple):
    """What makes the batches of one shape."""

    planner: Planner
    engine: Engine

    def start(self, draft: Draft) -> PendingBatch | PendingViews | PendingJoint:
        """Begin the batch."""
        return self.engine.start(self.planner.works(draft))

    def redo(
        self, pending: PendingBatch | PendingViews | PendingJoint, rows: NDArray[np.int64], draft: Draft
    ) -> Mapping[int, ImageError]:
        """Put what the draft now has for `rows` into these rows of the batch; return those that failed again."""
        works = self.planner.works(draft, rows)
        if isinstance(pending, PendingViews | PendingJoint):
            return pending.redo(rows, works)
        return pending.redo(rows, works[0])


class _Ahead(NamedTuple):
    number: int
    """Number of the batch in the iterator, from 0."""
    draft: Draft
    pending: PendingBatch | PendingViews | PendingJoint
    lane: Lane


class Batches(Iterator[Batch]):
    """The batches that are left of one epoch.

    Batches made ahead are no more than a cache: what was handed out alone says where the iterator continues, also after
    an error, after Ctrl-C or in a forked process.
    """

    def __init__(
        self,
        cursor: Cursor,
        *,
        lanes: Sequence[Lane],
        bad: BadImages,
        on_bad: OnBad,
        prefetch: int,
        columns: BatchColumns,
        soft_classes: int | None,
    ) -> None:
        """Prepare the epoch; `soft_classes` is the number of classes where labels are soft, None where they are not."""
        self._cursor, self._lanes, self._bad = cursor, lanes, bad
        # Samples, labels and their order are those of all lanes.
        self._planner = planner = lanes[0].planner
        self._on_bad, self._prefetch, self._soft_classes = on_bad, prefetch, soft_classes
        self._columns, self._function = columns, planner.recipe.find(BatchApply)
        self._total = planner.order.batches_left(cursor.samples)
        self._ahead: deque[_Ahead] = deque()
        self._cache, self._planned_in = lanes[0].engine.setup.split.cache, 0
        self._pid = os.getpid()
        # Reentrant, since a handler of signals may take a batch anywhere.
        self._lock = threading.RLock()

    def __next__(self) -> Batch:
        """Return the next batch; threads that share the iterator take turns.

        Raises `ShardError`, `OptionError`, `FunctionError`, and `ImageError` where a bad image is not to be left out.
        """
        if self._pid != os.getpid():
            # Another thread of the parent may hold the lock.
            self._lock = threading.RLock()
        with self._lock:
            return self._next()

    def _next(self) -> Batch:
        if self._cursor.taken >= self._total:
            raise StopIteration
        finished = False
        try:
            self._fill()
            batch = self._finish(self._ahead[0])
            finished = True
        except FunctionError as error:
            if error.position is None:
                raise
            raise named(error, self._planner.index) from error.__cause__
        finally:
            if not finished:
                self._drop()
        # In this order Ctrl-C may come anywhere: what stays ahead of its time is seen by its number.
        self._cursor.taken += 1
        self._ahead.popleft()
        return batch

    def __length_hint__(self) -> int:
        return max(0, self._total - self._cursor.taken)

    def close(self) -> None:
        """End the epoch here, and give up the batches that were made ahead."""
        self._total = 0
        self._drop()

    def __del__(self) -> None:
        self._drop()

    def _fill(self) -> None:
        """Start batches until `prefetch` are in work after the next one."""
        if self._pid != os.getpid():
            self._drop()
            self._pid = os.getpid()
        self._lanes[0].engine.check_open()
        while self._ahead and self._ahead[0].number < self._cursor.taken:
            self._ahead.popleft()
        while len(self._ahead) <= self._prefetch and self._cursor.taken + len(self._ahead) < self._total:
            try:
                self._ahead.append(self._started(self._cursor.taken + len(self._ahead)))
            except ImgdataError:
                # It is raised when its batch is due, after the batches that are good.
                if not self._ahead:
                    raise
                break

    def _started(self, number: int) -> _Ahead:
        order, epoch = self._planner.order, self._cursor.epoch
        if self._cache is not None:
            if self._planned_in != os.getpid():
                self._cache.plan(shard_needs(self._planner, epoch, self._cursor.samples, self._total))
                self._planned_in = os.getpid()
            self._cache.passed(self._cursor.taken)
        offset = self._cursor.samples + number * order.global_batch
        lane = self._lanes[order.bucket_at(epoch, offset)]
        # Its errors come before those of the draft.
        lane.engine.backends()
        draft = lane.planner.draft(epoch, offset)
        self._leave_out_known(draft)
        return _Ahead(number, draft, lane.start(draft), lane)

    def _drop(self, getpid: Callable[[], int] = os.getpid) -> None:
        # At the end of the program this module may be gone before the iterator is: the name `os` with it.
        while self._ahead:
            ahead = self._ahead.pop()
            # In a fork the threads that hold its locks are not there.
            if self._pid == getpid():
                ahead.pending.cancel()

    def _finish(self, ahead: _Ahead) -> Batch:
        import torch

        draft = ahead.draft
        failed = ahead.pending.wait()
        if draft.left_out and self._on_bad == "raise":
            self._raise(draft.left_out[0], draft.epoch)
        while failed:
            self._note(draft, failed)
            rows = np.array(sorted(failed))
            if self._on_bad == "skip":
                self._skip(draft, rows)
                break
            self._replace(draft, rows)
            failed = ahead.lane.redo(ahead.pending, rows, draft)
        for position in draft.left_out:
            self._bad.note_known(position, draft.epoch)
        pending, engine = ahead.pending, ahead.lane.engine
        made: torch.Tensor | tuple[torch.Tensor, ...] = pending.images()
        if isinstance(made, tuple):
            made, labels = engine.deliver_views(made, self._labels(draft))
        else:
            made, labels = engine.deliver(made, self._labels(draft))
        # The type says what nearly all loaders give; `Batch.views` is right for both.
        images = cast("torch.Tensor", made)
        if self._function is not None:
            order, ranks = self._planner.order, self._planner
            place = draft.offset + ranks.rank * (order.global_batch // ranks.world_size)
            images = applied(self._function, images, seed=order.seed, epoch=draft.epoch, place=place)
        moving = {}
        if isinstance(pending, PendingJoint):
            moving = joint_columns(pending.parts(), engine, several=isinstance(made, tuple))
        return Batch(
            images=images,
            labels=labels,
            positions=torch.from_numpy(draft.position_N),
            valid=torch.from_numpy(draft.valid_N),
            columns=self._columns.of(draft.position_N) | moving,
            joint={} if engine.joint is None else engine.joint.kinds,
            read_keys=self._planner.index.keys,
        )

    def _labels(self, draft: Draft) -> "torch.Tensor":
        """Return what a network has to say of a batch, mixed as its pictures are."""
        import torch

        targets = self._planner.view.targets
        if targets is not None:
            value_N = targets.values(draft.position_N)
            return torch.from_numpy(mixed_targets(value_N, draft.skip_N, draft.mix, of_classes=targets.of_classes))
        if self._soft_classes is None:
            return torch.from_numpy(draft.label_N)
        # A sample that is mixed with a black picture gets nothing of that picture's class.
        seen = torch.from_numpy(np.where(draft.skip_N, -1, draft.label_N))
        return soft_labels(seen, draft.mix, self._soft_classes)

    def _note(self, draft: Draft, failed: Mapping[int, ImageError]) -> None:
        for row, error in sorted(failed.items()):
            position = int(draft.position_N[row])
            self._bad.note(position, draft.epoch, error)
            if self._on_bad == "raise":
                self._raise(position, draft.epoch)

    def _raise(self, position: int, epoch: int) -> None:
        image = self._bad.note_known(position, epoch)
        raise ImageError(
            image.reason,
            f"{image.key} in split {self._planner.view.split}: {image.detail}; leave it out by a view, or use "
            "on_bad='replace'",
        )

    def _leave_out_known(self, draft: Draft) -> None:
        """Leave out samples that are bad by what the index says; these are not read."""
        rows = self._bad.among(draft.position_N)
        if not len(rows):
            return
        draft.left_out.extend(draft.position_N[rows].tolist())
        if self._on_bad == "replace":
            self._replace(draft, rows)
        else:
            self._skip(draft, rows)

    @staticmethod
    def _skip(draft: Draft, rows: NDArray[np.int64]) -> None:
        draft.skip_N[rows] = True
        draft.valid_N[rows] = False

    def _replace(self, draft: Draft, rows: NDArray[np.int64]) -> None:
        """Put another sample, good by what the index says, into each of `rows`."""
        while len(rows):
            if draft.attempt_N[rows].max() >= ATTEMPTS:
                self._give_up(draft, int(rows[draft.attempt_N[rows].argmax()]))
            self._planner.replace(draft, rows)
            rows = rows[self._bad.among(draft.position_N[rows])]
            draft.left_out.extend(draft.position_N[rows].tolist())

    def _give_up(self, draft: Draft, row: int) -> None:
        last = self._bad.note_known(int(draft.position_N[row]), draft.epoch)
        raise ImageError(
            last.reason,
            f"{last.key} in split {self._planner.view.split} and {ATTEMPTS} samples drawn before it are bad: "
            f"{last.detail}; run `imgdata verify` on the folder",
        )
