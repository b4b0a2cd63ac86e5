"""The columns of an index: those of every dataset, and those of some."""

from collections.abc import Sequence

import pyarrow as pa

from imgdata.dataset.members import loose_columns, member_columns, members_in

WORD = pa.dictionary(pa.int32(), pa.string())
"""Type of a column with few distinct words."""

INDEX_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("shard", WORD, nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("mode", WORD, nullable=False),
        pa.field("format", WORD, nullable=False),
        pa.field("orientation", pa.uint8(), nullable=False),
        pa.field("xxh64", pa.uint64(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
    ]
)
"""Columns of every index: `offset` is the image's first byte in its tar, `label` -1 means none,
`orientation` is EXIF's (1 upright), `xxh64` the hash of the image's bytes, `source` the name in the raw dataset."""

JSON_FIELDS = (
    pa.field("json_offset", pa.int64(), nullable=False),
    pa.field("json_size", pa.int64(), nullable=False),
    pa.field("json_xxh64", pa.uint64(), nullable=False),
)
"""Further columns when samples have a `json` member: its place and hash; size 0 for samples without that member."""

CROP_READY_FIELDS = (
    pa.field("restart_interval", pa.uint16(), nullable=False),
    pa.field("original_xxh64", pa.uint64(), nullable=False),
)
"""Further columns of a dataset that was made crop-ready: MCUs between two restart markers of the image, 0 without
them; and the hash of the bytes that it was made of."""

LOOSE_FIELDS = (
    pa.field("file", pa.int32(), nullable=False),
    pa.field("state", pa.int64(), nullable=False),
    pa.field("path", pa.string(), nullable=False),
    pa.field("fields", pa.string(), nullable=False),
)
"""Further columns of an index of files that were not sharded. Of an image in an archive `file` is the archive's number;
of others it is -1, `state` what `storage.file_state` said of the file, and `path` its name where `source` is not that.
`fields` has further columns of the source as a JSON object, or nothing. `xxh64` is a hash of name and size. A further
image has columns of its own for `file`, `state` and `path`, such as `mask_file`."""
LOOSE_FACTS = b"imgdata.loose"
"""Key of the Parquet file's metadata under which archives of loose files stand."""

ROW_GROUP = 1 << 17
"""Rows of a row group."""


def member_fields(name: str) -> tuple[pa.Field, ...]:
    """Return the columns of a further image of the samples: its place, its format and its hash; size 0 for none."""
    kinds = (pa.int64(), pa.int64(), WORD, pa.uint64())
    return tuple(
        pa.field(column, kind, nullable=False) for column, kind in zip(member_columns(name), kinds, strict=True)
    )


def index_schema(
    *, has_json: bool, crop_ready: bool = False, loose: bool = False, members: Sequence[str] = ()
) -> pa.Schema:
    """Return `INDEX_SCHEMA` with `JSON_FIELDS` behind it when samples have a `json` member, and `CROP_READY_FIELDS`.

    Behind them are the columns of each of the `members`, further images of the samples, and behind all of them the
    `LOOSE_FIELDS` of files that were not sharded, and those of each of their further images.
    """
    of_members = [field for name in members for field in member_fields(name)]
    of_files = [*LOOSE_FIELDS, *(field for name in members for field in _loose_fields(name))] if loose else []
    return pa.schema([*INDEX_SCHEMA, *JSON_FIELDS * has_json, *CROP_READY_FIELDS * crop_ready, *of_members, *of_files])


def _loose_fields(name: str) -> tuple[pa.Field, ...]:
    """Return the columns that say in which file a further image lies."""
    kinds = (pa.int32(), pa.int64(), pa.string())
    return tuple(
        pa.field(column, kind, nullable=False) for column, kind in zip(loose_columns(name), kinds, strict=True)
    )


def schema_with(names: Sequence[str]) -> pa.Schema:
    """Return the schema of an index with the columns `names`."""
    return index_schema(
        has_json="json_offset" in names,
        crop_ready="restart_interval" in names,
        loose="state" in names,
        members=members_in(names),
    )
