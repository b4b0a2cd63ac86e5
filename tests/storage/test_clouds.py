"""Google's and Azure's stores: what holds for S3 holds for them, down to the errors and the variables."""

import hashlib
import os
from dataclasses import replace

import pytest

import imgdata
from imgdata import ShardOptions
from imgdata.storage.remote import RemoteConflictError, RemoteMissingError, RemoteStore
from imgdata.storage.remote_environment import client_settings
from support.clouds import ACCOUNT, ACCOUNT_KEY, BUCKET, VARIABLES, cloud
from support.rawdata import class_folders
from support.remote_servers import Fault, faulty, impatient

DATA = bytes(range(256)) * 40
"""10,240 bytes."""
OPTIONS = ShardOptions(name="ds", shard_samples=10)


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Short pauses, small parts, and a cache folder of the test's own."""
    impatient(monkeypatch, tmp_path / "cache", tries=3, part_bytes=2**16, put_bytes=5 * 2**20)


@pytest.fixture(params=["gs", "az"])
def there(request, monkeypatch):
    """A folder in Google's store or Azure's."""
    folder = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]
    with cloud(request.param, folder, monkeypatch) as found:
        yield found


@pytest.fixture
def store(there):
    store = RemoteStore(there.url)
    store.put("a.tar", DATA)
    return store


@pytest.fixture
def spoilt(there, monkeypatch):
    """A function that puts a proxy with faults before the server."""
    with faulty(there.address) as proxy:

        def make(*faults):
            proxy.faults = list(faults)
            for variable, value in there.environment(proxy.endpoint).items():
                monkeypatch.setenv(variable, value)
            return proxy

        yield make


def test_objects_are_read_by_ranges_and_listed_with_their_facts(store):
    store.put("views/a b+ä%20.json", b"{}")
    assert store.read("a.tar", 500, 5000, etag=store.head("a.tar").etag) == DATA[500:5500]
    assert store.read("a.tar", 10_000, 5000) == DATA[10_000:]
    assert store.read("a.tar", 20_000, 10) == b""
    names = ["a.tar", "views/a b+ä%20.json"]
    assert store.list() == [store.head(name) for name in names]
    assert store.list("views/") == [store.head(names[1])]
    with pytest.raises(RemoteMissingError, match=r"none: no such object"):
        store.read("none")


def test_an_object_of_another_version_is_named(store):
    etag = store.list()[0].etag
    store.put("a.tar", DATA)
    with pytest.raises(imgdata.ShardError, match=r"a\.tar: changed while it was read \(another ETag\)"):
        store.read("a.tar", 0, 10, etag=etag)


def test_a_write_keeps_to_its_condition(store):
    first = store.head("a.tar")
    for condition in ({"only_if_absent": True}, {"if_match": '"another"'}):
        with pytest.raises(RemoteConflictError, match="there already, or changed meanwhile"):
            store.put("a.tar", b"new", **condition)
    assert store.head("a.tar") == first
    assert store.put("b", b"new", only_if_absent=True) == store.head("b")
    assert store.put("a.tar", b"new", if_match=first.etag) == store.head("a.tar")
    assert store.read("a.tar") == b"new"


def test_a_long_object_is_written_in_parts_copied_and_removed(store, tmp_path):
    (tmp_path / "shard.tar").write_bytes(DATA * 600)
    facts = store.put("shard.tar", tmp_path / "shard.tar")
    assert facts == store.head("shard.tar")
    copied = store.copy("shard.tar", "copy.tar")
    assert copied.size == facts.size
    assert store.read("copy.tar", facts.size - 10_000) == (DATA * 2)[-10_000:]
    for name in ("copy.tar", "copy.tar"):
        store.delete(name)
    assert [one.name for one in store.list()] == ["a.tar", "shard.tar"]


@pytest.mark.parametrize("fault", [Fault("status", status=503), Fault("reset"), Fault("cut")], ids=lambda one: one.kind)
def test_a_fault_that_passes_costs_another_try(store, spoilt, fault):
    proxy = spoilt(replace(fault, match="GET"))
    assert RemoteStore(store.url).read("a.tar", 0, 900) == DATA[:900]
    assert len(proxy.requests) == 2


HINT = {
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}


def test_what_is_denied_or_missing_is_one_line_at_once(there, store, spoilt):
    proxy = spoilt(*[Fault("status", 1, method, 403) for method in ("GET", "PUT")])
    spoilt_store = RemoteStore(there.url)
    with pytest.raises(imgdata.ShardError, match=f"a.tar: may not be read .*403.*{HINT[there.scheme]}"):
        spoilt_store.read("a.tar", 0, 10)
    with pytest.raises(imgdata.OutputError, match=f"b: may not be written .*403.*{HINT[there.scheme]}"):
        spoilt_store.put("b", b"data")
    other = RemoteStore(there.url.replace(BUCKET, "nothing"))
    for act in (other.list, lambda: other.read("a"), lambda: other.put("a", b"data")):
        with pytest.raises(RemoteMissingError, match=r"://nothing/.*no such object.*check the URL"):
            act()
    assert len(proxy.requests) == 5


def test_a_dataset_is_written_resumed_and_read_there(there, spoilt, tmp_path):
    raw = class_folders(tmp_path / "raw", {"train": 12, "val": 4})
    imgdata.shard(raw, tmp_path / "here", OPTIONS)
    proxy = spoilt(Fault("status", 99, "info", 503))
    with pytest.raises(imgdata.OutputError, match=r"_info\.json: can't be written, 3 tries"):
        imgdata.shard(raw, f"{there.url}/out", OPTIONS)
    proxy = spoilt()
    proxy.requests.clear()
    imgdata.shard(raw, f"{there.url}/out", OPTIONS)
    # What was uploaded is known by the ETags of a list.
    assert not [one for one in proxy.requests if one.startswith("PUT") and ".tar" in one.replace("%2E", ".")]
    store = RemoteStore(f"{there.url}/out")
    assert {one.name: store.read(one.name) for one in store.list()} == {
        path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()
    }
    assert imgdata.shard(raw, f"{there.url}/out", OPTIONS).already_complete
    assert imgdata.verify(store.url) == []
    here, far = imgdata.open(tmp_path / "here"), imgdata.open(store.url)
    assert list(far["train"]) == list(here["train"])
    with imgdata.Loader(far, split="train", batch_size=6, recipe=imgdata.recipes.imagenet_train(32)) as loader:
        assert sum(len(batch.labels) for batch in loader) == len(here["train"])


def test_raw_images_are_sharded_from_there(there, tmp_path):
    raw = class_folders(tmp_path / "raw", {"train": 6})
    store = RemoteStore(f"{there.url}/raw")
    for path in raw.rglob("*.*"):
        store.put(path.relative_to(raw).as_posix(), path)
    imgdata.shard(raw, tmp_path / "here", OPTIONS)
    imgdata.shard(store.url, tmp_path / "there", OPTIONS)
    tar = "ds-train-000000.tar"
    assert (tmp_path / "there" / tar).read_bytes() == (tmp_path / "here" / tar).read_bytes()


CONNECTION = "AZURE_STORAGE_CONNECTION_STRING"
WORDS = f"AccountName=n;AccountKey={ACCOUNT_KEY};BlobEndpoint=http://h:1/n;"
ALL = {"account_name": "n", "account_key": ACCOUNT_KEY, "endpoint": "http://h:1/n"}
MORE = {"AZURE_STORAGE_ENDPOINT": "https://h/", "AZURE_STORAGE_ACCOUNT_KEY": "k"}
AMAZON = {"AWS_ACCESS_KEY_ID": "i", "AWS_REGION": "r", "AWS_ENDPOINT_URL": "http://h"}
SETTINGS = {
    "nothing is said": ("gs", {}, {}, False),
    "another server than Google's": ("gs", {"GOOGLE_BASE_URL": "http://h:1"}, {}, True),
    "a connection string": ("az", {CONNECTION: WORDS}, ALL, True),
    "a variable hides a word of a connection string": (
        "abfss",
        {CONNECTION: WORDS, **MORE},
        {"account_name": "n"},
        False,
    ),
    "Azure's emulator": ("az", {CONNECTION: "UseDevelopmentStorage=true"}, {"use_emulator": True}, True),
    "the emulator by its own variable": ("az", {"AZURE_STORAGE_USE_EMULATOR": "true"}, {}, True),
    "another server than Azure's": ("az", {"AZURE_STORAGE_ENDPOINT": "http://h:1/n"}, {}, True),
    "an S3 server": ("s3", AMAZON, {"endpoint": "http://h"}, True),
    "a web server": ("https", {}, {}, False),
}


@pytest.mark.parametrize(("scheme", "variables", "settings", "plain"), SETTINGS.values(), ids=SETTINGS)
def test_variables_become_settings(scheme, variables, settings, plain):
    assert client_settings(scheme, None, variables) == (settings, plain)


UNUSABLE = {
    "a text that is no connection string": ("az", {CONNECTION: "hello"}, "AccountName=NAME;Acc"),
    "a key that is none": (
        "az",
        {"AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": "&"},
        "can't be opened .*Invalid Access Key.*AZURE_STORAGE_CONNECTION_STRING",
    ),
    "an account without a key": ("az", {"AZURE_STORAGE_ACCOUNT_NAME": "n"}, "no credentials found for az://"),
    "no key of Google's": ("gs", {"HOME": "/none"}, "no credentials found for gs://; set GOOGLE_APPLICATION_CRED"),
    "a file that is not there": ("gs", {"GOOGLE_APPLICATION_CREDENTIALS": "/none.json"}, "can't be opened .*none.json"),
}


@pytest.mark.parametrize(("scheme", "variables", "said"), UNUSABLE.values(), ids=UNUSABLE)
def test_variables_that_open_nothing_are_one_line(monkeypatch, scheme, variables, said):
    for variable in [variable for variable in os.environ if variable.startswith(VARIABLES)]:
        monkeypatch.delenv(variable)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(imgdata.ImgdataError, match=said) as raised:
        RemoteStore(f"{scheme}://{BUCKET}/ds").read("a")
    assert "\n" not in str(raised.value)
