"""Numbers of samples and of shards -> a dataset folder of that size, whose rows share a few real pictures."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import imgdata
from benchmarks import photos
from benchmarks.raw_files import write_file
from imgdata.dataset.index_schema import INDEX_SCHEMA
from imgdata.dataset.index_writing import write_index

PICTURES = 64
CLASSES = 8
_SLICE = 1 << 20
"""Rows that are made at a time."""


def plant(folder: Path, samples: int, shards: int = 1, size: tuple[int, int] = (500, 375)) -> Path:
    """`folder/shards`: an index of `samples` rows, evenly in `shards` tars, all the same file under other names.

    Reading picture i of a tar reads one of its `PICTURES` pictures, so that as many files are open as it says.
    """
    raw, out = folder / "raw", folder / "shards"
    for number, image in enumerate(photos.photo_crops(PICTURES, size)):
        write_file(raw / f"class{number % CLASSES}" / f"{number}.jpg", photos.jpeg(image, 90))
    options = imgdata.ShardOptions(name="planted", shuffle=False)
    imgdata.shard(raw, out, options, workers=1)
    return repeat(out, samples, shards)


def repeat(out: Path, samples: int, shards: int) -> Path:
    """Make of a dataset with one tar one of `samples` rows, evenly in `shards` tars: the same file under other names.

    Readers of the tars find the rows of the index where `samples` is `shards` times the pictures of the tar.
    """
    manifest = json.loads((out / "dataset.json").read_text())
    split = manifest["splits"]["train"]
    if len(split["shards"]) != 1:
        raise ValueError(f"{out}: must have one tar to repeat, got {len(split['shards'])}")
    first = out / split["shards"][0]["file"]
    stem = first.name.rpartition("-")[0]
    names = [f"{stem}-{number:06d}.tar" for number in range(shards)]
    for name in names:
        for original, link in ((first, out / name), (first.with_suffix(".idx"), (out / name).with_suffix(".idx"))):
            if original.exists() and not link.exists():
                os.link(original, link)
    index = imgdata.open(out)["train"].index
    base = {field.name: index.column(field.name).combine_chunks() for field in INDEX_SCHEMA}
    parts = [
        _rows(base, names, np.arange(start, min(start + _SLICE, samples)), samples)
        for start in range(0, samples, _SLICE)
    ]
    write_index(index.path, pa.concat_tables(parts))
    shard_N = np.arange(samples) * shards // samples
    counts = np.bincount(shard_N, minlength=shards).tolist()
    split["shards"] = [
        {**split["shards"][0], "file": name, "samples": count} for name, count in zip(names, counts, strict=True)
    ]
    split["samples"] = samples
    (out / "dataset.json").write_text(json.dumps(manifest))
    return out


def _rows(base: dict[str, Any], names: list[str], row_N: NDArray[np.int64], samples: int) -> pa.Table:
    picture = pa.array(row_N % len(base["key"]))
    text = pa.array(row_N).cast(pa.string())
    columns = {name: column.take(picture) for name, column in base.items()}
    shard = pa.array(row_N * len(names) // samples, pa.int32())
    columns |= {
        "key": text,
        "source": text,
        "shard": pa.DictionaryArray.from_arrays(shard, pa.array(names)),
    }
    return pa.table([columns[field.name] for field in INDEX_SCHEMA], schema=INDEX_SCHEMA)
