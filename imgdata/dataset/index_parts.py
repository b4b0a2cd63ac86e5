"""Rows of a large split -> the parts of its index: a Parquet file of some millions of rows each, and their places."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa

from imgdata.arrow import cut_tables
from imgdata.dataset.index_writing import write_index
from imgdata.dataset.manifest import IndexPart, IndexParts
from imgdata.dataset.members import members_in
from imgdata.dataset.places import WordNumbers, word_columns, write_places
from imgdata.errors import ShardError
from imgdata.storage.reading import file_sha256

PART_ROWS = 1 << 24
"""Rows of a part: some 500 MB of Parquet and as many of places."""


def part_names(index_file: str, number: int) -> tuple[str, str]:
    """Return the file names of a part: Parquet, and places. `index_file` is the name that one file would have."""
    stem = index_file.removesuffix(".index.parquet")
    return f"{stem}.index-{number:05d}.parquet", f"{stem}.places-{number:05d}.npy"


def write_parts(
    folder: Path,
    index_file: str,
    tables: Iterable[pa.Table],
    shards: Sequence[str],
    *,
    part_rows: int | None = None,
    before: IndexParts | None = None,
) -> IndexParts:
    """Write the rows of all `tables`, in order, in parts of `part_rows`: by default `PART_ROWS`.

    The bytes are the same however the rows are chunked. `shards` are the names of the split's tars in order. With
    `before` the rows come behind those of an index in the same folder, whose files stay. Takes memory for one part.
    Raises `ShardError`, `OutputError`.
    """
    words = WordNumbers(shards, {} if before is None else before.words)
    parts: list[IndexPart] = [] if before is None else list(before.parts)
    names: list[str] = []
    for number, table in enumerate(cut_tables(tables, part_rows or PART_ROWS)):
        index, places = (folder / name for name in part_names(index_file, number))
        write_index(index, table)
        write_places(places, table, words)
        names = table.column_names
        parts.append(IndexPart(index.name, file_sha256(index), places.name, file_sha256(places), len(table)))
    if len(words.words("shard")) != len(shards):
        raise ShardError(f"shards of an index must be those of its split, got {words.words('shard')[len(shards)]!r}")
    return IndexParts(
        parts=tuple(parts),
        words={column: words.words(column) for column in word_columns(members_in(names)) if column != "shard"},
        has_json="json_offset" in names,
        crop_ready="restart_interval" in names,
        members=members_in(names),
    )
