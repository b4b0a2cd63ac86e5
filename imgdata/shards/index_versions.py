"""The rows of a dataset that has grown, read again from its tars -> the index and columns of each of its versions."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from imgdata.dataset.columns import columns_file, write_columns
from imgdata.dataset.index import Index, index_id
from imgdata.dataset.index_writing import write_index
from imgdata.dataset.manifest import Manifest
from imgdata.dataset.versions import SplitVersion, Version
from imgdata.errors import ShardError
from imgdata.shards.sidecars import SplitRecord
from imgdata.storage.reading import file_sha256


def index_name(manifest: Manifest | None, split: str, usual: str) -> str:
    """Return the name of a split's index: that of the newest version where the dataset has grown, else `usual`."""
    if manifest is None or not manifest.versions:
        return usual
    return next((entry.index for entry in manifest.splits if entry.name == split), usual)


def write_versions(
    folder: Path, manifest: Manifest, splits: Sequence[SplitRecord]
) -> tuple[tuple[Version, ...], list[str]]:
    """Write index and columns of every version; return the versions, and the names of the files of columns.

    Raises `ShardError` where a shard of an earlier version is missing: its positions would mean other samples.
    """
    records = {split.name: split for split in splits}
    listed = {entry.name: [shard.file for shard in entry.shards] for entry in manifest.splits}
    written: dict[str, SplitVersion] = {}
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
                written[split.index] = _write(folder, record, split)
                names += [] if record.columns is None else [columns_file(split.index)]
            found[name] = written[split.index]
        versions.append(replace(version, splits=found))
    return tuple(versions), names


def _write(folder: Path, record: SplitRecord, split: SplitVersion) -> SplitVersion:
    samples = sum(shard.samples for shard in record.shards[: split.shards])
    path = folder / split.index
    write_index(path, pa.concat_tables(record.tables).slice(0, samples))
    if record.columns is not None and record.columns.num_columns:
        write_columns(folder / columns_file(split.index), record.columns.slice(0, samples))
    return replace(split, index_sha256=file_sha256(path), samples=samples, fingerprint=index_id(Index(path)))
