"""Lists of images beside class folders (`meta/train.txt`, `splits/val.txt`) -> the split of each image."""

import os
from collections.abc import Iterator
from pathlib import Path

from imgdata.errors import SourceError
from imgdata.sources.classes import some
from imgdata.sources.folder_names import split_of_folder
from imgdata.sources.walk import extension, is_image, visible
from imgdata.storage.reading import open_regular

_FOLDERS = ("", "meta", "splits", "split", "lists", "list", "labels", "annotations", "ImageSets", "ImageSets/Main")
_ENDINGS = (".txt", ".lst", ".list")
_MAX_BYTES = 256 * 2**20
_PROBED_LINES = 50


class SplitLists:
    """Splits of the images that lists name, found by the path of an image."""

    def __init__(self, lists: dict[str, str], stems: dict[str, str]) -> None:
        """Begin with the split of each list in `lists`, and of each image path without extension in `stems`."""
        self._lists = lists
        self._split_of = stems
        self._found: set[str] = set()

    @classmethod
    def beside(cls, path: Path, top: str) -> "SplitLists | None":
        """Return the lists in `path` and its folders of usual names; None for lists of fewer than two splits.

        Raises `SourceError` when two lists of different splits name the same image.
        """
        lists: dict[str, str] = {}
        stems: dict[str, str] = {}
        for folder in dict.fromkeys((*_FOLDERS, top)):
            if not (path / folder).is_dir():
                continue
            for name in visible(path / folder).files:
                split = split_of_folder(os.path.splitext(name)[0])
                if (
                    split is None
                    or extension(name) not in _ENDINGS
                    or not _names_images(path, top, path / folder / name)
                ):
                    continue
                file = f"{folder}/{name}" if folder else name
                lists[file] = split
                for stem in _stems(path / folder / name):
                    if stems.setdefault(stem, split) != split:
                        raise SourceError(
                            f"{path / folder / name}: {stem} is in the list of {stems[stem]} as well; leave it in "
                            "one of them, or move the lists away"
                        )
        return cls(lists, stems) if len(set(lists.values())) > 1 else None

    def split_of(self, name: str) -> str | None:
        """Return the split of the image `name`, or None; paths in the lists may begin at a folder further inside."""
        stem = os.path.splitext(name)[0]
        while stem not in self._split_of:
            _, slash, stem = stem.partition("/")
            if not slash:
                return None
        self._found.add(stem)
        return self._split_of[stem]

    def check(self, path: Path) -> None:
        """Raise `SourceError` when most of the names in the lists match no image."""
        if 2 * len(self._found) < len(self._split_of):
            raise SourceError(
                f"{path}: {len(self._split_of) - len(self._found)} of {len(self._split_of)} names in "
                f"{some(list(self._lists))} match no image; give the folder they start from, or move the lists away"
            )

    def notes(self) -> Iterator[str]:
        """Yield which lists were used, and which names in the lists match no image."""
        yield f"splits were taken from lists of images: {some(list(self._lists))}"
        missing = self._split_of.keys() - self._found
        if missing:
            yield f"{len(missing)} names in {some(list(self._lists))} match no image: {some(sorted(missing))}"


def _names_images(path: Path, top: str, file: Path) -> bool:
    """Return whether the first line of a list that is not empty names an image below `path`."""
    stem = next(_stems(file), None)
    if not stem:
        return False
    folder, base = os.path.split(stem)
    if not folder:
        return False
    places = (path / top / folder, path / folder)
    return any(
        place.is_dir() and any(os.path.splitext(name)[0] == base for name in os.listdir(place) if is_image(name))
        for place in places
    )


def _stems(file: Path) -> Iterator[str]:
    """Yield the paths in a list, one a line, without extension; a number as label may follow a path."""
    try:
        if file.stat().st_size > _MAX_BYTES:
            return
        with open(file, encoding="utf-8-sig", opener=open_regular) as lines:
            for line in lines:
                text = line.strip().replace("\\", "/").removeprefix("./")
                first, _, behind = text.rpartition(" ")
                text = first.strip() if first and behind.isdigit() else text
                if text:
                    yield os.path.splitext(text)[0] if is_image(text) else text
    except (OSError, UnicodeDecodeError):
        return
