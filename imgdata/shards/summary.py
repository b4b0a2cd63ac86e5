"""Reports of shards, or a finished dataset -> the result of a run; and the events of a run for whoever shows them."""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from imgdata.dataset.manifest import Manifest, read_manifest
from imgdata.errors import ShardError
from imgdata.shards.dataset_files import REJECTS, REPAIRS, list_file
from imgdata.shards.record import ShardReport
from imgdata.shards.sidecars import dali_index_path


class Work(Protocol):
    """What a run is to write: a `Plan`, or a part of one."""

    @property
    def num_samples(self) -> int:
        """Samples of all shards."""
        ...

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        ...


class Watcher:
    """An observer of a run's progress, which does nothing. Override the methods whose events you want to show."""

    def stage(self, what: str) -> None:
        """Show that a stage begins: `listing`, `planning`, `writing` or `finishing`."""

    def planned(self, plan: Work, samples_done: int) -> None:
        """Show the plan; `samples_done` samples were finished by an earlier run."""

    def advanced(self, samples: int, num_bytes: int, rejects: int) -> None:
        """Show how much more was written since the last call."""

    def retried(self, what: str) -> None:
        """Show, in a sentence, which shard a cluster writes again, and why."""


@dataclass(frozen=True, kw_only=True)
class ShardSummary:
    """The result of a run."""

    out: Path
    name: str
    splits: Mapping[str, Mapping[str, int]]
    """Number of `samples`, `shards` and `bytes` of each split."""
    rejected: Mapping[str, int]
    """Images left out, by reason."""
    repaired: int
    skipped: Mapping[str, int]
    """Files passed over while listing."""
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    samples_written: int = 0
    """Number of samples written by this run; fewer than all when an earlier run had finished some shards."""
    resumed_shards: int = 0
    already_complete: bool = False
    version: int = 1
    """Version of the dataset, to which an append adds; `splits` and the others are of what it added."""

    @property
    def samples(self) -> int:
        """Samples of all splits."""
        return sum(split["samples"] for split in self.splits.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as JSON values."""
        values = dataclasses.asdict(self) | {"out": str(self.out), "samples": self.samples}
        values["images_per_s"] = round(self.samples_written / self.seconds, 1) if self.seconds else 0.0
        values["seconds"] = round(self.seconds, 3)
        return values


@dataclass(frozen=True, kw_only=True)
class PartSummary:
    """The result of one part."""

    out: Path
    part: int | None
    """Number of the part, from 0; None when the dataset is complete already."""
    parts: int | None
    """Number of parts."""
    shards: int
    """Shards of this part."""
    samples: int
    """Samples in the shards of this part."""
    bytes: int
    """Bytes of the shards of this part."""
    rejected: Mapping[str, int]
    """Images of this part that were left out, by reason."""
    seconds: float = 0.0
    samples_written: int = 0
    """Samples written by this run; fewer than all when an earlier run had finished some shards."""
    resumed_shards: int = 0
    already_complete: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as JSON values."""
        values = dataclasses.asdict(self) | {"out": str(self.out), "seconds": round(self.seconds, 3)}
        values["images_per_s"] = round(self.samples_written / self.seconds, 1) if self.seconds else 0.0
        return values


def split_totals(reports: Iterable[ShardReport]) -> dict[str, dict[str, int]]:
    """Return the numbers of `samples`, `shards` and `bytes` of each split."""
    totals: dict[str, dict[str, int]] = {}
    for report in reports:
        split = totals.setdefault(report.split, {"samples": 0, "shards": 0, "bytes": 0})
        split["samples"] += report.samples
        split["shards"] += bool(report.samples)
        split["bytes"] += report.bytes
    return totals


def finished_summary(out: Path) -> ShardSummary:
    """Return the summary of a dataset that was finished before, from its manifest. Raises `ShardError`."""
    manifest = read_manifest(out)
    for split in manifest.splits:
        for shard in split.shards:
            path = out / shard.file
            if not path.exists() or path.stat().st_size != shard.bytes or not dali_index_path(path).exists():
                raise ShardError(
                    f"{path}: missing, not of {shard.bytes} bytes, or without its .idx; --overwrite writes all again"
                )
    return manifest_summary(out, manifest, lambda name: _lines(out / name))


def manifest_summary(out: Path, manifest: Manifest, lines: Callable[[str], Sequence[str]]) -> ShardSummary:
    """Return the summary of a finished dataset; `lines` reads a list by its name, none where there is no such list."""

    def of_all_versions(name: str) -> list[str]:
        return [line for number in range(1, manifest.version + 1) for line in lines(list_file(name, number))]

    return ShardSummary(
        out=out,
        name=manifest.name,
        splits={
            split.name: {"samples": split.samples, "shards": len(split.shards), "bytes": split.bytes}
            for split in manifest.splits
        },
        rejected=reasons(json.loads(line) for line in of_all_versions(REJECTS)),
        repaired=len(of_all_versions(REPAIRS)),
        skipped=manifest.source["skipped"],
        warnings=tuple(manifest.source["warnings"]),
        already_complete=True,
        version=manifest.version,
    )


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines() if path.exists() else []


def reasons(rejects: Iterable[Mapping[str, str]]) -> dict[str, int]:
    """Return the number of rejects for each reason."""
    return dict(sorted(Counter(reject["reason"] for reject in rejects).items()))
