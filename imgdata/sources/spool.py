"""A listing whose images are slow to read in any order -> the same images in one file, and a listing of that."""

import dataclasses
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from imgdata.errors import OutputError
from imgdata.sources.listing import Listing
from imgdata.sources.member_columns import MemberColumns
from imgdata.sources.readers import RangeReader
from imgdata.sources.reading import read_sample

_ROWS = 4096


def spool(listing: Listing, path: Path) -> Listing:
    """Copy all images of `listing` into one file at `path`, row group by row group, for fast random access.

    Returns the listing with a `RangeReader` on that file. Samples keep rows, names, keys, labels and sizes; offsets
    change, and they count in `Listing.fingerprint`: a caller that compares fingerprints makes them before
    spooling. The file appears at `path` only when it is complete. Raises `OutputError` when it can't be written.
    """
    partial = path.with_name(path.name + ".part")
    try:
        with open(partial, "wb") as blob:
            offset_N = _copied(listing, listing, blob)
            members = [
                dataclasses.replace(
                    columns, container_N=np.zeros(len(listing), np.int32), offset_N=_copied(listing, columns, blob)
                )
                for columns in listing.members
            ]
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: can't copy the images there: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return dataclasses.replace(
        listing,
        reader=RangeReader((path,)),
        container_N=np.zeros(len(listing), np.int32),
        offset_N=offset_N,
        # The states were those of the Parquet files.
        state_N=None,
        members=tuple(dataclasses.replace(columns, state_N=None) for columns in members),
    )


def _copied(listing: Listing, columns: Listing | MemberColumns, blob: BinaryIO) -> NDArray[np.int64]:
    """Write the images that `columns` places, in their own order; return where each of them lies in `blob`."""
    order_N = np.lexsort((columns.offset_N, columns.container_N))
    offset_N = np.zeros(len(listing), np.int64)
    for start in range(0, len(order_N), _ROWS):
        row_N = order_N[start : start + _ROWS]
        for row, ref in zip(row_N.tolist(), columns.refs(row_N), strict=True):
            offset_N[row] = blob.tell()
            # A row without an image keeps size 0, and is rejected when it is read.
            blob.write(read_sample(listing.reader, ref) if ref.size else b"")
    return offset_N
