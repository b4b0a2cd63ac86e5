"""Helpers of the tests of raw images where they lie: folders, and what a loader makes of them."""

import os
from pathlib import Path
from typing import Any

import numpy as np

import imgdata
from support.loaders import TRAIN

OLD_S = 1_000_000_000


def aged(root: Path) -> Path:
    """The folder, all of whose files and folders were written long ago."""
    for folder, _, files in os.walk(root, topdown=False):
        for name in files:
            if not os.path.islink(os.path.join(folder, name)):
                os.utime(os.path.join(folder, name), (OLD_S, OLD_S))
        os.utime(folder, (OLD_S, OLD_S))
    return root


def samples(split: imgdata.Split) -> list[tuple[str, int, bytes]]:
    """Key, label and image of each sample, in order."""
    return [(sample.key, sample.label, sample.image) for sample in split]


def facts(split: imgdata.Split) -> list[tuple[Any, ...]]:
    """What the index says of each image, but for where it lies."""
    rows = (split.index.row(position) for position in range(len(split)))
    return [(row.key, row.source, row.size, row.label, row.width, row.height, row.mode, row.format) for row in rows]


def assert_the_same_in_place(raw: Path, out: Path) -> imgdata.Dataset:
    """Shard `raw` into `out`, and assert that `raw` opened in place has the same samples; return the shards."""
    imgdata.shard(raw, out)
    loose, sharded = imgdata.open(raw), imgdata.open(out)
    assert loose.is_loose
    assert (loose.classes, list(loose)) == (sharded.classes, list(sharded))
    for split in sharded:
        assert samples(loose[split]) == samples(sharded[split])
        assert facts(loose[split]) == facts(sharded[split])
    return sharded


def batches(source: Path, epochs: int = 1, **options: Any) -> list[tuple[np.ndarray, ...]]:
    """Images, labels and positions of each batch of some epochs."""
    with imgdata.Loader(source, **{**TRAIN, **options}) as loader:
        return [
            (batch.images.numpy(), batch.labels.numpy(), batch.positions.numpy())
            for _ in range(epochs)
            for batch in loader
        ]


def files_below(root: Path) -> dict[str, bytes]:
    """All files below a folder, with what they hold."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
