"""Rows of a split -> its index file: the same bytes for the same rows, however they come."""

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from imgdata.arrow import cut_tables, number_array, numbers, text_array
from imgdata.dataset.index_schema import LOOSE_FACTS, ROW_GROUP, WORD, schema_with
from imgdata.errors import ShardError
from imgdata.storage.atomic import whole_file


def write_index(
    path: Path,
    tables: pa.Table | Iterable[pa.Table],
    *,
    archives: Sequence[tuple[str, int]] = (),
    has_fields: bool = False,
) -> None:
    """Write the rows of `tables` to `path`, whole or not at all: the same bytes for the same rows.

    Of loose files, `archives` are names and states of those that the column `file` counts, and `has_fields` says
    whether the column `fields` has any.

    Each table is asked for when the one before it was written, and takes no memory afterwards: `ROW_GROUP` rows are in
    memory at once. Raises `ShardError` when the columns are not those of `index_schema`, `OutputError` when the file
    can't be written.
    """
    rest = iter([tables] if isinstance(tables, pa.Table) else tables)
    first = next(rest)
    schema = schema_with(first.column_names)
    words = [field.name for field in schema if field.type == WORD]
    with (
        whole_file(path) as temporary,
        pq.ParquetWriter(
            temporary,
            schema,
            compression="zstd",
            use_dictionary=words,
            write_statistics=["label", "width", "height"],
        ) as writer,
    ):
        is_empty = True
        for rows in cut_tables(_checked(itertools.chain([first], rest), schema.names), ROW_GROUP):
            writer.write_table(_row_group(rows, schema))
            is_empty = False
            # Not kept while the next ones come together.
            del rows
        if is_empty:
            writer.write_table(schema.empty_table())
        if "state" in schema.names:
            facts = {"archives": list(archives), "has_fields": has_fields}
            writer.add_key_value_metadata({LOOSE_FACTS: json.dumps(facts).encode()})


def _checked(tables: Iterable[pa.Table], names: Sequence[str]) -> Iterator[pa.Table]:
    for table in tables:
        if table.column_names != names:
            raise ShardError(f"columns of an index must be {names}, got {table.column_names}")
        yield table


def _row_group(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = []
    for field in schema:
        column = rows.column(field.name)
        if field.type == WORD:
            column = pa.chunked_array([_words_by_first_row(column)])
        columns.append(column.cast(field.type))
    return pa.table(columns, schema=schema)


def _words_by_first_row(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """Return the words with a dictionary in the order of their first rows, whoever built the chunks."""
    column = column.unify_dictionaries()
    is_encoded = pa.types.is_dictionary(column.type) and column.num_chunks > 0
    words = column.chunk(0).dictionary.to_pylist() if is_encoded else []
    if not words or len(set(words)) < len(words) or column.null_count:
        return column.cast(pa.string()).combine_chunks().dictionary_encode()
    # Without a text for each row, which takes more memory than all other columns.
    word_N = numbers(column)
    first_W = np.full(len(words), len(word_N))
    first_W[word_N[::-1]] = np.arange(len(word_N))[::-1]
    order_W = np.argsort(first_W, kind="stable")[: np.count_nonzero(first_W < len(word_N))]
    place_W = np.zeros(len(words), np.int32)
    place_W[order_W] = np.arange(len(order_W))
    return pa.DictionaryArray.from_arrays(number_array(place_W[word_N]), text_array([words[at] for at in order_W]))
