"""`imgdata trace`: real samples through every stage, and what is wrong on the way."""

import json
import math
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from imgdata_cli.commands.trace import command
from PIL import Image, ImageEnhance

import imgdata
from imgdata.augment.params import params
from imgdata.errors import ImageError, OptionError, OutputError
from imgdata.loader.bad_images import BadImageWarning
from imgdata.measure.trace import trace
from imgdata.measure.trace.picture import save_picture
from imgdata.measure.trace.pixels import Spot, spot_in_picture, spot_in_window
from imgdata.recipes import (
    CenterCrop,
    HorizontalFlip,
    Normalize,
    PadRandomCrop,
    RandomResizedCrop,
    Recipe,
    Resize,
    Rotate,
    VerticalFlip,
)
from imgdata.training.loop import train
from imgdata.training.options import TrainOptions
from support.rawdata import class_folders, picture

STAGES = ["load", "decode", "preprocess", "split", "augment", "batch", "train", "evaluate", "layer"]
CNN = {
    "input": (64, 64, 3),
    "conv1": (62, 62, 32),
    "pool1": (31, 31, 32),
    "conv2": (29, 29, 64),
    "pool2": (14, 14, 64),
    "flatten": (12_544,),
    "dense": (128,),
    "classifier": (10,),
    "softmax": (10,),
}
"""The textbook's network for 64 x 64 pixels and 10 classes."""


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Ten classes of PNGs of 64 x 64, 5 of each to train on, 2 to validate with."""
    raw = tmp_path_factory.mktemp("raw")
    for split, count in (("train", 5), ("val", 2)):
        for number in range(10):
            (raw / split / f"c{number}").mkdir(parents=True)
            for one in range(count):
                name = raw / split / f"c{number}" / f"{one}.png"
                shown = picture(number, (64, 64))
                ImageEnhance.Brightness(shown).enhance(0.7 + 0.1 * one + 0.05 * (split == "val")).save(name)
    imgdata.shard(raw, raw.parent / "out")
    return raw.parent / "out"


@pytest.fixture(scope="module")
def traced(out):
    return trace(out, TrainOptions(model="cnn"))


def rows_of(result, stage):
    return {row.step: row for row in result.rows if row.stage == stage}


def recipe_file(folder, *ops):
    (folder / "recipe.json").write_text(json.dumps(Recipe(*ops).to_dict()))
    return str(folder / "recipe.json")


# --- the rows -----------------------------------------------------------------------------------------


def test_the_stages_stand_in_the_order_of_the_data(traced):
    assert list(dict.fromkeys(row.stage for row in traced.rows)) == STAGES


def test_the_layers_are_the_textbooks(traced):
    layers = rows_of(traced, "layer")
    assert {step: row.shape for step, row in layers.items()} == CNN
    assert sum(row.parameters for row in layers.values()) == traced.parameters == 1_626_442
    assert layers["conv1"].parameters == 32 * (3 * 3 * 3 + 1)


def test_a_gray_of_128_becomes_half(traced):
    steps = rows_of(traced, "preprocess")
    assert list(steps) == ["Resize, CenterCrop", "Normalize"]
    crop, normalize = steps.values()
    assert (crop.shape, crop.dtype, crop.low >= 0, crop.high <= 255) == ((64, 64, 3), "uint8", True, True)
    assert (normalize.dtype, normalize.low >= 0, normalize.high <= 1) == ("float32", True, True)
    before, after = normalize.example.split(" -> ")
    assert before == crop.example
    assert float(after) == pytest.approx(int(before) / 255, abs=6e-4)
    if before == "128":
        assert after == "0.502"


def test_the_pixel_is_the_gray_nearest_to_128_and_its_red_stays_through_crop_and_flip(out, traced):
    dataset = imgdata.open(out)
    stored = np.asarray(Image.open(_bytes(dataset["train"].read(0))))[..., 0].astype(int)
    (decoded,) = rows_of(traced, "decode").values()
    assert abs(int(decoded.example) - 128) == np.abs(stored - 128).min()
    flip = rows_of(traced, "augment")["HorizontalFlip"]
    assert flip.example == decoded.example


def test_every_operator_has_its_row_in_order(out):
    result = trace(out, TrainOptions(model="cnn", recipe="classifier", policy="randaugment", erasing=1.0, mixup=0.2))
    names = ["CenterCrop", "HorizontalFlip", "Rotate", "RandAugment", "Normalize", "RandomErasing", "MixUp"]
    steps = rows_of(result, "augment")
    assert list(steps) == names
    assert [row.dtype for row in steps.values()] == 4 * ["uint8"] + 3 * ["float32"]
    assert rows_of(result, "batch")["labels"].shape == (8, 10)


def test_what_comes_before_an_operator_stays_as_it_was(out):
    plain = rows_of(trace(out, TrainOptions(model="cnn")), "augment")
    more = rows_of(trace(out, TrainOptions(model="cnn", policy="trivialaugment")), "augment")
    for step in ("CenterCrop", "HorizontalFlip", "Rotate"):
        assert replace(plain[step], ms_per_image=0) == replace(more[step], ms_per_image=0)


def test_the_split_is_that_of_training(out):
    counts = {step: row.count for step, row in rows_of(trace(out, TrainOptions(hold_out=10)), "split").items()}
    assert counts == {"train": 40, "validate": 10}


def test_files_and_batch_are_as_they_are(out, traced):
    (file,) = rows_of(traced, "load").values()
    split = imgdata.open(out)["train"]
    assert file.dtype == "png"
    assert file.shape == (len(split.read(0)),)
    assert file.example == "89 50 4e 47"
    images, labels = rows_of(traced, "batch").values()
    assert (images.shape, images.dtype) == ((8, 3, 64, 64), "float32")
    assert (labels.shape, labels.dtype) == ((8,), "int64")
    assert labels.low < labels.high
    assert labels.example == f"{traced.label.id[1:]}: {traced.label.name}"
    assert [key.split("/")[0] for key in traced.keys[:1]] == [traced.label.id]
    assert len(set(traced.keys)) == 8


def test_an_untrained_network_guesses_and_a_step_teaches_it_the_batch(traced):
    (step,) = rows_of(traced, "train").values()
    before, after = map(float, step.example.split(" -> "))
    assert before == pytest.approx(math.log(10), abs=0.3)
    assert after < before
    softmax = rows_of(traced, "evaluate")["softmax"]
    assert 0 < softmax.low < 0.1 < softmax.high < 1
    assert not traced.trained


def test_times_are_there_where_something_is_done(traced):
    for row in traced.rows:
        if row.stage in ("load", "decode", "preprocess", "augment", "train"):
            assert row.ms_per_image > 0, row


def test_pictures_of_several_sizes_in_jpeg_go_to_a_network_of_timms(tmp_path):
    raw = class_folders(tmp_path / "raw", {"train": 3, "val": 2})
    imgdata.shard(raw, tmp_path / "out")
    result = trace(tmp_path / "out", TrainOptions(model="resnet18", size=64), samples=3)
    assert rows_of(result, "load")["file"].dtype == "jpeg"
    assert next(iter(rows_of(result, "augment"))) == "RandomResizedCrop"
    layers = rows_of(result, "layer")
    assert layers["layer4"].shape == (2, 2, 512)
    assert layers["global_pool"].shape == (512,)
    assert layers["fc"].shape == (3,)


# --- a finished run -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(out, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "a"
    train(out, folder, TrainOptions(model="cnn", epochs=6, batch_size=10, recipe="plain", flip=False, lr=1e-3))
    return folder


def test_a_run_is_traced_with_its_own_weights_size_and_recipe(out, run):
    result = trace(out, run=run, samples=50)
    assert result.trained
    assert list(rows_of(result, "augment")) == ["CenterCrop", "Normalize"]
    (step,) = rows_of(result, "train").values()
    right = int(rows_of(result, "evaluate")["right"].example.split(" of ")[0])
    assert float(step.example.split(" -> ")[0]) < 0.7 * math.log(10)
    assert right > 25


def test_a_runs_pictures_can_be_augmented_in_another_way_by_a_seed(out, run):
    first, other = (trace(out, TrainOptions(seed=seed), run=run) for seed in (0, 1))
    # This recipe has nothing random, and the same network answers.
    assert [replace(row, ms_per_image=0) for row in first.rows] == [replace(row, ms_per_image=0) for row in other.rows]


def test_tracing_leaves_the_run_as_it_was(out, run):
    before = {path: path.read_bytes() for path in run.iterdir()}
    trace(out, run=run)
    assert {path: path.read_bytes() for path in run.iterdir()} == before


# --- what is wrong ------------------------------------------------------------------------------------


def test_a_wrong_normalisation_is_seen_in_the_range_and_said(out, tmp_path):
    # Mean and deviation of 0 to 255, as in other libraries.
    wrong = Normalize(mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4))
    result = trace(out, TrainOptions(model="cnn", recipe=recipe_file(tmp_path, CenterCrop(size=64), wrong)))
    row = rows_of(result, "augment")["Normalize"]
    assert row.high - row.low < 0.5
    assert row.high < -1.5
    assert any("mean (123.7, 116.3, 103.5)" in note and "not from 0 to 255" in note for note in result.notes)


def test_pixels_far_out_are_said(out, tmp_path):
    wrong = Normalize(mean=(0.5, 0.5, 0.5), std=(0.01, 0.01, 0.01))
    result = trace(out, TrainOptions(model="cnn", recipe=recipe_file(tmp_path, CenterCrop(size=64), wrong)))
    assert any(note.startswith("pixels are from -") for note in result.notes)
    assert any("std (0.01, 0.01, 0.01)" in note for note in result.notes)


def test_a_normalisation_that_is_not_the_weights_own_is_said(out, tmp_path):
    from imgdata.models import create_model

    torch.save(create_model("resnet18", num_classes=10, size=64).state_dict(), tmp_path / "weights.pth")
    options = TrainOptions(model="resnet18", size=64, weights=str(tmp_path / "weights.pth"))
    assert trace(out, options, samples=2).notes == ()
    halves = recipe_file(tmp_path, CenterCrop(size=64), Normalize(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))
    (note,) = trace(out, replace(options, recipe=halves), samples=2).notes
    assert "the weights were made with mean (0.485, 0.456, 0.406)" in note


def test_a_run_that_was_validated_in_another_way_is_said(out, run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["eval_recipe"]["ops"][-1]["std"] = [0.5, 0.5, 0.5]
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    (note,) = trace(out, run=tmp_path / "run").notes
    assert note.endswith("they should be the same")


def test_nothing_is_said_where_nothing_is_wrong(traced, out, run):
    assert traced.notes == ()
    assert trace(out, run=run).notes == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples must be 1 or more, got 0"),
        ({"samples": 51}, "samples must be at most the 50 there are to train on, got 51"),
        ({"options": TrainOptions(split="dev")}, "split must be one of train, val, got 'dev'"),
        ({"options": TrainOptions(model="ccn")}, "a model must be"),
    ],
)
def test_what_has_no_meaning_is_refused(out, options, message):
    with pytest.raises(OptionError, match=message):
        trace(out, **options)


def test_a_runs_own_settings_can_not_be_given(out, run):
    with pytest.raises(OptionError, match="model must be left out with a run"):
        trace(out, TrainOptions(model="cnn"), run=run)


def test_a_run_of_other_classes_is_refused(tmp_path, run):
    raw = class_folders(tmp_path / "raw", {"train": 4, "val": 2})
    imgdata.shard(raw, tmp_path / "out")
    with pytest.raises(OptionError, match=r"has 10 classes, .* has 3"):
        trace(tmp_path / "out", run=run)


def test_a_picture_that_is_broken_is_named(tmp_path):
    raw = class_folders(tmp_path / "raw", {"train": 4, "val": 2})
    imgdata.shard(raw, tmp_path / "out")
    tar = next((tmp_path / "out").glob("*-train-*.tar"))
    row = imgdata.open(tmp_path / "out")["train"].index.row(0)
    data = bytearray(tar.read_bytes())
    data[row.offset + row.size // 2 : row.offset + row.size] = bytes(row.size - row.size // 2)
    tar.write_bytes(data)
    with pytest.warns(BadImageWarning), pytest.raises(ImageError, match=f"truncated: {row.key} in split train"):
        trace(tmp_path / "out", TrainOptions(model="cnn"), samples=3)


# --- where a pixel goes -------------------------------------------------------------------------------

TURNS = [
    Recipe(CenterCrop(size=33)),
    Recipe(Resize(size=40), CenterCrop(size=33)),
    Recipe(Resize(size=(30, 50)), PadRandomCrop(size=33, padding=4)),
    Recipe(RandomResizedCrop(size=33)),
    Recipe(CenterCrop(size=33), HorizontalFlip(p=1.0)),
    Recipe(CenterCrop(size=33), VerticalFlip(p=1.0)),
    Recipe(CenterCrop(size=33), HorizontalFlip(), Rotate(degrees=(90, 90))),
    Recipe(CenterCrop(size=33), Rotate(degrees=40, interpolation="bilinear")),
]


@pytest.mark.parametrize("recipe", TURNS, ids=repr)
def test_a_pixel_is_found_again_where_the_loader_puts_it(tmp_path, recipe):
    # Red and green of every pixel are its column and row, so that its place can be read.
    y_HW, x_HW = np.mgrid[:48, :60]
    place_HWC = np.stack([4 * x_HW, 5 * y_HW, 255 + 0 * x_HW], axis=2).astype(np.uint8)
    (tmp_path / "raw" / "train" / "a").mkdir(parents=True)
    Image.fromarray(place_HWC).save(tmp_path / "raw" / "train" / "a" / "0.png")
    imgdata.shard(tmp_path / "raw", tmp_path / "out")
    with imgdata.Loader(tmp_path / "out", split="train", batch_size=1, recipe=recipe, shuffle="none") as loader:
        image_CHW = next(iter(loader)).images[0].numpy()
    one = params(recipe, np.array([60]), np.array([48]), seed=0, epoch=0, position_N=np.array([0]))
    seen = 0
    for x in range(6, 54, 4):
        for y in range(6, 42, 4):
            found = spot_in_window(Spot(x + 0.5, y + 0.5), one)
            if found is not None and image_CHW[2][found] == 255:
                red, green = image_CHW[0][found] / 4, image_CHW[1][found] / 5
                assert (red, green) == pytest.approx((x, y), abs=1.6)
                seen += 1
    assert seen > 10


@given(st.integers(20, 300), st.integers(20, 300), st.integers(0, 18), st.integers(0, 18), st.sampled_from([8, 19, 64]))
def test_the_way_into_a_crop_is_the_way_back(width, height, column, row, size):
    recipe = Recipe(Resize(size=size), CenterCrop(size=size))
    one = params(recipe, np.array([width]), np.array([height]), seed=0, epoch=0, position_N=np.array([0]))
    row, column = row % size, column % size
    assert spot_in_window(spot_in_picture(Spot(column + 0.5, row + 0.5), one), one) == (row, column)


# --- the command --------------------------------------------------------------------------------------


def test_the_table_is_at_most_100_wide_and_has_all_rows(out, tmp_path, traced):
    picture = tmp_path / "trace.png"
    result = CliRunner().invoke(
        command, [str(out), "--model", "cnn", "--picture", str(picture)], catch_exceptions=False
    )
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert max(map(len, lines)) <= 100 or str(picture) in max(lines, key=len)
    for row in traced.rows:
        assert any(row.step[:18] in line for line in lines), row
    assert re.search(r"conv1 +62x62x32", result.output)
    assert "with its first, random weights" in result.output
    with Image.open(picture) as image:
        assert image.width > 600
        assert np.asarray(image.convert("L")).std() > 20


def test_the_json_has_every_figure(out, traced):
    result = CliRunner().invoke(command, [str(out), "--model", "cnn", "--json"], catch_exceptions=False)
    content = json.loads(result.output)
    assert set(content) == {
        *("split", "samples", "keys", "label", "model", "trained", "parameters", "rows", "notes"),
    }
    assert content["label"] == traced.label._asdict()
    shapes = {row["step"]: tuple(row["shape"]) for row in content["rows"] if row["stage"] == "layer"}
    assert shapes == CNN
    ours = json.loads(json.dumps(traced.to_dict()))
    timed = re.compile(r'"ms_per_image": [0-9.e-]+')
    assert timed.sub("", json.dumps(content)) == timed.sub("", json.dumps(ours))


def test_the_panels_are_the_same_picture_after_each_stage(traced, tmp_path):
    titles = [panel.title.splitlines()[0] for panel in traced.panels]
    assert titles[:3] == ["decoded", "Resize + CenterCrop", "Normalize"]
    assert titles[-5:] == ["conv1", "pool1", "conv2", "pool2", "softmax"]
    decoded, crop = traced.panels[:2]
    assert (decoded.pixels == crop.pixels).all()
    assert len(traced.panels[-1].answer_K) == 5
    with pytest.raises(OutputError, match="can't be written"):
        save_picture(traced, tmp_path / "nowhere" / "trace.png")


def _bytes(data):
    import io

    return io.BytesIO(data)
