"""The threads of a loader, and a loader in several threads: nothing hangs, none is left."""

import contextlib
import os
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

import imgdata
from imgdata import native
from imgdata.backends import postprocess
from imgdata.backends.cpu.backend import CpuBackend, CpuBatch
from imgdata.recipes import MixUp, RandomErasing, TrivialAugment
from support.loaders import assert_same, damaged, dataset, epochs, loader, on_the_cpu, seen, take
from support.patience import PATIENCE_S, settles

HEAVY = TrivialAugment(), RandomErasing()
"""The native threads and those for Pillow work on the same batch."""


def own_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("imgdata-")]


def tasks():
    """Threads of the process, those outside Python included."""
    return set(os.listdir("/proc/self/task"))


@pytest.mark.parametrize("more", [(), HEAVY], ids=["plain", "heavy"])
@pytest.mark.parametrize("end", ["close", "with", "exhausted", "dropped", "error"])
def test_no_thread_is_left(images, backend, more, end):
    dataset = imgdata.open(images)
    with loader(dataset) as first:
        take(first)  # What Arrow starts to read the index stays.
    # Some of a test before may still be ending.
    before = tasks()
    batches = loader(dataset, more=more, batch_size=2, prefetch=5)
    assert not tasks() - before
    if end == "with":
        with batches:
            take(batches, 2)
    elif end == "error":
        with contextlib.suppress(ZeroDivisionError), batches:
            for number, _ in enumerate(batches):
                1 // (2 - number)
    else:
        take(batches, None if end == "exhausted" else 2)
        assert tasks() - before
        if end == "close":
            batches.close()
            batches.close()
    del batches
    assert settles(lambda: tasks() - before, set())
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
    monkeypatch.setattr("imgdata.backends.pillow.crop.cut_image", lambda *_, **__: held.wait(PATIENCE_S))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, iter(batches))
        time.sleep(0.05)
        closing = threading.Thread(target=batches.close)
        closing.start()
        with pytest.raises(imgdata.OptionError, match="this loader is closed"):
            waiting.result(PATIENCE_S)
        held.set()
        closing.join(PATIENCE_S)
    assert settles(own_threads, [])


def test_two_loaders_and_two_iterators_in_threads(images, backend):
    with loader(images) as one, loader(images, seed=1, more=HEAVY) as other:
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


@on_the_cpu
def test_closing_as_a_late_mix_begins_ends_the_wait(tmp_path, backend, monkeypatch):
    # Where a row is bad, the batch is mixed when another has taken its place.
    folder = dataset(tmp_path, {number: damaged(number) for number in range(0, 24, 5)}, count=24)
    mix_late, expect, late = CpuBatch.images, CpuBatch._expect, []

    def images_of(batch):
        late.append(batch)
        return mix_late(batch)

    def expect_after_close(batch, tasks):
        if late:
            closing = threading.Thread(target=batches.close)
            closing.start()
            closing.join()
        expect(batch, tasks)

    monkeypatch.setattr(CpuBatch, "images", images_of)
    monkeypatch.setattr(CpuBatch, "_expect", expect_after_close)
    batches = loader(folder, batch_size=24, more=[MixUp()], on_bad="skip")
    said = []

    def wait():
        try:
            next(iter(batches))
        except imgdata.OptionError as error:
            said.append(str(error))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", imgdata.BadImageWarning)
        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        waiting.join(PATIENCE_S)
    assert said == ["this loader is closed; make another Loader"]


def test_two_threads_begin_with_one_backend(images, monkeypatch):
    begun, made, both = CpuBackend.__init__, [], threading.Barrier(2)

    def slowly(self, setup):
        time.sleep(0.05)
        begun(self, setup)
        made.append(self)

    def begin(batches):
        both.wait()
        return next(batches)

    monkeypatch.setattr(CpuBackend, "__init__", slowly)
    with loader(images) as batches, ThreadPoolExecutor(2) as pool:
        assert len(list(pool.map(begin, [iter(batches), iter(batches)]))) == 2
    assert len(made) == 1
    assert settles(own_threads, [])


def test_one_thread_mixes(images, backend, monkeypatch):
    original, threads = postprocess.mix_images, set()

    def mix_images(*arguments):
        threads.add(threading.get_ident())
        return original(*arguments)

    monkeypatch.setattr(postprocess, "mix_images", mix_images)
    with loader(images, more=[*HEAVY, MixUp()], threads=4, prefetch=5) as batches:
        epochs(batches, 5)
    assert len(threads) == 1
    assert threading.get_ident() not in threads
