"""One tar + its rows of the index -> faults, each with its key and byte."""

import difflib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from imgdata import native
from imgdata.dataset.index import Index
from imgdata.dataset.manifest import Manifest, ShardRecord
from imgdata.dataset.members import member_columns
from imgdata.errors import ImageError, ShardError
from imgdata.images.decode import check, refuse_large
from imgdata.images.probe import probe
from imgdata.sample import ClassName, mask_numbers
from imgdata.shards.hashing import file_hash
from imgdata.shards.parallel import end_if_stopped
from imgdata.shards.sidecars import DaliMember, dali_index, dali_index_path
from imgdata.storage.atomic import pread
from imgdata.storage.file_names import escape_name
from imgdata.storage.reading import open_regular, read_file
from imgdata.tar.archive import BLOCK, Member, TarError, members, padded, ustar_header
from imgdata.tar.labels import LabelReader
from imgdata.tar.samples import TarSample, group_members, image_member, split_name

_END_NOT_ZERO = "end of the archive is not zero"
_MAX_DALI_BYTES = 1 << 30
_FEW_BYTES = 8
"""A block with fewer bytes that aren't zero is no header, but a damaged end marker."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that isn't as it was written."""

    shard: str
    """File name of the shard, or of the sidecar."""
    key: str
    """The sample; empty when it concerns the whole file."""
    byte: int
    """Position in the file; -1 for a fault of the whole file. For an image that differs, its first byte."""
    what: str
    """The fault in words."""
    serious: bool = True
    """Whether readers depend on the file; not on the dataset card, `README.md`, which people change on purpose."""

    def __str__(self) -> str:
        place = f" byte {self.byte}" if self.byte >= 0 else ""
        return f"{self.shard}{place}{f' key {self.key}' if self.key else ''}: {self.what}"


class ShardRows:
    """The rows `start` to `end` of an index: those of one tar."""

    def __init__(self, index: Index, start: int, end: int) -> None:
        self.keys: list[str] = index.keys(np.arange(start, end))
        self.offset_N = index.offset_N[start:end]
        self.size_N = index.size_N[start:end]
        self.label_N = index.label_N[start:end]
        self.xxh64_N = index.xxh64_N[start:end]
        self.width_N = index.width_N[start:end]
        self.height_N = index.height_N[start:end]
        self.interval_N = index.array("restart_interval")[start:end] if index.has_crop_ready else None
        self.json = (
            [index.array(name)[start:end] for name in ("json_offset", "json_size", "json_xxh64")]
            if index.has_json
            else None
        )
        self.members = {
            name: [index.array(column)[start:end] for column in (offset, size, xxh64)]
            for name in index.members
            for offset, size, _, xxh64 in [member_columns(name)]
        }

    def __len__(self) -> int:
        return len(self.keys)


@dataclass
class _Walk:
    """The result of reading the tar from its start."""

    members: list[Member] = field(default_factory=list)
    dali: list[list[DaliMember]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    whole: bool = True
    """Whether every header could be read."""
    torn: set[str] = field(default_factory=set)
    """Keys of samples that lost members to a damaged header, or before the place where reading went on."""


def check_tar(
    folder: Path, shard: ShardRecord, rows: ShardRows | None, manifest: Manifest, max_pixels: int | None
) -> list[Fault]:
    """Compare a shard in the folder with its record, and with its rows where these can be trusted.

    With `max_pixels` images of up to so many are decoded, and larger ones are faults.
    """
    try:
        return _check_readable(folder / shard.file, shard, rows, manifest, max_pixels)
    except OSError as error:
        return [Fault(shard.file, "", -1, f"can't be read: {error.strerror or error}")]


def _check_readable(
    path: Path, shard: ShardRecord, rows: ShardRows | None, manifest: Manifest, max_pixels: int | None
) -> list[Fault]:
    """Do what `check_tar` does. Raises `OSError`."""
    size = path.stat().st_size
    digest = file_hash(path, shard.hash)
    faults = []
    if size != shard.bytes:
        what = "cut short" if size < shard.bytes else "too long"
        faults.append(Fault(shard.file, "", min(size, shard.bytes), f"{what}: {size} bytes, must be {shard.bytes}"))
    intact = digest == shard.digest and shard.hash != "none"
    if rows is not None:
        faults += _check_shard(path, rows, manifest, max_pixels, intact=intact)
    if digest != shard.digest and not faults:
        unnamed = "no image, label or header shows where" if rows is not None else "the index is damaged as well"
        faults.append(Fault(shard.file, "", -1, f"{shard.hash} is {digest}, must be {shard.digest}; {unnamed}"))
    return faults


def _check_shard(
    path: Path, rows: ShardRows, manifest: Manifest, max_pixels: int | None, *, intact: bool
) -> list[Fault]:
    """Compare the tar `path` with its rows: structure, labels, images, json members and the DALI index.

    `intact`: the hash of the tar is right; otherwise, also where it has none, padding and headers are searched for the
    fault too.
    """
    # Of our own tars headers are known to the byte.
    own = manifest.source.get("kind") != "index"
    descriptor = open_regular(path)
    try:
        size = os.fstat(descriptor).st_size
        walk = _walk(path, descriptor, size, rows, LabelReader(manifest.label_from), manifest.classes)
        faults = walk.faults + _check_images(path.name, descriptor, size, rows, max_pixels)
        if rows.json is not None:
            faults += _check_side(path.name, descriptor, size, rows, "json member", rows.json)
        for member in manifest.members:
            faults += _check_member(
                path.name,
                descriptor,
                size,
                rows,
                member.name,
                is_mask=member.kind == "mask",
                max_pixels=max_pixels,
            )
        if not intact and not faults:
            faults += _search_padding(path.name, descriptor, size, walk.members, own)
    finally:
        os.close(descriptor)
    if walk.whole:
        faults += _check_dali(path, walk.dali)
    return faults


def _walk(
    path: Path, descriptor: int, size: int, rows: ShardRows, labels: LabelReader, classes: Sequence[ClassName]
) -> _Walk:
    walk = _Walk()
    row_at = {offset: row for row, offset in enumerate(rows.offset_N.tolist())}
    known, seen = set(rows.keys), set[int]()
    try:
        for sample in group_members(_members(path, size, rows, walk), path):
            end_if_stopped()
            key, first = escape_name(sample.key), next(iter(sample.members.values()))
            image = next((member for member in sample.members.values() if member.offset in row_at), None)
            if image is None:
                if key in known and key not in walk.torn:
                    walk.faults.append(Fault(path.name, key, first.offset, "image is not where the index has it"))
                elif key not in known and image_member(sample) is not None:
                    walk.faults.append(Fault(path.name, key, first.offset, "sample is not in the index"))
                continue
            row = row_at[image.offset]
            seen.add(row)
            walk.dali.append([(ext, m.offset, m.size, m.name) for ext, m in sample.members.items()])
            if image.size != int(rows.size_N[row]):
                what = f"image has {image.size} bytes in the tar, {rows.size_N[row]} in the index"
                walk.faults.append(Fault(path.name, rows.keys[row], image.offset, what))
            if rows.keys[row] in walk.torn:
                continue
            if key != rows.keys[row]:
                what = f"key is {key!r} in the tar, {rows.keys[row]!r} in the index"
                walk.faults.append(Fault(path.name, rows.keys[row], image.offset - BLOCK, what))
            walk.faults += _check_label(path, descriptor, sample, int(rows.label_N[row]), labels, classes)
    except ShardError as error:
        walk.whole = False
        walk.faults.append(Fault(path.name, "", -1, str(error).removeprefix(f"{path}: ")))
    if walk.whole and len(seen) < len(rows):
        lost = [row for row in range(len(rows)) if row not in seen]
        what = f"the tar has no member here{f', nor {len(lost) - 1} others of the index' if len(lost) > 1 else ''}"
        walk.faults.append(Fault(path.name, rows.keys[lost[0]], int(rows.offset_N[lost[0]]), what))
    return walk


def _members(path: Path, size: int, rows: ShardRows, walk: _Walk) -> Iterator[Member]:
    """Yield the tar's members; after a damaged header, reading continues with the next image of the index."""
    start = 0
    while True:
        try:
            for member in members(path, start=start):
                walk.members.append(member)
                yield member
            return
        except TarError as error:
            header = _read_at(path, error.byte)
            if len(header) == BLOCK and header.count(0) > BLOCK - _FEW_BYTES:
                byte = error.byte + next(i for i, value in enumerate(header) if value)
                walk.faults.append(Fault(path.name, "", byte, _END_NOT_ZERO))
                return
            walk.whole = False
            row = _row_of_header(path, error.byte, rows)
            key = rows.keys[row]
            walk.torn |= {key, rows.keys[max(row - 1, 0)]}
            # Where the file is cut short, its size tells that.
            if error.byte <= size - BLOCK:
                walk.faults.append(Fault(path.name, key, error.byte, str(error).removeprefix(f"{path}: ")))
            following = int(np.searchsorted(rows.offset_N, error.byte + BLOCK, side="right"))
            if following == len(rows) or int(rows.offset_N[following]) > size:
                return
            start = int(rows.offset_N[following]) - BLOCK
            walk.torn.add(rows.keys[following])


def _read_at(path: Path, position: int) -> bytes:
    with open(path, "rb", opener=open_regular) as file:
        file.seek(position)
        return file.read(BLOCK)


def _row_of_header(path: Path, position: int, rows: ShardRows) -> int:
    """Return the sample whose member has its header at `position`: that of the next image, or the one before."""
    following = int(np.searchsorted(rows.offset_N, position))
    if following == len(rows) or following == 0:
        return min(following, len(rows) - 1)
    if int(rows.offset_N[following]) == position + BLOCK:
        return following
    name = _read_at(path, position).split(b"\0")[0].decode("utf-8", "replace")
    # The name may be what is damaged, so the nearer key counts.
    return max((following, following - 1), key=lambda row: difflib.SequenceMatcher(None, name, rows.keys[row]).ratio())


def _check_label(
    path: Path,
    descriptor: int,
    sample: TarSample,
    label: int,
    labels: LabelReader,
    classes: Sequence[ClassName],
) -> list[Fault]:
    kind = labels.source.partition(":")[0]
    place = sample.members.get(kind) or next(iter(sample.members.values()))
    try:
        value = labels.value(sample, descriptor, path)
    except ShardError as error:
        return [Fault(path.name, sample.key, place.offset, str(error).removeprefix(f"{path}: "))]
    if value is None:
        right = label < 0
    elif isinstance(value, int):
        right = value == label
    else:
        right = 0 <= label < len(classes) and (
            classes[label].id == value or (value.isdecimal() and int(value) == label)
        )
    if right:
        return []
    return [Fault(path.name, sample.key, place.offset, f"label is {value!r} in the tar, {label} in the index")]


def _check_images(file: str, descriptor: int, size: int, rows: ShardRows, max_pixels: int | None) -> list[Fault]:
    """Compare every image with its hash, and decode those of up to `max_pixels`; larger ones are faults."""
    faults: list[Fault] = []
    for i, (key, offset, length, expected) in enumerate(
        zip(rows.keys, rows.offset_N.tolist(), rows.size_N.tolist(), rows.xxh64_N.tolist(), strict=True)
    ):
        end_if_stopped()
        if offset + length > size:
            further = len(rows) - i - 1
            what = "image ends behind the end of the file" + (f", and {further} more do" if further else "")
            return [*faults, Fault(file, key, offset, what)]
        data = pread(descriptor, length, offset)
        if xxhash.xxh64_intdigest(data) != expected:
            faults.append(
                Fault(file, key, offset, f"image differs from the one indexed, somewhere in its {length} bytes")
            )
        elif max_pixels is not None:
            try:
                info = probe(data)
                refuse_large(info, max_pixels)
                check(data, info)
            except ImageError as error:
                faults.append(Fault(file, key, offset, f"image can't be decoded: {error}"))
                continue
            # Without the extension nobody reads the markers.
            if rows.interval_N is not None and native.AVAILABLE and (interval := int(rows.interval_N[i])):
                found = native.crop_interval(data)
                if found != interval:
                    what = f"image has a restart interval of {found} MCUs in the tar, {interval} in the index"
                    faults.append(Fault(file, key, offset, what))
    return faults


def _check_side(
    file: str, descriptor: int, size: int, rows: ShardRows, what: str, columns: Sequence[NDArray[Any]]
) -> list[Fault]:
    """Compare the member called `what` of each sample with its hash; `columns` are offsets, sizes and hashes."""
    return [
        Fault(file, key, offset, f"{what} differs from the one indexed")
        for key, offset, length, expected in zip(rows.keys, *(column.tolist() for column in columns), strict=True)
        if length and offset + length <= size and xxhash.xxh64_intdigest(pread(descriptor, length, offset)) != expected
    ]


def _check_member(
    file: str, descriptor: int, size: int, rows: ShardRows, name: str, *, is_mask: bool, max_pixels: int | None
) -> list[Fault]:
    """Compare a further image of each sample with its hash, and with `max_pixels` decode those that are as indexed.

    A mask must have numbers. One of another size than its picture is a fault as well.
    """
    columns = rows.members[name]
    faults = _check_side(file, descriptor, size, rows, name, columns)
    if max_pixels is None:
        return faults
    differing = {fault.byte for fault in faults}
    for row, (offset, length) in enumerate(zip(columns[0].tolist(), columns[1].tolist(), strict=True)):
        end_if_stopped()
        if not length or offset in differing or offset + length > size:
            continue
        data = pread(descriptor, length, offset)
        picture = (int(rows.width_N[row]), int(rows.height_N[row]))
        try:
            info = probe(data)
            refuse_large(info, max_pixels)
            check(data, info)
            if is_mask:
                mask_numbers(data)
        except ImageError as error:
            faults.append(Fault(file, rows.keys[row], offset, f"{name} can't be decoded: {error}"))
            continue
        if (info.width, info.height) != picture:
            what = f"{name} has {info.width} x {info.height} pixels, the picture {picture[0]} x {picture[1]}"
            faults.append(Fault(file, rows.keys[row], offset, what))
    return faults


def _search_padding(file: str, descriptor: int, size: int, found: Sequence[Member], own: bool) -> list[Fault]:
    """Find changed bytes that no reader uses, but the hash covers: padding, owner and time in headers, the end."""
    end = 0
    for member in found:
        key = escape_name(split_name(member.name)[0])
        if own and member.name.isascii():
            header = pread(descriptor, BLOCK, member.offset - BLOCK)
            byte = first_difference(header, bytes(ustar_header(member.name.encode(), member.size)))
            if byte is not None:
                return [Fault(file, key, member.offset - BLOCK + byte, "header is not as it was written")]
        end = member.offset + padded(member.size)
        padding = pread(descriptor, end - member.offset - member.size, member.offset + member.size)
        byte = first_difference(padding, bytes(len(padding)))
        if byte is not None:
            return [Fault(file, key, member.offset + member.size + byte, "padding is not zero")]
    tail = pread(descriptor, size - end, end)
    byte = first_difference(tail, bytes(len(tail)))
    return [] if byte is None else [Fault(file, "", end + byte, _END_NOT_ZERO)]


def first_difference(left: bytes, right: bytes) -> int | None:
    """Return the position of the first different byte, or where the shorter one ends; None when both are the same."""
    if left == right:
        return None
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def _check_dali(path: Path, expected: Sequence[Sequence[DaliMember]]) -> list[Fault]:
    index = dali_index_path(path)
    try:
        found = read_file(index, _MAX_DALI_BYTES)
    except OSError as error:
        what = "missing" if isinstance(error, FileNotFoundError) else f"can't be read: {error.strerror or error}"
        return [Fault(index.name, "", -1, f"{what}; rebuild the sidecars with `imgdata index` on the folder")]
    if not expected or found == dali_index(expected):
        return []
    pairs = zip(found.split(b"\n"), dali_index(expected).split(b"\n"), strict=False)
    line = next((i for i, (a, b) in enumerate(pairs) if a != b), 0)
    return [Fault(index.name, "", -1, f"line {line + 1} is not what the tar has; rebuild with `imgdata index`")]
