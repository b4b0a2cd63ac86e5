"""A listing whose samples have further columns, the kind of target -> the same with a target in some of the columns."""

import fnmatch
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from imgdata.arrow import text_array
from imgdata.checks import is_number
from imgdata.dataset.target import Target, TargetKind
from imgdata.errors import OptionError, SourceError
from imgdata.sample import ClassName
from imgdata.sources.classes import some
from imgdata.sources.label_column import LABEL_NAMES
from imgdata.sources.listing import Listing
from imgdata.sources.options import SourceOptions
from imgdata.sources.table.columns import find_usual
from imgdata.storage.file_names import escape_name
from imgdata.tar.class_order import class_ranks

SEPARATORS = ("|", ";", ",")
"""What stands between the classes of a text; the first of these that occurs in any."""
_TRUTHS = {"true": True, "yes": True, "false": False, "no": False}


def has_target(options: SourceOptions) -> bool:
    """Return whether the target is one that columns hold."""
    return options.target in ("multi-label", "soft", "regression")


def without_labels(options: SourceOptions) -> SourceOptions:
    """Return the options by which a source lists samples without a class each, and keeps all columns."""
    if options.target in (None, "class"):
        return options
    return replace(options, label_column="", label_from="none")


def with_target(listing: Listing, options: SourceOptions) -> Listing:
    """Return the listing with the target that `options` ask for.

    Cells become what they mean: texts lists of classes, texts of truths truths. Raises `OptionError` where there is no
    such column, `SourceError` for a cell that is no such target.
    """
    if options.target == "boxes" and '"boxes":' not in _first_fields(listing):
        raise OptionError(
            f"target 'boxes' needs samples with boxes, such as those of COCO or Pascal VOC, got {listing.title} without"
        )
    if not has_target(options):
        return listing
    if listing.fields_N is None:
        raise OptionError(
            f"target {options.target!r} needs samples with further columns, such as those of a table (--table), got "
            f"{listing.title} without any"
        )
    rows = [json.loads(text) if text else {} for chunk in listing.fields_N.chunks for text in chunk.to_pylist()]
    there = list(dict.fromkeys(name for row in rows for name in row))
    columns = _columns(there, options)
    names = listing.names.get(columns[0]) if len(columns) == 1 else None
    cells = _Cells(listing, rows, columns)
    if options.target == "multi-label" and len(columns) == 1:
        ids = _lists_of_classes(cells, names, options)
    elif options.target == "multi-label":
        cells.each(_truth, "a number or a truth, which says whether the image is of the class")
        ids = list(columns)
    else:
        shares = options.target == "soft"
        what = "a number of at least 0, the share of a class" if shares else "a number"
        width = cells.numbers(what, least=0.0 if shares else -math.inf, lists=len(columns) == 1)
        ids = [] if not shares else list(names or (columns if len(columns) > 1 else map(str, range(width))))
        if shares and names is not None and len(names) != width:
            raise SourceError(f"{cells.at(0)}: must be lists of {len(names)} shares, got {width}")
    if ids or options.target != "regression":
        _check_classes(ids, listing)
    kind: TargetKind = "none" if options.target is None or options.target == "boxes" else options.target
    texts = [json.dumps(row, separators=(",", ":")) if row else "" for row in rows]
    return replace(
        listing,
        classes=tuple(ClassName(escape_name(one), escape_name(one)) for one in ids),
        label_N=np.full(len(listing), -1, np.int32),
        fields_N=pa.chunked_array([text_array(texts)]),
        target=Target(kind=kind, columns=columns),
        warnings=(*(text for text in listing.warnings if not _is_of_labels(text)), *cells.warnings),
    )


def _first_fields(listing: Listing) -> str:
    """Return the further columns of the first sample that has any, as JSON; empty for none."""
    chunks = listing.fields_N.chunks if listing.fields_N is not None else ()
    return next((str(text) for chunk in chunks for text in chunk.to_pylist() if text), "")


def _is_of_labels(warning: str) -> bool:
    """Return whether a warning says that there are no labels, which was asked for here."""
    return warning.startswith("no labels") or " has no labels (" in warning


def _columns(there: Sequence[str], options: SourceOptions) -> tuple[str, ...]:
    """Return the columns of the target: those that are named, or the one with a usual name."""
    wanted = options.label_column or (
        options.label_from.partition(":")[2] if options.label_from.startswith("json:") else None
    )
    if not wanted:
        usual = find_usual(there, LABEL_NAMES)
        if usual is None:
            raise OptionError(
                f"target {options.target!r}: name its column with --label-column, or several with commas or *; there "
                f"are {', '.join(there)}"
            )
        return (usual,)
    if wanted in there:
        return (wanted,)
    found: list[str] = []
    for part in (part.strip() for part in wanted.split(",")):
        matching = [part] if part in there else [name for name in there if fnmatch.fnmatchcase(name, part)]
        if not matching:
            raise OptionError(f"no column {part!r} (--label-column); there are {', '.join(there)}")
        found += matching
    return tuple(dict.fromkeys(found))


class _Cells:
    """The cells of a target's columns, which are changed in place."""

    def __init__(self, listing: Listing, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
        self.listing, self.rows, self.columns = listing, rows, columns
        self.warnings: list[str] = []

    def at(self, row: int) -> str:
        """Return where a cell is, for messages."""
        return f"{self.listing.title}: {self.listing.name_N[row].as_py()} (column {', '.join(self.columns)!r})"

    def each(self, plain: Callable[[object], object], what: str) -> None:
        """Replace all cells by what `plain` makes of them, None for a cell that is no `what`."""
        for number, row in enumerate(self.rows):
            for name in self.columns:
                value = row.get(name)
                if value is None:
                    row[name] = False
                    continue
                row[name] = plain(value)
                if row[name] is None:
                    raise SourceError(f"{self.at(number)}: {name!r} must be {what}, got {str(value)[:80]!r}")

    def numbers(self, what: str, *, least: float, lists: bool) -> int:
        """Check that all cells are numbers, or lists of them of one length; return how many numbers a sample has.

        A split may be without any, as test splits are.
        """
        without: Counter[int] = Counter()
        first: dict[int, int] = {}
        width = 0
        split_N = self.listing.split_N.tolist()
        for number, row in enumerate(self.rows):
            values = [row.get(name) for name in self.columns]
            if any(value is None or value == [] for value in values):
                without[split_N[number]] += 1
                first.setdefault(split_N[number], number)
                for name in self.columns:
                    row[name] = None
                continue
            if lists and isinstance(values[0], list):
                values = values[0]
            if width not in (0, len(values)):
                raise SourceError(f"{self.at(number)}: must have {width} numbers as those before, got {len(values)}")
            width = len(values)
            values = [_number(value) for value in values]
            wrong = [value for value in values if not is_number(value) or float(value) < least]  # type: ignore[arg-type]
            if wrong:
                raise SourceError(f"{self.at(number)}: must be {what}, got {str(wrong[0])[:80]!r}")
            if len(self.columns) > 1 or not isinstance(row[self.columns[0]], list):
                row |= zip(self.columns, values, strict=True)
            else:
                row[self.columns[0]] = values
        in_split = Counter(split_N)
        for split, count in without.items():
            if count < in_split[split]:
                raise SourceError(
                    f"{self.at(first[split])}: is empty, and so for {count - 1} more of split "
                    f"{self.listing.splits[split]}; all of a split need a target, or none: fill them in, leave these "
                    "rows out, or make them a split of their own"
                )
            self.warnings.append(f"split {self.listing.splits[split]} has no targets ({count} images)")
        if not width:
            raise SourceError(f"{self.at(0)}: is empty, and so everywhere; name another column with --label-column")
        return width


def _number(value: object) -> object:
    """Return a text of a number as that number, anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def _truth(value: object) -> bool | None:
    """Return whether a cell says that an image is of a class: -1 says no, as 0 does. None for what says neither."""
    if isinstance(value, str):
        value = _TRUTHS.get(value.strip().lower()) if value else False
    if isinstance(value, bool):
        return value
    return float(value) > 0 if is_number(value) else None  # type: ignore[arg-type]


def _lists_of_classes(cells: _Cells, names: Sequence[str] | None, options: SourceOptions) -> list[str]:
    """Make each cell a list of classes; return the ids of all classes, in order."""
    (column,) = cells.columns
    values = [row.get(column) for row in cells.rows]
    separator = options.label_separator or next(
        (one for one in SEPARATORS if any(isinstance(value, str) and one in value for value in values)), None
    )
    if separator is not None and not separator.strip():
        separator = None if not options.label_separator else " "
    lists = [_list(value, separator, cells, number) for number, value in enumerate(values)]
    if _are_flags(lists):
        lists = [[place for place, flag in enumerate(flags) if flag] for flags in lists]
        names = names or [str(place) for place in range(max(map(len, values)))]  # type: ignore[arg-type]
    if names is not None:
        known = {name: number for number, name in enumerate(names)}
        for number, found in enumerate(lists):
            for value in found:
                code = known.get(value) if isinstance(value, str) else value
                if code is None or not 0 <= code < len(names):
                    raise SourceError(f"{cells.at(number)}: {value!r} is outside of the {len(names)} classes")
        ids = list(names)
        lists = [[value if isinstance(value, str) else ids[value] for value in found] for found in lists]
    else:
        lists = [list(map(str, found)) for found in lists]
        ranks, notes = class_ranks(list(dict.fromkeys(one for found in lists for one in found)), options.class_order)
        ids = list(ranks)
        cells.warnings += notes
    for row, found in zip(cells.rows, lists, strict=True):
        row[column] = [escape_name(str(one)) for one in dict.fromkeys(found)]
    empty = sum(not found for found in lists)
    if empty:
        cells.warnings.append(f"{empty} images are of no class")
    return ids


def _list(value: object, separator: str | None, cells: _Cells, number: int) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, str):
        parts = [value] if separator is None else value.split(separator)
        return [part.strip() for part in parts if part.strip()]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    found = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str | int) for one in found):
        raise SourceError(f"{cells.at(number)}: must be classes, got {str(value)[:80]!r}")
    return found


def _are_flags(lists: Sequence[Sequence[Any]]) -> bool:
    """Return whether lists are a 0 or 1 for each class: of one length, with a number that comes twice in one."""
    if len(set(map(len, lists))) != 1 or len(lists[0]) < 2:
        return False
    flags = all(isinstance(one, int) and one in (0, 1) for found in lists for one in found)
    return flags and any(len(set(found)) < len(found) for found in lists)


def _check_classes(ids: Sequence[str], listing: Listing) -> None:
    if len(ids) > max(len(listing), 65_536):
        raise SourceError(
            f"{listing.title}: {len(ids)} classes such as {some(list(ids))}, for {len(listing)} images; name another "
            "column with --label-column, or what is between classes with --label-separator"
        )
