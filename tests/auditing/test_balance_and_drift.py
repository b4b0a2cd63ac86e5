"""Classes, formats and sizes of the splits: what is missing, uneven, or other in one split than in the next."""

import numpy as np
import pytest

import imgdata
from imgdata.auditing import balance, drift
from imgdata.auditing.columns import index_columns, number_column, word_column
from imgdata.auditing.samples import samples_of
from imgdata.auditing.statistics import kolmogorov_smirnov, mutual_information, ranks_apart, same_shares, wilson
from imgdata.views import open_view
from support.rawdata import encoded


def samples(folder, **splits):
    """Return the samples of a dataset whose splits have so many samples of each class."""
    names = [f"c{number}" for number in range(max(len(counts) for counts in splits.values()))]
    with imgdata.Writer(folder, classes=names) as writer:
        for split, counts in splits.items():
            for label, count in enumerate(counts):
                for number in range(count):
                    writer.write(encoded(number % 3, (20 + 4 * label, 16)), label, split=split)
    dataset = imgdata.open(folder)
    return samples_of([open_view(dataset, split) for split in dataset])


def named(outcome, what):
    return [(finding.label, finding.message) for finding in outcome.findings if finding.what == what]


def test_counts_ratio_and_diversity_of_each_split(tmp_path):
    figures = balance.find(samples(tmp_path / "out", train=[40, 40, 4], val=[2, 2, 2])).figures
    train, val = figures["splits"]["train"], figures["splits"]["val"]
    assert (train["counts"], train["ratio"], train["samples"]) == ([40, 40, 4], 10, 84)
    assert val["ratio"] == 1
    assert val["effective_classes"] == pytest.approx(3)
    assert 2 < train["effective_classes"] < 3


def test_a_class_that_a_split_lacks_is_named_and_where_it_is(tmp_path):
    outcome = balance.find(samples(tmp_path / "out", train=[25, 25, 25], val=[5, 0, 5]))
    assert named(outcome, "missing class") == [("c1", "class 'c1' has no sample in val, and 25 elsewhere")]
    assert not named(outcome, "few samples")


def test_small_and_uneven_classes_of_the_training_split_are_named(tmp_path):
    outcome = balance.find(samples(tmp_path / "out", train=[60, 6], val=[2, 2]))
    assert named(outcome, "few samples") == [("c1", "class 'c1' has only 6 samples in train")]
    ((_, uneven),) = named(outcome, "uneven classes")
    assert "'c0' has 60 samples and 'c1' 6, 10 times fewer" in uneven


def test_remedies_say_what_balance_and_class_weights_would_do(tmp_path):
    remedies = balance.find(samples(tmp_path / "out", train=[30, 10])).figures["remedies"]
    assert remedies["drawn"] == pytest.approx([20, 20])
    assert remedies["each"] == pytest.approx([2 / 3, 2])
    assert remedies["balanced"] == pytest.approx([40 / 60, 40 / 20])


def test_splits_of_other_classes_drift_and_even_ones_do_not(tmp_path):
    apart = samples(tmp_path / "apart", train=[60, 20], val=[20, 60])
    outcome = drift.find(apart, index_columns(apart))
    assert "classes drift" in {finding.what for finding in outcome.findings}
    # The width follows the class here.
    assert any("train and val differ in width" in finding.message for finding in outcome.findings)
    even = samples(tmp_path / "even", train=[60, 60], val=[30, 30])
    assert drift.find(even, index_columns(even)).findings == ()


def test_a_column_that_drifts_is_named_with_its_medians(tmp_path):
    both = samples(tmp_path / "out", train=[50], val=[50])
    brightness = np.concatenate([np.linspace(0.1, 0.5, 50), np.linspace(0.4, 0.9, 50)])
    (finding,) = drift.find(both, [number_column("brightness", brightness)]).findings
    assert finding.message == "train and val differ in brightness: medians 0.3 and 0.65, 80% apart"
    assert finding.evidence["chance"] < 1e-6


def test_shares_are_as_far_apart_as_chance_makes_them():
    assert same_shares(np.array([[50, 50], [50, 50]])) == 1
    assert same_shares(np.array([[90, 10], [10, 90]])) == pytest.approx(1 / 1001)
    assert same_shares(np.array([[5, 0], [0, 0]])) == 1
    assert 0.05 < same_shares(np.array([[55, 45], [50, 50]])) < 0.9


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.5])
def test_distances_of_distributions_are_those_of_scipy(shift):
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(1)
    one, other = random.normal(size=400), random.normal(size=300) + shift
    distance, likely = kolmogorov_smirnov(one, other)
    theirs = stats.ks_2samp(one, other, method="asymp")
    assert distance == pytest.approx(theirs.statistic)
    assert likely == pytest.approx(theirs.pvalue, rel=0.2, abs=0.02)


def test_ranks_apart_is_the_area_under_the_curve_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(2)
    label, value = random.integers(0, 3, 300), random.integers(0, 20, 300).astype(float)
    found = ranks_apart(label, value, 4)
    assert found[:3] == pytest.approx([metrics.roc_auc_score(label == one, value) for one in range(3)])
    assert np.isnan(found[3])


def test_mutual_information_is_a_share_of_the_entropy_and_says_what_chance_gives():
    label = np.arange(400) % 4
    assert mutual_information(label, label)[0] == pytest.approx(1)
    found, chance = mutual_information(label, np.random.default_rng(3).integers(0, 50, 400))
    assert found == pytest.approx(chance, abs=0.05)
    assert chance > 0.1  # 400 samples in 50 bins seem to tell something.
    assert mutual_information(np.zeros(9, np.int64), np.arange(9)) == (0, 0)


@pytest.mark.parametrize(("right", "total"), [(0, 10), (7, 10), (10, 10), (500, 1000)])
def test_intervals_of_shares_are_those_of_scipy(right, total):
    stats = pytest.importorskip("scipy.stats")
    theirs = stats.binomtest(right, total).proportion_ci(method="wilson")
    assert wilson(right, total) == pytest.approx((theirs.low, theirs.high), abs=1e-4)


def test_rare_words_become_one_and_the_frequent_come_first():
    words = [f"w{number}" for number in range(80)]
    code = np.repeat(np.arange(80), np.where(np.arange(80) == 7, 100, 2))
    column = word_column("camera", words, code)
    assert (column.words[0], column.words[-1], len(column.words)) == ("w7", "other", 51)
    assert (column.value_M == 0).sum() == 100
