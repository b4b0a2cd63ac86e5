"""The rows of a dataset that has grown, read again from its tars -> the index and columns of each of its versions."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from imgdata.dataset.columns import columns_file, write_columns
from imgdata.dataset.index import index_id
from imgdata.dataset.manifest import Manifest, SplitEntry
from imgdata.dataset.split import open_index
from imgdata.dataset.versions import SplitVersion, Version
from imgdata.errors import ShardError
from imgdata.shards.sidecars import SplitRecord, write_any_index
from imgdata.storage.folder import DatasetFolder


def index_name(manifest: Manifest | None, split: str, usual: str) -> str:
    """Return the name of a split's index: that of the newest version where the dataset has grown, else `usual`."""
    if manifest is None or not manifest.versions:
        return usual
    return next((entry.index for entry in manifest.splits if entry.name == split), usual)


def write_versions(
    folder: Path, manifest: Manifest, splits: Sequence[SplitRecord]
) -> tuple[tuple[Version, ...], list[str], dict[str, SplitEntry]]:
    """Write index and columns of every version; return the versions, the names of the files of columns, and the splits.

    The splits are those of the newest version, by name.
    Raises `ShardError` where a shard of an earlier version is missing: its positions would mean other samples.
    """
    records = {split.name: split for split in splits}
    listed = {entry.name: [shard.file for shard in entry.shards] for entry in manifest.splits}
    written: dict[str, SplitVersion] = {}
    entries: dict[str, SplitEntry] = {}
    names: list[str] = []
    versions = []
    for version in manifest.versions:
        found = {}
        for name, split in version.splits.items():
            if split.index not in written:
                record = records.get(name)
                there = [] if record is None else [shard.file for shard in record.shards[: split.shards]]
                if record is None or there != listed[name][: split.shards]:
                    raise ShardError(
                        f"{folder}: shards of split {name} are missing that an earlier version has; copy them again"
                    )
                entries[name] = _write(folder, record, split, entries.get(name))
                written[split.index] = _version(folder, entries[name], split)
                names += [] if record.columns is None else [columns_file(split.index)]
            found[name] = written[split.index]
        versions.append(replace(version, splits=found))
    return tuple(versions), names, entries


def _write(folder: Path, record: SplitRecord, split: SplitVersion, before: SplitEntry | None) -> SplitEntry:
    shards = record.shards[: split.shards]
    samples = sum(shard.samples for shard in shards)
    rows = pa.concat_tables(record.tables).slice(0, samples)
    if record.columns is not None and record.columns.num_columns:
        write_columns(folder / columns_file(split.index), record.columns.slice(0, samples))
    if before is None or before.parts is None:
        return write_any_index(folder, record.name, split.index, shards, [rows])
    added = rows.slice(before.samples)
    return write_any_index(folder, record.name, split.index, shards, [added], before=before.parts)


def _version(folder: Path, entry: SplitEntry, split: SplitVersion) -> SplitVersion:
    identity = index_id(open_index(DatasetFolder(folder), entry))
    return replace(split, index_sha256=entry.index_sha256, samples=entry.samples, fingerprint=identity)
