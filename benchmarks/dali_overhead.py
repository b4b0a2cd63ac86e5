"""What our loader adds to DALI: `python -m benchmarks.dali_overhead`.

DALI on the processor through `imgdata.Loader`, beside a pipeline written by hand with DALI's own reader of WebDataset
tars, its shuffle buffer and its random crop, on the same shards: crop 224, antialiased resize, flip. They take turns,
each in a process of its own on the same cores; the ratio is the median over pairs of the same round. Processor time is
that of the whole process. Prints one JSON object, and with `--save` writes `benchmarks/results/dali_overhead.json`.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import loader_data
from benchmarks.loader_peers.task import AREA, MEAN, RATIO, SIDE, STD, Task
from benchmarks.processes import run_json
from benchmarks.report import machine, save

WARM_BATCHES = 4
SIDES = ("ours", "theirs")


def main() -> None:
    """Measure both sides in turns, or one of them here."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, help="Folder of `benchmarks.loaders --data`; else a temporary one.")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="uint8", choices=("uint8", "float32"))
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--save", action="store_true", help="Write the figures for the documentation.")
    wanted = parser.parse_args()
    task = Task(data=wanted.data, dtype=wanted.dtype, threads=wanted.threads, batch=wanted.batch)
    if wanted.side:
        print(json.dumps(measure(wanted.side, task, wanted.images)))
        return
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="imgdata-dali-", dir=shm if shm.is_dir() else None) as temporary:
        data = wanted.data or Path(temporary)
        loader_data.build(data, wanted.images + 12 * wanted.batch, {"shards"})
        arguments = [*sys.argv[1:], "--data", str(data)]
        rounds = [{side: _measured_apart(side, arguments) for side in SIDES} for _ in range(wanted.rounds)]
    report: dict[str, Any] = {
        side: {name: statistics.median(one[side][name] for one in rounds) for name in rounds[0][side]} for side in SIDES
    }
    report["cpu_ratio"] = statistics.median(
        one["ours"]["cpu_ms_per_image"] / one["theirs"]["cpu_ms_per_image"] for one in rounds
    )
    print(json.dumps(report, indent=1))
    if wanted.save:
        settings = " ".join(
            f"--{name} {getattr(wanted, name)}" for name in ("images", "rounds", "batch", "threads", "dtype")
        )
        command = f"python -m benchmarks.dali_overhead {settings} --save"
        save("dali_overhead", {"command": command, **machine(), **report})


def measure(side: str, task: Task, images: int) -> dict[str, float]:
    """images/s and CPU-ms per image, after the first batches."""
    batches = _ours(task) if side == "ours" else _theirs(task)
    for _ in range(WARM_BATCHES):
        next(batches)
    cpu_s, begun, done = time.process_time(), time.perf_counter(), 0
    while done < images:
        assert tuple(next(batches).shape) in ((task.batch, 3, SIDE, SIDE), (task.batch, SIDE, SIDE, 3))
        done += task.batch
    seconds, cpu_s = time.perf_counter() - begun, time.process_time() - cpu_s
    return {"images_per_s": done / seconds, "cpu_ms_per_image": 1000 * cpu_s / done}


def _measured_apart(side: str, arguments: list[str]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as cache:
        env = {"OMP_NUM_THREADS": "1", "IMGDATA_CACHE": cache}
        return run_json("benchmarks.dali_overhead", *arguments, "--side", side, env=env)


def _ours(task: Task) -> Iterator[Any]:
    from benchmarks.loader_peers.ours import recipe
    from imgdata import Loader

    loader = Loader(
        task.data / "shards",
        split="train",
        batch_size=task.batch,
        recipe=recipe(task),
        threads=task.threads,
        backend="dali",
    )
    while True:
        for batch in loader:
            yield batch.images


def _theirs(task: Task) -> Iterator[Any]:
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.plugin.base_iterator import LastBatchPolicy
    from nvidia.dali.plugin.pytorch import DALIGenericIterator

    tars = sorted(map(str, (task.data / "shards").glob("*train*.tar")))

    @pipeline_def(batch_size=task.batch, num_threads=task.threads, device_id=None, seed=1)
    def pipeline():  # type: ignore[no-untyped-def]
        jpegs, _ = fn.readers.webdataset(
            paths=tars,
            index_paths=[tar.removesuffix("tar") + "idx" for tar in tars],
            ext=["jpg", "cls"],
            random_shuffle=True,
            initial_fill=1024,
            name="reader",
        )
        images = fn.decoders.image_random_crop(
            jpegs,
            device="cpu",
            output_type=types.RGB,
            random_area=AREA,
            random_aspect_ratio=RATIO,
            num_attempts=10,
            # As ours: the same quality of the chroma, which costs something.
            jpeg_fancy_upsampling=True,
        )
        images = fn.resize(images, size=(SIDE, SIDE), interp_type=types.INTERP_LINEAR, antialias=True)
        mirror = fn.random.coin_flip()
        if not task.is_float:
            return fn.flip(images, horizontal=mirror)
        return fn.crop_mirror_normalize(
            images,
            mirror=mirror,
            mean=[255 * mean for mean in MEAN],
            std=[255 * std for std in STD],
            dtype=types.FLOAT,
            output_layout="CHW",
        )

    batches = DALIGenericIterator(
        pipeline(), ["images"], reader_name="reader", last_batch_policy=LastBatchPolicy.DROP, auto_reset=True
    )
    while True:
        for batch in batches:
            yield batch[0]["images"]


if __name__ == "__main__":
    main()
