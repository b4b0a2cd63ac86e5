"""Arrow files of Hugging Face's `save_to_disk` -> Listing; images are read where they lie, byte for byte.

photos/dataset_dict.json  photos/train/state.json  photos/train/data-00000-of-00002.arrow ...  photos/validation/...
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imgdata.dataset.members import MemberKind
from imgdata.errors import SourceError
from imgdata.sources.classes import some
from imgdata.sources.listing import Listing
from imgdata.sources.options import SourceOptions
from imgdata.sources.parquet.layout import ParquetLayout, layout_of, member_kinds
from imgdata.sources.readers import RangeReader
from imgdata.sources.records import Record, RecordFile, list_records, read_stated
from imgdata.sources.splits import split_in_path, split_name
from imgdata.sources.walk import extension, visible
from imgdata.storage.reading import require_regular

NAME = "arrow"

_STATE = "state.json"
_SPLITS = "dataset_dict.json"
_END = b"\xff\xff\xff\xff\0\0\0\0"
"""Last bytes of a whole Arrow stream."""
_ROWS = 256


@dataclass(frozen=True)
class _Part:
    path: Path
    name: str
    split: str | None


def recognise(path: Path) -> str | None:
    """Return a phrase when `path` is a folder of `save_to_disk`, or None; looks at names only."""
    if not path.is_dir():
        return None
    if (path / _SPLITS).is_file():
        return f"Hugging Face's save_to_disk ({_SPLITS})"
    if (path / _STATE).is_file() and _arrow_files(path):
        return f"Hugging Face's save_to_disk ({_STATE})"
    return None


def list_samples(path: Path, options: SourceOptions) -> Listing:
    """Return all rows, split by split and file by file in the order that the dataset states.

    Names are the paths beside the bytes where all differ, else `file[row]`. Raises `SourceError` for files that are
    missing, cut short, compressed or different in their columns.
    """
    parts, skipped = _parts(path)
    layouts = []
    for part in parts:
        with _opened(part.path) as (stream, _):
            layouts.append(layout_of(stream.schema, part.path, options))
    first = next((layout for layout in layouts if layout.label), layouts[0])
    for part, layout in zip(parts, layouts, strict=True):
        if layout[:3] != first[:3] or (layout.label and layout[3:5] != first[3:5]):
            raise SourceError(f"{part.path}: columns or class names differ from those of {parts[0].name}")
    kinds = _kinds(parts[0].path, first, options)
    further = [(one, column) for one, column in first.members if one in kinds]
    named = first.path is not None and _all_differ(
        name for part in parts for batch in _batches(part.path) for name in _leaf(batch, first.path).to_pylist()
    )
    return list_records(
        [
            RecordFile(
                path=part.path,
                name=part.name,
                split=part.split,
                label_column=layout.label,
                split_column=layout.split,
                records=_records(part.path, layout, named, further),
            )
            for part, layout in zip(parts, layouts, strict=True)
        ],
        path=path,
        kind=NAME,
        reader=RangeReader([part.path for part in parts]),
        options=options,
        class_names=first.names,
        names=dict(first.list_names),
        skipped=skipped,
        member_kinds=kinds,
        warnings=[
            f"column {column} holds bytes and is left out"
            for column in (*first.left_out, *(one for one, _ in first.members if one not in kinds))
        ],
    )


def _parts(path: Path) -> tuple[list[_Part], dict[str, int]]:
    """Return the files in the order in which the dataset has them, and counts of what lies beside them."""
    if not (path / _SPLITS).is_file():
        files, beside = _of_split(path)
        return [_Part(file, file.name, None) for file in files], beside
    stated = _read(path / _SPLITS).get("splits")
    if (
        not isinstance(stated, list)
        or not all(isinstance(name, str) and _is_plain(name) for name in stated)
        or not stated
    ):
        raise SourceError(f"{path / _SPLITS}: must name the splits of the dataset; save the dataset again")
    parts: list[_Part] = []
    skipped: dict[str, int] = {}
    for name in stated:
        files, beside = _of_split(path / name)
        parts += [_Part(file, f"{name}/{file.name}", split_in_path(name) or split_name(name)) for file in files]
        for what, count in beside.items():
            skipped[what] = skipped.get(what, 0) + count
    entries = visible(path)
    others = len(set(entries.files) - {_SPLITS}) + len(set(entries.folders) - set(stated))
    if others:
        skipped["other entries beside the splits"] = others
    return parts, skipped


def _of_split(folder: Path) -> tuple[list[Path], dict[str, int]]:
    if not (folder / _STATE).is_file():
        raise SourceError(f"{folder}: has no {_STATE}, so that part of the dataset is missing; save the dataset again")
    state = _read(folder / _STATE)
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise SourceError(
            f"{folder / _STATE}: an old form that selects rows by a list; open it with datasets and save it again"
        )
    stated = state.get("_data_files")
    names = [str(one.get("filename")) for one in stated if isinstance(one, dict)] if isinstance(stated, list) else []
    if not names or not all(map(_is_plain, names)):
        raise SourceError(f"{folder / _STATE}: must name the Arrow files of the dataset; save the dataset again")
    there = visible(folder).files
    missing = [name for name in names if name not in there]
    if missing:
        raise SourceError(f"{folder}: {some(missing)} missing, which {_STATE} names; copy the whole folder again")
    beside = len(set(there) - {*names, _STATE, "dataset_info.json"})
    return [folder / name for name in names], {"other files beside the Arrow files": beside} if beside else {}


def _read(file: Path) -> dict[str, Any]:
    value = read_stated(file)
    if not isinstance(value, dict):
        raise SourceError(f"{file}: must be a JSON object; save the dataset again")
    return value


def _is_plain(name: str) -> bool:
    return bool(name) and name not in (".", "..") and "/" not in name and "\0" not in name


def _arrow_files(folder: Path) -> list[str]:
    return [name for name in visible(folder).files if extension(name) == ".arrow"]


@contextmanager
def _opened(file: Path) -> Iterator[tuple[Any, pa.Buffer]]:
    """Give the stream in `file` and the memory that the file is mapped to. Raises `SourceError` for damaged ones."""
    try:
        require_regular(file)
        with pa.memory_map(str(file)) as mapped:
            memory = mapped.read_buffer()
            if memory.size < len(_END) or memory[-len(_END) :].to_pybytes() != _END:
                raise SourceError(f"{file}: cut short: the end mark of an Arrow stream is missing; copy it again")
            yield pa.ipc.open_stream(memory), memory
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{file}: damaged Arrow file: {getattr(error, 'strerror', None) or error}") from error


def _batches(file: Path) -> Iterator[pa.RecordBatch]:
    with _opened(file) as (stream, _):
        for batch in stream:
            # Offsets that point outside of the file would crash, not fail.
            batch.validate(full=True)
            yield batch


def _kinds(file: Path, layout: ParquetLayout, options: SourceOptions) -> dict[str, MemberKind]:
    """Return what the further images of a file are: by its first row that has all, or as a user named them."""
    first = (
        (_leaf(batch, layout.image)[row].as_py(), [_leaf(batch, path)[row].as_py() for _, path in layout.members])
        for batch in _batches(file)
        for row in range(len(batch))
    )
    return member_kinds(layout, options, first)


def _records(file: Path, layout: ParquetLayout, named: bool, further: Sequence[tuple[str, str]]) -> Iterator[Record]:
    with _opened(file) as (stream, memory):
        for whole in stream:
            whole.validate(full=True)
            places = [(one, *_places(_leaf(whole, path), memory, file)) for one, path in further]
            images = _leaf(whole, layout.image)
            offset_N, size_N = _places(images, memory, file)
            for start in range(0, len(whole), _ROWS):
                batch = whole.slice(start, _ROWS)
                rows = len(batch)
                yield from map(
                    Record,
                    offset_N[start : start + rows].tolist(),
                    size_N[start : start + rows].tolist(),
                    _leaf(batch, layout.path).to_pylist() if named and layout.path else repeat("", rows),
                    batch.column(layout.label).to_pylist() if layout.label else repeat(None, rows),
                    batch.column(layout.split).to_pylist() if layout.split else repeat(None, rows),
                    batch.select(list(layout.others)).to_pylist() if layout.others else repeat({}, rows),
                    [
                        tuple((one, int(at_N[row]), int(bytes_N[row])) for one, at_N, bytes_N in places if bytes_N[row])
                        for row in range(start, start + rows)
                    ],
                )


def _places(images: pa.Array, memory: pa.Buffer, file: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where each image begins in `file`, and its size; 0 where there is none. Raises `SourceError`."""
    kind = np.int64 if pa.types.is_large_binary(images.type) else np.int32
    _, starts, data = images.buffers()
    sizes_N = pc.binary_length(images).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    if data is None or not sizes_N.any():
        return np.zeros(len(images), np.int64), sizes_N
    bounds_N = np.frombuffer(starts, kind, len(images), images.offset * np.dtype(kind).itemsize).astype(np.int64)
    first = data.address - memory.address
    if not 0 <= first <= memory.size - data.size:
        raise SourceError(f"{file}: its images are compressed; open the dataset with datasets and save it again")
    return bounds_N + first, sizes_N


def _leaf(batch: pa.RecordBatch, path: str) -> Any:
    """Return the last part of a column path such as `image.bytes`."""
    top, _, inner = path.rpartition(".") if path not in batch.schema.names else (path, "", "")
    column = batch.column(top)
    return pc.struct_field(column, inner) if inner else column


def _all_differ(names: Iterator[str | None]) -> bool:
    seen: set[int] = set()
    for count, name in enumerate(names, 1):
        if not name:
            return False
        seen.add(hash(name))
        if len(seen) < count:
            return False
    return True
