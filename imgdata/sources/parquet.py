"""Parquet files with encoded images in them -> Listing, a reader by row, and a spool of the bytes in one file.

Known columns: a struct with `bytes` (and `path`), as Hugging Face stores images, or plain bytes. Splits come from the
names of files and folders (`data/train-00000-of-00002.parquet`), class names from the `ClassLabel` in the schema's
metadata; without it labels are sorted as in a table. Rows without a label (-1 or null) are left out and counted.
"""

import dataclasses
import json
import os
import threading
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from imgdata.errors import ImageError, OutputError, SourceError
from imgdata.sample import ClassName, SampleRef
from imgdata.sources.classes import some, with_sorted_classes, with_usual_splits
from imgdata.sources.labels import LABEL_NAMES, Labels
from imgdata.sources.listing import Listing, ListingBuilder
from imgdata.sources.options import SourceOptions
from imgdata.sources.readers import RangeReader
from imgdata.sources.rows import Row, fields_json, holds_bytes, open_parquet
from imgdata.sources.walk import extension, visible
from imgdata.sources.words import split_in_path, split_name

NAME = "parquet"

CACHE_BYTES = 256 * 2**20
"""Bytes of row groups that one reader keeps; a single row group larger than that is kept alone."""

_IMAGE_NAMES = ("image", "img", "bytes", "image_bytes", "image_data", "data", "content", "jpg", "png")
_BATCH_ROWS = 256
_MAX_DEPTH = 3
_SPOOL_ROWS = 4096


@dataclass
class ParquetReader:
    """Each sample is a row of one of `files`: row `ref.offset`, counted from 0 over all row groups.

    Reads whole row groups and keeps the last used ones; cheap in the order of the rows, dear in random order (`spool`
    is the way out).
    """

    files: tuple[Path, ...]
    column: str
    """Column path of the bytes: `image.bytes`, or `image`."""
    cache_bytes: int = CACHE_BYTES
    _open: dict[int, tuple[pq.ParquetFile, list[int]]] = field(default_factory=dict, repr=False, compare=False)
    _groups: "OrderedDict[tuple[int, int], pa.ChunkedArray[Any]]" = field(
        default_factory=OrderedDict, repr=False, compare=False
    )
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def __getstate__(self) -> dict[str, object]:
        """Open files and kept row groups stay in their process."""
        return {"files": self.files, "column": self.column, "cache_bytes": self.cache_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def read(self, ref: SampleRef) -> bytes:
        """The encoded image; `ImageError` when the row has none, `SourceError` when the file has changed."""
        with self._lock:
            return self._read(ref)

    def _read(self, ref: SampleRef) -> bytes:
        path = self.files[ref.container]
        try:
            if ref.container not in self._open:
                file = open_parquet(path)
                groups = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
                self._open[ref.container] = file, [0, *np.cumsum(groups).tolist()]
            file, starts = self._open[ref.container]
            group = bisect_right(starts, ref.offset) - 1
            if group >= file.num_row_groups:
                raise SourceError(f"{path}: has {starts[-1]} rows, row {ref.offset} was listed; the file has changed")
            data: bytes | None = self._group(ref.container, group)[ref.offset - starts[group]].as_py()
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{path}: can't read row {ref.offset}: {error}") from error
        if not data:
            raise ImageError("empty", f"row {ref.offset} of {path.name} holds no image")
        if len(data) != ref.size:
            raise SourceError(f"{path}: row {ref.offset} has {len(data)} bytes, {ref.size} were listed; it has changed")
        return data

    def _group(self, container: int, group: int) -> "pa.ChunkedArray[Any]":
        kept = self._groups
        if (container, group) not in kept:
            table = self._open[container][0].read_row_group(group, columns=[self.column])
            column = _leaf(table.column(0), self.column)
            while kept and sum(other.nbytes for other in kept.values()) + column.nbytes > self.cache_bytes:
                kept.popitem(last=False)
            kept[container, group] = column
        kept.move_to_end((container, group))
        return kept[container, group]


class _Layout(NamedTuple):
    """Where images, labels and class names are found in a file."""

    top: str
    """Column of the images."""
    image: str
    """Column path of the bytes: `image.bytes` or `image`."""
    path: str | None
    """Column path of the original names: `image.path`."""
    label: str
    names: tuple[str, ...] | None
    """Class names that the metadata states."""
    split: str | None
    others: tuple[str, ...]
    """Further columns, kept as fields."""
    left_out: tuple[str, ...]
    """Further columns that hold bytes."""


class _Row(NamedTuple):
    size: int
    path: str
    label: Any
    row: Row


def recognise(path: Path) -> str | None:
    """Whether `path` is, or holds, Parquet files with a column of bytes; reads the schema of the first."""
    try:
        files = _files(path)
        if not files or _image_column(open_parquet(files[0]).schema_arrow, None) is None:
            return None
    except SourceError:
        return None
    return f"Parquet with images ({some([_relative(file, path) for file in files])})"


def list_samples(path: Path, options: SourceOptions) -> Listing:
    """All rows with a label, file by file, sorted by name.

    Names are the paths beside the bytes where all differ, else `file[row]`. Reads the whole image column once, a few
    rows at a time, since only the bytes themselves tell the sizes. Raises `SourceError` for missing columns, labels
    outside of the classes, and files that don't belong together.
    """
    files = _files(path)
    if not files:
        raise SourceError(f"{path}: no .parquet files there")
    relative = [_relative(file, path) for file in files]
    layout = _layout(files[0], options)
    splits = [split_in_path(name) for name in relative]
    named = _all_named_differently(files, layout)
    builder = ListingBuilder()
    labels = Labels()
    for container, (file, name, split) in enumerate(zip(files, relative, splits, strict=True)):
        if split is None and any(splits):
            builder.skip("Parquet files without a split in their name")
            continue
        if _layout(file, options)[:5] != layout[:5]:
            raise SourceError(f"{file}: columns or class names differ from those of {relative[0]}; give one at a time")
        for number, (size, own_name, value, row) in enumerate(_rows(file, layout)):
            at = f"{file}: row {number}"
            label = _label(value, layout, labels, at)
            if label is None:
                builder.skip(f"rows without a label in {split or name}")
                continue
            builder.add(
                split=(split_name(str(row[layout.split])) if layout.split else split) or "train",
                name=own_name if named else f"{name}[{number}]",
                key=os.path.splitext(own_name)[0] if named else f"{os.path.splitext(name)[0]}-{number}",
                label=label,
                size=size,
                container=container,
                offset=number,
                fields=fields_json(row, frozenset({layout.split or ""})),
            )
    if not len(builder) and any(what.startswith("rows without") for what in builder.skipped):
        raise SourceError(f"{path}: no labels: column {layout.label!r} is empty or -1 everywhere (--label-column)")
    listing = builder.build(
        title=(path if path.is_dir() else path.with_suffix("")).resolve().name,
        kind=NAME,
        reader=ParquetReader(tuple(files), layout.image),
        classes=[ClassName(class_name, class_name) for class_name in layout.names or ()],
        given_splits=any(splits) or layout.split is not None,
        warnings=[f"column {column} holds bytes and is left out" for column in layout.left_out],
    )
    if layout.names is not None:
        return with_usual_splits(listing)
    listing = dataclasses.replace(listing, warnings=(*listing.warnings, *labels.warnings()))
    return with_sorted_classes(listing, labels.ids, numeric=labels.numeric)


def spool(listing: Listing, path: Path) -> Listing:
    """Copies all images of `listing` into one file at `path`, row group by row group; random access is cheap there.

    Returns the listing with a `RangeReader` on that file. Samples keep rows, names, keys, labels and sizes; offsets
    change, and they count in `Listing.fingerprint`: a caller that compares fingerprints takes it before spooling.
    Nothing stands at `path` before it is complete. Raises `OutputError` when it can't be written.
    """
    order_N = np.lexsort((listing.offset_N, listing.container_N))
    offset_N = np.zeros(len(listing), np.int64)
    partial = path.with_name(path.name + ".part")
    try:
        with open(partial, "wb") as blob:
            for start in range(0, len(order_N), _SPOOL_ROWS):
                row_N = order_N[start : start + _SPOOL_ROWS]
                for row, ref in zip(row_N.tolist(), listing.refs(row_N), strict=True):
                    offset_N[row] = blob.tell()
                    # A row without an image stays one of size 0, to be rejected as the others are.
                    blob.write(listing.reader.read(ref) if ref.size else b"")
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: can't copy the images there: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return dataclasses.replace(
        listing,
        reader=RangeReader((path,)),
        container_N=np.zeros(len(listing), np.int32),
        offset_N=offset_N,
    )


def _files(path: Path, depth: int = _MAX_DEPTH) -> list[Path]:
    """Parquet files at or below `path`, sorted folder by folder."""
    if path.is_file():
        return [path] if extension(path.name) == ".parquet" else []
    if not path.is_dir() or not depth:
        return []
    folders, names = visible(path)
    files = [path / name for name in names if extension(name) == ".parquet"]
    for name in folders:
        files += _files(path / name, depth - 1)
    return files


def _relative(file: Path, path: Path) -> str:
    return file.name if file == path else file.relative_to(path).as_posix()


def _image_column(schema: pa.Schema, given: str | None) -> str | None:
    """Column path of the encoded images; None when it can't be told."""
    paths = {}
    for column in schema:
        if pa.types.is_struct(column.type):
            place = column.type.get_field_index("bytes")
            if place >= 0 and _is_bytes(column.type.field(place).type):
                paths[column.name] = f"{column.name}.bytes"
        elif _is_bytes(column.type):
            paths[column.name] = column.name
    if given is not None:
        return paths.get(given)
    usual = next((name for name in _IMAGE_NAMES if name in paths), None)
    if usual is None and len(paths) == 1:
        usual = next(iter(paths))
    return None if usual is None else paths[usual]


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _layout(file: Path, options: SourceOptions) -> _Layout:
    """Where things are in `file`, by the options or by their usual names."""
    schema = open_parquet(file).schema_arrow
    there = ", ".join(schema.names)
    image = _image_column(schema, options.image_column)
    if image is None:
        raise SourceError(f"{file}: can't tell which column holds image bytes; name it with --image-column ({there})")
    features = _features(schema, file)
    labels = [name for name, feature in features.items() if feature.get("_type") == "ClassLabel"]
    usual = (f"{options.labels}_label", *LABEL_NAMES, *(labels if len(labels) == 1 else ()))
    label = options.label_column or next((name for name in usual if name in schema.names), None)
    if label is None or label not in schema.names:
        raise SourceError(f"{file}: no labels: no column {label or 'label'!r}; name it with --label-column ({there})")
    split = options.split_column
    if split is not None and split not in schema.names:
        raise SourceError(f"{file}: no column {split!r} (--split-column); it has: {there}")
    top = image.removesuffix(".bytes") if image not in schema.names else image
    path = f"{top}.path" if image != top and schema.field(top).type.get_field_index("path") >= 0 else None
    names = features.get(label, {}).get("names")
    others = [name for name in schema.names if name not in (top, label)]
    return _Layout(
        top=top,
        image=image,
        path=path,
        label=label,
        names=tuple(map(str, names)) if names else None,
        split=split,
        others=tuple(name for name in others if not holds_bytes(schema.field(name).type)),
        left_out=tuple(name for name in others if holds_bytes(schema.field(name).type)),
    )


def _features(schema: pa.Schema, file: Path) -> dict[str, dict[str, Any]]:
    """What Hugging Face's metadata say of the columns; empty when there are none."""
    text = (schema.metadata or {}).get(b"huggingface")
    if text is None:
        return {}
    try:
        features = json.loads(text).get("info", {}).get("features", {})
    except (ValueError, AttributeError) as error:
        raise SourceError(f"{file}: the metadata `huggingface` in its schema are damaged: {error}") from error
    return {name: feature for name, feature in features.items() if isinstance(feature, dict)}


def _batches(file: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    parquet = open_parquet(file)
    try:
        yield from parquet.iter_batches(batch_size=_BATCH_ROWS, columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{file}: damaged Parquet file: {error}") from error
    finally:
        parquet.close()


def _leaf(column: Any, path: str) -> Any:
    """The last part of a column path such as `image.bytes`, taken from its column."""
    return pc.struct_field(column, path.rpartition(".")[2]) if pa.types.is_struct(column.type) else column


def _rows(file: Path, layout: _Layout) -> Iterator[_Row]:
    columns = [layout.image, *([layout.path] if layout.path else []), layout.label, *layout.others]
    for batch in _batches(file, columns):
        images = batch.column(layout.top)
        sizes = pc.binary_length(_leaf(images, layout.image)).fill_null(0).to_pylist()
        paths = _leaf(images, layout.path).to_pylist() if layout.path else [""] * len(sizes)
        values = batch.column(layout.label).to_pylist()
        others = batch.select(list(layout.others)).to_pylist() if layout.others else [{}] * len(sizes)
        yield from map(_Row, sizes, paths, values, others)


def _all_named_differently(files: Sequence[Path], layout: _Layout) -> bool:
    """Whether each row has a path of its own; 8 bytes of memory a row."""
    if layout.path is None:
        return False
    hashes = array("Q")
    for file in files:
        for batch in _batches(file, [layout.path]):
            for path in _leaf(batch.column(0), layout.path).to_pylist():
                if not path:
                    return False
                hashes.append(xxhash.xxh3_64_intdigest(path.encode()))
    return len(np.unique(np.frombuffer(hashes, np.uint64))) == len(hashes)


def _label(value: Any, layout: _Layout, labels: Labels, at: str) -> int | None:
    """Class index where the metadata name the classes, else a number to be sorted later; None without a label."""
    if value is None or value == -1:
        return None
    if layout.names is None:
        return labels.code(value, layout.label, at)
    if isinstance(value, str) and value in layout.names:
        return layout.names.index(value)
    if not isinstance(value, int) or not 0 <= value < len(layout.names):
        raise SourceError(f"{at}: label {value!r} is outside of the {len(layout.names)} classes of {layout.label!r}")
    return value
