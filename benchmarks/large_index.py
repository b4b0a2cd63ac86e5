"""Number of samples -> a dataset folder of that size whose index is in parts; its tars are names only.

Two billion rows take 60 GB of places. All full parts here are one file of 2^24 rows under many names (links), so that
an index of any length takes 0.5 GB. Planning reads rows from all parts; what reading from a disk costs,
`benchmarks.large_forms` measures on files of their own.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgdata.dataset.index_parts import PART_ROWS, part_names
from imgdata.dataset.manifest import MANIFEST, IndexPart, IndexParts, Manifest, ShardRecord, SplitEntry
from imgdata.dataset.places import header, place_type
from imgdata.sample import ClassName

SHARD_SAMPLES = 10_000
_CLASSES = 1000
_NAME = "planted"


def plant(folder: Path, samples: int) -> Path:
    """Make `folder` a dataset of `samples` rows in tars of 10,000."""
    folder.mkdir(parents=True, exist_ok=True)
    index_file = f"{_NAME}-train.index.parquet"
    shards = -(-samples // SHARD_SAMPLES)
    parts = []
    full: Path | None = None
    for number in range(-(-samples // PART_ROWS)):
        rows = min(PART_ROWS, samples - number * PART_ROWS)
        index, places = part_names(index_file, number)
        if rows == PART_ROWS and full is not None:
            os.link(full, folder / places)
        else:
            write_records(folder / places, records(rows, shards))
            full = folder / places
        # Planning reads no text: the Parquet files are names as well.
        parts.append(IndexPart(index, "0" * 64, places, "0" * 64, rows))
    split = SplitEntry(
        "train",
        index_file,
        hashlib.sha256(str(samples).encode()).hexdigest(),
        tuple(
            ShardRecord(
                f"{_NAME}-train-{number:06d}.tar",
                min(SHARD_SAMPLES, samples - number * SHARD_SAMPLES),
                10**9,
                f"{number:064x}",
            )
            for number in range(shards)
        ),
        IndexParts(parts=tuple(parts), words={"format": ("jpeg",), "mode": ("RGB",)}, has_json=False, crop_ready=False),
    )
    manifest = Manifest(
        name=_NAME,
        classes=tuple(ClassName(f"c{number}", f"class {number}") for number in range(_CLASSES)),
        splits=(split,),
        image_extension="jpg",
        label_from="cls",
        has_json=False,
        rejected=0,
    )
    (folder / MANIFEST).write_bytes(manifest.to_bytes())
    return folder


def records(rows: int, shards: int) -> NDArray[Any]:
    """Return rows as of photographs, at random by a fixed seed."""
    generator = np.random.Generator(np.random.Philox(key=[0, rows]))
    record_N = np.zeros(rows, place_type(has_json=False))
    record_N["offset"] = generator.integers(0, 2**20, rows) * 512
    record_N["size"] = generator.integers(10_000, 200_000, rows)
    record_N["shard"] = generator.integers(0, shards, rows)
    record_N["label"] = generator.integers(0, _CLASSES, rows)
    record_N["width"] = generator.integers(200, 2000, rows)
    record_N["height"] = generator.integers(200, 2000, rows)
    return record_N


def write_records(path: Path, record_N: NDArray[Any]) -> None:
    """Write the places of these rows."""
    with open(path, "wb") as file:
        file.write(header(len(record_N), record_N.dtype))
        record_N.tofile(file)
