"""A small dataset of three classes, and views of made-up labels, for tests."""

from pathlib import Path

import numpy as np

import imgdata
from imgdata import ShardOptions
from imgdata.sample import ClassName
from imgdata.views.view import View
from support.rawdata import class_folders

PER_CLASS = {"cat": 10, "dog": 6, "newt": 4}


def animals(work: Path) -> Path:
    """A dataset whose train split has 20 images of `PER_CLASS`, 48 to 79 pixels wide, in shards of 6."""
    raw = class_folders(work / "raw", {"train": 10, "val": 2}, tuple(PER_CLASS))
    for name, count in PER_CLASS.items():
        for number in range(count, 10):
            (raw / "train" / name / f"{number:03d}.jpg").unlink()
    imgdata.shard(raw, work / "out", ShardOptions(shard_samples=6, name="animals"), workers=1)
    return work / "out"


def keys(view: View) -> list[str]:
    """The keys of a view's rows."""
    column = view.index.column("key")
    return [column[position].as_py() for position in view.position_N.tolist()]


def many(counts_C: list[int], *, unlabelled: int = 0) -> View:
    """A view of so many samples of each class, in random order, without shards."""
    label_N = np.repeat(np.arange(-1, len(counts_C), dtype=np.int32), [unlabelled, *counts_C])
    label_N = label_N[np.random.Philox(key=[0, 1]).random_raw(len(label_N)).argsort()]
    classes = tuple(ClassName(f"c{c}", f"class {c}") for c in range(len(counts_C)))
    return View(
        index=None,
        folder=None,
        split="train",
        classes=classes,
        position_N=np.arange(len(label_N)),
        label_N=label_N,
    )
