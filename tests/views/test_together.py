"""Draws from several datasets by weight: the same numbers in every version of imgdata, and exact shares."""

from collections import Counter

import numpy as np
import pytest

from imgdata.views.resampling import quotas
from imgdata.views.together import DatasetResampling


def mixture(sizes, weights, *, seed=0):
    number_N = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    return DatasetResampling(label_N=number_N, quota_C=quotas(np.array(weights), len(number_N)), seed=seed)


def test_draws_are_these_in_every_version():
    mixed = mixture([5, 3], [0.7, 0.3], seed=7)
    assert [mixed.rows(epoch).tolist() for epoch in range(3)] == [
        [0, 1, 2, 2, 3, 4, 5, 7],
        [0, 1, 2, 3, 4, 4, 6, 7],
        [0, 1, 1, 2, 3, 4, 5, 6],
    ]


@pytest.mark.parametrize(
    ("sizes", "weights", "draws"),
    [
        ([5, 3], [0.7, 0.3], [6, 2]),
        ([50, 50], [1, 3], [25, 75]),
        ([1, 99], [1, 1], [50, 50]),
        ([10, 10, 10], [1, 1, 1], [10, 10, 10]),
        ([7, 7, 7], [5, 3, 2], [11, 6, 4]),
    ],
)
def test_each_dataset_gets_its_share_of_every_epoch(sizes, weights, draws):
    mixed = mixture(sizes, weights)
    for epoch in range(4):
        drawn = Counter(mixed.label_N[mixed.rows(epoch)].tolist())
        assert [drawn[number] for number in range(len(sizes))] == draws


def test_the_identity_tells_weights_and_sizes_apart_and_not_seeds():
    same = {mixture([5, 3], [0.7, 0.3], seed=seed).identity() for seed in range(3)}
    others = {
        mixture(sizes, weights).identity()
        for sizes, weights in (([5, 3], [0.3, 0.7]), ([4, 4], [0.7, 0.3]), ([8], [1]))
    }
    assert len(same) == 1
    assert len(others) == 3
    assert not same & others
