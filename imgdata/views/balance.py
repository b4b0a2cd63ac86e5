"""A view, weights of its classes or samples -> a view whose epochs draw by them; weights for a loss."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from imgdata.errors import OptionError
from imgdata.order.epoch_order import MAX_SEED
from imgdata.views.key_table import (
    class_numbers,
    csv_bytes,
    key_positions,
    read_key_table,
    rows_of_positions,
    whole_number,
)
from imgdata.views.resampling import ClassResampling, Resampling, SampleResampling, quotas
from imgdata.views.text import Step, read_files
from imgdata.views.view import View, check_choice, check_in_memory, check_not_balanced

_MAX_LENGTH = 2**40


def balance(
    view: View,
    weights: Mapping[str, float] | NDArray[np.floating] | Path | None = None,
    *,
    length: int | None = None,
    seed: int = 0,
) -> View:
    """Draw epochs of `length` samples (default: as many as there are) in which classes or samples have their weight.

    `weights` by class id or name are relative to 1, the weight of classes that aren't named; without weights the
    classes are balanced evenly. Each class gets its part of an epoch, rounded by largest remainders, and all its
    samples are drawn before one is drawn again, also from epoch to epoch; samples without a label are left out.
    `weights` by sample: float `(N,)`, one for each row, or a CSV file with columns `key` and `weight`, 0 for samples
    that the file doesn't name. Where images are of several classes, or of shares, an image has the sum of its classes'
    weights, each divided by the number of images that are of the class. Draws are a pure function of seed and epoch.
    Raises `OptionError`.
    """
    options = {**({} if length is None else {"length": str(length)}), "seed": str(seed)}
    if weights is None or isinstance(weights, Mapping):
        values = tuple(f"{name}:{float(weight)!r}" for name, weight in (weights or {}).items())
        return balance_step(view, Step(name="balance", values=values, options=options))
    if isinstance(weights, Path):
        step = Step(name="balance", options={"weights": str(weights), **options})
        (step,) = read_files([step], Path())
        return balance_step(view, step)
    weight_N = np.array(weights, np.float64)
    if weight_N.shape != view.position_N.shape:
        raise OptionError(f"balance: weights must have the shape {view.position_N.shape}, got {weight_N.shape}")
    keys = view.index.column_at("key", view.position_N).to_pylist()
    bad_N = ~((weight_N >= 0) & (weight_N < math.inf))
    if bad_N.any():
        _weight(str(weight_N[bad_N][0]), keys[int(bad_N.argmax())])
    # So that the view can be saved.
    data = csv_bytes(("key", "weight"), zip(keys, map(repr, weight_N.tolist()), strict=True))
    step = Step(name="balance", options={"weights": "weights.csv", **options}, data=data)
    return balance_step(view, step, weight_N)


def balance_step(view: View, step: Step, weight_N: NDArray[np.float64] | None = None) -> View:
    """Apply `balance` as a step, with the contents of its file; `weight_N` are contents that were read already."""
    check_not_balanced(view, "balance")
    check_in_memory(view, "balance")
    length = whole_number(step, "length", len(view.position_N))
    seed = whole_number(step, "seed", 0)
    if not 1 <= length < _MAX_LENGTH:
        raise OptionError(f"balance: length must be 1 or more, got {length}")
    if not 0 <= seed < MAX_SEED:
        raise OptionError(f"balance: seed must be 0 to 2^63-1, got {seed}")
    if step.file is not None and step.values:
        raise OptionError(f"balance: weights must be by class or in a file, got both in {str(step)!r}")
    drawn: Resampling
    if step.file is None and view.targets is not None:
        weight_N = _target_weights(view, step)
        drawn = SampleResampling(weight_N=weight_N, length=length, seed=seed)
    elif step.file is None:
        quota_C = quotas(_class_weights(view, step), length)
        drawn = ClassResampling(label_N=view.label_N, quota_C=quota_C, seed=seed)
    else:
        weight_N = _sample_weights(view, step) if weight_N is None else weight_N
        if not weight_N.any():
            raise OptionError(f"balance: a sample of the view must have a weight above 0 in {step.file}, got none")
        drawn = SampleResampling(weight_N=weight_N, length=length, seed=seed)
    return replace(view, resampling=drawn, steps=(*view.steps, step), name="")


def _target_weights(view: View, step: Step) -> NDArray[np.float64]:
    """Return the weight of each sample where it may have several classes: that of a class, shared by its samples."""
    targets = view.targets
    if targets is None or targets.kind == "regression":
        raise OptionError("balance: samples must have classes, got numbers; give weights in a file, weights=FILE")
    count_C = targets.counts(view.position_N)
    share_C = np.divide(_weights_of(view, step, count_C), count_C, out=np.zeros(len(count_C)), where=count_C > 0)
    # An image whose target isn't known is left out, as one without a label.
    value_NC = np.nan_to_num(targets.values(view.position_N)).astype(np.float64)
    weight_N: NDArray[np.float64] = value_NC @ share_C
    return weight_N


def _class_weights(view: View, step: Step) -> NDArray[np.float64]:
    count_C = np.bincount(view.label_N[view.label_N >= 0], minlength=len(view.classes))
    return _weights_of(view, step, count_C.astype(np.float64))


def _weights_of(view: View, step: Step, count_C: NDArray[np.float64]) -> NDArray[np.float64]:
    weight_C = (count_C > 0).astype(np.float64)
    numbers = class_numbers(view.classes)
    for value in step.values:
        name, colon, text = value.rpartition(":")
        if not colon:
            raise OptionError(f"balance: a weight must be like cat:2, got {value!r}")
        label = numbers(name, "balance")
        weight = _weight(text, name)
        if weight and not count_C[label]:
            raise OptionError(f"balance: class {name!r} must have samples for its weight {text}, got none")
        weight_C[label] = weight
    if not weight_C.any():
        raise OptionError(f"balance: a class with samples must have a weight above 0, got {str(step)!r}")
    return weight_C


def _sample_weights(view: View, step: Step) -> NDArray[np.float64]:
    cells = read_key_table(step, "weight")
    row_R, known_R = rows_of_positions(view, key_positions(view, list(cells), "balance"))
    weight_R = np.array([_weight(text, key) for key, text in cells.items()])
    weight_N = np.zeros(len(view.position_N))
    weight_N[row_R[known_R]] = weight_R[known_R]
    return weight_N


def _weight(text: str, name: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 <= weight < math.inf:
        raise OptionError(f"balance: the weight of {name!r} must be a number from 0, got {text!r}")
    return weight


def class_weights(
    view: View, method: Literal["balanced", "effective"] = "balanced", *, beta: float = 0.999
) -> NDArray[np.float64]:
    """Return a weight of each class for a weighted loss, float64 `(C,)`; 0 for classes without samples.

    n is the number of labelled samples, n_c that of class c, C the number of classes that have any; with a balanced
    view, of an epoch.

    - `balanced`: n / (C n_c), scikit-learn's `compute_class_weight("balanced")`: the mean over the samples is 1.
    - `effective`: proportional to (1 - beta) / (1 - beta^n_c), the inverse of the effective number of samples (Cui et
      al., "Class-balanced loss based on effective number of samples", CVPR 2019), scaled to sum to C. `beta` from 0
      (all equal) to below 1.

    Raises `OptionError` when nothing is labelled.
    """
    check_choice("method", method, ("balanced", "effective"))
    if not 0 <= beta < 1:
        raise OptionError(f"class_weights: beta must be 0 or more and below 1, got {beta:g}")
    drawn_C = view.drawn_C
    used_C = drawn_C > 0
    if not used_C.any():
        raise OptionError(f"class_weights: no sample of {view!r} has a label")
    weight_C: NDArray[np.float64] = np.zeros(len(drawn_C))
    if method == "balanced":
        weight_C[used_C] = drawn_C.sum() / (used_C.sum() * drawn_C[used_C])
        return weight_C
    # 1 - beta^n without losing digits where beta is near 1.
    weight_C[used_C] = 1.0 if beta == 0 else 1 / -np.expm1(drawn_C[used_C] * np.log(beta))
    weight_C *= used_C.sum() / weight_C.sum()
    return weight_C
