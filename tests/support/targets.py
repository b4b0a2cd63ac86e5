"""Small datasets whose targets are several classes, shares, or numbers, for tests."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imgdata
from support.loaders import sample

TAGS: tuple[tuple[str, ...], ...] = (("cat", "dog"), ("dog",), (), ("bird", "cat"))
"""Classes of samples 0, 1, 2, 3, and again."""
CLASSES = ("bird", "cat", "dog")
HEAD = ("file_name", "tags", "age", "x", "y", "p", "q", "weight")


def row(number: int) -> list[Any]:
    """What a table says of a sample."""
    share = number / 64
    return [f"{number:03d}.jpg", ";".join(TAGS[number % 4]), number / 2, number, -number, share, 1 - share, 1 + number]


def raw_table(folder: Path, count: int = 40) -> Path:
    """Pictures, and a table of them with a column for every kind of target."""
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number:03d}.jpg").write_bytes(sample(number))
    with open(folder / "table.csv", "w", newline="") as file:
        csv.writer(file).writerows([HEAD, *(row(number) for number in range(count))])
    return folder


def raw_lines(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Pictures, and JSON lines with these columns."""
    folder.mkdir(parents=True)
    lines = []
    for number, one in enumerate(rows):
        (folder / f"{number:03d}.jpg").write_bytes(sample(number))
        lines.append(json.dumps({"file_name": f"{number:03d}.jpg", **one}))
    (folder / "table.jsonl").write_text("\n".join(lines))
    return folder


def made(folder: Path, kind: str, column: str, count: int = 40) -> Path:
    """A dataset of `raw_table` with that target."""
    options: dict[str, Any] = {"target": kind, "label_column": column}
    imgdata.shard(
        raw_table(folder / "raw", count), folder / "out", shard_samples=7, shuffle=False, workers=1, **options
    )
    return folder / "out"


def expected(kind: str, position: int) -> list[float] | float:
    """The target of a sample of `made`."""
    if kind == "multi-label":
        return [float(one in TAGS[position % 4]) for one in CLASSES]
    if kind == "soft":
        return [position / 64, 1 - position / 64]
    return position / 2
