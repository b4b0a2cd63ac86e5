"""Google's Grain over ArrayRecord: Pillow(-SIMD) in its reading threads."""

import io
from pathlib import Path
from typing import Any

from benchmarks.loader_peers.task import Batches, Task


def open_loader(task: Task) -> Batches:
    import grain
    import numpy as np

    from benchmarks.loader_peers.pillow import Augment

    augment = Augment(task)

    class Decode(grain.transforms.RandomMap):
        def random_map(self, record: bytes, rng: Any) -> tuple[Any, Any]:
            label = np.int64(int.from_bytes(record[:4], "little"))
            return augment(io.BytesIO(record[4:]), rng), label

    source = grain.sources.ArrayRecordDataSource([str(path) for path in _files(task)])
    dataset = grain.MapDataset.source(source).seed(1).shuffle().random_map(Decode())
    reading = grain.ReadOptions(num_threads=task.threads, prefetch_buffer_size=2 * task.batch)
    return dataset.to_iter_dataset(reading).batch(task.batch, drop_remainder=True)  # type: ignore[no-any-return]


def _files(task: Task) -> list[Path]:
    return sorted((task.data / "array_record").glob("*.arrayrecord"))
