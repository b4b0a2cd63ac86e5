"""COCO's captions, boxes and keypoints (`annotations/captions_train2017.json`, `instances_...`) -> Listing.

Images lie in a folder named as the split (`train2017/`), in `images/` or in `images/train2017/`. A sample has the
fields `image_id`, `captions` (a list of texts, in order of their ids), `labels` (names of the categories that are in
the picture, each once), and of each object, in order of their ids: `boxes` (corners [x1, y1, x2, y2] in pixels),
`box_labels` (class indices), `areas`, `iscrowd`, and `keypoints` (a list of [x, y, visibility], zeros for objects
without). Classes are the categories, in the order of their ids; an image has no class of its own, and `--target
multi-label` makes `labels` the target. Outlines are left out.
"""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from imgdata.errors import SourceError
from imgdata.sample import ClassName
from imgdata.sources.classes import with_usual_splits
from imgdata.sources.listing import Listing, ListingBuilder
from imgdata.sources.options import SourceOptions
from imgdata.sources.readers import FileReader
from imgdata.sources.splits import split_in_path
from imgdata.sources.table.rows import fields_json
from imgdata.storage.file_names import escape_name
from imgdata.storage.reading import read_json

NAME = "coco"
_FILE = re.compile(r"(captions|instances|person_keypoints)_(.+)\.json")
_OBJECTS = ("instances", "person_keypoints")
_MOST_BYTES = 4 * 2**30


@dataclass
class _Part:
    """The annotations of one split."""

    images: dict[int, str] = field(default_factory=dict)
    """File of each image by its id."""
    captions: dict[int, list[str]] = field(default_factory=dict)
    objects: dict[int, dict[int, dict[str, Any]]] = field(default_factory=dict)
    """Objects of each image, by their ids."""
    categories: dict[int, str] = field(default_factory=dict)
    """Name of each category by its id."""
    num_keypoints: int = 0
    """Keypoints of each object; 0 for annotations without any."""

    @property
    def has_boxes(self) -> bool:
        """Whether objects have boxes; without them, categories alone are known."""
        return any("box" in one for of_image in self.objects.values() for one in of_image.values())


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
    read = {part: _annotations(kinds) for part, kinds in sorted(files.items())}
    has_objects = any(kind in kinds for kinds in files.values() for kind in _OBJECTS)
    of_parts = (name for found in read.values() for _, name in sorted(found.categories.items()))
    names = {name: index for index, name in enumerate(dict.fromkeys(of_parts))}
    missing: list[str] = []
    for part, found in read.items():
        split = split_in_path(part) or "train"
        folder = _folder(path, part, found.images)
        has_boxes = found.has_boxes
        for image_id, file in sorted(found.images.items()):
            name = f"{folder}{file}"
            builder.see()
            if builder.excluded(name):
                continue
            size = _size(path / name)
            missing += [name] if size == 0 else []
            row: dict[str, Any] = {"image_id": image_id}
            if "captions" in files[part]:
                row["captions"] = found.captions.get(image_id, [])
            if any(kind in files[part] for kind in _OBJECTS):
                objects = [one for _, one in sorted(found.objects.get(image_id, {}).items())]
                row["labels"] = list(dict.fromkeys(one["name"] for one in objects))
                row |= _object_fields(objects, names, found.num_keypoints) if has_boxes else {}
            builder.add(
                split=split,
                name=name,
                key=f"{part}/{os.path.splitext(file)[0]}",
                label=-1,
                size=size,
                fields=fields_json(row, frozenset()),
            )
    what = "captions or categories, which go into the json members"
    warnings = [f"no labels: images have {what.replace('categories', 'boxes') if has_objects else what}"]
    if missing:
        warnings.append(f"{len(missing)} of the files are not there, such as {missing[0]}: rejected as missing")
    listing = builder.build(
        title=path.resolve().name,
        kind=NAME,
        reader=FileReader(path),
        classes=[ClassName(escape_name(name), escape_name(name)) for name in names],
        warnings=warnings,
    )
    return with_usual_splits(replace(listing, names={"labels": tuple(names)}) if names else listing)


def _object_fields(objects: list[dict[str, Any]], names: Mapping[str, int], keypoints: int) -> dict[str, Any]:
    """Return the fields of an image's objects, an entry for each of them."""
    fields: dict[str, Any] = {
        "boxes": [one["box"] for one in objects],
        "box_labels": [names[one["name"]] for one in objects],
        "areas": [one["area"] for one in objects],
        "iscrowd": [one["iscrowd"] for one in objects],
    }
    if keypoints:
        points = [one.get("keypoints", []) for one in objects]
        fields["keypoints"] = [[*found, *[[0, 0, 0]] * (keypoints - len(found))] for found in points]
    return fields


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


def _annotations(files: Mapping[str, Path]) -> _Part:
    """Return what the files of one split hold. Raises `SourceError`."""
    part = _Part()
    for kind, file in sorted(files.items()):
        content = _read(file)
        try:
            part.images |= {int(image["id"]): _file_name(image["file_name"]) for image in content["images"]}
            if kind == "captions":
                for one in sorted(content["annotations"], key=lambda one: int(one["id"])):
                    part.captions.setdefault(int(one["image_id"]), []).append(str(one["caption"]))
                continue
            part.categories |= {int(one["id"]): str(one["name"]) for one in content["categories"]}
            for one in content["annotations"]:
                found = _object(one, part.categories)
                of_image = part.objects.setdefault(int(one["image_id"]), {})
                # An object is in the files of instances and of keypoints under one id.
                of_image[int(one["id"])] = {**of_image.get(int(one["id"]), {}), **found}
                part.num_keypoints = max(part.num_keypoints, len(found.get("keypoints", ())))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SourceError(
                f"{file}: must be annotations as COCO has them, got {type(error).__name__}: {error}"
            ) from error
    boxes = sum("box" in one for of_image in part.objects.values() for one in of_image.values())
    if 0 < boxes < sum(map(len, part.objects.values())):
        raise SourceError(
            f"{next(iter(files.values()))}: some annotations have no bbox; leave them out, or give one to all"
        )
    return part


def _object(one: Mapping[str, Any], categories: Mapping[int, str]) -> dict[str, Any]:
    """Return one object: its category, box, area and keypoints. Raises `ValueError` and the like for damaged ones."""
    name = categories[int(one["category_id"])]
    if "bbox" not in one:
        return {"name": name}
    box = [_number(value) for value in one["bbox"]]
    if len(box) != 4 or box[2] < 0 or box[3] < 0:
        raise ValueError(f"bbox of annotation {one['id']} must be [x, y, width, height], got {str(one['bbox'])[:80]}")
    values = [_number(value) for value in one.get("keypoints", ())]
    if len(values) % 3:
        raise ValueError(f"keypoints of annotation {one['id']} must be x, y and visibility, got {len(values)} numbers")
    points = [[*values[at : at + 2], int(values[at + 2])] for at in range(0, len(values), 3)]
    return {
        "name": name,
        "box": [box[0], box[1], _sum(box[0], box[2]), _sum(box[1], box[3])],
        "area": _number(one.get("area", box[2] * box[3])),
        "iscrowd": int(one.get("iscrowd", 0)),
        **({"keypoints": points} if points else {}),
    }


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"numbers must be finite, got {value}")
    return number


def _sum(start: float, length: float) -> float:
    # 236.98 + 142.51 is 379.49, not 379.49000000000001.
    return float(f"{start + length:.10g}")


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
