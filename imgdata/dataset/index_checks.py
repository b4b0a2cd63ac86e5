"""A column of an index, as it was read -> nothing, or the first row whose value can't be: an index may be hostile.

Each column is checked once, when it is loaded: minima and maxima of numbers, the words of word columns, and the bytes
of texts. A million rows take 2 ms, and the texts 5 ms more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from imgdata.arrow import numbers
from imgdata.storage.reading import MAX_MEMBER_BYTES

_ASCII = 127
_ANY_BYTE = (0, 2**62)
_ANY_SIZE = (0, MAX_MEMBER_BYTES)
_RANGES = {
    "offset": _ANY_BYTE,
    "size": _ANY_SIZE,
    "width": (0, 2**31 - 1),
    "height": (0, 2**31 - 1),
    "orientation": (0, 8),
}
"""Least and greatest value of number columns; the label's depends on the classes. Places of members have those of the
image."""


@dataclass(frozen=True, kw_only=True)
class IndexLimits:
    """Limits that the rest of a dataset sets for the values in an index."""

    num_classes: int | None = None
    """Labels are less than this; None where it isn't known."""
    shards: frozenset[str] | None = None
    """File names of the split's tars; None where they aren't known."""


NO_LIMITS = IndexLimits()


def column_fault(name: str, column: "pa.ChunkedArray[Any]", limits: IndexLimits) -> str | None:
    """Return what is wrong with a column, with its first row, or None."""
    if pa.types.is_dictionary(column.type):
        return _shard_fault(column, limits.shards) if name == "shard" else None
    if pa.types.is_string(column.type):
        return _text_fault(name, column)
    low, high = _range_of(name)
    if name == "label":
        low, high = -1, (2**31 if limits.num_classes is None else limits.num_classes) - 1
    return None if low is None or high is None else _range_fault(name, column, low, high)


def _range_of(name: str) -> tuple[int | None, int | None]:
    if name.endswith("_offset"):
        return _ANY_BYTE
    return _ANY_SIZE if name.endswith("_size") else _RANGES.get(name, (None, None))


def _range_fault(name: str, column: "pa.ChunkedArray[Any]", low: int, high: int) -> str | None:
    value_N = numbers(column)
    if len(value_N) and (value_N.min() < low or value_N.max() > high):
        row = int(np.argmax((value_N < low) | (value_N > high)))
        what = f"of at least {low}" if name in ("width", "height") else f"from {low} to {high}"
        return f"{name} in row {row} must be an integer {what}, got {value_N[row]}"
    return None


def _shard_fault(column: "pa.ChunkedArray[Any]", shards: frozenset[str] | None) -> str | None:
    words: Sequence[Any] = column.chunk(0).dictionary.to_pylist() if column.num_chunks else ()
    for word in words:
        name = str(word)
        # What an index says must never lead to a file that is no shard, such as one of the system.
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            return f"shard must be the name of a file in the folder, got {name[:80]!r}"
        if shards is not None and name not in shards:
            return f"shard must be a tar that dataset.json has in this split, got {name[:80]!r}"
    return None


def _text_fault(name: str, column: "pa.ChunkedArray[Any]") -> str | None:
    for chunk in column.chunks:
        _, offsets, data = chunk.buffers()
        if data is None or not len(chunk):
            continue
        starts = np.frombuffer(offsets, np.int32, len(chunk) + 1, chunk.offset * 4)
        text = np.frombuffer(data, np.uint8)[starts[0] : starts[-1]]
        if not len(text):
            continue
        if text.max() > _ASCII:
            chunk.validate(full=True)
        if not text.min():
            row = next(i for i, value in enumerate(column.to_pylist()) if "\0" in value)
            return f"{name} in row {row} must be a text without null bytes"
    return None
