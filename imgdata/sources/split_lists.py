"""Lists of images beside class folders (`meta/train.txt`, `splits/val.txt`) -> the split of each image."""

import os
from collections.abc import Iterator
from pathlib import Path

from imgdata.errors import SourceError
from imgdata.sources.classes import some
from imgdata.sources.folder_names import split_of_folder
from imgdata.sources.walk import extension, is_image, visible

_FOLDERS = ("", "meta", "splits", "split", "lists", "list", "labels", "annotations", "ImageSets", "ImageSets/Main")
_ENDINGS = (".txt", ".lst", ".list")
_MAX_BYTES = 256 * 2**20
_PROBED_LINES = 50


class SplitLists:
    """The images that each list names; an image is asked for by its path."""

    def __init__(self, lists: dict[str, str], stems: dict[str, str]) -> None:
        """`lists` are paths with their splits, `stems` paths of images without extension with their splits."""
        self._lists = lists
        self._split_of = stems
        self._found: set[str] = set()

    @classmethod
    def beside(cls, path: Path, top: str) -> "SplitLists | None":
        """The lists in `path`, and in its folders of usual names; None where no two of them name images.

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
                            f"{path / folder / name}: {stem} stands in the list of {stems[stem]} as well; leave it in "
                            "one of them, or move the lists away"
                        )
        return cls(lists, stems) if len(set(lists.values())) > 1 else None

    def split_of(self, name: str) -> str | None:
        """The split of the image `name`, whose path may begin further inside in the lists; None when none names it."""
        stem = os.path.splitext(name)[0]
        while stem not in self._split_of:
            _, slash, stem = stem.partition("/")
            if not slash:
                return None
        self._found.add(stem)
        return self._split_of[stem]

    def check(self, path: Path) -> None:
        """Raise `SourceError` when most of the names in the lists are of no image."""
        if 2 * len(self._found) < len(self._split_of):
            raise SourceError(
                f"{path}: {len(self._split_of) - len(self._found)} of {len(self._split_of)} names in "
                f"{some(list(self._lists))} are of no image; give the folder that they count from, or move them away"
            )

    def notes(self) -> Iterator[str]:
        """What was taken from the lists, and what they name in vain."""
        yield f"splits were taken from lists of images: {some(list(self._lists))}"
        missing = self._split_of.keys() - self._found
        if missing:
            yield f"{len(missing)} names in {some(list(self._lists))} are of no image: {some(sorted(missing))}"


def _names_images(path: Path, top: str, file: Path) -> bool:
    """Whether the first line of a list that holds something names an image below `path`."""
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
    """The paths in a list, one a line, without extension; a label may stand behind each."""
    try:
        if file.stat().st_size > _MAX_BYTES:
            return
        with open(file, encoding="utf-8-sig") as lines:
            for line in lines:
                text = line.strip().replace("\\", "/").removeprefix("./")
                first, _, behind = text.rpartition(" ")
                text = first.strip() if first and behind.isdigit() else text
                if text:
                    yield os.path.splitext(text)[0] if is_image(text) else text
    except (OSError, UnicodeDecodeError):
        return
