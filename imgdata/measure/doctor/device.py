"""A case -> what the device does for each image: copies of batches, steps of a network on batches that are there."""

import itertools

import torch

from imgdata.measure.doctor.inputs import Case
from imgdata.measure.timing import mean_s
from imgdata.models import create_model
from imgdata.training.data import facts_of
from imgdata.training.defaults import resolve
from imgdata.training.distributed import Processes
from imgdata.training.learner import Learner
from imgdata.training.options import TrainOptions

_CPU_BATCH = 16
"""Samples of a step on the processor: each takes as long in any batch, and a whole one could take minutes."""


def copy_ms(case: Case) -> float:
    """Return milliseconds for one image, from pinned memory to a GPU, in the form that the backend makes."""
    height, width = case.recipe.output_size(0)
    count = case.options.batch_size
    batch = torch.zeros((count, 3, height, width), dtype=getattr(torch, case.setup.options.dtype)).pin_memory()
    device = torch.device(case.options.device)
    return 1000 * mean_s(lambda: batch.to(device, non_blocking=True), device) / count


def step_ms(case: Case, model: str) -> float:
    """Return milliseconds for one image of a step of training, on a batch that is on the device already.

    Raises `OptionError`, `MissingExtraError`, `TrainingError` where the device's memory is out.
    """
    device = torch.device(case.options.device)
    height, width = case.recipe.output_size(0)
    batch = case.options.batch_size if device.type == "cuda" else min(case.options.batch_size, _CPU_BATCH)
    view = case.opened.view
    options = resolve(
        TrainOptions(model=model, batch_size=batch, device=str(device)), facts_of(view, gpu=device.type == "cuda")
    )
    classes = max(1, len(view.classes))
    network = create_model(model, num_classes=classes, size=height).to(device).to(memory_format=torch.channels_last)
    learner = Learner(network, options, Processes(rank=0, world_size=1, device=device))
    learner.begin_epoch()
    images = torch.zeros((batch, 3, height, width), device=device).to(memory_format=torch.channels_last)
    labels = torch.zeros(batch, dtype=torch.int64, device=device)
    numbers = itertools.count()
    return 1000 * mean_s(lambda: learner.step(images, labels, number=next(numbers), lr=0.0), device) / batch
