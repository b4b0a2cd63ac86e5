"""MixUp and CutMix: shares, boxes and partners of a batch."""

import numpy as np
import pytest
from scipy import stats

from imgdata.augment import philox
from imgdata.augment.mix import beta, log_gamma_variate, mix_params, partners
from imgdata.augment.philox import Stream
from imgdata.recipes import CutMix, MixUp, MixUpOrCutMix, RandomResizedCrop, Recipe
from support.draws import CROP, DRAWS, LEAST_P


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_the_numbers_that_make_a_share_are_gamma_distributed(alpha):
    draw_ND = philox.uniform(3, 1, np.arange(4 * DRAWS), Stream.MIX, 49)
    log_N = [log_gamma_variate(alpha, draw_D) for draw_D in draw_ND]
    assert stats.kstest(np.exp(log_N), stats.gamma(alpha).cdf).pvalue > LEAST_P


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 8.0])
def test_shares_are_beta_distributed(alpha):
    draw_ND = philox.uniform(3, 1, np.arange(DRAWS), Stream.MIX, 102)[:, 4:]
    lam_N = np.array([beta(alpha, draw_D) for draw_D in draw_ND])
    # Shares may be as near to 1 as to 0, and then are 1: the lower half is where floats can tell.
    low_M = lam_N[lam_N < 0.5]
    assert stats.kstest(low_M, lambda x: 2 * stats.beta(alpha, alpha).cdf(x)).pvalue > LEAST_P
    assert stats.binomtest(len(low_M), DRAWS).pvalue > LEAST_P
    assert lam_N.min() >= 0
    assert lam_N.max() <= 1


def test_the_smallest_and_largest_draws_give_shares():
    for draw in (0.0, 1 - 2**-53):
        for alpha in (1e-3, 0.2, 1.0, 100.0):
            assert 0 <= beta(alpha, np.full(98, draw)) <= 1


def test_the_test_of_shares_can_fail():
    draw_ND = philox.uniform(3, 1, np.arange(DRAWS), Stream.MIX, 102)[:, 4:]
    lams = [beta(1.0, draw_D) for draw_D in draw_ND]
    assert stats.kstest(lams, stats.beta(1.3, 1.3).cdf).pvalue < LEAST_P / 1000


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, []), (1, [0]), (2, [1, 0]), (3, [2, 0, 1]), (4, [1, 0, 3, 2]), (7, [1, 0, 3, 2, 6, 4, 5])],
)
def test_neighbours_are_partners(count, expected):
    assert partners(count).tolist() == expected


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_the_same_samples_are_mixed_in_the_same_way_at_any_world_size(world_size):
    recipe = Recipe(CROP, MixUpOrCutMix())
    whole = mix_params(recipe, 64, seed=1, epoch=2, offset=3)
    share = 64 // world_size
    for rank in range(world_size):
        part = mix_params(recipe, share, seed=1, epoch=2, offset=3)
        assert (part.kind, part.lam, part.box_4) == (whole.kind, whole.lam, whole.box_4)
        own = slice(rank * share, (rank + 1) * share)
        assert np.array_equal(part.partner_N + rank * share, whole.partner_N[own])


def mixed(recipe, count=500):
    return [mix_params(recipe, 4, seed=1, epoch=2, offset=4 * batch) for batch in range(count)]


@pytest.mark.parametrize(
    ("op", "shares"),
    [
        (MixUp(), {"mixup": 1}),
        (CutMix(p=0.5), {"cutmix": 0.5, "none": 0.5}),
        (MixUpOrCutMix(cutmix_p=0.25, p=0.8), {"mixup": 0.6, "cutmix": 0.2, "none": 0.2}),
    ],
)
def test_batches_are_mixed_as_often_as_stated(op, shares):
    kinds = [one.kind for one in mixed(Recipe(CROP, op))]
    assert set(kinds) == set(shares)
    for kind, share in shares.items():
        assert stats.binomtest(kinds.count(kind), len(kinds), share).pvalue > LEAST_P


def test_the_label_of_cutmix_counts_the_pixels():
    for one in mixed(Recipe(RandomResizedCrop(size=(20, 30)), CutMix())):
        left, top, width, height = one.box_4
        assert min(left, top, width, height) >= 0
        assert left + width <= 30
        assert top + height <= 20
        assert one.lam == 1 - width * height / 600


def test_a_recipe_without_mixing_leaves_samples_alone():
    one = mix_params(Recipe(CROP), 3, seed=1, epoch=2, offset=3)
    assert (one.kind, one.lam, one.box_4, one.partner_N.tolist()) == ("none", 1.0, (0, 0, 0, 0), [0, 1, 2])
