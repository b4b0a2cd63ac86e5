"""`dataset.json` <-> `Manifest`: what a finished dataset folder holds.

The file is written last, so a folder that has it is complete.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imgdata.errors import ShardError
from imgdata.files import JOB_FOLDER
from imgdata.sample import ClassName

MANIFEST = "dataset.json"
MANIFEST_VERSION = 1


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """One finished tar."""

    file: str
    """Name of the tar in the dataset's folder."""
    samples: int
    bytes: int
    """Size of the file."""
    sha256: str


@dataclass(frozen=True, slots=True)
class SplitEntry:
    """One split: its tars in order, and its index."""

    name: str
    index: str
    """Name of the index file in the dataset's folder."""
    index_sha256: str
    shards: tuple[ShardRecord, ...]

    @property
    def samples(self) -> int:
        """Samples over all shards."""
        return sum(shard.samples for shard in self.shards)

    @property
    def bytes(self) -> int:
        """Size of all tars."""
        return sum(shard.bytes for shard in self.shards)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The contents of `dataset.json`."""

    name: str
    classes: tuple[ClassName, ...]
    splits: tuple[SplitEntry, ...]
    image_extension: str
    """Extension of the images in the tars; alternatives are separated by `;`."""
    label_from: str
    """Where the labels stand in the tars: `cls`, `txt`, `json:FIELD`, `folder` or `none`."""
    has_json: bool
    """Whether samples have a `json` member."""
    rejected: int
    """Samples that were left out, listed in `rejects.jsonl`."""
    imgdata: str
    """Version of imgdata that wrote the folder."""
    options: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        """Samples over all splits."""
        return sum(split.samples for split in self.splits)

    def to_bytes(self) -> bytes:
        """The file: the same for the same contents, without times or places."""
        content = {
            "version": MANIFEST_VERSION,
            "imgdata": self.imgdata,
            "name": self.name,
            "counts": {
                "samples": self.samples,
                "shards": sum(len(split.shards) for split in self.splits),
                "bytes": sum(split.bytes for split in self.splits),
                "classes": len(self.classes),
                "rejected": self.rejected,
            },
            "image_extension": self.image_extension,
            "label_from": self.label_from,
            "json": self.has_json,
            "splits": {split.name: _split_json(split) for split in self.splits},
            "classes": [{"index": i, "id": c.id, "name": c.name} for i, c in enumerate(self.classes)],
            "options": dict(self.options),
            "source": dict(self.source),
        }
        return json_bytes(content)


def json_bytes(content: object) -> bytes:
    """`content` as indented UTF-8 JSON with a newline at the end."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _split_json(split: SplitEntry) -> dict[str, Any]:
    return {
        "samples": split.samples,
        "bytes": split.bytes,
        "index": split.index,
        "index_sha256": split.index_sha256,
        "shards": [{"file": s.file, "samples": s.samples, "bytes": s.bytes, "sha256": s.sha256} for s in split.shards],
    }


def read_manifest(folder: Path) -> Manifest:
    """`dataset.json` of `folder`. Raises `ShardError` that says what the folder is instead, and what to do."""
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise ShardError(_no_manifest(folder)) from None
    except OSError as error:
        raise ShardError(f"{path}: can't be read: {error.strerror or error}") from error
    return parse_manifest(data, path)


def parse_manifest(data: bytes, path: Path) -> Manifest:
    """The manifest in `data`, read from `path`. Raises `ShardError` when it is damaged or of a later version."""
    try:
        content = json.loads(data)
        version = content["version"]
        if version != MANIFEST_VERSION:
            raise ShardError(
                f"{path}: version must be {MANIFEST_VERSION}, got {version!r}; it was written by another imgdata "
                f"({content.get('imgdata', 'unknown')}): upgrade imgdata"
            )
        return Manifest(
            name=content["name"],
            classes=tuple(ClassName(entry["id"], entry["name"]) for entry in content["classes"]),
            splits=tuple(
                SplitEntry(
                    name,
                    split["index"],
                    split["index_sha256"],
                    tuple(ShardRecord(s["file"], s["samples"], s["bytes"], s["sha256"]) for s in split["shards"]),
                )
                for name, split in content["splits"].items()
            ),
            image_extension=content["image_extension"],
            label_from=content["label_from"],
            has_json=content["json"],
            rejected=content["counts"]["rejected"],
            imgdata=content["imgdata"],
            options=content["options"],
            source=content["source"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ShardError(
            f"{path}: damaged ({type(error).__name__}: {error}); remove it and run `imgdata index {path.parent}`"
        ) from error


def _no_manifest(folder: Path) -> str:
    if not folder.exists():
        return f"{folder}: no such folder"
    if not folder.is_dir():
        return f"{folder}: a file; give the folder that holds {MANIFEST}"
    if (folder / JOB_FOLDER).is_dir():
        return f"{folder}: not finished; run the same `imgdata shard` command again, it resumes"
    if any(folder.glob("*.tar")):
        return f"{folder}: tars without {MANIFEST}; build it with `imgdata index {folder}`"
    return f"{folder}: no {MANIFEST} and no tars in it; make a dataset with `imgdata shard SOURCE {folder}`"
