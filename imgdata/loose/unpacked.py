"""Images inside arrays or tables -> one file in the cache folder, in which each lies byte for byte."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from imgdata.devices import own_cores
from imgdata.errors import ImageError, OptionError
from imgdata.loose.headers import HeaderColumns, info_of
from imgdata.loose.places import ImagePlaces, Places
from imgdata.loose.progress import report
from imgdata.sample import SampleRef
from imgdata.sources.listing import Listing
from imgdata.sources.reading import read_sample
from imgdata.storage.atomic import output_error
from imgdata.storage.cache_folder import cache_limit, make_room
from imgdata.storage.file_names import escape_name
from imgdata.storage.file_state import file_state

_CHUNK = 256
_ROW_BYTES = 64


def unpack(listing: Listing, path: Path, columns: HeaderColumns, root: Path) -> Places:
    """Write all images of a listing into the file `path`, whole or not at all; return where they lie in it.

    Raises `OptionError` where the cache folder may not hold them, `SourceError`, and `OutputError`.
    """
    expected = int(listing.size_N.sum())
    if not make_room(expected):
        raise OptionError(
            f"{root}: its images lie in no files of their own ({listing.kind}), and unpacking them takes about "
            f"{expected / 1e9:.1f} GB in the cache folder, which may hold {cache_limit() / 1e9:.1f}: run "
            f"`imgdata shard {root} OUT` and give OUT, or raise IMGDATA_CACHE_GB"
        )
    # In the order of the source: a row group of Parquet is unpacked once.
    order_N = np.lexsort((listing.offset_N, listing.container_N))
    offset_N, size_N = np.zeros(len(listing), np.int64), np.zeros(len(listing), np.int64)
    temporary = path.with_suffix(".tmp")
    try:
        with open(temporary, "wb") as file:
            at = 0
            for row, data in _read_all(listing, order_N):
                columns.put(row, info_of(data))
                offset_N[row], size_N[row] = at, len(data)
                at += file.write(data)
            file.flush()
            # The index that names this state comes to disk: after a power cut it must not stand for images that don't.
            os.fsync(file.fileno())
            state = file_state(os.fstat(file.fileno()))
        os.replace(temporary, path)
    except OSError as error:
        raise output_error(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)
    pictures = ImagePlaces(
        file_N=np.zeros(len(listing), np.int32),
        offset_N=offset_N,
        size_N=size_N,
        state_N=np.zeros(len(listing), np.int64),
        path_N=pa.chunked_array([pa.repeat("", len(listing))]),
    )
    return Places(pictures=pictures, members={}, archives=((escape_name(os.path.abspath(path)), state),))


def _read_all(listing: Listing, order_N: NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
    """Yield rows and their images, in an order; encoded by as many threads as there are cores."""

    def read(ref: SampleRef) -> bytes:
        try:
            return read_sample(listing.reader, ref)
        except ImageError:
            # It has a place, so that it is counted; a loader finds that it is bad.
            return b""

    with ThreadPoolExecutor(len(own_cores())) as pool:
        for start in range(0, len(order_N), _CHUNK):
            row_K = order_N[start : start + _CHUNK]
            yield from zip(row_K.tolist(), pool.map(read, listing.refs(row_K)), strict=True)
            report("unpacking images", start + len(row_K), len(order_N))
