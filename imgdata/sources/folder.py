"""Class folders -> Listing: `train/cat/1.jpg`, `val/cat/2.jpg`, or `cat/1.jpg` without splits.

How the folders directly in the root are read (a split word is `train`, `valid`, `test`, ... in any case):

    all are split words               each is a split, folders below it are classes
    none is a split word              all are classes, everything is split `train`
    some are, with folders inside     those are splits; another folder is a split of its own name when all folders
                                      in it are classes of the splits, else it is passed over with a warning
    only `train`, images inside       a class called `train`, as in {bus, car, train}
    anything else                     refused: class or split can't be told

A single folder around all this (`archive/train/cat/1.jpg`) is looked through. The class of an image is the path of
the folder that holds it, from its split on (`cat`, or `animals/cat` in deeper trees); the class index is the rank of
that path as a string over all splits, which is torchvision's `ImageFolder` for folders of depth one.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from imgdata.errors import SourceError
from imgdata.sources.classes import some, with_sorted_classes
from imgdata.sources.listing import Listing, ListingBuilder, escape_name
from imgdata.sources.options import SourceOptions
from imgdata.sources.readers import FileReader
from imgdata.sources.splits import in_usual_order, split_name, split_of_word
from imgdata.sources.table.columns import why_no_table
from imgdata.sources.walk import image_files, is_image, visible

NAME = "folder"
_MAX_PROBED_FOLDERS = 64
_MAX_WRAPPERS = 8


class _Root(NamedTuple):
    """Folders, relative to the source's root, that hold class folders; each with its split."""

    splits: dict[str, list[str]]
    """Split name -> its folders; `""` is the root itself."""
    given: bool
    passed_over: list[str]
    files: list[str]
    """Files beside the splits."""


def recognise(path: Path) -> str | None:
    """Whether there are images below `path`; looks into a few folders only."""
    if not path.is_dir():
        return None
    entries = visible(path)
    if any(map(is_image, entries.files)):
        return "images in a folder"
    if not entries.folders or not _holds_image(path, _Budget(_MAX_PROBED_FOLDERS)):
        return None
    return f"folders of images ({some(entries.folders)})"


def list_samples(path: Path, options: SourceOptions) -> Listing:
    """All images below the class folders of `path`, split by split (train, val, test, others), sorted by path.

    Raises `SourceError` when images lie outside of class folders, or when classes and splits can't be told apart.
    """
    if not path.is_dir():
        raise SourceError(f"{path}: not a folder; class folders such as {path.name}/cat/1.jpg are needed")
    root = _splits(path, _wrapper(path))
    builder = ListingBuilder()
    for name in root.files:
        builder.skip("images beside the splits" if is_image(name) else "other files beside the splits")
    codes: dict[str, int] = {}
    empty: list[str] = []
    for split in in_usual_order(root.splits):
        for folder in root.splits[split]:
            found = _add_split(path, folder, split, builder, codes)
            empty += _empty_folders(path / folder, folder, found)
    if empty:
        builder.skip("empty class folders", len(empty))
    warnings = [
        *(
            [f"only one class ({some(list(codes))}); a table of labels is named with --table{_tables_beside(path)}"]
            if len(codes) == 1
            else []
        ),
        *_warn_of_split_words(codes),
        *(f"folders {some(folders)} are one split: {split}" for split, folders in root.splits.items() if folders[1:]),
        *(f"folder {name} is neither a split nor has it the classes of one; passed over" for name in root.passed_over),
        *([f"class folders without images: {some(sorted(empty))}"] if empty else []),
    ]
    listing = builder.build(
        title=path.resolve().name,
        kind=NAME,
        reader=FileReader(path),
        classes=(),
        given_splits=root.given,
        warnings=warnings,
    )
    return with_sorted_classes(listing, list(codes))


def has_class_folders(path: Path) -> bool:
    """Whether two folders or more, of those that would be classes, hold images; looks into a few folders only."""
    try:
        root = _splits(path, _wrapper(path))
    except SourceError:
        return False
    budget = _Budget(_MAX_PROBED_FOLDERS)
    classes = set()
    for folder in (folder for folders in root.splits.values() for folder in folders):
        for name in visible(path / folder).folders:
            if budget.folders > 0 and name not in classes and _holds_image(path / folder / name, budget):
                classes.add(name)
    return len(classes) > 1


def _add_split(path: Path, folder: str, split: str, builder: ListingBuilder, codes: dict[str, int]) -> set[str]:
    """Append all images below `path / folder`; classes get numbers as they come. Returns the classes seen."""
    seen: set[str] = set()
    prefix = folder + "/" if folder else ""
    for file, size in image_files(path / folder, builder):
        class_id, _, _ = file.rpartition("/")
        if not class_id:
            raise SourceError(
                f"{path / folder}: no labels: {escape_name(file)} lies in no class folder; "
                f"move images into class folders ({prefix}cat/{escape_name(file)}), or name a table with --table"
                f"{_tables_beside(path)}"
            )
        seen.add(class_id)
        builder.add(
            split=split,
            name=prefix + file,
            key=os.path.splitext(file)[0],
            label=codes.setdefault(class_id, len(codes)),
            size=size,
        )
    return seen


def _tables_beside(path: Path) -> str:
    """What is wrong with the tables in `path`, to be put behind another sentence; empty when nothing is."""
    why = why_no_table(path, SourceOptions())
    return f". Seen and not understood: {why}" if why else ""


def _wrapper(path: Path) -> str:
    """The folder with the splits in it, below folders that hold one folder and no image; else the root."""
    inner = ""
    for _ in range(_MAX_WRAPPERS):
        entries = visible(path / inner)
        if any(map(split_of_word, entries.folders)):
            return inner
        if len(entries.folders) != 1 or any(map(is_image, entries.files)):
            return ""
        inner = f"{inner}/{entries.folders[0]}" if inner else entries.folders[0]
    return ""


def _splits(path: Path, inner: str) -> _Root:
    """Reads the folders in `path / inner` by the rules at the top of this module."""
    top = path / inner
    prefix = inner + "/" if inner else ""
    folders, files = visible(top)
    words = [name for name in folders if split_of_word(name)]
    others = [name for name in folders if not split_of_word(name)]
    if not words:
        return _Root({"train": [""]}, False, [], [])
    below = {name: set(visible(top / name).folders) for name in folders}
    if others and not any(below[name] for name in words):
        if [name.lower() for name in words] == ["train"]:
            return _Root({"train": [""]}, False, [], [])
        raise SourceError(
            f"{top}: {some(words)} look like splits, but {some(others)} like classes; "
            "put classes into folders of splits (train/cat), move the others out, or name a table with --table"
        )
    known = set().union(*(below[name] for name in words))
    splits: dict[str, list[str]] = {}
    passed_over: list[str] = []
    for name in folders:
        is_split = split_of_word(name) or (below[name] and below[name] <= known and split_name(name))
        if is_split:
            splits.setdefault(split_name(name), []).append(prefix + name)
        else:
            passed_over.append(escape_name(prefix + name))
    return _Root(splits, True, passed_over, files)


def _empty_folders(top: Path, folder: str, seen: set[str]) -> Iterator[str]:
    """Folders directly in `top` in which no image was found."""
    used = {class_id.split("/", 1)[0] for class_id in seen}
    for name in visible(top).folders:
        if name not in used:
            yield escape_name(f"{folder}/{name}" if folder else name)


def _warn_of_split_words(codes: Iterable[str]) -> Iterator[str]:
    odd = sorted(class_id for class_id in codes if "/" in class_id and any(map(split_of_word, class_id.split("/"))))
    if odd:
        yield f"split words inside class names: {some(odd)}; splits are looked for in the outermost folder"


class _Budget:
    """How many folders may still be opened."""

    def __init__(self, folders: int) -> None:
        self.folders = folders


def _holds_image(folder: Path, budget: _Budget) -> bool:
    budget.folders -= 1
    entries = visible(folder)
    if any(map(is_image, entries.files)):
        return True
    return any(budget.folders > 0 and _holds_image(folder / name, budget) for name in entries.folders)
