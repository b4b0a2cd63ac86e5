"""A dataset in a store, its index -> its shards without their images, of which no byte comes from the store.

The index says where each image lies, and headers and labels of shards that imgdata wrote follow from it. So such a
dataset is listed as any tars are, and its shards are fetched once, for their images.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imgdata.dataset.dataset import open as open_dataset
from imgdata.dataset.index import Index
from imgdata.dataset.manifest import MANIFEST
from imgdata.dataset.members import member_columns
from imgdata.dataset.split import open_index
from imgdata.errors import ImgdataError
from imgdata.images.encode import extension_of
from imgdata.tar.archive import BLOCK, END_OF_ARCHIVE, padded, ustar_header

_Part = tuple[str, int, int, bytes]
"""Extension of a member of a sample, its first byte, -1 where nothing says it, its size, and its bytes if they follow
from the index."""


class Hulls:
    """The shards of the dataset in a folder, as files with holes in place of images."""

    def __init__(self, folder: Path) -> None:
        """Name the folder, which has `dataset.json` and the indices; they are read for the first shard."""
        self._folder = folder
        self._index_of: dict[str, Index] | None = None
        self._extension = ""

    def write(self, name: str, size: int) -> bool:
        """Write headers and labels of a shard into the hole of its size; return whether that is all but its images.

        Nothing is written where they don't follow from the index: for tars of other programs, for samples with a `json`
        member, and where index and size don't fit together. Raises `OSError`.
        """
        try:
            if self._index_of is None:
                self._index_of = self._indices()
            index = self._index_of.get(name)
            pieces = None if index is None else _pieces(index, name, self._extension, size)
        except ImgdataError:
            # The listing says what is wrong with a dataset.
            self._index_of = self._index_of or {}
            return False
        if pieces is None:
            return False
        with open(self._folder / name, "r+b") as file:
            for place, data in pieces:
                file.seek(place)
                file.write(data)
        return True

    def _indices(self) -> dict[str, Index]:
        """Return the index that has the samples of each shard."""
        if not (self._folder / MANIFEST).is_file():
            return {}
        dataset = open_dataset(self._folder)
        manifest = dataset.manifest
        self._extension = manifest.image_extension
        written_here = manifest.source.get("kind") != "index" and manifest.label_from in ("cls", "none")
        if manifest.has_json or not written_here or any(split.parts is not None for split in manifest.splits):
            return {}
        found: dict[str, Index] = {}
        for split in manifest.splits:
            found |= dict.fromkeys((shard.file for shard in split.shards), open_index(dataset.folder, split))
        return found


def _pieces(index: Index, shard: str, extension: str, size: int) -> list[tuple[int, bytes]] | None:
    """Return all of a shard but its images, each piece with its place; None where the index does not fit it."""
    row_N = np.flatnonzero(index.shard_N == index.words("shard").index(shard))
    row_N = row_N[np.argsort(index.offset_N[row_N], kind="stable")]
    pieces: list[tuple[int, bytes]] = []
    position = 0
    for key, parts in _samples(index, row_N, extension):
        for ending, offset, num_bytes, data in sorted(parts):
            if offset not in (-1, position + BLOCK):
                return None
            pieces.append((position, bytes(ustar_header(f"{key}.{ending}".encode("ascii"), num_bytes)) + data))
            position += BLOCK + padded(num_bytes)
    return pieces if position + len(END_OF_ARCHIVE) == size else None


def _samples(index: Index, row_N: NDArray[np.int64], extension: str) -> Iterator[tuple[str, list[_Part]]]:
    """Return the key and the members of each sample."""
    parts_N: list[list[_Part]] = []
    columns = (index.offset_N, index.size_N, index.label_N)
    for offset, size, label in zip(*(column_N[row_N].tolist() for column_N in columns), strict=True):
        digits = b"%d" % label
        parts_N.append([(extension, offset, size, b"")] + [("cls", -1, len(digits), digits)] * (label >= 0))
    for name in index.members:
        offset_of, size_of, format_of, _ = member_columns(name)
        words = index.words(format_of)
        columns = (index.array(offset_of), index.array(size_of), index.array(format_of))
        rows = zip(*(column_N[row_N].tolist() for column_N in columns), strict=True)
        for parts, (offset, size, word) in zip(parts_N, rows, strict=True):
            if size:
                parts.append((f"{name}.{extension_of(words[word])}", offset, size, b""))
    return zip(index.keys(row_N), parts_N, strict=True)
