"""A probe's probabilities of samples that it was not fitted to: folds, penalty, temperature, bounded time."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from imgdata.auditing import probe as probes
from imgdata.auditing.probabilities import fold_of_samples, out_of_sample
from imgdata.auditing.probe import fit_probe, fit_temperature, log_loss, principal, softmax
from support.label_sets import clouds


def test_each_class_is_spread_evenly_over_the_folds():
    label_N = np.repeat(np.array([0, 1, 2], np.int32), [50, 23, 7])
    fold_N = fold_of_samples(label_N, folds=5, seed=1)
    for label in range(3):
        counts = np.bincount(fold_N[label_N == label], minlength=5)
        assert counts.max() - counts.min() <= 1


def test_copies_of_a_picture_are_in_one_fold():
    same_N = np.arange(100, dtype=np.uint64) // 4
    fold_N = fold_of_samples(np.arange(100, dtype=np.int32) % 2, same_N, seed=1)
    assert (fold_N.reshape(25, 4) == fold_N[::4, None]).all()
    assert len(np.unique(fold_N)) == 5


def test_a_label_has_no_say_in_its_own_probabilities():
    point_ND, label_N, _ = clouds(200)
    fold_N = fold_of_samples(label_N)
    fold = int(fold_N[0])
    before = out_of_sample(point_ND, label_N, fold_N, 4, penalty=1e-3).probability_NC
    other_N = label_N.copy()
    other_N[fold_N == fold] = (other_N[fold_N == fold] + 1) % 4
    after = out_of_sample(point_ND, other_N, fold_N, 4, penalty=1e-3).probability_NC
    # But for the temperature, which is that of all samples.
    assert (before[fold_N == fold].argmax(1) == after[fold_N == fold].argmax(1)).all()


def test_the_probe_is_scikit_learns_logistic_regression():
    point_ND, label_N, _ = clouds(300)
    own = fit_probe(point_ND, label_N, 4, 1e-2)
    theirs = LogisticRegression(C=1 / (1e-2 * len(label_N)), max_iter=1000, tol=1e-8).fit(point_ND, label_N)
    np.testing.assert_allclose(softmax(own.logits(point_ND)), theirs.predict_proba(point_ND), atol=2e-3)


def test_of_more_samples_than_the_bound_allows_some_are_drawn(monkeypatch):
    point_ND, label_N, _ = clouds(2000, apart=8.0)
    monkeypatch.setattr(probes, "_PASS", 4 * 16 * 200)
    few = fit_probe(point_ND, label_N, 4, 1e-3, seed=3)
    assert (few.logits(point_ND).argmax(1) == label_N).mean() > 0.9
    again = fit_probe(point_ND, label_N, 4, 1e-3, seed=3)
    assert (few.weight_DC == again.weight_DC).all()


def test_the_penalty_is_chosen_and_all_fits_are_counted():
    point_ND, label_N, _ = clouds()
    told = []
    found = out_of_sample(
        point_ND, label_N, fold_of_samples(label_N), 4, progress=lambda done, total: told.append((done, total))
    )
    assert told == [(number, 9) for number in range(1, 10)]
    assert found.penalty in probes.PENALTIES
    assert found.accuracy == pytest.approx((found.probability_NC.argmax(1) == label_N).mean())
    np.testing.assert_allclose(found.probability_NC.sum(1), 1, atol=1e-5)


def test_the_temperature_takes_overconfidence_back():
    generator = np.random.Generator(np.random.Philox(key=[5, 5]))
    logit_NC = generator.standard_normal((4000, 3)).astype(np.float32)
    label_N = np.array([generator.choice(3, p=row / row.sum()) for row in softmax(logit_NC).astype(float)], np.int32)
    temperature = fit_temperature(3 * logit_NC, label_N)
    assert temperature == pytest.approx(3, rel=0.15)
    assert log_loss(3 * logit_NC, label_N, temperature) < log_loss(3 * logit_NC, label_N)


def test_principal_components_are_scikit_learns_in_blocks(monkeypatch):
    generator = np.random.Generator(np.random.Philox(key=[6, 6]))
    vector_ND = generator.standard_normal((300, 8)).astype(np.float32) @ generator.standard_normal((8, 8))
    vector_ND = np.concatenate([vector_ND, np.full((300, 1), 7.0)], 1).astype(np.float32)
    monkeypatch.setattr(probes, "_BLOCK", 64)
    point_ND = principal(vector_ND, width=3)
    scaled_ND = vector_ND[:, :8] - vector_ND[:, :8].mean(0)
    theirs = PCA(3).fit_transform(scaled_ND / scaled_ND.std(0))
    theirs /= theirs[:, 0].std()
    np.testing.assert_allclose(np.abs(point_ND), np.abs(theirs), atol=1e-3)
