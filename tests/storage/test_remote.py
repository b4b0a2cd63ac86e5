"""Object stores: objects read by ranges, listed, written; what goes wrong on the way, and what is said of it."""

import os
import pickle
import sys
import threading
from dataclasses import replace
from functools import partial

import pytest

import imgdata
from imgdata.storage.remote import (
    RemoteConflictError,
    RemoteMissingError,
    RemoteSettings,
    RemoteStore,
    is_url,
    joined_ranges,
)
from support.patience import PATIENCE_S
from support.remote_servers import Fault, faulty, nginx, web_server

QUICK = RemoteSettings(part_bytes=1000, put_bytes=6 * 2**20, gap_bytes=100, backoff_s=0.001, tries=4, stall_s=5.0)
"""Small parts, short pauses."""
DATA = bytes(range(256)) * 40
"""10,240 bytes."""


@pytest.fixture
def store(s3):
    store = RemoteStore(f"{s3.url}/ds/", settings=QUICK)
    store.put("a.tar", DATA)
    return store


@pytest.fixture
def spoilt(store):
    """A function of faults: the same store behind a proxy that makes them, and the proxy."""
    opened = []

    def make(*faults, **settings):
        context = faulty(os.environ["AWS_ENDPOINT_URL"], *faults)
        proxy = context.__enter__()
        opened.append(context)
        return RemoteStore(store.url, endpoint=proxy.endpoint, settings=replace(QUICK, **settings)), proxy

    yield make
    for context in opened:
        context.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket/ds", True),
        ("s3:/bucket/ds", True),  # as `Path` makes it
        ("https://host/a b/", True),
        ("hf://datasets/a/b", True),
        ("/data/ds", False),
        ("ds", False),
        ("C:/ds", False),
        (None, False),
    ],
)
def test_a_url_is_told_from_a_path(text, expected):
    assert is_url(text) is expected


@pytest.mark.parametrize(
    ("offset", "size", "expected"),
    [
        (0, None, DATA),
        (7, None, DATA[7:]),
        (100, 50, DATA[100:150]),
        (500, 5000, DATA[500:5500]),  # in parts
        (10_000, 1000, DATA[10_000:]),  # the object ends before
        (20_000, 10, b""),
        (20_000, None, b""),
        (3, 0, b""),
    ],
)
def test_an_object_is_read_whole_or_in_part(store, offset, size, expected):
    assert store.read("a.tar", offset, size) == expected


def test_an_empty_object_is_read(store):
    store.put("empty", b"")
    assert store.read("empty") == b""
    assert store.head("empty").size == 0


def test_what_a_store_says_of_an_object(store):
    facts = store.head("a.tar")
    assert (facts.name, facts.size) == ("a.tar", len(DATA))
    assert store.fetch("a.tar", 5, 2) == (DATA[5:7], facts)
    assert store.list() == [facts]


def test_objects_of_a_folder_are_listed_by_name(store):
    for name in ("views/b.json", "views/a.json", "viewsx"):
        store.put(name, b"1")
    assert [one.name for one in store.list()] == ["a.tar", "views/a.json", "views/b.json", "viewsx"]
    assert [one.name for one in store.list("views/")] == ["views/a.json", "views/b.json"]
    assert store.list("none/") == []


def test_ranges_that_lie_close_together_come_by_one_request(spoilt):
    store, proxy = spoilt()
    ranges = [(5000, 10), (0, 100), (150, 100), (9000, 2), (150, 100), (4990, 30)]
    assert store.read_ranges("a.tar", ranges) == [DATA[offset : offset + size] for offset, size in ranges]
    assert len(proxy.requests) == 3


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([], []),
        ([(0, 10), (10, 10)], [(0, 20, [0, 1])]),
        ([(20, 10), (0, 10)], [(0, 30, [1, 0])]),  # a gap of 10
        ([(0, 10), (21, 10)], [(0, 10, [0]), (21, 31, [1])]),  # a gap of 11
        ([(0, 60), (60, 60)], [(0, 60, [0]), (60, 120, [1])]),  # more than 100 in all
        ([(0, 500)], [(0, 500, [0])]),
        ([(0, 50), (10, 10)], [(0, 50, [0, 1])]),
    ],
)
def test_how_ranges_are_joined(ranges, expected):
    assert joined_ranges(ranges, gap=10, most=100) == expected


def test_a_file_is_filled_with_a_whole_object(store, tmp_path):
    with open(tmp_path / "copy", "wb") as file:
        facts = store.copy_to(file.fileno(), "a.tar")
    assert (tmp_path / "copy").read_bytes() == DATA
    assert facts == store.head("a.tar")


def test_an_object_is_written_and_removed(store, tmp_path):
    (tmp_path / "file").write_bytes(b"from a file")
    assert store.put("x", b"abc").size == 3
    assert store.put("x", tmp_path / "file") == store.head("x")
    assert store.read("x") == b"from a file"
    store.delete("x")
    store.delete("x")
    with pytest.raises(RemoteMissingError):
        store.head("x")


def test_a_long_object_is_written_in_parts(spoilt, tmp_path):
    store, proxy = spoilt(part_bytes=8 * 2**20)
    data = os.urandom(13 * 2**20)
    (tmp_path / "shard.tar").write_bytes(data)
    store.put("shard.tar", tmp_path / "shard.tar")
    assert store.read("shard.tar") == data
    assert sum("partNumber" in request for request in proxy.requests) == 3


def test_it_can_be_pickled_and_used_in_threads(store):
    copy = pickle.loads(pickle.dumps(store))
    found = []
    threads = [threading.Thread(target=lambda: found.append(copy.read("a.tar"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [DATA] * 4


@pytest.mark.skipif(sys.platform != "linux", reason="forks are made on Linux only")
def test_a_fork_of_a_process_that_has_read_reads(store):
    store.read("a.tar")
    end, begin = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(begin, store.read("a.tar", 100, 10))
        finally:
            os._exit(0)
    os.close(begin)
    assert os.read(end, 100) == DATA[100:110]
    os.close(end)
    os.waitpid(child, 0)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", status=500),
        Fault("status", status=503, times=3),
        Fault("status", status=429),
        Fault("reset", times=2),
        Fault("cut"),
        Fault("cut", times=3),
    ],
    ids=lambda fault: f"{fault.kind} {fault.status} x{fault.times}",
)
def test_a_fault_that_passes_costs_another_try(spoilt, fault):
    store, proxy = spoilt(fault)
    assert store.read("a.tar", 0, 900) == DATA[:900]
    assert len(proxy.requests) > 1


def test_a_body_that_stops_is_asked_for_again(spoilt):
    store, _ = spoilt(Fault("stall"), stall_s=0.5)
    assert store.read("a.tar", 0, 900) == DATA[:900]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("status", times=9, status=500), r"ds/a.tar: can't be read, 4 tries in \d+ s \(.*500.*\); check the net"),
        (Fault("reset", times=9), r"ds/a.tar: can't be read, 4 tries in \d+ s"),
        (Fault("cut", times=9), r"ds/a.tar: can't be read, 4 tries in \d+ s"),
        (Fault("status", status=403), r"ds/a.tar: may not be read .*403.*set AWS_ACCESS_KEY_ID and"),
        (Fault("status", status=401), r"ds/a.tar: may not be read .*set AWS_ACCESS_KEY_ID and"),
        (Fault("status", status=404), r"ds/a.tar: no such object at http.*; check the URL"),
        (Fault("status", status=400), r"ds/a.tar: the request was refused .*400"),
        (Fault("status", status=412), r"ds/a.tar: changed while it was read \(another ETag\)"),
    ],
    ids=lambda value: f"{value.kind} {value.status}" if isinstance(value, Fault) else "",
)
def test_a_fault_that_stays_is_one_line(spoilt, fault, said):
    store, proxy = spoilt(fault)
    with pytest.raises(imgdata.ShardError, match=said) as raised:
        store.read("a.tar", 0, 900)
    assert "\n" not in str(raised.value)
    # What another try does not mend is not tried again.
    assert len(proxy.requests) == (4 if fault.times > 1 else 1)


@pytest.mark.parametrize("times", [0, 1])
def test_an_object_of_another_version_is_named(spoilt, store, times):
    etag = store.head("a.tar").etag
    store, _proxy = spoilt(Fault("etag", match="GET", times=times))
    read = partial(store.read, "a.tar", 0, 900, etag=etag if times else '"older"')
    with pytest.raises(imgdata.ShardError, match=r"ds/a.tar: changed while it was read \(another ETag\); open the"):
        read()


def test_a_version_that_changes_between_parts_is_found(spoilt):
    store, proxy = spoilt()
    proxy.faults = [Fault("etag", match="GET", times=1)]
    with pytest.raises(imgdata.ShardError, match=r"ds/a\.tar: changed while it was read"):
        store.read("a.tar")


def test_pauses_grow_and_are_bounded(s3):
    slept = []
    with faulty(s3.endpoint, Fault("status", times=9)) as proxy:
        settings = replace(QUICK, tries=6, backoff_s=1.0, max_backoff_s=3.0)
        store = RemoteStore(s3.url, endpoint=proxy.endpoint, settings=settings, sleep=slept.append)
        with pytest.raises(imgdata.ShardError, match="6 tries"):
            store.read("a")
    assert len(slept) == 5
    assert all(most / 2 <= pause <= most for pause, most in zip(slept, [1, 2, 3, 3, 3], strict=True))


def test_a_server_that_is_not_there_is_one_line(store):
    store = RemoteStore(store.url, endpoint="http://127.0.0.1:9", settings=QUICK)
    with pytest.raises(imgdata.ShardError, match=r"s3://.*a\.tar: can't be read, 4 tries") as raised:
        store.read("a.tar")
    assert "\n" not in str(raised.value)


def test_a_write_keeps_to_its_condition(store):
    first = store.head("a.tar")
    for condition in ({"only_if_absent": True}, {"if_match": '"another"'}):
        with pytest.raises(RemoteConflictError, match=r"ds/a\.tar: there already, or changed meanwhile"):
            store.put("a.tar", b"new", **condition)
    assert store.head("a.tar") == first
    assert store.put("b", b"new", only_if_absent=True) == store.head("b")
    assert store.put("a.tar", b"new", if_match=first.etag) == store.head("a.tar")
    assert store.read("a.tar") == b"new"


def test_an_upload_whose_answer_was_lost_is_done(spoilt):
    store, proxy = spoilt(Fault("lost", match="PUT"))
    assert store.put("new", b"abc", only_if_absent=True).size == 3
    assert store.read("new") == b"abc"
    assert sum(request.startswith("PUT") for request in proxy.requests) == 2


def test_an_upload_that_may_not_be_made_is_one_line(spoilt):
    store, _ = spoilt(Fault("status", status=403, match="PUT"))
    with pytest.raises(imgdata.OutputError, match=r"ds/x: may not be written .*set AWS_ACCESS_KEY_ID"):
        store.put("x", b"abc")


@pytest.mark.parametrize("etags", [True, False])
def test_a_web_server_is_read_by_ranges(tmp_path, etags):
    (tmp_path / "ds").mkdir()
    (tmp_path / "ds" / "a.tar").write_bytes(DATA)
    with web_server(tmp_path, etags=etags) as address:
        store = RemoteStore(f"{address}/ds", settings=QUICK)
        facts = store.head("a.tar")
        assert facts.etag
        assert store.read("a.tar", 500, 5000, etag=facts.etag) == DATA[500:5500]
        with pytest.raises(imgdata.ShardError, match="a web server does not list its files"):
            store.list()
        with pytest.raises(RemoteMissingError, match=r"ds/b\.tar: no such object; check the URL"):
            store.read("b.tar")


def test_nginx_is_read_by_ranges(tmp_path):
    (tmp_path / "files" / "ds").mkdir(parents=True)
    (tmp_path / "files" / "ds" / "a.tar").write_bytes(DATA)
    tmp_path.chmod(0o755)
    with nginx(tmp_path / "files", tmp_path) as address:
        store = RemoteStore(f"{address}/ds", settings=QUICK)
        assert store.read("a.tar", 500, 5000, etag=store.head("a.tar").etag) == DATA[500:5500]


def test_other_urls_go_through_fsspec(tmp_path):
    pytest.importorskip("fsspec")
    store = RemoteStore(f"file://{tmp_path}", settings=QUICK)
    store.put("views/a", b"0123456789")
    assert store.read("views/a", 2, 3) == b"234"
    assert [(one.name, one.size) for one in store.list()] == [("views/a", 10)]
    assert store.head("views/a").etag
    with pytest.raises(RemoteMissingError):
        store.read("none")
    store.delete("views/a")
    assert store.list() == []


def test_without_obstore_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(imgdata.MissingExtraError, match=r"object stores need obstore: pip install 'imgdata\[remote\]'"):
        RemoteStore("s3://bucket/ds").read("a")


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", status=403, match="partNumber=2"),
        Fault("status", status=500, match="partNumber=2", times=99),
        Fault("status", status=400, match="partNumber=1"),
        Fault("status", status=403, match="?uploadId"),
    ],
    ids=lambda fault: f"{fault.kind} {fault.status} {fault.match}",
)
def test_parts_of_an_upload_that_fails_are_removed(spoilt, fault, tmp_path):
    (tmp_path / "shard.tar").write_bytes(bytes(13 * 2**20))
    store, proxy = spoilt(replace(fault))
    with pytest.raises(imgdata.OutputError, match=r"ds/shard\.tar: (may not|can't) be written|the request was refused"):
        store.put("shard.tar", tmp_path / "shard.tar")
    assert any(request.startswith("DELETE") and "uploadId" in request for request in proxy.requests)
    with pytest.raises(RemoteMissingError):
        store.head("shard.tar")


def test_a_part_of_an_upload_is_tried_again(spoilt, tmp_path):
    data = os.urandom(13 * 2**20)
    (tmp_path / "shard.tar").write_bytes(data)
    store, proxy = spoilt(Fault("status", status=500, match="partNumber=2"), Fault("reset", match="partNumber=3"))
    store.put("shard.tar", tmp_path / "shard.tar")
    assert not any(fault.times for fault in proxy.faults)
    assert sum("partNumber=1" in request for request in proxy.requests) == 1
    assert RemoteStore(store.url).read("shard.tar") == data


@pytest.mark.parametrize(
    "faults",
    [
        [Fault("silent", match="partNumber=2"), Fault("silent", match="?uploadId")],
        [Fault("status", status=500, match="?uploadId"), Fault("lost", match="?uploadId")],
    ],
    ids=["answers that never come", "the last request"],
)
def test_an_upload_in_parts_outlives_faults_that_pass(spoilt, tmp_path, faults):
    data = os.urandom(7 * 2**20)
    (tmp_path / "shard.tar").write_bytes(data)
    store, proxy = spoilt(*map(replace, faults), stall_s=1.0)
    store.put("shard.tar", tmp_path / "shard.tar")
    assert not any(fault.times for fault in proxy.faults)
    assert RemoteStore(store.url).read("shard.tar") == data


def test_who_waits_can_give_up(store):
    began, ended = threading.Event(), threading.Event()

    def work(number):
        began.set()
        ended.wait(PATIENCE_S)

    with pytest.raises(imgdata.ShardError, match="reading was given up"):
        store.in_parallel(work, 3, given_up=began.is_set)
    ended.set()


def test_the_first_error_of_several_requests_is_raised(store):
    def work(number):
        if number == 5:
            raise imgdata.ShardError("the sixth")

    with pytest.raises(imgdata.ShardError, match="the sixth"):
        store.in_parallel(work, 100)
