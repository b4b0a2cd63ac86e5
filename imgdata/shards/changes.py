"""A dataset, begun or finished, and its source -> whether the source still holds the images that were stored.

Names, sizes and labels are compared before (`Listing.fingerprint`), without a read. This module is used where the
state of the files differs from the noted state: a copied source, whose images are the same, or a source whose pixels
were changed under the same names. Images are read and prepared again, and compared with what was stored.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from imgdata.arrow import number_array
from imgdata.dataset.index import Index
from imgdata.dataset.manifest import Manifest
from imgdata.dataset.members import member_columns, members_in
from imgdata.dataset.split import open_index
from imgdata.errors import ImageError, OutputError
from imgdata.sample import SampleRef
from imgdata.shards.dataset_files import REJECTS, list_file
from imgdata.shards.options import ShardOptions
from imgdata.shards.parallel import in_threads
from imgdata.shards.prepare import read_and_prepare
from imgdata.shards.record import ShardReport, read_rows
from imgdata.sources.listing import Listing
from imgdata.storage.folder import DatasetFolder
from imgdata.storage.remote import RemoteMissingError
from imgdata.tables import counted

Hashes = tuple[int, ...]
"""Hash of the picture of a sample, and of each of its further images."""
_BLOCK = 256
"""Images of one piece of work for a thread."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One split of a dataset: the images that were kept, and those that were left out."""

    split: str
    source_N: pa.ChunkedArray
    xxh64_N: pa.ChunkedArray
    members: tuple[pa.ChunkedArray, ...]
    """Hashes of each further image, 0 for samples without it."""
    rejected: frozenset[str]


def stored_in_dataset(folder: DatasetFolder, manifest: Manifest, version: int = 1) -> list[Stored]:
    """Return what the run that made a version of the dataset in `folder` stored, and what it left out."""
    after = manifest.at(version)
    starts = {} if version == 1 else {split.name: split.samples for split in manifest.at(version - 1).splits}
    rejects: dict[str, set[str]] = {}
    for line in _lines(folder, list_file(REJECTS, version)):
        reject = json.loads(line)
        rejects.setdefault(reject["split"], set()).add(reject["source"])
    stored = []
    for split in after.splits:
        start = starts.get(split.name, 0)
        if start == split.samples:
            continue
        index = open_index(folder, split)
        stored.append(
            Stored(
                split=split.name,
                source_N=index.column_at("source", np.arange(start, len(index))),
                xxh64_N=_hashes_from(index, "xxh64", start),
                members=tuple(_hashes_from(index, member_columns(name)[-1], start) for name in index.members),
                rejected=frozenset(rejects.get(split.name, ())),
            )
        )
    return stored


def _hashes_from(index: Index, name: str, start: int) -> pa.ChunkedArray:
    return pa.chunked_array([number_array(index.array(name)[start:])])


def _lines(folder: DatasetFolder, name: str) -> list[str]:
    try:
        return folder.read(name).decode("utf-8").splitlines()
    except (FileNotFoundError, RemoteMissingError):
        return []


def stored_in_shards(folder: Path, reports: Sequence[ShardReport]) -> list[Stored]:
    """Return what the finished shards of an unfinished dataset hold."""
    stored = []
    for report in reports:
        rows = read_rows(folder, report.file)
        stored.append(
            Stored(
                split=report.split,
                source_N=rows["source"],
                xxh64_N=rows["xxh64"],
                members=tuple(rows[member_columns(name)[-1]] for name in members_in(rows.column_names)),
                rejected=frozenset(reject.source for reject in report.rejects),
            )
        )
    return stored


def changed_images(
    listing: Listing,
    stored: Sequence[Stored],
    options: ShardOptions,
    extension: str,
    *,
    workers: int | None,
    advanced: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Return the names of the images of `stored` that would be stored with other bytes now, or be left out.

    `extension` is that of the stored images; `advanced(done, total)` is called after every block of images.
    """
    blocks = [(part.split, *block) for part in stored for block in _blocks(listing, part)]
    required = {part.split: listing.required(part.split) for part in stored}
    members = tuple(columns.member for columns in listing.members)

    def hashes(ref: SampleRef, split: str) -> Hashes | None:
        try:
            found = read_and_prepare(listing.reader, ref, options, extension, members, required[split])
        except ImageError:
            return None
        of_members = (xxhash.xxh64_intdigest(one.data) if one.data else 0 for one in found.members)
        return (xxhash.xxh64_intdigest(found.data), *of_members)

    def changed(block: tuple[str, list[int], list[Hashes | None]]) -> list[str]:
        split, rows, expected = block
        return [ref.name for ref, one in zip(listing.refs(rows), expected, strict=True) if hashes(ref, split) != one]

    return [name for names in in_threads(changed, blocks, workers=workers, progress=advanced) for name in names]


def refuse_changed(out: Path, names: Sequence[str], *, state: str) -> None:
    """Raise `OutputError` when images have changed since the dataset in `out` was `state` (begun, made)."""
    if names:
        images = counted(len(names), "image")
        raise OutputError(
            f"{out}: was {state} when {images} of the source had other bytes, such as {names[0]}; "
            "use --overwrite to make the dataset of what is there now, or another folder"
        )


def _blocks(listing: Listing, stored: Stored) -> Iterator[tuple[list[int], list[Hashes | None]]]:
    """Yield rows of the listing, and for each the hashes that were stored, or None for an image that was left out."""
    row_N = np.flatnonzero(listing.split_N == listing.splits.index(stored.split))
    name_N = listing.name_N.take(pa.array(row_N))
    place_N = pc.index_in(name_N, value_set=pa.array(stored.source_N.to_pylist(), pa.string()))
    at_N = place_N.combine_chunks()
    there = at_N.is_valid().to_pylist()
    columns = [column.take(at_N).to_pylist() for column in (stored.xxh64_N, *stored.members)]
    hash_N = [row if known else None for known, row in zip(there, zip(*columns, strict=True), strict=True)]
    left_out = pa.array(sorted(stored.rejected), pa.string())
    concerned_N = pc.or_(pc.is_valid(place_N), pc.is_in(name_N, value_set=left_out)).to_pylist()
    pairs = [pair for pair, here in zip(zip(row_N.tolist(), hash_N, strict=True), concerned_N, strict=True) if here]
    for start in range(0, len(pairs), _BLOCK):
        rows, hashes = zip(*pairs[start : start + _BLOCK], strict=True)
        yield list(rows), list(hashes)
