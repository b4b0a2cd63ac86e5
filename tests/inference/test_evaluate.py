"""`imgdata evaluate`: the figures are those of the training, of scikit-learn, and of any number of ranks."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from imgdata_cli.commands.evaluate import command
from PIL import Image
from sklearn.metrics import confusion_matrix, log_loss, top_k_accuracy_score
from torchvision.transforms import v2

import imgdata
from imgdata.errors import OptionError, OutputError, ShardError
from imgdata.inference.class_matching import match_foreign, match_own
from imgdata.inference.evaluate import evaluate
from imgdata.inference.trained import load_trained
from imgdata.models.catalogue import imagenet_classes
from imgdata.recipes import CenterCrop, Normalize, Recipe, Resize
from imgdata.sample import ClassName
from imgdata.training.loop import train
from support.digit_runs import quick, run_command
from support.loaders import damaged, dataset, sample
from support.networks import MEAN, STD, random_network, trained_run  # noqa: F401  a fixture
from support.tars import write_tar

ROUNDING = 1e-4
"""What batches of other sizes, on any processor, may change in a loss."""


def outputs(trained, out, *, mirrored=False):
    """Probabilities and labels, sample by sample, by a plain loop."""
    loader = imgdata.Loader(out, split="val", batch_size=16, recipe=trained.recipe, shuffle="none", drop_last=False)
    chances, labels = [], []
    with loader, torch.no_grad():
        for batch in loader:
            logits = trained.model(batch.images)
            if mirrored:
                logits = (logits + trained.model(batch.images.flip(-1))) / 2
            chances.append(logits.double().softmax(1)[batch.valid])
            labels.append(batch.labels[batch.valid])
    return torch.cat(chances).numpy(), torch.cat(labels).numpy()


def names(*ids):
    return [ClassName(one, one) for one in ids]


def test_a_run_is_as_good_as_its_training_said(run, digits):
    scores = evaluate(run, digits).scores
    summary = json.loads((run / "summary.json").read_text())
    assert (scores.correct, scores.total) == (summary["correct"], summary["total"])
    assert scores.loss == pytest.approx(summary["loss"], rel=ROUNDING)
    assert scores.top5 == summary["top5"]


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_figures_are_scikit_learns(run, digits, mirrored):
    found = evaluate(run, digits, batch_size=7, flip_test=mirrored)
    chance_NC, label_N = outputs(load_trained(run), digits, mirrored=mirrored)
    right = (chance_NC.argmax(1) == label_N).sum()
    assert (found.scores.correct, found.scores.total) == (right, 80)
    assert found.scores.top5 == top_k_accuracy_score(label_N, chance_NC, k=5)
    assert found.scores.loss == pytest.approx(log_loss(label_N, chance_NC), rel=ROUNDING)
    assert np.array_equal(found.scores.confusion_CC, confusion_matrix(label_N, chance_NC.argmax(1)))


def test_without_a_word_mirror_images_are_used_as_in_the_validation(digits):
    ids = tuple(map(str, range(10)))
    mirrored = random_network("cnn", size=16, classes=10, ids=ids, flip_test=True)
    plain = random_network("cnn", size=16, classes=10, ids=ids)
    assert evaluate(mirrored, digits).scores.loss == evaluate(plain, digits, flip_test=True).scores.loss
    assert evaluate(mirrored, digits, flip_test=False).scores.loss == evaluate(plain, digits).scores.loss


def by_hand(trained, out, *, crops):
    """The mean of the softmax over torchvision's crops of each sample, and the labels."""
    cut = {5: v2.FiveCrop(12), 10: v2.TenCrop(12)}[crops]
    finish = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    samples = imgdata.open(out)["val"]
    with torch.no_grad():
        chance_NC = torch.stack(
            [
                trained.model(torch.stack([finish(crop) for crop in cut(v2.Resize(20)(sample.pil()))]))
                .double()
                .softmax(1)
                .mean(0)
                for sample in samples
            ]
        )
    return chance_NC.numpy(), np.array([sample.label for sample in samples])


@pytest.mark.parametrize("crops", [5, 10])
def test_crops_give_the_mean_of_the_softmax_over_torchvisions_crops(digits, crops):
    recipe = Recipe(Resize(20), CenterCrop(12), Normalize(mean=MEAN, std=STD))
    trained = random_network("cnn", size=12, classes=10, ids=tuple(map(str, range(10))), recipe=recipe)
    found = evaluate(trained, digits, crops=crops, batch_size=7, exact=True)
    chance_NC, label_N = by_hand(trained, digits, crops=crops)
    assert (found.scores.correct, found.scores.total) == ((chance_NC.argmax(1) == label_N).sum(), 80)
    assert found.scores.top5 == top_k_accuracy_score(label_N, chance_NC, k=5)
    assert found.scores.loss == pytest.approx(log_loss(label_N, chance_NC), rel=ROUNDING)
    assert np.allclose(found.predictions.probability_N, chance_NC.max(1), rtol=ROUNDING)
    assert str(found).startswith(f"cnn on val, mean of {crops} crops\n")
    assert found.to_dict()["crops"] == crops
    if crops == 5:
        flipped = evaluate(trained, digits, crops=crops, batch_size=7, flip_test=True)
        assert str(flipped).startswith("cnn on val, mean of 5 crops, mirror images too\n")


def test_ten_crops_of_a_run_validated_with_mirror_images_have_each_once(digits):
    networks = [
        random_network("cnn", size=16, classes=10, ids=tuple(map(str, range(10))), flip_test=flip) for flip in (0, 1)
    ]
    plain, mirrored = (evaluate(network, digits, crops=10).scores.loss for network in networks)
    assert plain == mirrored
    with pytest.raises(OptionError, match="flip_test must be left out with 10 crops, half of which are mirror images"):
        evaluate(networks[0], digits, crops=10, flip_test=True)
    with pytest.raises(OptionError, match="crops must be one of 1, 5, 10, got 3"):
        evaluate(networks[0], digits, crops=3)


def test_the_command_says_over_how_many_crops_it_averaged(run, digits):
    shown = CliRunner().invoke(command, [str(run), str(digits), "--crops", "10"]).output
    assert "cnn on val, mean of 10 crops" in shown


def test_without_a_word_a_run_is_evaluated_with_what_it_was_validated_with(digits, tmp_path):
    train(digits, tmp_path / "run", quick(epochs=1, hold_out=80))
    found = evaluate(tmp_path / "run", digits)
    assert (found.split, found.scores.total) == ("train", 80)
    assert found.view.startswith("count=80")
    assert found.scores.correct == json.loads((tmp_path / "run" / "summary.json").read_text())["correct"]
    copy = shutil.copytree(digits, tmp_path / "copy")
    assert evaluate(tmp_path / "run", copy).split == "val"


def test_a_dataset_without_a_split_to_validate_with_asks_for_one(tmp_path):
    out = dataset(tmp_path, count=4)
    with pytest.raises(OptionError, match=r"split must be named where .*, got train; choose one with --split"):
        evaluate(random_network("cnn"), out)


def test_classes_and_confusions_add_up_to_the_figures(run, digits):
    found = evaluate(run, digits)
    assert sum(row.total for row in found.per_class) == found.scores.total
    assert sum(row.correct for row in found.per_class) == found.scores.correct
    assert sum(one.count for one in found.confusions(100)) == found.scores.total - found.scores.correct
    worst = found.worst(10)
    assert [row.accuracy for row in worst] == sorted(row.accuracy for row in worst)
    assert found.worst(3) == worst[:3]
    counts = [one.count for one in found.confusions(100)]
    assert counts == sorted(counts, reverse=True)
    assert all(one.label != one.prediction for one in found.confusions(100))


def test_a_view_is_evaluated_alone(run, digits):
    assert evaluate(run, digits, view="per_class=2").scores.total == 20


def test_images_that_cannot_be_decoded_are_in_no_figure_but_named(tmp_path):
    out = dataset(tmp_path, {3: damaged(3), 11: b"no image"}, count=20)
    found = evaluate(random_network("cnn"), out, split="train", batch_size=8)
    assert (found.scores.total, found.scores.skipped) == (18, 2)
    assert sorted(bad.key for bad in found.skipped) == ["s0003", "s0011"]
    assert [one["reason"] for one in sorted(found.to_dict()["skipped"], key=lambda one: one["key"])] == [
        "truncated",
        "not-an-image",
    ]


def test_a_split_without_one_good_image_is_refused(tmp_path):
    out = dataset(tmp_path, {number: damaged(number) for number in range(4)}, count=4)
    with pytest.raises(ShardError, match="none of the 4 pictures of 'train' can be decoded; s0000: "):
        evaluate(random_network("cnn"), out, split="train")


def test_a_run_finds_its_classes_by_id_in_any_order_and_reports_those_that_are_missing(tmp_path):
    out = dataset(tmp_path, count=9)
    own = random_network("cnn", classes=4, ids=("2", "9", "0", "1"))
    found = evaluate(own, out, split="train")
    assert [(row.index, row.id, row.total) for row in found.per_class] == [(0, "2", 3), (2, "0", 3), (3, "1", 3)]
    assert [one.id for one in found.missing] == ["9"]
    assert found.to_dict()["missing"] == ["9"]
    assert "missing      1 of 4 classes" in str(found)


def test_a_run_refuses_samples_of_a_class_that_it_does_not_have(tmp_path):
    out = dataset(tmp_path, count=4)
    own = random_network("cnn", classes=2, ids=("0", "1"))
    with pytest.raises(OptionError, match=r"got '2'; leave its samples out with a view, --view \"where class!=2\""):
        evaluate(own, out, split="train")
    assert evaluate(own, out, split="train", view="where class!=2").scores.total == 3


def test_each_sample_has_a_row_with_its_label_and_its_prediction(run, digits, tmp_path):
    found = evaluate(run, digits, batch_size=7)
    rows = found.predictions
    assert rows.keys == [sample.key for sample in imgdata.open(digits)["val"]]
    assert (rows.label_N == rows.predicted_N).sum() == found.scores.correct
    assert rows.loss_N.mean() == pytest.approx(found.scores.loss, rel=1e-5)
    worst = rows.worst(5)
    assert rows.loss_N[worst].tolist() == sorted(rows.loss_N, reverse=True)[:5]
    rows.save(tmp_path / "rows.csv")
    rows.save(tmp_path / "rows.parquet")
    with open(tmp_path / "rows.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    table = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    assert list(lines[0]) == list(table[0]) == ["key", "label", "predicted", "probability", "loss"]
    assert [line["key"] for line in lines] == [row["key"] for row in table] == rows.keys
    assert [float(line["loss"]) for line in lines] == pytest.approx([row["loss"] for row in table], rel=1e-5)
    assert {line["label"] for line in lines} == set("0123456789")


def test_the_command_writes_predictions_and_a_sheet_of_the_worst(run, digits, tmp_path):
    rows, sheet = tmp_path / "rows.csv", tmp_path / "worst.png"
    arguments = [str(run), str(digits), "--predictions", str(rows), "--worst", "7", "--sheet", str(sheet)]
    done = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert len(rows.read_text().splitlines()) == 81
    assert "highest loss" in done.stdout
    with Image.open(sheet) as image:
        assert min(image.size) > 300


@pytest.mark.parametrize(
    ("option", "file", "message"),
    [
        ("--predictions", "rows.txt", r"must go to a \.csv or \.parquet file"),
        ("--predictions", "nowhere/rows.csv", "its folder must be there"),
        ("--sheet", "sheet.jpg", r"sheet must be a \.png file"),
    ],
)
def test_files_that_cannot_be_written_are_refused_before_the_work(tmp_path, option, file, message):
    with pytest.raises((OptionError, OutputError), match=message):
        CliRunner().invoke(command, ["no-run", "no-data", option, str(tmp_path / file)], catch_exceptions=False)


def test_a_run_takes_its_own_classes_as_they_are():
    match = match_own(names("a", "b"), names("a", "b"), "out")
    assert (match.output_C.tolist(), match.by) == ([0, 1], "ids")


@pytest.mark.parametrize(
    ("dataset_classes", "outputs", "by"),
    [
        (names("n02123045", "n01440764"), [281, 0], "ids"),
        ([ClassName("0", "Tabby"), ClassName("1", "espresso")], [281, 967], "names"),
        ([ClassName("0", "tabby, tabby cat"), ClassName("1", "tiger_cat")], [281, 282], "names"),
        # Two outputs are called crane, and so no name alone says which; the numbers do.
        ([ClassName("134", "crane"), ClassName("967", "espresso")], [134, 967], "numbers"),
        (names("281", "999"), [281, 999], "numbers"),
        ([ClassName("638", "maillot, tank suit")], [639], "names"),
    ],
)
def test_a_network_by_name_finds_imagenets_classes(dataset_classes, outputs, by):
    match = match_foreign(dataset_classes, imagenet_classes(), "out")
    assert (match.output_C.tolist(), match.by) == (outputs, by)


@pytest.mark.parametrize(
    ("dataset_classes", "got"),
    [
        (names("n02123045", "newt-ish"), r"'newt-ish'"),
        (names("281", "1000"), r"'1000'"),
        (names("cat"), r"'cat'"),
        ([ClassName("a", "tabby"), ClassName("b", "tabby cat")], "two for one output"),
    ],
)
def test_other_classes_are_refused_with_the_first_that_is_unknown(dataset_classes, got):
    with pytest.raises(OptionError, match=rf"must be among the network's 1,000, .*got {got}"):
        match_foreign(dataset_classes, imagenet_classes(), "out")


def test_labels_are_counted_as_the_networks_outputs(tmp_path):
    out = dataset(tmp_path, count=9)
    # The dataset's classes 0, 1, 2 are the outputs 4, 0 and 2 of this network.
    ids = ("1", "x", "2", "y", "0")
    own = random_network("cnn", classes=5, ids=ids, split=None)
    found = evaluate(own, out, split="train")
    assert {row.id: row.total for row in found.per_class} == {"0": 3, "1": 3, "2": 3}
    assert [row.index for row in found.per_class] == [0, 2, 4]
    assert found.scores.confusion_CC.shape == (5, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "test"}, r"split must be one of train, val, got 'test'"),
        ({"weights": "w.pth"}, "weights and pretrained are for networks by name"),
        ({"amp": "fp16"}, "amp must be auto, none or bf16 on the CPU"),
    ],
)
def test_wrong_options_are_told(run, digits, options, message):
    with pytest.raises(OptionError, match=message):
        evaluate(run, digits, device="cpu", **options)


def test_samples_without_a_label_are_refused(tmp_path):
    write_tar(tmp_path / "demo-train-000000.tar", [(f"s{number}.jpg", sample(number)) for number in range(3)])
    imgdata.index(tmp_path, workers=1)
    with pytest.raises(OptionError, match="every sample must have a label, got 3 of 3 without"):
        evaluate(random_network("cnn"), tmp_path, split="train")


def test_the_command_prints_figures_for_people(run, digits, tmp_path):
    picture = tmp_path / "confusion.png"
    done = CliRunner().invoke(command, [str(run), str(digits), "--confusion", str(picture)], catch_exceptions=False)
    scores = evaluate(run, digits).scores
    assert f"{scores.correct} of 80" in done.stdout
    assert f"{scores.top1:.2%}" in done.stdout
    assert "taken for" in done.stdout
    with Image.open(picture) as image:
        assert image.width > 300


def test_json_holds_all_figures(run, digits):
    done = CliRunner().invoke(command, [str(run), str(digits), "--json", "--quiet"], catch_exceptions=False)
    found = json.loads(done.stdout)
    assert found["top1"] == found["correct"] / found["total"]
    assert sum(map(sum, found["confusion"])) == found["total"] == 80
    assert {"top5", "loss", "calibration_error", "skipped", "matched_by"} < set(found)
    assert [row["total"] for row in found["per_class"]] == [8] * 10
    assert found["per_class"][3]["accuracy"] == found["confusion"][3][3] / 8


def test_a_confusion_matrix_that_is_no_png_is_refused_before_the_work(tmp_path):
    with pytest.raises(OptionError, match=r"confusion must be a \.png file, got .*matrix\.jpg"):
        CliRunner().invoke(
            command, ["no-run", "no-data", "--confusion", str(tmp_path / "matrix.jpg")], catch_exceptions=False
        )


def test_a_confusion_matrix_without_a_folder_is_refused_before_the_work(tmp_path):
    with pytest.raises(OutputError, match=r"nowhere/matrix\.png: its folder must be there"):
        CliRunner().invoke(
            command, ["no-run", "no-data", "--confusion", str(tmp_path / "nowhere/matrix.png")], catch_exceptions=False
        )


def test_long_names_are_cut_so_that_lines_stay_short(run, digits, monkeypatch):
    found = evaluate(run, digits)
    named = replace(found, classes=tuple(one._replace(name=f"{one.id}, " * 40) for one in found.classes))
    monkeypatch.setattr("imgdata.inference.evaluate.evaluate", lambda *_, **options: named)
    done = CliRunner().invoke(command, [str(run), str(digits)], catch_exceptions=False)
    assert "taken for" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("out", r"must be the folder of a run, got one without config\.json; the run comes first"),
        ("out/file.pt", r"got a file; give the run's folder, or --weights .*file\.pt after the network's name"),
        ("nowhere", "must be the folder of a run or the name of a network, got neither"),
    ],
)
def test_what_is_no_run_is_told_with_the_way_out(tmp_path, source, message):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/file.pt").write_bytes(b"")
    with pytest.raises(OptionError, match=message):
        load_trained(tmp_path / source)


@pytest.mark.parametrize(("name", "way_out"), [("cnn", "--weights FILE$"), ("resnet10t", "FILE, or --pretrained")])
def test_a_network_by_name_needs_weights_that_there_are(name, way_out):
    with pytest.raises(OptionError, match=f"{name} needs weights: .*{way_out}"):
        load_trained(name)


@pytest.mark.slow
def test_two_ranks_have_the_figures_of_one(tmp_path):
    # 27 samples of 29 are good: batches of 4 leave both ranks with padding.
    (tmp_path / "out").mkdir()
    raw = dataset(tmp_path / "out", {3: damaged(3), 20: b"no image"}, count=29)
    weights = tmp_path / "weights.pth"
    torch.save(random_network("resnet9", classes=1000).model.state_dict(), weights)
    arguments = ["resnet9", str(raw), "--split", "train", "--weights", str(weights), "--batch-size", "4"]
    arguments += ["--device", "cpu", "--json"]
    alone = CliRunner().invoke(command, arguments, catch_exceptions=False)
    together = run_command("evaluate", *arguments, ranks=2)
    assert (alone.exit_code, together.returncode) == (0, 0), together.stderr
    one, two = (json.loads(each.stdout.strip().splitlines()[-1]) for each in (alone, together))
    assert len(together.stdout.strip().splitlines()) == 1
    assert two["total"] == 27
    assert two["loss"] == pytest.approx(one["loss"], rel=ROUNDING)
    assert {name: two[name] for name in ("correct", "top5", "skipped")} == {
        name: one[name] for name in ("correct", "top5", "skipped")
    }
    assert two["confusion"] == one["confusion"]
