"""Settings of a run: what is refused, what is decided by the data, what may change; the course of the learning rate."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdata.errors import OptionError
from imgdata.training.defaults import Facts, resolve
from imgdata.training.optimizer import lr_share, phase_at
from imgdata.training.options import TrainOptions, resumed_options

CIFAR = Facts(samples=45_000, classes=10, side=32, gpu=True)
IMAGENET = Facts(samples=1_281_167, classes=1000, side=375, gpu=True)
PHOTOS = Facts(samples=800, classes=5, side=64, gpu=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1, got 0"),
        ({"epochs": 2.5}, "epochs must be a whole number of at least 1, got 2.5"),
        ({"batch_size": True}, "batch_size must be a whole number"),
        ({"lr": 0}, "lr must be above 0"),
        ({"lr": -1.0}, "lr must be at least 0, got -1.0"),
        ({"lr": math.inf}, "lr must be at least 0, got inf"),
        ({"mixup": math.nan}, "mixup must be at least 0, got nan"),
        ({"dropout": 1.0}, "dropout must be 0 to 0.99, got 1.0"),
        ({"erasing": 2}, "erasing must be 0 to 1, got 2"),
        ({"optimizer": "lion"}, "optimizer must be one of sgd, adamw, got 'lion'"),
        ({"curve": "steps"}, "curve must be one of cosine, onecycle, constant"),
        ({"backend": "tf"}, "backend must be one of auto, cpu, dali, resident"),
        ({"pretrained": True, "weights": "a.pth"}, "pretrained and weights can't be given together"),
        ({"freeze": True}, "freeze needs pretrained weights"),
        ({"unfreeze_after": 2}, "unfreeze_after needs freeze"),
        ({"hold_out": 0.1, "val_split": "val"}, "hold_out can't be given with val_split"),
        ({"hold_out": 10.5}, "hold_out must be a share below 1 or a whole number"),
        ({"balance": True, "class_weights": "balanced"}, "balance and class_weights can't be given together"),
        ({"hold_out": 0.1, "view": "balance"}, "hold_out can't cut a balanced view"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings, message):
    with pytest.raises(OptionError, match=message):
        TrainOptions(**settings)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (CIFAR, {"model": "resnet9", "epochs": 30, "batch_size": 512, "optimizer": "adamw", "label_smoothing": 0.1}),
        (IMAGENET, {"model": "resnet50", "epochs": 18, "batch_size": 1024, "optimizer": "sgd", "lr": 0.4}),
        (PHOTOS, {"model": "cnn", "epochs": 20, "batch_size": 16, "optimizer": "adamw", "label_smoothing": 0.0}),
    ],
)
def test_what_is_left_open_follows_from_the_data(facts, expected):
    decided = resolve(TrainOptions(), facts)
    assert {name: getattr(decided, name) for name in expected} == expected
    assert None not in (decided.lr, decided.weight_decay, decided.warmup)


@pytest.mark.parametrize(
    ("samples", "ranks", "expected"),
    [(45_000, 1, 512), (45_000, 3, 510), (800, 3, 15), (10, 1, 10), (10, 4, 8), (3, 4, 4)],
)
def test_the_batch_that_is_chosen_can_be_had(samples, ranks, expected):
    facts = Facts(samples=samples, classes=10, side=32, gpu=True, ranks=ranks)
    assert resolve(TrainOptions(), facts).batch_size == expected


def test_what_was_given_is_kept():
    given_all = TrainOptions(model="resnet18", epochs=3, batch_size=7, lr=0.5, weight_decay=0.0, warmup=0.0)
    decided = resolve(given_all, CIFAR)
    assert {name: value for name, value in given_all.to_dict().items() if value is not None}.items() <= (
        decided.to_dict().items()
    )


def test_settings_go_through_json():
    settings = TrainOptions(model="cnn", hold_out=0.2, mixup=0.1)
    assert TrainOptions.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_a_setting_of_another_version_is_named():
    with pytest.raises(OptionError, match="'colour' is none; another imgdata wrote it"):
        TrainOptions.from_dict({"colour": "blue"})


def test_a_run_goes_on_with_what_may_change_and_refuses_the_rest():
    saved = resolve(TrainOptions(epochs=3), CIFAR)
    assert resumed_options(saved, {"epochs": 9, "threads": 2, "accumulate": 4}).epochs == 9
    assert resumed_options(saved, {"lr": saved.lr}) == saved
    with pytest.raises(OptionError, match=r"mixup must be 0\.0, which the run was started with, got 0\.5"):
        resumed_options(saved, {"mixup": 0.5})


@given(
    steps=st.integers(1, 500),
    warmup=st.integers(0, 600),
    curve=st.sampled_from(["cosine", "onecycle", "constant"]),
)
def test_the_learning_rate_rises_to_its_highest_and_never_rises_again(steps, warmup, curve):
    shares = [lr_share(step, steps=steps, warmup=warmup, curve=curve) for step in range(steps)]
    highest = shares.index(max(shares))
    assert all(0 < share <= 1 for share in shares)
    assert shares[: highest + 1] == sorted(shares[: highest + 1])
    assert shares[highest:] == sorted(shares[highest:], reverse=True)
    assert max(shares) == pytest.approx(1)


def test_the_cosine_passes_the_middle_half_way_and_ends_low():
    assert lr_share(10, steps=110, warmup=10, curve="cosine") == 1
    assert lr_share(60, steps=110, warmup=10, curve="cosine") == pytest.approx(0.505)
    assert lr_share(109, steps=110, warmup=10, curve="cosine") == pytest.approx(0.01, abs=1e-3)


@pytest.mark.parametrize(
    ("step", "ends", "expected"),
    [(0, [10], (0, 0, 10)), (4, [5, 10], (0, 4, 5)), (5, [5, 10], (1, 0, 5)), (9, [5, 10], (1, 4, 5))],
)
def test_each_phase_counts_its_own_steps(step, ends, expected):
    assert phase_at(step, ends) == expected
