"""Parts of the facts of an audit -> columns in files of a folder, and a journal that says how far they are whole.

`KEY.luma` and the like have rows of equal size, one after the other; `KEY.bad` a line of JSON for each bad image;
`KEY.json` is the journal. Rows are synced to the disk before the journal counts them.
"""

import json
import math
import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imgdata.auditing.hashes import QUERIES, WORDS
from imgdata.auditing.pixels import COLOUR_SIDE, FIGURES, LUMA_SIDE
from imgdata.errors import ImageError, OutputError
from imgdata.storage.atomic import output_error, write_atomic
from imgdata.storage.reading import read_json

FORMAT_VERSION = 1
CHUNK = 2048
"""Samples after which what was found is synced to the disk: a killed pass repeats fewer."""


class Column(NamedTuple):
    """A column in a file: rows of equal size, one after the other."""

    dtype: type[np.generic]
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


COLUMNS = {
    "luma": Column(np.uint8, (LUMA_SIDE, LUMA_SIDE)),
    "colour": Column(np.uint8, (COLOUR_SIDE, COLOUR_SIDE, 3)),
    "hash": Column(np.uint64, (len(QUERIES), WORDS)),
    "figure": Column(np.float32, (len(FIGURES),)),
    "state": Column(np.uint8, (2,)),
}
"""Ending of the file -> what is in it; a state is whether the image was decoded, and the gate."""
ROW_BYTES = sum(column.row_bytes for column in COLUMNS.values())
"""Bytes of a sample on the disk."""


class Part(NamedTuple):
    """What was found of some samples in a row."""

    arrays: Mapping[str, NDArray[Any]]
    """Rows of each of `COLUMNS`."""
    bad: Mapping[int, ImageError]
    """Row -> why the image can't be used."""


def column_file(path: Path, ending: str) -> Path:
    """Return the file `KEY.ending`, `path` being `KEY` in its folder."""
    return path.with_name(f"{path.name}.{ending}")


class Journal(NamedTuple):
    """How far a pass is."""

    done: int
    """Samples from the first on whose rows are whole."""
    bad_bytes: int
    """Bytes of the list of bad images that belong to them."""


def read_journal(path: Path) -> Journal:
    """Return what `KEY.json` says; nothing done where it or another file is missing, damaged or too short."""
    nothing = Journal(0, 0)
    try:
        content = read_json(column_file(path, "json"))
        journal = Journal(int(content["done"]), int(content["bad_bytes"]))
        whole = content["version"] == FORMAT_VERSION and min(journal) >= 0
        for ending, column in COLUMNS.items():
            whole &= column_file(path, ending).stat().st_size >= journal.done * column.row_bytes
        whole &= column_file(path, "bad").stat().st_size >= journal.bad_bytes
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return nothing
    return journal if whole else nothing


class Writer:
    """Appends parts to the files, and says in the journal how far they are whole."""

    def __init__(self, path: Path, journal: Journal) -> None:
        self._path = path
        self._saved = journal
        self.done = journal.done
        self._bad_bytes = journal.bad_bytes
        self._waiting: dict[int, tuple[int, bytes]] = {}
        """First sample of each part behind a missing one -> its end, and its lines of bad images."""

    def __enter__(self) -> "Writer":
        # What lies behind the journal's end was written by a pass that was killed.
        lengths = {ending: self._saved.done * column.row_bytes for ending, column in COLUMNS.items()}
        lengths["bad"] = self._saved.bad_bytes
        with ExitStack() as stack:
            self._files: dict[str, int] = {}
            for ending, length in lengths.items():
                file = os.open(column_file(self._path, ending), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                stack.callback(os.close, file)
                os.ftruncate(file, length)
                self._files[ending] = file
            self._stack = stack.pop_all()
        return self

    def add(self, first: int, part: Part) -> None:
        """Write the part whose first sample has the number `first`; parts come in any order. Raises `OutputError`.

        What is behind a part that is missing is on the disk, but does not count before that one comes.
        """
        for ending, rows in part.arrays.items():
            self._write(ending, np.ascontiguousarray(rows).data.cast("B"), first * COLUMNS[ending].row_bytes)
        lines = "".join(f"{json.dumps([first + row, str(error)])}\n" for row, error in sorted(part.bad.items()))
        self._waiting[first] = (first + len(part.arrays["state"]), lines.encode())
        while self.done in self._waiting:
            self.done, data = self._waiting.pop(self.done)
            self._write("bad", memoryview(data), self._bad_bytes)
            self._bad_bytes += len(data)
        if self.done >= self._saved.done + CHUNK:
            self._save()

    def _write(self, ending: str, data: memoryview, offset: int) -> None:
        while data:
            try:
                written = os.pwrite(self._files[ending], data, offset)
            except OSError as error:
                raise output_error(error, column_file(self._path, ending)) from error
            data, offset = data[written:], offset + written

    def _save(self) -> None:
        """Sync the rows before the journal says that they are there."""
        for file in self._files.values():
            os.fsync(file)
        self._saved = Journal(self.done, self._bad_bytes)
        content = {"version": FORMAT_VERSION, **self._saved._asdict()}
        write_atomic(column_file(self._path, "json"), json.dumps(content).encode())

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._stack:
            if self.done > self._saved.done:
                # After an error, that one matters more than another here.
                with suppress(*(() if kind is None else (OSError, OutputError))):
                    self._save()


def read_columns(path: Path, count: int) -> tuple[dict[str, NDArray[Any]], dict[int, str]]:
    """Return the columns of `count` samples, mapped into memory, and why which images can't be used."""
    arrays: dict[str, NDArray[Any]] = {
        ending: np.memmap(column_file(path, ending), column.dtype, "r", shape=(count, *column.shape))
        for ending, column in COLUMNS.items()
    }
    rows = map(json.loads, column_file(path, "bad").read_bytes().splitlines())
    return arrays, {number: why for number, why in rows}
