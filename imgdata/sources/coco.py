"""COCO's captions and categories (`annotations/captions_train2017.json`, `instances_train2017.json`) -> Listing.

Images lie in a folder named as the split (`train2017/`), in `images/` or in `images/train2017/`. A sample has the
fields `image_id`, `captions` (a list of texts, in order of their ids) and `labels` (names of the categories that are in
the picture, each once); it has no class of its own, and `--target multi-label` makes `labels` the target. Boxes and
outlines are left out.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from imgdata.errors import SourceError
from imgdata.sources.classes import with_usual_splits
from imgdata.sources.listing import Listing, ListingBuilder
from imgdata.sources.options import SourceOptions
from imgdata.sources.readers import FileReader
from imgdata.sources.splits import split_in_path
from imgdata.sources.table.rows import fields_json
from imgdata.storage.reading import read_json

NAME = "coco"
_FILE = re.compile(r"(captions|instances)_(.+)\.json")
_MOST_BYTES = 4 * 2**30


def recognise(path: Path) -> str | None:
    """Return a phrase when `path` has a folder `annotations` with captions or instances of COCO, else None."""
    files = _files(path)
    return (
        f"COCO ({', '.join(sorted(file.name for parts in files.values() for file in parts.values()))})"
        if files
        else None
    )


def list_samples(path: Path, options: SourceOptions) -> Listing:
    """Return the images that the annotations name, in order of their ids. Raises `SourceError`."""
    files = _files(path)
    if not files:
        raise SourceError(f"{path}: no annotations/captions_*.json or annotations/instances_*.json there")
    builder = ListingBuilder(options.exclude)
    names: dict[str, None] = {}
    missing: list[str] = []
    for part, parts in sorted(files.items()):
        split = split_in_path(part) or "train"
        images, fields = _images(parts, names)
        folder = _folder(path, part, images)
        for image_id, file in sorted(images.items()):
            name = f"{folder}{file}"
            builder.see()
            if builder.excluded(name):
                continue
            size = _size(path / name)
            missing += [name] if size == 0 else []
            row = {"image_id": image_id, **fields.get(image_id, {})}
            for kind, column in (("captions", "captions"), ("instances", "labels")):
                if kind in parts:
                    row.setdefault(column, [])
            builder.add(
                split=split,
                name=name,
                key=f"{part}/{os.path.splitext(file)[0]}",
                label=-1,
                size=size,
                fields=fields_json(row, frozenset()),
            )
    warnings = ["no labels: images have captions or categories, which go into the json members"]
    if missing:
        warnings.append(f"{len(missing)} of the files are not there, such as {missing[0]}: rejected as missing")
    listing = builder.build(
        title=path.resolve().name, kind=NAME, reader=FileReader(path), classes=(), warnings=warnings
    )
    return with_usual_splits(_with_names(listing, tuple(names)))


def _with_names(listing: Listing, names: tuple[str, ...]) -> Listing:
    return replace(listing, names={"labels": names}) if names else listing


def _files(path: Path) -> dict[str, dict[str, Path]]:
    """Return the files of annotations by part, such as `train2017`, and kind."""
    folder = path / "annotations"
    if not folder.is_dir():
        return {}
    found: dict[str, dict[str, Path]] = {}
    for file in sorted(folder.iterdir()):
        match = _FILE.fullmatch(file.name)
        if match is not None:
            found.setdefault(match[2], {})[match[1]] = file
    return found


def _images(parts: Mapping[str, Path], names: dict[str, None]) -> tuple[dict[int, str], dict[int, dict[str, Any]]]:
    """Return the file of each image by its id, and its fields; `names` gets the categories, in order of their ids."""
    images: dict[int, str] = {}
    fields: dict[int, dict[str, Any]] = {}
    for kind, file in parts.items():
        content = _read(file)
        try:
            images |= {int(image["id"]): _file_name(image["file_name"]) for image in content["images"]}
            categories = {int(one["id"]): str(one["name"]) for one in content.get("categories", ())}
            names |= dict.fromkeys(name for _, name in sorted(categories.items()))
            for one in sorted(content["annotations"], key=lambda one: int(one["id"])):
                row = fields.setdefault(int(one["image_id"]), {})
                if kind == "captions":
                    row.setdefault("captions", []).append(str(one["caption"]))
                else:
                    name = categories[int(one["category_id"])]
                    if name not in row.setdefault("labels", []):
                        row["labels"].append(name)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SourceError(
                f"{file}: must be annotations as COCO has them, got {type(error).__name__}: {error}"
            ) from error
    return images, fields


def _read(file: Path) -> Any:
    try:
        return read_json(file, _MOST_BYTES)
    except (OSError, ValueError) as error:
        raise SourceError(f"{file}: can't be read: {error}") from error


def _file_name(value: object) -> str:
    name = str(value)
    if name.startswith("/") or ".." in name.split("/") or "\0" in name:
        raise ValueError(f"file_name {name!r} leads out of the folder")
    return name


def _folder(path: Path, part: str, images: Mapping[int, str]) -> str:
    """Return the folder of the images, ending in `/`, or nothing: where the first of them is found."""
    first = next(iter(images.values()), "")
    for folder in (f"{part}/", f"images/{part}/", "images/", ""):
        if (path / f"{folder}{first}").is_file():
            return folder
    return f"{part}/"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
