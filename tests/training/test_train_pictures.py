"""Settings -> what is done to pictures in training and in validation; the same network at any of them."""

import json
import time
import warnings
from pathlib import Path

import pytest
import timm
import torch
from click.testing import CliRunner
from imgdata_cli.display.train import TrainDisplay
from imgdata_cli.main import cli

from imgdata.errors import OptionError
from imgdata.recipes import CenterCrop, HorizontalFlip, Normalize, PadRandomCrop, RandomErasing, Recipe, Resize
from imgdata.training.distributed import Processes
from imgdata.training.history import Report
from imgdata.training.learner import Learner
from imgdata.training.network import half_type, synchronised
from imgdata.training.optimizer import freeze
from imgdata.training.setup import prepare
from imgdata.training.throughput import end_to_end
from support.digit_runs import flags, quick

ALONE = Processes(rank=0, world_size=1, device=torch.device("cpu"))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def recipes_of(digits, **settings):
    with prepare(Path(digits), quick(**settings), ALONE) as prepared:
        return prepared.recipe, prepared.eval_recipe


def own_recipe(folder, *ops):
    path = folder / "own.json"
    path.write_text(json.dumps(Recipe(*ops).to_dict()))
    return str(path)


def test_plain_has_nothing_random(digits):
    recipe, _ = recipes_of(digits, recipe="plain", flip=True)
    assert [type(op) for op in recipe.ops] == [CenterCrop, Normalize]


@pytest.mark.parametrize(
    ("kind", "model", "resize"),
    [("plain", "cnn", 16), ("classifier", "cnn", 16), ("cifar", "resnet9", (16, 16))],
)
def test_validation_takes_pictures_of_any_size_as_training_does(digits, kind, model, resize):
    _, evaluation = recipes_of(digits, recipe=kind, model=model)
    found = evaluation.find(Resize)
    assert found is not None
    assert found.size == resize


def test_training_resizes_pictures_of_the_right_size_by_nothing(digits):
    assert recipes_of(digits, recipe="plain")[0].find(Resize) is None


@pytest.mark.parametrize("normalize", [(), (Normalize(mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5)),)])
def test_validation_is_normalised_as_a_recipe_from_a_file_says(digits, tmp_path, normalize):
    path = own_recipe(tmp_path, Resize(size=20), PadRandomCrop(size=20, padding=2), *normalize)
    recipe, evaluation = recipes_of(digits, recipe=path, model="resnet9", flip=None)
    assert recipe.find(Normalize) == evaluation.find(Normalize) == (normalize[0] if normalize else None)
    assert evaluation.output_size(0) == (20, 20)


@pytest.mark.parametrize(
    "setting", [{"flip": False}, {"policy": "randaugment"}, {"mixup": 0.1}, {"erasing": 0.5}, {"progressive": True}]
)
def test_a_recipe_from_a_file_is_not_added_to(setting):
    (name,) = setting
    with pytest.raises(OptionError, match=f"{name} can't be given with a recipe from a file; put it into own.json"):
        quick(**{"recipe": "own.json", "flip": None} | setting)


def test_a_recipe_from_a_file_is_all_that_is_done(digits, tmp_path):
    ops = (CenterCrop(size=16), HorizontalFlip(), Normalize(mean=(0.0,) * 3, std=(1.0,) * 3), RandomErasing())
    assert recipes_of(digits, recipe=own_recipe(tmp_path, *ops), flip=None)[0] == Recipe(*ops)


def test_batch_norms_with_an_activation_inside_keep_it_over_all_ranks():
    plain = timm.create_model("efficientnet_b0", num_classes=3).eval()
    pictures = torch.randn(1, 3, 64, 64)
    before = plain(pictures)
    converted = synchronised(plain, "efficientnet_b0", torch.device("cuda"))
    assert any(isinstance(module, torch.nn.SyncBatchNorm) for module in converted.modules())
    assert torch.equal(converted.eval()(pictures), before)


def test_both_classifiers_of_a_distilled_network_learn_where_the_rest_is_frozen():
    model = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=3)
    freeze(model, True)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == {"head.weight", "head.bias", "head_dist.weight", "head_dist.bias"}


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_emulated_bf16_is_not_chosen(monkeypatch, native, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    assert half_type("auto", torch.device("cuda")) is expected


def test_timed_steps_are_the_same_with_the_loader_and_without_it(digits, monkeypatch):
    sides, done = [], []
    step = Learner.step

    def noting(self, images, labels, **more):
        sides.append(images.shape[-1])
        return step(self, images, labels, **more)

    monkeypatch.setattr(Learner, "step", noting)
    settings = quick(model="resnet18", size=64, recipe="imagenet", progressive=True, view="per_class=4", batch_size=4)
    result = end_to_end(digits, settings, rounds=2, steps=2, progress=lambda *now: done.append(now))
    # Two rounds of two kinds; each is warmed up, so that batches made ahead don't count for the loader.
    assert len(sides) == 2 * 2 * (5 + 2)
    assert set(sides) == {64}
    assert done == [(1, 2), (2, 2)]
    assert result.real_images_per_s > 0
    assert result.synthetic_images_per_s > 0
    assert 0 <= result.data_wait <= 1


def command(*arguments):
    return CliRunner().invoke(cli, [str(one) for one in ("train", *arguments)], catch_exceptions=False)


def test_timed_steps_are_printed_as_json_and_kept(digits, tmp_path):
    done = command(digits, "--out", tmp_path / "run", "--synthetic", "--steps", 2, "--json", *flags())
    printed = json.loads(done.stdout)
    assert printed == json.loads((tmp_path / "run" / "throughput.json").read_text())
    assert printed["steps"] == 2


def test_json_stands_alone_on_the_output_and_quiet_says_nothing_else(digits, tmp_path):
    done = command(digits, "--out", tmp_path / "run", "--json", "--quiet", *flags(epochs=1))
    assert json.loads(done.stdout)["total"] == 80
    assert done.stderr == ""


def test_lines_of_progress_are_whole_and_the_time_left_is_that_of_the_steps_since_the_start(monkeypatch, capsys):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    display = TrainDisplay(quiet=False)
    config = {
        "options": {
            "model": "cnn",
            "epochs": 10,
            "batch_size": 4,
            "optimizer": "sgd",
            "lr": 0.1,
            "hold_out": None,
            "flip": True,
            "patience": None,
            "label_smoothing": 0.0,
            "freeze_batchnorm": False,
        },
        "views": {"train": {"split": "train", "view": ""}, "val": {"split": "val", "view": ""}},
        "trained_and_validated": 0,
        "recipe_name": "cifar",
        "letters": False,
        "backend_description": "cpu: 2 threads",
        "samples": {"train": 40, "val": 8},
        "classes": [["0", "a"]] * 1000,
        "parameters": 1,
        "size": 16,
        "device": "cpu",
        "world_size": 1,
        "steps_per_epoch": 10,
    }
    # A run that goes on in the middle of its last epoch: 5 steps are left, the first took 10 seconds.
    display.started(config, 95)
    now[0] += 10
    display.stepped(Report(epoch=10, step=6, steps=10, loss=12345.678, top1=0.5, images_per_s=1e6, data_wait=0.5))
    lines = capsys.readouterr().err.splitlines()
    assert "resuming after step 5 of epoch 10" in lines
    assert lines[-1].startswith("epoch 10/10  step 6/10  loss 12345.678")
    assert lines[-1].endswith("0:00:40 left")


def test_warnings_become_notes(capsys):
    display = TrainDisplay(quiet=False)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = display.warned
        warnings.warn("s0003 is bad", stacklevel=1)
    assert capsys.readouterr().err == "note s0003 is bad\n"
