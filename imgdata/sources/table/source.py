"""A folder of images and a table of (path, label[, split]) -> Listing.

The table is CSV, TSV, JSON lines or Parquet: `options.table`, the dataset path itself, or the table file that lies in
the folder and has such columns; several tables named by splits (`train.csv`, `val.csv`) are one split each, and so
are `metadata.csv` or `metadata.jsonl` inside split folders, as Hugging Face's image folders have them. A column of
splits is used rather than such names.

Paths count from the folder of the dataset; where the first one isn't found there, from the one subfolder that has it
(`images/`, or `train/` for `train.csv`). Their extension may be missing. Labels that are all whole numbers become
classes in order of number, others in order of text; a class's id is the label as written. Every file is in the
table once: a repeated file is an error, since its labels may differ. Further columns are kept as JSON.
"""

import os
import posixpath
import stat
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from imgdata.errors import SourceError
from imgdata.images.info import IMAGE_SUFFIXES
from imgdata.sources.classes import some, with_sorted_classes
from imgdata.sources.folder_layout import has_class_folders
from imgdata.sources.label_column import Labels
from imgdata.sources.listing import Listing, ListingBuilder, title_of
from imgdata.sources.member_columns import MASK, Place
from imgdata.sources.options import SourceOptions
from imgdata.sources.plausible import check_classes
from imgdata.sources.readers import LEADS_NOWHERE, FileReader
from imgdata.sources.splits import Splits, split_in_path, split_of_word
from imgdata.sources.table.columns import (
    TableColumns,
    choose_columns,
    no_label_warning,
    no_labels,
    tables_in,
    why_no_table,
)
from imgdata.sources.table.rows import TABLE_EXTENSIONS, Row, fields_json, rows
from imgdata.sources.walk import extension, image_files, visible

NAME = "table"
_USUAL_ENDINGS = (".jpg", ".jpeg", ".png", ".JPEG", ".JPG", ".PNG")
_ENDINGS = (*_USUAL_ENDINGS, *sorted(IMAGE_SUFFIXES.difference(_USUAL_ENDINGS)))


class _Part(NamedTuple):
    table: Path
    base: str
    """Folder, relative to the dataset's, from which the paths count; empty or with `/` behind."""
    split: str | None
    """Split of all rows, from the table's name or folder."""


def recognise(path: Path) -> str | None:
    """Return a phrase when `path` is, or holds, a table of images, else None; reads the tables' first lines.

    A table without a label column counts only where there are no class folders. Raises `SourceError` for unfit tables.
    """
    options = SourceOptions()
    if path.is_file():
        if extension(path.name) not in TABLE_EXTENSIONS:
            return None
        _require_labels([path], [choose_columns(path, options)])
        return "a table of images"
    if not path.is_dir():
        return None
    fitting = _fitting(path, [*_beside_images(path), *_in_split_folders(path)], options)
    if not fitting:
        why = why_no_table(path, options)
        if why:
            raise SourceError(why)
        return None
    tables = some([str(part.table.relative_to(path)) for part in fitting])
    if any(choose_columns(part.table, options).label for part in fitting):
        return f"a table of images ({tables})"
    return None if has_class_folders(path) else f"a table of images without labels ({tables})"


def list_samples(path: Path, options: SourceOptions) -> Listing:
    """Return the images that the table names, in its order.

    Raises `SourceError` for missing or wrong columns, missing files, labels that only some images of a split have,
    or a file that is named twice.
    """
    root, parts = _parts(path, options)
    columns = [choose_columns(part.table, options) for part in parts]
    _require_labels([part.table for part in parts], columns, allowed=options.label_column == "")
    builder = ListingBuilder(options.exclude)
    labels = Labels()
    hashes = array("Q")
    missing: list[str] = []
    num_missing = num_rows = num_masks = 0
    for part, chosen in zip(parts, columns, strict=True):
        splits = Splits(chosen.split) if chosen.split is not None else None
        guess_numbers = extension(part.table.name) not in (".jsonl", ".ndjson", ".parquet")
        finder: _Finder | None = None
        masks = _Masks(root, part, chosen.mask)
        for where, row in rows(part.table):
            at = f"{part.table}: {where}"
            text = _path_text(row.get(chosen.path), chosen.path, root, part.base, at)
            finder = finder or _Finder(root, _base(root, part, text))
            found = finder.find(text)
            num_rows += 1
            # A missing file gets size 0, and is rejected when it is read.
            name, size = found or (finder.base + text, 0)
            if builder.excluded(name):
                continue
            if found is None:
                num_missing += 1
                missing += [text] if len(missing) < 3 else []
            split = splits.name(row.get(splits.column), at) if splits else part.split or "train"
            builder.add(
                split=split,
                name=name,
                key=_key(name, split),
                label=labels.code(row.get(chosen.label), column=chosen.label, split=split, at=at)
                if chosen.label is not None
                else labels.none(split=split, at=f"{at}: there is no label column"),
                size=size,
                fields=fields_json(row, chosen.used, guess_numbers=guess_numbers),
                members=masks.of(row, at),
            )
            hashes.append(xxhash.xxh3_64_intdigest(os.fsencode(name)))
        num_masks += masks.found
    absent = f"{num_missing} of the files {'is' if num_missing == 1 else 'are'} not in {root}, such as {some(missing)}"
    if 2 * num_missing > num_rows:
        raise SourceError(
            f"{some([str(part.table) for part in parts])}: {absent}; paths count from there (column {chosen.path!r}, "
            "another one with --path-column)"
        )
    _count_unlisted(root, parts, builder, num_missing - num_masks)
    others = [chosen.others for chosen in columns]
    listing = builder.build(
        title=title_of(root if path.is_dir() else path),
        kind=NAME,
        reader=FileReader(root),
        classes=(),
        given_splits=any(chosen.split or part.split for part, chosen in zip(parts, columns, strict=True)),
        warnings=[
            *(labels.warnings() if any(chosen.label for chosen in columns) else [_no_label(others)]),
            *([f"{absent}: rejected as missing (with --on-bad reject)"] if num_missing else []),
        ],
    )
    labels.check(has_fields=listing.has_fields or bool(listing.members) or options.label_column == "")
    if options.label_column is None and options.kind is None:
        labels.refuse_quantities(len(listing))
    listing = with_sorted_classes(listing, labels.ids, order=options.class_order)
    listing = check_classes(listing, path, named=True)
    _refuse_repeated(listing, np.frombuffer(hashes, np.uint64))
    return listing


def _no_label(others: Sequence[tuple[str, ...]]) -> str:
    return no_label_warning(others) if any(others) else "no labels: images have masks alone"


def _require_labels(tables: Sequence[Path], columns: Sequence[TableColumns], *, allowed: bool = False) -> None:
    """Refuse tables that have neither a label column nor further ones to keep, unless that is `allowed`."""
    if not allowed and not any(chosen.label is not None or chosen.mask or chosen.others for chosen in columns):
        raise no_labels(tables[0], columns[0])


class _Finder:
    """Finder of the files that a table names, with or without extension, and of their sizes."""

    def __init__(self, root: Path, base: str) -> None:
        self._root = os.fspath(root)
        self.base = base
        self._endings = list(_ENDINGS)

    def find(self, text: str) -> tuple[str, int] | None:
        """Return the file's path relative to the root, and its size in bytes; None when there is no such file."""
        name = self.base + text
        if (size := self._size(name)) is not None:
            return name, size
        if extension(name) in IMAGE_SUFFIXES:
            return None
        for place, ending in enumerate(self._endings):
            if (size := self._size(name + ending)) is not None:
                # The next file most likely has the same extension.
                self._endings.insert(0, self._endings.pop(place))
                return name + ending, size
        return None

    def _size(self, name: str) -> int | None:
        try:
            info = os.stat(f"{self._root}/{name}")
        except ValueError:
            return None
        except OSError as error:
            if error.errno in LEADS_NOWHERE:
                return None
            # Other errors don't mean that the file is missing: taking it for missing would lose the image.
            raise SourceError(f"{self._root}/{name}: can't be read: {error.strerror or error}") from error
        return info.st_size if stat.S_ISREG(info.st_mode) else None


class _Masks:
    """Finder of the masks that a column of a table names."""

    def __init__(self, root: Path, part: _Part, column: str | None) -> None:
        self._root, self._part, self._column = root, part, column
        self._finder: _Finder | None = None
        self.found = 0
        """Masks that are there."""

    def of(self, row: Row, at: str) -> dict[str, Place]:
        """Return the place of a row's mask, with size 0 for a file that is not there; none for an empty cell."""
        value = row.get(self._column) if self._column is not None else None
        if self._column is None or value in (None, ""):
            return {}
        text = _path_text(value, self._column, self._root, self._part.base, at)
        self._finder = self._finder or _Finder(self._root, _base(self._root, self._part, text))
        found = self._finder.find(text)
        self.found += found is not None
        name, size = found or (self._finder.base + text, 0)
        return {MASK: Place(name, size)}


def _parts(path: Path, options: SourceOptions) -> tuple[Path, list[_Part]]:
    """Return the folder that paths are relative to, and the tables."""
    if path.is_file():
        return path.parent, [_Part(options.table or path, "", None)]
    if options.table is not None:
        if not options.table.is_file():
            raise SourceError(f"{options.table}: no such table (--table)")
        return path, [_Part(options.table, "", None)]
    beside = _beside_images(path)
    fitting = _fitting(path, beside, options)
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
    # The error of the only table, or of the first of several unfit ones, explains most.
    return path, [beside[0]]


def _beside_images(path: Path) -> list[_Part]:
    return [_Part(path / name, "", split_in_path(name.rpartition(".")[0])) for name in tables_in(path)]


def _in_split_folders(path: Path) -> list[_Part]:
    """Return `train/metadata.csv` and similar tables, whose paths are relative to the folder of the table."""
    return [
        _Part(path / folder / name, folder + "/", split_of_word(folder))
        for folder in visible(path).folders
        if split_of_word(folder)
        for name in visible(path / folder).files
        if name in ("metadata.csv", "metadata.jsonl", "metadata.parquet")
    ]


def _fitting(root: Path, parts: Sequence[_Part], options: SourceOptions) -> list[_Part]:
    """Return the `parts` that have labels; where none has, those with other columns whose first file exists."""
    labelled, unlabelled = [], []
    for part in parts:
        try:
            chosen = choose_columns(part.table, options)
            if chosen.label is not None:
                labelled.append(part)
            elif chosen.others and _names_a_file(root, part, chosen.path):
                unlabelled.append(part)
        except SourceError:
            # Tables about something else lie beside images as well.
            continue
    return labelled or unlabelled


def _names_a_file(root: Path, part: _Part, column: str) -> bool:
    for where, row in rows(part.table):
        text = _path_text(row.get(column), column, root, part.base, f"{part.table}: {where}")
        return _Finder(root, _base(root, part, text)).find(text) is not None
    return False


def _path_text(value: object, column: str, root: Path, base: str, at: str) -> str:
    """Return the path in a cell, relative to the folder of the dataset, or of the table in a split folder."""
    text = str(value).strip() if isinstance(value, str | int) else ""
    if not text:
        what = "is empty" if value is None or isinstance(value, str) else f"holds a {type(value).__name__}"
        raise SourceError(f"{at}: the path (column {column!r}) {what}; name another column with --path-column")
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
    """Return the folder, ending in `/`, in which the first file of the table is found."""
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


def _key(name: str, split: str) -> str:
    """Return the path without its extension, and without a folder that only names the split."""
    folder, _, rest = name.partition("/")
    return os.path.splitext(rest if rest and split_of_word(folder) == split else name)[0]


def _count_unlisted(root: Path, parts: list[_Part], builder: ListingBuilder, num_missing: int) -> None:
    """Count images that no table names, and all other files; so many fewer are named than there are rows."""
    others = ListingBuilder()
    num_images = sum(1 for _ in image_files(root, others))
    for part in parts:
        what = f"not images ({extension(part.table.name)})"
        if root in part.table.parents and what in others.skipped:
            others.skipped[what] -= 1
    for what, count in others.skipped.items():
        if count:
            builder.skip(what, count)
    named = len(builder) + builder.skipped.get("excluded", 0) - num_missing
    if num_images > named:
        builder.skip("images that the table doesn't name", num_images - named)


def _refuse_repeated(listing: Listing, hash_N: NDArray[np.uint64]) -> None:
    order_N = np.argsort(hash_N, kind="stable")
    again = np.flatnonzero(hash_N[order_N[1:]] == hash_N[order_N[:-1]])
    if not len(again):
        return
    first, second = listing.refs(order_N[again[0] : again[0] + 2])
    labels = [listing.classes[ref.label].id if ref.label >= 0 else "none" for ref in (first, second)]
    raise SourceError(
        f"{listing.title}: {len(again)} rows name the file of an earlier row, such as {first.name} (labels "
        f"{labels[0]} and {labels[1]}); leave one row for each image, and put further labels into columns"
    )
