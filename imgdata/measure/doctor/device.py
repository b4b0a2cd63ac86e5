"""A case -> what the device does for each image: copies of batches, steps of a network on batches that are there."""

import torch

from imgdata.measure.doctor.inputs import Case
from imgdata.measure.timing import mean_s
from imgdata.training.data import facts_of
from imgdata.training.defaults import resolve
from imgdata.training.options import TrainOptions
from imgdata.training.throughput import synthetic_step_s

_CPU_BATCH = 16
"""Samples of a step on the processor: each takes as long in any batch, and a whole one could take minutes."""


def copy_ms(case: Case) -> float:
    """Return milliseconds for one image, from pinned memory to a GPU, in the form that the backend makes."""
    height, width = case.recipe.output_size(0)
    count = case.options.batch_size
    # A copy takes the same time whatever the pixels are.
    batch = torch.zeros((count, 3, height, width), dtype=getattr(torch, case.setup.options.dtype)).pin_memory()
    device = torch.device(case.options.device)
    return 1000 * mean_s(lambda: batch.to(device, non_blocking=True), device) / count


def step_ms(case: Case, model: str) -> float:
    """Return milliseconds for one image of a step of training as a run would take it, with batches on the device.

    Raises `OptionError`, `MissingExtraError`, `TrainingError` where the device's memory is out.
    """
    device = torch.device(case.options.device)
    batch = case.options.batch_size if device.type == "cuda" else min(case.options.batch_size, _CPU_BATCH)
    view = case.opened.view
    options = resolve(
        TrainOptions(model=model, batch_size=batch, device=str(device)), facts_of(view, gpu=device.type == "cuda")
    )
    size, classes = case.recipe.output_size(0), max(1, len(view.classes))
    return 1000 * synthetic_step_s(options, num_classes=classes, height_width=size, device=device) / batch
