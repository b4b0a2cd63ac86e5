"""Photographs -> processor time of one view, two views and DINO's ten of each picture, beside other loaders.

Crops and flips alone: uint8 batches of a shuffled epoch. All take turns, and the median of the rounds counts.
torchvision's v2 and NVIDIA DALI decode each picture once, on the processor. FFCV decodes it for each view, in a process
of its own, where `--peers` names a Python that has it; it first compiles for minutes.
"""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import click
import torch
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import v2

import imgdata
from benchmarks import photos
from imgdata.recipes import HorizontalFlip, RandomResizedCrop, Recipe, views

Crops = tuple[tuple[int, int, tuple[float, float]], ...]
VIEWS: dict[str, Crops] = {
    "one view": ((1, 224, (0.08, 1.0)),),
    "two views": ((2, 224, (0.08, 1.0)),),
    "DINO two": ((2, 224, (0.4, 1.0)),),
    "DINO ten": ((2, 224, (0.4, 1.0)), (8, 96, (0.05, 0.4))),
}
"""How many crops, their side in pixels, their share of the area."""


@click.command()
@click.option("--images", default=256, show_default=True, help="Pictures of 500x375.")
@click.option("--quality", default=95, show_default=True)
@click.option("--rounds", default=7, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option(
    "--peers", metavar="PYTHON", help="Python that has FFCV, such as .venv-peers/bin/python of `make bench-full`."
)
def main(images: int, quality: int, rounds: int, threads: int, peers: str | None) -> None:
    """Print CPU-ms a picture, and the ratios of two views to one and of ten to two."""
    torch.set_num_threads(1)
    pictures = [photos.jpeg(image, quality) for image in photos.photo_crops(images, (500, 375), seed=11)]
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder, "raw"), pictures)
        imgdata.shard(Path(folder, "raw"), Path(folder, "out"), workers=1)
        runs: dict[tuple[str, str], Callable[[], None]] = {}
        for name, crops in VIEWS.items():
            runs["imgdata", name] = _ours(Path(folder, "out"), crops, threads)
            runs["torchvision", name] = _theirs(pictures, crops)
            if find_spec("nvidia.dali") is not None:
                runs["DALI", name] = _dali(Path(folder, "raw"), crops, threads, images)
        taken: dict[tuple[str, str], list[float]] = {which: [] for which in runs}
        for number in range(rounds + 1):
            for which, run in runs.items():
                begin = time.process_time()
                run()
                if number:  # The first round warms up.
                    taken[which].append((time.process_time() - begin) / images * 1000)
        for name, crops in VIEWS.items() if peers is not None else ():
            taken["FFCV", name] = _ffcv(peers, Path(folder), crops, rounds, threads)
    for loader in dict.fromkeys(loader for loader, _ in taken):
        cost = {name: median(taken[loader, name]) for name in VIEWS}
        click.echo(
            f"{loader:12}"
            + "  ".join(f"{name} {ms:.2f} ms" for name, ms in cost.items())
            + f"  two/one {cost['two views'] / cost['one view']:.2f}"
            + f"  ten/two {cost['DINO ten'] / cost['DINO two']:.2f}"
        )


def _write(folder: Path, pictures: list[bytes]) -> None:
    for name in ("even", "odd"):
        (folder / name).mkdir(parents=True)
    for number, picture in enumerate(pictures):
        (folder / ("even", "odd")[number % 2] / f"{number:05d}.jpg").write_bytes(picture)


def _ours(folder: Path, crops: Crops, threads: int) -> Callable[[], None]:
    parts: list[Recipe | int] = []
    for count, side, area in crops:
        parts += [count, Recipe(RandomResizedCrop(size=side, scale=area), HorizontalFlip())]
    recipe = parts[1] if crops == VIEWS["one view"] and isinstance(parts[1], Recipe) else views(*parts)
    loader = imgdata.Loader(folder, split="train", batch_size=64, recipe=recipe, threads=threads, dtype="uint8")

    def epoch() -> None:
        for _ in loader:
            pass

    return epoch


def _theirs(pictures: list[bytes], crops: Crops) -> Callable[[], None]:
    transforms = [
        v2.Compose([v2.RandomResizedCrop(side, scale=area, antialias=True), v2.RandomHorizontalFlip()])
        for count, side, area in crops
        for _ in range(count)
    ]
    encoded = [torch.frombuffer(bytearray(picture), dtype=torch.uint8) for picture in pictures]

    def epoch() -> None:
        for first in range(0, len(encoded), 64):
            decoded = [decode_jpeg(data, ImageReadMode.RGB) for data in encoded[first : first + 64]]
            for transform in transforms:
                torch.stack([transform(image) for image in decoded])

    return epoch


def _dali(folder: Path, crops: Crops, threads: int, images: int) -> Callable[[], None]:
    """Return an epoch of DALI: one decoding of the whole picture, from which all views are cut."""
    from nvidia.dali import fn, pipeline_def, types

    # Without batches made ahead, which others would be charged with.
    ahead = {"prefetch_queue_depth": 1, "exec_async": False, "exec_pipelined": False}

    @pipeline_def(batch_size=64, num_threads=threads, device_id=None, seed=1, **ahead)  # type: ignore[misc]
    def pipeline() -> Any:
        jpegs, _ = fn.readers.file(file_root=str(folder), random_shuffle=True, initial_fill=1024, name="reader")
        pictures = fn.decoders.image(jpegs, device="cpu", output_type=types.RGB)
        return tuple(
            fn.flip(
                fn.random_resized_crop(
                    pictures, size=(side, side), random_area=area, interp_type=types.INTERP_LINEAR, antialias=True
                ),
                horizontal=fn.random.coin_flip(),
            )
            for count, side, area in crops
            for _ in range(count)
        )

    made = pipeline()
    made.build()

    def epoch() -> None:
        for _ in range(images // 64):
            made.run()

    return epoch


def _ffcv(python: str, folder: Path, crops: Crops, rounds: int, threads: int) -> list[float]:
    """Return FFCV's processor milliseconds of a picture in each round."""
    command = [
        python,
        "-m",
        "benchmarks.loader_peers.ffcv_views",
        folder / "raw",
        folder / "beton",
        rounds,
        threads,
        64,
    ]
    found = subprocess.run(
        [*map(str, command), json.dumps(crops)],
        env={**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    taken: list[float] = json.loads(found.stdout.splitlines()[-1])
    return taken


if __name__ == "__main__":
    main()
