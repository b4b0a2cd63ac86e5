"""Photographs that installed packages ship -> small datasets in the official formats, the same on every run.

For tests, the demo and the benchmarks; nothing is downloaded. Describe a dataset once (`imagenet(...)`,
`cifar10(...)`, `cifar100(...)`), then write it in as many layouts as needed:

    data = imagenet(classes=4, per_class=10, val=12)
    write_imagenet_official(tmp / "tars", data)
    write_imagenet_kaggle(tmp / "kaggle", data)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.photos import PHOTOGRAPHS, encoded, jpeg, labelled_photographs, photo_crops, photographs
from benchmarks.raw_cifar import (
    Cifar,
    cifar10,
    cifar100,
    write_cifar10_python,
    write_cifar100_python,
    write_cifar_binary,
    write_cifar_kaggle,
)
from benchmarks.raw_files import tar_bytes, write_file
from benchmarks.raw_imagenet import (
    ImageNet,
    first_wnids,
    imagenet,
    write_devkit,
    write_imagenet21k,
    write_imagenet_flat_val,
    write_imagenet_folders,
    write_imagenet_kaggle,
    write_imagenet_official,
)

__all__ = [
    "PHOTOGRAPHS",
    "Cifar",
    "ImageNet",
    "cifar10",
    "cifar100",
    "encoded",
    "imagenet",
    "jpeg",
    "labelled_photographs",
    "photo_crops",
    "photographs",
    "tar_bytes",
    "write_cifar10_python",
    "write_cifar100_python",
    "write_cifar_binary",
    "write_cifar_kaggle",
    "write_class_folders",
    "write_devkit",
    "write_file",
    "write_imagenet21k",
    "write_imagenet_flat_val",
    "write_imagenet_folders",
    "write_imagenet_kaggle",
    "write_imagenet_like",
    "write_imagenet_official",
]

_SIZES = ((500, 375), (500, 375), (500, 375), (375, 500), (500, 333))
"""Sizes of ImageNet's images, the usual ones about as often as there."""


def write_class_folders(
    root: Path,
    splits: Mapping[str, int] | None = None,
    classes: Sequence[str] | int = 3,
    size: tuple[int, int] = (96, 72),
    seed: int = 0,
    *,
    wnids: bool = False,
) -> Path:
    """`root/<split>/<class>/<class>_<number>.jpg`; `splits` gives the images per class.

    `classes` are names, or how many; `wnids` names them as ImageNet does. The split "" leaves its folder out.
    """
    if isinstance(classes, int):
        classes = first_wnids(classes) if wnids else [f"class{number:02d}" for number in range(classes)]
    for order, (split, per_class) in enumerate((splits or {"train": 8, "val": 4}).items()):
        for label, name in enumerate(classes):
            crops = photo_crops(per_class, size, seed + 1000 * order, photo=label)
            for number, crop in enumerate(crops):
                write_file(root / split / name / f"{name}_{number}.{'JPEG' if wnids else 'jpg'}", jpeg(crop))
    return root


def write_imagenet_like(folder: Path, count: int, label: int, quality: int = 97) -> None:
    """`count` JPEGs of one class with ImageNet's usual sizes, 0.4 to 0.5 bytes a pixel: `folder/<number>.jpg`."""
    for at, size in enumerate(_SIZES):
        numbers = range(at, count, len(_SIZES))
        crops = photo_crops(len(numbers), size, seed=7000 + at, photo=label)
        for number, crop in zip(numbers, crops, strict=True):
            write_file(folder / f"{number:05d}.jpg", jpeg(crop, quality))
