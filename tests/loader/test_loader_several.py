"""Loaders of several datasets: one after the other, or mixed by weights; exact, resumable, the same on any ranks."""

import shutil
from collections import Counter

import numpy as np
import pytest

import imgdata
from imgdata.recipes import CenterCrop, HorizontalFlip, Recipe
from support.loaders import on_the_cpu, sums
from support.masks import write_dataset
from support.rawdata import pictures_of

RECIPE = Recipe(CenterCrop(size=16), HorizontalFlip())


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two datasets that share a class: cat and dog, dog and ant."""
    work = tmp_path_factory.mktemp("several")
    for name, counts in (("a", {"train/cat": 12, "train/dog": 9}), ("b", {"train/ant": 4, "train/dog": 5})):
        imgdata.shard(pictures_of(work / f"raw-{name}", counts), work / name, shard_samples=5, workers=1)
    return [work / "a", work / "b"]


def loader(source, **options):
    return imgdata.Loader(source, **{"split": "train", "batch_size": 4, "recipe": RECIPE, "threads": 1, **options})


def positions(batches):
    return [position for batch in sums(batches) for position in batch[0]]


def test_without_weights_every_sample_of_all_comes_once(folders):
    with loader(folders, drop_last=False, batch_size=30) as both:
        assert sorted(positions(both)) == list(range(30))
        assert len(both.dataset) == 30


@on_the_cpu
def test_pictures_and_labels_are_those_of_each_dataset_by_itself(folders, backend):
    alone = [imgdata.open(folder) for folder in folders]
    with loader(folders, shuffle="none", drop_last=False, recipe=Recipe(CenterCrop(size=16))) as both:
        found = [batch for batch in both]
        assert [named.id for named in both.classes] == ["cat", "dog", "ant"]
    pixels = np.concatenate([batch.images.numpy()[batch.valid.numpy()] for batch in found])
    labels = [label for batch in found for label in batch.labels[batch.valid].tolist()]
    keys = [key for batch in found for key, good in zip(batch.keys, batch.valid.tolist(), strict=True) if good]
    expected, names = [], []
    for folder in folders:
        with loader(folder, shuffle="none", drop_last=False, recipe=Recipe(CenterCrop(size=16))) as one:
            expected += [batch.images.numpy()[batch.valid.numpy()] for batch in one]
        names += [
            alone[folders.index(folder)].classes[label].id for label in imgdata.open(folder)["train"].index.label_N
        ]
    assert np.array_equal(pixels, np.concatenate(expected))
    assert [["cat", "dog", "ant"][label] for label in labels] == names
    assert keys == [sample.key for one in alone for sample in one["train"]]


def test_an_epoch_has_each_dataset_as_often_as_its_weight_says(folders):
    with loader(folders, weights=[0.4, 0.6], drop_last=False, batch_size=30) as mixed:
        for epoch in range(5):
            mixed.set_epoch(epoch)
            (found,) = sums(mixed)
            assert Counter(position < 21 for position in found[0]) == {True: 12, False: 18}


def test_all_samples_of_a_dataset_are_drawn_before_one_is_drawn_again(folders):
    with loader(folders, weights=[1, 1], drop_last=False, batch_size=30) as mixed:
        drawn = []
        for epoch in range(7):
            mixed.set_epoch(epoch)
            drawn += [position for position in positions(mixed)]
        # 15 draws of each in an epoch: 105 are five times the 21 samples of the first.
        assert set(Counter(position for position in drawn if position < 21).values()) == {5}
        counts = Counter(position for position in drawn if position >= 21)
        assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("options", [{}, {"weights": [0.7, 0.3]}, {"weights": [2, 5], "shuffle": "window"}], ids=str)
def test_a_run_resumes_with_the_very_next_batch_and_other_ranks(folders, options):
    with loader(folders, **options) as whole:
        epoch = sums(whole)
    with loader(folders, **options) as first:
        head = sums(first, 2)
        state = first.state_dict()
    with loader(folders, **options) as rest:
        rest.load_state_dict(state)
        assert head + sums(rest) == epoch
    parts = []
    for rank in (0, 1):
        with loader(folders, **options, batch_size=2, rank=rank, world_size=2) as half:
            half.load_state_dict(state)
            parts.append(sums(half))
    assert [one[0] + other[0] for one, other in zip(*parts, strict=True)] == [batch[0] for batch in epoch[2:]]


def test_the_mixture_is_a_function_of_seed_and_epoch_alone(folders):
    def order(seed, epoch):
        with loader(folders, weights=[1, 2], seed=seed) as mixed:
            mixed.set_epoch(epoch)
            return positions(mixed)

    assert order(3, 4) == order(3, 4)
    assert order(3, 4) != order(3, 5)
    assert order(3, 4) != order(4, 4)


def test_a_state_fits_only_the_same_datasets_weights_and_seed(folders):
    with loader(folders, weights=[1, 2]) as mixed:
        state = mixed.state_dict()
    for source, options, message in (
        (folders, {"weights": [2, 1]}, "fingerprint must be"),
        (folders, {}, "fingerprint must be"),
        (folders[::-1], {"weights": [1, 2]}, "fingerprint must be"),
        (folders, {"weights": [1, 2], "seed": 1}, "seed must be 1, got 0; pass seed=0"),
    ):
        with loader(source, **options) as other, pytest.raises(imgdata.OptionError, match=message):
            other.load_state_dict(state)


def test_classes_can_be_kept_apart(folders):
    with loader(folders, classes="separate", shuffle="none", drop_last=False, batch_size=30) as apart:
        assert [named.id for named in apart.classes] == ["0/cat", "0/dog", "1/ant", "1/dog"]
        assert [named.name for named in apart.classes] == ["a/cat", "a/dog", "b/ant", "b/dog"]
        ((_, labels, _),) = sums(apart)
        assert set(labels[:21]) == {0, 1}
        assert set(labels[21:]) == {2, 3}


def test_a_column_says_which_dataset_a_sample_is_of(folders):
    with loader(folders, columns=["dataset", "source"], shuffle="none", drop_last=False, batch_size=30) as both:
        (batch,) = both
        assert batch.columns["dataset"].tolist() == [0] * 21 + [1] * 9
        assert len(batch.columns["source"]) == 30


def test_views_datasets_and_folders_can_be_mixed(folders):
    dogs = imgdata.open_view(imgdata.open(folders[0]), "train", "where class==dog")
    with loader([dogs, imgdata.open(folders[1]), str(folders[1])], drop_last=False, batch_size=27) as mixed:
        assert len(mixed.dataset) == 9 + 9 + 9
        assert len(positions(mixed)) == 27
    with loader(folders, view="where class==dog", shuffle="none", drop_last=False) as dogs_of_both:
        assert len(dogs_of_both.dataset) == 14


def test_a_state_of_earlier_versions_of_some_is_resumed(folders, tmp_path):
    import shutil

    grown = shutil.copytree(folders[0], tmp_path / "a")
    with loader([grown, folders[1]], weights=[1, 1]) as before:
        epoch = sums(before)
    with loader([grown, folders[1]], weights=[1, 1]) as before:
        head, state = sums(before, 1), before.state_dict()
    more = pictures_of(tmp_path / "more", {"train/bee": 2}, first=100)
    imgdata.shard(more, grown, workers=1, append=True)
    with loader([grown, folders[1]], weights=[1, 1]) as after:
        assert len(after.classes) == 4
        after.load_state_dict(state)
        assert head + sums(after) == epoch
        assert len(after.classes) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": [1]}, r"weights must be 2 numbers above 0, one for each dataset, got \[1\]"),
        ({"weights": [1, 0]}, r"weights must be 2 numbers above 0"),
        ({"weights": [1, float("nan")]}, r"weights must be 2 numbers above 0"),
        ({"weights": [1e9, 1]}, r"would get none of the 30 draws of an epoch with 1; give it a larger weight"),
        ({"weights": ["a", 1]}, r"weights must be 2 numbers above 0, one for each dataset, got \['a', 1\]"),
        ({"weights": 1}, r"weights must be 2 numbers above 0, one for each dataset, got 1"),
        ({"weights": "ab"}, r"weights must be 2 numbers above 0, one for each dataset, got 'ab'"),
        ({"classes": "other"}, r"classes must be joined or separate, got 'other'"),
        ({"view": "balance"}, r"balance can't be used on one of several datasets"),
        ({"version": 1}, r"version is of one dataset"),
        ({"split": "val"}, r"split must be one of train, got 'val'"),
        ({"columns": ["nothing"]}, r"columns must be among"),
    ],
)
def test_what_several_datasets_can_not_is_one_error(folders, options, message):
    with pytest.raises(imgdata.OptionError, match=message):
        loader(folders, **options)


def test_what_is_meant_for_several_is_refused_for_one(folders):
    for options in ({"weights": [1]}, {"classes": "separate"}):
        with pytest.raises(imgdata.OptionError, match="weights and classes are for several datasets"):
            loader(folders[0], **options)
    with pytest.raises(imgdata.OptionError, match="an empty list"):
        loader([])
    with loader(folders) as both, pytest.raises(imgdata.ShardError, match="several that are read together"):
        imgdata.save_view(both.view, "both")


def test_raw_images_beside_shards_are_refused(folders, tmp_path):
    raw = pictures_of(tmp_path / "raw", {"train/cat": 3})
    with pytest.raises(imgdata.OptionError, match="only shards can be loaded together with others"):
        loader([folders[0], raw])


@pytest.mark.parametrize("weights", [None, [0.7, 0.3]], ids=str)
def test_every_backend_has_the_same_samples_and_labels(folders, backend, weights):
    options = {"weights": weights, "columns": ["dataset"], "recipe": Recipe(CenterCrop(size=16)), "batch_size": 5}
    with loader(folders, backend="cpu", **options) as wanted, loader(folders, **options) as found:
        for one, other in zip(wanted, found, strict=True):
            assert one.keys == other.keys
            assert one.labels.tolist() == other.labels.tolist()
            assert one.columns["dataset"].tolist() == other.columns["dataset"].tolist()
            assert (one.images.float() - other.images.float()).abs().mean() < 3


def test_masks_are_those_of_each_dataset_and_tars_that_were_indexed_are_read_like_others(tmp_path):
    numbers = []
    for number, name in enumerate("ab"):
        numbers += write_dataset(tmp_path / name, 4 + number)
    for tar in (tmp_path / "a").glob("*.tar"):
        (tmp_path / "indexed").mkdir(exist_ok=True)
        shutil.copy(tar, tmp_path / "indexed")
    imgdata.index(tmp_path / "indexed", workers=1)
    for first in ("a", "indexed"):
        options = {"joint": ["mask"], "shuffle": "none", "batch_size": 9, "recipe": Recipe(CenterCrop(size=16))}
        with loader([tmp_path / first, tmp_path / "b"], **options) as both:
            (batch,) = both
        for found, mask in zip(batch.columns["mask"].numpy(), numbers, strict=True):
            top, left = round((mask.shape[0] - 16) / 2), round((mask.shape[1] - 16) / 2)
            assert np.array_equal(found, mask[top : top + 16, left : left + 16])


def test_masks_that_one_dataset_lacks_are_refused_with_its_name(folders, tmp_path):
    write_dataset(tmp_path / "masked", 4)
    with pytest.raises(
        imgdata.OptionError, match=r"joint names 'mask', which each of the datasets must have, and .*a "
    ):
        loader([tmp_path / "masked", folders[0]], joint=["mask"])
