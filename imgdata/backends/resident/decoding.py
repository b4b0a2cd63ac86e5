"""A split and what is kept of each picture -> its pixels, some pictures at a time, by the CPU backend."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from imgdata.augment.mix import mix_params
from imgdata.augment.params import params
from imgdata.backends.cpu.backend import CpuBackend
from imgdata.backends.protocol import BackendSetup, BatchRequest, PendingBatch
from imgdata.backends.resident.window import Kept, usable
from imgdata.errors import ImageError

Bad = dict[int, ImageError]
"""Position in the split -> why the picture can't be used."""
Put = Callable[[int, NDArray[np.uint8]], None]
"""Takes a position and the pixels of the pictures from there on, uint8 `(M, height, width, C)`."""

PART_BYTES = 2**24
"""Pixels that are made, read or written at a time."""
_AHEAD = 2
"""Parts in work behind the one that is waited for, so that threads never run out of pictures."""


def decode(setup: BackendSetup, window: Kept, put: Put) -> Bad:
    """Give all pictures to `put`, in order, bad ones black; returns those. Raises `ShardError`."""
    options = replace(setup.options, recipe=window.recipe, device="cpu", dtype="uint8", channels_last=True)
    backend = CpuBackend(replace(setup, options=options, pinned=False, buffers=_AHEAD + 2))
    usable_N = usable(setup)
    bad = {position: _unusable(setup, position) for position in np.flatnonzero(~usable_N).tolist()}
    begun: deque[tuple[int, PendingBatch]] = deque()
    try:
        for first, last in parts(len(setup.split), window):
            position_M = np.arange(first, last)
            begun.append((first, backend.start(_work(setup, window, position_M, ~usable_N[position_M]))))
            if len(begun) > _AHEAD:
                _finish(*begun.popleft(), bad, put)
        while begun:
            _finish(*begun.popleft(), bad, put)
    finally:
        backend.close()
    return bad


def parts(count: int, window: Kept) -> Iterator[tuple[int, int]]:
    """Begin and end of each part of `count` pictures that is done at a time."""
    step = max(1, min(1024, PART_BYTES // (window.height * window.width * window.channels)))
    return ((first, min(first + step, count)) for first in range(0, count, step))


def _work(setup: BackendSetup, window: Kept, position_M: NDArray[np.int64], skip_M: NDArray[np.bool_]) -> BatchRequest:
    index = setup.split.index
    # Of what is skipped the size may be unknown; this one fits.
    width_M = np.where(skip_M, window.width, index.width_N[position_M])
    height_M = np.where(skip_M, window.height, index.height_N[position_M])
    return BatchRequest(
        epoch=0,
        params=params(window.recipe, width_M, height_M, seed=0, epoch=0, position_N=position_M),
        position_N=position_M,
        skip_N=skip_M,
        mix=mix_params(window.recipe, len(position_M), seed=0, epoch=0, offset=0),
    )


def _finish(first: int, pending: PendingBatch, bad: Bad, put: Put) -> None:
    bad.update({first + row: error for row, error in pending.wait().items()})
    put(first, pending.images().permute(0, 2, 3, 1).numpy())


def _unusable(setup: BackendSetup, position: int) -> ImageError:
    width, height = int(setup.split.index.width_N[position]), int(setup.split.index.height_N[position])
    if width < 1 or height < 1:
        return ImageError("not-an-image", "the index has no size of it: its header could not be read")
    return ImageError("too-large", f"{width} x {height} pixels, the limit is {setup.max_pixels} (max_pixels)")
