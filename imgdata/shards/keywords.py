"""Keywords, named as the options of `imgdata shard`, -> `ShardOptions` and `SourceOptions`."""

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from imgdata.dataset.manifest import HashKind
from imgdata.errors import OptionError
from imgdata.images.encode import Encoding
from imgdata.shards.options import ShardOptions
from imgdata.sources.options import SourceOptions
from imgdata.stratify import parse_fractions

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


class WriterKeywords(TypedDict, total=False):
    """Every field of `ShardOptions` and `Encoding`, and the command's names where they differ, but `classes`."""

    name: str | None
    shard_size: int | str
    """Largest tar: bytes, or a text such as `256MB`."""
    shard_bytes: int
    shard_samples: int | None
    exclude: str | Sequence[str]
    split: str | Mapping[str, float]
    seed: int
    shuffle: bool
    format: Literal["keep", "jpg", "png", "webp"]
    resize: int | None
    resize_mode: Literal["shorter", "longer", "exact"]
    upscale: bool
    quality: int
    check: Literal["decode", "header", "none"]
    on_bad: Literal["reject", "fail", "repair"]
    max_pixels: int
    crop_ready: bool
    strip: bool
    key_prefix: str
    json_members: bool
    hash: HashKind


class ShardKeywords(WriterKeywords, total=False):
    """The keywords of `WriterKeywords`, the classes and views to keep, and every field of `SourceOptions`."""

    classes: str | Sequence[str]
    views: str | Sequence[str]
    kind: str | None
    """Layout of the source: `--source` of the command."""
    labels: Literal["fine", "coarse"]
    devkit: str | Path | None
    table: str | Path | None
    path_column: str | None
    label_column: str | None
    split_column: str | None
    target: Literal["class", "multi-label", "soft", "regression", "boxes", "none"] | None
    label_separator: str | None
    image_column: str | None
    masks: str | Path | None
    mask_column: str | None
    image_ext: str | Sequence[str]
    label_from: str
    split_names: Mapping[str, str] | None
    class_order: Literal["auto", "number", "text"]


def byte_size(text: str) -> int:
    """Return the bytes that `256MB`, `1GiB` or `500000` means. Raises `OptionError`."""
    found = re.fullmatch(r"(\d{1,18}(?:\.\d+)?)\s*([KMGT]?I?)B?", text.strip().upper())
    if not found or found[2] not in _UNITS:
        raise OptionError(f"{text!r} is not a size: give bytes, or a number with a unit such as 256MB or 1GiB")
    return int(float(found[1]) * _UNITS[found[2]])


def with_keywords(
    options: ShardOptions | None, read: SourceOptions | None, keywords: Mapping[str, Any]
) -> tuple[ShardOptions, SourceOptions]:
    """Return the options that were given, as objects or as keywords.

    Raises `OptionError` for an unknown keyword, one without a meaning, and for keywords beside an options object.
    """
    if not keywords:
        return options or ShardOptions(), read or SourceOptions()
    if options is not None or read is not None:
        raise OptionError(
            f"give either options objects or keywords, got both ({', '.join(sorted(keywords))}); fields of "
            "ShardOptions and SourceOptions have the same names"
        )
    known = ShardKeywords.__annotations__
    for name in keywords:
        if name not in known:
            near = difflib.get_close_matches(name, known, 3, cutoff=0.5)
            raise OptionError(f"unknown keyword {name!r}" + (f"; near: {', '.join(near)}" if near else ""))
    values = dict(keywords)
    if isinstance(values.get("shard_size"), str):
        values["shard_size"] = byte_size(values["shard_size"])
    if "shard_size" in values:
        values["shard_bytes"] = values.pop("shard_size")
    if isinstance(values.get("split"), str):
        values["split"] = parse_fractions(values["split"])
    if isinstance(values.get("classes"), str):
        values["classes"] = [one.strip() for one in values["classes"].split(",") if one.strip()]
    for name in ("exclude", "image_ext", "views"):
        if isinstance(values.get(name), str):
            values[name] = (values[name],)
    for name in ("classes", "exclude", "image_ext", "views"):
        if name in values:
            values[name] = tuple(values[name])
    for name in ("devkit", "table", "masks"):
        if isinstance(values.get(name), str):
            values[name] = Path(values[name])
    encoding = {field.name: values.pop(field.name) for field in dataclasses.fields(Encoding) if field.name in values}
    reading = {
        field.name: values.pop(field.name)
        for field in dataclasses.fields(SourceOptions)
        if field.name in values and field.name != "exclude"
    }
    try:
        return ShardOptions(**values, encoding=Encoding(**encoding)), SourceOptions(**reading)
    except TypeError as error:
        raise OptionError(f"a keyword has a value of the wrong type: {error}") from error
