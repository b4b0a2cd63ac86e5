"""Rows of an index <-> records of one size in a `.npy` file: what a loader needs of a sample is one short read.

A global shuffle reads rows from everywhere. In Parquet each of them costs the decoding of a row group, and in a file
of columns one read for each column; of a record the place in the file is known, and it is read at once.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from imgdata.arrow import numbers
from imgdata.dataset.members import member_columns, members_in
from imgdata.errors import ShardError
from imgdata.storage.atomic import whole_file

_FIELDS: Mapping[str, str] = {
    "offset": "<i8",
    "size": "<u4",
    "shard": "<i4",
    "label": "<i4",
    "width": "<i4",
    "height": "<i4",
    "format": "u1",
    "mode": "u1",
}
_JSON_FIELDS: Mapping[str, str] = {"json_offset": "<i8", "json_size": "<u4"}
_WORDS = ("shard", "format", "mode")
_MAX_WORDS = 256


def place_type(*, has_json: bool, members: Sequence[str] = ()) -> np.dtype[Any]:
    """Return the type of a record: 30 bytes, 12 more for a `json` member, and 13 for each further image."""
    fields = {**_FIELDS, **(_JSON_FIELDS if has_json else {})}
    for name in members:
        offset, size, kind, _ = member_columns(name)
        fields |= {offset: "<i8", size: "<u4", kind: "u1"}
    return np.dtype(list(fields.items()))


def word_columns(members: Sequence[str]) -> tuple[str, ...]:
    """Return the columns whose values are numbers of words: of the split's shards, of formats and modes."""
    return (*_WORDS, *(member_columns(name)[2] for name in members))


def header(count: int, kind: np.dtype[Any]) -> bytes:
    """Return the bytes in front of `count` records: NumPy's own header, so that `np.load` reads the file."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": kind.descr, "fortran_order": False, "shape": (count,)})
    return file.getvalue()


class WordNumbers:
    """The words of a split, each numbered when it first comes."""

    def __init__(self, shards: Sequence[str], known: Mapping[str, Sequence[str]]) -> None:
        """Give the shards numbers in their order, and the `known` words of other columns."""
        self._numbers: dict[str, dict[str, int]] = {
            column: {word: number for number, word in enumerate(words)}
            for column, words in {**known, "shard": shards}.items()
        }

    def words(self, column: str) -> tuple[str, ...]:
        """Return the words by their numbers."""
        return tuple(self._numbers.get(column, ()))

    def numbers(self, column: str, words: "pa.ChunkedArray[Any]") -> NDArray[np.int64]:
        """Return the number of each word, int64 `(N,)`. Raises `ShardError` for too many."""
        known = self._numbers.setdefault(column, {})
        parts = []
        for chunk in words.chunks:
            encoded: Any = chunk if pa.types.is_dictionary(chunk.type) else chunk.dictionary_encode()
            code_N = numbers(pa.chunked_array([encoded.indices]))
            # By their first rows: a dictionary may have words that no row has, in any order.
            code_U, first_U = np.unique(code_N, return_index=True)
            number_W = np.zeros(len(encoded.dictionary), np.int64)
            for code in code_U[np.argsort(first_U)].tolist():
                number_W[code] = known.setdefault(str(encoded.dictionary[code].as_py()), len(known))
            parts.append(number_W[code_N])
        if column != "shard" and len(known) > _MAX_WORDS:
            raise ShardError(f"{column} must have at most {_MAX_WORDS} different values, got {len(known)}")
        return np.concatenate([np.empty(0, np.int64), *parts])


def write_places(path: Path, table: pa.Table, words: WordNumbers) -> None:
    """Write the records of a table with the columns of an index, whole or not at all. Raises `OutputError`."""
    members = members_in(table.column_names)
    kind, words_in = place_type(has_json="json_offset" in table.column_names, members=members), word_columns(members)
    record_N = np.empty(len(table), kind)
    for name in kind.names or ():
        column = table.column(name)
        record_N[name] = words.numbers(name, column) if name in words_in else numbers(column)
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        file.write(header(len(table), kind))
        record_N.tofile(file)
