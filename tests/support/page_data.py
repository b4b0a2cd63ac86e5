"""Names of files that pages speak of, such as `photos/`, `out/` and `runs/a` -> small files of that kind."""

import csv
import functools
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from click.testing import CliRunner
from imgdata_cli.main import cli
from PIL import Image

import imgdata
from benchmarks.data import cifar10, write_cifar10_python
from benchmarks.photos import package_file
from benchmarks.pipeline_data import lite0_weights

SIDE = 40
CLASSES = ("cat", "dog")
_OUTPUTS = re.compile(
    r"imgdata (?:shard|export)(?: -\S+)* \S+ (\S+)|(?:shard|export|train)\(\"[^\"]*\", \"([^\"]*)\""
    r"|(?:--out|-o|--sheet|--explain|--confusion|--predictions) (\S+)"
)


def provide(folder: Path, code: str) -> None:
    """Make what `code` reads and what isn't there yet; what it writes must not be there."""
    written = {name.rstrip("/") for found in _OUTPUTS.findall(code) for name in found if name}
    if "--resume" in code:
        written = set()
    words = {word.strip("./") for word in re.findall(r"[\w./*-]+", code)}
    for name, make in MAKERS.items():
        used = any(word == name or word.startswith(f"{name}/") for word in words)
        if used and name not in written and not (folder / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            _copy(_template(make, Path(name).suffix), folder / name)


@functools.cache
def _template(make: Callable[[Path], None], suffix: str = "") -> Path:
    # conftest.py's folder, which is removed at the end.
    place = Path(tempfile.mkdtemp(dir=os.environ.get("IMGDATA_TEST_CACHE"))) / f"it{suffix}"
    make(place)
    return place


def _copy(source: Path, to: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, to)
    else:
        shutil.copy(source, to)


def _picture(path: Path, number: int) -> None:
    """A picture of one class: red with stripes, or blue with dots; each another one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(number)
    pixels_HWC = random.integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8)
    red = path.parent.name in ("cat", "images")
    pixels_HWC[:: 2 + number % 3, :, 0 if red else 2] += 150
    Image.fromarray(pixels_HWC).save(path)


def _photos(folder: Path) -> None:
    for name in CLASSES:
        for number in range(1, 31):
            _picture(folder / name / f"{number:04}.jpg", number)


def _new(folder: Path) -> None:
    for number in range(1, 4):
        _picture(folder / f"{number:04}.jpg", number)


def _imagenet(folder: Path) -> None:
    for split, count in (("train", 20), ("val", 6)):
        for wnid in ("n01440764", "n01443537"):
            for number in range(count):
                _picture(folder / split / wnid / f"{wnid}_{number}.JPEG", number)


def _broken(folder: Path) -> None:
    _photos(folder)
    files = sorted((folder / "cat").iterdir())
    files[0].write_bytes(files[0].read_bytes()[:600])
    files[1].write_bytes(b"<!DOCTYPE html><html><body>Not found</body></html>")
    files[2].write_bytes(b"")
    with Image.open(files[3]) as image:
        image.convert("CMYK").save(files[3])


def _table(folder: Path) -> None:
    rows = []
    for number in range(40):
        _picture(folder / "images" / f"{number:04}.jpg", number)
        rows.append([f"images/{number:04}.jpg", CLASSES[number % 2], number % 5])
    with open(folder / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "patient"], *rows])


def _few_dogs(folder: Path) -> None:
    for name, count in (("cat", 60), ("dog", 8)):
        for number in range(count):
            _picture(folder / name / f"{number:04}.jpg", number)


def _arrivals(folder: Path) -> None:
    for name in ("cat", "fox"):
        for number in range(101, 109):
            _picture(folder / name / f"{number:04}.jpg", number)


def _zoo(folder: Path) -> None:
    imgdata.shard(_template(_few_dogs), folder, imgdata.ShardOptions(name="zoo"))


def _cifar(file: Path) -> None:
    write_cifar10_python(file, cifar10(train=40, test=10))


def _shards(folder: Path) -> None:
    _dataset(folder)
    for file in folder.iterdir():
        if file.suffix != ".tar":
            file.unlink()


def _dataset(folder: Path) -> None:
    imgdata.shard(_template(_photos), folder, imgdata.ShardOptions(name="photos", split={"train": 0.8, "val": 0.2}))


def _three_splits(folder: Path) -> None:
    splits = {"train": 0.7, "val": 0.15, "test": 0.15}
    imgdata.shard(_template(_photos), folder, imgdata.ShardOptions(name="cifar", split=splits))


def _run(folder: Path) -> None:
    arguments = ["train", str(_template(_dataset)), "--model", "cnn", "--epochs", "1", "--out", str(folder), "--quiet"]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output


def _lite0(file: Path) -> None:
    shutil.copy(lite0_weights(), file)


def _checkpoint(file: Path) -> None:
    torch.save({"state_dict": {"weight": torch.ones(2)}}, file)


def _photograph(name: str, file: Path) -> None:
    shutil.copy(package_file("skimage", f"data/{name}"), file)


def _photo(file: Path) -> None:
    _picture(file, 7)


MAKERS: dict[str, Callable[[Path], None]] = {
    "photos": _photos,
    "imagenet": _imagenet,
    "broken": _broken,
    "pictures": _table,
    "few-dogs": _few_dogs,
    "arrivals": _arrivals,
    "zoo": _zoo,
    "cifar-10-python.tar.gz": _cifar,
    "out": _dataset,
    "cifar": _three_splits,
    "cifar10": _dataset,
    "shards": _shards,
    "runs/a": _run,
    "runs/digits": _run,
    "new": _new,
    "efficientnet-lite0.pth": _lite0,
    "checkpoint.pth": _checkpoint,
    "chelsea.png": lambda file: _photograph("chelsea.png", file),
    "coffee.png": lambda file: _photograph("coffee.png", file),
    "seven.png": _photo,
    "photo.jpg": _photo,
    "cat.jpg": _photo,
}
"""Names in pages -> what makes such a thing."""
