"""A row -> its members in the tar, and the rows beside it: of its class, found alike, nearest in features."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from imgdata.errors import OptionError
from imgdata.storage.folder import DatasetFolder
from imgdata.storage.remote_folder import RemoteFolder
from imgdata.tar.archive import Member, members, padded
from imgdata.web.rows import Rows

_MOST_MEMBERS = 64
_BEHIND = 2**20
"""Bytes that are read behind a sample's image in a remote tar: its other members."""
_SHOWN = 12


def members_of(rows: Rows, number: int) -> list[Member]:
    """Return the files of a sample in its tar, in their order; a loose image is the only one. Raises `ShardError`."""
    split, position = rows.place(number)
    index = split.index
    if split.is_loose:
        name = index.column("source")[position].as_py()
        return [Member(name, int(index.offset_N[position]), int(index.size_N[position]))]
    shard, offset = index.shard_N[position], int(index.offset_N[position])
    before_N = np.where((index.shard_N == shard) & (index.offset_N < offset), index.offset_N + index.size_N, 0)
    start = padded(int(before_N.max()))
    with _tar(
        rows.dataset.folder, index.words("shard")[int(shard)], start, offset + int(index.size_N[position])
    ) as path:
        return _members_around(path, start, offset)


@contextlib.contextmanager
def _tar(folder: DatasetFolder, name: str, start: int, end: int) -> Iterator[Path]:
    """Yield the path of a tar; of a remote one a file that has what is needed of it, at its place."""
    if not isinstance(folder, RemoteFolder):
        yield folder.local(name)
        return
    with tempfile.NamedTemporaryFile(prefix="imgdata-", suffix=".tar") as file:
        file.seek(start)
        file.write(folder.read(name, start, end - start + _BEHIND))
        file.flush()
        yield Path(file.name)


def _members_around(path: Path, start: int, offset: int) -> list[Member]:
    """Return the members of the sample whose image begins at byte `offset` of a tar, read from `start` on."""
    found: dict[str, list[Member]] = {}
    for count, member in enumerate(members(path, start=start)):
        base, _, name = member.name.rpartition("/")
        stem = f"{base}/{name.partition('.')[0]}"
        found.setdefault(stem, []).append(member)
        # Behind the picture, the next name ends the sample.
        mine = next((ours for ours in found.values() if any(one.offset == offset for one in ours)), None)
        if mine is not None and member not in mine:
            return mine
        if count > _MOST_MEMBERS:
            break
    return next((ours for ours in found.values() if any(one.offset == offset for one in ours)), [])


def same_class(rows: Rows, number: int, count: int = _SHOWN) -> list[int]:
    """Return rows of the same class, in any split: those that come next, around the end; none without a label."""
    label_M = rows.array("label")
    label = int(label_M[number])
    if label < 0:
        return []
    after = number + 1 + np.flatnonzero(label_M[number + 1 : number + 1 + (1 << 16)] == label)[:count]
    if len(after) < count:
        every = np.flatnonzero(label_M == label)
        after = np.roll(every, -int(np.searchsorted(every, number, side="right")))[:count]
    return [int(one) for one in after if one != number]


class Features(NamedTuple):
    """Vectors of some rows, each of length 1."""

    number_K: NDArray[np.int64]
    vector_KD: NDArray[np.float32]

    def nearest(self, number: int, count: int = _SHOWN) -> list[tuple[int, float]]:
        """Return the rows whose vectors are the most alike, with the cosine, the nearest first."""
        here = np.flatnonzero(self.number_K == number)
        if not len(here):
            return []
        alike_K = self.vector_KD @ self.vector_KD[here[0]]
        alike_K[here] = -np.inf
        best = np.argpartition(-alike_K, min(count, len(alike_K) - 1))[:count]
        best = best[np.argsort(-alike_K[best], kind="stable")]
        return [(int(self.number_K[one]), float(alike_K[one])) for one in best if np.isfinite(alike_K[one])]


def read_features(paths: Sequence[Path], rows: Rows) -> Features:
    """Return the vectors of the files that `imgdata features` wrote, for the samples whose keys they have.

    Raises `OptionError`.
    """
    parts = [_read(path) for path in paths]
    numbers: list[NDArray[np.int64]] = []
    vectors: list[NDArray[np.float32]] = []
    for path, (keys, vector_KD) in zip(paths, parts, strict=True):
        best: dict[tuple[str, str], int] = {}
        for split in rows.splits:
            found = rows.numbers([(split.name, key) for key in keys])
            best = found if len(found) > len(best) else best
        if not best:
            raise OptionError(f"{path}: none of its {len(keys):,} keys is in the dataset")
        split_name = next(iter(best))[0]
        place_K = np.array([best.get((split_name, key), -1) for key in keys], np.int64)
        numbers.append(place_K[place_K >= 0])
        vectors.append(vector_KD[place_K >= 0])
    if len({part.shape[1] for part in vectors}) > 1:
        raise OptionError("the files of features must be of one network: their vectors have different lengths")
    vector_KD = np.concatenate(vectors).astype(np.float32)
    vector_KD /= np.maximum(np.linalg.norm(vector_KD, axis=1, keepdims=True), 1e-12)
    return Features(np.concatenate(numbers), vector_KD)


def _read(path: Path) -> tuple[list[str], NDArray[Any]]:
    try:
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                table = file.read(columns=["key", "features"])
            flat = table.column("features").combine_chunks()
            vectors = flat.values.to_numpy().reshape(len(table), -1)
            return table.column("key").to_pylist(), vectors
        with np.load(path, allow_pickle=False) as file:
            return file["key"].tolist(), file["features"]
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise OptionError(
            f"{path}: no features ({error}); `imgdata features` writes .npz and .parquet files"
        ) from error
