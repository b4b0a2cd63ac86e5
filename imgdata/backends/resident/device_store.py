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
    """All pictures in one tensor, uint8 `(N, H, W, 3)`. Works on any device; safe in threads once filled."""

    def __init__(self, setup: BackendSetup, window: Kept) -> None:
        """Take the memory; `put` fills it."""
        self._setup, self._window = setup, window
        self._device = torch.device(setup.options.device)
        self._dtype: torch.dtype = getattr(torch, setup.options.dtype)
        shape = (len(setup.split), window.height, window.width, 3)
        self._pixels_NHWC = torch.empty(shape, dtype=torch.uint8, device=self._device)

    def put(self, first: int, pixels_NHWC: NDArray[np.uint8]) -> None:
        """Keep the pictures from position `first` on."""
        self._pixels_NHWC[first : first + len(pixels_NHWC)] = torch.from_numpy(pixels_NHWC).to(self._device)

    def make(self, work: BatchRequest) -> torch.Tensor:
        """Return the batch `(N, C, H, W)`, all but mixed; rows to skip are black."""
        options, params = self._setup.options, work.params
        images = torch_ops.apply(self._windows(work), params, options.recipe)
        scale_3, shift_3 = postprocess.scale_shift(options.recipe)
        images = torch_ops.normalise(images, scale_3, shift_3, self._dtype, options.channels_last)
        images = torch_ops.erase(images, params, options.recipe, options.seed, work.epoch)
        if work.skip_N.any():
            row_R, black_311 = upload(
                [np.flatnonzero(work.skip_N), postprocess.black(options.recipe, options.dtype)],
                self._device,
            )
            images[row_R] = black_311.to(self._dtype)
        return images

    def _windows(self, work: BatchRequest) -> torch.Tensor:
        """Return the flipped windows, uint8 `(N, 3, H, W)`, in memory N, H, W, C."""
        params, window = work.params, self._window
        row_NH, left_N = places(params, window)
        place_NW = left_N[:, None] - window.padding + np.arange(params.width)
        column_NW = mirrored_or_outside(place_NW, window.width, window.mirrored)
        column_NW = np.where(params.flip_N[:, None], column_NW[:, ::-1], column_NW)
        position_N, row, column = upload([work.position_N, row_NH, column_NW], self._device)
        row, column = row[:, :, None], column[:, None, :]
        images = self._pixels_NHWC[position_N[:, None, None], row.clamp(min=0), column.clamp(min=0)]
        if (row_NH < 0).any() or (column_NW < 0).any():
            images.masked_fill_(((row < 0) | (column < 0)).unsqueeze(3), 0)
        return images.permute(0, 3, 1, 2)


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
