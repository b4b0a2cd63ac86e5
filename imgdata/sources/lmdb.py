"""LMDB -> Listing: encoded images by their names, pairs of image and text, or Caffe's `Datum`.

bedroom_train_lmdb/data.mdb, church_outdoor_train_lmdb/data.mdb    LSUN: a database for each class
train.lmdb with the keys cat/1.jpg, dog/2.jpg                       folders in the keys are classes
image-000000001, label-000000001, num-samples                       pictures of words, with their texts
train_lmdb/data.mdb                                                 Caffe, DIGITS: the label is in the value

Databases of pickles are refused: they are programs.
"""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple
from weakref import WeakValueDictionary

import numpy as np

from imgdata.errors import ImageError, SourceError
from imgdata.images.probe import looks_like_an_image
from imgdata.sample import SampleRef
from imgdata.sources.arrays import encode_picture
from imgdata.sources.classes import some
from imgdata.sources.listing import Listing
from imgdata.sources.options import SourceOptions
from imgdata.sources.protobuf import fields
from imgdata.sources.records import Record, RecordFile, files_below, list_records
from imgdata.sources.splits import split_in_path, split_of_word
from imgdata.storage.file_names import unescape_name
from imgdata.storage.reading import require_regular

NAME = "lmdb"

_DATA = "data.mdb"
_ENDING = re.compile(r"([-._]lmdb|\.mdb)$", re.IGNORECASE)
_LAST_WORD = re.compile(r"[-._ ]+([a-z]+)$", re.IGNORECASE)
_COUNT = b"num-samples"
_ABOUT = re.compile(rb"__.*__|num-samples|meta_info\.txt", re.DOTALL)
"""Keys of values that are about the database."""
_LOOKED_AT = 8
_HEAD_BYTES = 4096
_PICKLE = b"\x80"

_OPEN: WeakValueDictionary[str, Any] = WeakValueDictionary()
_OPENING = threading.Lock()

Form = Literal["images", "words", "datum"]


class _Datum(NamedTuple):
    """Caffe's message: an encoded image, or planes of blue, green and red, or of gray."""

    channels: int
    height: int
    width: int
    data: tuple[int, int]
    label: int | None
    encoded: bool


@dataclass
class LmdbReader:
    """Reader of values by the sample's name. A fork reads from the databases that its parent has open."""

    files: tuple[Path, ...]
    prefixes: tuple[str, ...]
    """What stands before the key in the names of each database's samples."""
    forms: tuple[Form, ...]
    _open: dict[int, Any] = field(default_factory=dict, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        """Return the places alone: open databases stay in their process."""
        return {"files": self.files, "prefixes": self.prefixes, "forms": self.forms}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def file(self, ref: SampleRef) -> Path:
        """Return the path of the file that holds `ref`."""
        return self.files[ref.container]

    def read(self, ref: SampleRef) -> bytes:
        """Return the image of a sample. Raises `ImageError` for a bad one, `SourceError`, `OSError`."""
        file = self.files[ref.container]
        key = os.fsencode(unescape_name(ref.name).removeprefix(self.prefixes[ref.container]))
        with _faults(file):
            environment = self._open.get(ref.container) or self._open.setdefault(ref.container, _environment(file))
            with environment.begin() as transaction:
                value = transaction.get(key)
        if value is None:
            raise SourceError(f"{file}: has no key {key[:80]!r}, which was listed; it has changed")
        if not value:
            raise ImageError("empty", f"the value of {key[:80]!r} is empty")
        return _image(value) if self.forms[ref.container] == "datum" else bytes(value)


def recognise(path: Path) -> str | None:
    """Return a phrase when `path` is, or holds, databases of images; else None.

    Raises `SourceError` for databases that are damaged, or hold anything else, and where lmdb is not installed.
    """
    files = _files(path)
    for file in files:
        _form(file)
    return f"LMDB ({some([_name(file, path) for file in files])})" if files else None


def list_samples(path: Path, options: SourceOptions) -> Listing:
    """Return all images, database by database, sorted by key.

    Raises `SourceError` for databases that are damaged, cut short, or hold no images.
    """
    files = _files(path)
    if not files:
        raise SourceError(f"{path}: no data.mdb, and no file whose name ends in .lmdb")
    names, forms = [_name(file, path) for file in files], [_form(file) for file in files]
    prefixes = [f"{name}/" if len(files) > 1 else "" for name in names]
    return list_records(
        [
            _record_file(file, name, prefix, form, options)
            for file, name, prefix, form in zip(files, names, prefixes, forms, strict=True)
        ],
        path=path,
        kind=NAME,
        reader=LmdbReader(tuple(files), tuple(prefixes), tuple(forms)),
        options=options,
        exact_sizes="datum" not in forms,
    )


def _record_file(file: Path, name: str, prefix: str, form: Form, options: SourceOptions) -> RecordFile:
    """Return the records of a database, with the class and split that its name or its keys say."""
    key = next((key for key, _ in _values(file)), b"") if form == "images" else b""
    folders = os.fsdecode(key).split("/")[:-1]
    has_splits = len(folders) > 1 and split_of_word(folders[0]) is not None
    named = _class_of(name)
    if form == "words":
        label = options.label_column or None
    else:
        label = "label" if form == "datum" or folders or named else None
    return RecordFile(
        path=file,
        name=name,
        split=split_in_path(name),
        label_column=None if options.label_column == "" else label,
        split_column="key" if has_splits else None,
        records=_words(file, prefix) if form == "words" else _records(file, prefix, form, named),
    )


def _records(file: Path, prefix: str, form: Form, named: str | None) -> Iterator[Record]:
    for number, (key, value) in enumerate(_values(file)):
        text = os.fsdecode(key)
        *folders, _ = text.split("/")
        label: Any = folders[-1] if folders else named
        if form == "datum":
            try:
                label = _datum(value).label
            except ValueError as error:
                raise SourceError(f"{file}: the value of {key[:80]!r} is no Datum: {error}") from error
        yield Record(number, len(value), prefix + text, label, folders[0] if folders else None, {})


def _words(file: Path, prefix: str) -> Iterator[Record]:
    """Yield pictures of words with their texts."""
    with _reading(file) as transaction:
        for number in range(1, int(transaction.get(_COUNT)) + 1):
            image, text = (transaction.get(b"%s-%09d" % (what, number)) for what in (b"image", b"label"))
            if image is None or text is None:
                raise SourceError(f"{file}: sample {number} has no image or no label; num-samples counts it")
            found = bytes(text).decode("utf-8", "replace")
            yield Record(number, len(image), f"{prefix}image-{number:09d}", found, None, {"text": found})


def _values(file: Path) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the keys and values of all images; a value is valid until the next one is asked for."""
    with _reading(file) as transaction:
        for key, value in transaction.cursor():
            if not _ABOUT.fullmatch(key):
                yield bytes(key), value


def _form(file: Path) -> Form:
    """Return what the values of a database are, by the first ones. Raises `SourceError` where they are no images."""
    with _reading(file) as transaction:
        count = transaction.get(_COUNT)
        if count is not None and bytes(count).isdigit() and transaction.get(b"image-000000001") is not None:
            return "words"
    first: tuple[bytes, bytes] | None = None
    for key, value in islice(_values(file), _LOOKED_AT):
        head = bytes(value[:_HEAD_BYTES])
        first = first or (key, head)
        if looks_like_an_image(head):
            return "images"
        try:
            _datum(value)
        except ValueError:
            continue
        return "datum"
    if first is None:
        raise SourceError(f"{file}: the database is empty; write encoded images under their names")
    key, head = first
    what = "pickles, which are programs and are not run" if head.startswith(_PICKLE) else "no images"
    raise SourceError(
        f"{file}: its values are {what} (that of {key[:40]!r} begins with {head[:8].hex()}); write encoded images "
        "under their names"
    )


def _datum(value: memoryview) -> _Datum:
    """Return what a value says as Caffe's `Datum`. Raises `ValueError` for anything else."""
    found = {number: (wire, span) for number, wire, span in fields(memoryview(value), 0, len(value))}
    wires = {number: wire for number, (wire, _) in found.items()}
    if any(wires.get(number, wire) != wire for number, wire in ((1, 0), (2, 0), (3, 0), (4, 2), (5, 0), (7, 0))):
        raise ValueError("fields of other kinds")
    if 4 not in found:
        raise ValueError("no data")
    channels, height, width, label, encoded = (found[n][1][0] if n in found else 0 for n in (1, 2, 3, 5, 7))
    datum = _Datum(channels, height, width, found[4][1], label if 5 in found else None, bool(encoded))
    start, end = datum.data
    if datum.encoded:
        if not looks_like_an_image(bytes(value[start : min(end, start + _HEAD_BYTES)])):
            raise ValueError("its data are no encoded image")
    elif channels not in (1, 3) or min(height, width) < 1 or channels * height * width != end - start:
        raise ValueError(f"{channels} planes of {height} x {width} are not its {end - start} bytes")
    return datum


def _image(value: bytes) -> bytes:
    """Return the image of a `Datum`: encoded as it is, or as PNG. Raises `ImageError`."""
    try:
        datum = _datum(memoryview(value))
    except ValueError as error:
        raise ImageError("not-an-image", f"no Datum: {error}") from error
    data = value[slice(*datum.data)]
    if datum.encoded:
        return data
    planes = np.frombuffer(data, np.uint8).reshape(datum.channels, datum.height, datum.width)
    # Caffe has blue first.
    return encode_picture(np.ascontiguousarray(planes[::-1].transpose(1, 2, 0)))


def _files(path: Path) -> list[Path]:
    return files_below(
        path, lambda name: name == _DATA or (name.lower().endswith((".lmdb", ".mdb")) and "lock" not in name)
    )


def _name(file: Path, path: Path) -> str:
    """Return the name of a database below `path`: that of its folder, or of its file."""
    whole = file.parent if file.name == _DATA else file
    return whole.name if whole == path or file == path else whole.relative_to(path).as_posix()


def _class_of(name: str) -> str | None:
    """Return the class in the name of a database: `bedroom` of `bedroom_train_lmdb`, which needs a split word."""
    stem = _ENDING.sub("", name.rpartition("/")[2])
    last = _LAST_WORD.search(stem)
    return stem[: last.start()] or None if last and split_of_word(last[1]) else None


@contextmanager
def _reading(file: Path) -> Iterator[Any]:
    with _faults(file), _environment(file).begin(buffers=True) as transaction:
        yield transaction


def _environment(file: Path) -> Any:
    """Open a database, which can be open once in a process, or return it.

    Raises `SourceError` for one that is cut short: reading it would end the process.
    """
    require_regular(file)
    path = os.path.realpath(file)
    with _OPENING:
        environment = _OPEN.get(path)
        if environment is None:
            environment = _lmdb(file).open(path, subdir=False, readonly=True, lock=False, readahead=False)
            _OPEN[path] = environment
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if file.stat().st_size < needed:
        raise SourceError(f"{file}: cut short, {needed:,} bytes are in use; get the file again")
    return environment


@contextmanager
def _faults(file: Path) -> Iterator[None]:
    """Raise `SourceError` for what lmdb raises for damaged files."""
    try:
        yield
    except _lmdb(file).Error as error:
        if "already open" in str(error):
            raise SourceError(
                f"{file}: another part of this program has it open, and LMDB allows one; close that"
            ) from error
        raise SourceError(f"{file}: damaged, or no LMDB: {error}") from error


def _lmdb(file: Path) -> Any:
    try:
        import lmdb
    except ModuleNotFoundError as error:
        raise SourceError(f"{file}: reading an LMDB needs lmdb: pip install 'imgdata[lmdb]'") from error
    return lmdb
