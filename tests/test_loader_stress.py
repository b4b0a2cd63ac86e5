"""Around a loader: forks, signals, exits, other threads and processes, long runs. Nothing hangs, nothing leaks."""

import contextlib
import copy
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from loaders import TRAIN, as_saved, assert_same, epochs, seen, take

import imgdata
from imgdata import native
from imgdata.dataset.index import write_index
from imgdata.manifest import MANIFEST, read_manifest
from imgdata.order import Order
from imgdata.recipes import RandomErasing, Recipe, TrivialAugment

HEAVY = Recipe(*TRAIN["recipe"].ops, TrivialAugment(), RandomErasing())
"""The native threads and those for Pillow work on the same batch."""
RECIPES = [TRAIN["recipe"], HEAVY]


def loader(images, **options):
    return imgdata.Loader(images, **{**TRAIN, **options})


def own_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("imgdata-")]


def tasks():
    """Threads of the process, those outside Python included."""
    return len(os.listdir("/proc/self/task"))


def settles(found, expected):
    """Whether `found()` becomes `expected` in some seconds: threads need a moment to end."""
    deadline = time.monotonic() + 20
    while found() != expected and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    return found() == expected


# --- threads -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES, ids=["plain", "heavy"])
@pytest.mark.parametrize("end", ["close", "with", "exhausted", "dropped", "error"])
def test_no_thread_is_left(images, backend, recipe, end):
    dataset = imgdata.open(images)
    with loader(dataset) as first:
        take(first)  # What Arrow starts to read the index stays.
    time.sleep(0.05)  # Python's word that a thread has ended comes a bit before its end.
    before = tasks()
    batches = loader(dataset, recipe=recipe, batch_size=2, prefetch=5)
    assert tasks() <= before
    if end == "with":
        with batches:
            take(batches, 2)
    elif end == "error":
        with contextlib.suppress(ZeroDivisionError), batches:
            for number, _ in enumerate(batches):
                1 // (2 - number)
    else:
        take(batches, None if end == "exhausted" else 2)
        assert tasks() > before
        if end == "close":
            batches.close()
            batches.close()
    del batches
    # Fewer, where those of a test before have ended only now.
    assert settles(lambda: tasks() <= before, True), (tasks(), before)
    assert own_threads() == []


def test_a_closed_loader_says_so(images, backend):
    batches = loader(images)
    left = iter(batches)
    expected = seen(next(left))
    batches.close()
    for use in (lambda: next(left), lambda: next(iter(batches))):
        with pytest.raises(imgdata.OptionError, match="this loader is closed; make another Loader"):
            use()
    assert batches.state_dict()["samples"] == 8
    assert "60 samples" in repr(batches)
    assert len(expected.positions) == 8


def test_closing_ends_the_wait_of_another_thread(images, monkeypatch):
    monkeypatch.setattr(native, "AVAILABLE", False)
    held = threading.Event()
    batches = loader(images)
    monkeypatch.setattr("imgdata.backends.host.cut_image", lambda *_, **__: held.wait(20))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, iter(batches))
        time.sleep(0.05)
        closing = threading.Thread(target=batches.close)
        closing.start()
        with pytest.raises(imgdata.OptionError, match="this loader is closed"):
            waiting.result(10)
        held.set()
        closing.join(10)
    assert settles(own_threads, [])


def test_two_loaders_and_two_iterators_in_threads(images, backend):
    with loader(images) as one, loader(images, seed=1, recipe=HEAVY) as other:
        expected = [epochs(one, 2), epochs(other, 2)]
        one.set_epoch(0)
        other.set_epoch(0)
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda batches: epochs(batches, 2), (one, other)))
        for batches, wanted in zip(found, expected, strict=True):
            assert_same(batches, wanted)
        iterators = [iter(one)]
        one.set_epoch(2)
        iterators.append(iter(one))
        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(take, iterators)
        assert_same(first, second)


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
recipe = Recipe(RandomResizedCrop(size=16), HorizontalFlip(), *ops)
loader = imgdata.Loader(folder, split="train", batch_size=8, recipe=recipe, threads=2, prefetch=3)
def sums(batches):
    return [(b.positions.tolist(), int(b.images.sum()), float(b.labels.sum())) for b in batches]
"""

ENDS = {
    "falls off the end": ("next(iter(loader))", 0),
    "holds the iterator": ("batches = iter(loader); next(batches)", 0),
    "sys.exit in the loop": ("for batch in loader: sys.exit(3)", 3),
    "an error in the loop": ("for batch in loader: raise SystemError('mine')", 1),
    "an error in a with": ("with loader:\n  for batch in loader: raise SystemError('mine')", 1),
    "exit in a thread's loop": ("threading.Thread(target=lambda: [time.sleep(0.01) for _ in loader]).start()", 0),
    "a large batch in work": (
        "loader = imgdata.Loader(folder, split='train', batch_size=4096, recipe=recipe, drop_last=False, threads=2)\n"
        "batches = iter(loader); batches._fill()",
        0,
    ),
}


def run(script, images, backend):
    # Beside the extension's threads there is more to get wrong.
    weight = "plain" if backend == "pillow" else "heavy"
    command = [sys.executable, "-c", START + script, images, backend, weight]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.slow
def test_a_program_can_end_anywhere(images, backend, end):
    script, code = ENDS[end]
    done = run(script, images, backend)
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
def test_parent_and_child_go_on_after_a_fork(images, backend):
    done = run(FORK, images, backend)
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
        expected = take(batches)
        batches.set_epoch(0)
    inside = loader(images)
    if used:
        take(inside, 3)
        inside.set_epoch(0)
    workers = torch.utils.data.DataLoader(Batches(inside), batch_size=None, num_workers=1)
    assert_same(take(workers), expected)
    inside.close()


def test_several_workers_would_repeat_every_batch(images, monkeypatch):
    # Not in real ones: PyTorch takes 10 s to stop workers that have raised.
    monkeypatch.setattr(torch.utils.data, "get_worker_info", lambda: SimpleNamespace(num_workers=2))
    with loader(images) as batches, pytest.raises(imgdata.OptionError, match=r"must be 0 or 1 .* inside a DataLoader"):
        iter(batches)


@contextlib.contextmanager
def ctrl_c():
    """A function that lets Ctrl-C come so many seconds later, unless what it returns is called before."""
    waiting = []

    def interrupt(*_):
        if waiting:
            waiting.clear()
            raise KeyboardInterrupt

    def after(seconds):
        waiting.append(seconds)
        timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        return lambda: (waiting.clear(), timer.cancel(), timer.join())

    # pytest-timeout needs the usual timer and its signal for itself.
    signal.signal(signal.SIGUSR1, interrupt)
    try:
        yield after
    finally:
        # Not the default, which would end the process: one may still be under way.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def test_ctrl_c_loses_no_batch(images, backend):
    with loader(images, batch_size=2) as batches, ctrl_c() as after:
        expected = take(batches)
        batches.set_epoch(0)
        left = iter(batches)
        interrupted = 0
        for number in range(1000):
            try:
                called_off = after(1e-4 * (1 + number % 60))
                batch = next(left, None)
                called_off()
            except KeyboardInterrupt:
                interrupted += 1
                continue
            if batch is None:
                break
            place = (batches.state_dict()["samples"] or 60) // 2
            assert_same([seen(batch)], [expected[place - 1]])
        assert interrupted
        assert batches.state_dict()["epoch"] == 1


# --- long and large ----------------------------------------------------------------------------------------------


ROOMY = """
import resource
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
sizes = []
for epoch in range(60):
    for batch in loader: pass
    gc.collect()
    sizes.append(resident())
import numpy
slope = numpy.polyfit(range(len(sizes) - 10), sizes[10:], 1)[0]
print(int(slope))
"""


@pytest.mark.slow
def test_memory_is_flat_over_fifty_epochs(images, backend):
    done = run(ROOMY, images, backend)
    # An epoch is 56 images of 768 bytes; what leaked a batch's memory would rise by 43,000 bytes an epoch.
    assert int(done.stdout) < 10_000, done.stderr


@pytest.mark.slow
def test_thousands_of_epochs_take_constant_memory(images):
    order = Order(num_samples=60, global_batch=1, drop_last=True)
    taken = []
    tracemalloc.start()
    try:
        with loader(images, batch_size=1, threads=1, prefetch=1) as batches:
            for epoch in range(0, 10_000, 4):
                batches.set_epoch(epoch)
                assert next(iter(batches)).positions.item() == order.epoch_positions(epoch)[0]
                if epoch in (2_000, 9_996):
                    gc.collect()
                    taken.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    # The positions of one epoch are 480 bytes, and all others two million.
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
