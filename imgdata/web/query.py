"""What a person filters and sorts by -> the numbers of the rows, kept for the pages that follow."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imgdata.errors import OptionError
from imgdata.web.rows import NUMBERS, Rows

_KEPT = 16
"""Answers that stay in memory, at most 4 or 8 bytes a row each."""
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
    mark: str = ""
    """Name of a set of rows: a kind of finding, a decision, a view."""
    sort: str = ""
    """One of `SORTS`, or the name of a further column."""
    descending: bool = False


def query_of(parameters: Mapping[str, str]) -> Query:
    """Return the query of an address: `split`, `class`, `text`, `format`, `mark`, `sort`, `width_min`, `width_max` ...

    Raises `OptionError`.
    """
    bounds: dict[str, list[tuple[str, float]]] = {"min": [], "max": []}
    for name, text in parameters.items():
        column, _, end = name.rpartition("_")
        if end in bounds and column and text:
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
        mark=parameters.get("mark", ""),
        sort=parameters.get("sort", "").removeprefix("-"),
        descending=parameters.get("sort", "").startswith("-"),
    )


class Answers:
    """Queries -> the numbers of their rows. Safe in threads; an answer is computed once and kept."""

    def __init__(
        self,
        rows: Rows,
        *,
        marks: Callable[[str], NDArray[np.bool_]],
        columns: Mapping[str, Callable[[], NDArray[np.floating]]],
        version: Callable[[], int],
    ) -> None:
        """Take where further sets and columns come from.

        `marks` returns a set of rows by name, `columns` further columns; `version` grows whenever a set changes.
        """
        self._rows, self._marks, self._columns, self._version = rows, marks, columns, version
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[Query, int], NDArray[np.integer]] = OrderedDict()

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
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return found

    def _find(self, query: Query) -> NDArray[np.integer]:
        kept_M = self._kept(query)
        numbers = np.arange(len(self._rows), dtype=np.uint32) if kept_M is None else np.flatnonzero(kept_M)
        if query.sort:
            order = np.argsort(self._sorted_by(query.sort)[numbers], kind="stable")
            numbers = numbers[order[::-1] if query.descending else order]
        elif query.descending:
            numbers = numbers[::-1]
        return numbers

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
        if query.mark:
            parts.append(self._marks(query.mark))
        if query.text:
            parts.append(self._with_text(query.text))
        return None if not parts else np.logical_and.reduce(parts)

    def _with_text(self, text: str) -> NDArray[np.bool_]:
        found = []
        for split in self._rows.splits:
            index = split.index
            inside = pc.or_(
                pc.match_substring(index.column("key"), text, ignore_case=True),
                pc.match_substring(index.column("source"), text, ignore_case=True),
            )
            found.append(inside.to_numpy())
        return np.concatenate(found)

    def _number(self, column: str) -> NDArray[Any]:
        if column in self._columns:
            return self._columns[column]()
        if column == "pixels":
            pixels_M: NDArray[np.int64] = self._rows.array("width").astype(np.int64) * self._rows.array("height")
            return pixels_M
        if column in NUMBERS:
            return self._rows.array(column)
        raise OptionError(f"a column must be one of {', '.join((*NUMBERS, 'pixels', *self._columns))}, got {column!r}")

    def _sorted_by(self, column: str) -> NDArray[Any]:
        if column not in ("key", "source"):
            return self._number(column)
        texts = pa.chunked_array([split.index.column(column).combine_chunks() for split in self._rows.splits])
        rank_M = np.empty(len(self._rows), np.int64)
        order = pc.sort_indices(texts).to_numpy()
        rank_M[order] = np.arange(len(order))
        return rank_M


def _class_index(text: str) -> int:
    if text == "none":
        return -1
    try:
        return int(text)
    except ValueError:
        raise OptionError(f"class must be a class index or none, got {text!r}") from None
