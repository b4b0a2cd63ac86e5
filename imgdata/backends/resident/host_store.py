"""Kept pixels in the host's memory + work -> a finished batch, by NumPy in the thread that asks.

Not by PyTorch, which shares each operation out to threads of its own and waits for them: where they get no core,
since the model trains on it, that is 8 ms an operation instead of 0.1.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imgdata.backends import postprocess
from imgdata.backends.buffers import Buffers
from imgdata.backends.pillow import operators
from imgdata.backends.postprocess import erase_batch
from imgdata.backends.protocol import BackendSetup, BatchRequest
from imgdata.backends.resident.window import Kept, mirrored_or_outside, places

if TYPE_CHECKING:
    import torch

_PART_BYTES = 2**18
"""Floats that are worked on at a time: they stay in a core's own cache."""


class HostStore:
    """All pictures in one array, with margins at both sides, in the order of memory that batches have.

    A row of a window is then one piece of memory, and a batch is one gather of pieces of equal length; the margins
    above and below are other rows of the picture, or the black one behind the last. Safe in threads once filled.
    """

    def __init__(self, setup: BackendSetup, window: Kept) -> None:
        """Take the memory; `put` fills it."""
        self._options, self._window = setup.options, window
        self._planar = not setup.options.channels_last
        self._planes = window.channels if self._planar else 1
        self._pixel_bytes = 1 if self._planar else window.channels
        self._width = window.width + 2 * window.padding
        self._rows = len(setup.split) * self._planes * window.height
        # One picture's row, or one of its planes', and at the end a black one.
        self._row_RB = np.zeros((self._rows + 1, self._width * self._pixel_bytes), np.uint8)
        self._operates = operators.works_on_pixels(setup.options.recipe)
        self._buffers, self._windows_of = Buffers(keep=setup.buffers), Buffers(keep=setup.buffers)
        self._scale_3, self._shift_3 = postprocess.scale_shift(setup.options.recipe, window.channels)
        self._black_311 = postprocess.black(setup.options.recipe, setup.options.dtype, window.channels)

    def put(self, first: int, pixels_NHWC: NDArray[np.uint8]) -> None:
        """Keep the pictures from position `first` on."""
        window = self._window
        column_W = np.arange(-window.padding, window.width + window.padding)
        from_W = mirrored_or_outside(column_W, window.width, window.mirrored)
        wide = pixels_NHWC[:, :, from_W]
        wide[:, :, from_W < 0] = 0
        if self._planar:
            wide = wide.transpose(0, 3, 1, 2)
        begin = first * self._planes * window.height
        count = len(pixels_NHWC) * self._planes * window.height
        self._row_RB[begin : begin + count] = wide.reshape(count, -1)

    def make(self, work: BatchRequest) -> "torch.Tensor":
        """Return the batch `(N, C, H, W)`, all but mixed; rows to skip are black."""
        import torch

        pixels = self._windows(work)
        if self._operates:
            pixels = self._changed(pixels, work)
        if self._options.dtype != "uint8":
            pixels = self._normalised(pixels)
        batch_NCHW = pixels if self._planar else pixels.transpose(0, 3, 1, 2)
        erase_batch(batch_NCHW, work.params, self._options.recipe, seed=self._options.seed, epoch=work.epoch)
        batch_NCHW[work.skip_N] = self._black_311
        return torch.from_numpy(pixels) if self._planar else torch.from_numpy(pixels).permute(0, 3, 1, 2)

    def _windows(self, work: BatchRequest) -> NDArray[np.uint8]:
        """Return the flipped windows, uint8 `(N, C, H, W)` or `(N, H, W, C)`."""
        params = work.params
        height, width = params.height, params.width
        row_NH, left_N = places(params, self._window)
        piece = width * self._pixel_bytes
        plane_N1 = work.position_N[:, None] * self._planes + np.arange(self._planes)
        row_NPH = plane_N1[:, :, None] * self._window.height + row_NH[:, None]
        if not self._window.mirrored:
            row_NPH[np.broadcast_to(row_NH[:, None] < 0, row_NPH.shape)] = self._rows
        # Pieces may begin at any pixel, so they overlap: each is an element of its own, copied as a whole.
        begins = self._row_RB.size // self._pixel_bytes - width + 1
        piece_P: NDArray[Any] = np.ndarray(
            (begins,), dtype=f"V{piece}", buffer=self._row_RB, strides=(self._pixel_bytes,)
        )
        channels = self._window.channels
        shape = (len(params), channels, height, width) if self._planar else (len(params), height, width, channels)
        pixels = (self._buffers if self._options.dtype == "uint8" else self._windows_of).take(shape, "uint8")
        begin_P = (row_NPH * self._width + left_N[:, None, None]).reshape(-1)
        pixels.reshape(-1).view(f"V{piece}")[...] = piece_P[begin_P]
        rows = np.flatnonzero(params.flip_N)
        if len(rows):
            pixels[rows] = _mirrored(pixels[rows], planar=self._planar)
        return pixels

    def _changed(self, pixels: NDArray[np.uint8], work: BatchRequest) -> NDArray[np.uint8]:
        """Apply the operators on pixels to the windows, in place.

        By Pillow, as in the CPU backend: the same pixels.
        """
        picture_NHWC = pixels.transpose(0, 2, 3, 1) if self._planar else pixels
        for row in range(len(pixels)):
            before = picture_NHWC[row]
            after = operators.apply(before, work.params, row, self._options.recipe)
            if after is not before:
                picture_NHWC[row] = after
        return pixels

    def _normalised(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """Return each channel times its scale, plus its shift, in float32, rounded once to the batch's dtype."""
        batch = self._buffers.take(pixels.shape, self._options.dtype)
        if self._options.dtype == "float16":
            # Of 256 values rather than of all: processors are slow to make float16.
            value_V, axis = np.arange(256, dtype=np.float32), 1 if self._planar else 3
            for c, (to_NHW, from_NHW) in enumerate(
                zip(np.moveaxis(batch, axis, 0), np.moveaxis(pixels, axis, 0), strict=True)
            ):
                table_V = (value_V * self._scale_3[c] + self._shift_3[c]).astype(np.float16)
                to_NHW[...] = table_V[from_NHW]
            return batch
        # A picture as one line of numbers, each with the factor of its channel: loops of three are slow.
        layout = (-1, 1, 1) if self._planar else (1, 1, -1)
        scale_V, shift_V = (
            np.broadcast_to(values.reshape(layout), pixels.shape[1:]).reshape(-1)
            for values in (self._scale_3, self._shift_3)
        )
        from_NV, to_NV = pixels.reshape(len(pixels), -1), batch.reshape(len(pixels), -1)
        step = max(1, _PART_BYTES // (4 * to_NV.shape[1]))
        for begin in range(0, len(to_NV), step):
            part_MV = to_NV[begin : begin + step]
            np.copyto(part_MV, from_NV[begin : begin + step])
            part_MV *= scale_V
            part_MV += shift_V
        return batch


def _mirrored(pixels: NDArray[np.uint8], *, planar: bool) -> NDArray[np.uint8]:
    """Return the pictures mirrored left to right; the bytes of a pixel are moved as one element."""
    if planar:
        return pixels[..., ::-1]
    count, height, width, channels = pixels.shape
    pixel_NHW = pixels.view(f"V{channels}").reshape(count, height, width)
    return np.ascontiguousarray(pixel_NHW[:, :, ::-1]).view(np.uint8).reshape(pixels.shape)
