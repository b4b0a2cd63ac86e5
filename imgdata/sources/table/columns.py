"""A table -> which of its columns hold paths, labels and splits; or why it names no images."""

import re
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from imgdata.errors import SourceError
from imgdata.sources.classes import some
from imgdata.sources.label_column import LABEL_NAMES
from imgdata.sources.options import SourceOptions
from imgdata.sources.splits import SPLIT_NAMES
from imgdata.sources.table.rows import TABLE_EXTENSIONS, columns, rows
from imgdata.sources.walk import extension, is_image, visible

PATH_NAMES = (
    *("path", "file", "file_name", "filename", "file_path", "filepath", "filepaths"),
    *("image_path", "image_file", "image_name", "image", "img_path", "img", "image_id", "id"),
)
"""Usual names of columns, the best first; case, spaces and hyphens don't matter."""

_MAX_TABLES = 16
_SHOWN_FAULTS = 3
_PROBED_ROWS = 3


class TableColumns(NamedTuple):
    """Columns of a table to read."""

    path: str
    label: str | None
    """Column of the labels; None when no column of single values has a usual name for labels."""
    split: str | None
    others: tuple[str, ...]
    """Further columns, kept as fields."""
    mask: str | None = None
    """Column of the masks' paths."""

    @property
    def used(self) -> frozenset[str]:
        """The columns that are not kept as fields."""
        return frozenset(name for name in (self.path, self.label, self.split, self.mask) if name is not None)


def choose_columns(table: Path, options: SourceOptions) -> TableColumns:
    """Return the columns to read, by the options or by their usual names.

    Raises `SourceError` for a table that can't be read, or that lacks the column of paths or a named column.
    """
    there = columns(table)
    single = [name for name, is_single in there.items() if is_single]
    names = ", ".join(there) or "none"

    def find(option: str, given: str | None, usual: Sequence[str]) -> str | None:
        if given is None:
            return find_usual(single, usual)
        if given not in there:
            raise SourceError(f"{table}: no column {given!r} ({option}); it has: {names}")
        return given

    path = find("--path-column", options.path_column, PATH_NAMES)
    if path is None:
        raise SourceError(
            f"{table}: can't tell which column holds the path; name it with --path-column. "
            f"The first line must name the columns, and names: {names}"
        )
    label = None if options.label_column == "" else find("--label-column", options.label_column, LABEL_NAMES)
    split = None if options.split_column == "" else find("--split-column", options.split_column, SPLIT_NAMES)
    mask = find("--mask-column", options.mask_column, ())
    taken = (path, label, split, mask)
    return TableColumns(path, label, split, tuple(name for name in there if name not in taken), mask)


def find_usual(there: Iterable[str], usual: Sequence[str]) -> str | None:
    """Return the column with the first of the `usual` names; case, spaces and hyphens don't matter."""
    plain = {re.sub(r"[ -]", "_", name.lower()): name for name in reversed(list(there))}
    return next((plain[name] for name in usual if name in plain), None)


def tables_in(folder: Path) -> list[str]:
    """Return the names of the tables directly in `folder`; none if more than `_MAX_TABLES`, which hold no labels."""
    tables = [name for name in visible(folder).files if extension(name) in TABLE_EXTENSIONS]
    return tables if len(tables) <= _MAX_TABLES else []


def no_labels(table: Path, chosen: TableColumns) -> SourceError:
    """Return the error for a table without a label column and without further columns to keep instead."""
    names = ", ".join(name for name in (chosen.path, chosen.split) if name)
    return SourceError(
        f"{table}: no labels: can't tell which column holds the label; name it with --label-column. "
        f"The first line must name the columns, and names: {names}"
    )


def no_label_warning(others: Iterable[tuple[str, ...]]) -> str:
    """Return the warning for tables without a label column; `others` are the further columns of each."""
    names = list(dict.fromkeys(name for of_table in others for name in of_table))
    return (
        f"no labels: no column is called like one, so images get none (no cls member), and columns {some(names)} go "
        "into the json members; if one of them is the label, name it with --label-column"
    )


def unreadable_tables(folder: Path) -> list[str]:
    """Return the faults of the tables in `folder` that name images, or that can't be read at all."""
    faults = []
    for name in tables_in(folder):
        try:
            choose_columns(folder / name, SourceOptions())
        except SourceError as error:
            if _may_name_images(folder / name):
                faults.append(str(error))
    return faults


def _may_name_images(table: Path) -> bool:
    """Return whether one of the first rows of a table names an image, or the table can't be read at all."""
    try:
        cells = [str(cell) for _, row in islice(rows(table), _PROBED_ROWS) for pair in row.items() for cell in pair]
    except SourceError:
        return True
    return not cells or any(is_image(cell.rsplit("/", 1)[-1].strip()) for cell in cells)


def why_no_table(folder: Path, options: SourceOptions) -> str:
    """Return why the first few tables in `folder` name no labelled images; empty when there are none."""
    faults = []
    for name in tables_in(folder):
        try:
            chosen = choose_columns(folder / name, options)
        except SourceError as error:
            faults.append(str(error))
            continue
        if chosen.label is None and chosen.mask is None and not chosen.others:
            faults.append(str(no_labels(folder / name, chosen)))
    more = f" (and {len(faults) - _SHOWN_FAULTS} more tables)" if len(faults) > _SHOWN_FAULTS else ""
    return "; ".join(faults[:_SHOWN_FAULTS]) + more
