"""A case -> what its pipeline would take with smaller or crop-ready pictures in the shards, or decoded ones in memory.

All are tried on the sample: its images are really written anew by `imgdata shard`, or really kept decoded.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imgdata import native
from imgdata.backends.protocol import BackendSetup
from imgdata.backends.resident.backend import Store
from imgdata.backends.resident.host_store import HostStore
from imgdata.backends.resident.window import Kept, kept, num_bytes, num_threads
from imgdata.backends.shard_files import ShardFiles
from imgdata.dataset.dataset import open as open_dataset
from imgdata.dataset.split import Split
from imgdata.images.encode import Encoding, extension_of
from imgdata.loader.planner import Planner
from imgdata.measure.doctor.stages import StageTimes, draw_sample, time_stages
from imgdata.measure.machine.disk import DiskRates, ReadRate, time_disk
from imgdata.measure.timing import least_cpu_ms, mean_s
from imgdata.order.epoch_order import Order
from imgdata.recipes.moves import ScaleJitter
from imgdata.recipes.ops import CenterCrop, FixedCrop, PadRandomCrop, RandomResizedCrop
from imgdata.shards.job import shard
from imgdata.shards.options import ShardOptions
from imgdata.views.view import View

_REENCODED = 64
_CALLS = 8
_MEMORY_SHARE = 0.5
"""Share of the free memory that a split may take which is kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rewritten:
    """A part of the sample, written anew with other options."""

    before: StageTimes
    """Times of the same images as they are."""
    after: StageTimes

    @property
    def gain(self) -> float:
        """Ratio of the processor time of an image before and after: 2 where the time is half."""
        return self.before.total_ms / self.after.total_ms

    @property
    def smaller(self) -> float:
        """Ratio of the bytes of an image after and before."""
        return self.after.mean_bytes / self.before.mean_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Sharded(Rewritten):
    """A part of the images that are not sharded, in shards, byte for byte."""

    loose_cold: ReadRate | None
    """Rate of the disk where the files lie loose, none of them in memory; None where that can't be measured."""
    shards_cold: ReadRate | None
    """Rate of the disk where a shard is read from its begin on, as with `shuffle="window"`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resized(Rewritten):
    """A part of the sample with smaller pictures."""

    shorter_side: int
    """Value of `imgdata shard --resize`, in pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InMemory:
    """The split decoded once."""

    num_bytes: int
    """Bytes of all pictures of the split, decoded."""
    plan_ms: float
    """Milliseconds of the caller's thread to plan a batch; for one image."""
    make_ms: float
    """Milliseconds of one worker, or of the GPU, to make it; for one image."""
    workers: int
    """Threads that make batches; 1 on a GPU."""

    def images_per_s(self, cores: float) -> float:
        """Return a loader's rate on so many cores, which share planning and making; planning is one thread's work."""
        if self.workers == 1:
            return 1000 / max(self.plan_ms, self.make_ms)
        most = 1000 * min(self.workers, cores) / self.make_ms
        return min(1000 / self.plan_ms, most, 1000 * cores / (self.plan_ms + self.make_ms))


def shorter_side(setup: BackendSetup) -> int:
    """Return the side to store pictures with: 8/7 of what comes out, such as 256 for 224, as in evaluation."""
    return round(min(setup.options.recipe.output_size(0)) * 8 / 7)


def try_resized(setup: BackendSetup, position_M: NDArray[np.int64], *, rounds: int = 3) -> Resized | None:
    """Encode some of these samples again, and time both; None where no picture is larger. Raises `ShardError`."""
    side, index = shorter_side(setup), setup.split.index
    few_M = _some(position_M)
    if np.median(np.minimum(index.width_N[few_M], index.height_N[few_M])) <= side:
        return None
    before, after = _rewritten(setup, few_M, ShardOptions(encoding=Encoding(resize=side)), rounds)
    return Resized(shorter_side=side, before=before, after=after)


def try_crop_ready(setup: BackendSetup, position_M: NDArray[np.int64], *, rounds: int = 3) -> Rewritten | None:
    """Write some of these samples with restart markers, and time both; None where that can't help. Raises `ShardError`.

    It can't where no JPEG is, where they have markers already, and where pictures are shown whole or without the
    compiled extension.
    """
    index = setup.split.index
    few_M = _some(position_M)
    jpegs = np.isin(index.array("format")[few_M], [i for i, name in enumerate(index.words("format")) if name == "jpeg"])
    plain = jpegs & (index.array("restart_interval")[few_M] == 0) if index.has_crop_ready else jpegs
    recipe = setup.options.recipe
    is_cropped = any(
        recipe.find(kind) is not None for kind in (RandomResizedCrop, PadRandomCrop, CenterCrop, FixedCrop, ScaleJitter)
    )
    if not native.AVAILABLE or not plain.any() or not is_cropped:
        return None
    before, after = _rewritten(setup, few_M, ShardOptions(crop_ready=True), rounds)
    return Rewritten(before=before, after=after)


def try_shards(setup: BackendSetup, position_M: NDArray[np.int64], *, rounds: int = 3) -> Sharded | None:
    """Write some of these samples into shards, and time both; None where they are in shards. Raises `ShardError`."""
    if not setup.split.is_loose:
        return None
    few_M, threads = _some(position_M), setup.options.threads
    disk: list[DiskRates] = []
    before, after = _rewritten(
        setup,
        few_M,
        ShardOptions(),
        rounds,
        lambda split: disk.append(time_disk(split, np.arange(len(split)), threads)),
    )
    loose = time_disk(setup.split, few_M, threads)
    return Sharded(before=before, after=after, loose_cold=loose.cold, shards_cold=disk[0].cold_in_order)


def _some(position_M: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return up to `_REENCODED` of the positions, evenly spread."""
    return position_M[np.unique(np.linspace(0, len(position_M) - 1, _REENCODED).round().astype(np.int64))]


@contextmanager
def written(setup: BackendSetup, few_M: NDArray[np.int64], options: ShardOptions) -> Iterator[BackendSetup]:
    """Yield a setup that reads these samples, all of them, from shards that `imgdata shard` wrote with `options`.

    They are in the temporary folder as long as the block. Raises `ShardError`.
    """
    index, files = setup.split.index, ShardFiles(setup.split)
    # One request for each image would take long where they are in an object store.
    lease = files.lease(few_M)
    with tempfile.TemporaryDirectory() as folder:
        raw, out = Path(folder, "raw"), Path(folder, "out")
        (raw / "train" / "0").mkdir(parents=True)
        formats = index.words("format")
        for number, position in enumerate(few_M.tolist()):
            extension = extension_of(formats[int(index.array("format")[position])])
            (raw / "train" / "0" / f"{position:09d}.{extension}").write_bytes(files.read(lease, number))
        shard(raw, out, options, workers=1)
        yield replace(setup, split=open_dataset(out)["train"])


def _rewritten(
    setup: BackendSetup,
    few_M: NDArray[np.int64],
    options: ShardOptions,
    rounds: int,
    look: Callable[[Split], None] = lambda split: None,
) -> tuple[StageTimes, StageTimes]:
    """Return the times of the samples as they are, and as `imgdata shard` writes them with `options`.

    `look` is called with what was written while it is there.
    """
    with written(setup, few_M, options) as anew:
        look(anew.split)
        after = time_stages(anew, draw_sample(anew, np.arange(len(anew.split))), rounds=rounds)
    return time_stages(setup, few_M, rounds=rounds), after


def try_in_memory(setup: BackendSetup, view: View, memory_bytes: int) -> InMemory | None:
    """Time batches of pixels that are kept decoded, and the planning of them.

    None where the recipe can't have that, or the whole split doesn't fit: `memory_bytes` are free in the host, and a
    GPU says itself.
    """
    window = kept(setup)
    if isinstance(window, str):
        return None
    size = num_bytes(setup, window)
    if size > _MEMORY_SHARE * (memory_bytes if setup.options.device == "cpu" else _free_bytes(setup.options.device)):
        return None
    options, index = setup.options, setup.split.index
    count = min(options.batch_size, len(view))
    order = Order(num_samples=len(view), global_batch=count, shuffle="global", seed=options.seed, drop_last=True)
    planner = Planner(index=index, view=view, order=order, recipe=options.recipe, rank=0, world_size=1)
    # Pixels that were drawn, instead of all: where they come from makes no difference to what is done with them.
    work = replace(planner.work(planner.draft(0, 0)), position_N=np.arange(count))
    one_thread = replace(options, threads=1)
    store = _store(replace(setup, options=one_thread, pinned=False, buffers=2), window)
    generator = np.random.Generator(np.random.Philox(key=[0, 0]))
    store.put(0, generator.integers(0, 256, (count, window.height, window.width, 3), np.uint8))
    # In a loop: one batch may take less than the clock can tell.
    calls: dict[str, Callable[[], int]] = {"plan": _times(lambda: planner.work(planner.draft(0, 0)), count)}
    if setup.options.device == "cpu":
        calls["make"] = _times(lambda: store.make(work), count)
    ms = least_cpu_ms(calls)
    if setup.options.device != "cpu":
        ms["make"] = 1000 * mean_s(lambda: store.make(work), setup.options.device) / count
    return InMemory(num_bytes=size, plan_ms=ms["plan"], make_ms=ms["make"], workers=num_threads(setup))


def _times(call: Callable[[], object], count: int) -> Callable[[], int]:
    """Return a function that calls `_CALLS` times, each time for `count` images."""

    def run() -> int:
        for _ in range(_CALLS):
            call()
        return _CALLS * count

    return run


def _store(setup: BackendSetup, window: Kept) -> Store:
    if setup.options.device == "cpu":
        return HostStore(setup, window)
    from imgdata.backends.resident.device_store import DeviceStore

    return DeviceStore(setup, window)


def _free_bytes(device: str) -> int:
    import torch

    if not device.startswith("cuda"):
        return 0
    free, _ = torch.cuda.mem_get_info(torch.device(device))
    return free
