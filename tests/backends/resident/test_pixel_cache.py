"""Around the resident backend: what it keeps on the disk, its threads, what ends them, and other processes."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

import imgdata
from imgdata import recipes
from imgdata.backends.cpu.backend import CpuBackend
from imgdata.backends.resident import decoding, pixel_cache, window
from imgdata.backends.resident.backend import ResidentBackend
from imgdata.recipes import CenterCrop, Recipe, Resize
from support.loaders import dataset
from support.patience import PATIENCE_S, settles
from support.places import TESTS
from support.resident_batches import (
    GEOMETRY,
    HEIGHT,
    WIDTH,
    images_of,
    picture,
    planner_of,
    setup_of,
    with_options,
)

pytestmark = pytest.mark.usefixtures("resident_cache")

# --- the cache ---------------------------------------------------------------------------------------------------


@pytest.fixture
def no_decoding(monkeypatch):
    def refuse(*_):
        raise AssertionError("decoded again")

    return lambda: monkeypatch.setattr(pixel_cache, "decode", refuse)


def test_what_was_decoded_is_an_array_on_the_disk_and_is_used_again(one_size, resident_cache, no_decoding):
    setup = setup_of(one_size, GEOMETRY["mirrored margins"])
    expected = images_of(ResidentBackend, setup)
    (file,) = resident_cache.glob("*.npy")
    array = np.load(file, mmap_mode="r")
    assert (array.shape, array.dtype) == ((30, HEIGHT, WIDTH, 3), np.uint8)
    no_decoding()
    assert torch.equal(images_of(ResidentBackend, setup), expected)
    # What is cut, flipped and normalised of the same pixels does not matter.
    assert images_of(ResidentBackend, with_options(setup, recipe=recipes.cifar_train())).shape[-2:] == (32, 32)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda npy: npy.write_bytes(npy.read_bytes()[:-1]),
        lambda npy: npy.write_bytes(npy.read_bytes() + b"x"),
        lambda npy: npy.write_bytes(b""),
        lambda npy: npy.write_bytes(b"x" * npy.stat().st_size),
        lambda npy: np.save(npy, np.zeros((30, WIDTH, HEIGHT, 3), np.uint8)),
        lambda npy: np.save(npy, np.zeros((30, HEIGHT, WIDTH, 3), np.int8)),
        lambda npy: npy.with_suffix(".json").unlink(),
        lambda npy: npy.with_suffix(".json").write_text("{"),
        lambda npy: npy.with_suffix(".json").write_text('{"version": 0, "bad": []}'),
        lambda npy: npy.with_suffix(".json").write_text("[]"),
        lambda npy: npy.with_suffix(".json").write_text(
            npy.with_suffix(".json").read_text().replace('"bad": []', '"bad": [[30, "corrupt", ""]]')
        ),
        lambda npy: npy.write_bytes(npy.read_bytes()[:-1] + bytes([npy.read_bytes()[-1] ^ 1])),
        lambda npy: npy.write_bytes(npy.read_bytes().replace(b"{", b"(")),
    ],
    ids=[
        *("short", "long", "empty", "garbage", "shape", "dtype", "no list", "half a list", "old", "no dict"),
        *("a bad one that is not there", "one bit", "a header that is no literal"),
    ],
)
def test_a_damaged_cache_is_made_again(one_size, resident_cache, spoil):
    setup = setup_of(one_size, GEOMETRY["mirrored margins"])
    expected = images_of(ResidentBackend, setup)
    (file,) = resident_cache.glob("*.npy")
    before = file.read_bytes()
    spoil(file)
    assert torch.equal(images_of(ResidentBackend, setup), expected)
    assert file.read_bytes() == before
    assert json.loads(file.with_suffix(".json").read_text())["bad"] == []


@pytest.mark.parametrize(
    "change",
    [
        lambda setup: with_options(setup, recipe=Recipe(CenterCrop(size=(30, 40)))),
        lambda setup: with_options(setup, recipe=Recipe(Resize(size=(HEIGHT, WIDTH)))),
        lambda setup: replace(setup, max_pixels=10**5),
    ],
    ids=["crop", "resize", "limit"],
)
def test_other_pixels_are_in_another_file(one_size, change):
    setup = setup_of(one_size, Recipe(CenterCrop(size=(HEIGHT, WIDTH))))
    files = {pixel_cache.cache_file(one, window.kept(one)) for one in (setup, change(setup))}
    assert len(files) == 2


def test_other_pictures_are_in_another_file_and_equal_ones_in_the_same(tmp_path, one_size):
    recipe = Recipe(CenterCrop(size=8))
    folders = [tmp_path / name for name in ("same", "other")]
    for folder, more in zip(folders, (0, 1), strict=True):
        folder.mkdir()
        dataset(folder, {number: picture(number + more) for number in range(30)}, 30)
    setups = [setup_of(folder, recipe) for folder in (one_size, *folders)]
    first, same, other = (pixel_cache.cache_file(setup, window.kept(setup)).name for setup in setups)
    assert first == same != other


def test_the_cache_holds_no_more_than_its_limit(one_size, resident_cache, monkeypatch):
    setup = setup_of(one_size, GEOMETRY["mirrored margins"])
    images_of(ResidentBackend, setup)
    first = pixel_cache.cache_file(setup, window.kept(setup))
    size = first.stat().st_size
    other = setup_of(one_size, Recipe(Resize(size=(HEIGHT + 1, WIDTH + 1)), CenterCrop(size=8)))
    monkeypatch.setenv("IMGDATA_CACHE_GB", f"{size / 1e9:.12f}")
    images_of(ResidentBackend, other)
    assert pixel_cache.cache_file(other, window.kept(other)).exists()
    assert not first.exists()
    monkeypatch.setenv("IMGDATA_CACHE_GB", "0.0000001")
    with pytest.warns(pixel_cache.CacheWarning, match=r"the cache may hold 0.00 GB \(IMGDATA_CACHE_GB\)"):
        images_of(ResidentBackend, setup)


def test_a_folder_that_cannot_be_written_is_warned_of_and_done_without(one_size, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path / "file"))
    setup = setup_of(one_size, GEOMETRY["mirrored margins"])
    with pytest.warns(pixel_cache.CacheWarning, match="kept in memory alone: set IMGDATA_CACHE"):
        found = images_of(ResidentBackend, setup)
    assert torch.equal(found, images_of(CpuBackend, setup))


def test_what_is_there_needs_no_lock_and_no_right_to_write(one_size, resident_cache, no_decoding):
    setup = setup_of(one_size, GEOMETRY["mirrored margins"])
    expected = images_of(ResidentBackend, setup)
    (lock,) = resident_cache.glob("*.lock")
    lock.unlink()
    # As in a folder that cannot be written: this can't be opened, not even by root.
    lock.mkdir()
    no_decoding()
    assert torch.equal(images_of(ResidentBackend, setup), expected)


def test_a_disk_that_is_full_in_the_middle_is_warned_of_and_leaves_nothing(one_size, resident_cache, monkeypatch):
    monkeypatch.setattr(decoding, "PART_BYTES", 4 * HEIGHT * WIDTH * 3)
    setup = setup_of(one_size, GEOMETRY["mirrored margins"])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (17 * HEIGHT * WIDTH * 3, limits[1]))
    try:
        with pytest.warns(
            pixel_cache.CacheWarning, match="can't be written: File too large; the decoded pictures are kept"
        ):
            found = images_of(ResidentBackend, setup)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.equal(found, images_of(CpuBackend, setup))
    assert [path.suffix for path in resident_cache.iterdir()] == [".lock"]


def test_a_full_disk_is_warned_of_and_leaves_nothing(one_size, resident_cache, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pixel_cache, "write_atomic", full)
    with pytest.warns(pixel_cache.CacheWarning, match="no space left on the disk"):
        images_of(ResidentBackend, setup_of(one_size, GEOMETRY["middle"]))
    assert [path.suffix for path in resident_cache.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"IMGDATA_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a/resident"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/imgdata/resident"),
        ({"HOME": "/c"}, "/c/.cache/imgdata/resident"),
        ({"IMGDATA_CACHE": "~/d", "HOME": "/c"}, "/c/d/resident"),
        ({"IMGDATA_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/c"}, "/c/.cache/imgdata/resident"),
    ],
)
def test_the_cache_folder_is_found(monkeypatch, variables, expected):
    for name in ("IMGDATA_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(pixel_cache.resident_folder()) == expected


PROCESS = """
import hashlib, os, signal, sys, threading, time
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from support import resident_batches as t
from imgdata.backends.resident import pixel_cache
from imgdata.backends.resident.backend import ResidentBackend
decode = pixel_cache.decode
def counted(*arguments):
    print("decoded", flush=True)
    return decode(*arguments)
pixel_cache.decode = counted
setup = t.setup_of(Path(sys.argv[1]), t.GEOMETRY["mirrored margins"])
"""
HASH = """
print(hashlib.sha256(t.images_of(ResidentBackend, setup).numpy().tobytes()).hexdigest())
"""


def started(script, folder):
    command = [sys.executable, "-c", PROCESS + script, str(folder), str(TESTS)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_of_several_processes_one_decodes(one_size, resident_cache):
    running = [started(HASH, one_size) for _ in range(3)]
    lines = [process.communicate(timeout=PATIENCE_S)[0].split() for process in running]
    assert sum("decoded" in line for line in lines) == 1
    assert len({line[-1] for line in lines}) == 1
    assert sorted(path.suffix for path in resident_cache.iterdir()) == [".json", ".lock", ".npy"]


HALF = """
def half(setup, window, put):
    decode(setup, window, lambda first, pixels: put(first, pixels[:7]))
    print("half", flush=True)
    time.sleep(1000)
pixel_cache.decode = half
t.images_of(ResidentBackend, setup)
"""


@pytest.mark.slow
def test_after_a_kill_in_the_middle_the_next_process_decodes(one_size, resident_cache):
    killed = started(HALF, one_size)
    assert killed.stdout.readline() == "half\n"
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert started(HASH, one_size).communicate(timeout=PATIENCE_S)[0].startswith("decoded\n")
    assert sorted(path.suffix for path in resident_cache.iterdir()) == [".json", ".lock", ".npy"]


FORK = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of any fork of a process with threads.
begun, go_on = threading.Event(), threading.Event()
def held(*arguments):
    begun.set()
    go_on.wait()
    return decode(*arguments)
pixel_cache.decode = held
thread = threading.Thread(target=t.images_of, args=(ResidentBackend, setup))
thread.start()
begun.wait()
child = os.fork()
go_on.set()
if child == 0:
    signal.alarm(200)
    t.images_of(ResidentBackend, setup)
    os._exit(0)
if sys.argv[1].endswith("killed"):
    os.kill(os.getpid(), 9)
thread.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.slow
def test_a_fork_while_the_parent_decodes_waits_for_it_alone(one_size):
    assert started(FORK, one_size).communicate(timeout=PATIENCE_S)[0] == "0\n"


@pytest.mark.slow
def test_a_fork_whose_parent_was_killed_while_it_decoded_decodes(one_size, tmp_path, resident_cache):
    folder = tmp_path / "killed"
    folder.symlink_to(one_size)
    # Its output ends when the child has ended, too.
    started(FORK, folder).communicate(timeout=PATIENCE_S)
    assert sorted(path.suffix for path in resident_cache.iterdir()) == [".json", ".lock", ".npy"]


END = """
backend = ResidentBackend(setup)
begun = threading.Event()
def endless(setup, window, put):
    try:
        while True:
            decode(setup, window, put)
            begun.set()
    except t.imgdata.OptionError as error:
        print(error)
        raise
pixel_cache.decode = endless
planner = t.planner_of(setup)
pending = backend.start(planner.work(planner.draft(0, 0)))
begun.wait()
"""


@pytest.mark.slow
def test_decoding_ends_with_the_program(one_size, resident_cache):
    said = started(END, one_size).communicate(timeout=PATIENCE_S)[0]
    assert said == "this loader is closed; make another Loader\n"
    assert [path.suffix for path in resident_cache.iterdir()] == [".lock"]


def test_what_a_killed_process_left_is_removed(one_size, resident_cache):
    setup = setup_of(one_size, GEOMETRY["middle"])
    file = pixel_cache.cache_file(setup, window.kept(setup))
    resident_cache.mkdir(parents=True)
    left_over = resident_cache / f".{file.name}.1.tmp"
    left_over.write_bytes(b"half")
    images_of(ResidentBackend, setup)
    assert not left_over.exists()
    assert file.exists()


# --- threads, ends, faults ---------------------------------------------------------------------------------------


def own_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("imgdata-")]


@pytest.fixture
def slow_decoding(monkeypatch):
    """Decoding that goes on until it is told to stop."""
    begun = threading.Event()

    def decode(setup, window, put):
        pixels = np.zeros((1, window.height, window.width, 3), np.uint8)
        while True:
            put(0, pixels)
            begun.set()
            time.sleep(0.005)

    monkeypatch.setattr(pixel_cache, "decode", decode)
    return begun


@pytest.mark.parametrize("end", ["close", "cancel"])
def test_decoding_ends_when_nobody_wants_it(one_size, resident_cache, slow_decoding, end):
    backend = ResidentBackend(setup_of(one_size, GEOMETRY["middle"]))
    planner = planner_of(backend.setup)
    pending = backend.start(planner.work(planner.draft(0, 0)))
    assert slow_decoding.wait(PATIENCE_S)
    if end == "close":
        backend.close()
    else:
        pending.cancel()
    with pytest.raises(imgdata.OptionError, match="this loader is closed"):
        pending.wait()
    del backend, pending
    assert settles(own_threads, [])
    assert [path.suffix for path in resident_cache.iterdir()] == [".lock"]


def test_pytorch_is_imported_by_the_first_batch():
    # Asserts nothing: the program does.
    code = "import sys, imgdata.backends.resident.backend; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE_S)
