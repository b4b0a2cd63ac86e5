"""MATLAB 5 file bytes -> Python values: structs, cells, text and numbers, which is what ImageNet's `meta.mat` holds.

Written after MathWorks' "MAT-File Format" (level 5): a header of 128 bytes, then data elements, each a tag
(type, bytes) and its content padded to 8 bytes; matrices are elements that hold elements.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from imgdata.errors import SourceError

_HEADER = 128
_MAX_BYTES = 16 * 2**20
"""Most bytes of all decompressed elements; the real `meta.mat` has about 5 MB."""
_MAX_NUMBERS = 2**20
"""Most numbers in one matrix."""
_MAX_DEPTH = 16
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _CHAR = 1, 2, 4
_NUMERIC = range(6, 16)
_COMPLEX_FLAG = 0x0800

_NUMBER_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXT_TYPES = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}


class _DamageError(Exception):
    """Damage in the bytes, described by the message."""


def load_mat(data: bytes, where: str) -> dict[str, Any]:
    """Return the variables of a MATLAB 5 file by name.

    A struct array becomes a list of dictionaries, a cell array a list (both in column order), text a `str`, numbers a
    flat float64 array. `where` names the file in messages. Raises `SourceError` for anything else, or for damage.
    """
    try:
        if len(data) > _HEADER + _MAX_BYTES:
            raise _DamageError(f"more than {_MAX_BYTES:,} bytes")
        if len(data) < _HEADER or data[126:128] not in (b"IM", b"MI"):
            raise _DamageError("no MATLAB 5 header")
        order = "<" if data[126:128] == b"IM" else ">"
        return dict(_variables(memoryview(data)[_HEADER:], order))
    except (_DamageError, IndexError, OverflowError, ValueError, struct.error, zlib.error) as error:
        raise SourceError(f"{where}: not a readable MATLAB 5 file ({error}); get it again") from error


def _variables(data: memoryview, order: str) -> Iterator[tuple[str, Any]]:
    left = _MAX_BYTES
    for kind, content in _elements(data, order, packed=False):
        if kind == _COMPRESSED:
            inflated = _inflated(content, left)
            left -= len(inflated)
            parts = _elements(inflated, order)
        else:
            parts = iter([(kind, content)])
        for part_kind, part in parts:
            if part_kind != _MATRIX:
                raise _DamageError(f"element of type {part_kind} where a matrix must be")
            yield _matrix(part, order, _MAX_DEPTH)


def _inflated(content: memoryview, max_bytes: int) -> memoryview:
    inflater = zlib.decompressobj()
    # A limit of 0 would mean no limit.
    data = inflater.decompress(content, max_bytes + 1)
    if len(data) > max_bytes or not inflater.eof:
        raise _DamageError(f"compressed data cut short, or more than {_MAX_BYTES:,} bytes unpacked")
    return memoryview(data)


def _elements(data: memoryview, order: str, *, packed: bool = True) -> Iterator[tuple[int, memoryview]]:
    """Yield the type and content of one element after the other; `packed` elements end on whole 8 bytes."""
    position = 0
    while position < len(data):
        if len(data) - position < 8:
            raise _DamageError("element without a tag")
        kind, size = struct.unpack_from(f"{order}II", data, position)
        start, step = position + 8, 8 + (-(-size // 8) * 8 if packed else size)
        if kind >> 16:
            # The small form: size and type share the first word, the content is the second one.
            kind, size, start, step = kind & 0xFFFF, kind >> 16, position + 4, 8
        if start + size > len(data):
            raise _DamageError(f"element of {size} bytes, {len(data) - start} are left")
        yield kind, data[start : start + size]
        position += step


def _matrix(data: memoryview, order: str, depth: int) -> tuple[str, Any]:
    """Return a matrix element as (name, value)."""
    if not depth:
        raise _DamageError(f"nested deeper than {_MAX_DEPTH}")
    if not data:
        # How an empty cell is written.
        return "", np.empty(0)
    parts = list(_elements(data, order))
    if len(parts) < 3 or len(parts[0][1]) != 8:
        raise _DamageError("matrix without flags, dimensions and name")
    flags = struct.unpack(f"{order}II", parts[0][1])[0]
    sizes = _numbers(parts[1], order)
    count = int(np.prod(sizes)) if len(sizes) else 0
    name = bytes(parts[2][1]).decode("latin-1")
    matrix_class, content = flags & 0xFF, parts[3:]
    if matrix_class == _CELL:
        return name, [_value(part, order, depth) for part in _exactly(content, count)]
    if matrix_class == _STRUCT:
        return name, _struct(content, count, order, depth)
    if matrix_class == _CHAR:
        return name, _text(content, order)
    if matrix_class in _NUMERIC and not flags & _COMPLEX_FLAG:
        return name, _numbers(_exactly(content, 1)[0], order)
    raise _DamageError(f"a matrix of class {matrix_class}, which is not supported")


def _struct(content: list[tuple[int, memoryview]], count: int, order: str, depth: int) -> list[dict[str, Any]]:
    if len(content) < 2:
        raise _DamageError("struct without field names")
    width = int(_numbers(content[0], order)[0])
    joined = bytes(content[1][1])
    if width < 1 or len(joined) % width:
        raise _DamageError("struct with damaged field names")
    fields = [joined[at : at + width].split(b"\0")[0].decode("latin-1") for at in range(0, len(joined), width)]
    values = [_value(part, order, depth) for part in _exactly(content[2:], count * len(fields))]
    return [dict(zip(fields, values[at : at + len(fields)], strict=True)) for at in range(0, len(values), len(fields))]


def _value(part: tuple[int, memoryview], order: str, depth: int) -> Any:
    kind, content = part
    if kind != _MATRIX:
        raise _DamageError(f"element of type {kind} where a matrix must be")
    return _matrix(content, order, depth - 1)[1]


def _numbers(part: tuple[int, memoryview], order: str) -> Any:
    kind, content = part
    if kind not in _NUMBER_TYPES:
        raise _DamageError(f"numbers of type {kind}")
    if len(content) > _MAX_NUMBERS * int(_NUMBER_TYPES[kind][1]):
        raise _DamageError(f"a matrix of more than {_MAX_NUMBERS:,} numbers")
    return np.frombuffer(content, f"{order}{_NUMBER_TYPES[kind]}").astype(np.float64)


def _text(content: list[tuple[int, memoryview]], order: str) -> str:
    kind, data = _exactly(content, 1)[0]
    if kind not in _TEXT_TYPES:
        raise _DamageError(f"text of type {kind}")
    encoding = _TEXT_TYPES[kind]
    if encoding in ("utf-16", "utf-32"):
        encoding += "-le" if order == "<" else "-be"
    return bytes(data).decode(encoding)


def _exactly(content: list[tuple[int, memoryview]], count: int) -> list[tuple[int, memoryview]]:
    if len(content) != count:
        raise _DamageError(f"{len(content)} values where {count} must be")
    return content
