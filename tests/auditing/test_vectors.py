"""Vectors of samples: of a run, of frozen features, kept in the cache folder."""

from dataclasses import replace

import numpy as np
import pytest

import imgdata
from imgdata.auditing import label_errors, vectors
from imgdata.auditing.patches import PatchFeatures, learn_patches
from imgdata.auditing.samples import samples_of
from imgdata.auditing.vector_sources import PATCHES
from imgdata.auditing.vectors import vectors_of
from imgdata.auditing.workers_by_ray import RayWorkers
from imgdata.cluster import RayOptions
from imgdata.errors import OptionError, ShardError
from imgdata.views import open_view
from support.digit_runs import digit_folders, quick
from support.inline_ray import inline_ray
from support.label_sets import labelled_samples

__all__ = ["inline_ray"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def no_lite(monkeypatch):
    monkeypatch.setattr(vectors, "_lite", lambda samples, device: None)


def samples_of_digits(digits, *views):
    opened = imgdata.open(digits)
    return samples_of([open_view(opened, split, view) for split, view in views or (("train", ""), ("val", ""))])


@pytest.fixture(scope="module")
def run(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    imgdata.train(digits, folder, quick(epochs=1))
    return folder


def test_vectors_of_a_run_are_its_features_in_the_order_of_the_samples(digits, run):
    samples = samples_of_digits(digits)
    told = []
    found = vectors_of(samples, model=run, device="cpu", progress=lambda done, total: told.append((done, total)))
    theirs = [imgdata.features(run, digits, split=split, device="cpu", batch_size=64) for split in ("train", "val")]
    np.testing.assert_allclose(found.vector_KD, np.concatenate([one.vector_ND for one in theirs]), atol=1e-5)
    assert found.number_K.tolist() == list(range(400))
    assert found.what == "cnn of run"
    assert found.seen_splits == ("train",)
    assert told[-1] == (400, 400)


def test_a_cluster_makes_the_same_vectors(digits, run, inline_ray, tmp_path, monkeypatch):
    samples = samples_of_digits(digits)
    here = vectors_of(samples, model=run, device="cpu").vector_KD.copy()
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(vectors, "_PIECE", 128)
    told = []
    with RayWorkers(RayOptions(), imgdata.open(digits), told=told.append) as workers:
        there = vectors_of(samples, model=run, device="cpu", workers=workers)
    np.testing.assert_allclose(there.vector_KD, here, atol=1e-5)
    assert there.number_K.tolist() == list(range(400))
    assert inline_ray.ended > 0
    assert told == []


def test_vectors_are_kept_by_pictures_and_network_and_read_again(digits, run, cache, monkeypatch):
    samples = samples_of_digits(digits)
    first = vectors_of(samples, model=run, device="cpu").vector_KD.copy()
    (file,) = (cache / "audit").glob("features-*.npy")
    assert file.stat().st_size == pytest.approx(first.nbytes, abs=200)
    monkeypatch.setattr(vectors, "_computed", lambda *arguments: pytest.fail("computed again"))
    assert (vectors_of(samples, model=run, device="cpu").vector_KD == first).all()
    relabelled = replace(samples.views[0], label_N=(samples.views[0].label_N + 1) % 10)
    vectors_of(samples_of([relabelled, samples.views[1]]), model=run, device="cpu")


def test_other_samples_have_vectors_of_their_own(digits, run, cache):
    vectors_of(samples_of_digits(digits), model=run, device="cpu")
    found = vectors_of(samples_of_digits(digits, ("train", "fraction=0.5")), model=run, device="cpu")
    assert len(found.vector_KD) == 160
    assert len(list((cache / "audit").glob("features-*.npy"))) == 2


@pytest.mark.parametrize("damage", [b"", b"not an array", None])
def test_a_damaged_file_is_computed_again(digits, run, cache, damage):
    samples = samples_of_digits(digits)
    first = vectors_of(samples, model=run, device="cpu").vector_KD.copy()
    (file,) = (cache / "audit").glob("features-*.npy")
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[:5000] if damage is None else damage)
    assert (vectors_of(samples, model=run, device="cpu").vector_KD == first).all()


def test_without_room_in_the_cache_folder_vectors_are_in_memory(digits, run, cache, monkeypatch):
    monkeypatch.setenv("IMGDATA_CACHE_GB", "0")
    assert len(vectors_of(samples_of_digits(digits), model=run, device="cpu").vector_KD) == 400
    assert not list(cache.rglob("features-*"))


def test_images_that_cannot_be_decoded_have_no_vector(tmp_path, no_lite):
    samples = labelled_samples(tmp_path / "out", [0, 1] * 30)
    (shard,) = (tmp_path / "out").rglob("*.tar")
    content = bytearray(shard.read_bytes())
    offset = int(samples.array("offset")[7])
    content[offset : offset + 8] = b"no image"
    shard.write_bytes(content)
    found = vectors_of(samples, device="cpu")
    assert found.number_K.tolist() == [number for number in range(60) if number != 7]
    assert len(found.vector_KD) == 59


def test_where_no_image_can_be_decoded_that_is_said(tmp_path, no_lite):
    samples = labelled_samples(tmp_path / "out", [0, 1] * 5)
    (shard,) = (tmp_path / "out").rglob("*.tar")
    content = bytearray(shard.read_bytes())
    for offset in samples.array("offset").tolist():
        content[offset : offset + 8] = b"no image"
    shard.write_bytes(content)
    with pytest.raises(ShardError, match="none of 10 pictures can be decoded"):
        vectors_of(samples, device="cpu")


def test_a_run_for_other_classes_is_refused(tmp_path, run):
    samples = labelled_samples(tmp_path / "out", [0, 1] * 30)
    with pytest.raises(OptionError, match="every class must be one of the 10 that the network was trained on"):
        vectors_of(samples, model=run, device="cpu")


def test_what_is_no_run_is_refused(digits, tmp_path):
    with pytest.raises(OptionError, match="must be the folder of a run or the name of a network, got neither"):
        vectors_of(samples_of_digits(digits), model=tmp_path / "none", device="cpu")


def test_without_the_network_features_are_learnt_from_the_pictures(digits, no_lite):
    found = vectors_of(samples_of_digits(digits), device="cpu")
    assert found.what == PATCHES
    assert found.vector_KD.shape == (400, 1800)
    assert found.seen_splits == found.tried == ()


@pytest.mark.slow
def test_frozen_features_are_those_that_carry_a_probe_further(digits):
    found = vectors_of(samples_of_digits(digits, ("train", "fraction=0.5")), device="cpu")
    tried = dict(found.tried)
    assert set(tried) == {PATCHES, "tf_efficientnet_lite0 at 128 pixels"}
    assert tried[found.what] == max(tried.values()) > 0.6


def test_patches_are_the_same_for_the_same_pictures_and_seed():
    generator = np.random.Generator(np.random.Philox(key=[4, 4]))
    pictures = generator.random((50, 3, 32, 32), np.float32)
    one, again, other = (learn_patches(pictures, seed) for seed in (1, 1, 2))
    assert isinstance(one, PatchFeatures)
    assert (one.filter_KCHW == again.filter_KCHW).all()
    assert not (one.filter_KCHW == other.filter_KCHW).all()


@pytest.mark.slow
def test_wrong_labels_of_digits_are_found_from_the_shards_alone(tmp_path, no_lite):
    raw = digit_folders(tmp_path / "raw", {"train": 800})
    imgdata.shard(raw, tmp_path / "out", imgdata.ShardOptions(), workers=1)
    view = open_view(imgdata.open(tmp_path / "out"), "train")
    generator = np.random.Generator(np.random.Philox(key=[2, 2]))
    wrong = generator.choice(800, 40, replace=False)
    label_N = view.label_N.copy()
    label_N[wrong] = (label_N[wrong] + generator.integers(1, 10, 40)) % 10
    samples = samples_of([replace(view, label_N=label_N)])
    found = label_errors.find(samples, vectors_of(samples, device="cpu"), budget=40)
    right = [finding.place.position in set(wrong.tolist()) for finding in found.findings]
    assert np.mean(right) >= 0.9
    assert found.figures["trusted"]
    assert abs(found.figures["share"] - 0.05) <= 2 * found.figures["share_error"]
