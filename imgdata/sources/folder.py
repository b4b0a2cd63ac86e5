"""Class folders -> Listing: `train/cat/1.jpg`, `val/cat/2.jpg`, or `cat/1.jpg` without splits.

`imgdata.sources.folder_layout` says which folders are splits. The class of an image is the path of the folder that
holds it, from its split on (`cat`, or `animals/cat` in deeper trees), without a first or last part that all share
and that names no class (`images`). The class index is the rank of that path over all splits: by number where all are
numbers, else as text, which is torchvision's `ImageFolder` for folders of depth one.

A split other than `train` whose images lie in no class folder has no labels. Masks and annotations are passed over.
Lists of names beside the images, such as `meta/train.txt`, decide the splits.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from imgdata.errors import SourceError
from imgdata.sources.classes import some, with_sorted_classes
from imgdata.sources.folder_layout import FolderLayout, Place, has_class_folders, holds_images, read_layout
from imgdata.sources.folder_names import holds_images_of_any_class, is_hidden, mask_folders, says_no_class
from imgdata.sources.listing import ONE_CLASS, Listing, ListingBuilder
from imgdata.sources.options import SourceOptions
from imgdata.sources.plausible import check_classes
from imgdata.sources.readers import FileReader
from imgdata.sources.seen import label_files
from imgdata.sources.split_lists import SplitLists
from imgdata.sources.splits import in_usual_order, split_of_word
from imgdata.sources.table.columns import why_no_table
from imgdata.sources.walk import count_below, image_files, is_image, visible
from imgdata.storage.file_names import escape_name

__all__ = ["NAME", "has_class_folders", "list_samples", "recognise"]

NAME = "folder"


def recognise(path: Path) -> str | None:
    """Return a phrase that describes `path` when images are below it, or None; looks into a few folders only."""
    if not path.is_dir():
        return None
    entries = visible(path)
    if any(map(is_image, entries.files)):
        return "images in a folder"
    if not entries.folders or not holds_images(path):
        return None
    return f"folders of images ({some(entries.folders)})"


def list_samples(path: Path, options: SourceOptions) -> Listing:
    """Return all images below the class folders of `path`, split by split (train, val, test, others), sorted by path.

    Raises `SourceError` when images lie outside of class folders, when classes and splits can't be told apart, and,
    where no source was named, when the folders can't be classes by their names.
    """
    if not path.is_dir():
        raise SourceError(f"{path}: not a folder; class folders such as {path.name}/cat/1.jpg are needed")
    layout = read_layout(path, options)
    lists = None if layout.given or options.split_names is not None else SplitLists.beside(path, layout.top)
    builder = ListingBuilder(options.exclude)
    _count_beside(path, layout, builder)
    walk = _Walk(path, options, builder, lists, _labelled_classes(path, layout))
    for split in in_usual_order(layout.splits):
        for place in layout.splits[split]:
            walk.add(split, place)
    if walk.empty:
        builder.skip("empty class folders", len(walk.empty), entries=False)
    if lists is not None:
        lists.check(path)
    codes = _without_common_parts(list(walk.codes))
    warnings = [
        *layout.notes,
        *(
            [f"{ONE_CLASS} ({some(codes)}); a table of labels is named with --table{_tables_beside(path)}"]
            if len(codes) == 1
            else []
        ),
        *_warn_of_split_words(codes),
        *(
            f"folders {some([place.folder for place in places])} are one split: {split}"
            for split, places in layout.splits.items()
            if places[1:] and not places[0].class_prefix
        ),
        *(
            f"folder {escape_name(name)} is not a split and does not have the classes of one; passed over"
            for name in layout.passed_over
        ),
        *([f"class folders without images: {some(sorted(walk.empty))}"] if walk.empty else []),
        *(
            f"split {split} has no labels ({count} images), since they lie in no class folders"
            for split, count in walk.unlabelled.items()
        ),
        *(lists.notes() if lists is not None else []),
        *([f"not used for labels: {text}" for text in label_files(path)] if lists is None else []),
    ]
    listing = builder.build(
        title=path.resolve().name,
        kind=NAME,
        reader=FileReader(path),
        classes=(),
        given_splits=layout.given or lists is not None,
        warnings=warnings,
    )
    if not codes and options.label_from != "none":
        raise SourceError(_no_labels(path, next(listing.refs([0])).name, ""))
    listing = with_sorted_classes(listing, codes, order=options.class_order)
    return check_classes(listing, path, named=options.kind is not None)


class _Walk:
    """Walk that adds the images of places to the builder; classes are numbered in order of appearance."""

    def __init__(
        self,
        path: Path,
        options: SourceOptions,
        builder: ListingBuilder,
        lists: SplitLists | None,
        labelled: set[str],
    ) -> None:
        self._path = path
        self._options = options
        self._builder = builder
        self._lists = lists
        self._labelled = labelled
        self.codes: dict[str, int] = {}
        self.empty: list[str] = []
        self.unlabelled: dict[str, int] = {}

    def add(self, split: str, place: Place) -> None:
        """Append all images below a place."""
        folder, builder = place.folder, self._builder
        prefix = folder + "/" if folder else ""
        labels = self._options.label_from != "none"
        labelled = labels and not self._says_no_classes(split, place)
        used: set[str] = set()
        key_prefix = place.class_prefix
        for file, size in image_files(self._path / folder, builder, masks=self._options.kind is not None):
            inner, _, _ = file.rpartition("/")
            used.add(file.split("/", 1)[0])
            class_id = (place.class_prefix + inner).strip("/")
            name = prefix + file
            if labelled and class_id:
                code = self.codes.setdefault(class_id, len(self.codes))
            if builder.excluded(name):
                continue
            of_split = split
            if self._lists is not None:
                listed = self._lists.split_of(name)
                if listed is None:
                    builder.skip("images in none of the lists")
                    continue
                of_split = listed
            if not labelled:
                code = -1
                if labels:
                    self.unlabelled[of_split] = self.unlabelled.get(of_split, 0) + 1
            elif not class_id:
                raise SourceError(_no_labels(self._path, name, prefix))
            builder.add(split=of_split, name=name, key=key_prefix + os.path.splitext(file)[0], label=code, size=size)
        if labelled:
            self.empty += _empty_folders(self._path / folder, folder, used)

    def _says_no_classes(self, split: str, place: Place) -> bool:
        """Return whether a split other than `train` has no class folders, as a test split often has none."""
        if split == "train" or place.class_prefix:
            return False
        below = [
            name
            for name in visible(self._path / place.folder).folders
            if holds_images(self._path / place.folder / name)
        ]
        return all(says_no_class(name) and name not in self._labelled for name in below)


def _labelled_classes(path: Path, layout: FolderLayout) -> set[str]:
    """Return the names of the class folders of `train`."""
    places = layout.splits.get("train", []) if layout.given else []
    return {name for place in places for name in visible(path / place.folder).folders}


def _no_labels(path: Path, name: str, prefix: str) -> str:
    inside = path / prefix if prefix else path
    file = name.removeprefix(prefix)
    return (
        f"{inside}: no labels: {escape_name(file)} lies in no class folder; move images into class folders "
        f"({prefix}cat/{escape_name(file)}), name a table with --table, leave it out with --exclude, or take the "
        f"images without labels with --label-from none{_tables_beside(path)}"
    )


def _tables_beside(path: Path) -> str:
    """Return why the tables in `path` were not used, as the end of a message; empty when there is no such table."""
    why = [why_no_table(path, SourceOptions()), *label_files(path)]
    return f". Seen and not understood: {'; '.join(filter(None, why))}" if any(why) else ""


def _count_beside(path: Path, layout: FolderLayout, builder: ListingBuilder) -> None:
    """Count what lies beside the splits, and beside the folders around them."""
    used = [place.folder for places in layout.splits.values() for place in places]
    if used == [""]:
        return
    above = {""}
    for folder in used:
        parts = folder.split("/")
        above |= {"/".join(parts[:depth]) for depth in range(1, len(parts))}
    for folder in sorted(above):
        _count_folder(path, folder, set(used) | above, builder)


def _count_folder(path: Path, folder: str, used: set[str], builder: ListingBuilder) -> None:
    prefix = folder + "/" if folder else ""
    for name in sorted(os.listdir(path / folder)):
        is_folder = (path / folder / name).is_dir()
        if prefix + name in used:
            continue
        if is_folder and not is_hidden(name):
            count_below(path / folder / name, builder, f"images in folders passed over ({escape_name(prefix + name)})")
            continue
        builder.see()
        if is_hidden(name):
            builder.skip("hidden folders" if is_folder else "hidden files")
        else:
            builder.skip("images beside the splits" if is_image(name) else "other files beside the splits")


def _empty_folders(top: Path, folder: str, used: set[str]) -> Iterator[str]:
    """Yield the folders directly in `top` in which no image was found, except those of masks."""
    folders, files = visible(top)
    masks = mask_folders(folders, images_beside=any(map(is_image, files)))
    for name in folders:
        if name not in used and name not in masks:
            yield escape_name(f"{folder}/{name}" if folder else name)


def _without_common_parts(ids: list[str]) -> list[str]:
    """Return class ids without a first or last part that all share and that names no class, such as `images`."""
    if len(ids) > 1:
        for place in (0, -1):
            parts = [class_id.split("/") for class_id in ids]
            common = {part[place] for part in parts}
            if len(common) == 1 and holds_images_of_any_class(next(iter(common))) and min(map(len, parts)) > 1:
                ids = ["/".join(part[1:] if place == 0 else part[:-1]) for part in parts]
    return ids


def _warn_of_split_words(ids: Iterable[str]) -> Iterator[str]:
    odd = sorted(class_id for class_id in ids if "/" in class_id and any(map(split_of_word, class_id.split("/"))))
    if odd:
        yield (
            f"split words inside class names: {some(odd)}; splits are looked for in the outermost folder and inside "
            "all classes"
        )
