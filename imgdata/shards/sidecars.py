"""Finished tars + index rows -> every file that stands beside them, `dataset.json` last.

Each file is a function of the manifest alone: no times, no places, the same bytes for the same dataset.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from imgdata.dataset.index import write_index
from imgdata.errors import ShardError
from imgdata.files import write_atomic
from imgdata.manifest import MANIFEST, Manifest, ShardRecord, SplitEntry, json_bytes
from imgdata.sample import ClassName
from imgdata.shards.card import CARD, card
from imgdata.shards.croissant import CROISSANT, croissant
from imgdata.version import __version__

__all__ = [
    "TIMM_INFO",
    "ShardRecord",
    "SplitRecord",
    "dali_index_path",
    "timm_info",
    "wids_file",
    "wids_index",
    "write_dali_index",
    "write_manifest_files",
    "write_sidecars",
]

TIMM_INFO = "_info.json"

DaliMember = tuple[str, int, int, str]
"""Extension, first data byte, size in bytes, member name."""


@dataclass(frozen=True, slots=True)
class SplitRecord:
    """One split whose tars are finished."""

    name: str
    index_file: str
    shards: tuple[ShardRecord, ...]
    table: pa.Table
    """The rows of the index, in the order of the shards."""


def write_sidecars(
    folder: Path,
    *,
    name: str,
    classes: Sequence[ClassName],
    splits: Sequence[SplitRecord],
    options: Mapping[str, Any],
    source: Mapping[str, Any],
    image_extension: str,
    rejected: int,
    has_json: bool,
    label_from: str = "cls",
) -> Manifest:
    """Write every sidecar but the DALI indices, which are made with each shard; `dataset.json` comes last.

    `image_extension` may name alternatives, separated by `;`. Raises `ShardError` when the tables don't fit
    the shards, `OutputError` when a file can't be written.
    """
    entries = []
    for split in splits:
        expected = sum(shard.samples for shard in split.shards)
        if len(split.table) != expected:
            raise ShardError(f"split {split.name}: index must have {expected} rows, got {len(split.table)}")
        path = folder / split.index_file
        write_index(path, split.table)
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        entries.append(SplitEntry(split.name, split.index_file, sha256, tuple(split.shards)))
    manifest = Manifest(
        name=name,
        classes=tuple(classes),
        splits=tuple(entries),
        image_extension=image_extension,
        label_from=label_from,
        has_json=has_json,
        rejected=rejected,
        imgdata=__version__,
        options=options,
        source=source,
    )
    write_manifest_files(folder, manifest)
    return manifest


def write_manifest_files(folder: Path, manifest: Manifest) -> None:
    """Write all that follows from the manifest, and the manifest itself last."""
    write_atomic(folder / TIMM_INFO, timm_info(manifest))
    for split in manifest.splits:
        write_atomic(folder / wids_file(manifest, split), wids_index(split))
    write_atomic(folder / CROISSANT, croissant(manifest))
    write_atomic(folder / CARD, card(manifest))
    write_atomic(folder / MANIFEST, manifest.to_bytes())


def timm_info(manifest: Manifest) -> bytes:
    """`_info.json` of timm's reader."""
    splits = {
        split.name: {
            "name": split.name,
            "num_samples": split.samples,
            "filenames": [shard.file for shard in split.shards],
            "shard_lengths": [shard.samples for shard in split.shards],
        }
        for split in manifest.splits
    }
    return json_bytes({"splits": splits})


def wids_file(manifest: Manifest, split: SplitEntry) -> str:
    """Name of the split's wids index."""
    return f"{manifest.name}-{split.name}.wids.json"


def wids_index(split: SplitEntry) -> bytes:
    """Webdataset's indexed form (`wids-shard-index-v1`); the tars' hashes stand in `dataset.json`."""
    shards = [{"url": s.file, "nsamples": s.samples, "filesize": s.bytes} for s in split.shards]
    return json_bytes({"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": shards})


def dali_index_path(tar: Path) -> Path:
    """Where DALI looks for the index of `tar`: its base name up to the first dot, with `.idx`."""
    return tar.with_name(tar.name.split(".", 1)[0] + ".idx")


def dali_index(samples: Iterable[Sequence[DaliMember]]) -> bytes:
    """NVIDIA DALI's index v1.2: for each sample the extension, data offset, size and name of its members.

    DALI reads it word by word as ASCII, so other characters in names, which serve messages only, become `_`.
    Raises `ShardError` without samples, which DALI refuses.
    """
    lines = [
        b" ".join(b"%b %d %d %b" % (_word(ext), offset, size, _word(name)) for ext, offset, size, name in members)
        for members in samples
    ]
    if not lines:
        raise ShardError("a DALI index must have at least one sample, got none")
    return b"v1.2 %d\n%b\n" % (len(lines), b"\n".join(lines))


def write_dali_index(path: Path, samples: Iterable[Sequence[DaliMember]]) -> None:
    """Write `dali_index` of `samples` to `path`."""
    write_atomic(path, dali_index(samples))


def _word(text: str) -> bytes:
    if text.isascii() and text.isprintable() and " " not in text:
        return text.encode("ascii")
    return "".join(c if c.isascii() and c.isprintable() and c != " " else "_" for c in text).encode("ascii")
