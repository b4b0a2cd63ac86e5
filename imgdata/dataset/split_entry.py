"""A split's entry in `dataset.json` <-> `SplitEntry`: its tars in order, and its index, of one file or in parts."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Literal, get_args

from imgdata.checks import is_integer

HashKind = Literal["sha256", "xxh128", "none"]
"""Hash of the bytes of a whole shard: sha256, xxh128 (XXH3 of 128 bits), or none at all."""
HASH_KINDS: tuple[HashKind, ...] = get_args(HashKind)

_MAX_NUMBER = 2**62
_MAX_SHOWN_CHARS = 80


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
class IndexPart:
    """One part of an index: a Parquet file of some rows, and the same rows as records of one size."""

    file: str
    """Name of the Parquet file in the dataset's folder."""
    sha256: str
    places: str
    """Name of the file of records."""
    places_sha256: str
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexParts:
    """The index of a large split: its parts in order, and what they have in common."""

    parts: tuple[IndexPart, ...]
    words: Mapping[str, tuple[str, ...]]
    """By column, such as `format` and `mode`, its words by the numbers that the records have."""
    has_json: bool
    """Whether there are columns of `json` members."""
    crop_ready: bool
    """Whether there are columns of crop-ready images."""
    members: tuple[str, ...] = ()
    """Names of further images that there are columns of."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the hashes of all files, in hexadecimal: what names the contents of the index."""
        lines = "".join(f"{part.sha256}\n{part.places_sha256}\n" for part in self.parts)
        return hashlib.sha256(lines.encode()).hexdigest()

    def beginning(self, rows: int, sha256: str) -> "IndexParts | None":
        """Return the first parts, which have `rows` rows and this hash; None where no parts do."""
        for number, end in enumerate(accumulate(part.rows for part in self.parts), 1):
            if end == rows:
                first = replace(self, parts=self.parts[:number])
                return first if first.sha256 == sha256 else None
        return None


@dataclass(frozen=True, slots=True)
class SplitEntry:
    """One split: its tars in order, and its index."""

    name: str
    index: str
    """Name of the index file in the dataset's folder; of an index in parts the name that one file would have."""
    index_sha256: str
    """sha256 of the index file; of an index in parts that of the hashes of all their files."""
    shards: tuple[ShardRecord, ...]
    parts: IndexParts | None = None
    """The parts of the index; None where it is one file."""

    @property
    def index_files(self) -> tuple[str, ...]:
        """Names of all files of the index."""
        if self.parts is None:
            return (self.index,)
        return tuple(name for part in self.parts.parts for name in (part.file, part.places))

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


def split_json(split: SplitEntry) -> dict[str, Any]:
    """Return the entry as values for JSON."""
    return {
        "samples": split.samples,
        "bytes": split.bytes,
        "index": split.index,
        "index_sha256": split.index_sha256,
        **({} if split.parts is None else {"index_parts": _parts_json(split.parts)}),
        "shards": _shards_json(split),
    }


def _shards_json(split: SplitEntry) -> list[Any] | dict[str, Any]:
    """Return the shards, one by one; where the index is in parts as columns: there may be hundreds of thousands."""
    kinds = {shard.hash for shard in split.shards}
    if split.parts is not None and len(kinds) == 1:
        return {
            "hash": kinds.pop(),
            "file": [shard.file for shard in split.shards],
            "samples": [shard.samples for shard in split.shards],
            "bytes": [shard.bytes for shard in split.shards],
            "digest": [shard.digest for shard in split.shards],
        }
    return [
        {
            "file": s.file,
            "samples": s.samples,
            "bytes": s.bytes,
            **({"hash": "none"} if s.hash == "none" else {s.hash: s.digest}),
        }
        for s in split.shards
    ]


def _parts_json(parts: IndexParts) -> dict[str, Any]:
    return {
        "words": {column: list(words) for column, words in parts.words.items()},
        "json": parts.has_json,
        "crop_ready": parts.crop_ready,
        **({"members": list(parts.members)} if parts.members else {}),
        "parts": [
            {
                "file": part.file,
                "rows": part.rows,
                "sha256": part.sha256,
                "places": part.places,
                "places_sha256": part.places_sha256,
            }
            for part in parts.parts
        ],
    }


def read_splits(content: Mapping[str, Any]) -> tuple[SplitEntry, ...]:
    """Return the entries of `splits`. Raises `ValueError`, `KeyError`, `TypeError` for what they can't be."""
    splits = tuple(
        SplitEntry(
            json_file_name(name),
            json_file_name(split["index"]),
            json_text(split["index_sha256"]),
            _shards(split["shards"]),
            _parts(split["index_parts"]) if "index_parts" in split else None,
        )
        for name, split in content.items()
    )
    if not splits or not all(split.shards for split in splits):
        raise ValueError("there must be a split, and a shard in each")
    return splits


def _parts(content: Mapping[str, Any]) -> IndexParts:
    parts = tuple(
        IndexPart(
            json_file_name(part["file"]),
            json_text(part["sha256"]),
            json_file_name(part["places"]),
            json_text(part["places_sha256"]),
            json_count(part["rows"]),
        )
        for part in content["parts"]
    )
    if not parts or not all(part.rows for part in parts):
        raise ValueError("an index in parts must have a part, and a row in each")
    return IndexParts(
        parts=parts,
        words={str(column): tuple(map(json_text, words)) for column, words in content["words"].items()},
        has_json=bool(content["json"]),
        crop_ready=bool(content["crop_ready"]),
        members=tuple(map(json_text, content.get("members", ()))),
    )


def _shards(content: list[Any] | dict[str, Any]) -> tuple[ShardRecord, ...]:
    if not isinstance(content, dict):
        return tuple(map(_shard, content))
    kind = content["hash"]
    if kind not in HASH_KINDS:
        raise ValueError(f"hash must be {', '.join(HASH_KINDS)}, got {shortened(kind)}")
    columns = zip(content["file"], content["samples"], content["bytes"], content["digest"], strict=True)
    return tuple(
        ShardRecord(json_file_name(file), json_count(samples), json_count(num_bytes), json_text(digest), kind)
        for file, samples, num_bytes, digest in columns
    )


def _shard(content: Mapping[str, Any]) -> ShardRecord:
    kind: HashKind = "xxh128" if "xxh128" in content else "sha256"
    # That a hash is missing is said, not left out: else a damaged manifest would look like one.
    if content.get("hash") == "none":
        kind = "none"
    digest = "" if kind == "none" else json_text(content[kind])
    return ShardRecord(
        json_file_name(content["file"]), json_count(content["samples"]), json_count(content["bytes"]), digest, kind
    )


def json_text(value: object) -> str:
    """Return `value` where it is a text. Raises `TypeError`, `ValueError`."""
    if not isinstance(value, str):
        raise TypeError(f"{shortened(value)} must be a text")
    # JSON can name halves of surrogate pairs, which are no text: this fails for them.
    value.encode()
    return value


def json_count(value: Any) -> int:
    """Return `value` where it is a whole number of 0 or more. Raises `TypeError`."""
    if not is_integer(value) or not 0 <= value < _MAX_NUMBER:
        raise TypeError(f"{shortened(value)} must be a whole number, 0 or more")
    return int(value)


def json_file_name(value: object) -> str:
    """Return `value` where it is the name of a file in the folder. Raises `TypeError`, `ValueError`.

    Nothing outside the folder is ever read or written because of what a manifest says.
    """
    name = json_text(value)
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise ValueError(f"{shortened(name)} must be the name of a file in the folder")
    return name


def shortened(value: object) -> str:
    """Return `value` as Python writes it, without the end of a long one."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN_CHARS else text[:_MAX_SHOWN_CHARS] + "..."
