"""Crops of photographs -> a small ImageNet in each of the usual layouts."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.photos import jpeg, photo_crops
from benchmarks.raw_files import tar_bytes, write_file, write_lines, write_set

Item = TypeVar("Item")

WNIDS = {
    "n01440764": "tench, Tinca tinca",
    "n01443537": "goldfish, Carassius auratus",
    "n01484850": "great white shark, white shark, man-eater, man-eating shark, Carcharodon carcharias",
    "n01491361": "tiger shark, Galeocerdo cuvieri",
    "n01494475": "hammerhead, hammerhead shark",
    "n01496331": "electric ray, crampfish, numbfish, torpedo",
    "n01498041": "stingray",
    "n01514668": "cock",
    "n01514859": "hen",
    "n01518878": "ostrich, Struthio camelus",
}


@dataclass(frozen=True, kw_only=True)
class ImageNet:
    """A small ImageNet: JPEG bytes under the official file names."""

    names: dict[str, str]
    """Readable name by wnid, sorted by wnid."""
    ilsvrc_ids: dict[str, int]
    """The devkit's id by wnid, counted from 1 and *not* in the order of the wnids."""
    train: dict[str, dict[str, bytes]]
    """Images by wnid and file name."""
    val: dict[str, tuple[str, bytes]]
    """Wnid and bytes by file name, in the official order."""


def imagenet(
    classes: int = 4, per_class: int = 5, val: int = 8, size: tuple[int, int] = (96, 72), seed: int = 0
) -> ImageNet:
    """Make classes of one photograph each (from the eleventh on, of one hue of it); val images come in mixed order."""
    generator = np.random.Generator(np.random.Philox(key=[seed, 77]))
    wnids = first_wnids(classes)
    # A rotation leaves no id at the rank of its wnid.
    ids = {wnid: (rank + 1) % classes + 1 for rank, wnid in enumerate(wnids)}
    train = {}
    for label, wnid in enumerate(wnids):
        numbers = np.sort(generator.choice(30_000, per_class, replace=False)).tolist()
        crops = photo_crops(per_class, size, seed, photo=label)
        train[wnid] = {f"{wnid}_{number}.JPEG": jpeg(crop) for number, crop in zip(numbers, crops, strict=True)}
    label_N = generator.permutation(np.arange(val) % classes).tolist()
    sources = [photo_crops(val, size, seed + 1, photo=label) for label in range(classes)]
    val_images = {
        f"ILSVRC2012_val_{number:08d}.JPEG": (wnids[label], jpeg(next(sources[label])))
        for number, label in enumerate(label_N, start=1)
    }
    return ImageNet(
        names={wnid: WNIDS.get(wnid, f"thing {wnid}") for wnid in wnids}, ilsvrc_ids=ids, train=train, val=val_images
    )


def write_imagenet_folders(root: Path, data: ImageNet) -> Path:
    """`train/<wnid>/*.JPEG` and `val/<wnid>/*.JPEG`."""
    _write_train(root / "train", data)
    for file, (wnid, content) in data.val.items():
        write_file(root / "val" / wnid / file, content)
    return root


def write_imagenet_flat_val(root: Path, data: ImageNet, *, labels: str = "devkit") -> Path:
    """`train/<wnid>/*.JPEG` and a flat `val/`; its `labels` are in the `devkit`, its `folder`, a `csv`, or `none`."""
    _write_train(root / "train", data)
    _write_flat(root / "val", data)
    if labels == "devkit":
        write_devkit(root / "ILSVRC2012_devkit_t12.tar.gz", data)
    elif labels == "folder":
        write_devkit(root / "ILSVRC2012_devkit_t12", data)
    elif labels == "csv":
        _write_solution(root, data)
    return root


def write_imagenet_official(root: Path, data: ImageNet, *, devkit: bool = True) -> Path:
    """`ILSVRC2012_img_train.tar` (a tar of class tars), `ILSVRC2012_img_val.tar` (flat) and the devkit."""
    # The official tars are in no order that a reader may rely on.
    tars = {f"{wnid}.tar": tar_bytes(_reversed(files)) for wnid, files in _reversed(data.train).items()}
    write_file(root / "ILSVRC2012_img_train.tar", tar_bytes(tars))
    val = {file: content for file, (_, content) in _reversed(data.val).items()}
    write_file(root / "ILSVRC2012_img_val.tar", tar_bytes(val))
    if devkit:
        write_devkit(root / "ILSVRC2012_devkit_t12.tar.gz", data)
    return root


def write_imagenet_kaggle(root: Path, data: ImageNet) -> Path:
    """`ILSVRC/Data/CLS-LOC/{train/<wnid>,val,test}` with `LOC_val_solution.csv` and `LOC_synset_mapping.txt`."""
    base = root / "ILSVRC/Data/CLS-LOC"
    _write_train(base / "train", data)
    _write_flat(base / "val", data)
    write_file(base / "test/ILSVRC2012_test_00000001.JPEG", next(iter(data.val.values()))[1])
    _write_solution(root, data)
    write_lines(root / "LOC_synset_mapping.txt", [f"{wnid} {name}" for wnid, name in data.names.items()])
    return root


def write_imagenet21k(root: Path, data: ImageNet) -> Path:
    """One tar of each class, `root/<wnid>.tar`; there is no val."""
    for wnid, files in data.train.items():
        write_file(root / f"{wnid}.tar", tar_bytes(files))
    return root


def write_devkit(path: Path, data: ImageNet) -> Path:
    """Write the devkit with a genuine `meta.mat`, inner synsets included: archive or folder, by the name of `path`."""
    from scipy.io import savemat

    leaves = sorted((number, wnid, data.names[wnid], 0) for wnid, number in data.ilsvrc_ids.items())
    inner = [(len(leaves) + 1 + number, f"n0000{1000 + number}", f"group {number}", 2) for number in range(3)]
    fields = [
        "ILSVRC2012_ID",
        "WNID",
        "words",
        "gloss",
        "num_children",
        "children",
        "wordnet_height",
        "num_train_images",
    ]
    synsets = np.zeros((len(leaves) + len(inner), 1), [(name, object) for name in fields])
    for row, (number, wnid, words, children) in enumerate([*leaves, *inner]):
        offspring = np.arange(1, children + 1, dtype=float).reshape(1, -1)
        images = len(data.train.get(wnid, ()))
        synsets[row, 0] = (
            float(number),
            wnid,
            words,
            f"what {words} is",
            float(children),
            offspring,
            0.0,
            float(images),
        )
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets}, do_compression=True)
    # savemat writes the day into the text before byte 116.
    content = b"MATLAB 5.0 MAT-file".ljust(116) + meta.getvalue()[116:]
    truth = "".join(f"{data.ilsvrc_ids[wnid]}\n" for wnid, _ in data.val.values())
    files = {"data/meta.mat": content, "data/ILSVRC2012_validation_ground_truth.txt": truth.encode()}
    return write_set(path, "ILSVRC2012_devkit_t12", files)


def first_wnids(count: int) -> list[str]:
    known = list(WNIDS)[:count]
    return known + [f"n{2_000_000 + 17 * number:08d}" for number in range(count - len(known))]


def _reversed(mapping: Mapping[str, Item]) -> dict[str, Item]:
    return dict(reversed(list(mapping.items())))


def _write_train(folder: Path, data: ImageNet) -> None:
    for wnid, files in data.train.items():
        for file, content in files.items():
            write_file(folder / wnid / file, content)


def _write_flat(folder: Path, data: ImageNet) -> None:
    for file, (_, content) in data.val.items():
        write_file(folder / file, content)


def _write_solution(root: Path, data: ImageNet) -> None:
    rows = [f"{Path(file).stem},{wnid} 1 2 30 40 {wnid} 5 6 7 8 " for file, (wnid, _) in _reversed(data.val).items()]
    write_lines(root / "LOC_val_solution.csv", ["ImageId,PredictionString", *rows])
