"""TFRecord files of `tf.train.Example` -> Listing; images are read where they lie, those in .gz files are unpacked.

imagenet/train-00000-of-01024   mnist-train.tfrecord-00000-of-00001   x.tfrecord.gz

Features are found by their names in the first record: `image/encoded` or `image`, `image/class/label` or `label`.
TFDS's `label.labels.txt` beside the files names the classes, and so does `image/class/text`.
"""

import gzip
import mmap
import os
import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from imgdata.errors import SourceError
from imgdata.images.probe import looks_like_an_image
from imgdata.sample import ClassName
from imgdata.sources.classes import some
from imgdata.sources.label_column import LABEL_NAMES
from imgdata.sources.listing import Listing
from imgdata.sources.options import SourceOptions
from imgdata.sources.packed_files import PackedReader, unpacked
from imgdata.sources.protobuf import Span, fields, varints
from imgdata.sources.readers import RangeReader
from imgdata.sources.records import Record, RecordFile, files_below, list_records
from imgdata.sources.splits import SPLIT_NAMES, split_in_path
from imgdata.sources.table.columns import find_usual
from imgdata.storage.reading import open_regular, read_file

NAME = "tfrecord"

_ENDING = re.compile(r"\.(tfrecords?|tfrec)(?=$|[.-])", re.IGNORECASE)
_PART = re.compile(r"-\d{5}-of-\d{5}(\.gz)?$")
_IMAGE_NAMES = ("image/encoded", "image", "image_raw", "jpg", "jpeg", "png", "img", "bytes", "image/bytes")
_LABELS = ("image/class/label", *LABEL_NAMES, "class/label", "image/class/text")
_TEXT = "image/class/text"
_FILE_NAMES = ("image/filename", "filename", "file_name", "path", "tfds_id")
_CLASS_FILE = "label.labels.txt"
_MAX_CLASS_BYTES = 16 * 2**20
_HEAD = struct.Struct("<QI")
_FOOT = 4
_GZIP = b"\x1f\x8b"

Feature = Sequence[Span] | Sequence[int] | Sequence[float]


class _Columns(NamedTuple):
    image: str
    label: str | None
    split: str | None
    name: str | None


@dataclass
class _Seen:
    """What the records say beside the images."""

    texts: dict[object, str] = field(default_factory=dict)
    """Text beside each label."""
    several: bool = False
    """Whether one label has several texts."""
    left_out: dict[str, None] = field(default_factory=dict)
    """Features of bytes that are no text."""


def recognise(path: Path) -> str | None:
    """Return a phrase when `path` is, or holds, TFRecord files by the check sum of the first record; else None.

    Raises `SourceError` for a file that is called a TFRecord and is none.
    """
    files = files_below(path, _may_be)
    if not files:
        return None
    if not _begins_as_one(files[0]):
        if _ENDING.search(files[0].name):
            raise SourceError(f"{files[0]}: no TFRecord: the check sum of its first length is wrong")
        return None
    return f"TFRecord files ({some([file.name for file in files])})"


def list_samples(path: Path, options: SourceOptions) -> Listing:
    """Return all records, file by file, sorted by name.

    Only the lengths' check sums are compared, since those of the data would need all images to be read twice. Raises
    `SourceError` for files that are cut short, hold no `tf.train.Example`, or have no image.
    """
    files = files_below(path, _may_be)
    if not files:
        raise SourceError(f"{path}: no TFRecord files there")
    relative = [file.name if file == path else file.relative_to(path).as_posix() for file in files]
    columns = _columns(files, options)
    names = _class_names(files[0].parent / _CLASS_FILE)
    seen = _Seen()
    packed = [_is_packed(file) for file in files]
    listing = list_records(
        [
            RecordFile(
                path=file,
                name=name,
                split=split_in_path(name),
                label_column=columns.label,
                split_column=columns.split,
                records=_records(file, columns, seen),
            )
            for file, name in zip(files, relative, strict=True)
        ],
        path=path,
        kind=NAME,
        reader=PackedReader(tuple(files), (None,) * len(files)) if any(packed) else RangeReader(files),
        options=options,
        class_names=names,
        used=[files[0].parent / _CLASS_FILE],
    )
    if seen.left_out:
        note = f"features {some(list(seen.left_out))} hold bytes and are left out"
        listing = replace(listing, warnings=(*listing.warnings, note))
    if names is None and seen.texts and not seen.several:
        texts = {str(label): text for label, text in seen.texts.items()}
        named = tuple(ClassName(one.id, texts.get(one.id, one.name)) for one in listing.classes)
        listing = replace(listing, classes=named)
    return listing


def _may_be(name: str) -> bool:
    return bool(_ENDING.search(name)) or ("." not in name.removesuffix(".gz") and bool(_PART.search(name)))


def _is_packed(file: Path) -> bool:
    with open(file, "rb", opener=open_regular) as opened:
        return opened.read(2) == _GZIP


def _begins_as_one(file: Path) -> bool:
    with open(file, "rb", opener=open_regular) as opened:
        packed = opened.read(2) == _GZIP
        opened.seek(0)
        try:
            head = (gzip.GzipFile(fileobj=opened) if packed else opened).read(_HEAD.size)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            return False
    return len(head) == _HEAD.size and _length(head) is not None


@contextmanager
def _opened(file: Path) -> Iterator[memoryview]:
    if _is_packed(file):
        yield memoryview(unpacked(file))
        return
    with open(file, "rb", opener=open_regular) as opened:
        if not os.fstat(opened.fileno()).st_size:
            yield memoryview(b"")
            return
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
            yield view


def _examples(view: memoryview, file: Path) -> Iterator[dict[str, Feature]]:
    """Yield the features of each record. Raises `SourceError` where the file is damaged or cut short."""
    start, number = 0, 0
    while start < len(view):
        head = bytes(view[start : start + _HEAD.size])
        length = _length(head) if len(head) == _HEAD.size else None
        begin = start + _HEAD.size
        if len(head) < _HEAD.size or (length is not None and begin + length + _FOOT > len(view)):
            raise SourceError(f"{file}: cut short in record {number}; get the file again")
        if length is None:
            raise SourceError(
                f"{file}: damaged at record {number} (byte {start}): the check sum of its length is wrong"
            )
        try:
            yield _example(view, begin, begin + length)
        except (ValueError, IndexError, UnicodeDecodeError, struct.error) as error:
            raise SourceError(f"{file}: record {number} is no tf.train.Example ({error})") from error
        start, number = begin + length + _FOOT, number + 1


def _columns(files: Sequence[Path], options: SourceOptions) -> _Columns:
    """Return the features to read, by the options or by their usual names in the first record."""
    for file in files:
        with _opened(file) as view:
            first = next(_examples(view, file), None)
            if first is None:
                continue
            spans = {name: value[0] for name, value in first.items() if value and isinstance(value[0], tuple)}
            images = [name for name, (a, b) in spans.items() if looks_like_an_image(bytes(view[a : min(b, a + 4096)]))]
        image = options.image_column
        if image is None:
            image = find_usual(images, _IMAGE_NAMES) or (images[0] if len(images) == 1 else None)
        there = ", ".join(sorted(first))
        if image is None or image not in first:
            raise SourceError(
                f"{file}: no feature holds an encoded image; name it with --image-column (it has: {there})"
            )
        others = [name for name in first if name != image]
        label = options.label_column if options.label_column is not None else find_usual(others, _LABELS)
        split = options.split_column if options.split_column is not None else find_usual(others, SPLIT_NAMES)
        for option, column in (("--label-column", label), ("--split-column", split)):
            if column and column not in others:
                raise SourceError(f"{file}: no feature {column!r} ({option}), it has: {there}")
        return _Columns(image, label or None, split or None, find_usual(others, _FILE_NAMES))
    raise SourceError(f"{files[0]}: no records in any file")


def _records(file: Path, columns: _Columns, seen: _Seen) -> Iterator[Record]:
    with _opened(file) as view:
        for number, example in enumerate(_examples(view, file)):
            spans = example.pop(columns.image, ())
            if len(spans) > 1 or (spans and not isinstance(spans[0], tuple)):
                raise SourceError(
                    f"{file}: record {number} has {len(spans)} values in {columns.image}, must be one image"
                )
            start, end = spans[0] if spans else (0, 0)  # type: ignore[misc]
            values = {}
            for name, feature in example.items():
                value = _value(feature, view)
                if value is NotImplemented:
                    seen.left_out.setdefault(name)
                else:
                    values[name] = value
            label = values.pop(columns.label, None) if columns.label else None
            text = values.get(_TEXT)
            if text is not None and label is not None:
                seen.several = seen.several or seen.texts.setdefault(str(label), str(text)) != str(text)
            own = values.pop(columns.name, None) if columns.name else None
            split = values.pop(columns.split, None) if columns.split else None
            yield Record(start, end - start, str(own or ""), label, split, values)


def _value(feature: Feature, view: memoryview) -> Any:
    """Return one value, several, or None for none; `NotImplemented` for bytes that are no text."""
    values: list[Any] = list(feature)
    if values and isinstance(values[0], tuple):
        try:
            values = [bytes(view[start:end]).decode() for start, end in values]
        except UnicodeDecodeError:
            return NotImplemented
    return values[0] if len(values) == 1 else values or None


def _class_names(file: Path) -> list[str] | None:
    if not file.is_file():
        return None
    try:
        return read_file(file, _MAX_CLASS_BYTES).decode().splitlines() or None
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{file}: can't read the names of the classes: {error}") from error


def _example(view: memoryview, start: int, end: int) -> dict[str, Feature]:
    """Return the features of a `tf.train.Example`: places of bytes, or numbers. Raises `ValueError`, `IndexError`."""
    features: dict[str, Feature] = {}
    for number, _, whole in fields(view, start, end):
        for inner, _, entry in fields(view, *whole) if number == 1 else ():
            parts: Mapping[int, Span] = {one: span for one, _, span in fields(view, *entry)} if inner == 1 else {}
            if 1 in parts:
                name = bytes(view[slice(*parts[1])]).decode()
                features[name] = _feature(view, *parts[2]) if 2 in parts else ()
    return features


def _feature(view: memoryview, start: int, end: int) -> Feature:
    values: list[Any] = []
    for number, _, (first, last) in fields(view, start, end):
        for _, wire, (a, b) in fields(view, first, last):
            if number == 1:
                if wire != 2:
                    raise ValueError("a number in place of bytes")
                values.append((a, b))
            elif number == 2:
                values += struct.unpack(f"<{(b - a) // 4}f", view[a:b])
            elif number == 3:
                values += [a] if wire == 0 else varints(view, a, b)
    return values


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _table()


def _length(head: bytes) -> int | None:
    """Return the length that 12 bytes state; None when its check sum (CRC-32C, rotated, plus a constant) is wrong."""
    length, stated = _HEAD.unpack(head)
    crc = 0xFFFFFFFF
    for byte in head[:8]:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 255]
    crc ^= 0xFFFFFFFF
    return int(length) if ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF == stated else None
