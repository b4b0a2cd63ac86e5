"""Listing + options -> which sample goes into which shard, before a byte is written."""

import contextlib
from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from imgdata.dataset.members import Member
from imgdata.errors import ImageError
from imgdata.images.encode import STORED_FORMATS, extension_of
from imgdata.images.probe import probe
from imgdata.order.epoch_order import stored_order
from imgdata.sample import ClassName, SampleRef
from imgdata.shards.options import ShardOptions
from imgdata.shards.prepare import prepare
from imgdata.shards.store_readers import reading_ahead
from imgdata.sources.listing import Listing, Reader
from imgdata.sources.reading import read_sample, retried
from imgdata.tar.archive import BLOCK, END_OF_ARCHIVE, padded

SURVEY_SAMPLES = 64
"""Number of images that are read before planning, for their formats and encoded sizes."""
JSON_MEMBER_BYTES = 1024
"""Header and usual data of a `json` member, for the plan's estimate."""


@dataclass(frozen=True, slots=True)
class ShardTask:
    """One shard to write: all that a worker needs, picklable, independent of every other shard."""

    folder: Path
    file: str
    split: str
    refs: tuple[SampleRef, ...]
    reader: Reader
    options: ShardOptions
    extension: str
    """Extension of every image member: `jpg`, `png` or `webp`."""
    json_classes: tuple[ClassName, ...] | None
    """Classes to name in the `json` member of each sample; None when samples have no such member."""
    inodes: bool = True
    """Whether the states of `refs` count inodes, where those are steady."""
    members: tuple[Member, ...] = ()
    """Further images of the samples, in the order of `SampleRef.members`."""
    required: frozenset[str] = frozenset()
    """Names of the members that each sample of the split must have."""


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """One split: its samples in the order of the shards, and where each shard starts."""

    name: str
    row_N: NDArray[np.int64]
    """Rows of the listing, in shard order."""
    start_K: NDArray[np.int64]
    """First position in `row_N` of each shard."""
    estimated_bytes: int
    """Size of all tars of the split."""

    def rows(self, shard: int) -> NDArray[np.int64]:
        """Return the rows of the listing that shard number `shard` holds."""
        end = self.start_K[shard + 1] if shard + 1 < len(self.start_K) else len(self.row_N)
        return self.row_N[self.start_K[shard] : end]


@dataclass(frozen=True, slots=True)
class Plan:
    """Every shard of a dataset."""

    name: str
    listing: Listing
    options: ShardOptions
    extension: str
    splits: tuple[SplitPlan, ...]
    is_exact: bool = True
    """Whether sizes are exact; where images are re-encoded, sizes are estimates."""

    @property
    def num_samples(self) -> int:
        """Samples of all splits."""
        return sum(len(split.row_N) for split in self.splits)

    @property
    def num_shards(self) -> int:
        """Shards of all splits."""
        return sum(len(split.start_K) for split in self.splits)

    @property
    def has_json(self) -> bool:
        """Whether samples have a `json` member."""
        return self.options.json_members or self.listing.has_fields

    @property
    def members(self) -> tuple[Member, ...]:
        """Further images of the samples, such as masks."""
        return tuple(columns.member for columns in self.listing.members)

    def without_places(self) -> "Plan":
        """Return the plan as it is needed to finish a dataset whose shards are written: without the images' places."""
        return replace(self, listing=self.listing.without_places())

    def shard_file(self, split: SplitPlan, shard: int) -> str:
        """Return the file name of a shard: `NAME-SPLIT-000000.tar`."""
        return shard_file(self.name, split.name, shard)

    def shard_files(self) -> list[str]:
        """Return the file names of all shards, in order."""
        return [self.shard_file(split, shard) for split in self.splits for shard in range(len(split.start_K))]

    def cuts(self) -> str:
        """Hash of the place and extension of every sample."""
        digest = xxhash.xxh3_128(self.extension.encode())
        for split in self.splits:
            digest.update(split.name.encode() + split.row_N.tobytes() + b"|" + split.start_K.tobytes())
        return digest.hexdigest()

    def tasks(self, folder: Path, *, skip: Container[str] = ()) -> Iterator[ShardTask]:
        """Yield the tasks in order, without those of the files in `skip`; one at a time, to save memory."""
        json_classes = self.listing.classes if self.has_json else None
        for split in self.splits:
            required = self.listing.required(split.name)
            for shard in range(len(split.start_K)):
                file = self.shard_file(split, shard)
                if file in skip:
                    continue
                yield ShardTask(
                    folder=folder,
                    file=file,
                    split=split.name,
                    refs=tuple(self.listing.refs(split.rows(shard))),
                    reader=self.listing.reader,
                    options=self.options,
                    extension=self.extension,
                    json_classes=json_classes,
                    members=self.members,
                    required=required,
                )


def shard_file(name: str, split: str, shard: int) -> str:
    """Return the file name of a shard: `NAME-SPLIT-000000.tar`."""
    return f"{name}-{split}-{shard:06d}.tar"


def make_plan(listing: Listing, options: ShardOptions, extension: str | None = None) -> Plan:
    """Order and cut every split. Reads up to `SURVEY_SAMPLES` images to learn their format and size.

    `extension` is that of the images where it is given, and is not chosen then.
    """
    extension, mean_bytes = _survey(listing, options, extension)
    has_json = options.json_members or listing.has_fields
    image_N = listing.size_N if mean_bytes is None else np.full(len(listing), mean_bytes, np.int64)
    sample_N = _sample_bytes(image_N, listing.label_N, has_json)
    for columns in listing.members:
        sample_N = sample_N + np.where(columns.there_N, BLOCK + -(-columns.size_N // BLOCK) * BLOCK, 0)
    splits = []
    for number, name in enumerate(listing.splits):
        row_N = np.flatnonzero(listing.split_N == number)
        if options.shuffle:
            row_N = row_N[stored_order(len(row_N), split=name, seed=options.seed)]
        start_K = cut(sample_N[row_N], options)
        total = int(sample_N[row_N].sum()) + len(start_K) * len(END_OF_ARCHIVE)
        splits.append(SplitPlan(name, row_N, start_K, total))
    is_exact = mean_bytes is None and not listing.members
    return Plan(options.name or listing.title, listing, options, extension, tuple(splits), is_exact)


def _survey(listing: Listing, options: ShardOptions, extension: str | None) -> tuple[str, int | None]:
    """Return the images' extension, and their mean encoded size, which a few images tell where the listing can't."""
    encoding = options.encoding
    found: list[tuple[str, bytes]] = []
    formats: Counter[str] = Counter()
    rows = sorted(set(np.linspace(0, len(listing) - 1, SURVEY_SAMPLES).astype(int).tolist()))
    refs = list(listing.refs(rows))
    with reading_ahead(listing.reader, refs) as reader:
        for ref in refs:
            # Bad images are dealt with, one by one, when the shards are written.
            with contextlib.suppress(ImageError):
                data = read_sample(reader, ref)
                formats[probe(data).format] += 1
                found.append((ref.name, data))
    if extension is None:
        extension = _usual_extension(formats) if encoding.format == "keep" else encoding.format
    sizes = []
    kept = listing.exact_sizes
    for name, data in found:
        with contextlib.suppress(ImageError):
            stored = retried(partial(prepare, data, options, extension), name)[0]
            sizes.append(len(stored))
            kept = kept and stored is data
    return extension, int(np.mean(sizes)) if sizes and not kept else None


def _usual_extension(formats: Counter[str]) -> str:
    """Return the extension of the commonest format; every sample of a dataset has the same members."""
    extensions: Counter[str] = Counter()
    for name, count in formats.items():
        extensions[extension_of(name) if name in STORED_FORMATS else "png"] += count
    return min(extensions, key=lambda ext: (-extensions[ext], ext), default="jpg")


def _sample_bytes(image_N: NDArray[np.int64], label_N: NDArray[np.int32], has_json: bool) -> NDArray[np.int64]:
    """Return the bytes that each sample takes in a tar: headers, data and padding of all its members."""
    image = BLOCK + -(-image_N // BLOCK) * BLOCK
    label = np.where(label_N >= 0, BLOCK + padded(1), 0)
    return np.asarray(image + label + (JSON_MEMBER_BYTES if has_json else 0), np.int64)


def cut(sample_N: NDArray[np.int64], options: ShardOptions) -> NDArray[np.int64]:
    """Return where each shard starts, int64 `(K,)`: as few shards as the size allows, and as even as possible.

    `sample_N` are the bytes that each sample takes; a shard holds at least one sample, however large that is. Even
    shards keep all workers, and later all ranks, busy to the end.
    """
    if options.shard_samples is not None:
        return np.arange(0, len(sample_N), options.shard_samples, dtype=np.int64)
    end_N = np.cumsum(sample_N)
    room = options.shard_bytes - len(END_OF_ARCHIVE)
    starts = _filled(end_N, room)
    # The least size with which no further shard is needed.
    low, high = int(end_N[-1]) // len(starts), room
    while low < high:
        middle = (low + high) // 2
        if len(_filled(end_N, middle)) > len(starts):
            low = middle + 1
        else:
            high = middle
    return np.array(_filled(end_N, high), np.int64)


def _filled(end_N: NDArray[np.int64], room: int) -> list[int]:
    """Return the starts of shards that are filled in turn; `end_N` are the cumulated sizes of the samples."""
    starts: list[int] = []
    start = 0
    while start < len(end_N):
        starts.append(start)
        before = int(end_N[start - 1]) if start else 0
        start = max(start + 1, int(np.searchsorted(end_N, before + room, side="right")))
    return starts


def describe(plan: Plan, images_per_s: float) -> dict[str, Any]:
    """Return the plan as JSON values, for `--dry-run`: splits, shards, bytes and seconds."""
    return {
        "name": plan.name,
        "source": plan.listing.kind,
        "classes": len(plan.listing.classes),
        "image_extension": plan.extension,
        "samples": plan.num_samples,
        "shards": plan.num_shards,
        "bytes": sum(split.estimated_bytes for split in plan.splits),
        "seconds": plan.num_samples / images_per_s,
        "splits": {
            split.name: {
                "samples": len(split.row_N),
                "shards": len(split.start_K),
                "bytes": split.estimated_bytes,
                "first": plan.shard_file(split, 0),
                "last": plan.shard_file(split, len(split.start_K) - 1),
            }
            for split in plan.splits
        },
        "skipped": dict(plan.listing.skipped),
        "warnings": list(plan.listing.warnings),
    }
