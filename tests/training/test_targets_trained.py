"""Training on several classes, shares and numbers: losses, scores, weights of samples, resumes, evaluation."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

import imgdata
from imgdata.training.crops import outputs_of
from imgdata.training.task import Task, average_precision, mean_absolute_error, mean_average_precision, r_squared
from support.targets import expected, made

KINDS = {"multi-label": "tags", "soft": "p,q", "regression": "age"}
OUTPUTS = {"multi-label": 3, "soft": 2, "regression": 1}


def network(kind: str) -> nn.Module:
    """The least that learns."""
    torch.manual_seed(0)
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, OUTPUTS[kind]))


def run(folder: Path, out: Path, kind: str, **settings: Any) -> imgdata.TrainResult:
    options = {"epochs": 2, "size": 16, "batch_size": 8, "hold_out": 8, "device": "cpu", "lr": 0.01, "amp": "none"}
    return imgdata.train(folder, out, model=network(kind), **{**options, **settings})


@pytest.fixture(scope="module", params=KINDS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path, Any]:
    """A kind of target, its dataset, a run on it and the run's result; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    data = made(folder, request.param, KINDS[request.param])
    return request.param, data, folder / "run", run(data, folder / "run", request.param)


@pytest.mark.parametrize("seed", range(4))
def test_mean_average_precision_is_that_of_scikit_learn(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(seed)
    # Of few values, so that samples share thresholds.
    scores = random.integers(0, 8 if seed % 2 else 1000, (50, 4)).astype(np.float32)
    labels = (random.random((50, 4)) < 0.3).astype(np.float32)
    labels[0] = 1
    found = mean_average_precision(torch.from_numpy(scores), torch.from_numpy(labels))
    assert found == pytest.approx(metrics.average_precision_score(labels, scores, average="macro"), abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "labels", "value"),
    [
        ([3, 2, 1], [1, 0, 0], 1.0),
        ([3, 2, 1], [0, 0, 1], 1 / 3),
        ([3, 2, 1], [1, 0, 1], (1 + 2 / 3) / 2),
        ([1, 1, 1, 1], [1, 0, 0, 1], 0.5),
    ],
)
def test_average_precision_by_hand(scores, labels, value):
    assert average_precision(np.array(scores, float), np.array(labels, bool)) == pytest.approx(value)


def test_classes_without_a_sample_do_not_count():
    scores, labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert mean_average_precision(scores, labels) == 1.0
    assert mean_average_precision(scores, torch.zeros(2, 2)) == 0.0


def test_r_squared_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    labels, values = random.normal(size=(30, 3)), random.normal(size=(30, 3))
    labels[:, 2] = 5
    found = r_squared(torch.from_numpy(values), torch.from_numpy(labels))
    assert found == pytest.approx(metrics.r2_score(labels, values))
    assert mean_absolute_error(torch.from_numpy(values), torch.from_numpy(labels)) == pytest.approx(
        metrics.mean_absolute_error(labels, values)
    )


def test_losses_are_those_of_pytorch():
    outputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    several = Task(kind="multi-label", outputs=3)
    assert float(several.losses(outputs, labels).mean()) == pytest.approx(
        float(nn.functional.binary_cross_entropy_with_logits(outputs, labels))
    )
    numbers = Task(kind="regression", outputs=3, mean_D=(1.0, 0.0, 2.0), std_D=(2.0, 1.0, 0.5))
    standard = (labels - torch.tensor([1.0, 0, 2])) / torch.tensor([2.0, 1, 0.5])
    for distance, function in ("mse", nn.functional.mse_loss), ("l1", nn.functional.l1_loss):
        one = Task(kind="regression", outputs=3, mean_D=numbers.mean_D, std_D=numbers.std_D, distance=distance)
        assert float(one.losses(outputs, labels).mean()) == pytest.approx(float(function(outputs, standard)))
    assert torch.allclose(numbers.values(standard), labels)


@pytest.mark.parametrize("kind", ["class", "soft", "multi-label", "regression"])
def test_outputs_of_several_crops_give_the_mean_of_what_they_mean(kind):
    crops = [torch.randn(4, 3, 1, 2, generator=torch.Generator().manual_seed(seed)) for seed in range(5)]
    means = {"multi-label": torch.sigmoid, "regression": lambda outputs: outputs}.get(kind, lambda one: one.softmax(1))

    def model(images):
        return 20 * images[:, :, 0, 0]

    found = outputs_of(model, crops, flip_test=False, task=Task(kind=kind, outputs=3))
    assert torch.allclose(means(found), torch.stack([means(model(one)) for one in crops]).mean(0), atol=1e-6)
    flipped = outputs_of(model, crops[:1], flip_test=True, task=Task(kind=kind, outputs=3))
    assert torch.equal(flipped, (model(crops[0]) + model(crops[0].flip(-1))) / 2)


def test_a_run_says_its_target_and_its_scores(trained):
    kind, _, folder, result = trained
    config, summary = (json.loads((folder / f"{name}.json").read_text()) for name in ("config", "summary"))
    assert config["target"]["kind"] == summary["target"] == kind
    assert config["target"]["columns"] == KINDS[kind].split(",")
    names = {"multi-label": {"mean_ap"}, "regression": {"r2", "mae"}, "soft": set()}[kind]
    assert set(result.best.metrics) == set(summary["metrics"]) == names
    score = {"multi-label": "mean_ap", "regression": "r2"}.get(kind)
    order = [(row.val_top1 if score is None else row.metrics[score], -row.val_loss) for row in result.rows]
    assert result.best.epoch == 1 + order.index(max(order))
    word = {"multi-label": "mean average precision", "regression": "R^2", "soft": "% right"}[kind]
    assert word in str(result)
    assert result.rows[-1].train_loss < result.rows[0].train_loss


def test_an_evaluation_of_the_run_gives_its_scores(trained):
    kind, data, folder, result = trained
    found = imgdata.evaluate(folder, data, model=network(kind), device="cpu")
    assert found.scores.total == 8
    assert found.scores.loss == pytest.approx(result.scores.loss, abs=1e-5)
    assert dict(found.scores.metrics) == pytest.approx(dict(result.scores.metrics), abs=1e-5)
    assert json.dumps(found.to_dict())
    assert str(found)


def test_an_evaluation_and_a_prediction_have_a_row_for_each_sample(trained, tmp_path):
    kind, data, folder, _ = trained
    if kind == "soft":
        found = imgdata.evaluate(folder, data, split="train", model=network(kind), device="cpu")
        assert len(found.predictions) == 40
        return
    evaluated = imgdata.evaluate(folder, data, split="train", model=network(kind), device="cpu").said
    predicted = imgdata.predict_dataset(folder, data, split="train", model=network(kind), device="cpu").said
    assert evaluated is not None
    assert predicted is not None
    assert np.allclose(evaluated.value_ND, predicted.value_ND)
    assert evaluated.names == {"multi-label": ("bird", "cat", "dog"), "regression": ("age",)}[kind]
    assert evaluated.keys == [f"{number:03d}" for number in range(40)]
    for name in "rows.csv", "rows.parquet":
        predicted.save(tmp_path / name)
    table = pq.read_table(tmp_path / "rows.parquet")
    assert table.column_names == ["key", *evaluated.names]
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 41
    if kind == "multi-label":
        assert ((evaluated.value_ND > 0) & (evaluated.value_ND < 1)).all()


def test_a_run_that_is_resumed_has_the_same_losses(trained, tmp_path):
    kind, data, _, result = trained
    run(data, tmp_path / "run", kind, epochs=1)
    resumed = imgdata.train(data, tmp_path / "run", model=network(kind), epochs=2, resume=True)
    # One epoch has another schedule, so that the first one differs; that it goes on is what counts.
    assert len(resumed.rows) == len(result.rows) == 2
    assert resumed.config["target"] == result.config["target"]


def test_weights_of_samples_weigh_their_losses(tmp_path):
    folder = made(tmp_path, "regression", "age", 16)
    weighted = run(folder, tmp_path / "a", "regression", weight_column="weight", epochs=1, hold_out=4)
    plain = run(folder, tmp_path / "b", "regression", epochs=1, hold_out=4)
    assert weighted.rows[0].train_loss != plain.rows[0].train_loss
    # Validation weighs nothing.
    assert weighted.scores.total == plain.scores.total == 4


def test_a_weight_counts_as_often_as_it_says():
    from imgdata.training.defaults import Facts, resolve
    from imgdata.training.distributed import Processes
    from imgdata.training.learner import Learner
    from imgdata.training.options import TrainOptions

    decided = resolve(
        TrainOptions(model="cnn", optimizer="sgd", batch_size=2, epochs=1, amp="none", channels_last=False),
        Facts(samples=4, classes=2, side=4, gpu=False),
    )
    ranks = Processes(rank=0, world_size=1, device=torch.device("cpu"))
    images, labels = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1])
    made_twice = []
    for batch, label_N, weights in (
        (images, labels, torch.tensor([2.0, 1.0])),
        (images[[0, 0, 1]], labels[[0, 0, 1]], None),
    ):
        torch.manual_seed(0)
        learner = Learner(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), decided, ranks)
        loss = learner._loss(learner.model(batch), label_N, weights)
        made_twice.append(float(loss.detach()))
    assert made_twice[0] == pytest.approx(made_twice[1], rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("multi-label", {"class_weights": "balanced"}, r"class_weights can't be given with the target 'multi-label'"),
        ("regression", {"label_smoothing": 0.1}, r"label_smoothing can't be given with the target 'regression'"),
        ("multi-label", {"regression_loss": "l1"}, r"regression_loss must be left out for the target 'multi-label'"),
        (
            "regression",
            {"weight_column": "tags"},
            r"weight_column must be of numbers from 0, and not all 0, got 'tags'",
        ),
        ("regression", {"weight_column": "y"}, r"weight_column must be of numbers from 0, and not all 0, got 'y'"),
        ("regression", {"weight_column": "none"}, r"columns must be among .*, got 'none'"),
        ("regression", {"balance": True}, r"balance: samples must have classes, got numbers"),
    ],
)
def test_settings_that_mean_nothing_are_refused(tmp_path, kind, settings, message):
    folder = made(tmp_path, kind, KINDS[kind], 16)
    with pytest.raises(imgdata.OptionError, match=message):
        run(folder, tmp_path / "run", kind, **{"hold_out": 4, **settings})


def test_a_network_of_another_target_is_refused(trained, tmp_path):
    kind, _, folder, _ = trained
    another = "multi-label" if kind == "regression" else "regression"
    other = made(tmp_path, another, KINDS[another], 8)
    with pytest.raises(imgdata.OptionError, match=f"the target must be '{kind}', which .* learned, got"):
        imgdata.evaluate(folder, other, split="train", model=network(kind), device="cpu")


def test_files_get_the_probability_of_each_class(trained, tmp_path):
    kind, data, folder, _ = trained
    picture = tmp_path / "one.jpg"
    picture.write_bytes(imgdata.open(data)["train"][0].image)
    if kind == "regression":
        with pytest.raises(imgdata.OptionError, match="predicts numbers, and those of a dataset alone"):
            imgdata.predict(folder, picture, model=network(kind), device="cpu")
        return
    (found,) = imgdata.predict(folder, picture, model=network(kind), device="cpu")
    total = sum(one.probability for one in found.predictions)
    assert (total == pytest.approx(1)) is (kind == "soft")


@pytest.mark.parametrize("column", ["x,y"])
def test_vectors_are_predicted(tmp_path, column):
    folder = made(tmp_path, "regression", column, 16)
    torch.manual_seed(0)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 2))
    result = imgdata.train(
        folder, tmp_path / "run", model=model, epochs=1, size=16, batch_size=8, hold_out=4, regression_loss="l1"
    )
    assert result.config["target"]["outputs"] == 2
    found = imgdata.evaluate(tmp_path / "run", folder, split="train", model=model).said
    assert found is not None
    assert found.names == ("x", "y")


def test_expected_targets_are_of_the_kind(trained):
    kind = trained[0]
    assert np.shape(expected(kind, 0)) == {"multi-label": (3,), "soft": (2,), "regression": ()}[kind]
