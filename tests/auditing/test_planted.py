"""Labels that the audit flips itself: how many it finds again, how many of the data's own labels are wrong."""

import numpy as np
import pytest

from imgdata.auditing.planted import flips, plant, share_of_wrong, wrong_probability
from imgdata.auditing.probabilities import fold_of_samples, out_of_sample
from support.label_sets import clouds


def planted(**settings):
    point_ND, label_N, wrong_N = clouds(**settings)
    fold_N = fold_of_samples(label_N)
    before = out_of_sample(point_ND, label_N, fold_N, 4)
    found = plant(point_ND, label_N, fold_N, before)
    return found, before.probability_NC[np.arange(len(label_N)), label_N], wrong_N


@pytest.mark.parametrize(("samples", "flipped"), [(400, 20), (2500, 100), (10_000, 400), (100_000, 2000)])
def test_a_small_share_of_the_labels_is_flipped(samples, flipped):
    label_N = np.arange(samples, dtype=np.int32) % 3
    row_F, label_F = flips(label_N, np.full((samples, 3), 1 / 3, np.float32), seed=1)
    assert len(row_F) == len(np.unique(row_F)) == flipped
    assert (label_F != label_N[row_F]).all()


def test_a_label_becomes_that_of_a_class_that_is_alike_more_often():
    label_N = np.arange(10_000, dtype=np.int32) % 5
    probability_NC = np.full((10_000, 5), 0.01, np.float32)
    probability_NC[np.arange(10_000), label_N] = 0.66
    probability_NC[np.arange(10_000), (label_N + 1) % 5] = 0.31
    row_F, label_F = flips(label_N, probability_NC, seed=1)
    counts = np.bincount((label_F - label_N[row_F]) % 5, minlength=5) / len(row_F)
    assert counts[1] == pytest.approx(0.5 / 4 + 0.5 * 0.31 / 0.34, abs=0.07)
    assert (counts[2:] > 0.05).all()


def test_flips_are_the_same_for_the_same_seed():
    label_N = np.arange(1000, dtype=np.int32) % 5
    probability_NC = np.full((1000, 5), 0.2, np.float32)
    one, again, other = (flips(label_N, probability_NC, seed)[0].tolist() for seed in (1, 1, 2))
    assert one == again != other


def test_where_the_probe_is_good_flipped_labels_are_found_again():
    found, _, _ = planted(samples=2000, apart=8.0)
    assert found.recall > 0.95
    assert found.restored > 0.9
    assert found.trusted


def test_where_the_features_say_nothing_the_list_is_not_trusted():
    found, _, _ = planted(samples=2000, apart=0.0)
    assert abs(found.recall - found.chance) < 0.2
    assert not found.trusted


@pytest.mark.parametrize("wrong", [0.0, 0.02, 0.05, 0.1, 0.2])
def test_the_share_of_wrong_labels_is_estimated_with_an_interval(wrong):
    found, _, _ = planted(samples=4000, apart=6.0, wrong=wrong)
    assert abs(found.share - wrong) <= max(2 * found.share_error, 0.005)
    assert found.share_error < 0.06


def test_a_mixture_of_known_densities_has_the_share_that_was_mixed():
    generator = np.random.Generator(np.random.Philox(key=[8, 8]))
    wrong_F = generator.beta(1, 20, 500).astype(np.float32)
    others = np.concatenate([generator.beta(1, 20, 300), generator.beta(20, 1, 9700)]).astype(np.float32)
    share, error = share_of_wrong(wrong_F, others)
    assert share == pytest.approx(0.03, abs=0.006)
    assert 0.001 < error < 0.01


def test_probabilities_of_being_wrong_hold_on_average_and_fall_with_confidence():
    found, confidence_N, wrong_N = planted(samples=8000, apart=4.0, wrong=0.08)
    probability_N = wrong_probability(found, confidence_N)
    assert (np.diff(probability_N[np.argsort(confidence_N)]) <= 1e-12).all()
    for low, high in ((0.0, 0.2), (0.2, 0.7), (0.7, 1.01)):
        part_N = (probability_N >= low) & (probability_N < high)
        assert part_N.sum() > 20
        assert wrong_N[part_N].mean() == pytest.approx(probability_N[part_N].mean(), abs=0.17)
