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

from imgdata.dataset.index import Index
from imgdata.dataset.manifest import Manifest
from imgdata.errors import ImageError, OutputError
from imgdata.sample import SampleRef
from imgdata.shards.dataset_files import REJECTS
from imgdata.shards.options import ShardOptions
from imgdata.shards.parallel import in_threads
from imgdata.shards.prepare import read_and_prepare
from imgdata.shards.record import ShardReport, read_rows
from imgdata.sources.listing import Listing, Reader
from imgdata.tables import counted

_BLOCK = 256
"""Images of one piece of work for a thread."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One split of a dataset: the images that were kept, and those that were left out."""

    split: str
    source_N: pa.ChunkedArray
    xxh64_N: pa.ChunkedArray
    rejected: frozenset[str]


def stored_in_dataset(folder: Path, manifest: Manifest) -> list[Stored]:
    """Return what the finished dataset in `folder` holds."""
    rejects: dict[str, set[str]] = {}
    path = folder / REJECTS
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        reject = json.loads(line)
        rejects.setdefault(reject["split"], set()).add(reject["source"])
    stored = []
    for split in manifest.splits:
        index = Index(folder / split.index)
        rejected = frozenset(rejects.get(split.name, ()))
        stored.append(
            Stored(
                split=split.name,
                source_N=index.column("source"),
                xxh64_N=index.column("xxh64"),
                rejected=rejected,
            )
        )
    return stored


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
    blocks = [block for part in stored for block in _blocks(listing, part)]

    def changed(block: tuple[list[int], list[int | None]]) -> list[str]:
        rows, hashes = block
        return [
            ref.name
            for ref, expected in zip(listing.refs(rows), hashes, strict=True)
            if _hash(listing.reader, ref, options, extension) != expected
        ]

    return [name for names in in_threads(changed, blocks, workers=workers, progress=advanced) for name in names]


def refuse_changed(out: Path, names: Sequence[str], *, state: str) -> None:
    """Raise `OutputError` when images have changed since the dataset in `out` was `state` (begun, made)."""
    if names:
        images = counted(len(names), "image")
        raise OutputError(
            f"{out}: was {state} when {images} of the source had other bytes, such as {names[0]}; "
            "use --overwrite to make the dataset of what is there now, or another folder"
        )


def _hash(reader: Reader, ref: SampleRef, options: ShardOptions, extension: str) -> int | None:
    """Hash of the image as it would be stored; None when it would be left out."""
    try:
        stored = read_and_prepare(reader, ref, options, extension)
    except ImageError:
        return None
    return xxhash.xxh64_intdigest(stored.data)


def _blocks(listing: Listing, stored: Stored) -> Iterator[tuple[list[int], list[int | None]]]:
    """Yield rows of the listing, and for each the hash that was stored, or None for an image that was left out."""
    row_N = np.flatnonzero(listing.split_N == listing.splits.index(stored.split))
    name_N = listing.name_N.take(pa.array(row_N))
    place_N = pc.index_in(name_N, value_set=pa.array(stored.source_N.to_pylist(), pa.string()))
    hash_N = stored.xxh64_N.take(place_N.combine_chunks()).to_pylist()
    left_out = pa.array(sorted(stored.rejected), pa.string())
    concerned_N = pc.or_(pc.is_valid(place_N), pc.is_in(name_N, value_set=left_out)).to_pylist()
    pairs = [pair for pair, here in zip(zip(row_N.tolist(), hash_N, strict=True), concerned_N, strict=True) if here]
    for start in range(0, len(pairs), _BLOCK):
        rows, hashes = zip(*pairs[start : start + _BLOCK], strict=True)
        yield list(rows), list(hashes)
