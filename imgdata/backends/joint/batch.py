"""Requests of a batch -> masks, further pictures, boxes and keypoints, made in threads beside the pictures.

Whatever backend makes the pictures: `BatchParams` say all of the geometry, so that it is the same here.
"""

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imgdata.augment.motion import moves_pixels
from imgdata.backends.buffers import Buffers
from imgdata.backends.cpu.native_rows import NativeRows, crops_of, uses_native
from imgdata.backends.joint import objects, pixels
from imgdata.backends.joint.objects import Objects
from imgdata.backends.joint.parts import Joint
from imgdata.backends.protocol import BackendSetup, BatchRequest, PendingBatch
from imgdata.backends.shard_files import Lease, ShardFiles
from imgdata.backends.together import PendingViews, blacken
from imgdata.backends.workers import Completion, Task, Workers
from imgdata.dataset.members import Member, member_columns
from imgdata.errors import ImageError
from imgdata.recipes.several import views_of

if TYPE_CHECKING:
    import torch

Parts = dict[str, "tuple[NDArray[Any] | list[NDArray[Any]], ...]"]
"""What moves with the pictures by name, for each view: an array, or of a field a list with an array for each sample."""
KEPT_BYTES = 2**30
"""Bytes that decoded masks may take, where they are kept."""
_LARGEST_NUMBER = 4
"""Bytes of a mask's number, at most."""
_LOOKED_AT = 16
"""Samples of a split, at most, whose headers say what batches of a member are."""


class JointBatch:
    """What moves with the pictures of one batch, of each view."""

    def __init__(self, maker: "JointMaker", works: Sequence[BatchRequest]) -> None:
        """Take memory; `begin` starts."""
        self._maker = maker
        count = len(works[0].position_N)
        self._pixels: dict[str, list[NDArray[Any]]] = {
            name: [
                maker.buffers(name, view).take((count, *form.shape(work.params.height, work.params.width)), form.dtype)
                for view, work in enumerate(works)
            ]
            for name, form in maker.forms().items()
        }
        self._objects: list[list[Objects]] = [[{}] * count for _ in works] if maker.joint.fields else []
        self._failed: dict[int, ImageError] = {}
        self._completion = Completion()
        self._lock = threading.Lock()
        self._left = 0

    def begin(self, works: Sequence[BatchRequest], row_N: NDArray[np.int64]) -> None:
        """Start the samples of `works`, in the rows `row_N` of the batch."""
        self.blank(row_N[works[0].skip_N].tolist())
        share_out, make_objects = partial(self._share_out, works, row_N), partial(self._make_objects, works, row_N)
        self._expect(bool(self._pixels) + bool(self._objects))
        if self._objects:
            self._maker.submit(partial(self._run, make_objects))
        if self._pixels and self._maker.files.fetches:
            # It waits for a store, and the caller does not.
            self._maker.submit(partial(self._run, share_out), "fetchers")
        elif self._pixels:
            self._run(share_out)

    def wait(self) -> Mapping[int, ImageError]:
        """See `PendingBatch`."""
        self._completion.wait()
        failed, self._failed = self._failed, {}
        return failed

    def cancel(self) -> None:
        """See `PendingBatch`."""
        self._completion.cancel()

    def blank(self, rows: Sequence[int]) -> None:
        """Leave nothing of the samples in `rows`: their masks have `ignore_index`, and they have no boxes."""
        forms = self._maker.forms()
        for name, views in self._pixels.items():
            for pixels_N in views:
                for row in rows:
                    pixels_N[row] = forms[name].nothing
        for found in self._objects:
            for row in rows:
                found[row] = self._maker.none

    def parts(self) -> Parts:
        """Return what was made."""
        made: Parts = {name: tuple(views) for name, views in self._pixels.items()}
        for name in self._maker.joint.fields:
            made[name] = tuple([one[name] for one in found] for found in self._objects)
        return made

    def _share_out(self, works: Sequence[BatchRequest], row_N: NDArray[np.int64]) -> None:
        """Open the files, and let threads make the rows."""
        number_M = np.flatnonzero(~works[0].skip_N)
        if not len(number_M):
            return
        position_M = works[0].position_N[number_M]
        leases = {name: self._maker.lease(name, position_M) for name in self._pixels}
        by_extension = {name: rows for name in leases if (rows := self._maker.native_rows(name)) is not None}
        others = {name: lease for name, lease in leases.items() if name not in by_extension}
        self._expect(len(by_extension) + bool(others) * len(number_M))
        for name, rows in by_extension.items():
            make_jpegs = partial(self._make_jpegs, rows, works, number_M, row_N, name, leases[name])
            self._maker.submit(partial(self._run, make_jpegs))
        for place, number in enumerate(number_M.tolist() if others else ()):
            make_row = partial(self._make_row, works, number, int(row_N[number]), others, place)
            self._maker.submit(partial(self._run, make_row))

    def _make_jpegs(
        self,
        rows: NativeRows,
        works: Sequence[BatchRequest],
        number_M: NDArray[np.int64],
        row_N: NDArray[np.int64],
        name: str,
        lease: Lease | None,
    ) -> None:
        """Make a member of samples `number_M` of `works`: JPEGs by the extension, all else one by one."""
        assert lease is not None, "masks alone are kept"
        left_M = ~rows.among(lease.position_N)
        place_J = np.flatnonzero(~left_M)
        if len(place_J):
            crops = [
                crops_of(recipe, pixels_N, work.params, planar=True)
                for recipe, pixels_N, work in zip(self._maker.recipes, self._pixels[name], works, strict=True)
            ]
            job = rows.start(crops, works[0], lease, number_M[place_J], row_N[number_M[place_J]], place_J)
            left_M[place_J] = ~job.wait(self._maker.files)
        for place in np.flatnonzero(left_M).tolist():
            number = int(number_M[place])
            self._make_row(works, number, int(row_N[number]), {name: lease}, place)

    def _make_row(
        self, works: Sequence[BatchRequest], number: int, row: int, leases: Mapping[str, Lease | None], place: int
    ) -> None:
        """Make row `row` of the batch of sample `number` of `works`, which is sample `place` of the leases."""
        for name, lease in leases.items():
            form = self._maker.forms()[name]
            try:
                windows = self._maker.windows(form, works, number, lease, place)
            except ImageError as error:
                self._fail({row: ImageError(error.reason, f"its {name}: {error.detail}")})
                return
            for pixels_N, window in zip(self._pixels[name], windows, strict=True):
                pixels_N[row] = window

    def _make_objects(self, works: Sequence[BatchRequest], row_N: NDArray[np.int64]) -> None:
        found = self._maker.read_objects(works[0])
        failed = {int(row_N[number]): one for number, one in enumerate(found) if isinstance(one, ImageError)}
        stored = [self._maker.none if isinstance(one, ImageError) else one for one in found]
        for view, work in enumerate(works):
            for row, one in zip(row_N.tolist(), self._maker.moved_objects(stored, work, view), strict=True):
                self._objects[view][row] = one
        self._fail(failed)

    def _fail(self, failed: Mapping[int, ImageError]) -> None:
        with self._lock:
            for row, error in failed.items():
                # The error's traceback would reference the batch, which references the error.
                self._failed.setdefault(row, error.with_traceback(None))

    def _expect(self, tasks: int) -> None:
        """Count so many tasks more, which have to be run before the batch is done."""
        with self._lock:
            self._left += tasks

    def _run(self, task: Task) -> None:
        """Run one task; the last one signals."""
        try:
            if not self._completion.abandoned:
                task()
        except BaseException as error:  # Any error is raised by `wait`, where the batch is needed.
            self._completion.fail(error)
        with self._lock:
            self._left -= 1
            done = not self._left
        if done:
            self._completion.signal()


class JointMaker:
    """Makes what moves with pictures, in threads of its own. Safe in threads."""

    def __init__(self, setup: BackendSetup, joint: Joint, *, keeps: bool = False) -> None:
        """Prepare; threads are started when they are first needed.

        `keeps`: decoded masks stay in memory, where they are no more than `KEPT_BYTES`.
        """
        self.joint, self._setup = joint, setup
        self.files = ShardFiles(setup.split)
        self.recipes = views_of(setup.options.recipe)
        self._workers: Workers[JointBatch] = Workers()
        self._buffers: dict[tuple[str, int], Buffers] = {}
        self._forms: dict[str, pixels.Form] | None = None
        self._native: dict[str, NativeRows] | None = None
        self._kept: dict[tuple[str, int], NDArray[Any]] | None = {} if keeps and self._keepable() else None
        self._lock = threading.RLock()
        self.none = objects.no_objects(joint)
        """The objects of a sample that has none."""

    def start(self, works: Sequence[BatchRequest]) -> JointBatch:
        """Begin what moves with a batch; there is a request for each view. Raises `ShardError`."""
        batch = self._workers.begin(lambda: JointBatch(self, works))
        batch.begin(works, np.arange(len(works[0].position_N)))
        return batch

    def submit(self, task: Task, pool: str = "joint") -> None:
        """Run `task` in a thread of a pool. Raises `OptionError` after `close`."""
        options = self._setup.options
        self._workers.pool(pool, options.threads if pool == "joint" else options.prefetch + 1).submit(task)

    def buffers(self, name: str, view: int) -> Buffers:
        """Return the memory of a member's batches."""
        with self._lock:
            return self._buffers.setdefault((name, view), Buffers(keep=self._setup.buffers))

    def forms(self) -> "dict[str, pixels.Form]":
        """Return what the batches of each member are. Raises `ShardError`."""
        with self._lock:
            if self._forms is None:
                self._forms = {member.name: self._form(member) for member in self.joint.members}
            return self._forms

    def native_rows(self, name: str) -> NativeRows | None:
        """Return the extension's threads for a member that it makes: pictures of 8 bits that are cut and resized."""
        with self._lock:
            if self._native is None:
                able = uses_native(self._setup) and not any(map(moves_pixels, self.recipes))
                self._native = {
                    one.name: NativeRows(self._setup, one.name)
                    for one in self.joint.members
                    if able and one.kind == "image" and not self.forms()[one.name].deep
                }
            return self._native.get(name)

    def lease(self, name: str, position_N: NDArray[np.int64]) -> Lease | None:
        """Return open files of a member of these samples; None where all of them are kept in memory."""
        if self._kept is not None and all((name, position) in self._kept for position in position_N.tolist()):
            return None
        return self.files.lease(position_N, name)

    def windows(
        self, form: pixels.Form, works: Sequence[BatchRequest], number: int, lease: Lease | None, place: int
    ) -> list[NDArray[Any]]:
        """Return what each view shows of the member of sample `number`. Raises `ImageError`, `ShardError`."""
        position, views = int(works[0].position_N[number]), list(zip(works, self.recipes, strict=True))
        if form.member.kind == "mask":
            value_HW = self._mask(form, position, lease, place)
            return [pixels.mask_window(value_HW, work.params, number, recipe, form) for work, recipe in views]
        assert lease is not None, "masks alone are kept"
        data, size, most = self.files.read(lease, place), self._size(position), self._setup.max_pixels
        return [
            pixels.image_window(data, work.params, number, recipe, form, size=size, max_pixels=most)
            for work, recipe in views
        ]

    def read_objects(self, work: BatchRequest) -> "list[Objects | ImageError]":
        """Return boxes and what else samples have, as stored, or what is wrong with them; of those to skip nothing."""
        found = objects.read_objects(self.joint, self._setup.split.columns, work.position_N)
        return [self.none if skip else one for one, skip in zip(found, work.skip_N.tolist(), strict=True)]

    def moved_objects(self, found: Sequence[Objects], work: BatchRequest, view: int) -> list[Objects]:
        """Return what is left of them in the output."""
        return objects.move_objects(self.joint, found, work, self.recipes[view])

    def close(self) -> None:
        """Stop all threads; may be called twice."""
        self._workers.close()
        for rows in (self._native or {}).values():
            rows.close()

    def _mask(self, form: pixels.Form, position: int, lease: Lease | None, place: int) -> NDArray[Any]:
        """Return a mask as stored, from memory where masks are kept."""
        name = (form.member.name, position)
        kept = None if self._kept is None else self._kept.get(name)
        if kept is not None:
            return kept
        assert lease is not None, "a mask that is not kept"
        data = self.files.read(lease, place)
        made = pixels.decode_mask(data, form, self._size(position), self._setup.max_pixels)
        if self._kept is not None:
            self._kept[name] = made
        return made

    def _size(self, position: int) -> tuple[int, int]:
        index = self._setup.split.index
        return int(index.width_N[position]), int(index.height_N[position])

    def _keepable(self) -> bool:
        """Return whether the masks of the split, decoded, are no more than `KEPT_BYTES`."""
        index = self._setup.split.index
        pixels_N = index.width_N.astype(np.int64) * index.height_N
        masks = sum(member.kind == "mask" for member in self.joint.members)
        return int(pixels_N.sum()) * masks * _LARGEST_NUMBER <= KEPT_BYTES

    def _form(self, member: Member) -> pixels.Form:
        """Return the form of a member by some samples from all over the split."""
        having = np.flatnonzero(self._setup.split.index.array(member_columns(member.name)[1]))
        if not len(having):
            return pixels.form_of(member, [], self.joint.ignore_index)
        place_L = np.unique(np.linspace(0, len(having) - 1, _LOOKED_AT).astype(np.int64))
        lease = self.files.lease(having[place_L], member.name)
        seen = [self.files.read(lease, number) for number in range(len(place_L))]
        return pixels.form_of(member, seen, self.joint.ignore_index)


class PendingJoint:
    """A batch of pictures, and what moves with them: `PendingBatch`, with requests for each view."""

    def __init__(
        self, pictures: PendingBatch | PendingViews, joint: JointBatch, setups: Sequence[BackendSetup]
    ) -> None:
        self._pictures, self._joint, self._setups = pictures, joint, setups
        self._bad: set[int] = set()

    def wait(self) -> Mapping[int, ImageError]:
        """See `PendingBatch`: the rows whose picture, or what moves with it, failed."""
        failed = {**self._joint.wait(), **self._pictures.wait()}
        self._bad |= set(failed)
        return failed

    def redo(self, rows: NDArray[np.int64], works: Sequence[BatchRequest]) -> Mapping[int, ImageError]:
        """See `PendingBatch`; there is a request for each view."""
        pictures = self._pictures
        self._joint.begin(works, rows)
        failed = pictures.redo(rows, works) if isinstance(pictures, PendingViews) else pictures.redo(rows, works[0])
        failed = {**self._joint.wait(), **failed}
        self._bad = (self._bad - set(rows.tolist())) | set(failed)
        return failed

    def images(self) -> "torch.Tensor | tuple[torch.Tensor, ...]":
        """Return the pixels as `PendingBatch` and `PendingViews` do; rows of which anything failed are black."""
        made = self._pictures.images()
        for images, setup in zip(made if isinstance(made, tuple) else (made,), self._setups, strict=True):
            blacken(images, sorted(self._bad), setup)
        return made

    def parts(self) -> Parts:
        """Return what moves with the pictures; there is nothing of rows of which anything failed."""
        self._joint.blank(sorted(self._bad))
        return self._joint.parts()

    def cancel(self) -> None:
        """See `PendingBatch`."""
        self._pictures.cancel()
        self._joint.cancel()
