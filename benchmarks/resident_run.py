"""A loader of CIFAR's pictures -> its rate and processor time, measured in a process of its own.

`python -m benchmarks.resident_run NAME DATA` prints one JSON line. The task of all: a 32 x 32 window at a random place
of the picture with margins of 4, flip, a square of 16 x 16 cut out, and for float32 CIFAR's mean and deviation. One
epoch comes before the clock starts: workers, compilers and caches are ready then.
"""

import argparse
import json
import os
import pickle
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmarks.loader_run import tree_cpu_s

DTYPES = ("uint8", "float32")
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CROP, PADDING, CUTOUT = 32, 4, 16
Batches = Iterable[Any]


def ours(data: Path, dtype: str, batch: int, threads: int) -> Batches:
    """Run the resident backend over our shards."""
    os.environ["IMGDATA_CACHE"] = str(data / "cache")
    import imgdata
    from imgdata import recipes

    loader: Batches = imgdata.Loader(
        data / "shards",
        split="train",
        batch_size=batch,
        recipe=recipes.cifar_train(cutout=CUTOUT),
        dtype=dtype,  # type: ignore[arg-type]
        backend="resident",
        threads=threads,
    )
    return loader


def torchvision(data: Path, dtype: str, batch: int, threads: int) -> Batches:
    """`CIFAR10` and v2 operators on PIL images, as its examples do, in workers of `DataLoader`."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision.datasets import CIFAR10
    from torchvision.transforms import v2

    class Pictures(CIFAR10):  # type: ignore[misc]
        # The files are in the official form, but of other pictures: there are no sums to compare.
        train_list = tuple((name, None) for name, _ in CIFAR10.train_list)
        test_list = tuple((name, None) for name, _ in CIFAR10.test_list)
        meta: ClassVar[dict[str, Any]] = {**CIFAR10.meta, "md5": None}

    def cut_out(image: torch.Tensor) -> torch.Tensor:
        y, x = torch.randint(CROP, (2,)).tolist()
        half = CUTOUT // 2
        image[:, max(y - half, 0) : y + half, max(x - half, 0) : x + half] = 0
        return image

    floats = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)] if dtype == "float32" else []
    crop = v2.RandomCrop(CROP, padding=PADDING, padding_mode="reflect")
    transform = v2.Compose([crop, v2.RandomHorizontalFlip(), v2.PILToTensor(), *floats, cut_out])
    dataset = Pictures(str(data), train=True, transform=transform)
    return DataLoader(
        dataset, batch_size=batch, shuffle=True, num_workers=threads, drop_last=True, persistent_workers=True
    )


def write_beton(data: Path) -> None:
    """CIFAR's pickles -> FFCV's file, pixels as they are."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    fields = {"image": RGBImageField(write_mode="raw"), "label": IntField()}
    DatasetWriter(str(data / "train.beton"), fields, num_workers=1).from_indexed_dataset(_Pickles(data))


def ffcv(data: Path, dtype: str, batch: int, threads: int) -> Batches:
    """FFCV with RAW pictures and the operators of its CIFAR example; black margins, since it has no mirrored ones."""
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import SimpleRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import (
        Cutout,
        NormalizeImage,
        RandomHorizontalFlip,
        RandomTranslate,
        Squeeze,
        ToTensor,
        ToTorchImage,
    )

    mean, deviation = (255 * np.array(values) for values in (MEAN, STD))
    floats = [NormalizeImage(mean, deviation, np.float32)] if dtype == "float32" else []
    fill = tuple(map(int, mean))
    image = [
        SimpleRGBImageDecoder(),
        RandomHorizontalFlip(),
        RandomTranslate(padding=PADDING, fill=fill),
        Cutout(CUTOUT, fill),
        *floats,
        ToTensor(),
        # Channels first as a view for uint8, as memory for float: so do the others.
        ToTorchImage(channels_last=dtype == "uint8"),
    ]
    loader: Batches = Loader(
        str(data / "train.beton"),
        batch_size=batch,
        num_workers=threads,
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=True,
        seed=1,
        pipelines={"image": image, "label": [IntDecoder(), ToTensor(), Squeeze()]},
    )
    return loader


LOADERS: dict[str, tuple[Callable[[Path, str, int, int], Batches], str]] = {
    "imgdata": (ours, "imgdata"),
    "torchvision": (torchvision, "torchvision"),
    "FFCV": (ffcv, "ffcv"),
}
"""Loaders by name: the function that opens each, and the distribution whose version is reported."""


class _Pickles:
    """What FFCV's writer takes: (picture, label) by number."""

    def __init__(self, data: Path) -> None:
        files = sorted((data / "cifar-10-batches-py").glob("data_batch_*"))
        # Written by the benchmark itself a moment ago.
        batches = [pickle.loads(file.read_bytes(), encoding="latin1") for file in files]
        planes_N = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
        self._pictures = np.ascontiguousarray(planes_N.transpose(0, 2, 3, 1))
        self._labels = [label for batch in batches for label in batch["labels"]]

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, at: int) -> tuple[np.ndarray[Any, Any], int]:
        return self._pictures[at], int(self._labels[at])


def main() -> None:
    """Measure one loader and print its figures, or why it can't run."""
    # The peers' environment has no click.
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=[*LOADERS, "write-beton"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--dtype", default="float32", choices=DTYPES)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=150_000)
    wanted = parser.parse_args()
    # Peers chat on standard output; the figures go where it was.
    figures = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        found = _run(wanted)
    except ImportError as error:
        found = {"missing": str(error)}
    print(json.dumps(found), file=figures, flush=True)
    # Some peers leave threads that never end.
    os._exit(0)


def _run(wanted: argparse.Namespace) -> dict[str, Any]:
    if wanted.name == "write-beton":
        write_beton(wanted.data)
        return {}
    open_loader, package = LOADERS[wanted.name]
    begun = time.perf_counter()
    loader = open_loader(wanted.data, wanted.dtype, wanted.batch, wanted.threads)
    _, ready_s = _epoch(loader, wanted, begun)
    done, cpu_s, started = 0, tree_cpu_s(), time.perf_counter()
    while done < wanted.images:
        count, _ = _epoch(loader, wanted, started)
        done += count
    seconds, cpu_s = time.perf_counter() - started, tree_cpu_s() - cpu_s
    return {
        "images_per_s": done / seconds,
        "cpu_us_per_image": 1e6 * cpu_s / done,
        "first_batch_s": ready_s,
        "version": version(package),
    }


def _epoch(loader: Batches, wanted: argparse.Namespace, begun: float) -> tuple[int, float]:
    """Pictures of an epoch, and seconds from `begun` to its first batch."""
    count, first_s = 0, 0.0
    for images, labels in loader:
        if not count:
            first_s = time.perf_counter() - begun
            expected = (wanted.batch, 3, CROP, CROP)
            if tuple(images.shape) != expected or str(images.dtype) != f"torch.{wanted.dtype}":
                raise RuntimeError(f"{wanted.name}: must give {expected} of {wanted.dtype}, got {images.shape}")
        count += len(labels)
    return count, first_s


if __name__ == "__main__":
    main()
