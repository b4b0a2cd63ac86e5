"""Recorded runs -> their figures, or how many times those of a second run are of a first.

`python -m benchmarks.compare A.json [B.json]`, for the files of pytest-benchmark and all of `benchmarks/results`.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

Rows = dict[str, dict[str, float]]
"""Figures by their names, for each thing that was measured."""
_FIRST = ("images_per_s", "cpu_ms_per_image")
_NO_FIGURES = ("images", "rounds", "batch", "mean_bytes", "samples")
"""Settings of a run: nothing to compare."""


@click.command()
@click.argument("first", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("second", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(first: Path, second: Path | None) -> None:
    """Figures of one run, or the ratios SECOND / FIRST of two."""
    reports = [json.loads(path.read_text()) for path in (first, second) if path is not None]
    rows = [figures(report) for report in reports]
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 180)
    for path, report in zip((first, second), reports, strict=False):
        console.print(f"{path}: {origin(report)}")
    found = ratios(*rows) if second else rows[0]
    if not found:
        raise click.ClickException("the two runs must have measured something in common, got nothing; see their names")
    console.print(_table(found))
    if second is not None and reports[0].get("machine") != reports[1].get("machine"):
        console.print("These are of different machines: ratios say little about the code.")


def origin(report: Mapping[str, Any]) -> str:
    """Date, commit and machine of a run, in a line."""
    machine = report.get("machine", {})
    place = f"{machine.get('cores', '?')} cores of {machine.get('cpu', 'an unknown processor')}"
    return f"{report.get('date', 'no date')}, commit {report.get('commit') or 'unknown'}, {place}"


def figures(report: Mapping[str, Any]) -> Rows:
    """Return what a run measured: of each benchmark, or of each object that holds numbers."""
    if "benchmarks" in report:
        return {
            f"{one['group']}: {one['extra_info'].get('name', one['name'])}": {
                **_numbers(one["extra_info"]),
                "median_s": one["stats"]["median"],
            }
            for one in report["benchmarks"]
        }
    return dict(_objects({name: value for name, value in report.items() if name not in ("machine", "versions")}))


def ratios(first: Rows, second: Rows) -> Rows:
    """`second` / `first`, where both have a figure other than 0."""
    found = {
        name: {key: second[name][key] / value for key, value in row.items() if value and key in second[name]}
        for name, row in first.items()
        if name in second
    }
    return {name: row for name, row in found.items() if row}


def _objects(report: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, float]]]:
    numbers = _numbers(report)
    if numbers:
        yield ": ".join(path) or "all", numbers
    for name, value in report.items():
        children = enumerate(value) if isinstance(value, list) else [(None, value)]
        for number, child in children:
            if isinstance(child, dict):
                yield from _objects(child, (*path, name if number is None else f"{name} {number}"))


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name not in _NO_FIGURES
    }


def _table(rows: Rows) -> Table:
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    names.sort(key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
    table = Table(box=None, header_style="bold")
    table.add_column("what")
    for name in names:
        table.add_column(name.replace("_per_", "/").replace("_", " "), justify="right")
    for what, row in rows.items():
        table.add_row(what, *(f"{row[name]:,.4g}" if name in row else "" for name in names))
    return table


if __name__ == "__main__":
    main()
