"""What every source returns: all samples of a raw dataset as columns, and a reader of their bytes."""

import fnmatch
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from imgdata.arrow import number_array, one_chunk, text_array, texts_at
from imgdata.dataset.target import Target
from imgdata.errors import OptionError, SourceError
from imgdata.sample import ClassName, SampleRef
from imgdata.sources.member_columns import MemberBuilder, MemberColumns, Place, splits_with
from imgdata.storage.file_names import escape_name
from imgdata.tar.keys import clean_key, equal_before, key_hashes, numbered_key

_NO_MEMBERS: Mapping[str, Place] = {}
_PART_ROWS = 8192
"""Rows that are Python objects at once; a million of them would take 100 MB."""
ONE_CLASS = "only one class"
"""Begins the note of a source that has a single class, which is mostly a folder too high or too low."""
MAX_SPLITS = 255
"""Most splits of a dataset: `Listing.split_N` is uint8."""


def title_of(path: Path) -> str:
    """Return the name of a dataset at `path`: of its folder, or of its file without the ending."""
    return (path if path.is_dir() else path.with_suffix("")).resolve().name


class Reader(Protocol):
    """Random access to the raw images, from several threads. Picklable: processes open files on first use."""

    def read(self, ref: SampleRef) -> bytes:
        """Return the encoded image of `ref`.

        Raises `ImageError` when there is none or its bytes are bad, `SourceError` when the source itself is damaged,
        and lets `OSError` and `MemoryError` pass: a failure of the system is no fault of the image.
        """
        ...

    def file(self, ref: SampleRef) -> str | Path | None:
        """Return the path of the file that holds `ref`; None for a source without files."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Listing:
    """All samples of a raw dataset, in a fixed order; about 100 bytes of memory a sample."""

    title: str
    """Short name of the dataset, fit for a file name: `imagenet`, `cifar10`, the folder's name."""
    kind: str
    """Name of the source that made the listing: `folder`, `cifar`, ..."""
    reader: Reader
    classes: tuple[ClassName, ...]
    splits: tuple[str, ...]
    """Split names; a split may be empty only between two steps of planning."""
    split_N: NDArray[np.uint8]
    """Position of each sample's split in `splits`."""
    label_N: NDArray[np.int32]
    size_N: NDArray[np.int64]
    container_N: NDArray[np.int32]
    offset_N: NDArray[np.int64]
    name_N: pa.ChunkedArray
    key_N: pa.ChunkedArray
    fields_N: pa.ChunkedArray | None = None
    """JSON objects as text; None when no sample has further columns."""
    state_N: NDArray[np.int64] | None = None
    """`SampleRef.state` of each sample; None when the states of the files were not taken."""
    exact_sizes: bool = True
    """Whether `size_N` is exact; False when it estimates the encoded images (arrays that become PNG)."""
    given_splits: bool = True
    """Whether the source had splits of its own; False when all samples were put into `train`."""
    content: str = ""
    """Hash of the bytes of all images, where the source has read them; part of the fingerprint then."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Entries passed over while listing, by reason, with counts: `hidden files`, `not images (.txt)`, ..."""
    warnings: tuple[str, ...] = ()
    """Sentences to read before training on the dataset: a class that only val has, ..."""
    members: tuple[MemberColumns, ...] = ()
    """Further images of the samples, such as masks."""
    target: Target | None = None
    """Target that columns hold; None for one class each, or nothing."""
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Class names that the source states for further columns, by column."""
    excluded: Mapping[str, int] = field(default_factory=dict)
    """Patterns of `SourceOptions.exclude` that left samples out, with counts."""

    def __post_init__(self) -> None:
        """Join the chunks of each column of texts: rows of one chunk are found without a search or a copy."""
        for name in ("name_N", "key_N", "fields_N"):
            column = getattr(self, name)
            if column is not None:
                object.__setattr__(self, name, one_chunk(column))

    def __len__(self) -> int:
        return len(self.label_N)

    @property
    def has_fields(self) -> bool:
        """Whether samples carry further columns, kept in their `json` member."""
        return self.fields_N is not None

    def refs(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> Iterator[SampleRef]:
        """Return the references at `rows`, in that order."""
        row_K: NDArray[np.int64] = np.asarray(rows, np.int64)
        row = number_array(row_K)
        no_fields = [""] * len(row_K)
        columns = (
            texts_at(self.name_N, row),
            texts_at(self.key_N, row),
            self.label_N[row_K].tolist(),
            self.size_N[row_K].tolist(),
            self.container_N[row_K].tolist(),
            self.offset_N[row_K].tolist(),
            no_fields if self.fields_N is None else texts_at(self.fields_N, row),
            [0] * len(row_K) if self.state_N is None else self.state_N[row_K].tolist(),
            *([zip(*(columns.refs(row_K) for columns in self.members), strict=True)] if self.members else []),
        )
        return map(SampleRef, *columns)

    def without_places(self) -> "Listing":
        """Return the listing without what only references are made of, which is most of its memory."""
        none_N, no_texts = np.empty(0, np.int64), pa.chunked_array([], pa.string())
        return replace(
            self,
            size_N=none_N,
            container_N=none_N.astype(np.int32),
            offset_N=none_N,
            state_N=None,
            name_N=no_texts,
            # Further columns are found by their keys.
            key_N=no_texts if self.fields_N is None else self.key_N,
        )

    def required(self, split: str) -> frozenset[str]:
        """Return the further images that every sample of a split must have: those that any of them has."""
        return frozenset(
            columns.member.name for columns in self.members if split in splits_with(columns, self.splits, self.split_N)
        )

    def with_fields(self, texts: Sequence[str]) -> "Listing":
        """Return the listing with other further columns: a JSON object for each sample, or an empty text."""
        return replace(self, fields_N=pa.chunked_array([text_array(texts)], pa.string()))

    def with_warning(self, text: str) -> "Listing":
        """Return the listing with one more warning."""
        return replace(self, warnings=(*self.warnings, text))

    def fingerprint(self) -> str:
        """Return a hash of all that decides the shards: names, keys, labels, splits, sizes, classes, fields.

        The place of the source on this machine is not part of it.
        """
        digest = xxhash.xxh3_128()
        digest.update(repr((self.classes, self.splits, self.kind)).encode())
        digest.update(self.content.encode())
        if self.target is not None:
            digest.update(repr(self.target).encode())
        for column in (self.split_N, self.label_N, self.size_N, self.offset_N):
            digest.update(np.ascontiguousarray(column).tobytes())
        for text in (self.name_N, self.key_N, self.fields_N):
            for texts in _parts(text) if text is not None else ():
                # Parts differ with how a listing was built; the text in them does not.
                digest.update("\0".join(texts).encode("utf-8", "surrogateescape") + b"\0")
        for member in self.members:
            member.update(digest)
        return digest.hexdigest()


class ListingBuilder:
    """Builder of a `Listing`, to which samples are added one by one; makes their keys clean and unique."""

    def __init__(self, exclude: Sequence[str] = ()) -> None:
        """Begin without samples; `exclude` are patterns with `*`, `?` and `[...]` for `excluded`."""
        self._matches = {pattern: re.compile(fnmatch.translate(pattern)).match for pattern in exclude}
        self._excluded: dict[str, int] = {}
        self.seen = 0
        """Entries of folders and archives that were looked at; each is a sample, or counted by `skip`."""
        self._beside = 0
        self._splits: dict[str, int] = {}
        self._split = array("B")
        self._label = array("i")
        self._size = array("q")
        self._container = array("i")
        self._offset = array("q")
        self._texts: dict[str, list[pa.Array]] = {"name": [], "key": [], "fields": []}
        self._pending: dict[str, list[str]] = {"name": [], "key": [], "fields": []}
        self._any_fields = False
        self.skipped: dict[str, int] = {}
        self.members = MemberBuilder()

    def __len__(self) -> int:
        return len(self._label)

    def add(
        self,
        *,
        split: str,
        name: str,
        key: str,
        label: int,
        size: int,
        container: int = 0,
        offset: int = 0,
        fields: str = "",
        members: Mapping[str, Place] = _NO_MEMBERS,
    ) -> None:
        """Append one sample; `key` may be any path without its extension, and is cleaned here.

        `members` are the places of its further images, by name. Raises `SourceError` when there are more
        splits than a dataset can have.
        """
        number = self._splits.setdefault(split, len(self._splits))
        if number >= MAX_SPLITS:
            raise too_many_splits(name, list(self._splits))
        if members:
            self.members.add(len(self), members)
        self._split.append(number)
        self._label.append(label)
        self._size.append(size)
        self._container.append(container)
        self._offset.append(offset)
        pending = self._pending
        # Names that are not UTF-8 on disk carry surrogates, which Arrow refuses; they are escaped.
        pending["name"].append(name if name.isascii() and "\\" not in name else escape_name(name))
        pending["key"].append(clean_key(key))
        pending["fields"].append(fields)
        self._any_fields = self._any_fields or bool(fields)
        if len(pending["name"]) >= _PART_ROWS:
            self._flush()

    def see(self, count: int = 1) -> None:
        """Count entries of a folder or an archive, each of which becomes a sample or is skipped."""
        self.seen += count

    def skip(self, what: str, count: int = 1, *, entries: bool = True) -> None:
        """Count entries that were passed over, by reason; `entries` is False for things that `see` did not count."""
        self.skipped[what] = self.skipped.get(what, 0) + count
        self._beside += 0 if entries else count

    def excluded(self, name: str) -> bool:
        """Return whether a pattern leaves `name` out, and count `name` then; call this before a sample is checked."""
        if not self._matches:
            return False
        matching = [pattern for pattern, matches in self._matches.items() if matches(name)]
        for pattern in matching:
            self._excluded[pattern] = self._excluded.get(pattern, 0) + 1
        if matching:
            self.skip("excluded")
        return bool(matching)

    def build(
        self,
        *,
        title: str,
        kind: str,
        reader: Reader,
        classes: Sequence[ClassName],
        exact_sizes: bool = True,
        given_splits: bool = True,
        warnings: Sequence[str] = (),
        content: str = "",
    ) -> Listing:
        """Return the finished listing. Raises `SourceError` when there is no sample in it."""
        accounted = len(self) + sum(self.skipped.values()) - self._beside
        assert self.seen in (0, accounted), f"{title}: saw {self.seen} entries, {accounted} are accounted for"
        if not len(self) and self._excluded:
            raise OptionError(f"nothing is left of the {self.skipped['excluded']} images of {title}")
        if not len(self):
            passed = ", ".join(f"{count} {what}" for what, count in sorted(self.skipped.items()))
            raise SourceError(f"{title}: no images found" + (f" (passed over: {passed})" if passed else ""))
        self._flush()
        split_N = np.frombuffer(self._split, np.uint8)
        return Listing(
            title=clean_title(title),
            kind=kind,
            reader=reader,
            classes=tuple(classes),
            splits=tuple(self._splits),
            split_N=split_N,
            label_N=np.frombuffer(self._label, np.int32),
            size_N=np.frombuffer(self._size, np.int64),
            container_N=np.frombuffer(self._container, np.int32),
            offset_N=np.frombuffer(self._offset, np.int64),
            name_N=pa.chunked_array(self._texts["name"], pa.string()),
            key_N=unique_keys(pa.chunked_array(self._texts["key"], pa.string())),
            fields_N=pa.chunked_array(self._texts["fields"], pa.string()) if self._any_fields else None,
            members=self.members.build(len(self)),
            exact_sizes=exact_sizes,
            given_splits=given_splits,
            skipped=dict(sorted(self.skipped.items())),
            warnings=tuple(warnings),
            excluded=dict(self._excluded),
            content=content,
        )

    def _flush(self) -> None:
        for column, texts in self._pending.items():
            if texts:
                self._texts[column].append(text_array(texts))
                texts.clear()


def too_many_splits(where: str, splits: Sequence[str]) -> SourceError:
    """Return the error for a column, or folders, with more values than splits can have."""
    return SourceError(
        f"{where}: more than {MAX_SPLITS} splits, such as {', '.join(splits[:3])} and {splits[-1]}: these are no "
        "splits; name the column of the splits with --split-column, or give --split-column '' for none"
    )


def clean_title(title: str) -> str:
    """Return `title` as the first part of shard names: lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9_]+", "-", title.lower()).strip("-") or "dataset"


def _parts(column: pa.ChunkedArray) -> Iterator[list[Any]]:
    """Yield the values of a column as lists that take little memory."""
    for chunk in column.chunks:
        for start in range(0, len(chunk), _PART_ROWS):
            yield chunk.slice(start, _PART_ROWS).to_pylist()


def unique_keys(key_N: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the keys, with `-1`, `-2`, ... appended to those that occurred before, in the same split or another.

    Some readers, such as Energon, refuse a key that occurs in two splits.
    """
    repeated = equal_before(np.concatenate([key_hashes(part) for part in _parts(key_N)] or [np.empty(0, np.uint64)]))
    if not repeated:
        return key_N
    keys: list[str] = key_N.to_pylist()
    taken = set(keys)
    counts: dict[str, int] = {}
    for row in repeated:
        key = keys[row]
        number = counts.get(key, 0) + 1
        while numbered_key(key, number) in taken:
            number += 1
        counts[key] = number
        keys[row] = numbered_key(key, number)
        taken.add(keys[row])
    return pa.chunked_array([text_array(keys)])
