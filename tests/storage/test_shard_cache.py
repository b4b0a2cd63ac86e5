"""The cache of shards: the bytes of the store, none of them twice, nothing left behind, no wait without an end."""

import contextlib
import errno
import fcntl
import hashlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import imgdata
from imgdata.storage import shard_cache, shard_shelves
from imgdata.storage.atomic import pread
from imgdata.storage.cache_folder import CacheWarning, cache_entries
from imgdata.storage.remote_folder import RemoteFolder
from imgdata.storage.shard_cache import ShardCache
from imgdata.storage.shard_keeping import shard_key
from imgdata.storage.shard_parts import BLOCK, MISSING, THERE, OpenShard, RemoteShard, runs
from imgdata.storage.shard_shelves import Place
from imgdata.storage.shard_state import CacheSettings, Need
from support.patience import PATIENCE_S
from support.remote_servers import Fault, faulty, impatient, web_server

SIZE = 300_000
COUNT = 5


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Short pauses, small requests, and a cache folder of the test's own."""
    impatient(monkeypatch, tmp_path / "cache", tries=2, part_bytes=2 * BLOCK)
    monkeypatch.setattr(shard_cache, "_AGAIN_S", 0.01)


@pytest.fixture
def site(tmp_path):
    """The folder of a web server with shards of random bytes, and its address."""
    folder = tmp_path / "site"
    folder.mkdir()
    for number in range(COUNT):
        (folder / name(number)).write_bytes(np.random.Philox(key=[0, number]).random_raw(SIZE // 8).tobytes())
    with web_server(folder) as address:
        yield folder, address


def name(number: int) -> str:
    return f"x-{number}.tar"


def open_cache(site, *, hash="sha256", limit=10 * SIZE, memory=False, address=None) -> ShardCache:
    folder, url = site
    digest = {"sha256": lambda data: hashlib.sha256(data).hexdigest(), "none": lambda data: ""}[hash]
    shards = [
        RemoteShard(name=path.name, size=SIZE, hash=hash, digest=digest(path.read_bytes()))
        for path in sorted(folder.glob("*.tar"))
    ]
    return ShardCache(RemoteFolder(address or url), shards, CacheSettings(limit=limit, memory=memory))


def plan(cache, *numbers):
    cache.plan(iter([[Need(name(number), at, at) for at, number in enumerate(numbers)]]))


def read(cache, number, offset=0, size=SIZE):
    """The bytes that a batch would read; None where the cache says to read a range."""
    files, tasks = cache.lend({name(number): [(offset, size)]})
    try:
        for task in tasks:
            task()
        return pread(files[name(number)], size, offset) if files else None
    finally:
        for file in files.values():
            cache.release(file)
        cache.lent(0.0, 0)


def until(condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.005)


def kept(pattern="*.tar"):
    return sorted((Path(os.environ["IMGDATA_CACHE"]) / "shards").glob(pattern))


def fill(cache, *numbers):
    """Let the cache fetch these shards, and end."""
    plan(cache, *numbers)
    read(cache, numbers[0], 0, 10)
    until(
        lambda: (
            {one.name for one in kept()} >= {f"{shard_key(cache.folder, cache.shards[name(n)])}.tar" for n in numbers}
        )
    )


@pytest.mark.parametrize("memory", [False, True])
def test_bytes_are_those_of_the_store_and_come_once(site, memory):
    with faulty(site[1]) as proxy:
        cache = open_cache(site, memory=memory, address=proxy.endpoint)
        plan(cache, 0, 1, 2)
        for number in (0, 1, 2, 0, 1, 2):
            for offset in (200_000, 10, 130_000):
                data = (site[0] / name(number)).read_bytes()[offset : offset + 50_000]
                assert read(cache, number, offset, 50_000) == data
        until(lambda: cache.facts.fetched_bytes == 3 * SIZE)
        until(lambda: len(kept()) == (0 if memory else 3))
        asked = [request.split("bytes=")[1] for request in proxy.requests if "x-0.tar" in request]
        starts, ends = zip(*sorted(tuple(map(int, one.split("-"))) for one in asked), strict=True)
        assert [end + 1 for end in ends[:-1]] == list(starts[1:])
        cache.close()
    assert bool(kept()) is not memory


def test_what_is_kept_needs_no_request_in_another_process_either(site):
    fill(open_cache(site), 0, 1)
    with faulty(site[1]) as proxy:
        cache = open_cache(site, address=proxy.endpoint)
        assert read(cache, 1) == (site[0] / name(1)).read_bytes()
        assert proxy.requests == []
    assert (cache.facts.hits, cache.facts.images) == (1, 1)
    assert "100 % hits" in repr(cache)


def test_a_shard_is_one_file_whatever_the_name_of_its_dataset(site):
    fill(open_cache(site), 0)
    other = RemoteFolder("http://127.0.0.1:9/another")
    cache = ShardCache(other, [replace(open_cache(site).shards[name(0)], name="other.tar")], CacheSettings())
    files, tasks = cache.lend({"other.tar": [(0, 10)]})
    assert pread(files["other.tar"], 10, 0) == (site[0] / name(0)).read_bytes()[:10]
    assert not tasks


def test_shards_without_a_hash_are_named_by_their_version(site):
    fill(open_cache(site, hash="none"), 0)
    (site[0] / name(0)).write_bytes(b"y" * SIZE)
    cache = open_cache(site, hash="none")
    plan(cache, 0)
    assert read(cache, 0, 5, 10) == b"y" * 10


def test_a_shard_that_is_not_what_dataset_json_names_is_an_error_and_not_kept(site):
    cache = open_cache(site)
    (site[0] / name(1)).write_bytes(b"y" * SIZE)
    plan(cache, 1, 0)
    read(cache, 1)
    with pytest.raises(imgdata.ShardError, match=r"x-1\.tar: not the shard that dataset\.json names"):
        until(lambda: read(cache, 1) is None)
    cache.close()
    until(lambda: not kept("*.tmp"))
    assert not [path for path in kept() if cache.shards[name(1)].digest in path.name]


def test_a_shard_that_changes_in_the_middle_is_named(site):
    cache = open_cache(site)
    cache.plan(iter([]))
    plan(cache, 0)
    files, tasks = cache.lend({name(0): [(0, 10)]})
    [task() for task in tasks]
    (site[0] / name(0)).write_bytes(b"y" * SIZE)
    with pytest.raises(imgdata.ShardError, match=r"x-0\.tar: changed while it was read"):
        read(cache, 0)
    [cache.release(file) for file in files.values()]
    cache.close()
    until(lambda: [path.name for path in kept("*")] == ["room.lock"])


def test_a_part_of_a_file_is_not_read_as_a_whole_one(site):
    fill(open_cache(site), 0)
    (path,) = kept()
    os.truncate(path, SIZE - 1)
    cache = open_cache(site)
    assert read(cache, 0) is None
    path.unlink()
    plan(cache, 0)
    assert read(cache, 0) == (site[0] / name(0)).read_bytes()


def test_those_that_were_used_least_recently_make_room(site):
    cache = open_cache(site, limit=2 * SIZE)
    fill(cache, 0, 1)
    cache.close()
    paths = {number: kept(f"*{open_cache(site).shards[name(number)].digest}*")[0] for number in (0, 1)}
    os.utime(paths[0], (1, 1))
    fill(open_cache(site, limit=2 * SIZE), 2)
    assert not paths[0].exists()
    assert paths[1].exists()


def test_what_is_in_use_is_not_removed_and_the_rest_is_read_by_ranges(site):
    first = open_cache(site, limit=2 * SIZE)
    plan(first, 0, 1)
    until(lambda: read(first, 0) and read(first, 1) and len(kept()) == 2)
    second = open_cache(site, limit=2 * SIZE)
    plan(second, 2)
    assert read(second, 2) is None
    assert len(kept()) == 2
    first.passed(100)
    until(lambda: read(second, 2) is not None)


def test_two_jobs_with_different_limits_go_on(site):
    large, small = open_cache(site, limit=4 * SIZE), open_cache(site, limit=SIZE)
    for cache in (large, small):
        plan(cache, 0, 1, 2, 3)
    for number in (0, 1, 2, 3):
        data = (site[0] / name(number)).read_bytes()
        assert {read(cache, number) for cache in (large, small)} <= {data, None}
    large.close()
    small.close()
    assert kept("*.tmp") == []


def test_files_of_others_stay(site):
    folder = Path(os.environ["IMGDATA_CACHE"])
    (folder / "shards").mkdir(parents=True)
    for path in (folder / "mine.bin", folder / "shards" / "mine.txt"):
        path.write_bytes(b"x" * SIZE)
    fill(open_cache(site, limit=SIZE), 0)
    fill(open_cache(site, limit=SIZE), 1)
    assert len(kept()) == 1
    assert (folder / "mine.bin").exists()
    assert (folder / "shards" / "mine.txt").exists()
    assert all((site[0] / name(number)).exists() for number in range(COUNT))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_full_disk_is_one_warning_and_ranges(site, monkeypatch, code):
    def full(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", full)
    cache = open_cache(site)
    plan(cache, 0, 1)
    assert read(cache, 0) is None
    with pytest.warns(CacheWarning, match="read by ranges") as found:
        assert read(cache, 0) is None
    assert read(cache, 1) is None
    assert len(found) == 1
    cache.close()
    assert kept("*.t*") == []


def test_after_close_nothing_unfinished_is_left(site):
    with faulty(site[1], latency_s=0.01) as proxy:
        cache = open_cache(site, address=proxy.endpoint)
        plan(cache, *range(COUNT))
        read(cache, 0, 0, 10)
        # Though blocks are still coming: the program may end now.
        assert kept("*.tmp") != []
        cache.close()
        assert kept("*.tmp") == []


def test_a_cache_that_nobody_has_any_more_lets_go(site):
    cache = open_cache(site)
    plan(cache, *range(COUNT))
    read(cache, 0, 0, 10)
    del cache
    until(lambda: not kept("*.tmp"))
    fill(open_cache(site, limit=SIZE), 4)


def begin_and_hang(site):
    cache = open_cache(site)
    plan(cache, 0)
    _, tasks = cache.lend({name(0): [(0, 10)]})
    [task() for task in tasks]
    Path(os.environ["IMGDATA_CACHE"], "begun").touch()
    time.sleep(10 * PATIENCE_S)


def test_what_a_killed_process_left_is_removed_and_fetched_again(site, tmp_path):
    process = multiprocessing.get_context("fork").Process(target=begin_and_hang, args=(site,), daemon=True)
    process.start()
    until((tmp_path / "cache" / "begun").exists)
    cache = open_cache(site)
    plan(cache, 0)
    # Another process fetches it: this one does not wait, and reads ranges.
    assert read(cache, 0) is None
    os.kill(process.pid, signal.SIGKILL)
    process.join(PATIENCE_S)
    assert len(kept("*.tmp")) == 1
    until(lambda: read(cache, 0) == (site[0] / name(0)).read_bytes())
    until(lambda: len(kept()) == 1 and not kept("*.tmp"))


def test_a_lock_that_another_process_holds_for_long_is_no_deadlock(site, monkeypatch, tmp_path):
    monkeypatch.setattr(shard_shelves, "_WAIT_S", 0.01)
    (tmp_path / "cache" / "shards").mkdir(parents=True)
    with open(tmp_path / "cache" / "shards" / "room.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        cache = open_cache(site)
        plan(cache, 0)
        assert read(cache, 0) is None


def test_errors_of_a_request_are_raised_where_the_bytes_are_needed(site):
    with faulty(site[1], Fault("status", times=10**6, match="x-1.tar")) as proxy:
        cache = open_cache(site, address=proxy.endpoint)
        plan(cache, 0, 1, 2)
        until(lambda: read(cache, 0) == (site[0] / name(0)).read_bytes())
        with pytest.raises(imgdata.ShardError, match=r"x-1\.tar: can't be read, 2 tries"):
            read(cache, 1)
        proxy.faults.clear()
        assert read(cache, 1) == (site[0] / name(1)).read_bytes()


def read_in_child(cache, queue):
    queue.put(read(cache, 0))


@pytest.mark.parametrize("memory", [False, True])
def test_a_fork_has_files_and_threads_of_its_own(site, memory):
    cache = open_cache(site, memory=memory)
    plan(cache, 0, 1)
    files, tasks = cache.lend({name(0): [(0, 10)]})
    [task() for task in tasks]
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=read_in_child, args=(cache, queue), daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    found = queue.get()
    process.join(PATIENCE_S)
    assert process.exitcode == 0
    assert found in (None, (site[0] / name(0)).read_bytes())
    assert pread(files[name(0)], 10, 0) == (site[0] / name(0)).read_bytes()[:10]
    cache.release(files[name(0)])


def test_a_cache_can_be_pickled(site):
    cache = open_cache(site)
    fill(cache, 0)
    assert read(pickle.loads(pickle.dumps(cache)), 0) == (site[0] / name(0)).read_bytes()


def test_shards_are_entries_of_the_cache_folder(site):
    fill(open_cache(site), 0)
    assert [entry.what for entry in cache_entries()] == ["shard of a remote dataset"]


@pytest.mark.parametrize(
    ("blocks", "most", "expected"),
    [
        ([], 4, []),
        ([3], 4, [(3, 4)]),
        ([0, 1, 2, 3, 4], 2, [(0, 2), (2, 4), (4, 5)]),
        ([0, 1, 5, 6, 9], 9, [(0, 2), (5, 7), (9, 10)]),
    ],
)
def test_neighbours_are_one_request(blocks, most, expected):
    assert runs(np.array(blocks, np.int64), most) == expected


def rank_of_many(site, rank, results):
    with contextlib.suppress(imgdata.ShardError):
        cache = open_cache(site, limit=3 * SIZE)
        plan(cache, *range(COUNT))
        right = 0
        for at in range(4 * COUNT):
            number = (at // 4 + rank) % COUNT
            data = read(cache, number, 1000 * (rank % 50), 5000)
            whole = (site[0] / name(number)).read_bytes()
            right += data is None or data == whole[1000 * (rank % 50) :][:5000]
        cache.close()
        results.put(right)


@pytest.mark.slow
def test_sixty_four_ranks_share_one_cache(site):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=rank_of_many, args=(site, rank, results), daemon=True) for rank in range(64)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        [process.start() for process in processes]
    assert [results.get(timeout=4 * PATIENCE_S) for _ in processes] == [4 * COUNT] * 64
    [process.join(PATIENCE_S) for process in processes]
    assert {process.exitcode for process in processes} == {0}
    assert kept("*.tmp") == []
    assert sum(path.stat().st_size for path in kept()) <= 3 * SIZE


@pytest.mark.parametrize(
    ("there", "wanted", "gap", "expected"),
    [
        ("", [1, 2, 4, 9], 0, [(1, 3), (4, 5), (9, 10)]),
        ("", [1, 2, 4, 9], 1, [(1, 5), (9, 10)]),
        ("", [1, 2, 4, 9], 4, [(1, 7), (9, 10)]),  # six blocks are the most
        ("3", [1, 2, 4, 9], 4, [(1, 3), (4, 10)]),  # nothing comes twice
        ("24", [1, 2, 4, 9], 4, [(1, 2), (9, 10)]),
        ("1249", [1, 2, 4, 9], 4, []),
    ],
)
def test_what_lies_between_two_blocks_comes_with_them(there, wanted, gap, expected):
    block_B = np.full(12, MISSING, np.uint8)
    block_B[[int(number) for number in there]] = THERE
    about = RemoteShard(name="x", size=12 * BLOCK)
    shard = OpenShard(about, Place("x", 12 * BLOCK, -1), block_B, 0)
    found = iter(lambda: shard.claim(np.array(wanted), 6 * BLOCK, gap), None)
    assert list(found) == expected


def test_other_batches_wait_for_the_first_one(site):
    with faulty(site[1]) as proxy:
        cache = open_cache(site, address=proxy.endpoint)
        plan(cache, 0, 1)
        first_files, first = cache.lend({name(0): [(0, 10)]})
        second_files, second = cache.lend({name(1): [(0, 10)]})
        waiting = [threading.Thread(target=task, daemon=True) for task in second[:1]]
        [one.start() for one in waiting]
        [task() for task in first]
        assert not any("x-1.tar" in request for request in proxy.requests)
        cache.lent(0.0, 0)
        [one.join(PATIENCE_S) for one in waiting]
        assert any("x-1.tar" in request for request in proxy.requests)
        assert [cache.release(file) for file in (*first_files.values(), *second_files.values())] == [True, True]
        cache.close()
