"""What a person filters and sorts by -> the numbers of the rows, kept for the pages that follow."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imgdata.arrow import numbers
from imgdata.errors import OptionError
from imgdata.web.rows import NUMBERS, Rows

_KEPT_BYTES = 64 << 20
"""Answers that stay in memory: 4 bytes a row."""
_LONGEST_TEXT = 200
SORTS = ("", *NUMBERS, "pixels", "key", "source")


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """A filter and an order; the empty one is all rows in the order of the shards."""

    split: str = ""
    label: str = ""
    """Class index; `none` for samples without a label; empty for all."""
    text: str = ""
    """What the key or the source name holds, in any case."""
    format: str = ""
    least: tuple[tuple[str, float], ...] = ()
    """Column of numbers -> the smallest value."""
    most: tuple[tuple[str, float], ...] = ()
    words: tuple[tuple[str, str], ...] = ()
    """Further column of words -> the word."""
    mark: str = ""
    """Name of a set of rows: a kind of finding, a decision, a view."""
    sort: str = ""
    """One of `SORTS`, or the name of a further column."""
    descending: bool = False


def query_of(parameters: Mapping[str, str]) -> Query:
    """Return the query of an address: `split`, `class`, `text`, `format`, `mark`, `sort`, `width_min`, `is.COLUMN` ...

    Raises `OptionError`.
    """
    bounds: dict[str, list[tuple[str, float]]] = {"min": [], "max": []}
    words: list[tuple[str, str]] = []
    for name, text in parameters.items():
        column, _, end = name.rpartition("_")
        if name.startswith("is.") and text:
            words.append((name.removeprefix("is."), text[:_LONGEST_TEXT]))
        elif end in bounds and column and text:
            try:
                bounds[end].append((column, float(text)))
            except ValueError:
                raise OptionError(f"{name} must be a number, got {text!r}") from None
    return Query(
        split=parameters.get("split", ""),
        label=parameters.get("class", ""),
        text=parameters.get("text", "")[:_LONGEST_TEXT],
        format=parameters.get("format", ""),
        least=tuple(sorted(bounds["min"])),
        most=tuple(sorted(bounds["max"])),
        words=tuple(sorted(words)),
        mark=parameters.get("mark", ""),
        sort=parameters.get("sort", "").removeprefix("-"),
        descending=parameters.get("sort", "").startswith("-"),
    )


class Column(NamedTuple):
    """A column beside the index's."""

    value_M: NDArray[Any]
    """A number of each row, NaN for none; for words, the place in `words`, -1 for none."""
    words: tuple[str, ...] = ()


class Answers:
    """Queries -> the numbers of their rows. Safe in threads; an answer is computed once and kept."""

    def __init__(
        self,
        rows: Rows,
        *,
        marks: Callable[[str], NDArray[np.bool_]],
        columns: Callable[[str], Column | None],
        version: Callable[[], int],
    ) -> None:
        """Take where further sets and columns come from.

        `marks` returns a set of rows by name, `columns` a further column, None for an unknown one; `version` grows
        whenever a set changes.
        """
        self._rows, self._marks, self._columns, self._version = rows, marks, columns, version
        self._lock, self._texts = threading.Lock(), threading.Lock()
        self._small: dict[str, list[Any]] = {}
        self._ranks: dict[str, NDArray[np.uint32]] = {}
        self._known: OrderedDict[tuple[Query, int], NDArray[np.integer]] = OrderedDict()

    def warm(self) -> None:
        """Read the texts, so that the first search takes as long as the next ones. Raises `ShardError`."""
        for column in ("key", "source"):
            self._lowered(column)

    def numbers(self, query: Query) -> NDArray[np.integer]:
        """Return the numbers of the query's rows, in its order. Raises `OptionError`."""
        key = (query, self._version() if query.mark else 0)
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        found = self._find(query)
        with self._lock:
            self._known[key] = found
            while len(self._known) > 1 and sum(one.nbytes for one in self._known.values()) > _KEPT_BYTES:
                self._known.popitem(last=False)
        return found

    def _find(self, query: Query) -> NDArray[np.integer]:
        kept_M = self._kept(query)
        numbers = np.arange(len(self._rows), dtype=np.uint32) if kept_M is None else np.flatnonzero(kept_M)
        if query.sort:
            value_K = self._sorted_by(query.sort)
            order = order_of(value_K if kept_M is None else value_K[numbers], descending=query.descending)
            numbers = order if kept_M is None else numbers[order]
        elif query.descending:
            numbers = numbers[::-1]
        return numbers.astype(np.uint32, copy=False)

    def _kept(self, query: Query) -> NDArray[np.bool_] | None:
        rows = self._rows
        parts: list[NDArray[np.bool_]] = []
        if query.split:
            names = [split.name for split in rows.splits]
            if query.split not in names:
                raise OptionError(f"split must be one of {', '.join(names)}, got {query.split!r}")
            which = names.index(query.split)
            inside_M = np.zeros(len(rows), bool)
            inside_M[rows.start_S[which] : rows.start_S[which + 1]] = True
            parts.append(inside_M)
        if query.label:
            parts.append(rows.array("label") == _class_index(query.label))
        if query.format:
            words, code_M = rows.words("format")
            parts.append(code_M == (words.index(query.format) if query.format in words else -1))
        for column, bound in query.least:
            parts.append(self._number(column) >= bound)
        for column, bound in query.most:
            parts.append(self._number(column) <= bound)
        for column, word in query.words:
            further = self._columns(column)
            if further is None or not further.words:
                raise OptionError(f"{column!r} is no column of words")
            parts.append(further.value_M == (further.words.index(word) if word in further.words else -2))
        if query.mark:
            parts.append(self._marks(query.mark))
        if query.text:
            parts.append(self._with_text(query.text))
        return None if not parts else np.logical_and.reduce(parts)

    def _with_text(self, text: str) -> NDArray[np.bool_]:
        words = text.lower()
        key_M, source_M = (
            np.concatenate([_truths(pc.match_substring(part, words)) for part in self._lowered(column)])
            for column in ("key", "source")
        )
        return np.asarray(key_M | source_M)

    def _lowered(self, column: str) -> list[Any]:
        """Return a column of texts in small letters, by split, made once: ignoring case takes ten times as long."""
        with self._texts:
            if column not in self._small:
                texts = [split.index.column(column) for split in self._rows.splits]
                small = [pc.utf8_lower(one) for one in texts]
                # Mostly they are small already; two copies would take twice the memory.
                self._small[column] = [
                    own if pc.all(pc.equal(own, made)).as_py() is not False else made
                    for own, made in zip(texts, small, strict=True)
                ]
            return self._small[column]

    def _number(self, column: str) -> NDArray[Any]:
        if column == "pixels":
            pixels_M: NDArray[np.int64] = self._rows.array("width").astype(np.int64) * self._rows.array("height")
            return pixels_M
        if column in NUMBERS:
            return self._rows.array(column)
        further = self._columns(column)
        if further is None:
            known = ", ".join((*NUMBERS, "pixels"))
            raise OptionError(f"a column must be one of {known} or a further one, got {column!r}")
        return further.value_M

    def _sorted_by(self, column: str) -> NDArray[Any]:
        if column not in ("key", "source"):
            return self._number(column)
        with self._texts:
            if column not in self._ranks:
                texts = pa.chunked_array([split.index.column(column).combine_chunks() for split in self._rows.splits])
                rank_M = np.empty(len(self._rows), np.uint32)
                rank_M[numbers(pa.chunked_array([pc.sort_indices(texts)]))] = np.arange(
                    len(self._rows), dtype=np.uint32
                )
                self._ranks[column] = rank_M
            return self._ranks[column]


def order_of(value_K: NDArray[Any], *, descending: bool = False) -> NDArray[np.int64]:
    """Return the places of values in ascending or descending order, int64 `(K,)`.

    Equal ones keep their order, and NaNs come last, either way.
    """
    places = np.arange(len(value_K), dtype=np.uint64)
    if value_K.dtype.kind == "f" or not len(value_K):
        return np.argsort(-value_K if descending else value_K, kind="stable")
    least, most = int(value_K.min()), int(value_K.max())
    bits = len(value_K).bit_length()
    if most - least >= 1 << (64 - bits):
        return np.argsort(-value_K.astype(np.float64) if descending else value_K, kind="stable")
    # Sorting numbers that hold value and place is several times as fast as a stable sort of places.
    wide_K = value_K.astype(np.int64)
    joined_K = (most - wide_K if descending else wide_K - least).astype(np.uint64) << np.uint64(bits) | places
    joined_K.sort()
    return (joined_K & np.uint64((1 << bits) - 1)).astype(np.int64)


def _truths(column: Any) -> NDArray[np.bool_]:
    # `to_numpy` of truths would import pandas, which takes half a second.
    return numbers(column.cast(pa.uint8())).astype(bool)


def _class_index(text: str) -> int:
    if text == "none":
        return -1
    try:
        return int(text)
    except ValueError:
        raise OptionError(f"class must be a class index or none, got {text!r}") from None
