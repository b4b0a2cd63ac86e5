"""Official CIFAR files (pickles or records, in a folder or an archive) -> pixels, labels and class names."""

import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imgdata.errors import SourceError
from imgdata.sources.cifar.classes import CIFAR10, CIFAR100_COARSE, CIFAR100_FINE
from imgdata.sources.cifar.pickles import load_arrays
from imgdata.storage.reading import read_file
from imgdata.tar.packed import open_packed, read_packed

PIXELS = 3 * 32 * 32
"""Bytes of one image: 32x32, red plane first."""

ARCHIVE_ENDINGS = (".tar.gz", ".tgz", ".tar")
_MAX_PEEK = 3
_MAX_BYTES = 512 * 2**20
"""Most bytes of a file, or of an unpacked archive; CIFAR-10 and CIFAR-100 have up to 190 MB."""


class Part(NamedTuple):
    """One data file of CIFAR, decoded."""

    pixels_ND: NDArray[np.uint8]
    """Pixels as uint8 `(N, 3072)`, channel-major."""
    fine_N: NDArray[np.int64]
    """The class; the fine label of CIFAR-100."""
    coarse_N: NDArray[np.int64] | None
    """The superclass of CIFAR-100."""


class Content(NamedTuple):
    """A whole dataset: its parts in the official order, and the names of its (fine) classes and superclasses."""

    parts: tuple[Part, ...]
    fine: tuple[str, ...]
    coarse: tuple[str, ...]


@dataclass(frozen=True)
class Form:
    """One of the official forms: which files it has and how they are read."""

    title: str
    folder: str
    """Name of the folder in the official archive."""
    archive: str
    """Name of the official archive, without its ending."""
    parts: tuple[tuple[str, str], ...]
    """(file, split) in the order that numbers the images."""
    names: tuple[str, ...]
    """Files with class names; they may be missing."""
    decode: Callable[[bytes, str, bool], Part]
    """Function of the bytes of a part, their place for messages, and whether there are coarse labels."""

    @property
    def has_coarse(self) -> bool:
        """Whether there are superclasses: CIFAR-100."""
        return self.title == "cifar100"

    @property
    def is_halves(self) -> bool:
        """Whether each split is one file."""
        return len(self.parts) == 2

    @property
    def files(self) -> frozenset[str]:
        """The files with samples."""
        return frozenset(file for file, _ in self.parts)


def _decode_pickle(data: bytes, where: str, has_coarse: bool) -> Part:
    content = _text_keys(load_arrays(data, where), where)
    pixels_ND = content.get("data")
    if not isinstance(pixels_ND, np.ndarray) or pixels_ND.dtype != np.uint8:
        raise SourceError(f"{where}: 'data' must be a uint8 array, got {_describe(pixels_ND)}")
    if pixels_ND.ndim != 2 or pixels_ND.shape[1] != PIXELS:
        raise SourceError(f"{where}: 'data' must have the shape (N, {PIXELS}), got {pixels_ND.shape}")
    fine_N = _labels(content, "fine_labels" if has_coarse else "labels", len(pixels_ND), where)
    coarse_N = _labels(content, "coarse_labels", len(pixels_ND), where) if has_coarse else None
    return Part(np.ascontiguousarray(pixels_ND), fine_N, coarse_N)


def _decode_records(data: bytes, where: str, has_coarse: bool) -> Part:
    """Return the labels and pixels of records: a label byte (two in CIFAR-100, the coarse one first), then pixels."""
    labels = 2 if has_coarse else 1
    if len(data) % (labels + PIXELS):
        raise SourceError(
            f"{where}: {len(data)} bytes are no whole number of {labels + PIXELS}-byte records; cut short, get it again"
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, labels + PIXELS)
    fine_N = records[:, labels - 1].astype(np.int64)
    return Part(records[:, labels:], fine_N, records[:, 0].astype(np.int64) if has_coarse else None)


_BATCHES = (*((f"data_batch_{number}", "train") for number in range(1, 6)), ("test_batch", "test"))
_HALVES = (("train", "train"), ("test", "test"))

FORMS = (
    Form("cifar10", "cifar-10-batches-py", "cifar-10-python", _BATCHES, ("batches.meta",), _decode_pickle),
    Form("cifar100", "cifar-100-python", "cifar-100-python", _HALVES, ("meta",), _decode_pickle),
    Form(
        "cifar10",
        "cifar-10-batches-bin",
        "cifar-10-binary",
        tuple((f"{file}.bin", split) for file, split in _BATCHES),
        ("batches.meta.txt",),
        _decode_records,
    ),
    Form(
        "cifar100",
        "cifar-100-binary",
        "cifar-100-binary",
        tuple((f"{file}.bin", split) for file, split in _HALVES),
        ("fine_label_names.txt", "coarse_label_names.txt"),
        _decode_records,
    ),
)


@dataclass(frozen=True)
class Place:
    """Path of a CIFAR dataset, and its form."""

    path: Path
    """The folder with the files, or the archive."""
    form: Form


def find(path: Path) -> list[Place]:
    """Return the CIFAR datasets at `path` or directly below, one place for each; extracted folders come first."""
    if path.is_file():
        return _in_archive(path)
    if not path.is_dir():
        return []
    found = [Place(path, form) for form in FORMS if _holds(path, form)]
    found += [Place(path / form.folder, form) for form in FORMS if _holds(path / form.folder, form)]
    for form in FORMS:
        for ending in ARCHIVE_ENDINGS:
            archive = path / f"{form.archive}{ending}"
            if archive.is_file():
                found.append(Place(archive, form))
    # The same dataset is often there twice: as the archive, and extracted.
    return list({place.form.title: place for place in reversed(found)}.values())[::-1]


def read(place: Place) -> Content:
    """Return the whole dataset, read in one pass over its files.

    Raises `SourceError` that names the file which is missing, damaged or of the wrong shape.
    """
    form = place.form
    positions = {file: position for position, (file, _) in enumerate(form.parts)}
    parts: dict[int, Part] = {}
    fine = CIFAR100_FINE if form.has_coarse else CIFAR10
    coarse = CIFAR100_COARSE if form.has_coarse else ()
    for file, data in _contents(place, form.files | set(form.names)):
        where = f"{place.path}/{file}"
        if file in positions:
            parts[positions[file]] = form.decode(data, where, form.has_coarse)
        elif file.endswith(".txt"):
            names = tuple(data.decode("utf-8", "replace").split())
            fine, coarse = (fine, names) if file.startswith("coarse") else (names, coarse)
        else:
            content = _text_keys(load_arrays(data, where), where)
            fine = _texts(content.get("fine_label_names" if form.has_coarse else "label_names")) or fine
            coarse = _texts(content.get("coarse_label_names")) or coarse
    missing = [file for file, position in positions.items() if position not in parts]
    if missing:
        raise SourceError(f"{place.path}: {', '.join(missing)} of {form.archive} is not there; get the archive again")
    for position, part in parts.items():
        where = f"{place.path}/{form.parts[position][0]}"
        _check_range(part.fine_N, fine, where)
        if part.coarse_N is not None:
            _check_range(part.coarse_N, coarse, where)
    return Content(tuple(parts[position] for position in range(len(parts))), fine, coarse)


def _holds(folder: Path, form: Form) -> bool:
    present = [(folder / file).is_file() for file, _ in form.parts]
    if form.is_halves and folder.name != form.folder:
        # `train` and `test` alone are too common as names.
        return all(present) and (folder / form.names[0]).is_file()
    # Some of the files will do: the error then tells which one is missing.
    return any(present)


def _in_archive(path: Path) -> list[Place]:
    """Return the CIFAR dataset in an archive, recognised by its first few members."""
    if not path.name.endswith(ARCHIVE_ENDINGS):
        return []
    try:
        with open_packed(path, _MAX_BYTES) as archive:
            for _ in range(_MAX_PEEK):
                member = archive.next()
                if member is None:
                    break
                folder, _, file = member.name.removeprefix("./").rpartition("/")
                for form in FORMS:
                    known = file in form.files and not form.is_halves
                    if known or form.folder in (folder.rpartition("/")[2], file):
                        return [Place(path, form)]
    except (tarfile.TarError, EOFError, OSError, zlib.error):
        # A damaged archive under its official name is still CIFAR: reading it reports the damage.
        pass
    return [Place(path, form) for form in FORMS if path.name.startswith(f"{form.archive}.")]


def _contents(place: Place, wanted: frozenset[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the name and bytes of each wanted file that exists."""
    try:
        if place.path.is_dir():
            for file in sorted(wanted):
                if (place.path / file).is_file():
                    yield file, read_file(place.path / file, _MAX_BYTES)
            return
        with open_packed(place.path, _MAX_BYTES) as archive:
            for member in archive:
                file = member.name.rpartition("/")[2]
                if file in wanted and member.isreg():
                    yield file, read_packed(archive, member)
    except (tarfile.TarError, EOFError, OSError, zlib.error, struct.error) as error:
        raise SourceError(f"{place.path}: damaged or cut short ({error}); get it again") from error


def _text_keys(content: Any, where: str) -> dict[str, Any]:
    """Return a dictionary that Python 2 or 3 pickled, with `str` keys."""
    if not isinstance(content, dict):
        raise SourceError(f"{where}: must hold a dictionary, got {_describe(content)}")
    return {key.decode("latin-1") if isinstance(key, bytes) else str(key): value for key, value in content.items()}


def _labels(content: dict[str, Any], key: str, count: int, where: str) -> NDArray[np.int64]:
    labels = content.get(key)
    if isinstance(labels, list) and all(type(label) is int and abs(label) < 2**31 for label in labels):
        labels = np.array(labels, np.int64)
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu" or labels.shape != (count,):
        raise SourceError(f"{where}: {key!r} must be {count} integers, got {_describe(labels)}")
    return labels.astype(np.int64)


def _check_range(label_N: NDArray[np.int64], names: tuple[str, ...], where: str) -> None:
    outside = np.flatnonzero((label_N < 0) | (label_N >= len(names)))
    if len(outside):
        row = int(outside[0])
        raise SourceError(
            f"{where}: labels must be 0 to {len(names) - 1} (there are {len(names)} class names), "
            f"got {int(label_N[row])} in row {row}"
        )


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list | tuple):
        return ()
    return tuple(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values)


def _describe(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} array of shape {value.shape}"
    return f"{type(value).__name__} of length {len(value)}" if hasattr(value, "__len__") else type(value).__name__
