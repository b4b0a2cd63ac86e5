"""A folder of images and a table of (path, label[, split]) -> Listing.

The table is CSV, TSV, JSON lines or Parquet: `options.table`, the dataset path itself, or the table file that lies in
the folder and has such columns; several tables named by splits (`train.csv`, `val.csv`) are one split each, and so
are `metadata.csv` or `metadata.jsonl` inside split folders, as Hugging Face's image folders have them. A column of
splits goes before such names.

Paths count from the folder of the dataset; where the first one isn't found there, from the one subfolder that has it
(`images/`, or `train/` for `train.csv`). Their extension may be missing. Labels that are all whole numbers become
classes in order of number, others in order of text; a class's id is the label as written. Every file stands in the
table once: a repeated one is an error, since its labels may differ. Further columns are kept as JSON.
"""

import os
import posixpath
import re
import stat
from array import array
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from imgdata.errors import SourceError
from imgdata.sources.classes import some, with_sorted_classes
from imgdata.sources.labels import LABEL_NAMES, Labels
from imgdata.sources.listing import Listing, ListingBuilder
from imgdata.sources.options import SourceOptions
from imgdata.sources.readers import FileReader
from imgdata.sources.rows import TABLE_EXTENSIONS, Row, columns, fields_json, rows
from imgdata.sources.walk import IMAGE_EXTENSIONS, extension, image_files, visible
from imgdata.sources.words import split_in_path, split_name, split_of_word

NAME = "table"

PATH_NAMES = (
    *("path", "file", "file_name", "filename", "file_path", "filepath", "filepaths"),
    *("image_path", "image_file", "image_name", "image", "img_path", "img", "image_id", "id"),
)
SPLIT_NAMES = ("split", "set", "subset", "partition", "data_set", "fold")
"""Usual names of columns, the best first; case, spaces and hyphens don't matter."""

_MAX_TABLES = 16
_USUAL_EXTENSIONS = (".jpg", ".jpeg", ".png", ".JPEG", ".JPG", ".PNG")
_ENDINGS = (*_USUAL_EXTENSIONS, *sorted(IMAGE_EXTENSIONS - {".jpg", ".jpeg", ".png"}))


class _Part(NamedTuple):
    table: Path
    base: str
    """Folder, relative to the dataset's, from which the paths count; empty or with `/` behind."""
    split: str | None
    """Split of all rows, from the table's name or folder."""


class _Columns(NamedTuple):
    path: str
    label: str
    split: str | None


def recognise(path: Path) -> str | None:
    """Whether `path` is, or holds, a table with columns for paths and labels; reads the tables' first lines."""
    options = SourceOptions()
    if path.is_file():
        return "a table of images" if extension(path.name) in TABLE_EXTENSIONS and _fits(path, options) else None
    if not path.is_dir():
        return None
    tables = [part.table for part in (*_beside_images(path), *_in_split_folders(path)) if _fits(part.table, options)]
    return f"a table of images ({some([str(table.relative_to(path)) for table in tables])})" if tables else None


def list_samples(path: Path, options: SourceOptions) -> Listing:
    """The images that the table names, in its order.

    Raises `SourceError` for missing or wrong columns, missing files, empty labels, or a file that stands there twice.
    """
    root, parts = _parts(path, options)
    builder = ListingBuilder()
    labels = Labels()
    hashes = array("Q")
    missing: list[str] = []
    num_missing = 0
    has_splits = False
    for part in parts:
        chosen = _choose(part.table, options)
        has_splits = has_splits or bool(chosen.split or part.split)
        leave_out = frozenset(column for column in chosen if column is not None)
        guess_numbers = extension(part.table.name) not in (".jsonl", ".ndjson", ".parquet")
        finder: _Finder | None = None
        for where, row in rows(part.table):
            at = f"{part.table}: {where}"
            text = _path_text(row.get(chosen.path), root, part.base, at)
            finder = finder or _Finder(root, _base(root, part, text))
            found = finder.find(text)
            if found is None:
                num_missing += 1
                missing += [text] if len(missing) < 3 else []
                continue
            name, size = found
            split = _split(row, chosen.split, at) or part.split or "train"
            builder.add(
                split=split,
                name=name,
                key=_key(name, split),
                label=labels.code(row.get(chosen.label), chosen.label, at),
                size=size,
                fields=fields_json(row, leave_out, guess_numbers=guess_numbers),
            )
            hashes.append(xxhash.xxh3_64_intdigest(os.fsencode(name)))
    if num_missing:
        raise SourceError(
            f"{some([str(part.table) for part in parts])}: {num_missing} of the files are not in {root}, such as "
            f"{some(missing)}; paths count from there (column {chosen.path!r}, another one with --path-column)"
        )
    _count_unlisted(root, parts, builder)
    listing = builder.build(
        title=(root if path.is_dir() else path.with_suffix("")).resolve().name,
        kind=NAME,
        reader=FileReader(root),
        classes=(),
        given_splits=has_splits,
        warnings=labels.warnings(),
    )
    listing = with_sorted_classes(listing, labels.ids, numeric=labels.numeric)
    _refuse_repeated(listing, np.frombuffer(hashes, np.uint64))
    return listing


class _Finder:
    """Finds the files that a table names, with or without extension, and their sizes."""

    def __init__(self, root: Path, base: str) -> None:
        self._root = os.fspath(root)
        self._base = base
        self._endings = list(_ENDINGS)

    def find(self, text: str) -> tuple[str, int] | None:
        """The file's path relative to the root, and its size in bytes; None when there is no such file."""
        name = self._base + text
        if (size := self._size(name)) is not None:
            return name, size
        if extension(name) in IMAGE_EXTENSIONS:
            return None
        for place, ending in enumerate(self._endings):
            if (size := self._size(name + ending)) is not None:
                # The next file most likely ends alike.
                self._endings.insert(0, self._endings.pop(place))
                return name + ending, size
        return None

    def _size(self, name: str) -> int | None:
        try:
            info = os.stat(f"{self._root}/{name}")
        except (OSError, ValueError):
            return None
        return info.st_size if stat.S_ISREG(info.st_mode) else None


def _parts(path: Path, options: SourceOptions) -> tuple[Path, list[_Part]]:
    """The folder that paths count from, and the tables."""
    if path.is_file():
        return path.parent, [_Part(options.table or path, "", None)]
    if options.table is not None:
        if not options.table.is_file():
            raise SourceError(f"{options.table}: no such table (--table)")
        return path, [_Part(options.table, "", None)]
    beside = _beside_images(path)
    fitting = [part for part in beside if _fits(part.table, options)]
    if len(fitting) == 1:
        return path, [fitting[0]._replace(split=None)]
    if fitting:
        if len({part.split for part in fitting} - {None}) == len(fitting):
            return path, fitting
        raise SourceError(
            f"{path}: several tables ({some([part.table.name for part in fitting])}); name one with --table"
        )
    inside = _in_split_folders(path)
    if inside:
        return path, inside
    if not beside:
        raise SourceError(f"{path}: no table (.csv, .tsv, .jsonl, .parquet) in this folder; name one with --table")
    # The only table, or the first of several unfit ones, says best what is wrong.
    _choose(beside[0].table, options)
    return path, [beside[0]]


def _beside_images(path: Path) -> list[_Part]:
    tables = [name for name in visible(path).files if extension(name) in TABLE_EXTENSIONS]
    if len(tables) > _MAX_TABLES:
        return []
    return [_Part(path / name, "", split_in_path(name.rpartition(".")[0])) for name in tables]


def _in_split_folders(path: Path) -> list[_Part]:
    """`train/metadata.csv` and the like; paths in them count from their own folder."""
    return [
        _Part(path / folder / name, folder + "/", split_of_word(folder))
        for folder in visible(path).folders
        if split_of_word(folder)
        for name in visible(path / folder).files
        if name in ("metadata.csv", "metadata.jsonl", "metadata.parquet")
    ]


def _fits(table: Path, options: SourceOptions) -> bool:
    try:
        _choose(table, options)
    except SourceError:
        return False
    return True


def _choose(table: Path, options: SourceOptions) -> _Columns:
    """The columns to read, by the options or by their usual names."""
    there = columns(table)
    usual = {re.sub(r"[ -]", "_", name.lower()): name for name in reversed(there)}

    def find(option: str, given: str | None, names: tuple[str, ...]) -> str | None:
        if given is not None:
            if given not in there:
                raise SourceError(f"{table}: no column {given!r} ({option}); it has: {', '.join(there)}")
            return given
        return next((usual[name] for name in names if name in usual), None)

    chosen = {
        "--path-column": find("--path-column", options.path_column, PATH_NAMES),
        "--label-column": find("--label-column", options.label_column, LABEL_NAMES),
    }
    for option, column in chosen.items():
        if column is None:
            raise SourceError(
                f"{table}: can't tell which column holds the {option[2:-7]}; name it with {option}. "
                f"The first line must name the columns, and names: {', '.join(there) or 'none'}"
            )
    path, label = (str(column) for column in chosen.values())
    return _Columns(path, label, find("--split-column", options.split_column, SPLIT_NAMES))


def _path_text(value: object, root: Path, base: str, at: str) -> str:
    """The path in a cell, relative to the folder that paths count from."""
    text = str(value).strip() if isinstance(value, str | int) else ""
    if not text:
        raise SourceError(f"{at}: the path is empty")
    if "\\" in text and not os.path.lexists(root / base / text):
        text = text.replace("\\", "/")
    if text.startswith("/"):
        text = os.path.relpath(text, root / base)
    if text.startswith(".") or "/." in text or "//" in text:
        text = posixpath.normpath(text)
        if text.startswith("../"):
            raise SourceError(f"{at}: {value} lies outside of {root / base}; give the folder that holds all images")
    return text


def _base(root: Path, part: _Part, text: str) -> str:
    """The folder, with `/` behind, in which the first file of the table is found."""
    found = [
        base
        for base in (part.base, *(f"{part.base}{name}/" for name in visible(root / part.base).folders))
        if _Finder(root, base).find(text)
    ]
    if len(found) < 2 or found[0] == part.base:
        return found[0] if found else part.base
    own = f"{part.base}{part.table.stem}/"
    if own in found:
        return own
    raise SourceError(f"{part.table}: {text} is in several folders ({some(found)}); write the folder into the paths")


def _split(row: Row, column: str | None, at: str) -> str | None:
    if column is None:
        return None
    value = row.get(column)
    text = "" if value is None else str(value)
    split = split_name(text)
    if not split:
        raise SourceError(f"{at}: the split (column {column!r}) must be a word such as train or val, got {text!r}")
    # Folds are often numbers; alone they would make poor names of files.
    return f"{split_name(column)}{split}" if split.isdigit() else split


def _key(name: str, split: str) -> str:
    """The path without its extension, and without a folder that only says the split."""
    folder, _, rest = name.partition("/")
    return os.path.splitext(rest if rest and split_of_word(folder) == split else name)[0]


def _count_unlisted(root: Path, parts: list[_Part], builder: ListingBuilder) -> None:
    """Counts images that no table names."""
    others = ListingBuilder()
    num_images = sum(1 for _ in image_files(root, others))
    for part in parts:
        what = f"not images ({extension(part.table.name)})"
        if root in part.table.parents and what in others.skipped:
            others.skipped[what] -= 1
    for what, count in others.skipped.items():
        if count:
            builder.skip(what, count)
    if num_images > len(builder):
        builder.skip("images that the table doesn't name", num_images - len(builder))


def _refuse_repeated(listing: Listing, hash_N: NDArray[np.uint64]) -> None:
    order_N = np.argsort(hash_N, kind="stable")
    again = np.flatnonzero(hash_N[order_N[1:]] == hash_N[order_N[:-1]])
    if not len(again):
        return
    first, second = listing.refs(order_N[again[0] : again[0] + 2])
    labels = (listing.classes[first.label].id, listing.classes[second.label].id)
    raise SourceError(
        f"{listing.title}: {len(again)} rows name a file that stood before, such as {first.name} (labels "
        f"{labels[0]} and {labels[1]}); leave one row for each image, and put further labels into columns"
    )
