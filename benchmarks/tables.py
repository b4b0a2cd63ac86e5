"""Recorded results -> the tables of the documentation, as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

OURS = "imgdata"
_STAGE_COLUMNS = {
    "images_per_s": "images/s",
    "mb_per_s": "MB/s",
    "cpu_ms_per_image": "CPU/image",
    "peak_rss_mb": "peak MB",
    "rss_growth_mb": "of it new",
    "gpu_memory_mb": "GPU MB",
}
_SUITES = {
    "writing": "Writing shards",
    "index": "The index",
    "order": "Order and parameters",
    "decode": "Decoding",
    "backends": "Backends",
    "loader": "Loaders, from start to end",
    "resident": "Resident",
    "training": "Steps of training",
    "limits": "Limits of the machine",
}
"""Files `bench_*.py` in the order of the data, and what the tables call them."""
_UNITS = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9))
_WORDS = {
    "images_per_s": "images/s",
    "cpu_ms_per_image": "CPU-ms/image",
    "mean_bytes": "bytes",
    "peak_mb_above_start": "MB of memory",
    "_ms": " ms",
    "_mb": " MB",
}


def stages(report: Mapping[str, Any]) -> str:
    """Every benchmark of a stage under the name of its group, in the order of the data; ours against the others."""
    suites: dict[str, dict[str, list[dict[str, Any]]]] = {suite: {} for suite in _SUITES}
    for one in report["benchmarks"]:
        suite = one["fullname"].partition(".py")[0].rpartition("bench_")[2]
        row = {**one["extra_info"], "median_s": one["stats"]["median"]}
        suites[suite].setdefault(one["group"], []).append(row)
    return "\n\n".join(
        "\n\n".join([f"### {_SUITES[suite]}", *(_group(name, rows) for name, rows in groups.items())])
        for suite, groups in suites.items()
        if groups
    )


def _group(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    ours = next((row for row in rows if row["name"].startswith(OURS)), None)
    others = [row for row in rows if not row["name"].startswith(OURS)]
    one_image = all(row["images"] == 1 for row in rows)
    columns = {
        key: words
        for key, words in _STAGE_COLUMNS.items()
        if any(key in row for row in rows) and not (one_image and key == "images_per_s")
    }
    head = [title, "time", *columns.values()]
    lines = [[str(row["name"]), _seconds(row["median_s"]), *(_cell(row, key) for key in columns)] for row in rows]
    if ours is not None and others:
        head.append("ours / its rate")
        for line, row in zip(lines, rows, strict=True):
            line.append(_number(ours["images_per_s"] / row["images_per_s"]) if row in others else "")
    return table(head, lines)


def _cell(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    return _seconds(value / 1000) if key == "cpu_ms_per_image" and value is not None else _number(value)


def growth(report: Mapping[str, Any], name: str) -> str:
    """Return the rows of a series, its picture, and the command that made them."""
    rows = [flat(row) for row in report[name]["rows"]]
    head = [_words(column) for column in rows[0]]
    body = [[value if isinstance(value, str) else _number(value) for value in row.values()] for row in rows]
    return f"![Figures by {name.replace('_', ' ')}](images/benchmarks/{name}.png)\n\n{table(head, body)}"


def remote(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a row for each loader that read from an object store: its first epoch, and later ones."""
    head = ["loader", "first epoch, images/s", "CPU ms", "first batch", "later epochs, images/s", "CPU ms"]
    rows = []
    for name, row in figures.items():
        ratios = [row.get(f"our_{which}_against_it") for which in ("first", "second")]
        rows.append(
            [
                name,
                f"{row['first_images_per_s']:,.0f}",
                f"{row['first_cpu_ms']:.2f}",
                f"{row['first_batch_s']:.2f} s",
                f"{row['second_images_per_s']:,.0f}",
                f"{row['second_cpu_ms']:.2f}",
                *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
            ]
        )
    return table([*head, "ours / its first", "ours / its later"], rows)


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose objects, one for each loader, became columns."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            found |= {f"{name}: {inner}": one for inner, one in value.items()}
        else:
            found[name] = value
    return found


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose first column is text, the others numbers."""
    lines = [f"| {' | '.join(head)} |", "|---|" + "--:|" * (len(head) - 1)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _words(column: str) -> str:
    for name, words in _WORDS.items():
        column = column.replace(name, words) if not name.startswith("_") or column.endswith(name) else column
    return column.replace("_", " ")


def _number(value: float | int | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if isinstance(value, int) or value >= 100 else f"{value:.3g}"


def _seconds(value: float) -> str:
    unit, seconds = next(((unit, size) for unit, size in _UNITS if value >= size), _UNITS[-1])
    return f"{value / seconds:.3g} {unit}"
