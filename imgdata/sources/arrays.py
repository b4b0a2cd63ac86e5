"""Images in arrays, as MNIST's idx files (.gz too), .npz and .npy hold them -> Listing, with the arrays read as PNG.

train-images-idx3-ubyte.gz  train-labels-idx1-ubyte.gz      (t10k-... are the test split)
mnist.npz: x_train, y_train, x_test, y_test;  train_images, train_labels, val_images, ...;  images, labels
x_train.npy, y_train.npy, ...                                   (names as in .npz)
"""

import gzip
import io
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgdata.errors import SourceError
from imgdata.images.png import encode_png
from imgdata.sample import ClassName, SampleRef
from imgdata.sources.listing import Listing, ListingBuilder
from imgdata.sources.options import SourceOptions
from imgdata.sources.splits import in_usual_order, split_in_path, split_name
from imgdata.sources.walk import visible
from imgdata.storage.reading import open_regular, read_file

NAME = "arrays"
MAX_BYTES = 4 * 2**30
"""Most bytes of one array; arrays are held in memory."""
_IDX_IMAGES = re.compile(r"^(.*?)images([.-])idx3-ubyte(\.gz)?$")
_NPZ_IMAGES = re.compile(r"^(?:x_(?P<x>\w+)|(?P<split>\w+)_images|(?P<one>images|x|data))$")
_IDX_UINT8 = 8
_TEST = "t10k"


class _Part(NamedTuple):
    """One array of images with its labels: a file each (idx), or two members of one archive (npz)."""

    split: str
    images: Path
    labels: Path
    member: str = ""
    label_member: str = ""


@dataclass
class ArrayReader:
    """Reader of the images in arrays, as PNG; each process reads the arrays that it needs into memory, once."""

    parts: tuple[_Part, ...]
    _arrays: dict[int, NDArray[np.uint8]] = field(default_factory=dict, repr=False, compare=False)

    def __getstate__(self) -> dict[str, object]:
        """Return the places alone: workers read the arrays themselves."""
        return {"parts": self.parts, "_arrays": {}}

    def file(self, ref: SampleRef) -> Path:
        """Return the path of the file that holds `ref`."""
        return self.parts[ref.container].images

    def read(self, ref: SampleRef) -> bytes:
        """Return the PNG of row `ref.offset` of the array `ref.container`. Raises `OSError` and `SourceError`."""
        images = self._arrays.get(ref.container)
        if images is None:
            images = self._arrays.setdefault(ref.container, _images(self.parts[ref.container]))
        if ref.offset >= len(images):
            raise SourceError(f"{self.file(ref)}: has {len(images)} images, {ref.name} was listed; it has changed")
        return encode_picture(images[ref.offset])


def encode_picture(picture: NDArray[np.uint8]) -> bytes:
    """Return the PNG of `(H, W)`, or of `(H, W, C)` with 1, 3 or 4 channels."""
    if picture.ndim == 3 and picture.shape[2] == 3:
        return encode_png(picture)
    file = io.BytesIO()
    Image.fromarray(picture[:, :, 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture).save(file, "PNG")
    return file.getvalue()


def recognise(path: Path) -> str | None:
    """Return why `path` holds arrays of images, in one phrase, or None; reads names only, and the list of an .npz."""
    parts = list(_parts(path))
    names = ", ".join(dict.fromkeys(part.images.name for part in parts))
    return f"arrays of images ({names})" if parts else None


def list_samples(path: Path, options: SourceOptions) -> Listing:
    """Return all images in the order of the arrays, with the numbers in the label arrays as classes.

    Raises `SourceError` for arrays that are damaged, of the wrong shape, or too large.
    """
    found = list(_parts(path))
    order = in_usual_order(part.split for part in found)
    parts = tuple(sorted(found, key=lambda part: order.index(part.split)))
    if not parts:
        raise SourceError(
            f"{path}: no arrays of images there; looked for train-images-idx3-ubyte(.gz) with its labels, and for an "
            ".npz (or .npy files) with x_train and y_train, train_images and train_labels, or images and labels"
        )
    labels = [_labels(part) for part in parts]
    ids = sorted({int(value) for label_N in labels for value in np.unique(label_N).tolist()})
    index = {value: place for place, value in enumerate(ids)}
    builder = ListingBuilder()
    reader = ArrayReader(parts)
    number = 0
    for container, (part, label_N) in enumerate(zip(parts, labels, strict=True)):
        images = reader._arrays[container] = _images(part)
        if len(images) != len(label_N):
            raise SourceError(
                f"{part.images}: has {len(images)} images, and {len(label_N)} labels; get the files again"
            )
        size = int(math.prod(images.shape[1:])) + 100
        for row, label in enumerate(label_N.tolist()):
            builder.add(
                split=part.split,
                name=f"{part.split}/{row:06d}",
                # Counted over all splits, so that no key is in two of them.
                key=f"{number:06d}",
                label=index[label],
                size=size,
                container=container,
                offset=row,
            )
            number += 1
    if path.is_dir():
        beside = set(_files(path)) - {part.images for part in parts} - {part.labels for part in parts}
        if beside:
            builder.skip("other files beside the arrays", len(beside))
    return builder.build(
        title=path.name.split(".")[0] if path.is_file() else path.resolve().name,
        kind=NAME,
        reader=reader,
        classes=[ClassName(str(value), str(value)) for value in ids],
        exact_sizes=False,
        given_splits=len({part.split for part in parts}) > 1,
    )


def _parts(path: Path) -> Iterator[_Part]:
    files = _files(path)
    stems: set[str] = set()
    # Files without an ending come first: torchvision leaves the packed files beside the unpacked ones.
    for file in sorted(files, key=lambda file: (file.suffix == ".gz", file.name)):
        found = _IDX_IMAGES.match(file.name)
        if found and found[1] not in stems:
            stem = found[1]
            stems.add(stem)
            ending = found[3] or ""
            for labels in (file.with_name(f"{stem}labels{found[2]}idx1-ubyte{e}") for e in (ending, "", ".gz")):
                if labels.is_file():
                    yield _Part("test" if _TEST in stem else split_in_path(stem) or "train", file, labels)
                    break
        elif file.suffix.lower() == ".npz" and (path.is_file() or len(files) == 1):
            yield from _members(file)
    plain = {file.stem: file for file in files if file.suffix.lower() == ".npy"}
    for split, images, labels_name in paired(plain):
        yield _Part(split, plain[images], plain[labels_name])


def _files(path: Path) -> list[Path]:
    """Return the file itself, or the files of the folder, or of its folder `raw`, where torchvision puts MNIST."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        return []
    folder = path / "raw" if not visible(path).files and (path / "raw").is_dir() else path
    return [folder / name for name in visible(folder).files]


def _members(file: Path) -> Iterator[_Part]:
    try:
        with open(open_regular(file), "rb") as raw, zipfile.ZipFile(raw) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, NotImplementedError):
        return
    for split, images, labels in paired(names):
        yield _Part(split, file, file, images, labels)


def paired(names: Collection[str]) -> Iterator[tuple[str, str, str]]:
    """Yield the split, the images and the labels of each pair of arrays that by their names belong together."""
    for name in sorted(names):
        found = _NPZ_IMAGES.match(name)
        if not found:
            continue
        if found["one"]:
            split = "train"
            wanted: tuple[str, ...] = ("labels", "label", "y", "targets")
        else:
            word = found["x"] or found["split"]
            split, wanted = split_name(word), (f"y_{word}",) if found["x"] else (f"{word}_labels",)
        labels = next((one for one in wanted if one in names), None)
        if labels:
            yield split, name, labels


def _images(part: _Part) -> NDArray[np.uint8]:
    where = f"{part.images}" + (f"[{part.member}]" if part.member else "")
    array = _array(part.images, part.member)
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] not in (1, 3, 4)):
        raise SourceError(
            f"{where}: images must be uint8 of shape (N, H, W) or (N, H, W, C), got {array.dtype} of {array.shape}"
        )
    return array


def _labels(part: _Part) -> NDArray[np.int64]:
    where = f"{part.labels}" + (f"[{part.label_member}]" if part.member else "")
    array = _array(part.labels, part.label_member)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise SourceError(f"{where}: labels must be whole numbers of shape (N,), got {array.dtype} of {array.shape}")
    return array.astype(np.int64)


def _array(path: Path, member: str) -> NDArray[Any]:
    if member:
        return _npz(path, member)
    if path.suffix.lower() != ".npy":
        return _idx(path)
    try:
        return _npy(read_file(path, MAX_BYTES))
    except (ValueError, KeyError, EOFError) as error:
        raise SourceError(f"{path}: damaged, or no plain array ({error}); save it anew") from error


def _idx(path: Path) -> NDArray[Any]:
    """Return the array of an idx file: two zero bytes, type, dimensions, sizes, big-endian (yann.lecun.com)."""
    with open(open_regular(path), "rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        file = gzip.GzipFile(fileobj=raw) if zipped else raw
        try:
            zeros, kind, dimensions = struct.unpack(">HBB", file.read(4))
            shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
            size = math.prod(shape)
            if zeros or kind != _IDX_UINT8 or not 1 <= dimensions <= 3:
                raise SourceError(f"{path}: not an idx file of bytes; get the file again")
            if size > MAX_BYTES:
                raise SourceError(f"{path}: says {size} bytes, the limit is {MAX_BYTES}")
            data = file.read(size + 1)
        except (struct.error, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise SourceError(f"{path}: cut short or damaged ({error}); get the file again") from error
    if len(data) != size:
        raise SourceError(
            f"{path}: must hold {size} bytes, got {'more' if len(data) > size else len(data)}; get it again"
        )
    return np.frombuffer(data, np.uint8).reshape(shape)


def _npz(path: Path, member: str) -> NDArray[Any]:
    try:
        with open(open_regular(path), "rb") as raw, zipfile.ZipFile(raw) as archive:
            size = archive.getinfo(f"{member}.npy").file_size
            if size > MAX_BYTES:
                raise SourceError(f"{path}[{member}]: {size} bytes, the limit is {MAX_BYTES}")
            data = archive.read(f"{member}.npy")
        return _npy(data)
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, NotImplementedError) as error:
        raise SourceError(f"{path}[{member}]: damaged, or no plain array ({error}); save it anew") from error


def _npy(data: bytes) -> NDArray[Any]:
    file = io.BytesIO(data)
    read_header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
    shape, by_columns, dtype = read_header[np.lib.format.read_magic(file)[0]](file)
    # Compared before memory is taken: a header can say anything.
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise ValueError(f"{len(data) - file.tell()} bytes for {dtype} of shape {shape}")
    return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape, order="F" if by_columns else "C")
