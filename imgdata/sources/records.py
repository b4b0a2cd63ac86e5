"""Files of records, each an image with named values -> Listing, by the rules of labels and splits of Parquet files."""

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from imgdata.dataset.members import MemberKind
from imgdata.errors import SourceError
from imgdata.sample import ClassName
from imgdata.sources.classes import with_sorted_classes, with_usual_splits
from imgdata.sources.label_column import Labels
from imgdata.sources.listing import Listing, ListingBuilder, Reader, title_of
from imgdata.sources.member_columns import Place
from imgdata.sources.options import SourceOptions
from imgdata.sources.parts import missing_parts
from imgdata.sources.splits import Splits
from imgdata.sources.table.columns import no_label_warning
from imgdata.sources.table.rows import Row, fields_json
from imgdata.sources.walk import visible
from imgdata.storage.reading import read_json

_ENDING = re.compile(r"(\.(arrow|mds|lmdb|bin|tfrecords?|tfrec|gz|zstd))+$", re.IGNORECASE)


class Record(NamedTuple):
    """One image and what is stored with it."""

    offset: int
    """Where the reader finds the image: a byte of its file, or a number."""
    size: int
    name: str
    """Path that the image had; empty where the record states none."""
    label: Any
    split: Any
    """Cell of the column of splits."""
    others: Row
    """Further values, kept as fields."""
    members: tuple[tuple[str, int, int], ...] = ()
    """Further images that the record has: name, where the reader finds the image, bytes."""


@dataclass(frozen=True, kw_only=True)
class RecordFile:
    """One file of records."""

    path: Path
    name: str
    """Path relative to the dataset."""
    split: str | None
    """Split by the name of the file or of its folder."""
    label_column: str | None
    split_column: str | None
    records: Iterable[Record]


def list_records(
    files: Sequence[RecordFile],
    *,
    path: Path,
    kind: str,
    reader: Reader,
    options: SourceOptions,
    class_names: Sequence[str] | None = None,
    names: Mapping[str, tuple[str, ...]] | None = None,
    skipped: Mapping[str, int] | None = None,
    used: Collection[Path] | None = None,
    member_kinds: Mapping[str, MemberKind] | None = None,
    warnings: Sequence[str] = (),
    exact_sizes: bool = True,
) -> Listing:
    """Return all records, file by file; each file is a container of `reader`.

    `class_names` are those that the source states, `names` those of further columns; what lies beside the files, and
    is none of `used`, is counted where `used` is given. Raises `SourceError` for
    labels that only some records of a split have, for labels outside of the classes, and when there is no label.
    """
    given = any(file.split or file.split_column for file in files)
    builder = ListingBuilder(options.exclude)
    builder.members.kinds |= member_kinds or {}
    labels = Labels(class_names)
    other_columns: dict[str, None] = {}
    for container, file in enumerate(files):
        if given and file.split is None and file.split_column is None:
            builder.skip("files without a split in their name")
            continue
        cells = Splits(file.split_column) if file.split_column else None
        stem = _ENDING.sub("", file.name)
        for number, record in enumerate(file.records):
            at = f"{file.path}: record {number}"
            name = record.name or f"{file.name}[{number}]"
            other_columns.update(dict.fromkeys(record.others))
            if builder.excluded(name):
                continue
            split = cells.name(record.split, at) if cells else file.split or "train"
            builder.add(
                split=split,
                name=name,
                key=os.path.splitext(record.name)[0] if record.name else f"{stem}-{number}",
                label=labels.code(record.label, column=file.label_column, split=split, at=at)
                if file.label_column
                else labels.none(split=split, at=f"{at}: there is no label"),
                size=record.size,
                container=container,
                offset=record.offset,
                fields=fields_json(record.others, frozenset()),
                members={
                    one: Place(f"{name}.{one}", num_bytes, container, place) for one, place, num_bytes in record.members
                },
            )
    for what, count in (skipped or {}).items():
        builder.skip(what, count)
    if used is not None and path.is_dir():
        known = {*used, *(file.path for file in files)}
        beside = sum(
            folder / name not in known for folder in {one.parent for one in known} for name in visible(folder).files
        )
        if beside:
            builder.skip("other files beside these", beside)
    labelled = any(file.label_column for file in files)
    listing = builder.build(
        title=title_of(path),
        kind=kind,
        reader=reader,
        classes=[ClassName(name, name) for name in class_names or ()],
        exact_sizes=exact_sizes,
        given_splits=given,
        warnings=[
            *warnings,
            *missing_parts(file.name for file in files),
            *(labels.warnings() if labelled else [no_label_warning([tuple(other_columns)])]),
        ],
    )
    labels.check(has_fields=listing.has_fields or bool(listing.members))
    if not listing.size_N.any():
        raise SourceError(f"{files[0].path}: all images are empty; write their bytes into the records")
    listing = replace(listing, names=dict(names or {}))
    return (
        with_usual_splits(listing)
        if class_names
        else with_sorted_classes(listing, labels.ids, order=options.class_order)
    )


def read_stated(file: Path) -> Any:
    """Return the value of a JSON file that says what a dataset is. Raises `SourceError`."""
    try:
        return read_json(file)
    except (OSError, ValueError) as error:
        raise SourceError(f"{file}: can't read this file: {error}") from error


def files_below(path: Path, wanted: Callable[[str], bool], depth: int = 3) -> list[Path]:
    """Return the files with `wanted` names at or below `path`, sorted folder by folder."""
    if path.is_file():
        return [path] if wanted(path.name) else []
    if not path.is_dir() or not depth:
        return []
    folders, names = visible(path)
    found = [path / name for name in names if wanted(name)]
    for name in folders:
        found += files_below(path / name, wanted, depth - 1)
    return found
