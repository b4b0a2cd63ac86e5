"""Forms of an index on disk -> what 256 rows at random cost: `python -m benchmarks.large_forms [--save]`.

The same rows as Parquet (row groups of 131,072, zstd), as columns of fixed width (what uncompressed Arrow IPC or plain
Parquet pages are to a reader that knows their offsets: one read for each column), and as places, records of 30 bytes.
Warm, from the page cache, and cold, after the system was told to forget the files.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.large_index import records, write_records
from benchmarks.report import machine, save
from imgdata.arrow import number_array
from imgdata.dataset.index_schema import ROW_GROUP
from imgdata.dataset.places import header
from imgdata.storage.atomic import FilePool

BATCH = 256
_PARQUET_ROWS = 32
"""So many rows of other row groups are read of Parquet; the figure is 8 times theirs."""


@click.command()
@click.option("--rows", default=1 << 26, show_default=True, help="Rows of the index.")
@click.option("--rounds", default=20, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where to write, on the disk in question.")
@click.option("--save", "keep", is_flag=True, help="Write the figures for the documentation.")
def main(rows: int, rounds: int, folder: Path | None, keep: bool) -> None:
    """Write the forms, read from each, print."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="imgdata-forms-") as work:
        forms = write_forms(Path(work), rows)
        results = {name: measure(form, rows, rounds) for name, form in forms.items()}
    report = {
        "command": f"python -m benchmarks.large_forms --rows {rows} --rounds {rounds}{' --save' if keep else ''}",
        **machine(),
        "rows": rows,
        "results": results,
    }
    show(results)
    if keep:
        save("large_forms", report)


class Form:
    """One form of the index: its files, and how rows are read from them."""

    def __init__(self, files: list[Path], read: Callable[[NDArray[np.int64]], None], rows: int = BATCH) -> None:
        self.files, self.read, self.rows = files, read, rows

    @property
    def num_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files)


def write_forms(folder: Path, rows: int) -> dict[str, Form]:
    """Write the same rows in each form."""
    record_N = records(rows, rows // 10_000 + 1)
    names = record_N.dtype.names or ()
    places = folder / "places.npy"
    write_records(places, record_N)
    columns = [folder / f"{name}.bin" for name in names]
    for name, path in zip(names, columns, strict=True):
        np.ascontiguousarray(record_N[name]).tofile(path)
    parquet = folder / "index.parquet"
    schema = pa.schema([(name, pa.from_numpy_dtype(record_N.dtype[name])) for name in names])
    with pq.ParquetWriter(parquet, schema, compression="zstd", use_dictionary=False) as writer:
        for start in range(0, rows, ROW_GROUP):
            part = record_N[start : start + ROW_GROUP]
            writer.write_table(pa.table([number_array(part[name]) for name in names], schema=schema))
    sizes = [record_N.dtype[name].itemsize for name in names]
    first, size = len(header(rows, record_N.dtype)), record_N.dtype.itemsize
    places_pool, columns_pool = FilePool([places]), FilePool(columns)

    def read_columns(row_K: NDArray[np.int64]) -> None:
        for number, width in enumerate(sizes):
            columns_pool.read_each([number] * len(row_K), (row_K * width).tolist(), width)

    def read_parquet(row_K: NDArray[np.int64]) -> None:
        with pq.ParquetFile(parquet) as file:
            for row in row_K.tolist():
                file.read_row_group(row // ROW_GROUP).slice(row % ROW_GROUP, 1)

    def read_places(row_K: NDArray[np.int64]) -> None:
        places_pool.read_each([0] * len(row_K), (first + row_K * size).tolist(), size)

    return {
        "Parquet": Form([parquet], read_parquet, _PARQUET_ROWS),
        "columns": Form(columns, read_columns),
        "places": Form([places], read_places),
    }


def measure(form: Form, rows: int, rounds: int) -> dict[str, Any]:
    """Return milliseconds and bytes of the disk for `BATCH` rows at random, and the bytes of a row on disk."""
    generator = np.random.Generator(np.random.Philox(key=[1, rows]))
    batches = [np.sort(generator.integers(0, rows, form.rows)) for _ in range(rounds)]
    scale = BATCH / form.rows
    form.read(batches[0])
    cold = []
    read_bytes = _read_bytes()
    for row_K in batches:
        _forget(form.files)
        cold.append(_seconds(form.read, row_K))
    read_bytes = _read_bytes() - read_bytes
    warm = []
    for row_K in batches:
        form.read(row_K)
        warm.append(_seconds(form.read, row_K))
    return {
        "warm_ms": round(1000 * scale * statistics.median(warm), 2),
        "cold_ms": round(1000 * scale * statistics.median(cold), 1),
        "cold_read_kb": round(scale * read_bytes / rounds / 1000, 1),
        "bytes_per_row": round(form.num_bytes / rows, 1),
    }


def _forget(files: list[Path]) -> None:
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _read_bytes() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def _seconds(read: Callable[[NDArray[np.int64]], None], row_K: NDArray[np.int64]) -> float:
    begun = time.perf_counter()
    read(row_K)
    return time.perf_counter() - begun


def show(results: dict[str, dict[str, Any]]) -> None:
    """Print a table."""
    table = Table(box=None, header_style="bold")
    for head in ("form", *next(iter(results.values()))):
        table.add_column(head.replace("_", " "))
    for name, row in results.items():
        table.add_row(name, *map(str, row.values()))
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
