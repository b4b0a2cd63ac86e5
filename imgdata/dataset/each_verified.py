"""A split, positions -> the images there, compared with the index; of a remote dataset some are fetched at a time."""

from collections.abc import Iterator, Sequence

import numpy as np
import xxhash

from imgdata.dataset.files import image_files
from imgdata.dataset.remote_files import RemoteShards
from imgdata.dataset.split import Split

_FETCHED = 64
"""Images of a remote dataset that are fetched together, and held in memory."""


def each_verified(split: Split, positions: Sequence[int]) -> Iterator[bytes]:
    """Yield what `Split.verified` returns of each position. Raises `ShardError`."""
    index = split.index
    files = image_files(split.folder, index)
    if not isinstance(files, RemoteShards):
        yield from map(split.verified, positions)
        return
    index.load(("shard", "offset", "size", "xxh64"))
    for start in range(0, len(positions), _FETCHED):
        row_K = np.asarray(positions[start : start + _FETCHED], np.int64)
        found = files.read_all(files.numbers(row_K), index.offset_N[row_K], index.size_N[row_K])
        for row, data in zip(row_K.tolist(), found, strict=True):
            # The other way says what is wrong.
            same = xxhash.xxh64_intdigest(data) == int(index.xxh64_N[row])
            yield data if same else split.verified(row)
