"""`dataset.json` <-> `Manifest`: what a finished dataset folder holds.

The file is written last, so a folder that has it is complete.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from imgdata.checks import is_integer
from imgdata.dataset.members import Member, members_from_json, members_json
from imgdata.dataset.split_entry import (
    HASH_KINDS,
    HashKind,
    IndexPart,
    IndexParts,
    ShardRecord,
    SplitEntry,
    json_count,
    json_file_name,
    json_text,
    read_splits,
    shortened,
    split_json,
)
from imgdata.dataset.target import Target
from imgdata.dataset.versions import Version, check_versions
from imgdata.errors import OptionError, ShardError
from imgdata.sample import ClassName
from imgdata.storage.atomic import JOB_FOLDER
from imgdata.storage.local_paths import local_path
from imgdata.storage.reading import MAX_JSON_BYTES, parse_json, read_file
from imgdata.version import __version__

__all__ = [
    "HASH_KINDS",
    "MANIFEST",
    "MANIFEST_VERSION",
    "MAX_PIXELS",
    "MAX_PIXELS_VARIABLE",
    "HashKind",
    "IndexPart",
    "IndexParts",
    "Manifest",
    "ShardRecord",
    "SplitEntry",
    "dataset_folder",
    "how_to_shard",
    "is_as_written",
    "json_bytes",
    "own_max_pixels",
    "parse_manifest",
    "read_manifest",
]

MANIFEST = "dataset.json"
MANIFEST_VERSION = 1
_VERSION_OF_OTHER_HASHES = 2
"""Version of a manifest with a shard that has no sha256: versions of imgdata that know only sha256 refuse it."""
_VERSION_OF_PARTS = 3
"""Version of a manifest with an index in parts: versions of imgdata that know only one file refuse it."""
_VERSIONS = (MANIFEST_VERSION, _VERSION_OF_OTHER_HASHES, _VERSION_OF_PARTS)

MAX_PIXELS = 200_000_000
"""Images with more pixels are bad, unless the user says otherwise: `--max-pixels` of `imgdata shard`, and
`IMGDATA_MAX_PIXELS` in the environment for reading."""
MAX_PIXELS_VARIABLE = "IMGDATA_MAX_PIXELS"
_HASH_LINE = re.compile(rb'  "sha256": "([0-9a-f]{64})",\n')
"""The second line of the file, behind the opening brace."""
_HASH_AT = len(b"{\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The contents of `dataset.json`."""

    name: str
    classes: tuple[ClassName, ...]
    splits: tuple[SplitEntry, ...] = ()
    """Empty only before the sidecars are written."""
    image_extension: str
    """Extension of the images in the tars; alternatives are separated by `;`."""
    label_from: str
    """Source of the labels in the tars: `cls`, `txt`, `json:FIELD`, `folder` or `none`."""
    has_json: bool
    """Whether samples have a `json` member."""
    rejected: int
    """Samples that were left out, listed in `rejects.jsonl`."""
    target: Target | None = None
    """What a network has to say of the samples; None where it isn't said, as of datasets of one class each."""
    members: tuple[Member, ...] = ()
    """Further images of the samples, such as masks."""
    files: Mapping[str, str] = field(default_factory=dict)
    """sha256 of every other file that was written beside the shards and indices, by name."""
    imgdata: str = __version__
    """Version of imgdata that wrote the folder."""
    options: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    versions: tuple[Version, ...] = ()
    """The versions of a dataset that has grown, this one last; none where nothing was appended."""

    @property
    def version(self) -> int:
        """Number of this version of the dataset; 1 until something is appended."""
        return max(len(self.versions), 1)

    @property
    def samples(self) -> int:
        """Samples over all splits."""
        return sum(split.samples for split in self.splits)

    @property
    def has_sha256(self) -> bool:
        """Whether every shard has its sha256."""
        return all(split.has_sha256 for split in self.splits)

    @property
    def _version(self) -> int:
        if any(split.parts is not None for split in self.splits):
            return _VERSION_OF_PARTS
        return MANIFEST_VERSION if self.has_sha256 else _VERSION_OF_OTHER_HASHES

    @property
    def max_pixels(self) -> int:
        """Most pixels that an image of this dataset may have, at most `own_max_pixels`.

        A folder from elsewhere can lower the limit, never raise it.
        """
        limit = self.options.get("max_pixels")
        own = own_max_pixels()
        return min(limit, own) if isinstance(limit, int) and is_integer(limit) and limit > 0 else own

    def at(self, version: int) -> "Manifest":
        """Return what an earlier version of the dataset had, or this one. Raises `OptionError` for another number."""
        if not is_integer(version) or not 1 <= version <= self.version:
            there = "1" if self.version == 1 else f"1 to {self.version}"
            raise OptionError(f"version must be {there}, which the dataset {self.name} has, got {version!r}")
        if version == self.version:
            return self
        wanted = self.versions[version - 1]
        return replace(
            self,
            classes=self.classes[: wanted.classes],
            splits=tuple(
                replace(
                    split,
                    index=one.index,
                    index_sha256=one.index_sha256,
                    shards=split.shards[: one.shards],
                    parts=None if split.parts is None else split.parts.beginning(one.samples, one.index_sha256),
                )
                for split in self.splits
                if (one := wanted.splits.get(split.name)) is not None
            ),
            rejected=wanted.rejected,
            source=wanted.source,
            versions=self.versions[:version],
        )

    def to_bytes(self) -> bytes:
        """Return the file: the same for the same contents, without times or paths, and with its own sha256 in it."""
        content = {
            "version": self._version,
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
            **({} if self.target is None else {"target": self.target.to_dict()}),
            **members_json(self.members),
            "splits": {split.name: split_json(split) for split in self.splits},
            "classes": [{"index": i, "id": c.id, "name": c.name} for i, c in enumerate(self.classes)],
            "files": dict(self.files),
            "options": dict(self.options),
            "source": dict(self.source),
            **({"versions": [one.to_dict() for one in self.versions]} if self.versions else {}),
        }
        data = json_bytes(content)
        line = b'  "sha256": "%b",\n' % hashlib.sha256(data).hexdigest().encode()
        return data[:_HASH_AT] + line + data[_HASH_AT:]


def own_max_pixels() -> int:
    """Return the most pixels of an image that this user decodes: `IMGDATA_MAX_PIXELS`, else `MAX_PIXELS`.

    Raises `OptionError` when the variable is no number of pixels.
    """
    text = os.environ.get(MAX_PIXELS_VARIABLE, "").strip()
    if not text:
        return MAX_PIXELS
    if not re.fullmatch("[1-9][0-9]{0,17}", text):
        raise OptionError(f"{MAX_PIXELS_VARIABLE} must be a number of pixels of at least 1, got {text[:40]!r}")
    return int(text)


def is_as_written(data: bytes) -> bool:
    """Return whether `dataset.json`, of whatever version, still has the bytes that it was written with.

    Its second line holds the sha256 of all the others, as `sed 2d dataset.json | sha256sum` gives it.
    """
    line = _HASH_LINE.match(data, _HASH_AT)
    return line is not None and hashlib.sha256(data[:_HASH_AT] + data[line.end() :]).hexdigest() == line[1].decode()


def dataset_folder(path: str | Path) -> Path:
    """Return the folder that `path` means: itself, or the one in which it is the `dataset.json`.

    Raises `OptionError` for a URL.
    """
    path = local_path(path)
    return path.parent if path.name == MANIFEST else path


def how_to_shard(folder: Path) -> str:
    """Return what to do about raw images where shards are needed."""
    return f"make a dataset with `imgdata shard {folder} OUT`"


def json_bytes(content: object) -> bytes:
    """Return `content` as indented UTF-8 JSON with a newline at the end."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def read_manifest(folder: Path) -> Manifest:
    """Read `dataset.json` of `folder`. Raises `ShardError` that says what the folder is instead, and what to do."""
    path = folder / MANIFEST
    try:
        return parse_manifest(read_file(path, MAX_JSON_BYTES), path)
    except (FileNotFoundError, NotADirectoryError):
        raise ShardError(_no_manifest(folder)) from None
    except OSError as error:
        raise ShardError(f"{path}: can't be read: {error.strerror or error}") from error


def parse_manifest(data: bytes, path: Path) -> Manifest:
    """Return the manifest in `data`, read from `path`. Raises `ShardError` when it is damaged or of a later version."""
    try:
        text = data.decode(json.detect_encoding(data))
        # Of 200,000 shards 30 MB each, which nobody needs any longer than this.
        del data
        content = parse_json(text)
        del text
        version = content["version"]
        if version not in _VERSIONS:
            other = shortened(content.get("imgdata", "unknown"))
            raise ShardError(
                f"{path}: version must be {MANIFEST_VERSION} to {_VERSION_OF_PARTS}, got {shortened(version)}; "
                f"it was written by another imgdata ({other}): upgrade imgdata"
            )
        classes = tuple(ClassName(json_text(entry["id"]), json_text(entry["name"])) for entry in content["classes"])
        splits = read_splits(content["splits"])
        versions = tuple(map(Version.from_dict, content.get("versions", ())))
        samples = {split.name: [shard.samples for shard in split.shards] for split in splits}
        check_versions(versions, samples, len(classes))
        return Manifest(
            name=json_file_name(content["name"]),
            classes=classes,
            splits=splits,
            image_extension=json_text(content["image_extension"]),
            label_from=json_text(content["label_from"]),
            has_json=bool(content["json"]),
            target=Target.from_dict(content["target"]) if "target" in content else None,
            members=members_from_json(content.get("members", ())),
            rejected=json_count(content["counts"]["rejected"]),
            files={json_file_name(name): json_text(sha256) for name, sha256 in content.get("files", {}).items()},
            imgdata=json_text(content["imgdata"]),
            options=dict(content["options"]),
            source=_source(content["source"]),
            versions=versions,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ShardError(
            f"{path}: damaged ({type(error).__name__}: {error}); remove it and run `imgdata index {path.parent}`"
        ) from error


def _source(content: Mapping[str, Any]) -> dict[str, Any]:
    if not all(isinstance(warning, str) for warning in list(content.get("warnings", []))):
        raise TypeError("warnings must be texts")
    return dict(content)


def _no_manifest(folder: Path) -> str:
    if not folder.exists():
        return f"{folder}: no such folder"
    if not folder.is_dir():
        return f"{folder}: a file; give the folder that holds {MANIFEST}"
    if (folder / JOB_FOLDER).is_dir():
        return f"{folder}: not finished; run the same `imgdata shard` command again, it resumes"
    if any(folder.glob("*.tar")):
        return f"{folder}: tars without {MANIFEST}; build it with `imgdata index {folder}`"
    return f"{folder}: no {MANIFEST} and no tars in it, so it is not sharded; {how_to_shard(folder)}"
