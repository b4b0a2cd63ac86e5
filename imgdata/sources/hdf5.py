"""Images in HDF5 files -> Listing: arrays, which are read as PNG, or encoded images, a list of bytes each.

x.h5: images, labels;  x_train, y_train, x_test, y_test;  train/images, train/labels, val/images, ...
camelyonpatch_level_2_split_train_x.h5 (x) beside camelyonpatch_level_2_split_train_y.h5 (y)
"""

import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imgdata.errors import ImageError, SourceError
from imgdata.sample import SampleRef
from imgdata.sources.arrays import encode_picture, paired
from imgdata.sources.classes import some
from imgdata.sources.listing import Listing
from imgdata.sources.options import SourceOptions
from imgdata.sources.records import Record, RecordFile, list_records
from imgdata.sources.splits import in_usual_order, split_in_path
from imgdata.sources.walk import extension, visible
from imgdata.storage.reading import require_regular

NAME = "hdf5"

_ENDINGS = (".h5", ".hdf5", ".he5")
_PAIR = re.compile(r"(.*[._-])x$", re.IGNORECASE)
_CACHE_BYTES = 64 * 2**20
_ROWS = 256


class _Part(NamedTuple):
    """The images and the labels of one split, each a dataset of a file."""

    split: str | None
    images: Path
    member: str
    labels: Path
    label_member: str


@dataclass
class Hdf5Reader:
    """Reader of rows of datasets: arrays as PNG, encoded images as they are; each process opens the files once."""

    parts: tuple[_Part, ...]
    _open: dict[tuple[int, int], Any] = field(default_factory=dict, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        """Return the places alone: open files stay in their process."""
        return {"parts": self.parts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def file(self, ref: SampleRef) -> Path:
        """Return the path of the file that holds `ref`."""
        return self.parts[ref.container].images

    def read(self, ref: SampleRef) -> bytes:
        """Return the image of row `ref.offset`. Raises `ImageError` for an empty one, `SourceError`, `OSError`."""
        part = self.parts[ref.container]
        with self._lock, _faults(part.images):
            key = (os.getpid(), ref.container)
            if key not in self._open:
                self._open[key] = _h5py(part.images).File(part.images, "r", rdcc_nbytes=_CACHE_BYTES)[part.member]
            rows = self._open[key]
            if ref.offset >= len(rows):
                raise SourceError(f"{part.images}: has {len(rows)} images, {ref.name} was listed; it has changed")
            row = rows[ref.offset]
        if isinstance(row, np.ndarray) and row.ndim > 1:
            return encode_picture(row)
        data = row.tobytes() if isinstance(row, np.ndarray) else bytes(row)
        if not data:
            raise ImageError("empty", f"row {ref.offset} of {part.images.name} holds no image")
        return data


def recognise(path: Path) -> str | None:
    """Return a phrase when `path` is, or holds, HDF5 files with images and labels by their usual names; else None.

    Raises `SourceError` for files that are damaged, and where h5py is not installed.
    """
    parts = _parts(path)
    return f"HDF5 files ({some(list(dict.fromkeys(part.images.name for part in parts)))})" if parts else None


def list_samples(path: Path, options: SourceOptions) -> Listing:
    """Return all images, split by split in the order of the rows. Raises `SourceError` for other shapes and types."""
    parts = _parts(path)
    if not parts:
        raise SourceError(
            f"{path}: no HDF5 file with images and labels, x_train and y_train, train/images and train/labels, or x "
            "beside a file with y"
        )
    order = in_usual_order(part.split or "train" for part in parts)
    parts.sort(key=lambda part: order.index(part.split or "train"))
    encoded = [_check(part) for part in parts]
    return list_records(
        [
            RecordFile(
                path=part.images,
                name=f"{_stem(part.images)}/{part.member}",
                split=part.split,
                label_column=part.label_member,
                split_column=None,
                records=_records(part),
            )
            for part in parts
        ],
        path=path,
        kind=NAME,
        reader=Hdf5Reader(tuple(parts)),
        options=options,
        used=[part.labels for part in parts],
        exact_sizes=all(encoded),
    )


def _parts(path: Path) -> list[_Part]:
    files = [path] if path.is_file() else [path / name for name in visible(path).files] if path.is_dir() else []
    files = [file for file in files if extension(file.name) in _ENDINGS]
    parts: list[_Part] = []
    for file in files:
        # Files of one array each: the images end in x, the labels in y.
        pair = _PAIR.fullmatch(file.stem)
        labels = file.with_name(f"{pair[1]}{'Y' if file.stem.endswith('X') else 'y'}{file.suffix}") if pair else None
        if labels is not None and labels.is_file():
            names, others = _datasets(file), _datasets(labels)
            if len(names) == 1 and len(others) == 1:
                parts.append(_Part(split_in_path(file.stem), file, names[0], labels, others[0]))
                continue
        groups: dict[str, list[str]] = {}
        for name in _datasets(file):
            groups.setdefault(name.rpartition("/")[0], []).append(name.rpartition("/")[2])
        for group, members in groups.items():
            found = list(paired(members))
            for split, images, of_images in found:
                prefix = f"{group}/" if group else ""
                whole = split if len(found) > 1 else split_in_path(group) or split_in_path(file.stem)
                if images.startswith("x_") or images.endswith("_images"):
                    whole = split
                parts.append(_Part(whole, file, prefix + images, file, prefix + of_images))
    return parts


def _datasets(file: Path) -> list[str]:
    names: list[str] = []
    with _opened(file) as opened:
        opened.visititems(lambda name, one: names.append(name) if hasattr(one, "shape") else None)
    return names


def _check(part: _Part) -> bool:
    """Return whether the images are encoded. Raises `SourceError` for types and shapes that are no images or labels."""
    with _opened(part.images) as opened, _opened(part.labels) as others:
        images, labels = opened[part.member], others[part.label_member]
        where = f"{part.images}[{part.member}]"
        is_list = images.ndim == 1 and _h5py(part.images).check_vlen_dtype(images.dtype) == np.uint8
        if not is_list and (
            images.dtype != np.uint8
            or images.ndim not in (3, 4)
            or (images.ndim == 4 and images.shape[3] not in (1, 3, 4))
        ):
            raise SourceError(
                f"{where}: images must be uint8 of shape (N, H, W) or (N, H, W, C), or lists of uint8 that are encoded "
                f"images, got {images.dtype} of {images.shape}"
            )
        if labels.size != len(images) or (labels.ndim and len(labels) != len(images)):
            raise SourceError(f"{where}: has {len(images)} images, and labels of shape {labels.shape}; get it again")
        if labels.dtype.kind not in "iuOSU":
            raise SourceError(
                f"{part.labels}[{part.label_member}]: labels must be whole numbers or texts, got {labels.dtype}"
            )
        return bool(is_list)


def _records(part: _Part) -> Iterator[Record]:
    with _opened(part.images) as opened, _opened(part.labels) as others:
        images, labels = opened[part.member], others[part.label_member]
        pixels = int(np.prod(images.shape[1:])) + 100 if images.ndim > 1 else 0
        for start in range(0, len(images), _ROWS):
            values = labels[start : start + _ROWS].reshape(-1).tolist()
            sizes: Sequence[int] = [pixels] * len(values)
            if not pixels:
                sizes = [len(row) for row in images[start : start + len(values)]]
            for number, (value, size) in enumerate(zip(values, sizes, strict=True)):
                label = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
                yield Record(start + number, size, "", label, None, {})


def _stem(file: Path) -> str:
    return file.name.removesuffix(file.suffix)


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    with _faults(file):
        require_regular(file)
        with _h5py(file).File(file, "r") as opened:
            yield opened


@contextmanager
def _faults(file: Path) -> Iterator[None]:
    """Raise `SourceError` for what h5py raises for damaged files."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise SourceError(f"{file}: damaged, or no HDF5 file: {error}") from error


def _h5py(file: Path) -> Any:
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise SourceError(f"{file}: reading HDF5 files needs h5py: pip install 'imgdata[hdf5]'") from error
    return h5py
