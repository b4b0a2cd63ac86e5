"""A batch -> one step of the optimizer: forward, backward, update."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from imgdata.errors import TrainingError
from imgdata.models.ema import moving_average
from imgdata.training.defaults import DecidedOptions
from imgdata.training.distributed import Processes
from imgdata.training.interrupts import memory_advice
from imgdata.training.network import autocast, half_type, spread
from imgdata.training.optimizer import freeze, make_optimizer, set_learning_rate, train_mode
from imgdata.training.own import Loss
from imgdata.training.task import Task

_STEP_STREAM = 0x9E3779B97F4A7C15
"""Factor that spreads the seeds of neighbouring steps: 2^64 over the golden ratio."""


class Outcome(NamedTuple):
    """Figures of one step, on this rank; nothing has waited for the device."""

    loss: torch.Tensor
    """Mean over the rank's samples, float32 `()`."""
    correct: torch.Tensor
    """Samples whose highest logit is that of the label, or of the larger part of a mixed one, int64 `()`."""


class Learner:
    """The network, its optimizer and its moving average: all that a step changes."""

    def __init__(
        self,
        model: nn.Module,
        options: DecidedOptions,
        ranks: Processes,
        weight_C: torch.Tensor | None = None,
        loss: Loss | None = None,
        task: Task | None = None,
    ) -> None:
        """Prepare the first step; `task` is None for one class a picture."""
        self.model = model
        self.frozen = options.freeze
        self._options = options
        self._ranks = ranks
        self._weight_C = weight_C
        self._own_loss = loss
        self._task = task or Task(kind="class", outputs=0)
        self._half = half_type(options.amp, ranks.device)
        freeze(model, self.frozen)
        self.optimizer = make_optimizer(model, options)
        # Before `spread`: what wraps the network has no part in it.
        self.ema = moving_average(model, options.ema) if options.ema else None
        self._scaler = torch.amp.GradScaler(enabled=self._half is torch.float16)
        self._called, self._exchange = spread(model, options, ranks)

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and kept: the moving average where there is one."""
        averaged: nn.Module = self.model if self.ema is None else self.ema.module
        return averaged

    def thaw(self) -> None:
        """Let the whole network learn from now on."""
        self.frozen = False
        freeze(self.model, False)
        # Which gradients are exchanged is decided when the network is wrapped; the old wrapper must be freed before.
        self._called, self._exchange = self.model, None
        gc.collect()
        self._called, self._exchange = spread(self.model, self._options, self._ranks)

    def begin_epoch(self) -> None:
        """Put the network into training mode, after an evaluation."""
        train_mode(self.model, self.frozen, freeze_batchnorm=self._options.freeze_batchnorm)

    def step(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        *,
        number: int,
        lr: float,
        weight_N: torch.Tensor | None = None,
    ) -> Outcome:
        """Train on a batch: images `(N, C, H, W)`, labels int64 `(N,)` or float32 `(N, ...)`, weights in the loss.

        Dropout and the like depend on the seed, `number` and the rank alone. Raises `TrainingError` when memory is out.
        """
        options, ranks = self._options, self._ranks
        torch.manual_seed((options.seed + _STEP_STREAM * (number * ranks.world_size + ranks.rank + 1)) % 2**63)
        set_learning_rate(self.optimizer, lr)
        with memory_advice(lambda: self._memory_advice(images)):
            outcome = self._forward_and_backward(images, labels, weight_N)
            if options.clip_grad is not None:
                self._scaler.unscale_(self.optimizer)
                nn.utils.clip_grad_norm_(self.model.parameters(), options.clip_grad)
            self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(self.model, step=number)
        return outcome

    def _forward_and_backward(
        self, images: torch.Tensor, labels: torch.Tensor, weight_N: torch.Tensor | None
    ) -> Outcome:
        """Add up gradients of the mean loss, part after part; ranks exchange them in the last part's backward alone."""
        losses, correct = [], []
        count = self._options.accumulate
        parts = list(zip(images.chunk(count), labels.chunk(count), strict=True))
        weights = [None] * len(parts) if weight_N is None else list(weight_N.chunk(count))
        for number, (image_part, label_part) in enumerate(parts):
            silent = self._exchange if number < len(parts) - 1 else None
            with nullcontext() if silent is None else silent.no_sync():
                with autocast(self._half, self._ranks.device), _one_picture_refused(len(image_part)):
                    logits_NC = self._called(image_part)
                loss = self._loss(logits_NC.float(), label_part, weights[number]) / len(images)
                self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
            correct.append(self._task.right(logits_NC.detach(), label_part).sum())
        return Outcome(torch.stack(losses).sum(), torch.stack(correct).sum())

    def _loss(
        self, logits_NC: torch.Tensor, labels: torch.Tensor, weight_N: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the sum over samples. Weights are not divided out: their mean over the data is 1, and ranks differ."""
        if self._own_loss is not None:
            return _checked(self._own_loss(logits_NC, labels)) * len(logits_NC)
        if weight_N is not None or not self._task.is_classes:
            loss_N = self._task.losses(logits_NC, labels, self._weight_C, self._options.label_smoothing)
            return (loss_N if weight_N is None else loss_N * weight_N).sum()
        return functional.cross_entropy(
            logits_NC,
            labels,
            weight=self._weight_C,
            label_smoothing=self._options.label_smoothing,
            reduction="sum",
        )

    def state(self) -> dict[str, Any]:
        """Return all that a step changes, as tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over `state`."""
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        # Which kernels the optimizer has depends on the device, which may be another now.
        groups = state["optimizer"]["param_groups"]
        for saved, own in zip(groups, self.optimizer.param_groups, strict=True):
            saved["fused"] = own["fused"]
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self._scaler.load_state_dict(state["scaler"])

    def _memory_advice(self, images: torch.Tensor) -> str:
        accumulate, samples = self._options.accumulate, len(images)
        ways = []
        if accumulate < samples:
            ways.append(f"accumulate={2 * accumulate}, which computes the same in smaller parts")
        ways.append(f"batch_size={max(1, self._options.batch_size // 2)}, or a smaller size")
        return (
            f"out of memory on {self._ranks.device} with {-(-samples // accumulate)} pictures of "
            f"{images.shape[-2]}x{images.shape[-1]} at once; try {', or '.join(ways)}"
        )


def _checked(loss: torch.Tensor) -> torch.Tensor:
    """Return what a user's loss gave. Raises `TrainingError` where it is no single number."""
    if not isinstance(loss, torch.Tensor) or loss.ndim:
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__
        raise TrainingError(f"loss must return the mean over the batch, a tensor of one number, got {got}")
    return loss


@contextmanager
def _one_picture_refused(pictures: int) -> Iterator[None]:
    """Raise `TrainingError` where batch norm has no statistics, as of a single value."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise TrainingError(
            f"the network's batch norm must see 2 pictures at once or more, got {pictures}; use a larger batch_size, "
            "fewer parts (accumulate), or a larger size"
        ) from error
