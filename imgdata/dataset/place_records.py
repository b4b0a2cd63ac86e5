"""The places of an index in parts -> the records at positions, checked: files of records of one size.

A batch of 256 is 256 short reads. Where positions lie close to each other, all that lies between them is read at once.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imgdata import native
from imgdata.dataset.manifest import SplitEntry
from imgdata.dataset.members import member_columns
from imgdata.dataset.places import header, place_type
from imgdata.errors import ShardError
from imgdata.storage.folder import DatasetFolder
from imgdata.storage.reading import MAX_MEMBER_BYTES, damage
from imgdata.storage.remote_folder import RemoteFolder

_KEPT_BATCHES = 8
"""Reads of records that are kept: planner and backend ask for columns of the same samples, of batches in work too."""
_MANY = 1 << 16
"""Records of which a batch has fewer."""
_DENSE = 8
"""Records that lie that far apart, on average, are read with all that lies between them."""


class _Records(NamedTuple):
    """Records that were read."""

    asked: bytes
    """The positions that were asked for, as bytes."""
    record_K: NDArray[Any]
    """Their records."""
    position_U: NDArray[np.int64]
    """The same positions, ascending, each once."""
    record_U: NDArray[Any]
    """Their records."""


class PlaceRecords:
    """The records of a split whose index is in parts. Opening reads no file. Picklable, safe in threads."""

    def __init__(self, folder: DatasetFolder, entry: SplitEntry, *, num_classes: int | None, remedy: str) -> None:
        """Take the parts that `dataset.json` names; `num_classes` bounds labels, `remedy` ends messages."""
        assert entry.parts is not None, "an index of one file"
        self._has_json, self._members = entry.parts.has_json, entry.parts.members
        self.kind = place_type(has_json=self._has_json, members=self._members)
        self._folder, self._parts = folder, entry.parts.parts
        self._num_classes, self._num_shards, self._remedy = num_classes, len(entry.shards), remedy
        self._num_words = {name: len(words) for name, words in entry.parts.words.items()}
        self._start_P = np.cumsum([0, *(part.rows for part in self._parts)])
        self._header_P = np.array([len(header(part.rows, self.kind)) for part in self._parts])
        # Copies of a remote index would be as large as the memory that it must not take.
        self._pool = None if isinstance(folder, RemoteFolder) else folder.pool([part.places for part in self._parts])
        self._checked: set[int] = set()
        self._kept: tuple[_Records, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_checked": set(), "_kept": ()}

    def at(self, position_K: NDArray[np.int64]) -> NDArray[Any]:
        """Return the records of samples, checked, `(K,)`. Raises `ShardError`."""
        asked, kept = position_K.tobytes(), self._kept
        for one in kept:
            if one.asked == asked:
                return one.record_K
        for one in kept:
            if len(at_K := _places_in(one.position_U, position_K)):
                return one.record_U[at_K]
        if (position_K[1:] > position_K[:-1]).all():
            known_U = position_K.copy()
            record_U = record_K = self.fresh(known_U)
        else:
            known_U, back_K = np.unique(position_K, return_inverse=True)
            record_U = self.fresh(known_U)
            record_K = record_U[back_K]
        # Of many records those of the last read alone are kept.
        room = _KEPT_BATCHES - 1 if len(known_U) <= _MANY else 0
        self._kept = (_Records(asked, record_K, known_U, record_U), *kept[:room])
        return record_K

    def fresh(self, position_K: NDArray[np.int64]) -> NDArray[Any]:
        """Return the records at ascending positions, from the files. Raises `ShardError`."""
        part_K = np.searchsorted(self._start_P, position_K, side="right") - 1
        if len(position_K) > _MANY and part_K[0] != part_K[-1]:
            pieces = np.split(position_K, np.flatnonzero(np.diff(part_K)) + 1)
            return np.concatenate([self.fresh(piece) for piece in pieces])
        for part in np.unique(part_K).tolist() if len(part_K) and part_K[0] != part_K[-1] else part_K[:1].tolist():
            self._check_header(part)
        size, count = self.kind.itemsize, len(position_K)
        offset_K = self._header_P[part_K] + (position_K - self._start_P[part_K]) * size
        try:
            record_K: NDArray[Any] | None = None
            if count and part_K[0] == part_K[-1] and position_K[-1] - position_K[0] < _DENSE * count:
                span = int(position_K[-1] - position_K[0]) + 1
                data = self._bytes(int(part_K[0]), int(offset_K[0]), span * size)
                if len(data) == span * size:
                    record_K = np.frombuffer(data, self.kind)[position_K - position_K[0]]
            elif (record_K := self._records_of_each(part_K, offset_K)) is None:
                data = self._bytes_of_each(part_K.tolist(), offset_K.tolist(), size)
                record_K = np.frombuffer(data, self.kind) if len(data) == count * size else None
        except OSError as error:
            raise self._unreadable(int(part_K[0]), error) from error
        if record_K is None:
            raise self._damaged(int(part_K[-1]), "cut short")
        self._check_records(position_K, record_K)
        return record_K

    def _records_of_each(self, part_K: NDArray[np.int64], offset_K: NDArray[np.int64]) -> NDArray[Any] | None:
        """Return the records at offsets, by the compiled module; None where Python reads them. Raises `OSError`."""
        if self._pool is None or not native.AVAILABLE:
            return None
        known = self._pool.descriptors()
        file_P = np.array([known.get(part, -1) for part in range(len(self._parts))], np.int64)
        file_K = file_P[part_K]
        # Where the process may open few files, some are opened for each read.
        return native.read_records(file_K, offset_K, self.kind) if file_K.min(initial=0) >= 0 else None

    def _bytes(self, part: int, offset: int, size: int) -> bytes:
        """Return bytes of a file of places. Raises `OSError`, and of a remote one `ShardError`."""
        if self._pool is None:
            return self._folder.read(self._parts[part].places, offset, size)
        return self._pool.read(part, offset, size)

    def _bytes_of_each(self, parts: list[int], offsets: list[int], size: int) -> bytes:
        """Return `size` bytes at each offset of the part's places, joined; `parts` ascend. Raises as `_bytes` does."""
        if self._pool is not None:
            return self._pool.read_each(parts, offsets, size)
        assert isinstance(self._folder, RemoteFolder), "files without a pool"
        found = []
        for part in dict.fromkeys(parts):
            ranges = [(offset, size) for of_part, offset in zip(parts, offsets, strict=True) if of_part == part]
            found += self._folder.store.read_ranges(self._parts[part].places, ranges)
        return b"".join(found)

    def _check_header(self, part: int) -> None:
        """Raise `ShardError` unless the file of places begins as it must: type and number of records."""
        if part in self._checked:
            return
        expected = header(self._parts[part].rows, self.kind)
        try:
            found = self._bytes(part, 0, len(expected))
        except FileNotFoundError:
            name = self._parts[part].places
            raise ShardError(f"{self._folder.place(name)}: no such part of the index; {self._remedy}") from None
        except OSError as error:
            raise self._unreadable(part, error) from error
        if found != expected:
            raise self._damaged(part, "its header is not that of the records in dataset.json")
        self._checked.add(part)

    def _check_records(self, position_K: NDArray[np.int64], record_K: NDArray[Any]) -> None:
        """Raise `ShardError` where a value can't be: an index may be hostile."""
        classes = self._num_classes
        bounds = {
            "offset": (0, 2**62),
            "size": (0, MAX_MEMBER_BYTES),
            "shard": (0, self._num_shards - 1),
            "label": (-1, (2**31 if classes is None else classes) - 1),
            "width": (0, 2**31 - 1),
            "height": (0, 2**31 - 1),
            **{name: (0, count - 1) for name, count in self._num_words.items()},
            **({"json_offset": (0, 2**62), "json_size": (0, MAX_MEMBER_BYTES)} if self._has_json else {}),
        }
        for member in self._members:
            bounds |= dict(zip(member_columns(member)[:2], ((0, 2**62), (0, MAX_MEMBER_BYTES)), strict=True))
        for name, (low, high) in bounds.items():
            value_K = record_K[name]
            if len(value_K) and (value_K.min() < low or value_K.max() > high):
                at = int(np.argmax((value_K < low) | (value_K > high)))
                part = int(np.searchsorted(self._start_P, position_K[at], side="right") - 1)
                what = f"{name} in row {position_K[at]} must be an integer from {low} to {high}, got {value_K[at]}"
                raise self._damaged(part, what)

    def _damaged(self, part: int, what: str) -> ShardError:
        return ShardError(f"{self._folder.place(self._parts[part].places)}: damaged index ({what}); {self._remedy}")

    def _unreadable(self, part: int, error: OSError) -> ShardError:
        what = damage("damaged index", error, self._remedy)
        return ShardError(f"{self._folder.place(self._parts[part].places)}: {what}")


def _places_in(sorted_U: NDArray[np.int64], wanted_M: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each of `wanted_M` stands in `sorted_U`; nothing unless all of them do."""
    for some_M in (wanted_M[:1], wanted_M):
        # The first one alone tells most batches apart.
        at_M = sorted_U.searchsorted(some_M)
        at_M[at_M == len(sorted_U)] = 0
        if not len(sorted_U) or not (sorted_U[at_M] == some_M).all():
            return at_M[:0]
    return at_M
