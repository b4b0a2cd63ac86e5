"""Logits and labels -> scores, beside scikit-learn's and torchmetrics', in one part or many."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from torchmetrics.functional.classification import multiclass_calibration_error

from imgdata.training.distributed import Processes
from imgdata.training.scores import Scores, Tally, classes_csv

ALONE = Processes(rank=0, world_size=1, device=torch.device("cpu"))


def logits_and_labels(samples, classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits_NC = torch.randn(samples, classes, generator=generator) * 2
    return logits_NC, torch.randint(classes, (samples,), generator=generator)


def scores_of(logits_NC, label_N, valid_N=None, *, batch=7):
    tally = Tally(logits_NC.shape[1], torch.device("cpu"))
    valid_N = torch.ones(len(label_N), dtype=torch.bool) if valid_N is None else valid_N
    for start in range(0, len(label_N), batch):
        part = slice(start, start + batch)
        tally.add(logits_NC[part], label_N[part], valid_N[part])
    return tally.scores(len(label_N), ALONE)


@settings(max_examples=40)
@given(samples=st.integers(1, 60), classes=st.integers(2, 12), seed=st.integers(0, 99), batch=st.integers(1, 60))
def test_scores_are_those_of_scikit_learn_and_torchmetrics(samples, classes, seed, batch):
    logits_NC, label_N = logits_and_labels(samples, classes, seed)
    found = scores_of(logits_NC, label_N, batch=batch)
    labels = range(classes)
    predicted_N = logits_NC.argmax(dim=1)
    assert found.total == samples
    assert found.skipped == 0
    assert found.top1 == pytest.approx(metrics.accuracy_score(label_N, predicted_N))
    assert (found.confusion_CC == metrics.confusion_matrix(label_N, predicted_N, labels=labels)).all()
    chance_NC = logits_NC.softmax(dim=1).double()
    chance_NC /= chance_NC.sum(dim=1, keepdim=True)
    assert found.loss == pytest.approx(metrics.log_loss(label_N, chance_NC, labels=labels), abs=1e-4)
    if classes > 5:
        expected = metrics.top_k_accuracy_score(label_N, logits_NC, k=5, labels=labels)
        assert found.top5 == pytest.approx(expected)
    else:
        assert found.top5 == 1
    # Logits that all happen to lie between 0 and 1 it would take for probabilities.
    calibration = multiclass_calibration_error(logits_NC.softmax(dim=1), label_N, classes, n_bins=15)
    assert found.calibration_error == pytest.approx(float(calibration), abs=1e-4)


def test_what_is_not_valid_is_skipped():
    logits_NC, label_N = logits_and_labels(20, 3)
    valid_N = torch.arange(20) % 4 != 0
    label_N[~valid_N] = -1
    found = scores_of(logits_NC, label_N, valid_N)
    assert (found.total, found.skipped) == (15, 5)
    expected = scores_of(logits_NC[valid_N], label_N[valid_N])
    assert replace(found, skipped=0, right_C=None, count_C=None, confusion_CC=None).to_state() == (
        replace(expected, right_C=None, count_C=None, confusion_CC=None).to_state()
    )
    for name in ("right_C", "count_C", "confusion_CC"):
        assert (getattr(found, name) == getattr(expected, name)).all()


def test_nothing_valid_gives_no_figures():
    logits_NC, label_N = logits_and_labels(4, 3)
    found = scores_of(logits_NC, label_N, torch.zeros(4, dtype=torch.bool))
    assert found.total == found.top1 == found.top5 == 0
    assert np.isnan(found.loss)


def test_with_very_many_classes_there_is_no_matrix_but_all_else():
    logits_NC, label_N = logits_and_labels(8, 5000)
    found = scores_of(logits_NC, label_N)
    assert found.confusion_CC is None
    assert found.count_C.sum() == 8


def test_scores_survive_a_checkpoint():
    found = scores_of(*logits_and_labels(30, 4))
    again = Scores.from_state(found.to_state())
    assert again.top1 == found.top1
    assert (again.confusion_CC == found.confusion_CC).all()


def test_the_table_of_classes_names_what_a_class_is_taken_for():
    logits_NC = torch.eye(3)[torch.tensor([0, 0, 1, 1, 1])]
    found = scores_of(logits_NC, torch.tensor([0, 0, 0, 1, 2]))
    lines = classes_csv(found, ["cat", "dog", "newt"]).decode().splitlines()
    assert lines[1:] == ["cat,3,2,0.6667,dog,1", "dog,1,1,1.0000,,", "newt,1,0,0.0000,dog,1"]
    # A spreadsheet would run these.
    lines = classes_csv(found, ["=1+1", "@cat", "-2"]).decode().splitlines()
    assert lines[1:] == ["'=1+1,3,2,0.6667,'@cat,1", "'@cat,1,1,1.0000,,", "'-2,1,0,0.0000,'@cat,1"]
