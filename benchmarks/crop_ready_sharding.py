"""Photographs in files -> how fast they become crop-ready shards, beside plain sharding and jpegtran."""

import os
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import photos
from benchmarks.processes import run_json

WRITERS = ("imgdata crop-ready", "imgdata hash=sha256", "imgdata check=decode", "jpegtran")
"""Names of `benchmarks.writers`; ours is the first."""
QUALITY = 97
"""A photograph has 90 KB then."""
_SIZE = (500, 375)


def sharding(images: int, rounds: int) -> list[dict[str, Any]]:
    """Return a row for each writer: images a second with two workers, processor time; they take turns.

    The medians of `rounds`, without the start of Python; where a writer is missing, why.
    """
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in WRITERS}
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as work:
        source, out = Path(work) / "source", Path(work) / "out"
        (source / "photographs").mkdir(parents=True)
        for number, picture in enumerate(photos.photo_crops(images, _SIZE, seed=11)):
            (source / "photographs" / f"{number}.jpg").write_bytes(photos.jpeg(picture, QUALITY))
        for _ in range(rounds):
            for name, found in runs.items():
                found.append(run_json("benchmarks.writers", name, source, out, env={}))
                shutil.rmtree(out, ignore_errors=True)
    return [_row(name, found, images) for name, found in runs.items()]


def _row(name: str, found: list[dict[str, Any]], images: int) -> dict[str, Any]:
    if "missing" in found[0]:
        return {"writer": name, "missing": found[0]["missing"]}
    seconds, cpu_s = (statistics.median(run[key] for run in found) for key in ("seconds", "cpu_s"))
    load = os.getloadavg()[0]
    return {
        "writer": name,
        "images_per_s": round(images / seconds),
        "cpu_ms": round(1000 * cpu_s / images, 3),
        "load": round(load, 1),
    }
