"""Around a loader: forks, signals, exits, other processes, long runs. Nothing hangs, nothing leaks."""

import copy
import gc
import os
import pickle
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch

import imgdata
from imgdata.backends.shard_files import ShardFiles
from imgdata.dataset.index_writing import write_index
from imgdata.dataset.manifest import MANIFEST, read_manifest
from imgdata.order.epoch_order import Order
from support.forks import forks
from support.loaders import CPU_BACKENDS, as_saved, assert_same, epochs, loader, on_streaming, on_the_cpu, take
from support.patience import PATIENCE_S

# --- other processes ---------------------------------------------------------------------------------------------


def test_a_pickled_loader_goes_on_where_the_other_is(images, backend):
    with loader(images) as batches:
        expected = take(batches)
        batches.set_epoch(0)
        taken = iter(batches)
        take(taken, 3)
        with pickle.loads(pickle.dumps(batches)) as other, copy.deepcopy(batches) as third:
            assert other.state_dict() == batches.state_dict()
            assert_same(take(other), expected[3:])
            assert_same(take(third), expected[3:])
        assert_same(take(taken), expected[3:])
    # A few settings and the view, not the columns of the index.
    assert len(pickle.dumps(batches)) < 20_000


START = """
import gc, os, sys, time, threading, imgdata
from imgdata import native
from imgdata.recipes import *
folder, kind, heavy = sys.argv[1:4]
native.AVAILABLE = native.AVAILABLE and kind == "native"
ops = (TrivialAugment(), RandomErasing(), MixUp()) if heavy == "heavy" else ()
cut, backend = [RandomResizedCrop(size=16)], "cpu"
if kind == "resident":
    cut, backend = [Resize(size=(24, 30)), PadRandomCrop(size=16, padding=4)], "resident"
recipe = Recipe(*cut, HorizontalFlip(), *ops)
loader = imgdata.Loader(folder, split="train", batch_size=8, recipe=recipe, threads=2, prefetch=3, backend=backend)
def sums(batches):
    return [(b.positions.tolist(), int(b.images.sum()), float(b.labels.sum())) for b in batches]
"""

IMPORTING = ("exit in a thread's loop", "a large batch in work")
"""Ends that may come while the first batch imports PyTorch."""
ENDS = {
    "falls off the end": ("next(iter(loader))", 0),
    "holds the iterator": ("batches = iter(loader); next(batches)", 0),
    "sys.exit in the loop": ("for batch in loader: sys.exit(3)", 3),
    "an error in the loop": ("for batch in loader: raise SystemError('mine')", 1),
    "an error in a with": ("with loader:\n  for batch in loader: raise SystemError('mine')", 1),
    "exit in a thread's loop": ("threading.Thread(target=lambda: [time.sleep(0.01) for _ in loader]).start()", 0),
    "a large batch in work": (
        "loader = imgdata.Loader(\n"
        "    folder, split='train', batch_size=4096, recipe=recipe, drop_last=False, threads=2, backend=backend\n"
        ")\n"
        "batches = iter(loader); batches._fill()",
        0,
    ),
}


@pytest.fixture(scope="module")
def forked():
    """Runs scripts in forks of a program that has imported PyTorch."""
    with forks() as found:
        yield found


def words_for(images, backend):
    # Beside the extension's threads those for Pillow run as well.
    return [images, backend, "plain" if backend == "pillow" else "heavy"]


def run(script, images, backend):
    command = [sys.executable, "-c", START + script, *words_for(images, backend)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("backend", [CPU_BACKENDS[0], "resident"], indirect=True)
@pytest.mark.slow
def test_a_program_can_end_anywhere(images, backend, end, forked):
    script, code = ENDS[end]
    done = run(script, images, backend) if end in IMPORTING else forked.run(START + script, *words_for(images, backend))
    assert done.returncode == code, done.stderr
    assert done.stderr.count("\n") == 0 if code != 1 else done.stderr.endswith("SystemError: mine\n")


FORK = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of any fork of a process with threads.
expected = sums(loader)
loader.set_epoch(0)
batches = iter(loader)
assert sums(next(batches) for _ in range(2)) == expected[:2]
child = os.fork()
found = sums(batches)
again = sums(loader)
ok = found == expected[2:] and again != expected and len(again) == len(expected)
if child == 0:
    loader.close()
    del loader, batches
    gc.collect()
    os._exit(0 if ok else 1)
_, status = os.waitpid(child, 0)
print(ok, os.waitstatus_to_exitcode(status))
"""


@pytest.mark.slow
def test_parent_and_child_go_on_after_a_fork(images, backend, forked):
    done = forked.run(START + FORK, *words_for(images, backend))
    assert (done.stdout, done.stderr) == ("True 0\n", "")


class Batches(torch.utils.data.IterableDataset):
    """A loader for PyTorch's worker processes."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("used", [False, True])
def test_inside_a_worker_process_of_a_dataloader(images, backend, used):
    with loader(images) as batches:
        expected = epochs(batches, 2)
    inside = loader(images)
    if used:
        take(inside, 3)
        inside.set_epoch(0)
    workers = torch.utils.data.DataLoader(Batches(inside), batch_size=None, num_workers=1)
    # The parent's loader is what each new worker begins as, and hears nothing of it.
    for epoch in (0, 1):
        inside.set_epoch(epoch)
        assert_same(take(workers), expected[7 * epoch : 7 * epoch + 7])
        assert inside.state_dict()["epoch"] == epoch
    inside.close()


def test_several_workers_would_repeat_every_batch(images, monkeypatch):
    # Not in real ones: PyTorch takes 10 s to stop workers that have raised.
    monkeypatch.setattr(torch.utils.data, "get_worker_info", lambda: SimpleNamespace(num_workers=2))
    with loader(images) as batches, pytest.raises(imgdata.OptionError, match=r"must be 0 or 1 .* inside a DataLoader"):
        iter(batches)


COLLECTED = """
from imgdata.backends.resident.host_store import HostStore
make = HostStore.make
def slow_make(store, work):
    # Otherwise it is ready before it is collected.
    time.sleep(0.05)
    return make(store, work)
HostStore.make = slow_make
gc.disable()
iterator = iter(loader)
next(iterator)
iterator._fill()
cycle = [iterator]
cycle.append(cycle)
original = threading.Condition.notify_all
def notify_all(condition):
    if threading.current_thread().name.startswith("imgdata-"):
        gc.collect()
    return original(condition)
threading.Condition.notify_all = notify_all
del iterator, cycle
time.sleep(0.3)
loader.close()
print("closed")
"""


@pytest.mark.parametrize("backend", ["pillow", "resident"], indirect=True)
def test_an_iterator_may_be_collected_while_its_batch_becomes_ready(images, backend):
    assert run(COLLECTED, images, backend).stdout == "closed\n"


CTRL_C = """
import signal, torch
torch.set_num_threads(1)
armed = []
def interrupt(*_):
    if armed:
        armed.clear()
        raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
expected = sums(loader)
loader.set_epoch(0)
left, interrupted, after_s = iter(loader), 0, 0
while True:
    # Ever later, until a batch comes before it.
    after_s = 1.2 * after_s + 1e-4
    armed.append(True)
    try:
        signal.setitimer(signal.ITIMER_REAL, after_s)
        batch = next(left, None)
        armed.clear()
    except KeyboardInterrupt:
        interrupted += 1
        continue
    if batch is None:
        break
    after_s = 0
    place = (loader.state_dict()["samples"] or 56) // 8
    assert sums([batch]) == expected[place - 1 : place]
print(interrupted > 0, loader.epoch)
"""


def test_ctrl_c_loses_no_batch(images, backend, forked):
    # A process of its own: it may come a moment late, when pytest would be hit.
    done = forked.run(START + CTRL_C, *words_for(images, backend))
    assert (done.stdout, done.stderr) == ("True 1\n", "")


@on_the_cpu
def test_ctrl_c_while_a_batch_is_begun_comes_at_once(images, backend, monkeypatch):
    original, leases = ShardFiles.lease, []

    def lease(files, position_N, **more):
        leases.append(position_N)
        if len(leases) == 3:
            raise KeyboardInterrupt
        return original(files, position_N, **more)

    with loader(images) as batches:
        expected = take(batches)
        batches.set_epoch(0)
        monkeypatch.setattr(ShardFiles, "lease", lease)
        left = iter(batches)
        # Of the third batch, that is, while the first is wanted.
        with pytest.raises(KeyboardInterrupt):
            next(left)
        assert_same(take(left), expected)


# --- long and large ----------------------------------------------------------------------------------------------


ROOMY = """
import resource, torch
torch.set_num_threads(1)  # Its threads for mixing would wait for each other most of the time.
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
sizes = []
gc.freeze()  # The collector need not look through all that was imported, sixty times.
for epoch in range(60):
    for batch in loader: pass
    gc.collect()
    sizes.append(resident())
import statistics
# Now and then the allocator takes a larger piece: in one of five windows.
print(int(statistics.median((sizes[first + 9] - sizes[first]) / 9 for first in range(10, 60, 10))))
"""


@pytest.mark.slow
def test_memory_is_flat_over_fifty_epochs(images, backend, forked):
    done = forked.run(START + ROOMY, *words_for(images, backend))
    # An epoch is 56 images of 768 bytes; what leaked a batch's memory would rise by 43,000 bytes an epoch.
    assert int(done.stdout) < 10_000, done.stderr


@pytest.mark.slow
def test_thousands_of_epochs_take_constant_memory(images):
    order = Order(num_samples=60, global_batch=1, drop_last=True)
    taken = []
    tracemalloc.start()
    try:
        with loader(images, batch_size=1, threads=1, prefetch=1) as batches:
            for epoch in range(0, 10_000, 10):
                batches.set_epoch(epoch)
                assert next(iter(batches)).positions.item() == order.epoch_positions(epoch)[0]
                if epoch in (2_000, 9_990):
                    gc.collect()
                    taken.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    # The positions of one epoch are 480 bytes, and all others 384,000.
    assert taken[1] - taken[0] < 50_000


@pytest.fixture
def imagenet_sized(images, tmp_path):
    """An index of 1.3 million rows, which all lie in the same few shards."""
    manifest = read_manifest(images)
    (entry,) = manifest.splits
    rows = imgdata.open(images)["train"].index
    table = pa.table({name: rows.column(name) for name in rows.names})
    times = 1_300_000 // len(table)
    write_index(tmp_path / entry.index, pa.concat_tables([table] * times))
    shards = tuple(replace(shard, samples=shard.samples * times) for shard in entry.shards)
    many = replace(manifest, splits=(replace(entry, shards=shards),))
    (tmp_path / MANIFEST).write_bytes(many.to_bytes())
    for shard in entry.shards:
        os.link(images / shard.file, tmp_path / shard.file)
    return tmp_path


@on_streaming
@pytest.mark.slow
def test_an_index_of_imagenets_size(imagenet_sized, backend):
    with loader(imagenet_sized, batch_size=256) as batches:
        order = batches._planner.order
        assert len(batches) == 1_299_960 // 256
        first = take(batches, 2)
        assert first[1].positions == order.epoch_positions(0)[256:512].tolist()
        assert first[1].labels == [position % 3 for position in first[1].positions]
        # As after 4,000 of the 5,077 steps.
        state = as_saved(batches.state_dict()) | {"samples": 4_000 * 256}
    with loader(imagenet_sized, batch_size=256) as resumed:
        resumed.load_state_dict(state)
        (batch,) = take(resumed, 1)
        assert batch.positions == order.epoch_positions(0)[1_024_000:1_024_256].tolist()
        assert resumed.state_dict()["samples"] == 1_024_256
    pixels = {position % 60: image for position, image in zip(first[0].positions, first[0].images, strict=True)}
    assert len(pixels) > 50
    assert np.ptp(first[0].images) > 200
