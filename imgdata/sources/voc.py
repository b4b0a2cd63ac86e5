"""Pascal VOC (`JPEGImages`, `SegmentationClass`, `Annotations`, `ImageSets`) -> Listing, with masks and boxes.

A sample is an image of the lists in `ImageSets/Segmentation`, with its mask; where there are no such lists, or boxes
are the target, it is an image of those in `ImageSets/Main`, without. `Annotations/*.xml` give the fields `boxes`
(corners [x1, y1, x2, y2] in pixels, counted from the picture's upper left corner), `box_labels` (class indices) and
`difficult`. Images have no class of their own; the classes are those of the boxes. In a mask 0 is the background, and
255 belongs to no class.
"""

import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from imgdata.errors import SourceError
from imgdata.sample import ClassName
from imgdata.sources.classes import with_usual_splits
from imgdata.sources.listing import Listing, ListingBuilder
from imgdata.sources.mask_files import MaskFiles
from imgdata.sources.member_columns import MASK
from imgdata.sources.options import SourceOptions
from imgdata.sources.readers import FileReader
from imgdata.sources.splits import split_of_word
from imgdata.sources.walk import image_files, visible
from imgdata.storage.file_names import escape_name
from imgdata.storage.reading import read_file

NAME = "voc"
CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""Classes of VOC, in the order of the numbers in its masks, which begin at 1."""
_IMAGES, _MASKS, _BOXES, _LISTS = "JPEGImages", "SegmentationClass", "Annotations", "ImageSets"
_MOST_BYTES = 16 * 2**20
_MOST_LIST_BYTES = 256 * 2**20


def recognise(path: Path) -> str | None:
    """Return a phrase when `path`, or the one folder in it, has the folders of Pascal VOC, or None."""
    if not path.is_dir():
        return None
    top = _top(path)
    return None if top is None else f"Pascal VOC ({', '.join(_parts(path / top))})"


def list_samples(path: Path, options: SourceOptions) -> Listing:
    """Return the images of the lists, in their order.

    Raises `SourceError` for a list that names an image twice, and for annotations that are damaged.
    """
    top = _top(path)
    if top is None:
        raise SourceError(f"{path}: no {_IMAGES}/ with {_MASKS}/ or {_BOXES}/ beside it")
    prefix = f"{top}/" if top else ""
    folder = path / top
    builder = ListingBuilder(options.exclude)
    files = {os.path.splitext(name)[0]: (name, size) for name, size in image_files(folder / _IMAGES, builder)}
    lists, has_masks = _lists(folder, options)
    lists = lists or {"train": list(files)}
    masks = MaskFiles(path, folder / _MASKS) if has_masks else None
    boxes = _Boxes(folder / _BOXES)
    listed: set[str] = set()
    rows: list[dict[str, Any]] = []
    for split, stems in lists.items():
        for stem in stems:
            name, size = files.get(stem, (f"{stem}.jpg", 0))
            if stem in listed:
                raise SourceError(f"{folder / _LISTS}: {escape_name(stem)} is in two lists; leave it in one of them")
            listed.add(stem)
            if builder.excluded(f"{prefix}{_IMAGES}/{name}"):
                continue
            place = masks.find(name, name) if masks is not None else None
            rows.append(boxes.read(stem))
            builder.add(
                split=split,
                name=f"{prefix}{_IMAGES}/{name}",
                key=f"{split}/{stem}",
                label=-1,
                size=size,
                members={} if place is None else {MASK: place},
            )
    unlisted = len(files.keys() - listed)
    if unlisted:
        builder.skip("images in none of the lists", unlisted)
    missing = [stem for stems in lists.values() for stem in stems if stem not in files]
    builder.see(len(missing))
    return with_usual_splits(_finished(builder, path, boxes, rows, missing, given_splits=len(lists) > 1))


def _finished(
    builder: ListingBuilder,
    path: Path,
    boxes: "_Boxes",
    rows: Sequence[dict[str, Any]],
    missing: Sequence[str],
    *,
    given_splits: bool,
) -> Listing:
    """Return the listing with the boxes' labels as class indices."""
    classes = boxes.classes()
    number = {name: index for index, name in enumerate(classes)}
    texts = []
    for row in rows:
        labels = [number[name] for name in row.pop("names", [])]
        texts.append(json.dumps({**row, "box_labels": labels}, separators=(",", ":")) if row else "")
    warnings = ["images have no class of their own; classes are those of the boxes"] if boxes.is_there else []
    if missing:
        warnings.append(f"{len(missing)} of the listed images are not there, such as {missing[0]}: rejected as missing")
    listing = builder.build(
        title=path.resolve().name,
        kind=NAME,
        reader=FileReader(path),
        classes=[ClassName(escape_name(name), escape_name(name)) for name in classes],
        given_splits=given_splits,
        warnings=warnings,
    )
    return listing.with_fields(texts) if any(texts) else listing


def _top(path: Path) -> str | None:
    """Return the folder with the parts of VOC, below `path` with at most `VOCdevkit/VOC2012` around it."""
    top = ""
    for _ in range(3):
        if len(_parts(path / top)) > 1:
            return top
        folders = visible(path / top).folders
        if len(folders) != 1:
            return None
        top = f"{top}/{folders[0]}" if top else folders[0]
    return None


def _parts(folder: Path) -> list[str]:
    """Return the folders of VOC in `folder`; none where one that it needs is missing."""
    folders = visible(folder).folders
    found = [name for name in (_IMAGES, _MASKS, _BOXES) if name in folders]
    return found if _IMAGES in found else []


def _lists(folder: Path, options: SourceOptions) -> tuple[dict[str, list[str]], bool]:
    """Return the names of the images of each split, none where there are no lists, and whether these have masks."""
    has_masks = options.target != "boxes" and (folder / _MASKS).is_dir()
    if has_masks and (found := _split_lists(folder / _LISTS / "Segmentation")):
        return found, True
    found = _split_lists(folder / _LISTS / "Main")
    # Without lists for segmentation, most images of `Main` have no mask.
    return found, has_masks and not found


def _split_lists(place: Path) -> dict[str, list[str]]:
    """Return the names in the lists of each split in a folder."""
    found = {
        split: list(_names(place / name))
        for name in (visible(place).files if place.is_dir() else ())
        if name.endswith(".txt") and (split := split_of_word(name.removesuffix(".txt")))
    }
    return {split: names for split, names in found.items() if names}


def _names(file: Path) -> Iterator[str]:
    """Yield the first word of each line: of `Main/cat_train.txt` a number follows."""
    try:
        text = read_file(file, _MOST_LIST_BYTES).decode("utf-8-sig", "surrogateescape")
    except (OSError, ValueError) as error:
        raise SourceError(f"{file}: can't be read: {error}") from error
    for line in text.splitlines():
        words = line.split()
        if words:
            yield words[0]


class _Boxes:
    """Reader of the boxes of images; it gathers the names of their classes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.is_there = folder.is_dir()
        self._names: dict[str, None] = {}

    def classes(self) -> list[str]:
        """Return the classes: VOC's, or where others were found, all that were, sorted."""
        known = self._names.keys() <= set(CLASSES)
        return list(CLASSES) if known else sorted(self._names)

    def read(self, stem: str) -> dict[str, Any]:
        """Return the fields of an image, with the `names` of its boxes' classes; none without annotations.

        Raises `SourceError` where they are damaged.
        """
        file = self._folder / f"{stem}.xml"
        try:
            data = read_file(file, _MOST_BYTES)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise SourceError(f"{file}: can't be read: {error}") from error
        try:
            objects = _parsed(data).findall("object")
            boxes = [_corners(one) for one in objects]
            names = [(one.findtext("name") or "").strip() for one in objects]
            difficult = [int((one.findtext("difficult") or "0").strip() or 0) for one in objects]
        except (ElementTree.ParseError, ValueError, TypeError) as error:
            raise SourceError(
                f"{file}: must be an annotation as Pascal VOC has it, got {type(error).__name__}: {error}; mend it, or "
                "leave its image out with --exclude"
            ) from error
        if not all(names):
            raise SourceError(f"{file}: an object has no name; fill it in, or leave its image out with --exclude")
        self._names |= dict.fromkeys(names)
        return {"boxes": boxes, "difficult": difficult, "names": names}


def _parsed(data: bytes) -> ElementTree.Element:
    # An entity can grow to gigabytes; annotations have none.
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise ValueError("a document type, which may do harm")
    return ElementTree.fromstring(data)


def _corners(one: ElementTree.Element) -> list[float]:
    """Return [x1, y1, x2, y2]: VOC counts pixels from 1, and its last ones belong to the box."""
    box = one.find("bndbox")
    if box is None:
        raise ValueError("an object without a bndbox")
    values = [float((box.findtext(name) or "").strip()) for name in ("xmin", "ymin", "xmax", "ymax")]
    if not (values[0] <= values[2] and values[1] <= values[3] and all(map(math.isfinite, values))):
        raise ValueError(f"a box from {values[:2]} to {values[2:]}")
    return [values[0] - 1, values[1] - 1, values[2], values[3]]
