"""Nothing of a step or an evaluation asks the device for a value, or mixes devices.

On the device `meta` tensors have shapes and no values: what needs a value there raises, and so does what has one tensor
there and another one here. On a GPU the first would let the host wait, batch after batch.
"""

import pytest
import torch

from imgdata.inference.predictions import Collector
from imgdata.models import create_model
from imgdata.sample import Batch
from imgdata.training.defaults import Facts, resolve
from imgdata.training.distributed import Processes
from imgdata.training.learner import Learner
from imgdata.training.options import TrainOptions
from imgdata.training.scores import MOST_CONFUSED_CLASSES, Tally

META = torch.device("meta")
SAMPLES, CLASSES, SIDE = 32, 10, 32
VALID = {
    "all": torch.ones(SAMPLES, dtype=torch.bool),
    "some": torch.arange(SAMPLES) % 3 != 0,
    "none": torch.zeros(SAMPLES, dtype=torch.bool),
}


@pytest.mark.parametrize("classes", [2, CLASSES, MOST_CONFUSED_CLASSES + 1])
@pytest.mark.parametrize("valid", VALID)
def test_a_batch_is_counted_without_a_wait(valid, classes):
    # Asserts nothing: a wait would raise.
    logits_NC = torch.empty(SAMPLES, classes, device=META)
    Tally(classes, META).add(logits_NC, torch.empty(SAMPLES, dtype=torch.int64, device=META), VALID[valid])


@pytest.mark.parametrize("valid", VALID)
def test_predictions_are_kept_without_a_wait(valid):
    # Asserts nothing: a wait would raise.
    batch = Batch(
        images=torch.empty(SAMPLES, 3, SIDE, SIDE, device=META),
        labels=torch.empty(SAMPLES, dtype=torch.int64, device=META),
        positions=torch.arange(SAMPLES),
        valid=VALID[valid],
    )
    Collector().add(torch.empty(SAMPLES, CLASSES, device=META), batch)


class HostGenerator(torch.Generator):
    """A generator that is the processor's whatever the device."""

    def __new__(cls, device="cpu"):
        return super().__new__(cls, device="cpu")


def learner(**settings):
    given = TrainOptions(**{"model": "resnet9", "batch_size": SAMPLES, "amp": "none"} | settings)
    options = resolve(given, Facts(samples=50_000, classes=CLASSES, side=SIDE, gpu=True))
    network = create_model(options.model, num_classes=CLASSES, size=SIDE).to(META)
    ranks = Processes(rank=0, world_size=1, device=META)
    return Learner(network, options, ranks, torch.empty(CLASSES, device=META))


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adamw"},
        {"optimizer": "sgd", "clip_grad": 1.0, "accumulate": 4},
        {"ema": 0.99},
        {"model": "resnet18", "optimizer": "sgd"},
        {"model": "cnn", "dropout": 0.2, "label_smoothing": 0.1},
    ],
    ids=lambda settings: " ".join(f"{name}={value}" for name, value in settings.items()),
)
def test_a_step_is_made_without_a_wait(settings, monkeypatch):
    # The moving average makes one for roundings of bfloat16, which this device can't have.
    monkeypatch.setattr(torch, "Generator", HostGenerator)
    learning = learner(**settings)
    learning.begin_epoch()
    images = torch.empty(SAMPLES, 3, SIDE, SIDE, device=META)
    hard, soft = torch.empty(SAMPLES, dtype=torch.int64, device=META), torch.empty(SAMPLES, CLASSES, device=META)
    for number, labels in enumerate((hard, soft)):
        outcome = learning.step(images, labels, number=number, lr=0.1)
        assert (outcome.loss.device, outcome.correct.device) == (META, META)


def test_this_device_finds_what_waits():
    with pytest.raises(RuntimeError):
        torch.bincount(torch.empty(SAMPLES, dtype=torch.int64, device=META))
    with pytest.raises(RuntimeError):
        torch.empty(SAMPLES, device=META)[torch.empty(SAMPLES, dtype=torch.bool, device=META)]
    with pytest.raises(RuntimeError):
        torch.empty(SAMPLES, device=META) + torch.ones(SAMPLES)
