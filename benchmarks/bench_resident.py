"""CIFAR-10's pictures in memory -> augmented batches: the resident backend; `benchmarks.resident` has its peers."""

import pytest

import imgdata
from benchmarks import data as raw
from imgdata import recipes

PICTURES, BATCH = 4096, 512


@pytest.fixture(scope="module")
def cifar(work_folder):
    source = raw.write_cifar10_python(work_folder / "cifar-10-batches-py", raw.cifar10(train=PICTURES, test=10))
    imgdata.shard(source, work_folder / "cifar", imgdata.ShardOptions())
    return work_folder / "cifar"


@pytest.mark.benchmark(group="resident, CIFAR-10")
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_epochs(stage, cifar, dtype, device):
    with imgdata.Loader(
        cifar,
        split="train",
        batch_size=BATCH,
        recipe=recipes.cifar_train(cutout=16),
        dtype=dtype,
        device=device,
        backend="resident",
    ) as loader:
        stage(
            f"imgdata, {dtype}, {device}",
            lambda: [None for _ in range(5) for _ in loader],
            images=5 * len(loader) * BATCH,
            num_bytes=5 * len(loader) * BATCH * 3 * 32 * 32,
            device=device,
        )
