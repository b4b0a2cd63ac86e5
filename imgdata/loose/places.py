"""A listing -> where each image lies byte for byte: a file or a range of an archive; with the files' states.

Columns, whatever the number of images; references to samples exist for some thousand at a time.
"""

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from imgdata import native
from imgdata.arrow import text_array
from imgdata.errors import SourceError
from imgdata.sample import SampleRef
from imgdata.sources.listing import Listing
from imgdata.sources.readers import LEADS_NOWHERE, PlainReader
from imgdata.storage.file_names import escape_name, unescape_name
from imgdata.storage.file_state import file_state, states_of, steady_inodes

CHUNK = 16_384
"""Rows whose references are held at a time."""
THREADS = 8
"""Threads that ask the system: a network file system answers each after a while, a local one holds Python's lock."""
OWN = -1
"""Number of the archive of an image that is a file of its own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ImagePlaces:
    """Where one image of each sample lies, row by row."""

    file_N: NDArray[np.int32]
    """Number of the image's archive, or `OWN`."""
    offset_N: NDArray[np.int64]
    size_N: NDArray[np.int64]
    state_N: NDArray[np.int64]
    """What `file_state` says of a file that is an image; 0 in archives, and for files that are not there."""
    path_N: pa.ChunkedArray
    """Names of the files that are images, relative to the dataset where they are in it, escaped; empty where that is
    the sample's name, and for a sample without this image."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Places:
    """Where the images of a listing lie."""

    pictures: ImagePlaces
    members: Mapping[str, ImagePlaces]
    """Further images by name."""
    archives: tuple[tuple[str, int], ...]
    """Names of the archives, relative to the dataset where they are in it, escaped, and their states."""


def find_places(listing: Listing, root: Path) -> Places:
    """Return the places of all images of a listing whose reader is a `PlainReader`. Raises `SourceError`."""
    reader = listing.reader
    assert isinstance(reader, PlainReader)
    number_of: dict[str, int] = {}
    before = beginning(root)
    pictures = _places(reader, listing.refs, listing.size_N, before, number_of)
    members = {
        columns.member.name: _places(reader, columns.refs, columns.size_N, before, number_of, has_names=False)
        for columns in listing.members
    }
    archives = tuple((escape_name(_below(path, before)), state_of(path)) for path in number_of)
    return Places(pictures=pictures, members=members, archives=archives)


def _places(
    reader: PlainReader,
    refs: Callable[[NDArray[np.int64]], Iterable[SampleRef]],
    all_size_N: NDArray[np.int64],
    before: str,
    number_of: dict[str, int],
    *,
    has_names: bool = True,
) -> ImagePlaces:
    """Return the places of one image of each sample, and count archives in `number_of`.

    `before` is what the paths of files in the dataset begin with. With `has_names` the index has the names of `refs`.
    """
    parts: list[tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]] = []
    texts: list[pa.Array] = []
    sizes: list[NDArray[np.int64]] = []
    with ThreadPoolExecutor(THREADS) as pool:
        for row_K in chunks(len(all_size_N)):
            file_K = np.full(len(row_K), OWN, np.int32)
            offset_K = np.zeros(len(row_K), np.int64)
            own: list[str] = []
            names: list[str] = []
            for place, ref in enumerate(refs(row_K)):
                if not ref.name:
                    own.append("")
                    names.append("")
                    continue
                path, start = path_of(reader, ref), reader.start(ref)
                if start is None:
                    own.append(path)
                    inside = _below(path, before)
                    named = has_names and inside == unescape_name(ref.name)
                    names.append("" if named else escape_name(inside))
                else:
                    file_K[place], offset_K[place] = number_of.setdefault(path, len(number_of)), start
                    names.append("")
            size_K = all_size_N[row_K].copy()
            state_K = np.zeros(len(row_K), np.int64)
            own_K = file_K == OWN
            size_K[own_K], state_K[own_K] = states(own, pool)
            parts.append((file_K, offset_K, state_K))
            sizes.append(size_K)
            texts.append(text_array(names))
    return ImagePlaces(
        file_N=np.concatenate([part[0] for part in parts]),
        offset_N=np.concatenate([part[1] for part in parts]),
        size_N=np.concatenate(sizes),
        state_N=np.concatenate([part[2] for part in parts]),
        path_N=pa.chunked_array(texts, pa.string()),
    )


def beginning(root: Path) -> str:
    """Return what the paths of files in a dataset begin with."""
    return "" if root == Path() else os.fspath(root) + os.sep


def _below(path: str, before: str) -> str:
    """Return a path relative to the dataset, which paths in it begin with; the whole path of a file outside of it.

    A dataset that is one file, such as a table or a tar, holds none.
    """
    return path.removeprefix(before) if path.startswith(before) else os.path.abspath(path)


def path_of(reader: PlainReader, ref: SampleRef) -> str:
    """Return the path of the file that holds `ref`."""
    path = reader.file(ref)
    assert path is not None
    return os.fspath(path)


def chunks(count: int, chunk: int = CHUNK) -> Iterator[NDArray[np.int64]]:
    """Yield all rows, some thousand at a time."""
    for start in range(0, count, chunk):
        yield np.arange(start, min(start + chunk, count))


def states(paths: Sequence[str], pool: ThreadPoolExecutor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return sizes and states of files, int64 `(K,)` both; 0 and 0 where there is no file. Raises `SourceError`."""
    step = max(64, -(-len(paths) // THREADS))
    found = pool.map(_states, [paths[start : start + step] for start in range(0, len(paths), step)])
    parts = [np.array(part, np.int64).reshape(-1, 2) for part in found]
    both_K2 = np.concatenate(parts) if parts else np.zeros((0, 2), np.int64)
    return both_K2[:, 0], both_K2[:, 1]


def state_of(path: str) -> int:
    """Return the state of a file or folder, 0 where it is not there. Raises `SourceError`."""
    return _states([path])[0][1]


def _states(paths: Sequence[str]) -> list[tuple[int, int]]:
    """Return size and state of each file, by one call of the extension where it is there and none has a fault."""
    found_N7 = native.stat_files(paths) if native.AVAILABLE else None
    if found_N7 is not None and np.isin(found_N7[:, 0], [0, *LEADS_NOWHERE]).all():
        size_N, mtime_N, _, inode_N, device_N = found_N7[:, 2:].T
        states = states_of(size_N, mtime_N, steady_inodes(inode_N, device_N))
        lost_N = found_N7[:, 0] != 0
        rows = zip(lost_N.tolist(), size_N.tolist(), states, strict=True)
        return [(0, 0) if lost else (size, state) for lost, size, state in rows]
    found = []
    for path in paths:
        try:
            info = os.stat(path)
        except OSError as error:
            if error.errno not in LEADS_NOWHERE:
                raise unreadable(path, error) from error
            found.append((0, 0))
        else:
            found.append((info.st_size, file_state(info)))
    return found


def unreadable(path: str, error: OSError) -> SourceError:
    """Return what to raise for a file that the system can't read."""
    reason = error.strerror or str(error)
    shown = escape_name(path)
    if error.errno in (errno.EACCES, errno.EPERM):
        return SourceError(f"{shown}: may not be read ({reason}); make it readable, or leave it out with exclude=")
    if error.errno in LEADS_NOWHERE:
        return SourceError(f"{shown}: was listed and is gone ({reason}); open the folder again")
    return SourceError(f"{shown}: can't be read: {reason}")
