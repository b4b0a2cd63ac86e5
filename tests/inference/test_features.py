"""`imgdata features`: what the classifier gets, each sample once, in the order of the index, in both kinds of file."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from imgdata_cli.commands.features import command

import imgdata
from imgdata.errors import OptionError, OutputError
from imgdata.inference.features import features
from imgdata.inference.trained import load_trained
from support.loaders import damaged, dataset, images  # noqa: F401  a fixture
from support.networks import random_network, trained_run  # noqa: F401  a fixture


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("cnn", 128),
        ("resnet9", 256),
        ("resnet50", 2048),
        ("efficientnet_b0", 1280),
        ("tf_efficientnet_lite0", 1280),
        ("vit_tiny_patch16_224", 192),
        pytest.param("vgg16", 4096, marks=pytest.mark.slow),
    ],
)
def test_a_vector_is_as_wide_as_what_the_classifier_gets(tmp_path, name, width):
    trained = random_network(name)
    found = features(trained, dataset(tmp_path, count=3))
    assert (found.vector_ND.shape, found.vector_ND.dtype) == ((3, width), np.float32)
    assert trained.model.head_hidden_size == width


def test_the_classifier_makes_the_networks_logits_of_the_vectors(images):  # noqa: F811
    trained = random_network("resnet9", size=16)
    found = features(trained, images, batch_size=7)
    loader = imgdata.Loader(images, split="train", batch_size=60, recipe=trained.recipe, shuffle="none")
    with loader, torch.no_grad():
        (batch,) = loader
        logits = trained.model.get_classifier()(torch.from_numpy(found.vector_ND))
        assert torch.allclose(logits, trained.model(batch.images), rtol=1e-4, atol=1e-4)
    assert found.label_N.tolist() == batch.labels.tolist()


@pytest.fixture
def with_bad(tmp_path):
    """A dataset of 20 samples, of which 3 and 11 are bad."""
    folder = tmp_path / "out"
    folder.mkdir()
    return dataset(folder, {3: damaged(3), 11: b"no image"}, count=20)


def test_rows_stand_in_the_order_of_the_index_and_bad_images_have_none(with_bad):
    found = features(random_network("cnn"), with_bad, batch_size=8)
    good = [number for number in range(20) if number not in (3, 11)]
    assert found.keys == [f"s{number:04d}" for number in good]
    assert found.label_N.tolist() == [number % 3 for number in good]
    assert sorted(bad.key for bad in found.skipped) == ["s0003", "s0011"]
    assert len(found.vector_ND) == 18


def test_both_kinds_of_file_hold_the_same(with_bad, tmp_path):
    trained = random_network("cnn")
    found = features(trained, with_bad, tmp_path / "f.npz")
    features(trained, with_bad, tmp_path / "f.parquet")
    with np.load(tmp_path / "f.npz") as arrays:
        assert np.array_equal(arrays["features"], found.vector_ND)
        assert arrays["key"].tolist() == found.keys
        assert arrays["label"].tolist() == found.label_N.tolist()
        assert arrays["classes"].tolist() == ["0", "1", "2"]
    table = pq.read_table(tmp_path / "f.parquet")
    assert table.column_names == ["key", "label", "features"]
    assert np.array_equal(np.stack(table["features"].to_numpy()), found.vector_ND)
    assert table["key"].to_pylist() == found.keys
    assert table["label"].to_pylist() == found.label_N.tolist()
    assert [one[0] for one in json.loads(table.schema.metadata[b"classes"])] == ["0", "1", "2"]


def test_a_view_has_rows_of_its_own(images):  # noqa: F811
    found = features(random_network("cnn"), images, view="per_class=2")
    assert np.bincount(found.label_N).tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("path", "options", "error", "message"),
    [
        ("f.csv", {}, OptionError, r"features must go to a \.npz or \.parquet file, got .*f\.csv"),
        ("absent/f.npz", {}, OutputError, "its folder must be there"),
        ("f.npz", {"view": "balance"}, OptionError, "must have each sample once, got a balanced one"),
        ("f.npz", {"split": "test"}, OptionError, "split must be one of train, got 'test'"),
    ],
)
def test_wrong_options_are_told_and_leave_no_file(images, tmp_path, path, options, error, message):  # noqa: F811
    with pytest.raises(error, match=message):
        features(random_network("cnn"), images, tmp_path / path, **options)
    assert list(tmp_path.iterdir()) == []


def test_several_ranks_are_refused(images, monkeypatch):  # noqa: F811
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OptionError, match="features must be computed by one process, got 2"):
        features(random_network("cnn"), images)


def test_the_command_writes_the_file_and_names_what_is_missing(run, with_bad, tmp_path):
    path = tmp_path / "f.npz"
    arguments = [str(run), str(with_bad), "-o", str(path), "--json", "--batch-size", "8"]
    done = CliRunner().invoke(command, arguments, catch_exceptions=False)
    told = json.loads(done.stdout)
    assert (told["rows"], told["width"], len(told["skipped"])) == (18, 128, 2)
    assert "left out, 2 that can't be decoded" in done.stderr
    assert "s0003: " in done.stderr
    with np.load(path) as arrays:
        # Bit for bit, and so with the same batches: others are added up in another order.
        expected = features(load_trained(run), with_bad, batch_size=8).vector_ND
        assert np.array_equal(arrays["features"], expected)
