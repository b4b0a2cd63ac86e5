"""The target of a dataset -> outputs of the network, its loss, what counts as right, and the scores of a validation."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from imgdata.dataset.target import TargetKind
from imgdata.errors import OptionError
from imgdata.training.defaults import DecidedOptions
from imgdata.training.options import TrainOptions
from imgdata.training.own import Metric
from imgdata.views.view import View

TARGET_METRICS = ("mean_ap", "r2", "mae")
"""Names of the metrics of targets that aren't one class."""
_ONE_CLASS = ("class_weights", "label_smoothing")
"""Settings of cross-entropy alone."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """What a network learns to say of a picture."""

    kind: TargetKind
    """`class`, `soft`, `multi-label` or `regression`."""
    outputs: int
    """Outputs of the network: one for each class, or for each number."""
    columns: tuple[str, ...] = ()
    """Columns that hold the target; none for one class."""
    mean_D: tuple[float, ...] = ()
    """Mean of each number over the samples to train on; empty but for `regression`."""
    std_D: tuple[float, ...] = ()
    """Standard deviation of each number; 1 where it is 0."""
    distance: Literal["mse", "l1"] = "mse"
    """Loss of a number: squared or absolute difference, in standard deviations."""

    @property
    def is_classes(self) -> bool:
        """Whether a picture has one class, or a share of each: the outputs are logits of a softmax."""
        return self.kind in ("class", "soft")

    @property
    def best_by(self) -> str | None:
        """Name of the metric that chooses the best epoch; None for top-1."""
        return {"multi-label": "mean_ap", "regression": "r2"}.get(self.kind)

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """Metrics of a validation by name, beside those of one class."""
        if self.kind == "multi-label":
            return {"mean_ap": mean_average_precision}
        if self.kind == "regression":
            return {
                "r2": lambda outputs, labels: r_squared(self.values(outputs), labels),
                "mae": lambda outputs, labels: mean_absolute_error(self.values(outputs), labels),
            }
        return {}

    def losses(
        self, outputs: torch.Tensor, labels: torch.Tensor, weight_C: torch.Tensor | None = None, smoothing: float = 0.0
    ) -> torch.Tensor:
        """Return the loss of each sample, float32 `(N,)`, of outputs `(N, outputs)` and a batch's labels.

        Cross-entropy for one class and for shares; binary cross-entropy, the mean over classes, for several; the mean
        squared or absolute difference of standardised numbers, whose labels are in their own units.
        """
        if self.is_classes:
            return functional.cross_entropy(
                outputs, labels, weight=weight_C, label_smoothing=smoothing, reduction="none"
            )
        if self.kind == "multi-label":
            if smoothing:
                labels = labels * (1 - smoothing) + smoothing / 2
            return functional.binary_cross_entropy_with_logits(outputs, labels, reduction="none").mean(dim=1)
        mean_D, std_D = self._scale(labels)
        difference = outputs - (labels.reshape(outputs.shape) - mean_D) / std_D
        return (difference.abs() if self.distance == "l1" else difference.square()).mean(dim=1)

    def right(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return which samples are right, bool `(N,)`: the class, or all classes of several; numbers never are."""
        if self.kind == "multi-label":
            return ((outputs > 0) == (labels > 0.5)).all(dim=1)
        if self.kind == "regression":
            return torch.zeros(len(outputs), dtype=torch.bool, device=outputs.device)
        hard_N = labels if labels.ndim == 1 else labels.argmax(dim=1)
        return outputs.argmax(dim=1) == hard_N

    def values(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return numbers in their own units from outputs of the network, float32 `(N, D)`."""
        mean_D, std_D = self._scale(outputs)
        return outputs.float() * std_D + mean_D

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for `config.json`."""
        return {
            "kind": self.kind,
            "outputs": self.outputs,
            "columns": list(self.columns),
            "mean": list(self.mean_D),
            "std": list(self.std_D),
        }

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> "Task":
        """Return the task that `to_dict` gave."""
        return Task(
            kind=content["kind"],
            outputs=int(content["outputs"]),
            columns=tuple(content["columns"]),
            mean_D=tuple(map(float, content["mean"])),
            std_D=tuple(map(float, content["std"])),
        )

    def _scale(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (
            torch.tensor(self.mean_D, dtype=torch.float32, device=like.device),
            torch.tensor(self.std_D, dtype=torch.float32, device=like.device),
        )


ONE_CLASS = Task(kind="class", outputs=0)
"""One class a picture, of any number of classes."""


def task_of(view: View, distance: Literal["mse", "l1"] = "mse") -> Task:
    """Return what a network learns of the samples of `view`. Raises `OptionError`, `ShardError`."""
    targets = view.targets
    if targets is None:
        return Task(kind="class", outputs=len(view.classes))
    columns = targets.target.columns
    if targets.of_classes:
        return Task(kind=targets.kind, outputs=len(view.classes), columns=columns)
    value_ND = targets.values(view.position_N).reshape(len(view.position_N), -1).astype(np.float64)
    std_D = value_ND.std(axis=0)
    return Task(
        kind="regression",
        outputs=value_ND.shape[1],
        columns=columns,
        mean_D=tuple(value_ND.mean(axis=0).tolist()),
        std_D=tuple(np.where(std_D > 0, std_D, 1.0).tolist()),
        distance=distance,
    )


def fitted_options(decided: DecidedOptions, given: TrainOptions, task: Task) -> DecidedOptions:
    """Return the settings without those of cross-entropy where the target isn't classes. Raises `OptionError`."""
    if task.kind != "regression" and given.regression_loss is not None:
        raise OptionError(f"regression_loss must be left out for the target {task.kind!r}: there are no numbers")
    if task.is_classes:
        if task.kind == "soft" and decided.class_weights != "none":
            raise OptionError("class_weights can't be given with shares of classes; use balance")
        return decided
    for name in _ONE_CLASS if task.kind == "regression" else ("class_weights",):
        if getattr(given, name) not in (None, 0, "none"):
            raise OptionError(f"{name} can't be given with the target {task.kind!r}; leave it out")
    smoothing = given.label_smoothing or 0.0
    # A mirror image has other coordinates, and whether numbers are such nobody knows.
    flip = bool(given.flip) if task.kind == "regression" and decided.flip is not None else decided.flip
    return replace(decided, label_smoothing=smoothing, flip=flip)


def mean_average_precision(outputs_NC: torch.Tensor, labels_NC: torch.Tensor) -> float:
    """Return the mean over classes of average precision, 0 to 1, of scores and labels of 0 and 1, both `(N, C)`.

    AP = sum over n of (R_n - R_{n-1}) P_n, with precision P_n and recall R_n at the n-th threshold: scikit-learn's
    `average_precision_score`, which doesn't interpolate (Zhu, "Recall, precision and average precision", 2004).
    Samples of one score share a threshold. Classes without a sample are left out; without any, it is 0.
    """
    found = [
        average_precision(outputs_NC[:, number].numpy(), labels_NC[:, number].numpy() > 0.5)
        for number in range(outputs_NC.shape[1])
        if bool((labels_NC[:, number] > 0.5).any())
    ]
    return float(np.mean(found)) if found else 0.0


def average_precision(score_N: NDArray[np.floating[Any]], is_class_N: NDArray[np.bool_]) -> float:
    """Return the average precision of one class, which at least one sample has; see `mean_average_precision`."""
    order = np.argsort(-score_N, kind="stable")
    score_N, is_class_N = score_N[order], is_class_N[order]
    last_T = np.flatnonzero(np.append(score_N[1:] != score_N[:-1], True))
    right_T = np.cumsum(is_class_N)[last_T]
    precision_T = right_T / (last_T + 1)
    recall_T = right_T / is_class_N.sum()
    return float((np.diff(recall_T, prepend=0.0) * precision_T).sum())


def r_squared(values_ND: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the coefficient of determination, the mean over numbers: 1 is exact, 0 as good as the mean.

    R^2 = 1 - sum (y - f)^2 / sum (y - mean y)^2, scikit-learn's `r2_score`; a number that is always the same counts
    1 where it is met exactly, else 0.
    """
    label_ND = labels.reshape(values_ND.shape).double()
    rest_D = (label_ND - values_ND.double()).square().sum(dim=0)
    whole_D = (label_ND - label_ND.mean(dim=0)).square().sum(dim=0)
    share_D = torch.where(whole_D > 0, 1 - rest_D / whole_D.clamp(min=1e-300), (rest_D == 0).double())
    return float(share_D.mean())


def mean_absolute_error(values_ND: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the mean absolute difference, over samples and numbers, in the numbers' own units."""
    return float((labels.reshape(values_ND.shape).double() - values_ND.double()).abs().mean())
