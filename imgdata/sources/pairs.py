"""A folder of images beside a folder of masks -> Listing: `images/1.jpg` with `masks/1.png`.

    images/ masks/                     both may have a folder for each split: `images/train`, `masks/train`
    train/images train/masks           the same inside folders of splits
    train/ train_masks/                folders of splits, each beside that of its masks (Carvana)
    images/training annotations/training          ADE20K
    leftImg8bit/train/CITY gtFine/train/CITY      Cityscapes

Images have no class. A split without any masks, as test splits often are, stays without; elsewhere an image without a
mask is rejected. `SourceOptions.masks` names the folder of the masks where it is called otherwise.
"""

import os
from pathlib import Path
from typing import NamedTuple

from imgdata.errors import SourceError
from imgdata.sources.classes import some, with_usual_splits
from imgdata.sources.folder_names import holds_images_of_any_class, is_hidden, mask_folders, split_of_folder
from imgdata.sources.listing import Listing, ListingBuilder
from imgdata.sources.mask_files import MaskFiles, mask_notes, plain_name
from imgdata.sources.member_columns import MASK
from imgdata.sources.options import SourceOptions
from imgdata.sources.readers import FileReader
from imgdata.sources.splits import in_usual_order
from imgdata.sources.walk import Entries, count_below, image_files, is_image, visible
from imgdata.storage.file_names import escape_name

NAME = "pairs"
_CITYSCAPES = "leftImg8bit"
_PROBED = 50


class _Pair(NamedTuple):
    """One folder of images, and that of their masks; paths relative to the source's root."""

    split: str
    images: str
    masks: str | None
    """None for a split without masks."""


def recognise(path: Path) -> str | None:
    """Return a phrase when `path` holds folders of images and of masks of the same names, or None."""
    if not path.is_dir():
        return None
    try:
        pairs = _find(path, None)
    except SourceError:
        # Which folder of masks is meant is asked when the images are listed.
        return "images and masks"
    names = [f"{one.images}/ and {one.masks}/" for one in pairs if one.masks]
    return f"images and masks ({', '.join(names)})" if names else None


def list_samples(path: Path, options: SourceOptions) -> Listing:
    """Return all images of the folders of images, split by split, sorted by path, with the masks of their names.

    Raises `SourceError` where no folder of masks is found, and where a mask may belong to several images.
    """
    pairs = _find(path, options.masks)
    if not pairs and options.masks is not None:
        raise SourceError(
            f"{path}: can't tell which folder beside {options.masks} holds the images; call it images, or move the "
            f"masks out of {path}"
        )
    if not pairs:
        raise SourceError(
            f"{path}: no folder of masks beside one of images (images/ and masks/, train/images and train/masks); name "
            "it with --masks"
        )
    builder = ListingBuilder(options.exclude)
    masks = {folder: MaskFiles(path, path / folder) for folder in dict.fromkeys(one.masks for one in pairs) if folder}
    warnings = []
    for pair in pairs:
        of_masks = None if pair.masks is None else masks[pair.masks]
        images = missing = 0
        for file, size in image_files(path / pair.images, builder):
            name = _join(pair.images, file)
            if pair.masks and name.startswith(f"{pair.masks}/"):
                builder.skip("masks below the images")
                continue
            if builder.excluded(name):
                continue
            place = None if of_masks is None else of_masks.find(file, name)
            images, missing = images + 1, missing + (place is None)
            builder.add(
                split=pair.split,
                name=name,
                key=f"{pair.split}/{os.path.splitext(file)[0]}" if len(pairs) > 1 else os.path.splitext(file)[0],
                label=-1,
                size=size,
                members={MASK: place} if place is not None else {},
            )
        if missing:
            what = f"split {pair.split} has no masks" if missing == images else f"{missing} images have no mask"
            warnings.append(f"{what} ({escape_name(pair.images)}/)")
    _count_others(path, pairs, builder)
    listing = builder.build(
        title=path.resolve().name,
        kind=NAME,
        reader=FileReader(path),
        classes=(),
        given_splits=len(pairs) > 1 or pairs[0].split != "train",
        warnings=[*warnings, *mask_notes(masks)],
    )
    return with_usual_splits(listing)


def _find(path: Path, masks: Path | None) -> list[_Pair]:
    """Return the folders of images and masks below `path`; `masks` is the folder that a user named."""
    found = _in(path, "") if masks is None else _named(path, masks)
    folders = visible(path).folders
    if not found and masks is None and len(folders) == 1:
        # A folder around all, as archives have it.
        found = _in(path, folders[0])
    order = in_usual_order(pair.split for pair in found)
    return sorted(found, key=lambda pair: order.index(pair.split))


def _named(path: Path, masks: Path) -> list[_Pair]:
    """Return the pairs for a folder of masks in `path` or elsewhere."""
    own = os.path.relpath(masks, path)
    inside = not own.startswith("..")
    parent = os.path.dirname(own) if inside else ""
    entries = visible(path / parent)
    folders = [name for name in entries.folders if _join(parent, name) != own]
    images = [name for name in folders if _holds_images(name)]
    if any(map(is_image, entries.files)) or not folders:
        return [_Pair("train", parent, own)]
    top = images[0] if len(images) == 1 else folders[0] if len(folders) == 1 else ""
    if not top:
        return []
    return _by_split(path, _join(parent, top), own) or [_Pair("train", _join(parent, top), own)]


def _in(path: Path, top: str) -> list[_Pair]:
    folders = visible(path / top).folders
    if _CITYSCAPES in folders:
        masks = next((name for name in ("gtFine", "gtCoarse") if name in folders), None)
        return _by_split(path, _join(top, _CITYSCAPES), _join(top, masks)) if masks else []
    splits = {name: split for name in folders if (split := split_of_folder(name))}
    inside = [
        pair._replace(split=split) for name, split in splits.items() for pair in _side_by_side(path, _join(top, name))
    ]
    return _side_by_side(path, top) or inside or _split_siblings(path, top, folders, splits)


def _side_by_side(path: Path, top: str) -> list[_Pair]:
    """Return the pairs of `images/` and `masks/` in a folder."""
    folders = visible(path / top).folders
    images = [name for name in folders if _holds_images(name)]
    masks = [name for name in mask_folders(folders, images_beside=False) if name not in images]
    if len(images) != 1:
        return []
    fitting = []
    for name in masks:
        below = _join(top, name)
        # Such as `annotations/trimaps`.
        deeper = mask_folders(visible(path / below).folders, images_beside=True)
        fitting += [
            pairs
            for folder in (below, *(_join(below, inner) for inner in deeper))
            if (pairs := _by_split(path, _join(top, images[0]), folder) or _flat(path, _join(top, images[0]), folder))
        ]
    if len(fitting) > 1:
        names = some([str(pairs[0].masks) + "/" for pairs in fitting])
        raise SourceError(
            f"{path}: several folders may hold the masks of {images[0]}/ ({names}); name one with --masks"
        )
    return fitting[0] if fitting else []


def _holds_images(name: str) -> bool:
    return holds_images_of_any_class(name) and split_of_folder(name) is None


def _flat(path: Path, images: str, masks: str) -> list[_Pair]:
    return [_Pair("train", images, masks)] if _share_names(path / images, path / masks) else []


def _by_split(path: Path, images: str, masks: str) -> list[_Pair]:
    """Return the pairs of `images/train` and `masks/train`, and so on; none where these are no folders of splits."""
    image_splits = {split: name for name in visible(path / images).folders if (split := split_of_folder(name))}
    mask_splits = {split: name for name in visible(path / masks).folders if (split := split_of_folder(name))}
    pairs = [
        _Pair(split, _join(images, name), _join(masks, mask_splits[split]) if split in mask_splits else None)
        for split, name in image_splits.items()
    ]
    flat_masks = not mask_splits and bool(visible(path / masks).files)
    if pairs and flat_masks:
        # Masks of all splits in one folder.
        pairs = [pair._replace(masks=masks) for pair in pairs]
    shared = [
        pair
        for pair in pairs
        if pair.masks is not None
        and (_CITYSCAPES in pair.images or _share_names(path / pair.images, path / pair.masks))
    ]
    return pairs if shared else []


def _split_siblings(path: Path, top: str, folders: list[str], splits: dict[str, str]) -> list[_Pair]:
    """Return the pairs of `train/` and `train_masks/`, and so on."""
    beside = [name for name in mask_folders(folders, images_beside=True) if name not in splits]
    pairs = []
    for name, split in splits.items():
        own = next((mask for mask in beside if _split_of_masks(mask) == split), None)
        pairs.append(_Pair(split, _join(top, name), _join(top, own) if own else None))
    shared = [one for one in pairs if one.masks is not None and _share_names(path / one.images, path / one.masks)]
    return pairs if shared else []


def _split_of_masks(name: str) -> str | None:
    parts = name.replace("-", "_").split("_")
    return next((split for part in parts if (split := split_of_folder(part))), None)


def _share_names(images: Path, masks: Path) -> bool:
    """Return whether one of the first images directly in a folder has a mask of its name directly in another."""
    if not masks.is_dir():
        return False
    stems = {os.path.splitext(name)[0] for name in visible(masks).files if is_image(name)}
    if not stems:
        return False
    stems |= set(map(plain_name, stems))
    entries: Entries = visible(images)
    few = [os.path.splitext(name)[0] for name in entries.files if is_image(name)][:_PROBED]
    return any(stem in stems or plain_name(stem) in stems for stem in few)


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _count_others(path: Path, pairs: list[_Pair], builder: ListingBuilder) -> None:
    """Count what lies beside the folders of images and masks."""
    used = {folder for pair in pairs for folder in (pair.images, pair.masks) if folder is not None}
    above = {""} | {"/".join(folder.split("/")[:depth]) for folder in used for depth in range(1, folder.count("/") + 1)}
    if "" in used:
        return
    for folder in sorted(above):
        for name in sorted(os.listdir(path / folder)):
            inner = _join(folder, name)
            if inner in used | above:
                continue
            if (path / inner).is_dir() and not is_hidden(name):
                count_below(path / inner, builder, f"images in folders passed over ({escape_name(inner)})")
                continue
            builder.see()
            builder.skip("hidden files" if is_hidden(name) else "other files beside the images")
