"""A Parquet file with images -> which of its columns hold bytes, paths, labels and splits."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from imgdata.dataset.members import MemberKind, is_member_name, kind_of
from imgdata.errors import SourceError
from imgdata.sources.label_column import LABEL_NAMES
from imgdata.sources.member_columns import MASK
from imgdata.sources.options import SourceOptions
from imgdata.sources.splits import SPLIT_NAMES
from imgdata.sources.table.columns import find_usual
from imgdata.sources.table.rows import holds_bytes, open_parquet
from imgdata.sources.tar_members import kind_in_tar
from imgdata.storage.reading import parse_json

_IMAGE_NAMES = ("image", "img", "bytes", "image_bytes", "image_data", "data", "content", "jpg", "png", "pixel_values")


class ParquetLayout(NamedTuple):
    """Columns of images, labels and class names in a file."""

    top: str
    """Column of the images."""
    image: str
    """Column path of the bytes: `image.bytes` or `image`."""
    path: str | None
    """Column path of the original names: `image.path`."""
    label: str | None
    """Column of the labels; None when no column of single values has a usual name for labels."""
    names: tuple[str, ...] | None
    """Class names that the metadata states."""
    split: str | None
    others: tuple[str, ...]
    """Further columns, kept as fields."""
    left_out: tuple[str, ...]
    """Further columns that hold bytes."""
    list_names: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Further columns for which the metadata state class names, with these."""
    members: tuple[tuple[str, str], ...] = ()
    """Names of further images, such as masks, each with the column path of its bytes."""


def _bytes_columns(schema: pa.Schema) -> dict[str, str]:
    """Return the columns that hold bytes, each with the column path of these."""
    paths = {}
    for column in schema:
        if pa.types.is_struct(column.type):
            place = column.type.get_field_index("bytes")
            if place >= 0 and _is_bytes(column.type.field(place).type):
                paths[column.name] = f"{column.name}.bytes"
        elif _is_bytes(column.type):
            paths[column.name] = column.name
    return paths


def image_column(schema: pa.Schema, given: str | None) -> str | None:
    """Return the column path of the encoded images; None when no column is clearly the one."""
    paths = _bytes_columns(schema)
    if given is not None:
        return paths.get(given)
    usual = next((name for name in _IMAGE_NAMES if name in paths), None)
    if usual is None and len(paths) == 1:
        usual = next(iter(paths))
    return None if usual is None else paths[usual]


def holds_images(file: Path) -> bool:
    """Return whether a column of `file` holds bytes of images; of several columns `layout_of` wants one to be named.

    Raises `SourceError` when the file is damaged, or has a column for images that holds none.
    """
    schema = open_parquet(file).schema_arrow
    if image_column(schema, None) is not None:
        return True
    structs = [column for column in schema if pa.types.is_struct(column.type)]
    kinds = {one.name: one.type.field("bytes").type for one in structs if one.type.get_field_index("bytes") >= 0}
    if kinds and not any(map(_is_bytes, kinds.values())):
        name, kind = next(iter(kinds.items()))
        raise without_images(file, f"{name}.bytes", str(kind))
    return bool(kinds)


def without_images(file: Path, image: str, what: str) -> SourceError:
    """Return the error for a file that refers to images elsewhere instead of holding them."""
    return SourceError(
        f"{file}: column {image} holds no image ({what}): the images lie elsewhere; write their bytes into it, or "
        "give the folder of the images with a table of paths and labels (--table)"
    )


def find_layout(file: Path, options: SourceOptions) -> ParquetLayout:
    """Return the columns of `file` to read, by the options or by their usual names. Raises `SourceError`."""
    return layout_of(open_parquet(file).schema_arrow, file, options)


def layout_of(schema: pa.Schema, file: Path, options: SourceOptions) -> ParquetLayout:
    """Return the columns to read of a `file` with an Arrow schema. Raises `SourceError`."""
    there = ", ".join(schema.names)
    image = image_column(schema, options.image_column)
    if image is None:
        raise SourceError(f"{file}: can't tell which column holds image bytes; name it with --image-column ({there})")
    features = _features(schema, file)
    top = image.removesuffix(".bytes") if image not in schema.names else image
    path = f"{top}.path" if image != top and schema.field(top).type.get_field_index("path") >= 0 else None
    single = [column.name for column in schema if not (pa.types.is_nested(column.type) or holds_bytes(column.type))]
    label = options.label_column
    if label is None:
        stated = [name for name in single if _stated(features, name).get("_type") == "ClassLabel"]
        usual = (f"{options.labels}_label", *LABEL_NAMES)
        label = find_usual(single, usual) or (stated[0] if len(stated) == 1 else None)
    split = options.split_column
    if split is None:
        split = find_usual(single, SPLIT_NAMES)
    for option, column in (("--label-column", label), ("--split-column", split)):
        if column and column not in single:
            what = "which holds no single values" if column in schema.names else f"it has: {there}"
            raise SourceError(f"{file}: no column {column!r} ({option}), {what}")
    names = _stated(features, label).get("names") if label else None
    if names is not None and not isinstance(names, list):
        raise SourceError(f"{file}: the metadata `huggingface` in its schema are damaged: names must be a list")
    members = _members(schema, top, options.mask_column, file)
    further = {path.removesuffix(".bytes") if path not in schema.names else path for _, path in members}
    others = [name for name in schema.names if name not in (top, label, split) and name not in further]
    return ParquetLayout(
        top=top,
        image=image,
        path=path,
        label=label,
        names=tuple(map(str, names)) if names else None,
        split=split or None,
        others=tuple(name for name in others if not holds_bytes(schema.field(name).type)),
        left_out=tuple(name for name in others if holds_bytes(schema.field(name).type)),
        list_names=tuple((name, names) for name in others if (names := _class_names(features.get(name)))),
        members=members,
    )


def _members(schema: pa.Schema, top: str, mask: str | None, file: Path) -> tuple[tuple[str, str], ...]:
    """Return the columns of further images: the one that is called `mask`, structs of bytes, and bytes called as masks.

    Raises `SourceError` where a named column holds no bytes.
    """
    paths = _bytes_columns(schema)
    if mask is not None and (mask not in paths or mask == top):
        raise SourceError(f"{file}: no column {mask!r} of encoded masks (--mask-column); there are {', '.join(paths)}")
    found: dict[str, str] = {}
    for column, path in paths.items():
        name = re.sub("[^a-z0-9_]+", "_", column.lower()).strip("_")
        # Datasets for segmentation call a mask the label.
        name = MASK if column == mask or name in ("label", "labels") else name
        is_image = column == mask or path != column or kind_of(name) == "mask"
        if column != top and is_image and is_member_name(name):
            found.setdefault(name, path)
    return tuple(sorted(found.items()))


def member_kinds(
    layout: ParquetLayout, options: SourceOptions, rows: Iterable[tuple[bytes | None, Sequence[bytes | None]]]
) -> dict[str, MemberKind]:
    """Return what the further images are, by the first of `rows` that has all: none for those of another size.

    `rows` are images, each with its further ones. The column that a user named holds masks.
    """
    mask = options.mask_column
    named = {one for one, path in layout.members if mask is not None and mask in (path, path.removesuffix(".bytes"))}
    kinds: dict[str, MemberKind] = {one: "mask" for one in named}
    if len(named) == len(layout.members):
        return kinds
    for image, others in rows:
        if image and all(others):
            for (one, _), data in zip(layout.members, others, strict=True):
                kind = kind_in_tar(one, image, data or b"")
                if kind is not None and one not in named:
                    kinds[one] = kind
            break
    return kinds


def _class_names(feature: Any) -> tuple[str, ...] | None:
    """Return the names in a feature of Hugging Face's that is a `ClassLabel`, or a list of them."""
    if isinstance(feature, list) and feature:
        feature = feature[0]
    for _ in range(2):
        if not isinstance(feature, dict):
            return None
        names = feature.get("names")
        if isinstance(names, list) and feature.get("_type", "ClassLabel") == "ClassLabel":
            return tuple(map(str, names))
        feature = feature.get("feature")
    return None


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _stated(features: dict[str, Any], name: str) -> dict[str, Any]:
    """Return what the metadata state of a column of single values."""
    feature = features.get(name)
    return feature if isinstance(feature, dict) else {}


def _features(schema: pa.Schema, file: Path) -> dict[str, Any]:
    """Return Hugging Face's metadata on each column; empty when there are none."""
    text = (schema.metadata or {}).get(b"huggingface")
    if text is None:
        return {}
    try:
        features = parse_json(text).get("info", {}).get("features", {})
    except (ValueError, AttributeError) as error:
        raise SourceError(f"{file}: the metadata `huggingface` in its schema are damaged: {error}") from error
    if not isinstance(features, dict):
        raise SourceError(f"{file}: the metadata `huggingface` in its schema are damaged: no features by name")
    return {name: feature for name, feature in features.items() if isinstance(feature, dict | list)}
