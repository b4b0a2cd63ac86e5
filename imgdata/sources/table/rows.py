"""A table file (CSV, TSV, JSON lines, Parquet) -> its columns and rows, one at a time."""

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from imgdata.errors import SourceError
from imgdata.storage.reading import bounded_lines, open_regular, parse_json, read_file, require_regular, streamed

TABLE_EXTENSIONS = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"})

Row = Mapping[str, Any]

_BATCH_ROWS = 8192
_JUDGED_ROWS = 100
MAX_LINE_CHARS = 2**20
"""Longest line of a CSV or TSV table."""
MAX_JSON_LINE_CHARS = 16 * 2**20
"""Longest line of JSON lines, which may hold an embedding or an annotation of every pixel's outline."""
_MAX_SHOWN_BYTES = 2**30
"""Tables up to this size are read again to say where they stop being UTF-8."""
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_MAX_NUMBER_CHARS = 18
"""Most characters of a whole number; longer ones are identifiers, which most readers of JSON would round."""
_MAX_FRACTION_CHARS = 26
"""Most characters of a number with a fraction or an exponent: 17 digits, sign, point and exponent."""


def columns(table: Path) -> dict[str, bool]:
    """Return the column names of `table`, each with whether its cells are single values, not lists or objects.

    JSON lines are judged by the first few lines. Columns of Parquet that hold bytes are left out. Raises `SourceError`.
    """
    if table.suffix.lower() == ".parquet":
        schema = open_parquet(table).schema_arrow
        return {field.name: not pa.types.is_nested(field.type) for field in schema if not holds_bytes(field.type)}
    there: dict[str, bool] = {}
    empty: dict[str, bool] = {}
    for _, row in islice(rows(table, header_only=True), _JUDGED_ROWS):
        for name, value in row.items():
            (there if value is not None else empty).setdefault(name, not isinstance(value, list | dict))
    return {name: there.get(name, True) for name in {**empty, **there}} if empty else there


def rows(table: Path, *, header_only: bool = False) -> Iterator[tuple[str, Row]]:
    """Yield each row with its place in the file for messages, such as `line 3`.

    `header_only` yields at most one row, whose keys are the columns. Raises `SourceError` for a damaged table.
    """
    suffix = table.suffix.lower()
    try:
        if suffix == ".parquet":
            yield from _parquet_rows(table)
        elif suffix in (".jsonl", ".ndjson"):
            yield from _json_rows(table)
        else:
            yield from _csv_rows(table, header_only)
    except UnicodeDecodeError as error:
        raise _not_utf8(table) from error
    except OSError as error:
        raise SourceError(f"{table}: can't read this table: {error.strerror or error}") from error


def _not_utf8(table: Path) -> SourceError:
    """Return the error that says where the text stops being UTF-8, and which encoding it may have."""
    try:
        data = read_file(table, _MAX_SHOWN_BYTES)
    except OSError:
        return SourceError(f"{table}: not UTF-8 text; save it as UTF-8")
    try:
        data.decode()
        what, byte = "zero bytes in the first line", data.index(0)
    except UnicodeDecodeError as error:
        what, byte = error.reason, error.start
    line = data.count(b"\n", 0, byte) + 1
    guess = ", probably UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") or 0 in data[:4] else ""
    return SourceError(f"{table}: not UTF-8 text{guess} ({what} at byte {byte}, line {line}); save it as UTF-8")


def _csv_rows(table: Path, header_only: bool) -> Iterator[tuple[str, Row]]:
    # utf-8-sig drops the byte order mark that spreadsheets write, which would become part of the first name.
    with open(table, encoding="utf-8-sig", newline="", opener=open_regular) as file:
        first = next(bounded_lines(file, MAX_LINE_CHARS), "")
        if "\0" in first:
            raise _not_utf8(table)
        file.seek(0)
        lines = csv.reader(bounded_lines(file, MAX_LINE_CHARS), delimiter=_delimiter(table, first), strict=True)
        try:
            header = [name.strip() for name in next(lines, [])]
            if len(set(header)) < len(header):
                raise SourceError(f"{table}: the first line must name each column once, got: {', '.join(header)}")
            if header_only:
                yield "line 1", dict.fromkeys(header)
                return
            for cells in lines:
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise SourceError(
                        f"{table}: line {lines.line_num} has {len(cells)} cells, the first line names {len(header)}"
                    )
                yield f"line {lines.line_num}", dict(zip(header, cells, strict=True))
        except csv.Error as error:
            raise SourceError(f"{table}: line {lines.line_num} is not CSV: {error}") from error


def _delimiter(table: Path, first_line: str) -> str:
    if table.suffix.lower() == ".tsv":
        return "\t"
    return max(",;\t", key=first_line.count)


def _json_rows(table: Path) -> Iterator[tuple[str, Row]]:
    with open(table, encoding="utf-8-sig", opener=open_regular) as file:
        for number, line in enumerate(bounded_lines(file, MAX_JSON_LINE_CHARS), 1):
            if not line.strip():
                continue
            try:
                row = parse_json(line)
            except ValueError as error:
                why = getattr(error, "msg", error)
                raise SourceError(f"{table}: line {number} is not JSON: {why}") from error
            if not isinstance(row, dict):
                raise SourceError(f"{table}: line {number} must be a JSON object, got {type(row).__name__}")
            yield f"line {number}", row


def _parquet_rows(table: Path) -> Iterator[tuple[str, Row]]:
    number = 0
    with open_parquet(table) as file:
        try:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=list(columns(table))):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
        except pa.ArrowException as error:
            raise SourceError(f"{table}: damaged Parquet file: {error}") from error


def open_parquet(table: Path) -> pq.ParquetFile:
    """Return the Parquet file at `table`. Raises `SourceError` when it can't be read as one."""
    try:
        stream = streamed(table)
        if stream is not None:
            return pq.ParquetFile(stream)
        require_regular(table)
        return pq.ParquetFile(table)
    except (pa.ArrowException, OSError) as error:
        why = getattr(error, "strerror", None) or error
        raise SourceError(f"{table}: can't read this as Parquet: {why}") from error


def holds_bytes(kind: pa.DataType) -> bool:
    """Return whether values of an Arrow type hold raw bytes, at any depth."""
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return True
    return any(holds_bytes(kind.field(place).type) for place in range(kind.num_fields))


def fields_json(row: Row, leave_out: frozenset[str], *, guess_numbers: bool = False) -> str:
    """Return the columns of `row` as one JSON object, except those to `leave_out`; empty text when none is left.

    `guess_numbers` makes a number of text that looks like one, and null of empty text.
    """
    fields = {name: value for name, value in row.items() if name not in leave_out}
    if not fields:
        return ""
    if guess_numbers:
        fields = {name: _guess(value) for name, value in fields.items()}
    try:
        return json.dumps(fields, separators=(",", ":"), allow_nan=False, default=str)
    except ValueError:
        # JSON has no NaN; a missing measurement is null.
        return json.dumps(_without_nan(fields), separators=(",", ":"), default=str)


def _guess(text: str) -> str | int | float | None:
    if not text:
        return None
    found = _NUMBER.fullmatch(text)
    whole = found is not None and found[1] is None and found[2] is None
    if found is None or len(text) > (_MAX_NUMBER_CHARS if whole else _MAX_FRACTION_CHARS):
        return text
    if whole:
        return int(text)
    number = float(text)
    return number if math.isfinite(number) else text


def _without_nan(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return value
