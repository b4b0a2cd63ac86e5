"""JSON objects, sample by sample -> a table with a typed column for each field.

Types are those that all values of a field have: whole numbers, numbers, truths, text, lists of one of these (of one
length, or of any), and else JSON as text. Numbers beside text become text. A field that a sample lacks is null.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

MOST_FIELDS = 1000
"""Most columns of a table; further fields stay in the `json` members alone."""
OWN_FIELDS = frozenset({"class_id", "class_name", "width", "height", "source"})
"""Fields that `imgdata shard` writes into `json` members: the index and the classes have them."""
_CHUNK_ROWS = 65_536
_MOST_INT = 2**63
_SCALARS = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(), "text": pa.string()}
_LIST = "list:"
_NAMES = {"bool": "truth", "int": "whole number", "float": "number", "text": "text"}
_NAMES_OF_LISTS = {"bool": "truths", "int": "whole numbers", "float": "numbers", "text": "texts"}
_JSON_METADATA = {b"imgdata": b"json"}


def fields_table(rows: Iterable[Mapping[str, Any]], *, leave_out: frozenset[str] = OWN_FIELDS) -> pa.Table:
    """Return a column for each field of `rows`, in order of appearance, but those to `leave_out`; one row for each."""
    builder = _Builder(leave_out)
    for row in rows:
        builder.add(row)
    return builder.table()


def join_tables(tables: Sequence[pa.Table], counts: Sequence[int]) -> pa.Table:
    """Return the rows of several such tables, one after the other, with the types that all of them fit.

    `counts` are their rows: a table without columns doesn't know.
    """
    builder = _Builder(frozenset())
    for table, count in zip(tables, counts, strict=True):
        builder.add_table(table, count)
    return builder.table()


def type_text(field: pa.Field) -> str:
    """Return the type of a column for people: `number`, `text`, `list of 3 numbers`, ..."""
    kind = _kind_of_type(field)
    if not kind.startswith(_LIST):
        return _NAMES.get(kind, "JSON")
    length = f"{field.type.list_size} " if pa.types.is_fixed_size_list(field.type) else ""
    return f"list of {length}{_NAMES_OF_LISTS[kind.removeprefix(_LIST)]}"


def is_field(field: pa.Field) -> bool:
    """Return whether `fields_table` makes columns of this type."""
    try:
        return _kind_of_type(field) != ""
    except KeyError:
        return False


def is_json(field: pa.Field) -> bool:
    """Return whether a column holds JSON as text."""
    return dict(field.metadata or {}).get(b"imgdata") == b"json"


class _Builder:
    """Rows as lists, which become Arrow arrays of the type that a stretch of rows has; types are joined at the end."""

    def __init__(self, leave_out: frozenset[str]) -> None:
        self._leave_out = leave_out
        self._rows: list[Mapping[str, Any]] = []
        self._count = 0
        self._chunks: list[int] = []
        self._arrays: dict[str, list[tuple[pa.Array | None, str]]] = {}
        """The arrays of each field, None where all is null, each with its kind."""
        self._kinds: dict[str, str] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) >= _CHUNK_ROWS:
            self._flush()

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        for row in rows:
            for name in row:
                if name not in self._arrays and name not in self._leave_out and len(self._arrays) < MOST_FIELDS:
                    self._arrays[name] = [(None, "")] * len(self._chunks)
                    self._kinds[name] = ""
        for name, arrays in self._arrays.items():
            values = [row.get(name) for row in rows]
            kind = self._kinds[name]
            for value in values:
                if value is not None and (own := _kind(value)) != kind:
                    kind = _joined(kind, own)
            self._kinds[name] = kind
            arrays.append((_array(values, kind), kind))
        self._chunks.append(len(rows))

    def add_table(self, table: pa.Table, count: int) -> None:
        for field in table.schema:
            array = pa.concat_arrays(table[field.name].chunks)
            own = "" if array.null_count == len(array) else _kind_of_type(field)
            if pa.types.is_fixed_size_list(field.type):
                array = array.cast(_type(own))
            if own.startswith(_LIST) and not len(array.flatten()):
                own = _LIST
            if field.name not in self._arrays and len(self._arrays) < MOST_FIELDS:
                self._arrays[field.name] = [(None, "")] * len(self._chunks)
                self._kinds[field.name] = ""
            if field.name in self._arrays:
                self._kinds[field.name] = _joined(self._kinds[field.name], own)
                self._arrays[field.name].append((array if own else None, own))
        self._chunks.append(count)
        for arrays in self._arrays.values():
            arrays += [(None, "")] * (len(self._chunks) - len(arrays))

    def table(self) -> pa.Table:
        if self._rows or not self._chunks:
            self._flush()
        fields, columns = [], []
        for name, arrays in self._arrays.items():
            # A field that is nowhere set, and a list that is always empty.
            kind = {"": "json", _LIST: _LIST + "float"}.get(self._kinds[name], self._kinds[name])
            whole = [
                pa.nulls(count, _type(kind)) if array is None else _cast(array, own, kind)
                for (array, own), count in zip(arrays, self._chunks, strict=True)
            ]
            column = _fixed(pa.chunked_array(whole, _type(kind)))
            fields.append(pa.field(name, column.type, metadata=_JSON_METADATA if kind == "json" else None))
            columns.append(column)
        if not fields:
            return pa.table({})
        return pa.table(columns, schema=pa.schema(fields))


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if -_MOST_INT <= value < _MOST_INT else "json"
    if isinstance(value, float):
        return "float"
    if isinstance(value, str):
        return "text"
    if not isinstance(value, list):
        return "json"
    items = ""
    for own in set(map(_kind, value)):
        items = _joined(items, own)
    mixed = items == "text" and not all(isinstance(item, str) for item in value)
    return _LIST + items if (items in _SCALARS and not mixed) or not value else "json"


def _joined(one: str, other: str) -> str:
    """Return the kind of a column that holds values of both kinds; empty stands for no value."""
    if one == other or not other:
        return one
    if not one:
        return other
    if one.startswith(_LIST) and other.startswith(_LIST):
        items = _joined(one.removeprefix(_LIST), other.removeprefix(_LIST))
        both = {one, other}
        return "json" if items == "json" or (items == "text" and both != {_LIST, _LIST + "text"}) else _LIST + items
    kinds = {one, other}
    if kinds == {"int", "float"}:
        return "float"
    return "text" if kinds <= {"int", "float", "text"} else "json"


def _type(kind: str) -> pa.DataType:
    if kind.startswith(_LIST):
        return pa.list_(_SCALARS[kind.removeprefix(_LIST)])
    return _SCALARS.get(kind, pa.string())


def _array(values: Sequence[Any], kind: str) -> pa.Array | None:
    """Return the values as an array of `kind`; None where nothing is known of the kind yet."""
    if kind in ("", _LIST):
        return None if kind == "" else pa.array(values, pa.list_(pa.float64()))
    plain: Callable[[Any], Any] | None = {"json": _json, "text": _text, "float": _number}.get(kind)
    if kind == _LIST + "float":
        plain = _number_list
    if kind == _LIST + "text":
        plain = _text_list
    if plain is not None:
        values = [None if value is None else plain(value) for value in values]
    return pa.array(values, _type(kind))


def _cast(array: pa.Array, own: str, kind: str) -> pa.Array:
    if array.type == _type(kind) and (own == kind or kind != "json"):
        return array
    values = array.to_pylist()
    made = _array(values, kind)
    return pa.nulls(len(values), _type(kind)) if made is None else made


def _text(value: object) -> str:
    # Halves of surrogate pairs are no text, though JSON can name them.
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else json.dumps(value)


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _number(value: float) -> float:
    return float(value)


def _number_list(values: Sequence[float]) -> list[float]:
    return [float(value) for value in values]


def _text_list(values: Sequence[object]) -> list[str]:
    return [_text(value) for value in values]


def _fixed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return lists that all have one length as lists of that length."""
    if not pa.types.is_list(column.type) or column.null_count or not len(column):
        return column
    lengths = {len(value) for chunk in column.chunks for value in chunk}
    length = lengths.pop()
    if lengths or not length:
        return column
    kind = pa.list_(column.type.value_type, length)
    return pa.chunked_array(
        [pa.FixedSizeListArray.from_arrays(chunk.flatten(), length) for chunk in column.chunks], kind
    )


def _kind_of_type(field: pa.Field) -> str:
    if is_json(field):
        return "json"
    kind = field.type
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return _LIST + next(name for name, own in _SCALARS.items() if own == kind.value_type)
    return next((name for name, own in _SCALARS.items() if own == kind), "")
