"""The target that a user asks for, columns of tars made elsewhere -> what `dataset.json` says of target and classes."""

from collections.abc import Sequence

import pyarrow as pa

from imgdata.dataset.fields import is_json, type_text
from imgdata.dataset.manifest import Manifest
from imgdata.dataset.target import KINDS, Target, TargetKind
from imgdata.errors import OptionError, ShardError
from imgdata.sample import ClassName
from imgdata.storage.file_names import escape_name
from imgdata.tar.class_order import class_ranks

_MOST_CLASSES = 1_000_000
_CLASSES = "lists of classes, as texts or as whole numbers from 0"


def target_of(kind: TargetKind | None, label_from: str, before: Manifest | None) -> tuple[Target | None, str]:
    """Return the target in columns, None for one class or none, and where labels come from then.

    Without a `kind` it is that of the sidecars of an earlier time. Raises `OptionError`.
    """
    if kind is None:
        kept = before.target if before is not None and label_from == "auto" else None
        return kept, label_from if kept is None else "none"
    if kind not in KINDS:
        raise OptionError(f"target must be one of {', '.join(KINDS)}, got {kind!r}")
    if kind in ("class", "none"):
        return None, label_from if kind == "class" else "none"
    place, _, fields = label_from.partition(":")
    if place != "json" or not fields:
        raise OptionError(
            f"label_from must name the field of the json members that holds the target {kind!r}, such as json:tags, or "
            f"several as json:cat,dog, got {label_from!r}"
        )
    return Target(kind=kind, columns=tuple(dict.fromkeys(name.strip() for name in fields.split(",")))), "none"


def classes_of(target: Target, tables: Sequence[pa.Table | None], before: Manifest | None) -> tuple[ClassName, ...]:
    """Return the classes of a target: those of an earlier time, or those that its columns name, in order.

    Raises `OptionError` where there is no such column, `ShardError` where it holds something else.
    """
    for table in tables:
        there = [] if table is None else table.column_names
        missing = [name for name in target.columns if name not in there]
        if missing:
            raise OptionError(
                f"label_from: no field {missing[0]!r} in the json members; there are {', '.join(there) or 'none'}"
            )
        for name in target.columns:
            assert table is not None, "a table without columns lacks them"
            _check_column(target, table.schema.field(name), table[name])
    lengths = {
        len(value)
        for table in tables
        if table is not None and target.kind != "multi-label" and pa.types.is_nested(table[target.columns[0]].type)
        for value in table[target.columns[0]].to_pylist()
        if value is not None
    }
    if len(lengths) > 1:
        share = ", a share for each class" if target.kind == "soft" else ""
        raise ShardError(f"column {target.columns[0]!r} must hold lists of one length{share}")
    if target.kind == "regression":
        return ()
    if before is not None and before.target == target:
        return before.classes
    if len(target.columns) > 1:
        return _named(target.columns)
    (name,) = target.columns
    columns = [table[name] for table in tables if table is not None]
    if target.kind == "soft":
        if not lengths:
            raise ShardError(f"column {name!r} must hold lists, a share for each class, and is empty everywhere")
        return _named(list(map(str, range(lengths.pop()))))
    found: dict[object, None] = {}
    for column in columns:
        for value in column.to_pylist():
            found |= dict.fromkeys(value if isinstance(value, list) else [] if value is None else [value])
    if all(isinstance(one, str) for one in found):
        return _named(list(class_ranks([str(one) for one in found], "auto")[0]))
    numbers = [one for one in found if isinstance(one, int) and 0 <= one < _MOST_CLASSES]
    if len(numbers) == len(found):
        return _named(list(map(str, range(max(numbers, default=-1) + 1))))
    raise ShardError(f"column {name!r} must hold {_CLASSES}")


def _check_column(target: Target, field: pa.Field, column: pa.ChunkedArray) -> None:
    """Raise `ShardError` where a column is of a type that can't hold the target; one without values may be any."""
    kind = field.type
    is_list = pa.types.is_nested(kind)
    item = kind.value_type if is_list else kind
    is_number = pa.types.is_integer(item) or pa.types.is_floating(item) or pa.types.is_boolean(item)
    if len(target.columns) > 1:
        fits, what = is_number and not is_list, "numbers"
    elif target.kind == "multi-label":
        fits, what = not is_json(field), _CLASSES
    elif target.kind == "soft":
        fits, what = is_number and is_list, "lists of numbers, a share for each class"
    else:
        fits, what = is_number, "numbers, or lists of numbers"
    if not fits and column.null_count < len(column):
        raise ShardError(f"column {field.name!r} must hold {what}, got {type_text(field)}")


def _named(ids: Sequence[str]) -> tuple[ClassName, ...]:
    return tuple(ClassName(escape_name(one), escape_name(one)) for one in ids)
