"""How fast images become shards, beside peers on the same files: `python -m benchmarks.shard_speed`.

The writers take turns, so that a machine that slows down slows all of them; figures are medians over the
rounds. Prints a table, and with `--save` writes `benchmarks/results/shard_speed.json`.

Peers hash nothing: `hash=none` does what they do, `hash=xxh128` finds damage as well, and `hash=sha256`, the default,
stands beside them. `--links` writes fewer files, each under so many names: a copy of each is written all the same.
"""

import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks import data
from benchmarks.processes import run_json
from benchmarks.report import ROOT, machine, save

PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
NEEDS_PEERS = ("ArrayRecord", "TFRecord", "MDS", "LitData", "FFCV")
"""Writers that live in the peers' own environment; left out where `make bench-peers` was not run."""

GROUPS = {
    "copy": (
        "imgdata hash=xxh128",
        "imgdata hash=none",
        "imgdata hash=sha256",
        "tar cf",
        "webdataset ShardWriter",
        "ArrayRecord",
        "HF parquet",
        "TFRecord",
        "MDS",
        "LitData",
        "FFCV",
    ),
    "decode": ("imgdata check=decode", "libjpeg-turbo full decode"),
    "resize": ("imgdata resize=256", "ShardWriter + Pillow pool"),
}
"""Ours come first in each group; `ours_against_it` compares with the first of all."""
OWN = "imgdata "
"""Begin of the names of our own writers."""


@click.command()
@click.option("--images", default=6000, show_default=True, help="JPEGs of 500x375 to write.")
@click.option("--links", default=1, show_default=True, help="Names of each file, to spare memory.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where to work.  [default: a temporary folder]")
@click.option("--group", "groups", multiple=True, type=click.Choice(list(GROUPS)), default=list(GROUPS))
@click.option("--save", "keep", is_flag=True, help="Write the figures for the documentation.")
def main(images: int, links: int, rounds: int, folder: Path | None, groups: tuple[str, ...], keep: bool) -> None:
    """Measure, print, save."""
    missing: dict[str, str] = {}
    with tempfile.TemporaryDirectory(dir=folder) as work:
        source = Path(work) / "source"
        data.write_class_folders(source, {"": images // 10 // links}, classes=10, size=(500, 375))
        _link(source, links)
        num_images = sum(1 for _ in source.rglob("*.jpg"))
        num_bytes = sum(path.stat().st_size for path in source.rglob("*.jpg"))
        results = {
            group: _measure(GROUPS[group], source, Path(work) / "out", rounds, num_images, missing) for group in groups
        }
    report = {
        "command": f"python -m benchmarks.shard_speed --images {images} --links {links} --rounds {rounds} --save",
        **machine(),
        "images": num_images,
        "mean_bytes": num_bytes // num_images,
        "rounds": rounds,
        "results": results,
        "missing": missing,
    }
    _print(report)
    if keep:
        save("shard_speed", report)


def _measure(
    names: tuple[str, ...], source: Path, out: Path, rounds: int, images: int, missing: dict[str, str]
) -> dict[str, dict[str, float]]:
    runs: dict[str, list[dict[str, Any]]] = {}
    for name in names:
        if name in NEEDS_PEERS and not PEERS_PYTHON.exists():
            missing[name] = "`make bench-peers` was not run"
    for _ in range(rounds + 1):
        for name in names:
            if name not in missing:
                found = _run(name, source, out)
                if "missing" in found:
                    missing[name] = found["missing"]
                else:
                    runs.setdefault(name, []).append(found)
    own = [name for name in runs if name.startswith(OWN)]
    figures = {}
    for name, measured in runs.items():
        # The first round only warms the page cache.
        seconds = statistics.median(run["seconds"] for run in measured[1:])
        cpu_s = statistics.median(run["cpu_s"] for run in measured[1:])
        figures[name] = {
            "images_per_s": round(images / seconds, 1),
            "cpu_ms_per_image": round(1000 * cpu_s / images, 4),
            "peak_mb": max(run["peak_mb"] for run in measured),
            "ours_against_it": _ratio(measured, runs[names[0]], "seconds"),
            "our_cpu_against_it": _ratio(runs[names[0]], measured, "cpu_s"),
            "each_against_it": {one: _ratio(measured, runs[one], "seconds") for one in own if one != name},
        }
    return figures


def _ratio(left: list[dict[str, Any]], right: list[dict[str, Any]], what: str) -> float:
    """Median of left over right, pair by pair, each of one round."""
    return round(statistics.median(one[what] / other[what] for one, other in zip(left[1:], right[1:], strict=True)), 3)


def _link(source: Path, links: int) -> None:
    for path in sorted(source.rglob("*.jpg")) if links > 1 else ():
        for number in range(1, links):
            os.link(path, path.with_name(f"{path.stem}_{number}.jpg"))


def _run(name: str, source: Path, out: Path) -> dict[str, Any]:
    python = PEERS_PYTHON if name in NEEDS_PEERS else sys.executable
    try:
        return run_json("benchmarks.writers", name, source, out, python=python, env={})
    finally:
        shutil.rmtree(out, ignore_errors=True)
        # What one writer left for the disk to do must not slow down the next.
        os.sync()


def _print(report: dict[str, Any]) -> None:
    console = Console(highlight=False)
    place = f"{report['machine']['cores']} cores of {report['machine']['cpu']}"
    console.print(f"{report['images']:,} JPEGs of {report['mean_bytes']:,} bytes; {place}")
    for group, figures in report["results"].items():
        table = Table(title=group, title_justify="left", box=None, header_style="bold")
        table.add_column("writer")
        own = [name for name in figures if name.startswith(OWN)]
        for column in ("images/s", "CPU-ms/image", "peak MB", *(f"{name.removeprefix(OWN)} / it" for name in own)):
            table.add_column(column, justify="right")
        for name, row in figures.items():
            ratios = [f"{row['each_against_it'].get(one, 1):.2f}x" for one in own]
            costs = f"{row['cpu_ms_per_image']:.3f}", f"{row['peak_mb']:.0f}"
            table.add_row(name, f"{row['images_per_s']:,.0f}", *costs, *ratios)
        console.print(table)
    for name, reason in report["missing"].items():
        console.print(f"not run: {name}: {reason}")


if __name__ == "__main__":
    main()
