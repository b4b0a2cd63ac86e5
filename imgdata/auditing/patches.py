"""Pictures of 32 x 32 -> features learnt from such pictures alone, without labels, weights or a network.

Coates and Ng, "Learning Feature Representations with K-means" (2012): patches of the pictures, whitened and clustered;
a picture is how much each of its patches is like each of the centres, averaged over nine parts of the picture. On small
pictures they carry a linear probe further than a network that was trained on photographs.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import avg_pool2d, conv2d

SIDE = 32
"""Side of the pictures in pixels."""
CENTRES = 200
_PATCH = 6
_PARTS = 3
_DRAWN = 20_000
_ROUNDS = 10
_FLAT = 0.01
"""Added to the variance of a patch, values from 0 to 1: noise in flat patches is not blown up."""
_WHITENING = 0.1


@dataclass(frozen=True, kw_only=True, eq=False)
class PatchFeatures:
    """Centres of clusters of patches, as filters."""

    filter_KCHW: torch.Tensor
    """Centres, whitening included, float32 `(K, 3, 6, 6)`."""
    offset_K: torch.Tensor
    """Products of the mean patch and the filters, float32 `(K,)`."""

    @property
    def width(self) -> int:
        """Number of features of a picture."""
        return len(self.offset_K) * _PARTS**2

    @torch.no_grad()
    def vectors(self, images_NCHW: torch.Tensor) -> NDArray[np.float32]:
        """Return the features of pictures with values from 0 to 1, float32 `(N, D)`."""
        device = images_NCHW.device
        filter_KCHW, offset_K = self.filter_KCHW.to(device), self.offset_K.to(device)
        pixels = filter_KCHW[0].numel()
        box = torch.ones(1, *filter_KCHW.shape[1:], device=device) / pixels
        mean = conv2d(images_NCHW, box)
        variance = (conv2d(images_NCHW.square(), box) - mean.square()).clamp_min(0)
        product = conv2d(images_NCHW, filter_KCHW) - mean * filter_KCHW.sum((1, 2, 3))[:, None, None]
        likeness = product / (variance + _FLAT).sqrt() - offset_K[:, None, None]
        likeness = likeness.clamp_min_(0)
        likeness = (likeness - likeness.mean(1, keepdim=True)).clamp_min_(0)
        side = likeness.shape[-1] // _PARTS
        return avg_pool2d(likeness, side).flatten(1).float().cpu().numpy()


def learn_patches(images_NCHW: NDArray[np.float32], seed: int = 0) -> PatchFeatures:
    """Return the features of pictures like these, float32 `(N, 3, 32, 32)`, values from 0 to 1."""
    generator = np.random.Generator(np.random.Philox(key=[seed, 1]))
    places = SIDE - _PATCH + 1
    picture_P = generator.integers(0, len(images_NCHW), _DRAWN)
    row_P, column_P = generator.integers(0, places, (2, _DRAWN))
    window = np.lib.stride_tricks.sliding_window_view(images_NCHW, (_PATCH, _PATCH), axis=(2, 3))
    patch_PD = window[picture_P, :, row_P, column_P].reshape(_DRAWN, -1).astype(np.float64)
    patch_PD -= patch_PD.mean(1, keepdims=True)
    patch_PD /= np.sqrt(patch_PD.var(1, keepdims=True) + _FLAT)
    mean_D = patch_PD.mean(0)
    values, vectors_DD = np.linalg.eigh(np.cov((patch_PD - mean_D).T))
    whiten_DD = (vectors_DD / np.sqrt(values.clip(0) + _WHITENING)) @ vectors_DD.T
    centre_KD = _centres(((patch_PD - mean_D) @ whiten_DD).astype(np.float32), generator)
    filter_KD = centre_KD @ whiten_DD
    return PatchFeatures(
        filter_KCHW=torch.from_numpy(filter_KD.astype(np.float32).reshape(-1, 3, _PATCH, _PATCH)),
        offset_K=torch.from_numpy((filter_KD @ mean_D).astype(np.float32)),
    )


def _centres(patch_PD: NDArray[np.float32], generator: np.random.Generator) -> NDArray[np.float32]:
    """Return centres of length 1, by spherical k-means; a cluster that is empty keeps its centre."""
    centre_KD = _unit(patch_PD[generator.choice(len(patch_PD), CENTRES, replace=False)])
    for _ in range(_ROUNDS):
        nearest_P = (patch_PD @ centre_KD.T).argmax(1)
        order_P = np.argsort(nearest_P, kind="stable")
        some_S, first_S = np.unique(nearest_P[order_P], return_index=True)
        centre_KD[some_S] = _unit(np.add.reduceat(patch_PD[order_P], first_S))
    return centre_KD


def _unit(vector_KD: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(vector_KD / (np.linalg.norm(vector_KD, axis=1, keepdims=True) + 1e-9), np.float32)
