"""The folders that `shard` and `index` make, read by the tools they are made for.

Each sees the same number of samples, keys, bytes and labels in each split.
"""

import subprocess
import warnings

import pytest

import imgdata
from imgdata import ShardOptions
from support.rawdata import encoded
from support.tars import dataset, webdataset_samples

SPLITS = {"train": 12, "val": 5}


@pytest.fixture(scope="module", params=["shard", "index"])
def folder(request, tmp_path_factory):
    """A finished folder in shards of five samples, from our writer or from webdataset's."""
    work = tmp_path_factory.mktemp("demo")
    if request.param == "index":
        return dataset(work, SPLITS)
    for split, count in SPLITS.items():
        for i in range(count):
            path = work / "raw" / split / str(i % 3) / f"{i:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(i, (32 + i % 7, 24)))
    imgdata.shard(work / "raw", work / "out", ShardOptions(name="demo", shard_samples=5), workers=1)
    return work / "out"


def test_croissant_is_valid_and_joins_images_with_labels(folder, monkeypatch, tmp_path):
    mlcroissant = pytest.importorskip("mlcroissant")
    monkeypatch.setattr("mlcroissant._src.operation_graph.operations.extract.EXTRACT_PATH", _epath(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = mlcroissant.Dataset(jsonld=str(folder / "croissant.json"))
        issues = found.metadata.issues
        assert not issues.errors
        assert all("is recommended" in warning for warning in issues.warnings)
        for name, split in imgdata.open(folder).items():
            records = {record[f"{name}/key"].decode(): record for record in found.records(name)}
            assert sorted(records) == sorted(split.index.column("key").to_pylist())
            for sample, row in ((sample, records[sample.key]) for sample in split):
                assert row[f"{name}/label"] == sample.label
                assert row[f"{name}/image"].size == (row[f"{name}/width"], row[f"{name}/height"])
    classes = [(row["classes/index"], row["classes/id"]) for row in found.records("classes")]
    assert classes == [(0, "0"), (1, "1"), (2, "2")]


def _epath(path):
    from etils import epath

    return epath.Path(path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("split", SPLITS)
def test_timm_reads_the_same_samples(folder, split):
    timm_data = pytest.importorskip("timm.data")
    found = timm_data.create_dataset("wds/demo", root=str(folder), split=split, is_training=False)
    expected = imgdata.open(folder)[split]
    assert len(found) == len(expected)
    assert [(image.size, label) for image, label in found] == [
        ((row.width, row.height), row.label) for row in map(expected.index.row, range(len(expected)))
    ]


TIMM_OPTIONS = {"dataset", "data-dir", "train-split", "val-split", "num-classes", "workers"}
"""Options of timm's `train.py` and `validate.py` that a card may name; the scripts are no part of its package."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_timm_command_of_the_card_names_options_splits_and_classes_that_timm_finds(folder):
    timm_data = pytest.importorskip("timm.data")
    [line] = [line for line in (folder / "README.md").read_text().splitlines() if line.startswith("python train.py")]
    words = line.split()[2:]
    options = dict(zip([word.removeprefix("--") for word in words[::2]], words[1::2], strict=True))
    assert set(options) <= TIMM_OPTIONS
    assert options["num-classes"] == "3"
    for which in ("train-split", "val-split"):
        # As `train.py` calls it.
        found = timm_data.create_dataset(
            options["dataset"], root=str(folder), split=options[which], is_training=which == "train-split", batch_size=2
        )
        assert len(found) == SPLITS[options[which]]
        assert {label for _, label in found} == {0, 1, 2}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_hugging_face_reads_the_folder_by_its_card(folder):
    datasets = pytest.importorskip("datasets")
    found = datasets.load_dataset(str(folder))
    assert list(found) == list(SPLITS)
    # With names of the classes, as the hub shows them.
    assert found["train"].features["cls"].names == [one.name for one in imgdata.open(folder).classes]
    for name, split in imgdata.open(folder).items():
        rows = found[name].cast_column("jpg", datasets.Image(decode=False))
        assert [(row["__key__"], row["jpg"]["bytes"], row["cls"]) for row in rows] == [
            (sample.key, sample.image, sample.label) for sample in split
        ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_hugging_face_reads_the_tars(folder):
    datasets = pytest.importorskip("datasets")
    files = {split: [str(path) for path in sorted(folder.glob(f"demo-{split}-*.tar"))] for split in SPLITS}
    found = datasets.load_dataset("webdataset", data_files=files)
    assert {name: len(rows) for name, rows in found.items()} == SPLITS
    assert found["val"]["cls"] == imgdata.open(folder)["val"].index.label_N.tolist()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("split", SPLITS)
def test_dali_reads_the_same_bytes_by_our_index(folder, split):
    pytest.importorskip("nvidia.dali")
    from nvidia.dali import fn, pipeline_def

    expected = imgdata.open(folder)[split]
    paths = [str(path) for path in expected.shards]

    @pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def read():
        return tuple(
            fn.readers.webdataset(
                paths=paths, index_paths=[path[:-4] + ".idx" for path in paths], ext=["jpg", "cls"], name="reader"
            )
        )

    pipeline = read()
    pipeline.build()
    assert pipeline.epoch_size("reader") == len(expected)
    for sample in expected:
        image, label = pipeline.run()
        assert image.at(0).tobytes() == sample.image
        assert int(label.at(0).tobytes()) == sample.label


@pytest.mark.parametrize("split", SPLITS)
def test_webdataset_reads_the_same_samples(folder, split):
    expected = imgdata.open(folder)[split]
    found = webdataset_samples(expected.shards)
    assert [(row["__key__"], row["jpg"], int(row["cls"])) for row in found] == [
        (sample.key, sample.image, sample.label) for sample in expected
    ]


@pytest.mark.parametrize("split", SPLITS)
def test_tar_lists_the_members_of_each_sample_in_order(folder, split):
    expected = imgdata.open(folder)[split]
    listed = [
        line
        for path in expected.shards
        for line in subprocess.run(["tar", "tf", path], capture_output=True, text=True, check=True).stdout.splitlines()
    ]
    keys = [name.rsplit(".", 1)[0] for name in listed if name.endswith(".jpg")]
    assert keys == expected.index.column("key").to_pylist()
    assert len(listed) == 2 * len(expected)


def test_the_card_names_the_shards_by_a_pattern_that_webdataset_expands(folder):
    pattern = (folder / "README.md").read_text().split('wds.WebDataset("')[1].split('"')[0]
    assert pattern == "demo-train-{000000..000002}.tar"
