"""Rows of an index that is made anew, the index before -> the rows with names and hashes of the raw dataset."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imgdata.arrow import number_array, numbers
from imgdata.dataset.index import Index
from imgdata.dataset.manifest import Manifest
from imgdata.dataset.split import open_index
from imgdata.errors import ShardError
from imgdata.storage.folder import DatasetFolder
from imgdata.storage.reading import is_of_the_system

_PLACE = ("key", "offset", "xxh64")
"""Columns that tell whether a row is of the same image in the same place."""


def keep_sources(tables: Sequence[pa.Table], folder: Path, before: Manifest | None) -> list[pa.Table]:
    """Return the tables with what earlier indices know of the raw dataset: the same images' names there and hashes.

    Raises `ShardError` where the system can't read one of them.
    """
    rows_of: dict[str, pa.Table] = {}
    parted = {split.index: split for split in (before.splits if before is not None else ()) if split.parts is not None}
    versions = [] if before is None else [version.splits.values() for version in before.versions]
    now = [] if before is None else [split.index for split in before.splits]
    for name in dict.fromkeys([*(split.index for version in versions for split in version), *now]):
        try:
            index = open_index(DatasetFolder(folder), parted[name]) if name in parted else Index(folder / name)
            rows_of |= _old_rows(index)
        except ShardError as error:
            if is_of_the_system(error.__cause__):
                # What only this file knows would be lost.
                raise
            # Damaged or missing, which may be why it is rebuilt.
            continue
    return [_with_sources(table, rows_of.get(table["shard"][0].as_py())) for table in tables]


def _old_rows(index: Index) -> dict[str, pa.Table]:
    """Return the rows of each shard, with the columns that identify the image and its source."""
    columns = ("source", *_PLACE, *("restart_interval", "original_xxh64") * index.has_crop_ready)
    index.load(("shard", *columns))
    try:
        for name in ("shard", *columns):
            index.column(name).validate(full=True)
    except pa.ArrowInvalid as error:
        raise ShardError(f"{index.path}: damaged index ({error})") from error
    table = pa.table({name: index.column(name) for name in columns})
    order_N = np.argsort(index.shard_N, kind="stable")
    starts = np.searchsorted(index.shard_N[order_N], range(1, len(index.words("shard"))))
    rows = zip(index.words("shard"), np.split(order_N, starts), strict=True)
    return {shard: table.take(number_array(row_N)) for shard, row_N in rows}


def _with_sources(table: pa.Table, old: pa.Table | None) -> pa.Table:
    """Return the `table` of one tar with the sources of `old`, where key, place and bytes of the image are the same."""
    if old is None or not len(old):
        return table
    order_N = np.argsort(numbers(old["offset"]), kind="stable")
    at_N = np.searchsorted(numbers(old["offset"])[order_N], numbers(table["offset"])).clip(max=len(old) - 1)
    old = old.take(number_array(order_N[at_N]))
    same = [pc.equal(old[name], table[name]) for name in _PLACE]
    is_same = pc.and_(pc.and_(same[0], same[1]), same[2])
    for name in old.column_names:
        if name not in _PLACE:
            table = with_column(table, name, pc.if_else(is_same, old[name], table[name]))
    return table


def with_column(table: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Return the table with other values in a column that it has."""
    position = table.schema.get_field_index(name)
    return table.set_column(position, table.schema.field(position), values)
