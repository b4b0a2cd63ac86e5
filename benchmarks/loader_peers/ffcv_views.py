"""FFCV: several views of each picture, each decoded anew by a pipeline of its own on the same field.

`python -m benchmarks.loader_peers.ffcv_views DATA OUT ROUNDS THREADS BATCH CROPS` writes the JPEGs of class folders
into FFCV's format, reads epochs, and prints the processor milliseconds of a picture in each round but the first.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.loader_peers.ffcv_loader import _stored_jpeg, write
from benchmarks.loader_peers.task import RATIO


def open_views(beton: Path, crops: list[tuple[int, int, list[float]]], threads: int, batch: int) -> Any:
    """Return FFCV's loader of uint8 crops, as many as `crops` say: how many, their side, their area."""
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.pipeline import PipelineSpec
    from ffcv.transforms import RandomHorizontalFlip, Squeeze, ToTensor, ToTorchImage

    sides = [(side, area) for count, side, area in crops for _ in range(count)]
    views = {
        f"view{number}": PipelineSpec(
            "image",
            decoder=RandomResizedCropRGBImageDecoder((side, side), scale=tuple(area), ratio=RATIO),
            transforms=[RandomHorizontalFlip(), ToTensor(), ToTorchImage()],
        )
        for number, (side, area) in enumerate(sides)
    }
    return Loader(
        str(beton),
        batch_size=batch,
        num_workers=threads,
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=False,
        seed=1,
        # The field itself is no view.
        pipelines={"image": None, "label": [IntDecoder(), ToTensor(), Squeeze()], **views},
        custom_fields={"image": _stored_jpeg()},
    )


def main() -> None:
    """Write, read, print."""
    source, out, rounds, threads, batch = Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:6])
    if not out.exists():
        write(source, out)
    loader = open_views(out / "train.beton", json.loads(sys.argv[6]), threads, batch)
    taken = []
    for _ in range(rounds + 1):
        begin, pictures = sum(os.times()[:2]), 0
        for batch_of_views in loader:
            pictures += len(batch_of_views[0])
        taken.append((sum(os.times()[:2]) - begin) / pictures * 1000)
    print(json.dumps(taken[1:]))


if __name__ == "__main__":
    main()
