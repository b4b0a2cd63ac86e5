"""What the tests of the loader share: a small dataset of every kind of image, and what its epochs look like."""

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import imgdata
from imgdata import native
from imgdata.backends.registry import choose
from imgdata.loader import delivery
from imgdata.recipes import HorizontalFlip, PadRandomCrop, RandomResizedCrop, Recipe, Resize
from support.rawdata import encoded

HAS_DALI = find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None
CPU_BACKENDS = [
    pytest.param("native", marks=pytest.mark.skipif(not native.AVAILABLE, reason="the extension was not built")),
    "pillow",
]
"""The two ways of the CPU backend."""
STREAMING_BACKENDS = [
    *CPU_BACKENDS,
    pytest.param("dali", marks=pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed")),
]
"""Those that read and decode each picture when its turn comes, and so take any crop."""
BACKENDS = [*STREAMING_BACKENDS, "resident"]
"""All that make batches here. A test takes one by the fixture `backend`."""
on_the_cpu = pytest.mark.parametrize("backend", CPU_BACKENDS, indirect=True)
"""For tests of what the CPU backend does inside, or of its memory."""
on_streaming = pytest.mark.parametrize("backend", STREAMING_BACKENDS, indirect=True)
"""For tests of crops that a resident split has not kept (`test_resident` says that it refuses them), or of millions."""

SAMPLES = 60
SHARD_SAMPLES = 7
RECIPE = Recipe(RandomResizedCrop(size=16), HorizontalFlip())
KEPT = Recipe(Resize(size=(24, 30)), PadRandomCrop(size=16, padding=4), HorizontalFlip())
"""As random, of one window that is the same in every epoch."""
TRAIN: dict[str, Any] = {"split": "train", "batch_size": 8, "recipe": RECIPE, "threads": 2}
"""Options of most loaders. In a test that takes `backend` the recipe is one for it."""


@pytest.fixture(params=BACKENDS)
def backend(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """Each backend in turn, chosen as `auto` would choose it on a machine that has it, and a recipe that it takes."""
    name = request.param
    if name == "pillow":
        monkeypatch.setattr(native, "AVAILABLE", False)
    if name in ("dali", "resident"):
        monkeypatch.setattr(delivery, "choose", lambda asked, setup: choose(name if asked == "auto" else asked, setup))
    if name == "resident":
        monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path_factory.mktemp("decoded")))
    monkeypatch.setitem(TRAIN, "recipe", recipe_for(name))
    return str(name)


def recipe_for(backend: str, *more: Any) -> Recipe:
    """A random crop and flip that the backend takes, and more operators behind them."""
    return Recipe(*(KEPT if backend == "resident" else RECIPE).ops, *more)


def loader(images: Any, *, more: Iterable[Any] = (), **options: Any) -> imgdata.Loader:
    """A loader of `TRAIN`, with `more` operators behind its recipe's, and with other options."""
    return imgdata.Loader(images, **{**TRAIN, "recipe": Recipe(*TRAIN["recipe"].ops, *more), **options})


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of `SAMPLES` good images; not to be changed."""
    return dataset(tmp_path_factory.mktemp("images"))


def sample(number: int) -> bytes:
    """A picture of 48 to 79 x 40 pixels: mostly JPEGs in colour, some in gray or CMYK, some PNGs."""
    kind = {7: ("JPEG", "L"), 8: ("JPEG", "CMYK"), 9: ("PNG", "RGB")}.get(number % 10, ("JPEG", "RGB"))
    return encoded(number, (48 + number % 32, 40), *kind)


def damaged(number: int) -> bytes:
    """A JPEG that ends a few bytes behind its headers."""
    data = encoded(number, (48 + number % 32, 40))
    return data[: data.index(b"\xff\xda") + 20]


def dataset(folder: Path, bad: Mapping[int, bytes] | None = None, count: int = SAMPLES) -> Path:
    """An indexed dataset of shards of `SHARD_SAMPLES`, in three classes; `bad` has other bytes for some samples."""
    bad = bad or {}
    for shard, first in enumerate(range(0, count, SHARD_SAMPLES)):
        files: list[tuple[str, bytes]] = []
        for number in range(first, min(first + SHARD_SAMPLES, count)):
            files += [
                (f"s{number:04d}.jpg", bad.get(number) or sample(number)),
                (f"s{number:04d}.cls", b"%d" % (number % 3)),
            ]
        with tarfile.open(folder / f"demo-train-{shard:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for name, data in files:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    imgdata.index(folder, workers=1)
    return folder


class Seen(NamedTuple):
    """A batch, copied."""

    positions: list[int]
    labels: list[Any]
    valid: list[bool]
    images: np.ndarray


def seen(batch: imgdata.Batch) -> Seen:
    images = batch.images.cpu().numpy().copy()
    return Seen(batch.positions.tolist(), batch.labels.tolist(), batch.valid.tolist(), images)


def take(batches: Iterable[imgdata.Batch], count: int | None = None) -> list[Seen]:
    """The next `count` batches, or all."""
    return [seen(batch) for batch in islice(batches, count)]


def sums(batches: Iterable[imgdata.Batch], count: int | None = None) -> list[tuple[list[int], list[Any], Any]]:
    """Positions, labels and a sum of pixels of the next `count` batches, or of all."""
    return [
        (batch.positions.tolist(), batch.labels.tolist(), batch.images.sum().item()) for batch in islice(batches, count)
    ]


def epochs(loader: imgdata.Loader, count: int) -> list[Seen]:
    """All batches of `count` epochs."""
    return [batch for _ in range(count) for batch in take(loader)]


def assert_same(found: Iterable[Seen], expected: Iterable[Seen]) -> None:
    """The same batches, pixel by pixel."""
    for one, other in zip(found, expected, strict=True):
        assert one[:3] == other[:3]
        assert np.array_equal(one.images, other.images)


def positions(batches: Iterable[Seen]) -> list[int]:
    return [position for batch in batches for position in batch.positions]


def as_saved(state: Mapping[str, Any]) -> Any:
    """A state as it comes back from a file."""
    return json.loads(json.dumps(state))
