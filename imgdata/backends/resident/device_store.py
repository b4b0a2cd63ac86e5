"""Kept pixels on a device + work -> a finished batch there, by PyTorch, as whole batches."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from imgdata.backends import postprocess, torch_ops
from imgdata.backends.protocol import BackendSetup, BatchRequest
from imgdata.backends.resident.window import Kept, mirrored_or_outside, places
from imgdata.backends.torch_ops.batched import upload


class DeviceStore:
    """The rows of all pictures in one tensor, uint8 `(N * H, W, C)`; where margins are black, one more row and column.

    Each batch is one gather of pixels, whose places the host works out: on a GPU small batches take as long as their
    operations take to begin. Works on any device; safe in threads once filled.
    """

    def __init__(self, setup: BackendSetup, window: Kept) -> None:
        """Take the memory; `put` fills it."""
        self._setup, self._window = setup, window
        self._device = torch.device(setup.options.device)
        self._dtype: torch.dtype = getattr(torch, setup.options.dtype)
        # What lies outside of a picture is there, black.
        self._outside_row, self._outside_column = len(setup.split) * window.height, window.width
        black = int(window.padding > 0 and not window.mirrored)
        shape = (self._outside_row + black, self._outside_column + black, window.channels)
        self._pixels_RWC = torch.zeros(shape, dtype=torch.uint8, device=self._device)
        # Here, and not for each batch.
        self._scale_3, self._shift_3, self._black_311 = (
            torch.from_numpy(values).to(self._device)
            for values in (
                *postprocess.scale_shift(setup.options.recipe, window.channels),
                postprocess.black(setup.options.recipe, setup.options.dtype, window.channels),
            )
        )
        self._black_311 = self._black_311.to(self._dtype)

    def put(self, first: int, pixels_NHWC: NDArray[np.uint8]) -> None:
        """Keep the pictures from position `first` on."""
        height, width = self._window.height, self._window.width
        rows = self._pixels_RWC[first * height : (first + len(pixels_NHWC)) * height, :width]
        rows.copy_(torch.from_numpy(pixels_NHWC.reshape(-1, width, self._window.channels)))

    def make(self, work: BatchRequest) -> torch.Tensor:
        """Return the batch `(N, C, H, W)`, all but mixed; rows to skip are black."""
        options, params = self._setup.options, work.params
        images = torch_ops.apply(self._windows(work), params, options.recipe)
        images = torch_ops.normalise(images, self._scale_3, self._shift_3, self._dtype, options.channels_last)
        images = torch_ops.erase(images, params, options.recipe, options.seed, work.epoch)
        if work.skip_N.any():
            (row_R,) = upload([np.flatnonzero(work.skip_N)], self._device)
            images[row_R] = self._black_311
        return images

    def _windows(self, work: BatchRequest) -> torch.Tensor:
        """Return the flipped windows, uint8 `(N, C, H, W)`, in memory N, H, W, C."""
        params, window = work.params, self._window
        row_NH, left_N = places(params, window)
        place_NW = left_N[:, None] - window.padding + np.arange(params.width)
        column_NW = mirrored_or_outside(place_NW, window.width, window.mirrored)
        column_NW = np.where(params.flip_N[:, None], column_NW[:, ::-1], column_NW)
        row_NH = np.where(row_NH < 0, self._outside_row, work.position_N[:, None] * window.height + row_NH)
        column_NW = np.where(column_NW < 0, self._outside_column, column_NW)
        row, column = upload([row_NH[:, :, None], column_NW[:, None, :]], self._device)
        return self._pixels_RWC[row, column].permute(0, 3, 1, 2)


class Lane:
    """On a GPU a stream of its own, so that nothing waits for what the training has put into its stream.

    Elsewhere work is done when the call returns, and this does nothing.
    """

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._stream: torch.cuda.Stream | None = None
        if self._device.type == "cuda":
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Let PyTorch do the block's work in the stream."""
        if self._stream is None:
            yield
            return
        with torch.cuda.stream(self._stream):
            yield

    def mark(self) -> torch.cuda.Event | None:
        """Return an event at the end of what the lane was given so far."""
        return self._stream.record_event() if self._stream is not None else None

    def hand_over(self, images: torch.Tensor, mark: torch.cuda.Event | None) -> torch.Tensor:
        """Return A tensor that is made once the lane reaches `mark`, for use in the caller's current stream."""
        if mark is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_event(mark)
            # Made in the one stream, used in the other: not to be given to others before both are through.
            images.record_stream(current)
        return images
