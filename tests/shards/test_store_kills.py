"""Who writes to an object store is killed when a request is done; the same commands complete the dataset."""

import hashlib
import subprocess
import sys

import pytest

import imgdata
from imgdata.storage.remote import RemoteStore
from support.rawdata import encoded, pictures_of
from support.remote_servers import impatient

KILLED = """
import os, sys
import imgdata
from imgdata.storage.remote import RemoteStore

call, last = sys.argv[1:]
for method in ("put", "copy"):
    def ending(self, name, *words, real=getattr(RemoteStore, method), method=method, **options):
        done = real(self, name, *words, **options)
        if (words[0] if method == "copy" else name).endswith(last):
            os._exit(9)
        return done
    setattr(RemoteStore, method, ending)
exec(call)
"""
"""A program that ends, as when it is killed, as soon as an object of that name is written."""


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Short pauses, and a cache folder of the test's own."""
    impatient(monkeypatch, tmp_path / "cache", tries=2, stall_s=2.0)


def killed(call, last):
    assert subprocess.run([sys.executable, "-c", KILLED, call, last], check=False).returncode == 9


def objects(url):
    store = RemoteStore(url)
    return {facts.name: hashlib.sha256(store.read(facts.name)).hexdigest() for facts in store.list()}


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


STEPS = [
    ("part", "in-train-000002.tar"),
    ("finish", ".imgdata/plan.json"),
    ("finish", "in-train-000001.tar"),
    ("finish", "dataset.json"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("step", "last"), STEPS)
def test_parts_and_their_end_are_run_again(s3, tmp_path, step, last):
    """Two shards of six have no usable image, so that the others move up at the end."""
    folder = tmp_path / "in" / "a"
    folder.mkdir(parents=True)
    for number in range(6):
        (folder / f"{number}.jpg").write_bytes(b"" if number in (0, 3) else encoded(number))
    options = {"shard_samples": 1, "shuffle": False, "workers": 1}
    imgdata.shard(tmp_path / "in", tmp_path / "alone", **options)
    url = f"{s3.url}/out"
    imgdata.begin_parts(tmp_path / "in", url, **options)
    if step == "part":
        killed(f"imgdata.write_part({url!r}, 0, 1, workers=1)", last)
    imgdata.write_part(url, 0, 1, workers=1)
    if step == "finish":
        killed(f"imgdata.finish_parts({url!r})", last)
    imgdata.finish_parts(url)
    assert objects(url) == hashes(tmp_path / "alone")


@pytest.mark.slow
@pytest.mark.parametrize("last", ["in-train-000002.tar", "v2.index.parquet", "dataset.json"])
def test_an_append_is_run_again(s3, tmp_path, last):
    first = pictures_of(tmp_path / "first" / "in", {"train/cat": 4})
    more = pictures_of(tmp_path / "more" / "in", {"train/dog": 4}, first=100)
    url, options = f"{s3.url}/out", {"shard_samples": 2, "workers": 1}
    imgdata.shard(first, tmp_path / "alone", **options)
    s3.upload(tmp_path / "alone", "out")
    imgdata.shard(more, tmp_path / "alone", append=True, **options)
    killed(f"imgdata.shard({str(more)!r}, {url!r}, append=True, **{options!r})", last)
    assert imgdata.open(url).version == (2 if last == "dataset.json" else 1)
    imgdata.shard(more, url, append=True, **options)
    assert objects(url) == hashes(tmp_path / "alone")
