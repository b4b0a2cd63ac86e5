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
from typing import Any, Literal, get_args

from imgdata.checks import is_integer
from imgdata.dataset.members import Member, members_from_json, members_json
from imgdata.dataset.target import Target
from imgdata.dataset.versions import Version, check_versions
from imgdata.errors import OptionError, ShardError
from imgdata.sample import ClassName
from imgdata.storage.atomic import JOB_FOLDER
from imgdata.storage.local_paths import local_path
from imgdata.storage.reading import MAX_JSON_BYTES, parse_json, read_file
from imgdata.version import __version__

MANIFEST = "dataset.json"
MANIFEST_VERSION = 1
_VERSION_OF_OTHER_HASHES = 2
"""Version of a manifest with a shard that has no sha256: versions of imgdata that know only sha256 refuse it."""

HashKind = Literal["sha256", "xxh128", "none"]
"""Hash of the bytes of a whole shard: sha256, xxh128 (XXH3 of 128 bits), or none at all."""
HASH_KINDS: tuple[HashKind, ...] = get_args(HashKind)

MAX_PIXELS = 200_000_000
"""Images with more pixels are bad, unless the user says otherwise: `--max-pixels` of `imgdata shard`, and
`IMGDATA_MAX_PIXELS` in the environment for reading."""
MAX_PIXELS_VARIABLE = "IMGDATA_MAX_PIXELS"
_MAX_NUMBER = 2**62
_MAX_SHOWN_CHARS = 80

_HASH_LINE = re.compile(rb'  "sha256": "([0-9a-f]{64})",\n')
"""The second line of the file, behind the opening brace."""
_HASH_AT = len(b"{\n")


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """One finished tar."""

    file: str
    """Name of the tar in the dataset's folder."""
    samples: int
    bytes: int
    """Size of the file."""
    digest: str
    """Hash of the file in hexadecimal; empty where `hash` is `none`."""
    hash: HashKind = "sha256"
    """Kind of `digest`."""


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

    @property
    def has_sha256(self) -> bool:
        """Whether every shard has its sha256."""
        return all(shard.hash == "sha256" for shard in self.shards)


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
                replace(split, index=one.index, index_sha256=one.index_sha256, shards=split.shards[: one.shards])
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
            "version": MANIFEST_VERSION if self.has_sha256 else _VERSION_OF_OTHER_HASHES,
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
            "splits": {split.name: _split_json(split) for split in self.splits},
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


def _split_json(split: SplitEntry) -> dict[str, Any]:
    return {
        "samples": split.samples,
        "bytes": split.bytes,
        "index": split.index,
        "index_sha256": split.index_sha256,
        "shards": [
            {
                "file": s.file,
                "samples": s.samples,
                "bytes": s.bytes,
                **({"hash": "none"} if s.hash == "none" else {s.hash: s.digest}),
            }
            for s in split.shards
        ],
    }


def read_manifest(folder: Path) -> Manifest:
    """Read `dataset.json` of `folder`. Raises `ShardError` that says what the folder is instead, and what to do."""
    path = folder / MANIFEST
    try:
        data = read_file(path, MAX_JSON_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise ShardError(_no_manifest(folder)) from None
    except OSError as error:
        raise ShardError(f"{path}: can't be read: {error.strerror or error}") from error
    return parse_manifest(data, path)


def parse_manifest(data: bytes, path: Path) -> Manifest:
    """Return the manifest in `data`, read from `path`. Raises `ShardError` when it is damaged or of a later version."""
    try:
        content = parse_json(data)
        version = content["version"]
        if version not in (MANIFEST_VERSION, _VERSION_OF_OTHER_HASHES):
            other = _short(content.get("imgdata", "unknown"))
            raise ShardError(
                f"{path}: version must be {MANIFEST_VERSION} or {_VERSION_OF_OTHER_HASHES}, got {_short(version)}; "
                f"it was written by another imgdata ({other}): upgrade imgdata"
            )
        classes = tuple(ClassName(_text(entry["id"]), _text(entry["name"])) for entry in content["classes"])
        splits = _splits(content["splits"])
        versions = tuple(map(Version.from_dict, content.get("versions", ())))
        samples = {split.name: [shard.samples for shard in split.shards] for split in splits}
        check_versions(versions, samples, len(classes))
        return Manifest(
            name=_file_name(content["name"]),
            classes=classes,
            splits=splits,
            image_extension=_text(content["image_extension"]),
            label_from=_text(content["label_from"]),
            has_json=bool(content["json"]),
            target=Target.from_dict(content["target"]) if "target" in content else None,
            members=members_from_json(content.get("members", ())),
            rejected=_count(content["counts"]["rejected"]),
            files={_file_name(name): _text(sha256) for name, sha256 in content.get("files", {}).items()},
            imgdata=_text(content["imgdata"]),
            options=dict(content["options"]),
            source=_source(content["source"]),
            versions=versions,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ShardError(
            f"{path}: damaged ({type(error).__name__}: {error}); remove it and run `imgdata index {path.parent}`"
        ) from error


def _splits(content: Mapping[str, Any]) -> tuple[SplitEntry, ...]:
    splits = tuple(
        SplitEntry(
            _file_name(name),
            _file_name(split["index"]),
            _text(split["index_sha256"]),
            tuple(map(_shard, split["shards"])),
        )
        for name, split in content.items()
    )
    if not splits or not all(split.shards for split in splits):
        raise ValueError("there must be a split, and a shard in each")
    return splits


def _shard(content: Mapping[str, Any]) -> ShardRecord:
    kind: HashKind = "xxh128" if "xxh128" in content else "sha256"
    # That a hash is missing is said, not left out: else a damaged manifest would look like one.
    if content.get("hash") == "none":
        kind = "none"
    digest = "" if kind == "none" else _text(content[kind])
    return ShardRecord(_file_name(content["file"]), _count(content["samples"]), _count(content["bytes"]), digest, kind)


def _source(content: Mapping[str, Any]) -> dict[str, Any]:
    if not all(isinstance(warning, str) for warning in list(content.get("warnings", []))):
        raise TypeError("warnings must be texts")
    return dict(content)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{_short(value)} must be a text")
    # JSON can name halves of surrogate pairs, which are no text: this fails for them.
    value.encode()
    return value


def _count(value: Any) -> int:
    if not is_integer(value) or not 0 <= value < _MAX_NUMBER:
        raise TypeError(f"{_short(value)} must be a whole number, 0 or more")
    return int(value)


def _file_name(value: object) -> str:
    """Check a file name: nothing outside the folder is ever read or written because of what this manifest says."""
    name = _text(value)
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise ValueError(f"{_short(name)} must be the name of a file in the folder")
    return name


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN_CHARS else text[:_MAX_SHOWN_CHARS] + "..."


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
