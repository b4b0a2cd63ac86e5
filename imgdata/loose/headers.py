"""Places of images -> what their headers say: the beginning of each file is read, in threads."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imgdata.errors import ImageError
from imgdata.images.info import UNKNOWN, ImageInfo
from imgdata.images.pillow import heard_warnings
from imgdata.images.probe import looks_like_an_image, probe
from imgdata.loose.places import OWN, THREADS, Places, chunks, path_of, unreadable
from imgdata.loose.progress import report
from imgdata.sources.listing import Listing
from imgdata.sources.readers import LARGE_BYTES, PlainReader
from imgdata.storage.atomic import FilePool, pread
from imgdata.storage.file_names import unescape_name
from imgdata.storage.reading import open_regular

_HEAD_BYTES = 8192
"""Bytes that hold the header of nearly every JPEG; of others all is read."""
_JPEG = b"\xff\xd8"
_CHUNK = 2048


@dataclass(frozen=True, kw_only=True, eq=False)
class Headers:
    """What the header of each image says; format `unknown` and no size where it can't be read as one."""

    width_N: NDArray[np.int32]
    height_N: NDArray[np.int32]
    orientation_N: NDArray[np.uint8]
    mode_N: NDArray[np.int16]
    format_N: NDArray[np.int16]
    words: list[str]
    """Words that modes and formats are numbers of."""


class HeaderColumns:
    """Builder of `Headers`, row by row in any order."""

    def __init__(self, count: int) -> None:
        self._side_N2 = np.zeros((count, 2), np.int32)
        self._orientation_N = np.zeros(count, np.uint8)
        self._word_N2 = np.zeros((count, 2), np.int16)
        self._words: dict[str, int] = {}

    def put(self, row: int, info: ImageInfo) -> None:
        """Set the facts of a row."""
        self._side_N2[row] = info.width, info.height
        self._orientation_N[row] = info.orientation
        code = self._words
        self._word_N2[row] = (
            code.setdefault(info.mode, len(code)),
            code.setdefault(info.format, len(code)),
        )

    def done(self) -> Headers:
        """Return the columns."""
        return Headers(
            width_N=self._side_N2[:, 0],
            height_N=self._side_N2[:, 1],
            orientation_N=self._orientation_N,
            mode_N=self._word_N2[:, 0],
            format_N=self._word_N2[:, 1],
            words=list(self._words),
        )


def read_headers(
    listing: Listing, places: Places, root: Path, columns: HeaderColumns, row_N: NDArray[np.int64]
) -> None:
    """Put what the headers of the rows `row_N` of a listing say into `columns`. Raises `SourceError`."""
    reader, pictures = listing.reader, places.pictures
    assert isinstance(reader, PlainReader)
    pool = FilePool([root / unescape_name(name) for name, _ in places.archives])

    def read(chunk: NDArray[np.int64]) -> list[ImageInfo]:
        row_K = row_N[chunk]
        found = []
        with heard_warnings():
            for row, ref in zip(row_K.tolist(), listing.refs(row_K), strict=True):
                path = path_of(reader, ref)
                size, offset = int(pictures.size_N[row]), int(pictures.offset_N[row])
                archive = int(pictures.file_N[row])
                try:
                    if archive == OWN:
                        found.append(_of_file(path, size) if pictures.state_N[row] else UNKNOWN)
                    else:
                        found.append(_info(partial(pool.read, archive, offset), size))
                except OSError as error:
                    raise unreadable(path, error) from error
        return found

    with ThreadPoolExecutor(THREADS) as threads:
        for chunk in _batched(list(chunks(len(row_N), _CHUNK)), 4 * THREADS):
            for part, infos in zip(chunk, threads.map(read, chunk), strict=True):
                for row, info in zip(row_N[part].tolist(), infos, strict=True):
                    columns.put(row, info)
                report("reading headers", int(part[-1]) + 1, len(row_N))


def _batched(parts: Sequence[NDArray[np.int64]], count: int) -> list[Sequence[NDArray[np.int64]]]:
    return [parts[start : start + count] for start in range(0, len(parts), count)]


def _of_file(path: str, size: int) -> ImageInfo:
    descriptor = open_regular(path)
    try:
        return _info(lambda count: pread(descriptor, count, 0), size)
    finally:
        os.close(descriptor)


def _info(read: Callable[[int], bytes], size: int) -> ImageInfo:
    """Return what an image of `size` bytes is, of which `read` gives the first ones; `UNKNOWN` for a bad one."""
    head = read(min(size, _HEAD_BYTES))
    if len(head) < size and head.startswith(_JPEG):
        with suppress(ImageError):
            return probe(head)
    if len(head) < size and size > LARGE_BYTES and not looks_like_an_image(head):
        return UNKNOWN
    return info_of(head if len(head) == size else read(size))


def info_of(data: bytes) -> ImageInfo:
    """Return what the header of an image says; `UNKNOWN` for a bad one."""
    try:
        return probe(data)
    except ImageError:
        return UNKNOWN
