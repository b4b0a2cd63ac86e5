"""A folder -> sentences on its files that can't be read as they are: packed, or in a form that no source reads."""

import json
from collections.abc import Iterator
from pathlib import Path

from imgdata.sources.classes import some
from imgdata.sources.folder_names import is_hidden
from imgdata.sources.walk import extension, is_image, visible

PACKED = frozenset({".zip", ".7z", ".rar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".tbz2", ".txz"})
"""Endings of archives and compressed files that no source reads (but CIFAR's own)."""
_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".json", ".txt")
_STORES = {
    ".arrow": "an Arrow file of Hugging Face's save_to_disk, without the state.json that belongs to it",
    ".rec": "a RecordIO file of MXNet; write the images out with its im2rec tools",
    ".h5": "an HDF5 file without images and labels by such names; write the images out",
    ".hdf5": "an HDF5 file without images and labels by such names; write the images out",
    ".npz": "NumPy arrays; write the images out",
    ".npy": "NumPy arrays; write the images out",
    ".beton": "a dataset of FFCV; write the images out",
    ".mds": "a shard of Streaming, without the index.json that belongs to it",
    ".mat": "a MATLAB file; write its labels into a CSV with the columns path and label",
    ".xlsx": "a spreadsheet; save it as CSV with the columns path and label",
    ".xls": "a spreadsheet; save it as CSV with the columns path and label",
    ".db": "a database; write its labels into a CSV with the columns path and label",
    ".sqlite": "a database; write its labels into a CSV with the columns path and label",
    ".pkl": "a pickle, which is a program and is not run; write its labels into a CSV with the columns path and label",
}
_HEAD_BYTES = 65_536
_SHOWN = 4
_MAX_FILES = 200


def not_understood(path: Path) -> list[str]:
    """Return a sentence for each of the first few files in `path`, or just below, that may hold images or labels."""
    found: list[str] = []
    entries = visible(path)
    names = entries.files[:_MAX_FILES]
    for folder in entries.folders[:_MAX_FILES]:
        if len(names) < _MAX_FILES and not is_hidden(folder):
            names += [f"{folder}/{name}" for name in visible(path / folder).files[: _MAX_FILES - len(names)]]
    for name in names:
        what = _what(path / name)
        if what:
            found.append(f"{name}: {what}")
    return found[:_SHOWN] + ([f"{len(found) - _SHOWN} more such files"] if len(found) > _SHOWN else [])


def label_files(path: Path) -> list[str]:
    """Return those sentences of `not_understood` that are about tables and lists directly in `path`."""
    return [
        f"{name}: {what}"
        for name in visible(path).files[:_MAX_FILES]
        if extension(name) in (".json", ".txt", ".lst", ".gz", ".xlsx", ".xls", ".pkl", ".mat")
        and (what := _what(path / name))
        and "archive" not in what
    ][:_SHOWN]


def _what(file: Path) -> str:
    ending = extension(file.name)
    if is_image(file.name):
        return ""
    if ending in PACKED:
        inner = extension(file.name.removesuffix(file.suffix))
        if inner in _TABLES:
            return "a compressed table; unpack it first (gunzip)"
        return "a packed archive; unpack it first"
    if ending in _STORES:
        return _STORES[ending]
    if ending == ".json":
        return _of_json(file)
    return _of_list(file) if ending in (".txt", ".lst", ".list") else ""


def _head(file: Path) -> str:
    try:
        if not file.is_file():
            return ""
        with open(file, "rb") as opened:
            return opened.read(_HEAD_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _of_json(file: Path) -> str:
    text = _head(file).lstrip("\ufeff \r\n\t")
    if text.startswith("["):
        return "a JSON array; write one object a line instead (jq -c '.[]' x.json > x.jsonl), with path and label"
    if '"annotations"' in text and '"images"' in text:
        return "annotations in COCO's form; write a CSV with the columns path and label"
    if file.name in ("state.json", "dataset_dict.json"):
        return "a file of Hugging Face's save_to_disk; write Parquet instead: dataset.to_parquet('x.parquet')"
    if text.startswith("{") and len(text) < _HEAD_BYTES:
        try:
            names = list(json.loads(text))[:_SHOWN]
        except (ValueError, RecursionError):
            return ""
        if any(is_image(str(name)) for name in names):
            return f"a JSON object of images ({some(names)}); write a CSV with the columns path and label"
    return ""


def _of_list(file: Path) -> str:
    lines = list(_lines(_head(file)))
    named = [line for line in lines[:20] if any(is_image(part) for part in line.replace(",", " ").split())]
    if not named or 2 * len(named) < len(lines[:20]):
        return ""
    return "a list of images; make it a CSV whose first line is path,label"


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if line.strip():
            yield line.strip()
