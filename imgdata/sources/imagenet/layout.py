"""A path -> which forms of ImageNet it holds: class folders, flat folders, tars of images, tars of tars."""

import os
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from imgdata.errors import ShardError, SourceError
from imgdata.sources.folder_names import is_hidden
from imgdata.sources.imagenet.devkit import WNID
from imgdata.sources.splits import split_of_word
from imgdata.sources.walk import is_image
from imgdata.tar.archive import members

TRAIN_TAR = "ILSVRC2012_img_train.tar"
VAL_TAR = "ILSVRC2012_img_val.tar"
_TEST_TAR = "ILSVRC2012_img_test"
_KAGGLE = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")
_KAGGLE_PARTS = ("ILSVRC", "Data", "CLS-LOC")


class Form(Enum):
    """Form in which one split is stored; the values are words for messages."""

    CLASS_FOLDERS = "class folders"
    FLAT_FOLDER = "a flat folder"
    CLASS_TARS = "a tar of each class"
    TAR_OF_TARS = "a tar of class tars"
    FLAT_TAR = "a flat tar"
    UNCLEAR = "something else"


class Part(NamedTuple):
    """One split: its form, and the folder or tar that holds it."""

    form: Form
    path: Path


@dataclass(frozen=True, kw_only=True)
class Layout:
    """All splits found at a path."""

    base: Path
    """The folder that file names are relative to."""
    parts: dict[str, Part]
    """Parts by split, in the order train, val, test."""
    title: str = "imagenet"
    given_splits: bool = True
    passed_over: dict[str, int] = field(default_factory=dict)
    unclear: str = ""
    """Reason why the folder can't be listed as ImageNet although a split is ImageNet; empty without such a reason."""
    knowledge_folders: tuple[Path, ...]
    """Folders that may hold a devkit or Kaggle's tables."""


def discover(path: Path) -> Layout | None:
    """Return the layout at `path`, or None when it is not ImageNet; reads only names, and a tar's first member."""
    if path.is_file():
        return _single_tar(path)
    if not path.is_dir():
        return None
    base = next((path / inner for inner in _KAGGLE if (path / inner).is_dir()), path)
    folders = _knowledge_folders(path, base)
    try:
        with os.scandir(base) as found:
            entries = {entry.name: entry.is_dir() for entry in found if not is_hidden(entry.name)}
        parts, unclear = _split_folders(base, entries)
        passed_over = _add_tars(base, entries, parts)
        if any(part.form is not Form.FLAT_FOLDER or _is_official(part.path) for part in parts.values()):
            parts = {split: parts[split] for split in ("train", "val", "test") if split in parts}
            return Layout(base=base, parts=parts, passed_over=passed_over, unclear=unclear, knowledge_folders=folders)
        form = _form(base)
    except OSError as error:
        raise SourceError(f"{path}: can't read this folder: {error.strerror or error}") from error
    if form not in (Form.CLASS_FOLDERS, Form.CLASS_TARS):
        return None
    return Layout(
        base=base,
        parts={"train": Part(form, base)},
        title="imagenet21k" if form is Form.CLASS_TARS else "imagenet",
        given_splits=False,
        knowledge_folders=folders,
    )


def describe(layout: Layout) -> str:
    """Return one phrase on what was found, split by split."""
    return ", ".join(f"{split} as {part.form.value} ({part.path.name})" for split, part in layout.parts.items())


def _split_folders(base: Path, entries: dict[str, bool]) -> tuple[dict[str, Part], str]:
    """Return the folders of the splits, and why they can't all be used (empty when they can)."""
    parts: dict[str, Part] = {}
    unclear = ""
    for name in sorted(entries):
        split = split_of_word(name)
        form = _form(base / name) if split and entries[name] else None
        if split is None or form is None:
            continue
        if split in parts:
            unclear = f"{parts[split].path.name}/ and {name}/ are both {split}; remove one"
        elif form is Form.UNCLEAR or (split == "train" and form is Form.FLAT_FOLDER):
            unclear = f"{name}/ must have a folder for each wnid (n01440764), and no other folders; use source 'folder'"
        else:
            parts[split] = Part(form, base / name)
    return parts, unclear


def _add_tars(base: Path, entries: dict[str, bool], parts: dict[str, Part]) -> dict[str, int]:
    """Add the official tars to `parts` where there is no folder; return the passed over tars by reason, with counts."""
    extracted = 0
    for split, tar, form in (("train", TRAIN_TAR, Form.TAR_OF_TARS), ("val", VAL_TAR, Form.FLAT_TAR)):
        if tar in entries and split in parts:
            extracted += 1
        elif tar in entries:
            parts[split] = Part(form, base / tar)
    tests = sum(name.startswith(_TEST_TAR) for name in entries)
    counts = {"official tars that are extracted beside": extracted, "tars of test images without labels": tests}
    return {what: count for what, count in counts.items() if count}


def _form(folder: Path) -> Form | None:
    """Return the form of a split's folder; None when it is empty."""
    wnid_folders = tars = images = others = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if is_hidden(name):
                continue
            if not entry.is_dir():
                tars += name.endswith(".tar") and WNID.fullmatch(name[:-4]) is not None
                images += is_image(name)
            elif WNID.fullmatch(name):
                wnid_folders += 1
            elif name == "images":
                # Tiny ImageNet keeps its flat images one level down.
                images += 1
            else:
                others += 1
    if others:
        return Form.UNCLEAR
    if wnid_folders:
        return Form.CLASS_FOLDERS
    if tars:
        return Form.CLASS_TARS
    return Form.FLAT_FOLDER if images else None


def _is_official(folder: Path) -> bool:
    """Return whether a flat folder's images have the official names; one such name is enough."""
    with os.scandir(folder) as entries:
        return any(entry.name.startswith("ILSVRC2012_val_") for entry in entries if is_image(entry.name))


def _single_tar(path: Path) -> Layout | None:
    if path.suffix != ".tar":
        return None
    beside = (path.parent,)
    if path.name == VAL_TAR:
        return Layout(base=path.parent, parts={"val": Part(Form.FLAT_TAR, path)}, knowledge_folders=beside)
    official = path.name == TRAIN_TAR
    if not official and not _holds_class_tars(path):
        return None
    return Layout(
        base=path.parent,
        parts={"train": Part(Form.TAR_OF_TARS, path)},
        title="imagenet" if official else "imagenet21k",
        given_splits=official,
        knowledge_folders=beside if official else (),
    )


def _holds_class_tars(path: Path) -> bool:
    try:
        first = next(members(path), None)
    except ShardError:
        return False
    stem, ending = os.path.splitext(os.path.basename(first.name)) if first else ("", "")
    return ending == ".tar" and WNID.fullmatch(stem) is not None


def _knowledge_folders(path: Path, base: Path) -> tuple[Path, ...]:
    """Return `base`, `path`, the folders between them, and above them the rest of Kaggle's tree."""
    folders = [base]
    while folders[-1].name in _KAGGLE_PARTS and folders[-1].parent != folders[-1]:
        folders.append(folders[-1].parent)
    return tuple(dict.fromkeys([path, *reversed(folders)]))
