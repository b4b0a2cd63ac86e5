"""Class folders at a path -> which of them hold splits, which hold classes, and what is passed over.

How the folders directly in the root are read (a split word is `train`, `valid`, `test`, ... in any case):

    all are split words               each is a split, folders below it are classes
    all are split words with numbers  the same: `train2017`, `train_images`, `seg_train`; so are names that differ by
    or words that say no class        nothing but their split words: `chest_train`, `chest_test`
    none is a split word              all are classes, everything is split `train`; where each of them has nothing but
                                      split words in it (`cat/train`, `cat/val`), those are the splits
    some are, with folders inside     those are splits; another folder is a split of its own name when all folders
                                      in it are classes of the splits, else it is passed over with a warning
    only `train`, images inside       a class called `train`, as in {bus, car, train}
    anything else                     refused: class or split can't be told

Where a single folder holds all this (`archive/train/cat/1.jpg`), the folders inside are read. Where
`SourceOptions.split_names` says which folders are splits, the other ones are classes.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from imgdata.errors import OptionError, SourceError
from imgdata.sources.classes import some
from imgdata.sources.folder_names import holds_images_of_any_class, mask_folders, split_of_folder, without_split
from imgdata.sources.options import SourceOptions
from imgdata.sources.splits import split_name, split_of_word
from imgdata.sources.walk import is_image, visible
from imgdata.storage.file_names import escape_name

_MAX_WRAPPERS = 8
_MAX_PROBED_FOLDERS = 64
_MAX_BESIDE = 16
"""Most folders in which one may be a wrapper and the others lie beside it; more folders than that are classes."""


class Place(NamedTuple):
    """A folder with class folders of one split in it."""

    folder: str
    """Path relative to the source's root; `""` is the root itself."""
    class_prefix: str = ""
    """Start of the class ids found there, ending in `/`; the class itself where the split lies inside the class."""


class FolderLayout(NamedTuple):
    """Places of the class folders of each split."""

    top: str
    """The folder that holds all class folders, relative to the source's root."""
    splits: dict[str, list[Place]]
    given: bool
    """Whether the splits are those of the source."""
    passed_over: list[str]
    """Folders that are neither a split nor have the classes of one."""
    notes: tuple[str, ...] = ()


def read_layout(path: Path, options: SourceOptions) -> FolderLayout:
    """Read the folders at `path` by the rules above. Raises `SourceError`, and `OptionError` for wrong split names."""
    top = _wrapper(path, options)
    folders, files = visible(path / top)
    prefix = top + "/" if top else ""
    masks = set(mask_folders(folders, images_beside=any(map(is_image, files))))
    plain = [name for name in folders if name not in masks]
    if options.split_names is not None:
        return _as_named(path, top, plain, options.split_names)
    words = [name for name in plain if split_of_word(name)]
    if not words:
        words = _split_like(plain)
        if not words and plain and (found := _class_first(path, top, plain)):
            return found
        if not words:
            return FolderLayout(top, {"train": [Place(top)]}, False, [], tuple(_years(plain)))
    split_of: Callable[[str], str | None] = split_of_word if split_of_word(words[0]) else _split_in
    others = [name for name in plain if name not in words]
    below = {name: set(visible(path / top / name).folders) for name in plain}
    if others and not any(below[name] for name in words):
        if [name.lower() for name in words] == ["train"]:
            return FolderLayout(top, {"train": [Place(top)]}, False, [])
        raise SourceError(
            f"{path / top}: {some(words)} look like splits, but {some(others)} like classes; "
            "put classes into folders of splits (train/cat), move the others out, name the folders that are splits "
            "with --split-names (test=test, or '' for none), or name a table with --table"
        )
    known = set().union(*(below[name] for name in words))
    splits: dict[str, list[Place]] = {}
    passed_over: list[str] = []
    for name in plain:
        split = split_of(name) if name in words else None
        if split is None and below[name] and below[name] <= known:
            split = split_name(name)
        if split:
            splits.setdefault(split, []).append(Place(_through(path, prefix + name, split)))
        else:
            passed_over.append(prefix + name)
    return FolderLayout(top, splits, True, passed_over)


def _wrapper(path: Path, options: SourceOptions) -> str:
    """Return the folder that holds the splits or classes, below folders with one folder and no image; else the root."""
    inner = ""
    named = options.split_names or {}
    for _ in range(_MAX_WRAPPERS):
        entries = visible(path / inner)
        if any(split_of_word(name) or name in named for name in entries.folders) or _split_like(entries.folders):
            return inner
        if any(map(is_image, entries.files)):
            return ""
        if len(entries.folders) > _MAX_BESIDE:
            return inner
        # Tables and notes may lie beside the folder of the images.
        with_folders = [name for name in entries.folders if _holds_folders_of_images(path / inner / name)]
        with_images = [name for name in entries.folders if holds_images(path / inner / name)]
        if len(with_images) != 1 or with_folders != with_images:
            return inner if inner and len(with_images) > 1 else ""
        inner = f"{inner}/{with_images[0]}" if inner else with_images[0]
    return ""


def _holds_folders_of_images(folder: Path) -> bool:
    """Return whether `folder` has no image itself, but several folders, a split, or one folder that has those."""
    entries = visible(folder)
    if any(map(is_image, entries.files)) or not entries.folders:
        return False
    if len(entries.folders) > 1 or split_of_word(entries.folders[0]):
        return True
    return _holds_folders_of_images(folder / entries.folders[0])


def _split_in(name: str) -> str | None:
    """Return the split in a name that `_split_like` takes for one."""
    found = split_of_folder(name)
    if found:
        return found
    rest = set(without_split(name).split("_"))
    parts = [part for part in name.replace("-", "_").replace(" ", "_").split("_") if part.lower() not in rest]
    return next((split for part in parts if (split := split_of_folder(part))), None)


def _split_like(folders: list[str]) -> list[str]:
    """Return those of `folders` whose names mean splits without being plain split words; empty for fewer than two.

    One such name alone may be a class.
    """
    like = [name for name in folders if split_of_folder(name)]
    if len({split_of_folder(name) for name in like}) > 1:
        return like
    by_rest: dict[str, list[str]] = {}
    for name in folders:
        if _split_in(name):
            by_rest.setdefault(without_split(name), []).append(name)
    pairs = [names for names in by_rest.values() if len({_split_in(name) for name in names}) > 1]
    return sorted(name for names in pairs for name in names)


def _class_first(path: Path, top: str, folders: list[str]) -> FolderLayout | None:
    """Return the layout `cat/train/1.jpg`, `cat/val/2.jpg`: nothing but split words in each of `folders`; else None."""
    prefix = top + "/" if top else ""
    splits: dict[str, list[Place]] = {}
    for name in folders:
        entries = visible(path / top / name)
        words = {inner: split_of_word(inner) for inner in entries.folders}
        if not words or not all(words.values()) or any(map(is_image, entries.files)):
            return None
        for inner, split in words.items():
            splits.setdefault(str(split), []).append(Place(f"{prefix}{name}/{inner}", name + "/"))
    note = f"splits were found inside the classes ({folders[0]}/{next(iter(splits))})"
    return FolderLayout(top, splits, True, [], (note,))


def _as_named(path: Path, top: str, folders: list[str], names: Mapping[str, str]) -> FolderLayout:
    """Return the layout with the splits of `--split-names`; other folders are classes of `train`."""
    prefix = top + "/" if top else ""
    missing = [name for name in names if name not in folders]
    if missing:
        raise OptionError(f"split_names: {path / top} has no folder {some(missing)}; it has {some(folders)}")
    if not names:
        return FolderLayout(top, {"train": [Place(top)]}, False, [])
    splits: dict[str, list[Place]] = {}
    for name, split in names.items():
        splits.setdefault(split, []).append(Place(prefix + name))
    for name in folders:
        if name not in names:
            splits.setdefault("train", []).append(Place(prefix + name, name + "/"))
    return FolderLayout(top, splits, True, [])


def _through(path: Path, folder: str, split: str) -> str:
    """Return `folder`, or the only folder inside where that means the same: `seg_train/seg_train`, `train/images`."""
    for _ in range(_MAX_WRAPPERS):
        entries = visible(path / folder)
        if len(entries.folders) != 1 or any(map(is_image, entries.files)):
            return folder
        [inner] = entries.folders
        same = split_of_folder(inner) == split or holds_images_of_any_class(inner)
        if not same or not visible(path / folder / inner).folders:
            return folder
        folder = f"{folder}/{inner}"
    return folder


def _years(folders: list[str]) -> list[str]:
    """Return a note when the folders differ by nothing but a year: `VOC2007`, `VOC2012`."""
    years = {name.rstrip("0123456789") for name in folders if name[-4:-2] in ("19", "20") and name[-4:].isdigit()}
    if len(folders) < 2 or len(years) != 1 or any(not name[-4:].isdigit() for name in folders):
        return []
    return [
        f"folders {some(folders)} look like years of one dataset and were taken for classes; if they are splits, name "
        f"them with --split-names ({folders[0]}=train,{folders[-1]}=val)"
    ]


class _Budget:
    """Number of folders that may still be opened."""

    def __init__(self, folders: int) -> None:
        self.folders = folders


def holds_images(folder: Path) -> bool:
    """Return whether there is an image below `folder`; looks into a few folders only."""
    return _holds_image(folder, _Budget(_MAX_PROBED_FOLDERS))


def _holds_image(folder: Path, budget: _Budget) -> bool:
    budget.folders -= 1
    entries = visible(folder)
    if any(map(is_image, entries.files)):
        return True
    return any(budget.folders > 0 and _holds_image(folder / name, budget) for name in entries.folders)


def has_class_folders(path: Path) -> bool:
    """Return whether two folders or more that would be classes hold images; looks into a few folders only."""
    try:
        layout = read_layout(path, SourceOptions())
    except SourceError:
        return False
    budget = _Budget(_MAX_PROBED_FOLDERS)
    classes = set()
    for place in (place for places in layout.splits.values() for place in places):
        if place.class_prefix:
            classes.add(place.class_prefix)
            continue
        for name in visible(path / place.folder).folders:
            if budget.folders > 0 and name not in classes and _holds_image(path / place.folder / name, budget):
                classes.add(escape_name(name))
    return len(classes) > 1
