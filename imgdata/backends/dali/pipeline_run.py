"""Samples of one batch -> their bytes, who decodes them, and what became of each: one run through the pipeline."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgdata import native
from imgdata.backends.dali.geometry import PLACEHOLDER_SIDE, Shape, geometry
from imgdata.backends.dali.pipeline import GraphSpec
from imgdata.backends.dali.undecodable import Known
from imgdata.backends.pillow import crop
from imgdata.backends.protocol import BackendSetup, BatchRequest
from imgdata.backends.shard_files import Lease, ShardFiles
from imgdata.backends.workers import Threads
from imgdata.errors import ImageError
from imgdata.images.jpeg import has_plain_header, is_stored_as_rgb
from imgdata.images.probe import probe

_READ_ROWS = 16
"""Rows that a thread reads at a time."""
_MODES = ("L", "RGB")
_END = b"\xff\xd9"


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Means:
    """What a backend gives each of its parts. Nothing here references the backend, which parts must not keep alive."""

    setup: BackendSetup
    spec: GraphSpec
    files: ShardFiles
    known: Known
    """Pictures that DALI is known not to decode."""
    readers: Callable[[], Threads]
    """Returns the threads that read, and that cut the rows of the host."""
    enqueue: Callable[["Part"], None]
    """Gives a part whose bytes were read to the pipeline."""


class Part:
    """Rows on their way through the pipeline. Those that DALI doesn't take are cut on the host meanwhile.

    What becomes of a row depends on its own bytes and parameters alone, never on its neighbours.
    """

    def __init__(self, means: Means, work: BatchRequest, done: Callable[["Part"], None]) -> None:
        """Prepare the part; `done` is called once, by any thread, when all rows are made or the part has failed."""
        count = len(work.position_N)
        self.work = work
        self.failed: dict[int, ImageError] = {}
        """Rows that neither DALI nor the host could decode."""
        self.windows: dict[int, NDArray[np.uint8]] = {}
        """What the host has cut, uint8 `(H, W, 3)`, by row."""
        self.pixels: Any = None
        """DALI's tensor. Rows that it didn't get show anything."""
        self.fault: BaseException | None = None
        self.cancelled = False
        self.was_rerun = False
        """Whether it failed before though each of its rows could be decoded alone."""
        self._means, self._done = means, done
        self._data: list[bytes] = [b""] * count
        self._slices: dict[int, tuple[bytes, int, int]] = {}
        """Small JPEGs of the parts that rows need, and where these begin in the picture: left, top."""
        self._places: tuple[NDArray[Any], NDArray[Any]] | None = None
        self._by_dali_N = ~work.skip_N
        self._lease: Lease | None = None
        self._lock = threading.Lock()
        self._to_read = -(-count // _READ_ROWS)
        # The pipeline; rows of the host are added.
        self._left = 1
        self._ended = False

    # --- before the pipeline -----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Open the shards, and let threads read the bytes."""
        self._guarded(self._begin)

    def _begin(self) -> None:
        self._lease = self._means.files.lease(self.work.position_N)
        if native.AVAILABLE:
            arrays = geometry(self.work.params, self.work.skip_N, self._means.spec.shape)
            self._places = arrays["anchor"], arrays["extent"]
        for first in range(0, len(self._data), _READ_ROWS):
            self._means.readers().submit(partial(self._guarded, partial(self._read_rows, first)))

    def inputs(self, shape: Shape, rows: slice = slice(None)) -> tuple[list[NDArray[np.uint8]], dict[str, Any]]:
        """Return the pipeline's inputs for `rows`: their bytes, not copied, and arrays by name."""
        encoded = [
            np.frombuffer(self._bytes_of(row) if self._by_dali_N[row] else _PLACEHOLDER, np.uint8)
            for row in range(*rows.indices(len(self._data)))
        ]
        return encoded, {name: array[rows] for name, array in self._arrays(~self._by_dali_N, shape).items()}

    def _bytes_of(self, row: int) -> bytes:
        return self._slices[row][0] if row in self._slices else self._data[row]

    def _arrays(self, placeholder_N: NDArray[np.bool_], shape: Shape) -> dict[str, NDArray[np.generic]]:
        """Return the pipeline's inputs but for the bytes, by name."""
        params = self.work.params
        arrays = geometry(params, placeholder_N, shape)
        for row, (_, left, top) in self._slices.items():
            if not placeholder_N[row]:
                arrays["anchor"][row] -= (left, top)
        if self._means.spec.flips:
            arrays["flip"] = params.flip_N.astype(np.int32)
        if self._means.spec.vflips:
            arrays["vflip"] = params.vflip_N.astype(np.int32)
        return arrays

    def _read_rows(self, first: int) -> None:
        for row in range(first, min(first + _READ_ROWS, len(self._data))):
            if self._by_dali_N[row]:
                self._read(row)
        with self._lock:
            self._to_read -= 1
            last = not self._to_read
        if last:
            self._means.enqueue(self)

    def _read(self, row: int) -> None:
        position = int(self.work.position_N[row])
        assert self._lease is not None
        self._data[row] = data = self._means.files.read(self._lease, row)
        known, error = self._means.known.at(position, data)
        if error is not None:
            self._fail(row, error)
        elif known or not self._suits_dali(position, data):
            self._to_host(row)
        elif self._places is not None:
            self._slice(row, position)

    def _slice(self, row: int, position: int) -> None:
        """Cut the segments that the row needs out of a crop-ready file: fewer bytes to copy and to decode."""
        assert self._places is not None
        (left, top), (width, height) = (array_N2[row].tolist() for array_N2 in self._places)
        index = self._means.setup.split.index
        size = int(index.width_N[position]), int(index.height_N[position])
        part = native.slice_jpeg(self._data[row], size, (left, top, left + width, top + height))
        if part is not None:
            self._slices[row] = part

    def _suits_dali(self, position: int, data: bytes) -> bool:
        """Return whether DALI makes the right pixels of these bytes, as far as their header and their end show.

        Of others the host says what is wrong. DALI takes any size for granted, and fills up what is cut off.
        """
        index = self._means.setup.split.index
        try:
            info = probe(data)
        except ImageError:
            return False
        size = int(index.width_N[position]), int(index.height_N[position])
        return (
            info.format == "jpeg"
            and info.mode in _MODES
            and info.bits == 8
            and (info.width, info.height) == size
            and data.endswith(_END)
            # nvImageCodec 0.9.0 ended the process in most runs with stray bytes between segments of a header.
            and has_plain_header(data)
            # nvImageCodec takes three components for YCbCr; libjpeg, by which it decodes on the processor, looks.
            and (self._means.spec.device_id is None or not is_stored_as_rgb(data))
            and index.words("format")[index.array("format")[position]] == "jpeg"
        )

    # --- rows of the host --------------------------------------------------------------------------------------

    def _to_host(self, row: int) -> None:
        self._by_dali_N[row] = False
        with self._lock:
            self._left += 1
        self._means.readers().submit(partial(self._guarded, partial(self._cut_row, row)))

    def _cut_row(self, row: int) -> None:
        self._take(row, self.cut_on_host(row))
        self._one_less()

    def _take(self, row: int, made: NDArray[np.uint8] | ImageError) -> None:
        if isinstance(made, ImageError):
            self._fail(row, made)
        else:
            self.windows[row] = made

    def cut_on_host(self, row: int) -> NDArray[np.uint8] | ImageError:
        """Return a row's window, made on the host, or what is wrong with the picture."""
        setup = self._means.setup
        index, position = setup.split.index, int(self.work.position_N[row])
        try:
            return crop.cut(
                self._data[row],
                size=(int(index.width_N[position]), int(index.height_N[position])),
                format=index.words("format")[index.array("format")[position]],
                params=self.work.params,
                row=row,
                recipe=setup.options.recipe,
                max_pixels=setup.max_pixels,
            )
        except ImageError as error:
            # Its traceback would hold the part, which holds it.
            return error.with_traceback(None)

    def _fail(self, row: int, error: ImageError) -> None:
        self._by_dali_N[row] = False
        self.failed[row] = error

    # --- behind the pipeline -----------------------------------------------------------------------------------

    def deliver(self, pixels: Any) -> None:
        """Take the pipeline's pixels of all rows that it was given."""
        self.pixels = pixels
        self._one_less()

    def placeholders(self, shape: Shape, count: int) -> tuple[list[NDArray[np.uint8]], dict[str, Any]]:
        """Return the pipeline's inputs for `count` rows that show nothing."""
        arrays = self._arrays(np.ones(len(self._data), np.bool_), shape)
        encoded = [np.frombuffer(_PLACEHOLDER, np.uint8)] * count
        return encoded, {name: np.repeat(array[:1], count, axis=0) for name, array in arrays.items()}

    def stand_in(self, row: int) -> bytes:
        """Return a good JPEG of the size of the row's picture."""
        index, position = self._means.setup.split.index, int(self.work.position_N[row])
        return _jpeg(int(index.width_N[position]), int(index.height_N[position]))

    def rows_by_dali(self) -> NDArray[np.int64]:
        """Return the rows whose bytes the pipeline gets."""
        return np.flatnonzero(self._by_dali_N)

    def refuse(self, row: int, made: NDArray[np.uint8] | ImageError, *, remember: bool) -> None:
        """Take what the host made of a row that DALI can't decode; `remember` it, so that DALI never gets it again."""
        self._take(row, made)
        self._by_dali_N[row] = False
        if remember:
            self._means.known.note(int(self.work.position_N[row]), self._data[row], self.failed.get(row))

    def fail(self, fault: BaseException) -> None:
        """End the part with `fault`."""
        self.fault = fault
        self._end()

    def cancel(self) -> None:
        """Stop as soon as possible. Takes no lock: the collector may call this in a thread that holds it."""
        self.cancelled = True

    def _one_less(self) -> None:
        with self._lock:
            self._left -= 1
            last = not self._left
        if last:
            self._end()

    def _end(self) -> None:
        with self._lock:
            first, self._ended = not self._ended, True
        if first:
            self._done(self)

    def _guarded(self, task: Callable[[], None]) -> None:
        try:
            if not (self.cancelled or self.fault):
                task()
        except BaseException as error:  # Any error is raised by `wait`, where the batch is needed.
            self.fail(error)


def _jpeg(width: int, height: int) -> bytes:
    file = BytesIO()
    Image.new("RGB", (width, height)).save(file, "JPEG")
    return file.getvalue()


_PLACEHOLDER = _jpeg(PLACEHOLDER_SIDE, PLACEHOLDER_SIDE)


def failures(part: Part, row_N: NDArray[np.int64]) -> Mapping[int, ImageError]:
    """Return the rows of the batch that failed, where the part's are `row_N`."""
    return {int(row_N[number]): error for number, error in sorted(part.failed.items())}
