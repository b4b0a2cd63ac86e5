"""Files of samples behind a table of offsets, as Streaming and LitData write them -> records of their columns.

number of samples (uint32) | offset of each sample and of the end (uint32) | samples: sizes of the columns without a
fixed size (uint32) | bytes of the columns
"""

import itertools
import mmap
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imgdata.errors import SourceError
from imgdata.images.probe import looks_like_an_image
from imgdata.sources.classes import some
from imgdata.sources.label_column import LABEL_NAMES
from imgdata.sources.listing import Listing
from imgdata.sources.options import SourceOptions
from imgdata.sources.packed_files import PackedReader, unpacked
from imgdata.sources.readers import RangeReader
from imgdata.sources.records import Record, RecordFile, list_records, read_stated
from imgdata.sources.splits import SPLIT_NAMES, split_in_path
from imgdata.sources.table.columns import find_usual
from imgdata.sources.walk import visible
from imgdata.storage.reading import open_regular

INDEX = "index.json"
_IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "bytes", "image_bytes", "data", "x")
_NAMES = ("filename", "file_name", "path", "key")
_HEAD_BYTES = 4096
_MAX_FOLDERS = 64
"""Most folders that may be splits; more are classes, in which no index is looked for."""

Decode = Callable[[bytes], Any]


class Column(NamedTuple):
    """One column of the samples."""

    name: str
    size: int | None
    """Bytes of each value; None where each sample says it."""
    decode: Decode | None
    """What makes a value of bytes; None for images and for what is left out."""
    image: bool
    """Whether values may be encoded images."""


@dataclass(frozen=True, kw_only=True)
class ChunkFile:
    """One file of samples."""

    path: Path
    name: str
    split: str | None
    samples: int
    size: int
    """Bytes of the file, or of what is packed in it."""
    packed: bool
    columns: tuple[Column, ...]


def indexes(path: Path, member: str) -> list[tuple[Path, str | None, dict[str, Any]]]:
    """Return the folder, the split and the content of each `index.json` at `path`, or else directly below.

    Only files with a list called `member` count. Raises `SourceError` for files that can't be read.
    """
    if not path.is_dir():
        return []
    below = visible(path).folders
    folders = [path] if _is_file(path / INDEX) else [path / name for name in below if len(below) <= _MAX_FOLDERS]
    found = []
    for folder in folders:
        file = folder / INDEX
        if not _is_file(file):
            continue
        value = read_stated(file)
        if isinstance(value, dict) and isinstance(value.get(member), list):
            found.append((folder, split_in_path(folder.name) if folder != path else None, value))
    return found


def _is_file(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:
        # A folder that may not be read is for the source that needs it to report.
        return False


def list_chunks(files: Sequence[ChunkFile], *, path: Path, kind: str, options: SourceOptions) -> Listing:
    """Return the samples of all files, in the order of the indexes. Raises `SourceError` for damaged files."""
    if not files:
        raise SourceError(f"{path}: no files of samples are named in its {INDEX}")
    for file in files[1:]:
        if [column[:2] for column in file.columns] != [column[:2] for column in files[0].columns]:
            raise SourceError(f"{file.path}: columns differ from those of {files[0].path.name}; give one at a time")
    for file in files:
        _check_size(file)
    image, label, split, name = _choose(files[0], options)
    left_out = [one.name for one in files[0].columns if one.decode is None and one.name != image]
    paths = [file.path for file in files]
    reader = (
        PackedReader(tuple(paths), tuple(file.size for file in files))
        if any(file.packed for file in files)
        else RangeReader(paths)
    )
    return list_records(
        [
            RecordFile(
                path=file.path,
                name=file.name,
                split=file.split,
                label_column=label,
                split_column=split,
                records=_records(file, image, label, split, name),
            )
            for file in files
        ],
        path=path,
        kind=kind,
        reader=reader,
        options=options,
        warnings=[f"columns {some(left_out)} hold no plain values and are left out"] if left_out else [],
        used=[file.path.parent / INDEX for file in files],
    )


def _check_size(file: ChunkFile) -> None:
    try:
        size = os.stat(file.path).st_size
    except FileNotFoundError as error:
        raise SourceError(f"{file.path}: missing, though {INDEX} names it; copy the whole folder again") from error
    if not file.packed and size != file.size:
        raise SourceError(
            f"{file.path}: has {size} bytes, {INDEX} says {file.size}: cut short or changed; copy it again"
        )


def _choose(file: ChunkFile, options: SourceOptions) -> tuple[str, str | None, str | None, str | None]:
    """Return the columns of images, labels, splits and names, by the options or by their usual names."""
    there = [column.name for column in file.columns]
    first = next(_samples(file, _opened(file)), None)
    images = [
        column.name
        for number, column in enumerate(file.columns)
        if column.image and first is not None and looks_like_an_image(bytes(first[number][1][:_HEAD_BYTES]))
    ]
    image = options.image_column
    if image is None:
        image = find_usual(images, _IMAGE_NAMES) or (images[0] if len(images) == 1 else None)
    if image is None or image not in there:
        raise SourceError(
            f"{file.path}: no column holds an encoded image, such as a JPEG; name it with --image-column, or write the "
            f"dataset with encoded images (it has: {', '.join(there)})"
        )
    plain = [column.name for column in file.columns if column.decode and column.name != image]
    label = options.label_column
    if label is None:
        label = find_usual(plain, (*LABEL_NAMES, "cls", "y"))
        if label is None and len(plain) == 1 and plain[0].isdigit():
            label = plain[0]
    split = options.split_column if options.split_column is not None else find_usual(plain, SPLIT_NAMES)
    for option, column in (("--label-column", label), ("--split-column", split)):
        if column and column not in plain:
            raise SourceError(
                f"{file.path}: no column {column!r} of plain values ({option}), it has: {', '.join(there)}"
            )
    return image, label or None, split or None, find_usual(plain, _NAMES)


def _records(file: ChunkFile, image: str, label: str | None, split: str | None, name: str | None) -> Iterator[Record]:
    for number, places in enumerate(_samples(file, _opened(file))):
        values: dict[str, Any] = {}
        start = size = 0
        for column, (at, data) in zip(file.columns, places, strict=True):
            if column.name == image:
                start, size = at, len(data)
            elif column.decode is not None:
                try:
                    values[column.name] = column.decode(bytes(data))
                except (ValueError, ArithmeticError) as error:
                    raise SourceError(f"{file.path}: sample {number}: column {column.name}: {error}") from error
        own = values.pop(name, None) if name else None
        yield Record(
            start,
            size,
            str(own or ""),
            values.pop(label, None) if label else None,
            values.pop(split, None) if split else None,
            values,
        )


def _opened(file: ChunkFile) -> memoryview:
    if file.packed:
        data = unpacked(file.path, file.size)
        if len(data) != file.size:
            raise SourceError(f"{file.path}: unpacks to {len(data)} bytes, {INDEX} says {file.size}; copy it again")
        return memoryview(data)
    with open(file.path, "rb", opener=open_regular) as opened:
        return memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) if file.size else b"")


def _samples(file: ChunkFile, view: memoryview) -> Iterator[list[tuple[int, memoryview]]]:
    """Yield place and bytes of the columns of each sample. Raises `SourceError` for offsets that lead elsewhere."""
    if len(view) < 4 or (count := int.from_bytes(view[:4], "little")) != file.samples:
        raise SourceError(f"{file.path}: damaged: must have {file.samples} samples, as {INDEX} says")
    table = 4 + 4 * (count + 1)
    if table > len(view):
        raise SourceError(f"{file.path}: cut short in its table of offsets; copy it again")
    offsets = np.frombuffer(view[4:table], "<u4").tolist()
    free = sum(column.size is None for column in file.columns)
    for number, (start, end) in enumerate(itertools.pairwise(offsets)):
        at = start + 4 * free
        if not table <= start <= at <= end <= len(view):
            raise SourceError(f"{file.path}: damaged at sample {number}: its place is outside of the file")
        sizes = iter(np.frombuffer(view[start:at], "<u4").tolist())
        found = []
        for column in file.columns:
            size = next(sizes) if column.size is None else column.size
            found.append((at, view[at : at + size]))
            at += size
        if at != end:
            raise SourceError(f"{file.path}: damaged at sample {number}: its columns have other sizes than it has")
        yield found


def plain_name(name: object) -> str | None:
    """Return the name of a file in an index, or of one in folders below; None for any other value."""
    parts = name.split("/") if isinstance(name, str) else [""]
    return None if any(part in ("", ".", "..") for part in parts) or "\0" in str(name) else str(name)


def member(value: Mapping[str, Any], name: str, kind: type, where: Path) -> Any:
    """Return a member of an index. Raises `SourceError` where it is missing or of another type."""
    found = value.get(name)
    if not isinstance(found, kind) or isinstance(found, bool):
        raise SourceError(f"{where}: damaged: {name} must be of type {kind.__name__}, got {type(found).__name__}")
    return found
