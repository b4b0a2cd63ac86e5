"""What a run chooses where nothing is said, what it says of it, and what users bring of their own."""

import json
import math
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from imgdata_cli.main import cli
from torch import nn

import imgdata
from imgdata.errors import OptionError, TrainingError
from imgdata.inference.evaluate import evaluate
from imgdata.inference.trained import load_trained
from imgdata.sample import ClassName
from imgdata.training.defaults import Facts, are_letters, resolve
from imgdata.training.history import TrainWatcher
from imgdata.training.loop import train
from imgdata.training.options import TrainOptions
from imgdata.training.threads import crowding
from support.digit_runs import QUICK, digit_folders, flags, losses, metrics, quick


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def with_test(tmp_path_factory):
    """200 digits to train with, 40 to test with."""
    work = tmp_path_factory.mktemp("with_test")
    imgdata.shard(digit_folders(work / "raw", {"train": 200, "test": 40}), work / "out", workers=1)
    return work / "out"


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def command(*arguments):
    return CliRunner().invoke(cli, [str(one) for one in ("train", *arguments)], catch_exceptions=False)


# --- which samples validate


def test_the_test_split_chooses_no_epoch(with_test, tmp_path):
    result = train(with_test, tmp_path / "run", quick(epochs=1))
    config, summary = read(tmp_path / "run" / "config.json"), read(tmp_path / "run" / "summary.json")
    assert config["options"]["hold_out"] == 0.1
    assert config["samples"] == {"train": 180, "val": 20}
    assert summary["validated_with"]["split"] == "train"
    assert summary["validated_with"]["samples"] == 20
    assert result.scores.count_C.tolist() == [2] * 10
    assert evaluate(tmp_path / "run", with_test).scores.correct == result.scores.correct
    assert evaluate(tmp_path / "run", with_test, split="test").scores.total == 40


def test_the_test_split_is_used_where_that_is_said_and_the_head_says_what_it_means(with_test, tmp_path):
    done = command(with_test, "--out", tmp_path / "run", "--val-split", "test", *flags(epochs=1))
    assert "validate  40 samples of test (the best epoch is chosen by the test split" in done.stderr


@pytest.mark.parametrize(
    ("settings", "lines"),
    [
        (
            {},
            [
                "train     180 samples of train | fraction=0.1,part=rest,seed=0",
                "validate  20 samples of train | fraction=0.1,part=first,seed=0, held out of training",
                "recipe    plain; pictures are not mirrored",
                "backend   resident: 200 pictures of 16 x 16 decoded once, 0.2 MB in host memory",
                "course    1 epoch of 5 steps of 32 samples, adamw, lr 0.006, label smoothing none",
            ],
        ),
        (
            {"recipe": "classifier", "flip": True, "label_smoothing": 0.1},
            ["recipe    classifier; half of the pictures are mirrored (--flip off)", "label smoothing 0.1"],
        ),
        (
            {"val_split": "train", "val_view": "per_class=3"},
            ["validate  30 samples of train | per_class=3 (30 of them are trained on as well)"],
        ),
    ],
    ids=["defaults", "mirrored", "shared"],
)
def test_the_head_says_what_was_chosen(with_test, tmp_path, settings, lines):
    done = command(with_test, "--out", tmp_path / "run", *flags(epochs=1, **settings))
    assert all(line in done.stderr for line in lines), done.stderr


def test_a_run_of_before_goes_on_with_the_split_that_it_was_validated_with(with_test, tmp_path):
    run = tmp_path / "run"
    train(with_test, run, quick(epochs=1, val_split="test", flip=True, recipe="classifier"))
    config = read(run / "config.json")
    for name in ("views", "trained_and_validated", "letters", "backend", "backend_description", "own", "recipe_name"):
        del config[name]
    for name in ("patience", "freeze_batchnorm"):
        del config["options"][name]
    config["options"]["val_split"] = None
    (run / "config.json").write_text(json.dumps(config))
    assert evaluate(run, with_test).split == "test"
    result = train(with_test, run, {"epochs": 2}, resume=True)
    assert result.scores.total == 40
    assert read(run / "summary.json")["validated_with"] == {"split": "test", "view": "", "samples": 40}


def test_a_view_to_validate_with_is_of_the_training_split_where_there_is_a_test_split_alone(with_test, tmp_path):
    folds = {"view": "fold=1/5", "val_view": "fold=1/5,part=held"}
    train(with_test, tmp_path / "run", quick(epochs=1, **folds))
    config = read(tmp_path / "run" / "config.json")
    assert (config["samples"], config["trained_and_validated"]) == ({"train": 160, "val": 40}, 0)


def test_raw_images_are_trained_on_as_their_shards_are(tmp_path):
    raw = digit_folders(tmp_path / "raw", {"train": 80})
    imgdata.shard(raw, tmp_path / "out", workers=1)
    runs = {source: tmp_path / f"run-{source.name}" for source in (raw, tmp_path / "out")}
    for source, run in runs.items():
        train(source, run, quick(epochs=1))
    loose, sharded = (losses(run) for run in runs.values())
    assert loose == sharded


# --- mirroring


@pytest.mark.parametrize(
    ("names", "letters"),
    [
        ("0 1 2 3 4 5 6 7 8 9", True),
        ("zero one two three", True),
        ("a b C D", True),
        ("digit_0 digit_1", True),
        ("upper_A lower_b", True),
        ("cat dog", False),
        ("0 1 dog", False),
        ("00 01 02", False),
        ("n01440764 n01443537", False),
    ],
)
def test_digits_and_letters_are_told_by_their_names(names, letters):
    assert are_letters([ClassName(name, name) for name in names.split()]) == letters


@pytest.mark.parametrize(
    ("settings", "letters", "flip"),
    [
        ({}, False, True),
        ({}, True, False),
        ({"flip": True}, True, True),
        ({"flip": False}, False, False),
        ({"recipe": "own.json"}, False, None),
    ],
)
def test_letters_are_not_mirrored_unless_asked_for(settings, letters, flip):
    facts = Facts(samples=1000, classes=10, side=28, gpu=False, letters=letters)
    assert resolve(TrainOptions(**settings), facts).flip is flip


def test_the_head_says_why_nothing_is_mirrored(digits, tmp_path):
    words = [word for word in flags(epochs=1, recipe="classifier") if word != "--no-flip"]
    done = command(digits, "--out", tmp_path / "run", *words, "--flip", "auto")
    assert "pictures are not mirrored, classes are digits or letters (--flip on)" in done.stderr


# --- networks, losses and metrics of one's own


class Small(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2),
            nn.ReLU(),
            nn.Flatten(),
            nn.LazyLinear(num_classes),
        )
        self.layers(torch.zeros(1, 3, 16, 16))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


def small(num_classes: int) -> nn.Module:
    return Small(num_classes)


def no_network(num_classes: int) -> str:
    return "network"


OWN = {name: value for name, value in QUICK.items() if name != "model"}


def test_a_module_of_ones_own_learns_is_kept_and_predicts(digits, tmp_path):
    torch.manual_seed(0)
    result = train(digits, tmp_path / "run", OWN, model=Small(10), epochs=6)
    assert result.scores.top1 > 0.5
    assert result.config["options"]["model"].endswith("test_train_choices:Small")
    assert evaluate(tmp_path / "run", digits, model=Small(10)).scores.correct == result.scores.correct
    with pytest.raises(OptionError, match="whose code is run only where you name it; add --model"):
        load_trained(tmp_path / "run")


def test_a_function_by_its_name_gives_the_network_and_a_resumed_run_names_it_again(digits, tmp_path):
    name = f"{__name__}:small"
    whole = train(digits, tmp_path / "whole", OWN, model=name, epochs=2)
    train(digits, tmp_path / "run", OWN, model=name, epochs=1, curve="constant")
    with pytest.raises(OptionError, match=f"model must be given again, {name}"):
        train(digits, tmp_path / "run", resume=True)
    resumed = train(digits, tmp_path / "run", resume=True, model=name, epochs=2)
    assert len(resumed.rows) == len(whole.rows) == 2
    assert load_trained(tmp_path / "run", model=name).name == name


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("no.such.module:make", "package.module:function, got 'no.such.module:make'"),
        (f"{__name__}:missing", "has no attribute 'missing'"),
        (f"{__name__}:no_network", r"must return a torch\.nn\.Module, got str"),
        (f"{__name__}:OWN", "must name a function"),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(768, 3)),
            r"logits of shape \(N, 10\), one for each class, got \(2, 3\)",
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(5, 10)), r"model must take pictures \(N, 3, 16, 16\)"),
    ],
    ids=["module", "function", "string", "dict", "outputs", "inputs"],
)
def test_what_is_no_network_for_the_data_is_refused(digits, tmp_path, model, message):
    with pytest.raises(OptionError, match=message):
        train(digits, tmp_path / "run", OWN, model=model)
    assert not (tmp_path / "run").exists()


def test_what_needs_a_classifier_says_so(digits, tmp_path):
    torch.save(Small(10).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(OptionError, match=r"freeze needs a network with get_classifier\(\)"):
        train(digits, tmp_path / "run", OWN, model=Small(10), weights=str(tmp_path / "weights.pth"), freeze=True)


def squared(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    wanted = nn.functional.one_hot(labels, logits.shape[1]).float()
    return (logits.softmax(1) - wanted).square().sum(1).mean()


def share_of_nines(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return float((logits.argmax(1) == 9).float().mean())


def test_a_loss_of_ones_own_is_what_falls(digits, tmp_path):
    train(digits, tmp_path / "run", QUICK, loss=squared, epochs=4)
    course = losses(tmp_path / "run")
    assert max(course) < 1.5
    assert sum(course[-10:]) < 0.9 * sum(course[:10])
    assert read(tmp_path / "run" / "config.json")["own"]["loss"].endswith(":squared")


def test_metrics_of_ones_own_stand_in_the_tables_and_may_choose_the_best_epoch(digits, tmp_path):
    seen = []

    def countdown(logits: torch.Tensor, labels: torch.Tensor) -> float:
        seen.append((tuple(logits.shape), tuple(labels.shape)))
        return -float(len(seen))

    own = {"nines": share_of_nines, "countdown": countdown}
    result = train(digits, tmp_path / "run", QUICK, metrics=own, best_by="countdown", epochs=3)
    assert seen == [((80, 10), (80,))] * 3
    assert [row["countdown"] for row in metrics(tmp_path / "run")] == [-1, -2, -3]
    assert result.best.epoch == 1
    assert read(tmp_path / "run" / "summary.json")["metrics"]["countdown"] == -1
    with pytest.raises(OptionError, match=r"metrics must be \['countdown', 'nines'\] again"):
        train(digits, tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("own", "error", "message"),
    [
        ({"best_by": "f1"}, OptionError, r"best_by must be one of the metrics \(none are given\), got 'f1'"),
        ({"metrics": {"a b": share_of_nines}}, OptionError, "metrics must have names of letters"),
        ({"metrics": {"nan": lambda logits, labels: math.nan}}, TrainingError, "metric 'nan' must return a finite"),
        ({"loss": lambda logits, labels: logits}, TrainingError, r"loss must return the mean .*got shape \(32, 10\)"),
        ({"loss": squared, "label_smoothing": 0.1}, OptionError, "label_smoothing can't be given with a loss"),
    ],
)
def test_parts_that_do_not_fit_are_refused(digits, tmp_path, own, error, message):
    with pytest.raises(error, match=message):
        train(digits, tmp_path / "run", QUICK, epochs=1, **own)


class _Epochs(TrainWatcher):
    def __init__(self):
        self.epochs, self.notes = [], []

    def epoch_done(self, row, *, best):
        self.epochs.append(row.epoch)

    def noted(self, text):
        self.notes.append(text)


def test_a_run_ends_early_where_nothing_gets_better(digits, tmp_path):
    seen = []

    def falling(logits: torch.Tensor, labels: torch.Tensor) -> float:
        seen.append(len(logits))
        return -float(len(seen))

    first, second = _Epochs(), _Epochs()
    own = {"metrics": {"falling": falling}, "best_by": "falling"}
    result = train(digits, tmp_path / "run", QUICK, watcher=[first, second], **own, epochs=9, patience=2)
    assert first.epochs == second.epochs == [row.epoch for row in result.rows] == [1, 2, 3]
    assert "stopped after epoch 3 of 9: the last 2 were not better (--patience)" in first.notes
    assert len(train(digits, tmp_path / "run", resume=True, **own).rows) == 3
    assert len(train(digits, tmp_path / "run", resume=True, patience=3, **own).rows) == 4


# --- once more, with changes


def test_a_run_is_done_once_more_with_changes(digits, tmp_path):
    train(digits, tmp_path / "a", quick(seed=4))
    train(digits, tmp_path / "b", config=tmp_path / "a")
    train(digits, tmp_path / "c", config=tmp_path / "a" / "config.json", lr=0.002)
    assert losses(tmp_path / "b") == losses(tmp_path / "a") != losses(tmp_path / "c")
    options = [read(tmp_path / name / "config.json")["options"] for name in "ac"]
    assert {name for name in options[0] if options[0][name] != options[1][name]} == {"lr"}


def test_what_follows_from_a_change_is_decided_anew(digits, tmp_path):
    train(digits, tmp_path / "a", {"model": "cnn", "epochs": 1, "threads": 1, "recipe": "plain"})
    train(digits, tmp_path / "b", config=tmp_path / "a", batch_size=64, hold_out=0.25)
    options = read(tmp_path / "b" / "config.json")["options"]
    assert (options["lr"], options["val_split"]) == (0.002, None)


def test_settings_have_no_other_names(digits, tmp_path):
    with pytest.raises(OptionError, match="'epoch' is none; perhaps epochs"):
        train(digits, tmp_path / "run", epoch=3)


def test_a_result_prints_as_the_command_says_it(digits, tmp_path):
    result = train(digits, tmp_path / "run", quick(epochs=1))
    assert f"{result.scores.correct:,} of 80 (epoch 1 of 1)" in str(result)
    assert "80 samples of val" in str(result)
    assert repr(result).startswith("<TrainResult\n  cnn ")


# --- batch norm


@pytest.mark.parametrize(
    ("settings", "frozen"),
    [
        ({"freeze": True, "unfreeze_after": 1, "batch_size": 16}, True),
        ({"freeze": True, "unfreeze_after": 1, "batch_size": 128}, False),
        ({"freeze": True, "unfreeze_after": 1, "batch_size": 128, "accumulate": 4}, True),
        ({"freeze": True, "unfreeze_after": 1, "batch_size": 16, "freeze_batchnorm": False}, False),
        ({"batch_size": 16}, False),
        ({"batch_size": 16, "freeze_batchnorm": True}, True),
    ],
)
def test_batch_statistics_are_kept_where_few_pictures_would_change_them(settings, frozen):
    facts = Facts(samples=1000, classes=10, side=28, gpu=False)
    assert resolve(TrainOptions(weights="w.pth", **settings), facts).freeze_batchnorm is frozen


def test_a_thaw_changes_no_batch_statistics_and_costs_no_accuracy(digits, tmp_path):
    common = {"model": "resnet9", "recipe": "plain", "flip": False, "threads": 1}
    first = train(digits, tmp_path / "first", **common, epochs=6, batch_size=32, lr=0.004)
    tuned = {"weights": str(first.run / "best.pt"), "freeze": True, "unfreeze_after": 2, "batch_size": 4, "lr": 0.004}
    result = train(digits, tmp_path / "tuned", **common, **tuned, epochs=4, view="per_class=4")
    assert result.config["options"]["freeze_batchnorm"]
    before = torch.load(first.run / "best.pt", weights_only=True)["model"]
    after = torch.load(tmp_path / "tuned" / "last.pt", weights_only=True)["model"]
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert "stem.conv.weight" in moved
    assert not {name for name in moved if "running_" in name}
    assert result.rows[2].val_top1 > result.rows[1].val_top1 - 0.1


def test_batch_statistics_need_weights_that_they_are_of():
    with pytest.raises(OptionError, match="freeze_batchnorm needs pretrained weights"):
        TrainOptions(freeze_batchnorm=True)


# --- threads


@pytest.mark.parametrize(
    ("threads", "cores", "load", "ranks", "fitting"),
    [
        (8, 8, 0.0, 1, None),
        (8, 8, 3.0, 1, None),
        (8, 8, 5.0, 1, 3),
        (2, 2, 6.0, 1, 1),
        (1, 2, 6.0, 1, None),
        (8, 2.5, 0.0, 1, 2),
        (8, 8, 0.0, 4, 2),
        (2, 8, 6.0, 2, 1),
    ],
)
def test_threads_that_wait_for_each_other_are_noticed(threads, cores, load, ranks, fitting):
    found = crowding(threads=threads, cores=cores, load=load, ranks=ranks)
    assert (None if found is None else found.threads) == fitting
    assert found is None or found.remedy == f"OMP_NUM_THREADS={fitting}"
