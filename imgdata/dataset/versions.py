"""What `dataset.json` says of the versions of a dataset that has grown <-> `Version`.

An append adds shards behind those of a split, rows behind those of its index, and classes behind the others. So an
earlier version is the beginning of each: the first shards of each split, with the index that the version was written
with, which stays in the folder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from imgdata.dataset.split_entry import json_count, json_file_name, json_text


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitVersion:
    """One split in one version."""

    index: str
    """Name of the index file of this version."""
    index_sha256: str
    shards: int
    """Number of the split's shards, from the first, that the version has."""
    samples: int
    fingerprint: str
    """`index_id` of the split: what the states of loaders and saved views of this version were made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of a dataset, and the run that added what it has beyond the one before."""

    splits: Mapping[str, SplitVersion]
    classes: int
    """Number of the dataset's classes, from the first, that the version has."""
    rejected: int
    """Images that were left out in all runs up to this one."""
    options: Mapping[str, Any]
    """Options of the run."""
    source: Mapping[str, Any]
    """Source of the run, as `dataset.json` describes it."""

    def to_dict(self) -> dict[str, Any]:
        """Return what `dataset.json` holds."""
        return {
            "splits": {
                name: {
                    "index": split.index,
                    "index_sha256": split.index_sha256,
                    "shards": split.shards,
                    "samples": split.samples,
                    "fingerprint": split.fingerprint,
                }
                for name, split in self.splits.items()
            },
            "classes": self.classes,
            "rejected": self.rejected,
            "options": dict(self.options),
            "source": dict(self.source),
        }

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> "Version":
        """Return the version that `to_dict` gave. Raises `ValueError` and the like for anything else."""
        return Version(
            splits={json_text(name): _split(split) for name, split in content["splits"].items()},
            classes=json_count(content["classes"]),
            rejected=json_count(content["rejected"]),
            options=dict(content["options"]),
            source=dict(content["source"]),
        )


def check_versions(versions: Sequence[Version], samples: Mapping[str, Sequence[int]], classes: int) -> None:
    """Raise `ValueError` where versions are not the beginnings of what the dataset has.

    `samples` are the samples of each shard, by split.
    """
    before: Mapping[str, SplitVersion] = {}
    for version in versions:
        for name, split in version.splits.items():
            shards = samples.get(name, ())
            earlier = before[name].shards if name in before else 0
            if not max(1, earlier) <= split.shards <= len(shards):
                raise ValueError(f"a version of {name} must have {max(1, earlier)} to {len(shards)} shards")
            if split.samples != sum(shards[: split.shards]):
                raise ValueError(f"a version of {name} must have the samples of its {split.shards} shards")
        if not set(before) <= set(version.splits) or version.classes > classes:
            raise ValueError("a version must have the splits of the one before, and no more classes than the dataset")
        before = version.splits


def _split(content: Mapping[str, Any]) -> SplitVersion:
    return SplitVersion(
        index=json_file_name(content["index"]),
        index_sha256=json_text(content["index_sha256"]),
        shards=json_count(content["shards"]),
        samples=json_count(content["samples"]),
        fingerprint=json_text(content["fingerprint"]),
    )
