"""A dataset by its URL: the samples, batches and messages of the same dataset in a folder."""

import os
import pickle
import sys
import threading

import numpy as np
import pytest

import imgdata
from imgdata.storage import remote
from support.animals import animals
from support.patience import PATIENCE_S, settles
from support.remote_servers import Fault, faulty, impatient, web_server


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return animals(tmp_path_factory.mktemp("animals"))


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Short pauses, and a cache folder of the test's own."""
    impatient(monkeypatch, tmp_path / "cache", tries=3)
    monkeypatch.setenv("IMGDATA_DATA", str(tmp_path / "data"))


@pytest.fixture
def url(s3, folder):
    return s3.upload(folder, "animals")


def epoch(source, recipe=None, **options):
    recipe = recipe or imgdata.recipes.imagenet_train(32)
    # The order of a folder: that of a store is by windows of shards.
    options = {"shuffle": "global", **options}
    with imgdata.Loader(source, split="train", recipe=recipe, batch_size=6, **options) as loader:
        return [(batch.images.numpy().copy(), batch.labels.numpy().copy()) for batch in loader]


def test_samples_are_those_of_the_folder(url, folder):
    here, there = imgdata.open(folder), imgdata.open(url)
    assert repr(there) == repr(here)
    for split in here:
        assert [sample == other for sample, other in zip(there[split], here[split], strict=True)] == [True] * len(
            here[split]
        )
    assert there["train"].verified(3) == here["train"].read(3)
    assert str(there.path) == url
    assert str(there["train"].file(0)) == f"{url}/animals-train-000000.tar"


@pytest.mark.parametrize("backend", ["cpu", "dali", "resident"])
def test_batches_are_those_of_the_folder(url, folder, backend):
    if backend == "dali":
        pytest.importorskip("nvidia.dali")
    recipe = imgdata.recipes.imagenet_eval(32, 36) if backend == "resident" else None
    here, there = (epoch(one, recipe, backend=backend) for one in (folder, url))
    for (images, labels), (others, other_labels) in zip(here, there, strict=True):
        assert np.array_equal(images, others)
        assert np.array_equal(labels, other_labels)


def test_views_of_each_picture_are_those_of_the_folder(url, folder):
    recipe = imgdata.recipes.views(3, imgdata.recipes.imagenet_train(32))

    def batches(source):
        with imgdata.Loader(source, split="train", recipe=recipe, batch_size=6, shuffle="global") as loader:
            return [np.stack([view.numpy() for view in batch.images]) for batch in loader]

    assert all(np.array_equal(one, other) for one, other in zip(batches(folder), batches(url), strict=True))


def test_one_sample_is_one_request_and_a_batch_few(url):
    with faulty(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint
        split = imgdata.open(url)["train"]
        split.read(0)
        asked = len(proxy.requests)
        split.read(7)
        assert len(proxy.requests) == asked + 1
        epoch(url)
        tars = [request for request in proxy.requests[asked + 1 :] if ".tar" in request]
        # 20 images in 4 shards, 4 batches: those of a batch that lie close together come at once.
        assert len(tars) <= 16


def test_small_files_are_copied_once(url):
    imgdata.open(url)
    with faulty(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint
        imgdata.open(url)
        assert not [request for request in proxy.requests if "GET" in request and "index.parquet" in request]


def test_a_split_can_be_pickled(url):
    split = imgdata.open(url)["train"]
    assert pickle.loads(pickle.dumps(split)).read(2) == split.read(2)


def test_workers_of_a_data_loader_read(url, folder):
    import torch

    here, there = (imgdata.open(one).torch("train", lambda image: image.size[0]) for one in (folder, url))
    there[0]
    loader = torch.utils.data.DataLoader(there, batch_size=5, num_workers=2, multiprocessing_context="fork")
    assert [size for sizes, _ in loader for size in sizes.tolist()] == [here[i][0] for i in range(len(here))]


def test_a_shard_that_is_replaced_in_the_middle_is_named(url, s3):
    split = imgdata.open(url)["train"]
    split.read(0)
    remote.RemoteStore(url).put("animals-train-000000.tar", b"x" * 100_000)
    with pytest.raises(imgdata.ShardError, match=r"animals-train-000000\.tar: changed while it was read"):
        split.read(1)


def test_a_shard_that_is_missing_or_cut_short_is_named(url):
    store = remote.RemoteStore(url)
    store.put("animals-train-000001.tar", store.read("animals-train-000001.tar", 0, 3000))
    store.delete("animals-train-000002.tar")
    split = imgdata.open(url)["train"]
    with pytest.raises(imgdata.ShardError, match=r"animals-train-000001\.tar: cut short at byte 3000"):
        [split.read(i) for i in range(6, 12)]
    with pytest.raises(imgdata.ShardError, match=r"animals-train-000002\.tar: no such object"):
        split.read(12)
    with pytest.raises(imgdata.ShardError, match=r"animals-train-00000[12]\.tar: (cut short|no such object)"):
        epoch(url)


def test_an_epoch_survives_faults_that_pass(url, folder):
    faults = [Fault("status", match=".tar"), Fault("reset", match=".tar"), Fault("cut", match=".tar")]
    with faulty(os.environ["AWS_ENDPOINT_URL"], *faults) as proxy:
        os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint
        batches = epoch(url)
        assert not any(fault.times for fault in proxy.faults)
    assert all(np.array_equal(one[0], other[0]) for one, other in zip(batches, epoch(folder), strict=True))


def test_a_place_without_a_dataset_is_one_line(s3):
    with pytest.raises(
        imgdata.ShardError, match=r"none/dataset\.json: no such object.*`imgdata shard SOURCE OUT`"
    ) as e:
        imgdata.open(f"{s3.url}/none")
    assert "\n" not in str(e.value)


def test_several_that_open_a_dataset_at_a_time_read_its_index_once(folder):
    with web_server(folder.parent) as address, faulty(address, latency_s=0.02) as proxy:
        url = f"{proxy.endpoint}/{folder.name}"
        threads = [threading.Thread(target=imgdata.open, args=[url]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        read = [one for one in proxy.requests if one.startswith("GET") and "animals-train.index" in one]
    assert len(read) == 1


def test_a_web_server_will_do(folder):
    with web_server(folder) as address:
        assert imgdata.open(address)["train"].read(3) == imgdata.open(folder)["train"].read(3)
        assert len(epoch(address)) == 3


def test_a_view_is_kept_on_this_machine(url):
    dataset = imgdata.open(url)
    view = imgdata.open_view(dataset, "train", "fraction=0.5")
    path = imgdata.save_view(view, "half")
    assert path.exists()
    again = imgdata.open_view(imgdata.open(url), "train", "half")
    assert np.array_equal(again.position_N, view.position_N)
    assert [request.name for request in remote.RemoteStore(url).list("views/")] == []


def test_views_of_the_dataset_are_found(s3, folder, tmp_path):
    url = s3.upload(folder, "animals")
    imgdata.save_view(imgdata.open_view(imgdata.open(url), "train", "fraction=0.5"), "half")
    kept = next((tmp_path / "data").rglob("half.json"))
    remote.RemoteStore(url).put("views/half.json", kept.read_bytes())
    kept.unlink()
    assert len(imgdata.open_view(imgdata.open(url), "train", "half").position_N) == 10


def test_raw_images_are_not_read_from_a_url(s3):
    with pytest.raises(imgdata.OptionError, match="raw images are not read from a URL"):
        imgdata.open(s3.url, imgdata.SourceOptions())


def test_webdataset_reads_the_shards_of_a_web_server(folder):
    with web_server(folder) as address:
        split = imgdata.open(address)["train"]
        found = {sample["__key__"]: sample["jpg"] for sample in split.webdataset()}
        assert len(found) == 20
        assert found[split[4].key] == split.read(4)


def test_webdataset_reads_a_bucket_through_a_pipe(url, folder):
    import webdataset

    # What users of other stores write: a program of theirs that prints an object.
    program = (
        "import sys; from imgdata.storage.remote import RemoteStore; "
        "sys.stdout.buffer.write(RemoteStore(sys.argv[1]).read(sys.argv[2]))"
    )
    split = imgdata.open(url)["train"]
    shards = [f"pipe:{sys.executable} -c '{program}' {url} {path.name}" for path in split.shards]
    found = [sample["__key__"] for sample in webdataset.WebDataset(shards, shardshuffle=False)]
    assert found == [split[i].key for i in range(20)]


def test_hugging_face_reads_the_shards_of_a_web_server(folder):
    datasets = pytest.importorskip("datasets")
    with web_server(folder) as address:
        shards = [str(path) for path in imgdata.open(address)["train"].shards]
        stream = datasets.load_dataset("webdataset", data_files={"train": shards}, split="train", streaming=True)
        assert [row["__key__"] for row in stream] == [sample.key for sample in imgdata.open(folder)["train"]]


def test_timm_reads_the_shards_of_a_web_server(folder):
    create_dataset = pytest.importorskip("timm.data").create_dataset
    with web_server(folder) as address:
        found = create_dataset("wds/animals", root=address, split="train", is_training=False, batch_size=5)
        labels = sorted(label for _, label in found)
    assert labels == sorted(imgdata.open(folder)["train"].index.label_N.tolist())


def test_what_reads_files_of_this_machine_says_so(url):
    pytest.importorskip("nvidia.dali")
    with pytest.raises(
        imgdata.OptionError, match=r"in an object store, and DALI's pipeline reads files; copy the data"
    ):
        imgdata.dali_pipeline(url, split="train", batch_size=5, device="cpu")


def test_a_loader_that_waits_for_a_store_can_be_closed(url):
    with faulty(os.environ["AWS_ENDPOINT_URL"], Fault("stall", match=".tar", times=99)) as proxy:
        os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint
        loader = imgdata.Loader(url, split="train", recipe=imgdata.recipes.imagenet_train(32), batch_size=6)
        ended = []

        def wait():
            try:
                next(iter(loader))
            except imgdata.OptionError as error:
                ended.append(str(error))

        waiting = threading.Thread(target=wait)
        waiting.start()
        assert settles(lambda: any(".tar" in request for request in proxy.requests), True)
        loader.close()
        waiting.join(PATIENCE_S)
    assert ended == ["this loader is closed; make another Loader"]
