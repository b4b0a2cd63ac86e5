"""How cost grows with one thing at a time: `python -m benchmarks.growth [--only threads]`.

Prints a table for each, and with `--save` puts it into `benchmarks/results/growth.json` in the place of an earlier
one; `python -m benchmarks.plots` draws them.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks import growth_hashes, growth_index, growth_loading, growth_ready, large
from benchmarks.report import RESULTS, machine, save
from benchmarks.tables import flat

SERIES: dict[str, Callable[[Path, bool], list[dict[str, Any]]]] = {
    "threads": growth_loading.by_threads,
    "size": growth_loading.by_size,
    "quality": growth_loading.by_quality,
    "batch": growth_loading.by_batch,
    "shards": growth_index.by_shards,
    "samples": growth_index.by_samples,
    "ranks": growth_index.by_ranks,
    "large": large.by_large,
    "large_ranks": large.by_ranks,
    "hashes": growth_hashes.by_hashes,
    "ready_size": growth_ready.by_size,
    "ready_quality": growth_ready.by_quality,
    "ready_interval": growth_ready.by_interval,
    "ready_area": growth_ready.by_area,
}


@click.command()
@click.option(
    "--only", "names", multiple=True, type=click.Choice(list(SERIES)), help="May be repeated.  [default: all]"
)
@click.option("--quick", is_flag=True, help="Fewer and shorter measurements, to see that all runs.")
@click.option("--save", "keep", is_flag=True, help="Write the figures for the documentation.")
def main(names: tuple[str, ...], quick: bool, keep: bool) -> None:
    """Measure, print, save."""
    for name in names or SERIES:
        # In memory, where there is such a place: the disk is not measured.
        shm = Path("/dev/shm")
        with tempfile.TemporaryDirectory(prefix="imgdata-growth-", dir=shm if shm.is_dir() else None) as folder:
            rows = SERIES[name](Path(folder), quick)
        _print(name, rows)
        if keep:
            command = f"python -m benchmarks.growth --only {name}{' --quick' if quick else ''} --save"
            series = {"command": command, **machine(), "rows": rows}
            save("growth", _recorded() | {name: series})


def _recorded() -> dict[str, Any]:
    path = RESULTS / "growth.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def _print(title: str, rows: list[dict[str, Any]]) -> None:
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    columns = [flat(row) for row in rows]
    for name in columns[0]:
        table.add_column(name.replace("_per_", "/").replace("_", " "), justify="right")
    for row in columns:
        table.add_row(*(f"{value:,}" if isinstance(value, int | float) else str(value) for value in row.values()))
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
