"""The same batches by each backend: random crops of 224 out of shards, with all cores."""

from importlib.util import find_spec

import pytest

import imgdata
from benchmarks.loader_peers.ours import recipe
from benchmarks.loader_peers.task import Task
from imgdata import native

BATCH = 64
BACKENDS = {
    "extension": {"backend": "cpu"},
    "Pillow": {"backend": "cpu", "exact": True},
    "DALI": {"backend": "dali"},
    "DALI, GPU": {"backend": "dali", "device": "cuda"},
}
NEEDS_DALI = pytest.mark.skipif(find_spec("nvidia.dali") is None, reason="DALI is not installed")


@pytest.mark.benchmark(group="backends, crops of 224")
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("extension", marks=pytest.mark.skipif(not native.AVAILABLE, reason="the extension was not built")),
        "Pillow",
        pytest.param("DALI", marks=NEEDS_DALI),
        pytest.param("DALI, GPU", marks=[NEEDS_DALI, pytest.mark.gpu]),
    ],
)
def test_epoch(stage, data, num_images, name, dtype):
    settings = BACKENDS[name]
    task = Task(data=data, dtype=dtype, threads=0, batch=BATCH)
    with imgdata.Loader(
        data / "shards", split="train", batch_size=BATCH, recipe=recipe(task), dtype=dtype, **settings
    ) as loader:
        # A whole epoch, from its first plan on: nothing was made ahead of it.
        stage(
            f"imgdata, {name}, {dtype}",
            lambda: sum(len(labels) for _, labels in loader),
            images=len(loader) * BATCH,
            num_bytes=sum(path.stat().st_size for path in (data / "shards").glob("*.tar")),
            device=settings.get("device", "cpu"),
        )
