"""What the benchmarks of single stages share: their data, and how results are written.

`make bench` runs them with few images; `--images` and `--rounds` ask for more.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import loader_data, photos
from benchmarks.report import machine
from benchmarks.stage import Stage


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("imgdata")
    group.addoption("--images", type=int, default=512, help="Pictures of the longer benchmarks.")
    group.addoption("--rounds", type=int, default=3, help="Rounds of each benchmark, without the warm-up.")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """Keep what matters of the machine, but not its name."""
    machine_info.clear()
    machine_info.update(machine()["machine"])


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """Add what is needed to judge and repeat the run; leave out the single rounds."""
    images, rounds = config.getoption("--images"), config.getoption("--rounds")
    command = f"python -m pytest benchmarks --benchmark-only --images {images} --rounds {rounds}"
    for one in output_json["benchmarks"]:
        del one["stats"]["data"]
    output_json.update({"command": command, **machine()})


@pytest.fixture
def stage(benchmark: BenchmarkFixture, pytestconfig: pytest.Config) -> Stage:
    return Stage(benchmark, pytestconfig.getoption("--rounds"))


@pytest.fixture(scope="session")
def num_images(pytestconfig: pytest.Config) -> int:
    """Of the data of the loaders, in whole batches of 64."""
    wanted: int = pytestconfig.getoption("--images")
    return max(wanted // 64, 4) * 64


@pytest.fixture(scope="session")
def work_folder() -> Iterator[Path]:
    """In memory, where there is such a place: the disk is not measured."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="imgdata-bench-", dir=shm if shm.is_dir() else None) as folder:
        os.environ["IMGDATA_CACHE"] = str(Path(folder) / "cache")
        yield Path(folder)


@pytest.fixture(scope="session")
def data(work_folder: Path, num_images: int) -> Path:
    """ImageNet-like JPEGs as `folders` and as `shards`."""
    loader_data.build(work_folder / "data", num_images, {"folders", "shards"})
    return work_folder / "data"


@pytest.fixture(scope="session")
def pictures() -> list[bytes]:
    """64 JPEGs of 500x375."""
    return [photos.jpeg(image, 90) for image in photos.photo_crops(64, size=(500, 375), seed=0)]
