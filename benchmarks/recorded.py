"""Result files -> single figures of them: what is not recorded is None."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.loader_peers.registry import OURS, PEERS
from benchmarks.report import RESULTS

Results = Mapping[str, Any]
"""Results by name of the file in `benchmarks/results`."""
Figure = Callable[[Results], float | None]


def recorded(folder: Path = RESULTS) -> Results:
    """All result files by their names."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def at(*path: str) -> Figure:
    """Return the number at this place: name of the file, then keys."""

    def find(results: Results) -> float | None:
        value: Any = results
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return None if value is None else float(value)

    return find


def total(*figures: Figure) -> Figure:
    def find(results: Results) -> float | None:
        values = [figure(results) for figure in figures]
        return None if None in values else sum(value for value in values if value is not None)

    return find


def quotient(over: Figure, under: Figure) -> Figure:
    def find(results: Results) -> float | None:
        upper, lower = over(results), under(results)
        return None if upper is None or not lower else upper / lower

    return find


def times(figure: Figure, factor: float) -> Figure:
    def find(results: Results) -> float | None:
        value = figure(results)
        return None if value is None else factor * value

    return find


def most_of_rows(name: str, rows: str, column: str, **of: object) -> Figure:
    """Return the largest number of a column, of the rows that have these values."""

    def find(results: Results) -> float | None:
        found = [row for row in results.get(name, {}).get(rows, []) if all(row.get(key) == of[key] for key in of)]
        return max((float(row[column]) for row in found if column in row), default=None)

    return find


def least_of_rows(name: str, column: str, *, without: str) -> Figure:
    """Return the smallest number of a column of the results, of all rows but one."""

    def find(results: Results) -> float | None:
        rows = results.get(name, {}).get("results", {})
        return min((float(row[column]) for key, row in rows.items() if key != without and column in row), default=None)

    return find


def least(*figures: Figure) -> Figure:
    def find(results: Results) -> float | None:
        values = [value for figure in figures if (value := figure(results)) is not None]
        return min(values) if len(values) == len(figures) else None

    return find


def against_best(group: str) -> Figure:
    """Our CPU time over that of the loader that antialiases and takes the least."""

    def find(results: Results) -> float | None:
        rows = results.get("loaders", {}).get("results", {}).get(group, {})
        ratios = [row["our_cpu_against_it"] for name, row in rows.items() if name != OURS and PEERS[name].antialias]
        return max(ratios, default=None)

    return find


def stage(name: str, figure: str) -> Figure:
    """Return a figure of a stage's benchmark, by what it is called in the tables; `median_s` is its time."""

    def find(results: Results) -> float | None:
        for one in results.get("stages", {}).get("benchmarks", ()):
            if one["extra_info"]["name"] == name:
                return float({**one["extra_info"], "median_s": one["stats"]["median"]}[figure])
        return None

    return find


def on_gpu(name: str) -> Figure:
    """Return a figure of `make gpu`, of the card that was measured last."""

    def find(results: Results) -> float | None:
        value = _of_gpu(results, name).get("value")
        return None if value is None else float(value)

    return find


def why_not_on_gpu(name: str) -> Callable[[Results], str | None]:
    """Return why the run on a GPU has no such figure; None where there was no run."""
    return lambda results: _of_gpu(results, name).get("why")


def _of_gpu(results: Results, name: str) -> Mapping[str, Any]:
    reports = [report for file, report in results.items() if file.startswith("gpu-")]
    if not reports:
        return {}
    found: Mapping[str, Any] = max(reports, key=lambda report: str(report["date"]))["figures"].get(name, {})
    return found


def first_of(*figures: Figure) -> Figure:
    """Return the first figure that there is."""

    def find(results: Results) -> float | None:
        return next((value for figure in figures if (value := figure(results)) is not None), None)

    return find


def scaling(threads: int) -> Figure:
    """Our rate with so many threads over that of one."""

    def find(results: Results) -> float | None:
        rows = results.get("growth", {}).get("threads", {}).get("rows", ())
        rates = {row["threads"]: row[OURS]["images_per_s"] for row in rows}
        return rates[threads] / rates[1] if threads in rates else None

    return find
