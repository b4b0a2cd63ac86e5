"""Parquet files with encoded images in them -> Listing and a reader by row.

Known columns: a struct with `bytes` (and `path`), as Hugging Face stores images, or plain bytes. Splits come from a
column of them, as in a table, else from the names of files and folders (`data/train-00000-of-00002.parquet`); class
names from the `ClassLabel` in the schema's metadata; without it labels are sorted as in a table. All samples of
a split in which no row has a label (null or -1) get the label -1.
"""

import dataclasses
import os
import re
import threading
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from imgdata.dataset.members import MemberKind
from imgdata.errors import ImageError, SourceError
from imgdata.sample import ClassName, SampleRef
from imgdata.sources.classes import some, with_sorted_classes, with_usual_splits
from imgdata.sources.label_column import Labels
from imgdata.sources.listing import Listing, ListingBuilder, title_of
from imgdata.sources.member_columns import Place
from imgdata.sources.options import SourceOptions
from imgdata.sources.parquet.layout import (
    ParquetLayout,
    find_layout,
    holds_images,
    image_column,
    member_kinds,
    without_images,
)
from imgdata.sources.parts import missing_parts
from imgdata.sources.splits import Splits, split_in_path, split_of_word
from imgdata.sources.table.columns import no_label_warning
from imgdata.sources.table.rows import Row, fields_json, open_parquet
from imgdata.sources.walk import extension, visible

NAME = "parquet"
CACHE_BYTES = 256 * 2**20
"""Bytes of row groups that one reader keeps; a single row group larger than that is kept alone."""
_BATCH_ROWS = 256
_MAX_DEPTH = 3
_MUCH_BYTES = 256 * 2**20
_LEAST_ROWS = 4
_MAX_REPEATS = 20
_MAX_RATIO = 200
"""Highest ratio of unpacked to packed bytes in columns above `_MUCH_BYTES`; images are compressed already."""


@dataclass
class ParquetReader:
    """Reader of samples that are rows of `files`: row `ref.offset`, counted from 0 over all row groups.

    Whole row groups are read, and the last used ones are kept: fast in the order of the rows, slow in random order
    (`sources.spool` is for that).
    """

    files: tuple[Path, ...]
    column: str
    """Column path of the bytes: `image.bytes`, or `image`."""
    further: tuple[str, ...] = ()
    """Column paths of further images: those of the first begin at the container behind all files, and so on."""
    cache_bytes: int = CACHE_BYTES
    opener: Callable[[Path], pq.ParquetFile] | None = None
    """What opens a file that is not on this machine; None for those that are."""
    _open: dict[int, tuple[pq.ParquetFile, list[int]]] = field(default_factory=dict, repr=False, compare=False)
    _groups: "OrderedDict[tuple[int, int, str], pa.ChunkedArray[Any]]" = field(
        default_factory=OrderedDict, repr=False, compare=False
    )
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def __getstate__(self) -> dict[str, object]:
        """Return the settings alone: open files and kept row groups stay in their process."""
        settings = {"files": self.files, "column": self.column, "further": self.further}
        return {**settings, "cache_bytes": self.cache_bytes, "opener": self.opener}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def file(self, ref: SampleRef) -> Path | None:
        """Return the path of the Parquet file that holds `ref`; None for one that is not on this machine."""
        return None if self.opener is not None else self.files[ref.container % len(self.files)]

    def read(self, ref: SampleRef) -> bytes:
        """Return the encoded image.

        Raises `ImageError` when the row has none, `SourceError` when the file is damaged or has changed, `OSError`.
        """
        with self._lock:
            return self._read(ref)

    def _read(self, ref: SampleRef) -> bytes:
        of_column, container = divmod(ref.container, len(self.files))
        path = self.files[container]
        column = (self.column, *self.further)[of_column]
        try:
            if container not in self._open:
                file = (self.opener or open_parquet)(path)
                groups = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
                self._open[container] = file, [0, *np.cumsum(groups).tolist()]
            file, starts = self._open[container]
            group = bisect_right(starts, ref.offset) - 1
            if group >= file.num_row_groups:
                raise SourceError(f"{path}: has {starts[-1]} rows, row {ref.offset} was listed; the file has changed")
            data: bytes | None = self._group(container, group, column)[ref.offset - starts[group]].as_py()
        except pa.ArrowMemoryError as error:
            raise MemoryError(str(error)) from error
        except (pa.ArrowException, OSError) as error:
            # Arrow's own faults, such as bad compression, are OSErrors too, but have no number.
            if isinstance(error, OSError) and error.errno is not None:
                raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
            raise SourceError(f"{path}: can't read row {ref.offset}: {error}") from error
        if not data:
            raise ImageError("empty", f"row {ref.offset} of {path.name} holds no image")
        if len(data) != ref.size:
            raise SourceError(f"{path}: row {ref.offset} has {len(data)} bytes, {ref.size} were listed; it has changed")
        return data

    def _group(self, container: int, group: int, path: str) -> "pa.ChunkedArray[Any]":
        kept = self._groups
        place = (container, group, path)
        if place not in kept:
            table = self._open[container][0].read_row_group(group, columns=[path])
            column = _leaf(table.column(0), path)
            while kept and sum(other.nbytes for other in kept.values()) + column.nbytes > self.cache_bytes:
                kept.popitem(last=False)
            kept[place] = column
        kept.move_to_end(place)
        return kept[place]


class _Row(NamedTuple):
    size: int
    path: str
    label: Any
    split: Any
    others: Row
    members: dict[str, int]
    """Bytes of each further image that the row has."""


def recognise(path: Path) -> str | None:
    """Return a phrase when `path` is, or holds, Parquet files with a column of bytes; reads the first file's schema.

    Raises `SourceError` when that file is damaged, or has a column for images that holds none.
    """
    files = _files(path)
    if not files or not holds_images(files[0]):
        return None
    return f"Parquet with images ({some([_relative(file, path) for file in files])})"


def holds_column(path: Path, name: str) -> bool:
    """Return whether the first Parquet file at or below `path` has a column of bytes called `name`.

    Raises `SourceError` when that file is damaged.
    """
    files = _files(path)
    return bool(files) and image_column(open_parquet(files[0]).schema_arrow, name) is not None


def list_samples(path: Path, options: SourceOptions) -> Listing:
    """Return all rows, file by file, sorted by name; a column of splits is used rather than the names of the files.

    Names are the paths beside the bytes where all differ, else `file[row]`. Reads the whole image column once, a few
    rows at a time, since only the bytes themselves tell the sizes. Raises `SourceError` for missing columns, labels
    that only some rows of a split have or that are outside of the classes, and files that don't belong together.
    """
    files = _files(path)
    if not files:
        raise SourceError(f"{path}: no .parquet files there")
    relative = [_relative(file, path) for file in files]
    if options.kind is None:
        _refuse_configurations(path, relative)
    layouts = [find_layout(file, options) for file in files]
    # Files of a test split may have no labels.
    first = next((layout for layout in layouts if layout.label), layouts[0])
    for file, layout in zip(files, layouts, strict=True):
        if layout[:3] != first[:3] or (layout.label and layout[3:5] != first[3:5]):
            other = files[layouts.index(first)].name
            raise SourceError(f"{file}: columns or class names differ from those of {other}; give one at a time")
    if not any(layout.label or layout.others or layout.members for layout in layouts):
        raise SourceError(
            f"{files[0]}: no labels: no column 'label', nor another but {first.top!r}; name it with --label-column"
        )
    splits = [split_in_path(name) for name in relative]
    given = any(splits) or any(layout.split for layout in layouts)
    named = _all_named_differently(files, first)
    kinds = _kinds(files[0], first, options)
    further = [(one, column) for one, column in first.members if one in kinds]
    builder = ListingBuilder(options.exclude)
    builder.members.kinds |= kinds
    labels = Labels(first.names)
    for container, (file, name, split, layout) in enumerate(zip(files, relative, splits, layouts, strict=True)):
        if given and split is None and layout.split is None:
            builder.skip("Parquet files without a split in their name")
            continue
        cells = Splits(layout.split) if layout.split else None
        for number, (size, own_name, value, cell, others, members) in enumerate(_rows(file, layout, further)):
            at = f"{file}: row {number}"
            row_name = own_name if named else f"{name}[{number}]"
            if builder.excluded(row_name):
                continue
            of_row = cells.name(cell, at) if cells else split or "train"
            builder.add(
                split=of_row,
                name=row_name,
                key=os.path.splitext(own_name)[0] if named else f"{os.path.splitext(name)[0]}-{number}",
                label=labels.code(value, column=layout.label, split=of_row, at=at)
                if layout.label
                else labels.none(split=of_row, at=f"{at}: there is no label column"),
                size=size,
                container=container,
                offset=number,
                fields=fields_json(others, frozenset()),
                members={
                    one: Place(f"{row_name}.{one}", num_bytes, (place + 1) * len(files) + container, number)
                    for place, (one, num_bytes) in enumerate(members.items())
                    if num_bytes
                },
            )
    listing = builder.build(
        title=title_of(path),
        kind=NAME,
        reader=ParquetReader(tuple(files), first.image, tuple(column for _, column in further)),
        classes=[ClassName(class_name, class_name) for class_name in first.names or ()],
        given_splits=given,
        warnings=[
            *(
                f"column {column} holds bytes and is left out"
                for column in (*first.left_out, *(one for one, _ in first.members if one not in kinds))
            ),
            *missing_parts(relative),
            *(labels.warnings() if first.label else [no_label_warning(layout.others for layout in layouts)]),
        ],
    )
    labels.check(has_fields=listing.has_fields or bool(listing.members))
    listing = dataclasses.replace(listing, names=dict(first.list_names))
    if not listing.size_N.any():
        raise without_images(files[0], first.image, "all rows are empty")
    return (
        with_usual_splits(listing)
        if first.names
        else with_sorted_classes(listing, labels.ids, order=options.class_order)
    )


def _kinds(file: Path, layout: ParquetLayout, options: SourceOptions) -> dict[str, MemberKind]:
    """Return what the further images of a file are: by its first row that has all, or as a user named them."""
    paths = [path for _, path in layout.members]
    first = (
        (image, others)
        for batch in _batches(file, [layout.image, *paths])
        for image, *others in zip(
            *(_leaf(batch.column(path.split(".")[0]), path).to_pylist() for path in (layout.image, *paths)), strict=True
        )
    )
    return member_kinds(layout, options, first)


def _files(path: Path, depth: int = _MAX_DEPTH) -> list[Path]:
    """Return the Parquet files at or below `path`, sorted folder by folder."""
    if path.is_file():
        return [path] if extension(path.name) == ".parquet" else []
    if not path.is_dir() or not depth:
        return []
    folders, names = visible(path)
    files = [path / name for name in names if extension(name) == ".parquet"]
    for name in folders:
        files += _files(path / name, depth - 1)
    return files


def _refuse_configurations(path: Path, files: Sequence[str]) -> None:
    """Raise `SourceError` for several configurations of one dataset, which would have every image several times.

    Configurations are folders, or names before the split, that have the same splits: `plain/train-0.parquet`,
    `small/train-0.parquet`.
    """
    splits: dict[str, set[str]] = {}
    for file in files:
        parts = file.split("/")
        of_split = [place for place, part in enumerate(parts) if split_in_path(part)]
        if not of_split:
            continue
        words = re.split(r"[-._ ]", parts[of_split[-1]])
        before = words[: next((place for place, word in enumerate(words) if split_of_word(word)), 0)]
        name = "/".join((*parts[: of_split[0]], "-".join(before))).strip("/")
        splits.setdefault(name, set()).add(str(split_in_path(file)))
    names = sorted(splits)
    twice = [name for name in names if any(splits[name] & splits[other] for other in names if other != name)]
    if len(twice) > 1:
        raise SourceError(
            f"{path}: holds several configurations ({some(twice)}) with the same splits, perhaps of the same images; "
            f"give one of them ({path / twice[0]}), or take all with --source parquet"
        )


def _relative(file: Path, path: Path) -> str:
    return file.name if file == path else file.relative_to(path).as_posix()


def _batches(file: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    parquet, total, largest = _open_images(file, columns[0])
    # One image of a dictionary can fill every row: each becomes a copy.
    rows = min(_BATCH_ROWS, max(_LEAST_ROWS, _MUCH_BYTES // max(largest, 1)))
    most, read = max(_MUCH_BYTES, _MAX_REPEATS * total), 0
    try:
        for batch in parquet.iter_batches(batch_size=rows, columns=list(columns)):
            read += batch.column(0).nbytes
            if read > most:
                raise SourceError(
                    f"{file}: column {columns[0]} has {total:,} bytes, and its first rows more than {most:,}: the same "
                    "images come over and over; give a file that has each of them once"
                )
            yield batch
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{file}: damaged Parquet file: {error}") from error
    finally:
        parquet.close()


def _open_images(file: Path, column: str) -> tuple[pq.ParquetFile, int, int]:
    """Return `file` opened, with the unpacked bytes of its column of images and of the largest dictionary.

    Raises `SourceError` for a file that unpacks to far more than images do.
    """
    parquet = open_parquet(file)
    total = largest = 0
    for group in range(parquet.metadata.num_row_groups):
        facts = parquet.metadata.row_group(group)
        for chunk in (facts.column(place) for place in range(facts.num_columns)):
            unpacked, packed = chunk.total_uncompressed_size, chunk.total_compressed_size
            if unpacked > _MUCH_BYTES and unpacked > _MAX_RATIO * packed:
                parquet.close()
                raise SourceError(
                    f"{file}: row group {group} of column {chunk.path_in_schema} unpacks from {packed:,} to "
                    f"{unpacked:,} bytes, which no images do"
                )
            if chunk.path_in_schema == column:
                total += unpacked
                largest = max(largest, unpacked if chunk.has_dictionary_page else 0)
    return parquet, total, largest


def _leaf(column: Any, path: str) -> Any:
    """Return the last part of a column path such as `image.bytes`, taken from its column."""
    return pc.struct_field(column, path.rpartition(".")[2]) if pa.types.is_struct(column.type) else column


def _rows(file: Path, layout: ParquetLayout, further: Sequence[tuple[str, str]]) -> Iterator[_Row]:
    columns = [layout.image, *filter(None, (layout.path, layout.label, layout.split)), *layout.others]
    columns += [path for _, path in further]
    for batch in _batches(file, columns):
        images = batch.column(layout.top)
        sizes = pc.binary_length(_leaf(images, layout.image)).fill_null(0).to_pylist()
        paths = _leaf(images, layout.path).to_pylist() if layout.path else [""] * len(sizes)
        labels, splits = (
            batch.column(column).to_pylist() if column else repeat(None, len(sizes))
            for column in (layout.label, layout.split)
        )
        others = batch.select(list(layout.others)).to_pylist() if layout.others else [{}] * len(sizes)
        members = [
            pc.binary_length(_leaf(batch.column(path.split(".")[0]), path)).fill_null(0).to_pylist()
            for _, path in further
        ]
        names = [one for one, _ in further]
        of_rows = [dict(zip(names, row, strict=True)) for row in zip(*members, strict=True)] or [{}] * len(sizes)
        yield from map(_Row, sizes, paths, labels, splits, others, of_rows)


def _all_named_differently(files: Sequence[Path], layout: ParquetLayout) -> bool:
    """Return whether each row has a path of its own; 8 bytes of memory a row."""
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
