"""Features, labels -> a linear probe: its fit in bounded time, and probabilities of samples that it was not fitted to.

The probe is multinomial logistic regression, on at most 512 principal components of the features. Neither those nor the
folds depend on how a sample's own label was chosen, so that a wrong label has no say in its own probabilities.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgdata.errors import MissingExtraError

WIDTH = 512
"""Principal components that the probe sees, at most."""
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2)
"""Factors of the squared weights that are tried."""
_ROUNDS = 100
_PASS = 10**10
"""Multiplications of one pass over the samples of a fit, at most: of more samples some are drawn. By
this number all fits of an audit take some ten minutes on two cores at most, which was not measured."""
_BLOCK = 8192
_EXACT = 1536
"""Sides up to which all eigenvalues of a matrix are computed: within two seconds."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """Weights of a fitted probe."""

    weight_DC: NDArray[np.float32]
    bias_C: NDArray[np.float32]

    def logits(self, point_ND: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits, float32 `(N, C)`."""
        return np.asarray(point_ND @ self.weight_DC + self.bias_C, np.float32)


def principal(vector_ND: NDArray[np.float32], width: int = WIDTH) -> NDArray[np.float32]:
    """Return the features on their principal components, the first of deviation 1, float32 `(N, <= width)`.

    Each feature is brought to deviation 1 first. It reads `vector_ND` in blocks: a memory-mapped file stays one.
    """
    rows, features = vector_ND.shape
    starts = range(0, rows, _BLOCK)
    mean_D = np.sum([vector_ND[start : start + _BLOCK].sum(0, np.float64) for start in starts], axis=0) / rows
    if rows <= features:
        return _principal_of_few(np.asarray(vector_ND - mean_D, np.float32), width)
    gram_DD = np.zeros((features, features))
    for start in starts:
        part_BD = np.asarray(vector_ND[start : start + _BLOCK] - mean_D, np.float32)
        gram_DD += part_BD.T @ part_BD
    scale_D = _scale(np.diagonal(gram_DD), rows)
    value_W, turned_DW = _largest(gram_DD / rows * scale_D[:, None] * scale_D, width)
    base_DW = (scale_D[:, None] * turned_DW / np.sqrt(max(value_W[0], 1e-12))).astype(np.float32)
    return np.concatenate(
        [np.asarray(vector_ND[start : start + _BLOCK] - mean_D, np.float32) @ base_DW for start in starts]
    )


def _principal_of_few(centred_ND: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Return the same of fewer samples than features, by the products of samples instead of those of features."""
    rows = len(centred_ND)
    scaled_ND = centred_ND * _scale(np.square(centred_ND, dtype=np.float64).sum(0), rows).astype(np.float32)
    value_W, turned_NW = _largest(np.asarray(scaled_ND @ scaled_ND.T, np.float64) / rows, width)
    length_W = np.sqrt(np.maximum(value_W, 0) * rows / max(value_W[0], 1e-12))
    return np.asarray(turned_NW * length_W, np.float32)


def _scale(square_D: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    scale_D = 1 / np.sqrt(square_D / rows + 1e-12)
    # A feature that is the same everywhere says nothing, however its rounding errors look.
    scale_D[square_D <= 1e-10 * rows] = 0
    return np.asarray(scale_D)


def _largest(matrix_DD: NDArray[np.float64], width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the largest eigenvalues of a symmetric matrix, the first the largest, and their vectors `(D, <= width)`.

    Of a large matrix by random projections, which takes a fifth of the time (Halko et al., SIAM Review 2011).
    """
    size = len(matrix_DD)
    if size <= max(_EXACT, 2 * width):
        value_D, turned_DD = np.linalg.eigh(matrix_DD)
        chosen = slice(None, -min(width, size) - 1, -1)
        return value_D[chosen], turned_DD[:, chosen]
    vectors_DW, value_W, _ = _randomized_svd()(
        matrix_DD.astype(np.float32), width, n_oversamples=32, n_iter=4, random_state=0
    )
    return value_W, vectors_DW


def fit_probe(
    point_ND: NDArray[np.float32], label_N: NDArray[np.int32], num_classes: int, penalty: float, seed: int = 0
) -> Probe:
    """Fit a probe by L-BFGS; of samples beyond the bound of its time some are drawn. Raises `MissingExtraError`."""
    minimize = _minimizer()
    most = max(_PASS // (point_ND.shape[1] * num_classes), 20 * num_classes)
    if len(point_ND) > most:
        drawn = np.random.Generator(np.random.Philox(key=[seed, 2])).choice(len(point_ND), most, replace=False)
        point_ND, label_N = point_ND[drawn], label_N[drawn]
    rows, width = point_ND.shape
    row_N = np.arange(rows)

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weight_DC = flat[: width * num_classes].reshape(width, num_classes).astype(np.float32)
        logit_NC = point_ND @ weight_DC + flat[width * num_classes :].astype(np.float32)
        shifted_NC = logit_NC - logit_NC.max(1, keepdims=True)
        power_NC = np.exp(shifted_NC)
        sum_N = power_NC.sum(1)
        value = float((np.log(sum_N) - shifted_NC[row_N, label_N]).mean(dtype=np.float64))
        power_NC /= sum_N[:, None]
        power_NC[row_N, label_N] -= 1
        slope_DC = point_ND.T @ power_NC / rows + np.float32(penalty) * weight_DC
        slope_C = power_NC.mean(0, dtype=np.float64)
        value += penalty / 2 * float(np.square(weight_DC, dtype=np.float64).sum())
        return value, np.concatenate([slope_DC.ravel().astype(np.float64), slope_C])

    found = minimize(
        loss, np.zeros((width + 1) * num_classes), jac=True, method="L-BFGS-B", options={"maxiter": _ROUNDS}
    ).x.astype(np.float32)
    return Probe(
        weight_DC=found[: width * num_classes].reshape(width, num_classes), bias_C=found[width * num_classes :]
    )


def softmax(logit_NC: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float32]:
    """Return probabilities, float32 `(N, C)`."""
    power_NC = np.exp((logit_NC - logit_NC.max(1, keepdims=True)) / np.float32(temperature))
    return np.asarray(power_NC / power_NC.sum(1, keepdims=True), np.float32)


def log_loss(logit_NC: NDArray[np.float32], label_N: NDArray[np.int32], temperature: float = 1.0) -> float:
    """Return the mean negative log-likelihood of the labels."""
    scaled_NC = (logit_NC - logit_NC.max(1, keepdims=True)) / np.float32(temperature)
    sum_N = np.log(np.exp(scaled_NC).sum(1))
    return float((sum_N - scaled_NC[np.arange(len(label_N)), label_N]).mean(dtype=np.float64))


def fit_temperature(logit_NC: NDArray[np.float32], label_N: NDArray[np.int32]) -> float:
    """Return the temperature, 0.2 to 5, with the least loss."""
    steps: list[float] = np.geomspace(0.2, 5.0, 33).tolist()
    return min(steps, key=lambda temperature: log_loss(logit_NC, label_N, temperature))


def _minimizer() -> Callable[..., Any]:
    return _of_extra("scipy.optimize", "minimize")


def _randomized_svd() -> Callable[..., Any]:
    return _of_extra("sklearn.utils.extmath", "randomized_svd")


def _of_extra(module: str, name: str) -> Callable[..., Any]:
    try:
        found: Callable[..., Any] = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise MissingExtraError("finding wrong labels needs scikit-learn: pip install 'imgdata[audit]'") from error
    return found
