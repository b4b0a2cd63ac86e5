"""Wrong labels: a ranked list, its suggestions, how it says what it is worth, and what it can't check."""

import sys

import numpy as np
import pytest
from cleanlab.rank import get_label_quality_scores

from imgdata.auditing.label_errors import find, rank_labels
from imgdata.auditing.vectors import Vectors
from imgdata.errors import MissingExtraError
from support.label_sets import clouds, labelled_samples


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Samples of four classes, of which 5 % have a wrong label, their features, and which labels are wrong."""
    point_ND, label_N, wrong_N = clouds(1000, apart=8.0)
    return labelled_samples(tmp_path_factory.mktemp("made") / "out", label_N.tolist()), point_ND, wrong_N


def vectors(point_ND, **more):
    return Vectors(vector_KD=point_ND, number_K=np.arange(len(point_ND)), what="made up", **more)


@pytest.fixture(scope="module")
def found(made):
    samples, point_ND, _ = made
    return find(samples, vectors(point_ND))


def test_wrong_labels_come_first(made):
    samples, point_ND, wrong_N = made
    ranked = rank_labels(point_ND, samples.label_M, 4)
    assert wrong_N[ranked.row_R[: wrong_N.sum()]].mean() >= 0.95


def test_the_order_is_that_of_cleanlabs_self_confidence(made):
    samples, point_ND, _ = made
    ranked = rank_labels(point_ND, samples.label_M, 4)
    quality_N = get_label_quality_scores(samples.label_M, ranked.probabilities.probability_NC, method="self_confidence")
    assert (np.diff(quality_N[ranked.row_R]) >= 0).all()
    assert 40 <= ranked.flagged <= 60


def test_findings_name_sample_class_and_evidence_the_surest_first(found, made):
    _, _, wrong_N = made
    scores = [one.score for one in found.findings]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    first = found.findings[0]
    assert (first.kind, first.what, first.proposal) == ("label", "other class", "relabel")
    assert wrong_N[first.place.position]
    assert f"is labelled c{first.place.position % 4}" not in first.message
    assert f"looks like c{first.place.position % 4}" in first.message
    assert first.label == f"c{first.place.position % 4}"
    assert first.evidence["neighbours of the suggested class"] > first.evidence["neighbours of the label"]
    assert first.evidence["rank"] == 1


def test_suggestions_of_sure_findings_are_right(found):
    sure = [one for one in found.findings if one.proposal == "relabel" and one.score > 0.9]
    assert len(sure) >= 20
    assert np.mean([one.label == f"c{one.place.position % 4}" for one in sure]) >= 0.95


def test_the_list_has_a_budget(found, made):
    samples, point_ND, _ = made
    wrong, listed = found.figures["wrong"], found.figures["listed"]
    assert len(found.findings) == listed
    assert wrong <= listed <= max(20, 2 * wrong)
    assert all(finding.evidence["wrong"] >= 0.01 for finding in found.findings[wrong:])
    assert len(find(samples, vectors(point_ND), budget=7).findings) == 7


def test_notes_say_how_well_flipped_labels_were_found_and_how_many_labels_are_wrong(found):
    figures = found.figures
    assert figures["flipped"] == 50
    assert figures["found"] >= 48
    assert abs(figures["share"] - 0.05) < 2 * figures["share_error"]
    assert found.notes[0].startswith(f"Of 50 labels that were flipped to measure this, {figures['found']} stand in the")
    assert "linear probe on made up, which is right on 9" in found.notes[1]
    assert "of the labels are wrong (+-" in found.notes[2]


def test_a_list_that_is_not_to_be_trusted_says_so_first_and_proposes_nothing(made):
    samples, _, _ = made
    noise_ND = np.random.Generator(np.random.Philox(key=[3, 3])).standard_normal((1000, 8)).astype(np.float32)
    found = find(samples, vectors(noise_ND))
    assert found.notes[0].startswith("The list of wrong labels can't be trusted: ")
    assert not found.figures["trusted"]
    assert len(found.findings) == 20
    assert {one.proposal for one in found.findings} == {"look"}


def test_a_network_that_was_trained_on_these_labels_is_named(made):
    samples, point_ND, _ = made
    found = find(samples, vectors(point_ND, seen_splits=("train",)))
    assert found.notes[-1].startswith("The network was trained on the labels of train: wrong ones that it learnt by")


def test_all_fits_are_counted(made):
    samples, point_ND, _ = made
    told = []
    find(samples, vectors(point_ND), lambda done, total: told.append((done, total)))
    assert told == [(number, 14) for number in range(1, 15)]


@pytest.mark.parametrize(
    ("labels", "note"),
    [
        ([None] * 60, "Wrong labels were not looked for: no sample has a label."),
        ([0] * 60, "Wrong labels were not looked for: two classes with two samples each are needed, got 1."),
        ([0] * 60 + [1], "Wrong labels were not looked for: two classes with two samples each are needed, got 1."),
        ([0, 1] * 20, "Wrong labels were not looked for: 50 labelled samples are needed, got 40."),
    ],
)
def test_what_cannot_be_checked_is_said_in_one_sentence(tmp_path, labels, note):
    samples = labelled_samples(tmp_path / "out", labels)
    found = find(samples, vectors(np.eye(len(labels), 8, dtype=np.float32)))
    assert found.findings == ()
    assert found.notes[0] == note


def test_unlabelled_samples_classes_of_one_sample_and_bad_images_are_left_out_and_counted(tmp_path):
    point_ND, label_N, _ = clouds(300, classes=3, apart=8.0)
    samples = labelled_samples(tmp_path / "out", [*label_N.tolist(), 3, None, 0])
    extra_ND = np.zeros((2, point_ND.shape[1]), np.float32)
    found = find(samples, vectors(np.concatenate([point_ND, extra_ND])))
    assert found.figures["checked"] == 300
    assert found.notes[-3:] == (
        "1 samples have no label to check.",
        "1 class has a single sample, whose label can't be checked: c3.",
        "1 images can't be decoded, so their labels were not checked.",
    )
    assert all(one.label != "c3" for one in found.findings)


def test_a_missing_package_names_the_extra(made, monkeypatch):
    samples, point_ND, _ = made
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    with pytest.raises(MissingExtraError, match=r"finding wrong labels needs cleanlab.*pip install 'imgdata\[audit\]'"):
        find(samples, vectors(point_ND))
