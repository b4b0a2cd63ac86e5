"""Python values and NumPy arrays <-> Arrow arrays.

pyarrow's own ways between lists, arrays and NumPy import pandas, where it is installed; that takes 0.3 s, as
long as writing 3,000 images. Arrays made of buffers do without.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_MOST_BYTES = 2**31 - 1024
"""Most bytes of an array of texts, whose offsets are int32."""


def text_array(texts: Sequence[str]) -> pa.StringArray:
    """Return the strings as one Arrow array; together below 2 GiB."""
    joined = "".join(texts)
    if joined.isascii():
        data, lengths = joined.encode("ascii"), map(len, texts)
    else:
        encoded = [text.encode() for text in texts]
        data, lengths = b"".join(encoded), map(len, encoded)
    offset_N = np.zeros(len(texts) + 1, np.int32)
    np.cumsum(np.fromiter(lengths, np.int64, len(texts)), out=offset_N[1:])
    return pa.StringArray.from_buffers(len(texts), pa.py_buffer(offset_N), pa.py_buffer(data))


def one_chunk(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the texts in one chunk, where Arrow can hold them in one: below 2 GiB."""
    if column.num_chunks < 2 or column.nbytes > _MOST_BYTES:
        return column
    return pa.chunked_array([column.combine_chunks()])


def texts_at(column: pa.ChunkedArray, rows: pa.Array) -> list[Any]:
    """Return the values of some rows of a column, in that order.

    A column of several chunks, or one, is copied whole by its own `take`: 0.1 s for a million names.
    """
    found: list[Any] = (column.chunk(0) if column.num_chunks == 1 else column).take(rows).to_pylist()
    return found


def number_array(values_N: NDArray[Any]) -> pa.Array:
    """Return the numbers as an Arrow array of the same type, which shares their memory."""
    values_N = np.ascontiguousarray(values_N)
    return pa.Array.from_buffers(pa.from_numpy_dtype(values_N.dtype), len(values_N), [None, pa.py_buffer(values_N)])


def numbers(column: pa.ChunkedArray) -> NDArray[Any]:
    """Return the numbers of an Arrow column without nulls; of a dictionary column, the positions of its words."""
    chunks = [chunk.indices if pa.types.is_dictionary(chunk.type) else chunk for chunk in column.chunks]
    parts = [_numbers(chunk) for chunk in chunks]
    kind = column.type.index_type if pa.types.is_dictionary(column.type) else column.type
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, kind.to_pandas_dtype()), *parts])


def _numbers(array: pa.Array) -> NDArray[Any]:
    kind = np.dtype(array.type.to_pandas_dtype())
    return np.frombuffer(array.buffers()[1], kind, len(array), array.offset * kind.itemsize)


def column_array(values: Sequence[object], kind: pa.DataType) -> pa.Array:
    """Return texts or numbers as an Arrow array of type `kind`; a dictionary is made of texts."""
    if pa.types.is_dictionary(kind):
        return text_array(values).dictionary_encode().cast(kind)  # type: ignore[arg-type]
    if pa.types.is_string(kind):
        return text_array(values)  # type: ignore[arg-type]
    return number_array(np.asarray(values, kind.to_pandas_dtype()))


def cut_tables(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Yield the rows of all tables, in order, in tables of `rows`, the last one shorter; none without any row."""
    waiting: list[pa.Table] = []
    count = 0
    for table in tables:
        waiting.append(table)
        count += len(table)
        while count >= rows:
            joined = pa.concat_tables(waiting)
            waiting, count = [joined.slice(rows)], count - rows
            yield joined.slice(0, rows)
            del joined
    if count:
        yield pa.concat_tables(waiting)
