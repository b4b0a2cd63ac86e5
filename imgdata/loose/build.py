"""A raw dataset -> the files of its index in the cache folder: one for each split, and a `dataset.json`."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from imgdata.arrow import number_array, text_array
from imgdata.dataset.columns import columns_file, write_columns
from imgdata.dataset.fields import fields_table
from imgdata.dataset.index import Index
from imgdata.dataset.index_schema import index_schema
from imgdata.dataset.index_writing import write_index
from imgdata.dataset.manifest import Manifest, ShardRecord, SplitEntry, how_to_shard
from imgdata.dataset.members import loose_columns, member_columns
from imgdata.errors import SourceError
from imgdata.images.info import UNKNOWN, ImageInfo
from imgdata.loose.headers import HeaderColumns, Headers, read_headers
from imgdata.loose.places import OWN, ImagePlaces, Places, chunks, find_places
from imgdata.loose.unpacked import unpack
from imgdata.order.epoch_order import stored_order
from imgdata.sample import fields_of
from imgdata.sources.classes import some
from imgdata.sources.detect import list_source
from imgdata.sources.listing import Listing
from imgdata.sources.options import SourceOptions
from imgdata.sources.readers import PlainReader
from imgdata.storage.atomic import write_atomic

SHARD = "loose"
"""Word of the column `shard` in the index of files that were not sharded."""
IMAGES = ".images"
"""Ending of the file that holds images which lie in no files of their own."""
_NAMED = 3
_FORMATS = {"jpg": "jpeg", "jpe": "jpeg", "jfif": "jpeg", "tif": "tiff"}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Known:
    """Headers that an earlier index knows, by the hash of name and size, sorted, and the file's state."""

    hash_K: NDArray[np.uint64]
    state_K: NDArray[np.int64]
    numbers_K3: NDArray[np.int64]
    words_K: list[tuple[str, str]]


def build(root: Path, read: SourceOptions, kept: Path, place: str, before: Iterable[Index] = ()) -> str:
    """List the raw dataset and write its index into the folder `kept`; return what the names of its files begin with.

    Headers of files that an index of `before` knows are not read again. Raises `SourceError`, `OptionError`,
    `ShardError` for damaged tars, and `OutputError`.
    """
    listing = list_source(root, read)
    columns = HeaderColumns(len(listing))
    if isinstance(listing.reader, PlainReader):
        places = find_places(listing, root)
        hash_N = _hashes(listing.name_N, places.pictures)
        row_N = _unknown_rows(hash_N, places.pictures, columns, before)
        read_headers(listing, places, root, columns, row_N)
        content = f"{place}-{_digest(listing, places)}"
    else:
        listing = _with_pictures_alone(listing, root)
        content = f"{place}-{listing.fingerprint()[:12]}"
        places = unpack(listing, kept / f"{content}{IMAGES}", columns, root)
        hash_N = _hashes(listing.name_N, places.pictures)
    headers = columns.done()
    missing_N = (places.pictures.file_N == OWN) & (places.pictures.state_N == 0)
    entries, files = [], dict[str, str]()
    for number, name in enumerate(listing.splits):
        row_N = np.flatnonzero((listing.split_N == number) & ~missing_N)
        row_N = row_N[stored_order(len(row_N), split=name)]
        if not len(row_N):
            continue
        index = f"{content}.{number}"
        table = _table(listing, places, headers, hash_N, row_N)
        write_index(kept / index, table, archives=places.archives, has_fields=listing.has_fields)
        if listing.fields_N is not None:
            texts = (str(text) for chunk in table.column("fields").chunks for text in chunk.to_pylist())
            files[columns_file(index)] = ""
            write_columns(
                kept / columns_file(index), fields_table(fields_of(json.loads(text)) if text else {} for text in texts)
            )
        num_bytes = int(places.pictures.size_N[row_N].sum())
        entries.append(SplitEntry(name, index, "", (ShardRecord(SHARD, len(row_N), num_bytes, ""),)))
    if not entries:
        raise SourceError(f"{root}: none of the {len(listing)} files that are listed is there")
    manifest = Manifest(
        name=listing.title,
        classes=listing.classes,
        splits=tuple(entries),
        image_extension="",
        label_from="none" if (listing.label_N < 0).all() else "folder",
        has_json=False,
        target=listing.target,
        rejected=0,
        files=files,
        members=tuple(columns.member for columns in listing.members),
        source={
            "kind": listing.kind,
            "skipped": dict(listing.skipped),
            "warnings": [*listing.warnings, *_warnings(listing, headers, missing_N)],
        },
    )
    write_atomic(kept / f"{content}.json", manifest.to_bytes())
    return content


def _with_pictures_alone(listing: Listing, root: Path) -> Listing:
    """Return the listing without further images of samples, which have to lie in files or archives byte for byte."""
    if not listing.members:
        return listing
    names = ", ".join(columns.member.name for columns in listing.members)
    left_out = f"further images ({names}) are left out; {how_to_shard(root)}, which keeps them"
    return replace(listing, members=(), warnings=(*listing.warnings, left_out))


def _digest(listing: Listing, places: Places) -> str:
    digest = xxhash.xxh3_128(listing.fingerprint().encode())
    for images in (places.pictures, *places.members.values()):
        digest.update(images.state_N.tobytes())
    digest.update(repr(places.archives).encode())
    return digest.hexdigest()[:12]


def _hashes(name_N: pa.ChunkedArray, places: ImagePlaces) -> NDArray[np.uint64]:
    """Return the hash of name and size of each image, uint64 `(N,)`."""
    hash_N = np.zeros(len(name_N), np.uint64)
    for row_K in chunks(len(name_N)):
        names = name_N.slice(int(row_K[0]), len(row_K)).to_pylist()
        sizes = places.size_N[row_K].tolist()
        hash_N[row_K] = [
            xxhash.xxh64_intdigest(f"{size} {name}".encode()) for name, size in zip(names, sizes, strict=True)
        ]
    return hash_N


def _unknown_rows(
    hash_N: NDArray[np.uint64], places: ImagePlaces, columns: HeaderColumns, before: Iterable[Index]
) -> NDArray[np.int64]:
    """Put the headers that earlier indices know; return the rows of the others."""
    known = _known(before)
    if known is None:
        return np.arange(len(hash_N))
    at_N = np.searchsorted(known.hash_K, hash_N).clip(max=len(known.hash_K) - 1)
    same_N = (known.hash_K[at_N] == hash_N) & (known.state_K[at_N] == places.state_N) & (places.file_N == OWN)
    for row in np.flatnonzero(same_N).tolist():
        at = int(at_N[row])
        width, height, orientation = known.numbers_K3[at].tolist()
        mode, name = known.words_K[at]
        columns.put(row, ImageInfo(name, width, height, mode, 8, orientation))
    return np.flatnonzero(~same_N)


def _known(before: Iterable[Index]) -> _Known | None:
    parts = [
        (
            index.xxh64_N,
            index.array("state"),
            np.stack([index.width_N, index.height_N, index.orientation_N], axis=1).astype(np.int64),
            list(
                zip(
                    np.array(index.words("mode"), object)[index.array("mode")].tolist(),
                    np.array(index.words("format"), object)[index.array("format")].tolist(),
                    strict=True,
                )
            ),
        )
        for index in before
        if len(index)
    ]
    if not parts:
        return None
    hash_K = np.concatenate([part[0] for part in parts])
    order_K = np.argsort(hash_K)
    words = [word for part in parts for word in part[3]]
    return _Known(
        hash_K=hash_K[order_K],
        state_K=np.concatenate([part[1] for part in parts])[order_K],
        numbers_K3=np.concatenate([part[2] for part in parts])[order_K],
        words_K=[words[row] for row in order_K.tolist()],
    )


def _table(
    listing: Listing, places: Places, headers: Headers, hash_N: NDArray[np.uint64], row_N: NDArray[np.int64]
) -> pa.Table:
    """Return the index of the rows `row_N` of a listing."""
    rows = number_array(row_N)
    words = text_array(headers.words)
    empty = pa.chunked_array([pa.repeat("", len(row_N))])
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        "key": listing.key_N.take(rows),
        "shard": pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), len(row_N)), text_array([SHARD])),
        "offset": number_array(places.pictures.offset_N[row_N]),
        "size": number_array(places.pictures.size_N[row_N]),
        "label": number_array(listing.label_N[row_N]),
        "width": number_array(headers.width_N[row_N]),
        "height": number_array(headers.height_N[row_N]),
        "mode": pa.DictionaryArray.from_arrays(number_array(headers.mode_N[row_N].astype(np.int32)), words),
        "format": pa.DictionaryArray.from_arrays(number_array(headers.format_N[row_N].astype(np.int32)), words),
        "orientation": number_array(headers.orientation_N[row_N]),
        "xxh64": number_array(hash_N[row_N]),
        "source": listing.name_N.take(rows),
        "fields": empty if listing.fields_N is None else listing.fields_N.take(rows),
    }
    columns |= _file_columns(loose_columns(), places.pictures, row_N)
    for further in listing.members:
        name = further.member.name
        images, hashes = places.members[name], _hashes(further.name_N, places.members[name])
        offset, size, word, xxh64 = member_columns(name)
        columns |= {offset: number_array(images.offset_N[row_N]), size: number_array(images.size_N[row_N])}
        # Headers of further images are not read.
        columns |= {word: _formats_by_name(further.name_N.take(rows)), xxh64: number_array(hashes[row_N])}
        columns |= _file_columns(loose_columns(name), images, row_N)
    schema = index_schema(has_json=False, loose=True, members=[further.member.name for further in listing.members])
    return pa.table([columns[field.name] for field in schema], schema=schema)


def _formats_by_name(name_N: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the formats that the extensions of files say, as words; that of no name is `unknown`."""
    ends = (os.path.splitext(str(name))[1][1:].lower() for chunk in name_N.chunks for name in chunk.to_pylist())
    return pa.chunked_array(
        [text_array([_FORMATS.get(end, end) or UNKNOWN.format for end in ends])]
    ).dictionary_encode()


def _file_columns(
    names: Sequence[str], images: ImagePlaces, row_N: NDArray[np.int64]
) -> dict[str, pa.Array | pa.ChunkedArray]:
    """Return the columns `names` that say in which files images lie."""
    found = (
        number_array(images.file_N[row_N]),
        number_array(images.state_N[row_N]),
        images.path_N.take(number_array(row_N)),
    )
    return dict(zip(names, found, strict=True))


def _warnings(listing: Listing, headers: Headers, missing_N: NDArray[np.bool_]) -> list[str]:
    """Return sentences about files that are not there, and files that are no images by their headers."""
    sentences = []
    if missing_N.any():
        sentences.append(f"{missing_N.sum():,} listed files are not there, and left out: {_some(listing, missing_N)}")
    unknown = headers.words.index(UNKNOWN.format) if UNKNOWN.format in headers.words else -1
    bad_N = (headers.format_N == unknown) & ~missing_N
    if bad_N.any():
        sentences.append(
            f"{bad_N.sum():,} files are no images that can be read ({_some(listing, bad_N)}): they count as samples, "
            "and a loader replaces or skips them, as on_bad says"
        )
    return sentences


def _some(listing: Listing, chosen_N: NDArray[np.bool_]) -> str:
    few = number_array(np.flatnonzero(chosen_N)[: _NAMED + 1])
    return some([str(name) for name in listing.name_N.take(few).to_pylist()])
