"""An audit with a run: slices get an accuracy, where the run was not trained; its classes must be those of the data."""

import numpy as np
import pytest

import imgdata
from imgdata.auditing.predicted import predicted_classes
from imgdata.auditing.samples import samples_of
from imgdata.auditing.workers_by_ray import RayWorkers
from imgdata.cluster import RayOptions
from imgdata.errors import OptionError
from support.animals import animals
from support.digit_runs import quick
from support.inline_ray import inline_ray

__all__ = ["inline_ray"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def run(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    imgdata.train(digits, folder, quick(epochs=1))
    return folder


def views(digits, *splits):
    return samples_of([imgdata.open_view(imgdata.open(digits), split) for split in splits])


def test_predictions_are_those_of_evaluate_and_none_of_the_split_trained_on(digits, run):
    found = predicted_classes(views(digits, "train", "val"), str(run), device="cpu")
    assert (found[:320] == -1).all()
    theirs = imgdata.evaluate(run, digits, split="val", device="cpu").predictions
    assert np.mean(found[320 + theirs.position_N] == theirs.predicted_N) == 1


def test_a_cluster_predicts_the_same(digits, run, inline_ray):
    samples = views(digits, "train", "val")
    with RayWorkers(RayOptions(), imgdata.open(digits), told=lambda what: None) as workers:
        found = predicted_classes(samples, str(run), device="cpu", workers=workers)
    np.testing.assert_array_equal(found, predicted_classes(samples, str(run), device="cpu"))
    assert inline_ray.ended > 0


@pytest.mark.slow
def test_slices_have_an_accuracy_and_neighbours_are_looked_for(digits, run):
    result = imgdata.audit(digits, model=run, only=("slices", "neighbours"), device="cpu", workers=1)
    assert [one.skipped for one in result.checks] == ["", ""]
    theirs = imgdata.evaluate(run, digits, split="val", device="cpu").scores.top1
    assert result.figures("slices")["accuracy"] == pytest.approx(theirs)
    assert result.figures("neighbours")["features"] == "cnn of run"


@pytest.mark.parametrize("check", ["labels", "slices", "neighbours"])
def test_a_run_of_other_classes_is_refused(run, tmp_path, check):
    folder = animals(tmp_path)
    with pytest.raises(OptionError, match="every class must be one of the 10 that the network was trained on"):
        imgdata.audit(folder, model=run, only=check, device="cpu")


def test_a_folder_that_is_no_run_is_refused(digits, tmp_path):
    with pytest.raises(OptionError, match=r"must be the folder of a run, got one without config\.json"):
        imgdata.audit(digits, model=tmp_path, only="labels", device="cpu")


def test_a_check_that_needs_a_run_says_so(digits):
    with pytest.raises(OptionError, match="neighbours needs --model, the folder of a run"):
        imgdata.audit(digits, only="neighbours")
