"""Tables, one after the other -> the same tables, whose values lie in a file without a name instead of in memory.

The system keeps as much of the file in memory as there is room for, and the file is gone when the process ends.
"""

import mmap
import tempfile
from pathlib import Path

import pyarrow as pa

from imgdata.storage.atomic import output_error

_ALIGNED = 64
"""Bytes, of which the places of tables in the file are multiples: Arrow uses their values in place."""


class TableSpool:
    """Tables in a file of `folder`, to be closed. Raises `OutputError` where it can't be written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        except OSError as error:
            raise output_error(error, folder) from error
        self._ends: list[int] = []

    def __enter__(self) -> "TableSpool":
        return self

    def __exit__(self, *_: object) -> None:
        # What was mapped stays.
        self._file.close()

    def add(self, table: pa.Table) -> None:
        """Put a table behind the others. Raises `OutputError`."""
        try:
            with pa.ipc.new_stream(self._file, table.schema) as writer:
                writer.write_table(table)
            self._file.write(bytes(-self._file.tell() % _ALIGNED))
        except OSError as error:
            raise output_error(error, self._folder) from error
        self._ends.append(self._file.tell())

    def tables(self) -> list[pa.Table]:
        """Return all tables, in order; none can be added after it. Raises `OutputError`."""
        if not self._ends:
            return []
        try:
            self._file.flush()
            mapped = pa.py_buffer(mmap.mmap(self._file.fileno(), self._ends[-1], prot=mmap.PROT_READ))
        except OSError as error:
            raise output_error(error, self._folder) from error
        starts = [0, *self._ends[:-1]]
        return [
            pa.ipc.open_stream(mapped.slice(start, end - start)).read_all()
            for start, end in zip(starts, self._ends, strict=True)
        ]
