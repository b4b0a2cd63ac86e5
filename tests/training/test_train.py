"""A run from its first step to its files: what is learned, kept and said, and what is refused."""

import json
import math
import shutil
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from imgdata.errors import OptionError, OutputError, TrainingError
from imgdata.training.history import TrainWatcher
from imgdata.training.learner import Learner
from imgdata.training.loop import train
from support.digit_runs import TRAIN_SAMPLES, VAL_SAMPLES, losses, metrics, quick


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_loss_falls_and_most_digits_are_right(digits, tmp_path):
    result = train(digits, tmp_path / "run", quick(epochs=12))
    rows = result.rows
    assert [row.epoch for row in rows] == list(range(1, 13))
    # Not in every epoch: how rounding goes on is another matter on each processor.
    assert rows[-1].train_loss < rows[5].train_loss < rows[0].train_loss
    assert result.scores.total == VAL_SAMPLES
    assert result.scores.top1 > 0.6
    assert result.best == max(rows, key=lambda row: (row.val_top1, -row.val_loss))


@pytest.mark.figures
def test_a_run_keeps_all_that_people_look_for(digits, tmp_path):
    run = tmp_path / "run"
    result = train(digits, run, quick())
    names = ["best.pt", "classes.csv", "config.json", "confusion.png", "curves.png", "last.pt", "metrics.csv"]
    assert sorted(path.name for path in run.iterdir()) == [*names, "steps.csv", "summary.json"]
    assert len(losses(run)) == 20
    assert len(metrics(run)) == 2
    config = json.loads((run / "config.json").read_text())
    assert config["options"]["model"] == "cnn"
    assert config["samples"] == {"train": TRAIN_SAMPLES, "val": VAL_SAMPLES}
    assert [name for _, name in config["classes"]] == [str(digit) for digit in range(10)]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["correct"] == result.scores.correct
    assert summary["top1"] == result.scores.correct / VAL_SAMPLES
    for picture in ("curves.png", "confusion.png"):
        with Image.open(run / picture) as image:
            assert min(image.size) > 300


def test_the_same_seed_gives_the_same_curve_and_another_does_not(digits, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        train(digits, tmp_path / name, quick(seed=seed, recipe="classifier", dropout=0.3))
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert metrics(tmp_path / "a") == metrics(tmp_path / "b")
    assert losses(tmp_path / "a") != losses(tmp_path / "c")


def test_a_batch_in_parts_teaches_the_same(digits, tmp_path):
    train(digits, tmp_path / "whole", quick())
    train(digits, tmp_path / "parts", quick(accumulate=4))
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), abs=2e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {"ema": 0.9},
        {"mixup": 0.2},
        {"mixup": 0.2, "cutmix": 1.0, "label_smoothing": 0.1},
        {"cutmix": 1.0, "class_weights": "balanced"},
        {"balance": True},
        {"class_weights": "effective"},
        {"optimizer": "sgd", "lr": 0.02, "curve": "onecycle", "clip_grad": 1.0},
        {"model": "resnet9", "recipe": "cifar", "erasing": 0.3, "policy": "trivialaugment"},
        {"model": "resnet18", "size": 32, "recipe": "imagenet", "flip_test": True, "curve": "constant"},
        {"hold_out": 40},
        {"hold_out": 0.25, "view": "fraction=0.5"},
        {"amp": "bf16"},
        {"channels_last": False},
    ],
    ids=lambda settings: ",".join(f"{name}={value}" for name, value in settings.items()),
)
def test_each_setting_trains_to_finite_figures(digits, tmp_path, settings):
    result = train(digits, tmp_path / "run", quick(**{"epochs": 1, **settings}))
    assert math.isfinite(result.rows[0].train_loss)
    assert 0 <= result.scores.top1 <= 1
    samples = {"hold_out=40": 40, "hold_out=0.25": 40}
    key = f"hold_out={settings['hold_out']}" if "hold_out" in settings else ""
    assert result.scores.total == samples.get(key, VAL_SAMPLES)


def test_pictures_grow_where_that_is_asked_for(digits, tmp_path):
    settings = quick(model="resnet18", size=96, recipe="imagenet", progressive=True, epochs=3, view="per_class=4")
    rows = train(digits, tmp_path / "run", settings).rows
    assert [row.size for row in rows] == [64, 64, 96]


def test_frozen_weights_stay_until_they_are_to_learn(digits, tmp_path):
    first = train(digits, tmp_path / "first", quick(model="resnet9", recipe="cifar", epochs=1))
    weights = str(first.run / "best.pt")
    settings = {"model": "resnet9", "recipe": "cifar", "weights": weights, "freeze": True}
    states = {}
    for name, more in (("frozen", {}), ("thawed", {"unfreeze_after": 1})):
        train(digits, tmp_path / name, quick(**settings, **more))
        states[name] = torch.load(tmp_path / name / "last.pt", weights_only=True)["model"]
    before = torch.load(weights, weights_only=True)["model"]
    changed = {
        name: {key.split(".")[0] for key in before if not torch.equal(before[key], state[key])}
        for name, state in states.items()
    }
    assert changed["frozen"] == {"classifier"}
    assert len(changed["thawed"]) > 3


def test_what_was_validated_is_what_is_kept(digits, tmp_path):
    result = train(digits, tmp_path / "run", quick(epochs=3, ema=0.5))
    kept = torch.load(tmp_path / "run" / "best.pt", weights_only=True)
    last = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert kept["epoch"] == result.best.epoch
    if result.best.epoch == 3:
        assert all(torch.equal(kept["model"][name], last["ema"][name]) for name in kept["model"])
    assert any(not torch.equal(last["model"][name], last["ema"][name]) for name in last["model"])


class _Stopper(TrainWatcher):
    def stepped(self, report):
        raise AssertionError("a watcher's fault is not swallowed")


def test_a_fault_of_the_watcher_comes_out(digits, tmp_path):
    with pytest.raises(AssertionError, match="not swallowed"):
        train(digits, tmp_path / "run", quick(), watcher=_Stopper())


class _Reader(TrainWatcher):
    """Keeps the steps at which a run reported."""

    def __init__(self):
        self.steps = []

    def stepped(self, report):
        self.steps.append((report.epoch, report.step))


@pytest.mark.parametrize(
    ("seconds_a_step", "reported"),
    [
        # A GPU's queue would be empty after each report: they come twice a second, however many steps that is.
        (0.001, [(1, 40), (2, 40)]),
        (0.03, [(epoch, step) for epoch in (1, 2) for step in (17, 34, 40)]),
    ],
)
def test_one_process_reports_by_time_and_at_an_epochs_end(digits, tmp_path, monkeypatch, seconds_a_step, reported):
    now = [0.0]

    class Stepping(Learner):
        def step(self, *batch, **options):
            now[0] += seconds_a_step
            return super().step(*batch, **options)

    monkeypatch.setattr("imgdata.training.course.Learner", Stepping)
    monkeypatch.setattr("imgdata.training.course.time", SimpleNamespace(monotonic=lambda: now[0]))
    reader = _Reader()
    train(digits, tmp_path / "run", quick(batch_size=8), watcher=reader)
    assert reader.steps == reported


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_what_was_saved(digits, tmp_path):
    train(digits, tmp_path / "good", quick())
    shutil.copytree(tmp_path / "good", tmp_path / "run")
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at step \d+ .*: try a lower learning rate"):
        train(digits, tmp_path / "run", quick(optimizer="sgd", lr=1e9), overwrite=True)
    assert not (tmp_path / "run" / "last.pt").exists()


def test_memory_that_is_out_says_what_to_do(digits, tmp_path, monkeypatch):
    from imgdata.models.cnn import CNN

    def greedy(self, pictures):
        return torch.empty(len(pictures), 1 << 50)

    monkeypatch.setattr(CNN, "forward", greedy)
    with pytest.raises(TrainingError, match=r"out of memory on cpu with 16 pictures of 16x16 .* accumulate=4"):
        train(digits, tmp_path / "run", quick(accumulate=2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "resnet1"}, "resnet18"),
        ({"batch_size": 1000}, r"batch_size must be at most the 320 samples to train on, got 1,000"),
        ({"split": "nothing"}, r"split must be one of train, val, got 'nothing'"),
        ({"val_view": "where width>1000"}, r"nothing is left of split 'train'|nothing is left of split 'val'"),
        ({"val_split": "val", "val_view": "where width>1000"}, r"nothing is left of split 'val'"),
        ({"device": "cuda"}, r"device must be cpu where PyTorch finds no GPU"),
        ({"device": "tpu"}, r"device must be auto, cpu, cuda"),
        ({"amp": "fp16"}, r"amp must be auto, none or bf16 on the CPU"),
        ({"recipe": "other"}, r"recipe must be auto, imagenet"),
        ({"recipe": "missing.json", "flip": None}, r"missing.json: the recipe can't be read"),
        ({"progressive": True}, r"progressive needs the recipe imagenet, got plain"),
        ({"progressive": True, "recipe": "imagenet", "model": "resnet18", "size": 50}, r"multiple of 32"),
        ({"weights": "missing.pth"}, r"missing.pth"),
    ],
)
def test_settings_that_the_data_refuse(digits, tmp_path, settings, message):
    if settings.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(OptionError, match=message):
        train(digits, tmp_path / "run", quick(**settings))
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_written_over_unless_that_is_asked_for(digits, tmp_path):
    run = tmp_path / "run"
    train(digits, run, quick(epochs=1))
    before = (run / "last.pt").read_bytes()
    with pytest.raises(OutputError, match="already contains a run; resume it"):
        train(digits, run, quick(epochs=1))
    assert (run / "last.pt").read_bytes() == before
    train(digits, run, quick(epochs=1, seed=1), overwrite=True)
    assert (run / "last.pt").read_bytes() != before


def test_a_folder_of_something_else_is_never_replaced(digits, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="must be a new or empty folder"):
        train(digits, tmp_path, quick(), overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_tensorboard_gets_every_epoch(digits, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = train(digits, tmp_path / "run", quick(tensorboard=True))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("top1/val")] == [1, 2]
    assert events.Scalars("loss/train")[1].value == pytest.approx(result.rows[1].train_loss)
