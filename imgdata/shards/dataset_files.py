"""A plan or a manifest -> the names of all files of the dataset, in the order in which they may be removed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imgdata.dataset.columns import columns_file
from imgdata.dataset.manifest import MANIFEST, Manifest
from imgdata.shards.plan import shard_file
from imgdata.shards.sidecars import TIMM_INFO, dali_index_path

REJECTS = "rejects.jsonl"
REPAIRS = "repairs.jsonl"
_SIDECARS = (MANIFEST, TIMM_INFO, "croissant.json", "README.md", REJECTS, REPAIRS)


def planned_files(plan: Mapping[str, Any]) -> list[str]:
    """Return the files of the dataset that a plan, as it is kept in the job folder, would make."""
    return _all(plan["name"], list(plan["shards"]), planned_shards(plan))


def planned_shards(plan: Mapping[str, Any]) -> list[str]:
    """Return the tars that a plan, as it is kept in the job folder, would make, in order."""
    return [shard_file(plan["name"], split, n) for split, count in plan["shards"].items() for n in range(count)]


def files_of(manifest: Manifest) -> list[str]:
    """Return the files of a finished dataset, of all its versions."""
    shards = [shard.file for split in manifest.splits for shard in split.shards]
    files = _all(manifest.name, [split.name for split in manifest.splits], shards)
    for number, version in enumerate(manifest.versions, 1):
        files += [list_file(name, number) for name in (REJECTS, REPAIRS)]
        files += [name for split in version.splits.values() for name in (split.index, columns_file(split.index))]
    return list(dict.fromkeys(files))


def list_file(name: str, version: int) -> str:
    """Return the name of the list `REJECTS` or `REPAIRS` of what a version added: `rejects.v2.jsonl`."""
    return name if version == 1 else name.replace(".", f".v{version}.")


def _all(name: str, splits: list[str], shards: list[str]) -> list[str]:
    """Return every file of a dataset, the manifest first: without `dataset.json` the folder is no finished dataset."""
    return [
        *_SIDECARS,
        *(
            f"{name}-{split}{suffix}"
            for split in splits
            for suffix in (".index.parquet", ".columns.parquet", ".wids.json")
        ),
        *(file for tar in shards for file in (tar, dali_index_path(Path(tar)).name)),
    ]
