"""JPEGs of a batch -> pixels, by the threads of the compiled extension."""

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from imgdata import native
from imgdata.augment.params import BatchParams
from imgdata.backends.pillow import operators
from imgdata.backends.postprocess import scale_shift
from imgdata.backends.protocol import BackendSetup, BatchRequest
from imgdata.backends.shard_files import Lease, ShardFiles
from imgdata.dataset.members import member_columns
from imgdata.recipes.recipe import Recipe

_PICTURE = ("offset", "size", "format")
CHANNELS = (1, 3)
"""Channels of the batches that the extension makes."""


def uses_native(setup: BackendSetup) -> bool:
    """Return whether the compiled extension decodes: it was built, its rounding is fine, it makes such batches."""
    options = setup.options
    return native.AVAILABLE and not options.exact and options.channels in CHANNELS and options.dtype != "uint16"


def needs_windows(setup: BackendSetup) -> bool:
    """Return whether the extension's pixels need a place of their own, in bytes, for operators that come after it.

    A batch of bytes in their order is itself the place.
    """
    in_place = setup.options.dtype == "uint8" and setup.options.channels_last
    return uses_native(setup) and operators.works_on_pixels(setup.options.recipe) and not in_place


def crops_of(recipe: Recipe, images: NDArray[np.generic], params: BatchParams, *, planar: bool) -> native.Crops:
    """Return what the extension is told of one view, whose `images` are `(N, C, H, W)` if `planar`."""
    scale_3, shift_3 = scale_shift(recipe, images.shape[1 if planar else 3])
    return native.Crops(
        images,
        planar,
        box_N4=params.box_N4,
        resized_N2=params.resized_N2,
        offset_N2=params.offset_N2,
        flip_N=params.flip_N,
        vflip_N=params.vflip_N,
        bicubic=recipe.resampling == "bicubic",
        mirrored_margins=recipe.mirrors_margins,
        scale_3=scale_3,
        shift_3=shift_3,
    )


class NativeRows:
    """The compiled extension: which samples it may make, and its threads."""

    def __init__(self, setup: BackendSetup, member: str = "") -> None:
        """Start its threads. With the name of a `member` that further image of the samples is made."""
        index = setup.split.index
        self._offset, self._size, self._format, *_ = member_columns(member) if member else _PICTURE
        index.load(("shard", self._offset, self._size, "width", "height", self._format, "mode"))
        self._index = index
        self._jpeg_F = np.array([word == "jpeg" for word in index.words(self._format)])
        # The index has no modes of further images: the extension leaves what it does not make.
        self._plain_M = np.array([bool(member) or word in ("L", "RGB") for word in index.words("mode")])
        self._pool = native.Pool(setup.options.threads)

    def among(self, position_N: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which samples the extension may make, bool `(N,)`: JPEGs in colour or gray."""
        jpeg_N = self._jpeg_F[self._index.array(self._format)[position_N]]
        plain_N = self._plain_M[self._index.array("mode")[position_N]]
        fit_N: NDArray[np.bool_] = jpeg_N & plain_N
        return fit_N

    def start(
        self,
        views: Sequence[native.Crops],
        work: BatchRequest,
        lease: Lease,
        number_M: NDArray[np.int64],
        row_M: NDArray[np.int64],
        place_M: NDArray[np.int64] | None = None,
    ) -> "NativeJob":
        """Begin samples `number_M` of `work` in rows `row_M` of the images of each view; `crops_of` makes `views`.

        `place_M` are their places in a lease that is not one of all samples of `work`.
        """
        position_M = work.position_N[number_M]
        index, place_M = self._index, number_M if place_M is None else place_M
        job = self._pool.submit(
            **views[0]._asdict(),
            more=views[1:],
            row_M=number_M,
            target_M=row_M,
            file_M=lease.file_N[place_M],
            byte_M=index.array(self._offset)[position_M] + lease.shift_N[place_M],
            size_M=index.array(self._size)[position_M],
            source_M2=np.stack([index.width_N[position_M], index.height_N[position_M]], axis=1).astype(np.int64),
        )
        return NativeJob(job, lease, position_M)

    def close(self) -> None:
        """End the threads."""
        self._pool.close()


class NativeJob:
    """Rows that the extension is making."""

    def __init__(self, job: native.Job, lease: Lease, position_M: NDArray[np.int64]) -> None:
        self._position_M = position_M
        # In this order they are let go, too: the job ends before the files may be closed.
        self._job = job
        self._lease = lease

    def wait(self, files: ShardFiles) -> NDArray[np.bool_]:
        """Wait for all rows; return which of them were made, bool `(M,)`: another decoder has to judge the others.

        Raises `ShardError` for a shard that ends too early or can't be read.
        """
        outcome_M = self._job.wait()
        done_M: NDArray[np.bool_] = outcome_M == native.DONE
        if not done_M.all():
            self._check(outcome_M, files)
        return done_M

    def cancel(self) -> None:
        """Give up what was not begun; afterwards no thread writes any more."""
        self._job.cancel()

    def _check(self, outcome_M: NDArray[np.uint8], files: ShardFiles) -> None:
        cut_short = self._position_M[outcome_M == native.CUT_SHORT]
        if len(cut_short):
            raise files.cut_short(int(cut_short[0]), self._lease.member)
        for row in np.flatnonzero(outcome_M >= native.IO_ERROR)[:1].tolist():
            code = int(outcome_M[row]) - native.IO_ERROR
            error = OSError(code, os.strerror(code))
            raise files.unreadable(int(self._position_M[row]), error, self._lease.member)
