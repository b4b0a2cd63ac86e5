"""A network, a batch -> the rows of one step of training, and of its answers."""

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from imgdata.measure.timing import least_ms
from imgdata.measure.trace.rows import TraceRow
from imgdata.sample import ClassName
from imgdata.training.distributed import Processes
from imgdata.training.learner import Learner
from imgdata.training.setup import Prepared

_LAST_SHARE = 0.01
"""Share of the highest learning rate for networks that have learned: where training ends."""


def train_row(
    prepared: Prepared,
    model: nn.Module,
    ranks: Processes,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    trained: bool,
) -> TraceRow:
    """Return a row of one step on a copy of the network, with the loss of the same batch before and after it."""
    learner = Learner(copy.deepcopy(model), prepared.options, ranks, prepared.weight_C)
    images, labels = images.to(ranks.device), labels.to(ranks.device)
    learner.begin_epoch()
    lr = prepared.options.lr * (_LAST_SHARE if trained else 1.0)
    losses = []

    def step() -> None:
        # The same number each time: what dropout leaves out is the same before and after.
        outcome = learner.step(images, labels, number=0, lr=lr)
        losses.append(float(outcome.loss))

    step()
    ms = least_ms(step, ranks.device, rounds=1) / len(images)
    example = f"{losses[0]:.3f} -> {losses[1]:.3f}"
    return TraceRow(
        stage="train", step="loss, one step", count=1, shape=(), dtype="float32", example=example, ms_per_image=ms
    )


@torch.no_grad()
def answer_rows(
    model: nn.Module, images: torch.Tensor, label_N: torch.Tensor, classes: tuple[ClassName, ...]
) -> tuple[list[TraceRow], NDArray[np.float32]]:
    """Return the rows of evaluation, and the probabilities of the first sample, float32 `(C,)`."""
    logits_NC = model(images)
    ms = least_ms(lambda: model(images), images.device, rounds=2) / len(images)
    chance_NC = logits_NC.float().softmax(dim=1).cpu()
    best = int(chance_NC[0].argmax())
    right = int((chance_NC.argmax(dim=1) == label_N).sum())
    count, shape = len(images), (len(classes),)
    top = f"{chance_NC[0, best]:.1%} {classes[best].name}"
    logits = f"{float(logits_NC[0, best]):.3g}"
    rows = [
        TraceRow(
            stage="evaluate",
            step=name,
            count=count,
            shape=shape,
            dtype="float32",
            example=example,
            ms_per_image=ms if name == "logits" else None,
            low=float(values.min()),
            high=float(values.max()),
        )
        for name, values, example in (
            ("logits", logits_NC.float(), logits),
            ("softmax", chance_NC, top),
        )
    ]
    rows.append(
        TraceRow(stage="evaluate", step="right", count=count, shape=(), dtype="", example=f"{right} of {count}")
    )
    return rows, chance_NC[0].numpy()
