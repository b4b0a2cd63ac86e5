"""A network, a loader -> logits and labels, batch after batch -> top-1, top-5, loss, confusion, calibration."""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from imgdata.backends.torch_ops.batched import upload
from imgdata.errors import TrainingError
from imgdata.loader.loader import Loader
from imgdata.sample import Batch
from imgdata.training.crops import outputs_of
from imgdata.training.distributed import Processes
from imgdata.training.network import autocast, exact_products
from imgdata.training.own import Metric
from imgdata.training.task import Task

CALIBRATION_BINS = 15
"""Number of bins, as in Guo et al., "On calibration of modern neural networks", 2017 (arXiv 1706.04599)."""
MOST_CONFUSED_CLASSES = 4096
"""Most classes of a confusion matrix; a larger matrix would take more memory than the network."""

Seen = Callable[[torch.Tensor, Batch], None]
"""Called with the logits of each batch, float32 `(N, C)`, and the batch."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """The quality of predictions, each sample counted once."""

    total: int
    """Samples whose image could be decoded."""
    skipped: int
    """Samples whose image could not be decoded; they are in no figure."""
    correct: int
    """Samples whose label had the highest logit."""
    correct_5: int
    """Samples whose label was among the five highest logits (all samples with up to five classes)."""
    loss: float
    """Mean cross-entropy, in nats."""
    calibration_error: float
    """Mean distance between confidence and accuracy, weighted by samples, in 15 bins of equal width (Guo et al.)."""
    right_C: NDArray[np.int64]
    """Correct samples of each class, `(C,)`."""
    count_C: NDArray[np.int64]
    """Samples of each class, `(C,)`."""
    confusion_CC: NDArray[np.int64] | None
    """Samples by label (row) and prediction (column), `(C, C)`; None above `MOST_CONFUSED_CLASSES`."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Values of the user's own metrics, by name, and those of targets that aren't one class."""
    kind: str = "class"
    """What the target is. Of `multi-label`, `correct` counts samples all of whose classes are right, and `right_C`
    those that have a class and are said to; of `regression` both are 0. `loss` is that of training."""

    @property
    def top1(self) -> float:
        """Share of samples that are right, 0 to 1."""
        return self.correct / self.total if self.total else 0.0

    @property
    def top5(self) -> float:
        """Share of samples whose label is among the five best, 0 to 1."""
        return self.correct_5 / self.total if self.total else 0.0

    def to_state(self) -> dict[str, Any]:
        """Return the figures as tensors and plain values, for a checkpoint."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {
            name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in values.items()
        }

    @staticmethod
    def from_state(state: Mapping[str, Any]) -> "Scores":
        """Return the figures that `to_state` gave."""
        plain: dict[str, Any] = {
            name: value.numpy() if isinstance(value, torch.Tensor) else value for name, value in state.items()
        }
        return Scores(**plain)


class Tally:
    """Counts on the device; nothing waits for the device until `scores` sums over all ranks."""

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self.num_classes = num_classes
        confused = num_classes <= MOST_CONFUSED_CLASSES
        self._pairs = torch.zeros(num_classes**2 if confused else 0, dtype=torch.int64, device=device)
        self._count_C = torch.zeros(num_classes, dtype=torch.int64, device=device)
        self._right_C = torch.zeros(num_classes, dtype=torch.int64, device=device)
        self._correct_5 = torch.zeros((), dtype=torch.int64, device=device)
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._bins = torch.zeros(2, CALIBRATION_BINS, dtype=torch.float64, device=device)

    @torch.no_grad()
    def add(self, logits_NC: torch.Tensor, label_N: torch.Tensor, valid_N: torch.Tensor) -> None:
        """Count a batch: logits float `(N, C)`, labels int64 `(N,)`, and which count, bool `(N,)` on the CPU."""
        # No `bincount` and no indexing by a mask: both ask the device how much there is, and wait for its answer.
        logits_NC = logits_NC.float()
        (weigh_N,) = upload([valid_N.numpy()], logits_NC.device)
        count_N = weigh_N.long()
        confidence_N, best_N = logits_NC.softmax(dim=1).max(dim=1)
        # A label that doesn't count may be anything, -1 too.
        label_N = torch.where(weigh_N, label_N, 0)
        right_N = (best_N == label_N).logical_and_(weigh_N)
        if len(self._pairs):
            self._pairs.index_add_(0, label_N * self.num_classes + best_N, count_N)
        self._count_C.index_add_(0, label_N, count_N)
        self._right_C.index_add_(0, label_N, right_N.long())
        five = logits_NC.topk(min(5, self.num_classes), dim=1).indices
        self._correct_5 += (five == label_N[:, None]).any(dim=1).logical_and_(weigh_N).sum()
        loss_N = functional.cross_entropy(logits_NC, label_N, reduction="none").double()
        self._loss += torch.where(weigh_N, loss_N, 0.0).sum()
        bin_N = (confidence_N * CALIBRATION_BINS).ceil().long().clamp(1, CALIBRATION_BINS) - 1
        self._bins[0].index_add_(0, bin_N, torch.where(weigh_N, confidence_N.double(), 0.0))
        self._bins[1].index_add_(0, bin_N, right_N.double())

    def scores(self, samples: int, ranks: Processes) -> Scores:
        """Return the figures over all ranks, each of which must call it once; `samples` is how many there should be."""
        ranks.sum(self._pairs, self._count_C, self._right_C, self._correct_5, self._loss, self._bins)
        total = int(self._count_C.sum())
        confidence, right = self._bins.cpu().numpy()
        return Scores(
            total=total,
            skipped=samples - total,
            correct=int(self._right_C.sum()),
            correct_5=int(self._correct_5),
            loss=float(self._loss) / total if total else float("nan"),
            calibration_error=float(np.abs(confidence - right).sum()) / total if total else float("nan"),
            right_C=self._right_C.cpu().numpy(),
            count_C=self._count_C.cpu().numpy(),
            confusion_CC=self._pairs.view(self.num_classes, -1).cpu().numpy() if len(self._pairs) else None,
        )


class TargetTally:
    """Counts as `Tally` makes them, for several classes or numbers."""

    def __init__(self, task: Task, device: torch.device) -> None:
        self._task = task
        classes = task.outputs if task.kind == "multi-label" else 0
        self._count_C = torch.zeros(classes, dtype=torch.int64, device=device)
        self._right_C = torch.zeros(classes, dtype=torch.int64, device=device)
        self._total = torch.zeros(2, dtype=torch.int64, device=device)
        self._loss = torch.zeros((), dtype=torch.float64, device=device)

    @torch.no_grad()
    def add(self, outputs: torch.Tensor, labels: torch.Tensor, valid_N: torch.Tensor) -> None:
        """Count a batch: outputs float `(N, outputs)`, labels float32, and which count, bool `(N,)` on the CPU."""
        outputs = outputs.float()
        (weigh_N,) = upload([valid_N.numpy()], outputs.device)
        self._loss += torch.where(weigh_N, self._task.losses(outputs, labels).double(), 0.0).sum()
        self._total[0] += weigh_N.sum()
        self._total[1] += self._task.right(outputs, labels).logical_and_(weigh_N).sum()
        if len(self._count_C):
            has_NC = (labels > 0.5) & weigh_N[:, None]
            self._count_C += has_NC.sum(dim=0)
            self._right_C += (has_NC & (outputs > 0)).sum(dim=0)

    def scores(self, samples: int, ranks: Processes) -> Scores:
        """Return the figures over all ranks, as `Tally.scores` does."""
        ranks.sum(self._count_C, self._right_C, self._total, self._loss)
        total, correct = self._total.tolist()
        return Scores(
            total=total,
            skipped=samples - total,
            correct=correct,
            correct_5=correct,
            loss=float(self._loss) / total if total else float("nan"),
            calibration_error=float("nan"),
            right_C=self._right_C.cpu().numpy(),
            count_C=self._count_C.cpu().numpy(),
            confusion_CC=None,
            kind=self._task.kind,
        )


def classes_csv(scores: Scores, names: Sequence[str]) -> bytes:
    """Return a line for each class: samples, correct ones, their share, and what it is most often taken for."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", "samples", "correct", "accuracy", "mostly_taken_for", "times"])
    for number, name in enumerate(names):
        count, right = int(scores.count_C[number]), int(scores.right_C[number])
        accuracy = f"{right / count:.4f}" if count else ""
        mistaken, times = _mistaken(scores, number, names)
        writer.writerow([plain_cell(name), count, right, accuracy, plain_cell(mistaken), times])
    return text.getvalue().encode()


def plain_cell(text: str) -> str:
    """Return the text with an apostrophe before what a spreadsheet would run as a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _mistaken(scores: Scores, number: int, names: Sequence[str]) -> tuple[str, str]:
    """Return the class that samples of class `number` are most often mistaken for, and how many are."""
    if scores.confusion_CC is None:
        return "", ""
    taken_C = scores.confusion_CC[number].copy()
    taken_C[number] = 0
    most = int(taken_C.argmax())
    return (names[most], str(taken_C[most])) if taken_C[most] else ("", "")


@torch.no_grad()
def evaluate_network(
    model: nn.Module,
    loader: Loader,
    ranks: Processes,
    *,
    half: torch.dtype | None = None,
    flip_test: bool = False,
    metrics: Mapping[str, Metric] | None = None,
    task: Task | None = None,
    seen: Seen = lambda logits_NC, batch: None,
    progress: Callable[[int, int], None] = lambda done, batches: None,
) -> Scores:
    """Return the scores of `model` on all samples of `loader`, whose recipe has nothing random.

    Every rank must call it: each sees its part once, and the sums over the ranks are the scores. Padding and images
    that can't be decoded don't count. With `flip_test` logits are the mean of those of each picture and its mirror
    image; of several views of each picture probabilities are averaged (see `outputs_of`). Metrics see the logits of
    all ranks together, which are kept in memory for them. Without `half` products are those of float32 on every
    device. `task` says what the network learned, None for one class a picture; its own metrics are among the scores.
    """
    model.eval()
    task = task or Task(kind="class", outputs=len(loader.classes))
    tally = Tally(len(loader.classes), ranks.device) if task.is_classes else TargetTally(task, ranks.device)
    metrics = {**task.metrics, **(metrics or {})}
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    for number, batch in enumerate(loader, 1):
        with autocast(half, ranks.device), exact_products(ranks.device, half):
            logits_NC = outputs_of(model, batch.views, flip_test=flip_test, task=task)
        # Of shares the largest is the class.
        hard = batch.labels.argmax(dim=1) if task.kind == "soft" else batch.labels
        tally.add(logits_NC, hard, batch.valid)
        seen(logits_NC, batch)
        if metrics:
            kept.append((logits_NC.float().cpu()[batch.valid], batch.labels.cpu()[batch.valid]))
        progress(number, len(loader))
    scores = tally.scores(len(loader.view), ranks)
    return replace(scores, metrics=_measured(metrics, kept, ranks)) if metrics and scores.total else scores


def _measured(
    metrics: Mapping[str, Metric], kept: Sequence[tuple[torch.Tensor, torch.Tensor]], ranks: Processes
) -> dict[str, float]:
    parts = [pair for part in ranks.gather(list(kept)) for pair in part]
    logits_NC, label_N = (torch.cat([pair[which] for pair in parts]) for which in (0, 1))
    found = {name: float(metric(logits_NC, label_N)) for name, metric in metrics.items()}
    for name, value in found.items():
        if not math.isfinite(value):
            raise TrainingError(f"metric {name!r} must return a finite number, got {value}")
    return found
