"""How fast an audit looks at images, beside CleanVision and imagededup: `python -m benchmarks.audit_speed`.

JPEGs of 500x375 and about 80 KB are cut from the photographs that packages ship, each another part of another size in
another light. imgdata reads them from shards, and looks for duplicates, leaks and poor pictures; the peers read the
first of them from files, since they take minutes for all. Each runs in a process of its own, with nothing kept from
before. Prints a table, and with `--save` writes `benchmarks/results/audit_speed.json`.
"""

import os
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import click
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.photos import photographs
from benchmarks.processes import run_json
from benchmarks.report import machine, save

TOOLS = ("imgdata", "imgdata, quality alone", "CleanVision", "imagededup PHash")
"""The first ones are ours."""
WIDTH, HEIGHT = 500, 375
_SHORTER = (500, 700, 950)
"""Pixels of the shorter side of the photographs that images are cut from."""
_BYTES = 80_000
_TIMEOUT_S = 3600
_BATCH = 256


@click.command()
@click.option("--images", default=2000, show_default=True, help="JPEGs that imgdata looks at.")
@click.option("--peer-images", default=1000, show_default=True, help="JPEGs that peers look at; 0 leaves them out.")
@click.option("--rounds", default=1, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where to work.  [default: a temporary folder]")
@click.option("--save", "keep", is_flag=True, help="Write the figures for the documentation.")
def main(images: int, peer_images: int, rounds: int, folder: Path | None, keep: bool) -> None:
    """Measure, print, save."""
    with tempfile.TemporaryDirectory(dir=folder) as work:
        num_bytes = write_images(Path(work), images, peer_images)
        results = {
            name: _measure(name, Path(work), rounds, images if name.startswith("imgdata") else peer_images)
            for name in TOOLS
            if peer_images or name.startswith("imgdata")
        }
    report = {
        "command": f"python -m benchmarks.audit_speed --images {images} --peer-images {peer_images} --rounds {rounds}"
        " --save",
        **machine(),
        "images": images,
        "mean_bytes": num_bytes // images,
        "rounds": rounds,
        "results": results,
    }
    _print(report)
    if keep:
        save("audit_speed", report)


def write_images(work: Path, images: int, peer_images: int) -> int:
    """Write `work/out`, a dataset, and the first of its images to `work/files`; return the bytes of all."""
    import imgdata

    (work / "files").mkdir()
    total = 0
    classes = [f"photograph {number}" for number in range(len(photographs()))]
    with imgdata.Writer(work / "out", classes=classes) as writer:
        for number, (photo, data) in enumerate(_cut(images)):
            # A fifth of them in another split, as where leaks are looked for.
            writer.write(data, photo, split="val" if number % 5 == 0 else "train", key=f"{number:07d}")
            if number < peer_images:
                (work / "files" / f"{number:07d}.jpg").write_bytes(data)
            total += len(data)
    return total


def _cut(count: int) -> Iterator[tuple[int, bytes]]:
    """Yield the number of a photograph, and a part of it as a JPEG."""
    threads = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, count, _BATCH):
            yield from pool.map(_cut_one, range(first, min(first + _BATCH, count)))


def _cut_one(number: int) -> tuple[int, bytes]:
    generator = np.random.Generator(np.random.Philox(key=[0, number]))
    photo = int(generator.integers(len(photographs())))
    picture, quality = _prepared(photo, int(generator.integers(len(_SHORTER))))
    top = int(generator.integers(picture.shape[0] - HEIGHT + 1))
    left = int(generator.integers(picture.shape[1] - WIDTH + 1))
    part = picture[top : top + HEIGHT, left : left + WIDTH]
    if generator.random() < 0.5:
        part = part[:, ::-1]
    light = np.clip(np.arange(256) * generator.uniform(0.8, 1.2) + generator.uniform(-10, 10), 0, 255).astype(np.uint8)
    pixels = np.ascontiguousarray(light[part])
    return photo, simplejpeg.encode_jpeg(pixels, quality=quality, colorsubsampling="420", fastdct=False)


@cache
def _prepared(photo: int, size: int) -> tuple[NDArray[np.uint8], int]:
    """Return a photograph at one of the sizes, and the quality at which parts of it have about `_BYTES`."""
    image = photographs()[photo]
    scale = _SHORTER[size] / min(image.size)
    pixels = np.asarray(
        image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    )
    middle = np.ascontiguousarray(
        pixels[(pixels.shape[0] - HEIGHT) // 2 :][:HEIGHT, (pixels.shape[1] - WIDTH) // 2 :][:, :WIDTH]
    )
    found = {
        quality: len(simplejpeg.encode_jpeg(middle, quality=quality, colorsubsampling="420", fastdct=False))
        for quality in range(75, 99)
    }
    return pixels, min(found, key=lambda quality: abs(found[quality] - _BYTES))


def _measure(name: str, work: Path, rounds: int, images: int) -> dict[str, Any]:
    runs = []
    for _ in range(rounds):
        cache_folder = work / "cache"
        shutil.rmtree(cache_folder, ignore_errors=True)
        os.sync()
        env = {"IMGDATA_CACHE": str(cache_folder), "IMGDATA_CACHE_GB": "100", "OMP_NUM_THREADS": "1"}
        runs.append(run_json("benchmarks.audit_speed_run", name, work, env=env, timeout_s=_TIMEOUT_S))
    seconds, cpu_s = (statistics.median(run[figure] for run in runs) for figure in ("seconds", "cpu_s"))
    return {
        "images": images,
        "seconds": round(seconds, 2),
        "images_per_s": round(images / seconds, 1),
        "cpu_ms_per_image": round(1000 * cpu_s / images, 4),
        "peak_mb": max(run["peak_mb"] for run in runs),
        "stages": {
            stage: round(statistics.median(run["stages"][stage] for run in runs), 2) for stage in runs[0]["stages"]
        },
    }


def _print(report: dict[str, Any]) -> None:
    console = Console(highlight=False)
    place = f"{report['machine']['cores']} cores of {report['machine']['cpu']}"
    console.print(f"{report['images']:,} JPEGs of {report['mean_bytes']:,} bytes; {place}")
    table = Table(box=None, header_style="bold")
    table.add_column("tool")
    for column in ("images", "seconds", "images/s", "CPU-ms/image", "peak MB"):
        table.add_column(column, justify="right")
    table.add_column("seconds of the stages")
    for name, row in report["results"].items():
        stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in row["stages"].items())
        table.add_row(
            name,
            f"{row['images']:,}",
            f"{row['seconds']:.1f}",
            f"{row['images_per_s']:,.0f}",
            f"{row['cpu_ms_per_image']:.3f}",
            f"{row['peak_mb']:.0f}",
            stages,
        )
    console.print(table)


if __name__ == "__main__":
    main()
