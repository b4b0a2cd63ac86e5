"""Paths of images, folders and datasets -> some encoded pictures, evenly spread, with the facts of their headers."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from imgdata.dataset.dataset import open as open_dataset
from imgdata.dataset.manifest import MANIFEST, dataset_folder
from imgdata.dataset.split import Split
from imgdata.errors import ImageError, OptionError, SourceError
from imgdata.images.probe import probe
from imgdata.sources.walk import is_image


class Picture(NamedTuple):
    """One encoded picture, as an index would know it."""

    name: str
    data: bytes
    format: str
    width: int
    height: int


class Pictures(NamedTuple):
    """The pictures that could be read, and why others could not."""

    good: list[Picture]
    refused: list[str]
    """Lines `name: reason: detail`."""


_Found = tuple[str, Callable[[], bytes]]


def load_pictures(paths: Sequence[str | Path], count: int) -> Pictures:
    """Return `count` of all images under `paths`, or all of them: every n-th, in the order of their names.

    A path is an image, a folder of images at any depth, or a finished dataset. Raises `SourceError` where there is
    nothing, and `OptionError` for a count below 1.
    """
    if count < 1:
        raise OptionError(f"images must be at least 1, got {count}")
    found = [one for path in paths for one in _found(Path(path))]
    if not found:
        raise SourceError(f"{', '.join(map(str, paths)) or 'nothing'}: no images found; name images or their folder")
    taken = min(count, len(found))
    pictures = Pictures([], [])
    for name, read in (found[number * len(found) // taken] for number in range(taken)):
        data = read()
        try:
            info = probe(data)
        except ImageError as error:
            pictures.refused.append(f"{name}: {error}")
        else:
            pictures.good.append(Picture(name, data, info.format, info.width, info.height))
    return pictures


def _found(path: Path) -> list[_Found]:
    """Return the images under a path, by name, with what reads them."""
    folder = dataset_folder(path)
    if (folder / MANIFEST).is_file():
        dataset = open_dataset(folder)
        return [one for split in dataset.values() for one in _samples(split)]
    if path.is_dir():
        return _files(path)
    if not path.exists():
        raise SourceError(f"{path}: not there; name an image, a folder or a dataset")
    return [(str(path), partial(_read, path))]


def _samples(split: Split) -> list[_Found]:
    return [(f"{split.name} {position}", partial(split.read, position)) for position in range(len(split))]


def _files(folder: Path) -> list[_Found]:
    files = []
    for place, folders, names in os.walk(folder):
        folders.sort()
        files += [Path(place, name) for name in sorted(names) if is_image(name)]
    return [(str(file), partial(_read, file)) for file in files]


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SourceError(f"{file}: can't be read: {error.strerror or error}") from error
