"""One pass over all samples: columns in files, made once, resumed after any end."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import imgdata
from imgdata import native
from imgdata.auditing import fact_files
from imgdata.auditing import facts as module
from imgdata.auditing.facts import facts, pixel_hashes
from imgdata.auditing.hashes import QUERIES, hashes
from imgdata.auditing.samples import Samples, samples_of
from imgdata.errors import OutputError, ShardError
from imgdata.storage.cache_folder import cache_entries
from imgdata.views import open_view
from support import loaders
from support.patience import PATIENCE_S
from support.pictures import encode, photo
from support.places import REPOSITORY, TESTS

COUNT = 30


@pytest.fixture(autouse=True)
def small_parts(monkeypatch, tmp_path):
    """Parts of 4 samples, synced every 8; a cache of the test's own."""
    monkeypatch.setattr(module, "PART", 4)
    monkeypatch.setattr(fact_files, "CHUNK", 8)
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of every kind, of which 3 and 21 are damaged; not to be changed."""
    bad = {3: loaders.damaged(3), 21: loaders.damaged(21)}
    return loaders.dataset(tmp_path_factory.mktemp("facts"), bad, COUNT)


def samples_in(folder: Path, view: str | None = None) -> Samples:
    dataset = imgdata.open(folder)
    return samples_of([open_view(dataset, "train", view or "")])


def assert_same(one, other):
    for name in ("decoded_M", "luma_M64x64", "colour_M16x16x3", "hash_MQ4", "gate_M", "sharpness_M", "jpeg_quality_M"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.bad == other.bad


class Told(list):
    """Progress, which ends the pass with an error once so many samples are done."""

    def __init__(self, end: int = 10**9, error: BaseException | None = None) -> None:
        self.end, self.error = end, error or KeyboardInterrupt()

    def __call__(self, done: int, total: int) -> None:
        assert total == COUNT
        self.append(done)
        if done >= self.end:
            raise self.error


def test_every_sample_has_facts_and_bad_ones_reasons(folder, tmp_path):
    samples, told = samples_in(folder), Told()
    found = facts(samples, tmp_path / "f", progress=told)
    assert len(found) == COUNT
    assert np.flatnonzero(~found.decoded_M).tolist() == [3, 21]
    assert {number: why.partition(":")[0] for number, why in found.bad.items()} == {3: "truncated", 21: "truncated"}
    assert found.hash_MQ4.shape == (COUNT, len(QUERIES), 4)
    good = found.decoded_M
    hash_KQ4, gate_K = hashes(found.luma_M64x64[good])
    np.testing.assert_array_equal(found.hash_MQ4[good], hash_KQ4)
    np.testing.assert_array_equal(found.gate_M[good], gate_K)
    for column in (found.hash_MQ4, found.gate_M, found.luma_M64x64, found.brightness_M, found.jpeg_quality_M):
        assert not column[~good].any()
    formats, format_M = samples.words("format")
    is_jpeg = np.array([formats[code] == "jpeg" for code in format_M]) & good
    assert (found.jpeg_quality_M[is_jpeg] == 90).all()
    assert not found.jpeg_quality_M[~is_jpeg].any()
    assert told == sorted(told)
    assert told[-1] == COUNT


def test_facts_do_not_depend_on_threads_or_parts(folder, tmp_path, monkeypatch):
    samples = samples_in(folder)
    one = facts(samples, tmp_path / "one", threads=1)
    monkeypatch.setattr(module, "PART", 64)
    monkeypatch.setattr(module, "_PART_BYTES", 5000)
    assert_same(one, facts(samples, tmp_path / "other", threads=3))


def test_a_view_has_the_facts_of_its_samples(folder, tmp_path):
    samples = samples_in(folder, "count=9")
    everything = facts(samples_in(folder), tmp_path / "f")
    some = facts(samples, tmp_path / "f")
    np.testing.assert_array_equal(some.luma_M64x64, everything.luma_M64x64[samples.position_M])


def test_two_splits_are_numbered_through(tmp_path):
    with imgdata.Writer(tmp_path / "out", classes=["a", "b"]) as writer:
        for number in range(10):
            writer.write(loaders.sample(number), number % 2, split="train" if number < 6 else "val")
    dataset = imgdata.open(tmp_path / "out")
    both = facts(samples_of([open_view(dataset, "train"), open_view(dataset, "val")]), tmp_path / "f")
    val = facts(samples_of([open_view(dataset, "val")]), tmp_path / "f")
    np.testing.assert_array_equal(both.luma_M64x64[6:], val.luma_M64x64)


def test_without_the_compiled_module_facts_are_nearly_the_same(folder, tmp_path, monkeypatch):
    samples = samples_in(folder)
    one = facts(samples, tmp_path / "f")
    monkeypatch.setattr(native, "AVAILABLE", False)
    other = facts(samples, tmp_path / "f")
    assert one.bad == other.bad
    assert np.abs(one.luma_M64x64.astype(int) - other.luma_M64x64).mean() < 0.5


# --- kept, and resumed ----------------------------------------------------------------------------------


def test_facts_are_made_once(folder, tmp_path, monkeypatch):
    samples = samples_in(folder)
    one = facts(samples, tmp_path / "f")
    monkeypatch.setattr(module, "look", None)
    assert_same(one, facts(samples, tmp_path / "f"))


def test_facts_lie_in_the_cache_folder_by_default_and_are_named_there(folder):
    facts(samples_in(folder))
    (entry,) = cache_entries()
    assert entry.what == "audit"
    assert entry.num_bytes >= COUNT * fact_files.ROW_BYTES
    assert {path.parent.name for path in entry.files} == {"audit"}


def test_other_images_have_other_facts(folder, tmp_path):
    facts(samples_in(folder), tmp_path / "f")
    other = loaders.dataset(tmp_path, {5: encode(photo(), "JPEG")}, COUNT)
    found = facts(samples_in(other), tmp_path / "f")
    assert found.decoded_M.all()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("any")])
def test_an_interrupted_pass_is_resumed_where_it_was(folder, tmp_path, error):
    samples, first = samples_in(folder), Told(14, error)
    with pytest.raises(type(error)):
        facts(samples, tmp_path / "f", threads=1, progress=first)
    told = Told()
    resumed = facts(samples, tmp_path / "f", threads=1, progress=told)
    assert first[-1] == 16
    assert told[0] == 20
    assert_same(resumed, facts(samples, tmp_path / "fresh"))


KILLED = """
import os, signal, sys, time
sys.path[:0] = [{root!r}, {tests!r}]
import imgdata
from imgdata.auditing import fact_files, facts
from imgdata.auditing.samples import samples_of
from imgdata.views import open_view

facts.PART, fact_files.CHUNK = 4, 8

def told(done, total):
    print(done, flush=True)
    if done >= 20:
        time.sleep(600)

facts.facts(samples_of([open_view(imgdata.open({folder!r}), "train")]), facts.Path({work!r}), threads=2, progress=told)
"""


def test_a_killed_pass_is_resumed_at_its_last_whole_chunk(folder, tmp_path):
    code = KILLED.format(root=str(REPOSITORY), tests=str(TESTS), folder=str(folder), work=str(tmp_path / "f"))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        while (line := child.stdout.readline()) and int(line) < 20:
            pass
        child.send_signal(signal.SIGKILL)
        assert child.wait(PATIENCE_S) == -signal.SIGKILL
    samples, told = samples_in(folder), Told()
    resumed = facts(samples, tmp_path / "f", threads=1, progress=told)
    # 16 were synced; of the others nothing is trusted.
    assert told[0] == 20
    assert_same(resumed, facts(samples, tmp_path / "fresh"))


@pytest.mark.parametrize("ending", ["json", "luma", "figure", "bad"])
def test_a_damaged_or_missing_file_is_made_again(folder, tmp_path, ending):
    samples = samples_in(folder)
    one = facts(samples, tmp_path / "f")
    (file,) = (tmp_path / "f").glob(f"*.{ending}")
    luma = np.array(one.luma_M64x64)
    os.truncate(file, file.stat().st_size // 2)
    told = Told()
    again = facts(samples, tmp_path / "f", progress=told)
    assert told[0] < COUNT
    np.testing.assert_array_equal(again.luma_M64x64, luma)
    file.unlink()
    assert facts(samples, tmp_path / "f").bad == one.bad


def test_a_journal_that_is_no_journal_is_not_believed(folder, tmp_path):
    samples = samples_in(folder)
    facts(samples, tmp_path / "f")
    (file,) = (tmp_path / "f").glob("*.json")
    for text in (
        "[]",
        "{}",
        '{"version": 1, "done": -4, "bad_bytes": 0}',
        '{"version": 0, "done": 30, "bad_bytes": 0}',
    ):
        file.write_text(text)
        told = Told()
        facts(samples, tmp_path / "f", progress=told)
        assert told[0] < COUNT
        assert json.loads(file.read_text())["done"] == COUNT


# --- where it can't be done -----------------------------------------------------------------------------


def test_a_full_disk_is_one_message_and_the_pass_is_resumed(folder, tmp_path, monkeypatch):
    written, pwrite = [0], os.pwrite

    def full(file, data, offset):
        written[0] += len(data)
        if written[0] > 20 * fact_files.ROW_BYTES:
            raise OSError(errno.ENOSPC, "No space left on device")
        # Part of what was asked for, as a file system that runs full does.
        return pwrite(file, data[: max(1, len(data) // 2)], offset)

    samples = samples_in(folder)
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(OutputError, match="no space left on the disk; free some"):
            facts(samples, tmp_path / "f", threads=1)
    told = Told()
    resumed = facts(samples, tmp_path / "f", threads=1, progress=told)
    assert told[0] > 4
    assert_same(resumed, facts(samples, tmp_path / "fresh"))


def test_a_disk_that_is_too_small_is_said_before_anything_is_read(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: _Free())
    with pytest.raises(OutputError, match=r"takes 0\.00 GB more, and 0\.00 GB are free; free some"):
        facts(samples_in(folder), tmp_path / "f")


class _Free:
    total = free = 100


def test_a_cache_that_may_not_hold_them_is_said(folder, monkeypatch):
    monkeypatch.setenv("IMGDATA_CACHE_GB", "0.0001")
    with pytest.raises(OutputError, match=r"the cache may hold 0\.00 GB; set IMGDATA_CACHE_GB"):
        facts(samples_in(folder))


def test_older_entries_of_the_cache_make_room(folder, monkeypatch, tmp_path):
    old = tmp_path / "cache" / "resident" / "old.npy"
    old.parent.mkdir(parents=True)
    old.write_bytes(bytes(100_000))
    os.utime(old, (1, 1))
    monkeypatch.setenv("IMGDATA_CACHE_GB", "0.0002")
    facts(samples_in(folder))
    assert not old.exists()


def test_a_folder_that_is_a_file_is_said(folder, tmp_path):
    (tmp_path / "f").write_text("")
    with pytest.raises(OutputError, match="can't be written"):
        facts(samples_in(folder), tmp_path / "f")


def test_a_shard_that_is_cut_short_ends_the_pass(tmp_path):
    folder = loaders.dataset(tmp_path, count=COUNT)
    samples = samples_in(folder)
    shard = sorted(folder.glob("*.tar"))[-1]
    os.truncate(shard, 2000)
    with pytest.raises(ShardError, match="cut short"):
        facts(samples, tmp_path / "f")


LITTLE_MEMORY = """
import resource, sys
import imgdata
from imgdata.auditing.facts import Path, facts
from imgdata.auditing.samples import samples_of
from imgdata.views import open_view

dataset = imgdata.open({folder!r})
small, samples = (samples_of([open_view(dataset, split)]) for split in ("train", "val"))
# What libraries set aside once is there before the limit.
facts(small, Path({work!r}), threads=1)
samples.array("width"), samples.array("size"), samples.words("format"), samples.texts("key", [0]), samples.read([0])
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
try:
    facts(samples, Path({work!r}), threads=1)
except imgdata.ImgdataError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_little_memory_is_one_message(tmp_path):
    from PIL import Image

    with imgdata.Writer(tmp_path / "out", classes=["a"]) as writer:
        writer.write(encode(photo(), "PNG"), 0, split="train")
        writer.write(encode(Image.new("L", (12_000, 12_000)), "PNG"), 0, split="val")
    code = LITTLE_MEMORY.format(folder=str(tmp_path / "out"), work=str(tmp_path / "f"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.stderr == ""
    assert done.stdout.startswith("not enough memory to decode one of the images")


# --- all pixels ----------------------------------------------------------------------------------------


def test_pixel_hashes_find_pictures_that_were_saved_anew(tmp_path):
    with imgdata.Writer(tmp_path / "out", classes=["a"]) as writer:
        for level in (1, 9):
            writer.write(encode(photo(), "PNG", compress_level=level), 0, split="train")
        writer.write(encode(photo().rotate(180), "PNG"), 0, split="train")
    _, counts = np.unique(pixel_hashes(samples_in(tmp_path / "out"), [0, 1, 2]), return_counts=True)
    assert sorted(counts.tolist()) == [1, 2]


def test_bad_images_have_no_pixel_hash(folder):
    assert pixel_hashes(samples_in(folder), [3, 4]).astype(bool).tolist() == [False, True]
