"""`compact`: what views leave out is taken out of the shards, and several versions become one, in the same folder."""

import io
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

import imgdata
from support.rawdata import encoded, pictures_of


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A dataset of two versions, with views; not to be changed."""
    work = tmp_path_factory.mktemp("grown")
    raw = pictures_of(work / "pets", {"train/cat": 6, "train/dog": 5, "val/cat": 2})
    imgdata.shard(raw, work / "out", shard_samples=3, workers=1, resize=40)
    more = pictures_of(work / "more", {"train/ant": 4}, first=100)
    imgdata.shard(more, work / "out", shard_samples=3, workers=1, resize=40, append=True)
    opened = imgdata.open(work / "out")
    imgdata.save_view(imgdata.open_view(opened, "train", "where class in ant,cat"), "clean")
    return work / "out"


@pytest.fixture
def out(made, tmp_path):
    return shutil.copytree(made, tmp_path / "out")


def samples(dataset, view=None):
    """Key, class id and bytes of all samples, by key."""
    return sorted(
        (split, sample.key, dataset.classes[sample.label].id, sample.image)
        for split in dataset
        for sample in dataset[split]
    )


def test_versions_become_one_with_the_same_samples(out, made):
    done = imgdata.compact(out, workers=1)
    after = imgdata.open(out)
    assert (done.versions, done.left_out, after.version) == (2, 0, 1)
    assert samples(after) == samples(imgdata.open(made))
    assert [len(split.shards) for split in after.splits.values()] == [5, 1]
    assert sorted(path.name for path in out.glob("*.parquet")) == ["pets-train.index.parquet", "pets-val.index.parquet"]
    assert imgdata.verify(out, deep=True) == []
    assert not (out / ".imgdata").exists()


def test_only_the_samples_of_a_view_stay_under_their_names(out, made):
    done = imgdata.compact(out, "clean", workers=1)
    after = imgdata.open(out)
    assert (done.left_out, done.stale_views) == (5, ("clean",))
    kept = [sample for sample in samples(imgdata.open(made)) if sample[0] == "val" or sample[2] != "dog"]
    assert samples(after) == kept
    names = {
        imgdata.open(made)[split].index.row(i).source for split, n in (("train", 15), ("val", 2)) for i in range(n)
    }
    assert {after["train"].index.row(i).source for i in range(10)} <= names
    with pytest.raises(imgdata.ShardError, match="made of other images or labels"):
        imgdata.load_view(after, "clean")


def test_the_same_call_again_has_nothing_to_do(out):
    imgdata.compact(out, "clean", workers=1)
    before = (out / "dataset.json").read_bytes()
    again = imgdata.compact(out, "clean", workers=1)
    assert again.summary.already_complete
    assert (out / "dataset.json").read_bytes() == before
    with pytest.raises(imgdata.OptionError, match=r"has one version, and no view is named"):
        imgdata.compact(out)


def test_masks_of_several_versions_stay_with_their_pictures_byte_for_byte(tmp_path):
    out = tmp_path / "out"
    for version in (1, 2):
        raw = tmp_path / f"raw{version}"
        for split, count in (("train", 5), ("val", 2)):
            for number in range(version * 10, version * 10 + count):
                write(raw / "images" / split / f"{number}.png", encoded(number, size=(20, 16), format="PNG"))
                write(raw / "masks" / split / f"{number}.png", mask_of(number))
        imgdata.shard(raw, out, name="shapes", shard_samples=3, workers=1, append=version == 2)
    before = with_masks(out)
    assert len(before) == 14
    assert imgdata.compact(out, workers=1).versions == 2
    assert with_masks(out) == before
    assert imgdata.verify(out, deep=True) == []
    view = imgdata.open_view(imgdata.open(out), "train", "fraction=0.5")
    imgdata.save_view(view, "half")
    imgdata.compact(out, "half", workers=1)
    after = with_masks(out)
    assert len(after) == 9
    assert after.items() <= before.items()
    assert imgdata.open(out).manifest.members[0].name == "mask"
    assert imgdata.verify(out, deep=True) == []


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def mask_of(number):
    made = io.BytesIO()
    Image.fromarray(np.full((16, 20), number, np.uint8)).save(made, "PNG")
    return made.getvalue()


def with_masks(out):
    """Bytes of the picture and numbers of the mask of each sample, by split and key."""
    opened = imgdata.open(out)
    return {
        (split, sample.key): (sample.image, np.unique(sample.array_of("mask")).tolist())
        for split in opened
        for sample in opened[split]
    }


def test_what_is_compacted_can_be_appended_to_with_the_options_that_made_it(out, tmp_path):
    imgdata.compact(out, "clean", workers=1)
    more = pictures_of(tmp_path / "last", {"train/bee": 2}, first=300)
    imgdata.shard(more, out, workers=1, resize=40, append=True)
    assert len(imgdata.open(out)["train"]) == 12
    assert imgdata.verify(out) == []


class Stop(imgdata.Watcher):
    """Ends a run after its first shards."""

    def __init__(self, out):
        self.out = out

    def advanced(self, samples, num_bytes, rejects):
        if len(list((self.out / ".imgdata").rglob("*.tar"))) >= 2:
            raise KeyboardInterrupt


def test_the_dataset_is_whole_until_the_new_one_is_and_the_same_call_resumes(out, made):
    with pytest.raises(KeyboardInterrupt):
        imgdata.compact(out, "clean", workers=1, watch=Stop(out))
    assert samples(imgdata.open(out)) == samples(imgdata.open(made))
    assert imgdata.verify(out) == []
    assert imgdata.compact(out, "clean", workers=1).summary.resumed_shards >= 1
    assert len(imgdata.open(out)["train"]) == 10
    assert not (out / ".imgdata").exists()


def test_a_swap_that_was_cut_off_is_finished_by_the_same_call(out, monkeypatch):
    replace, moved = os.replace, []

    def dying(source, target):
        if str(target).startswith(str(out)) and ".imgdata" not in str(target):
            moved.append(target)
            if len(moved) == 3:
                raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", dying)
        with pytest.raises(KeyboardInterrupt):
            imgdata.compact(out, "clean", workers=1)
    assert imgdata.compact(out, "clean", workers=1).summary.already_complete
    assert len(imgdata.open(out)["train"]) == 10
    assert imgdata.verify(out) == []


def test_columns_and_relabelled_classes_are_baked_in(tmp_path):
    lines = []
    raw = tmp_path / "raw"
    raw.mkdir()
    for number in range(6):
        (raw / f"{number}.jpg").write_bytes(encoded(number))
        lines.append(json.dumps({"path": f"{number}.jpg", "label": "cat" if number % 2 else "dog", "age": number}))
    (raw / "table.jsonl").write_text("\n".join(lines))
    out = tmp_path / "out"
    imgdata.shard(raw, out, workers=1, table=raw / "table.jsonl")
    opened = imgdata.open(out)
    (tmp_path / "names.csv").write_text("key,label\n" + "".join(f"{one.key},animal\n" for one in opened["train"]))
    view = imgdata.open_view(opened, "train", f"relabel={tmp_path / 'names.csv'},classes=table | count=4")
    imgdata.save_view(view, "old")
    wanted = {opened["train"][position].key: opened["train"][position].fields["age"] for position in view.position_N}
    imgdata.compact(out, "old", workers=1)
    after = imgdata.open(out)
    assert [one.id for one in after.classes] == ["animal"]
    assert {sample.key: sample.fields["age"] for sample in after["train"]} == wanted
    assert len(wanted) == 4
    assert {sample.fields["class_id"] for sample in after["train"]} == {"animal"}
    assert imgdata.verify(out) == []


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ("balance", r"balance draws samples several times"),
        ("nothing", r"no view 'nothing' in .*A step must be one of"),
        ("where class==cat | fraction=2", r"fraction must be above 0 and below 1"),
    ],
)
def test_views_that_can_not_be_baked_in_are_one_error(out, views, message):
    before = (out / "dataset.json").read_bytes()
    with pytest.raises(imgdata.OptionError, match=message):
        imgdata.compact(out, views)
    assert (out / "dataset.json").read_bytes() == before
    assert not (out / ".imgdata").exists()


def test_a_folder_without_a_dataset_is_one_error(tmp_path):
    with pytest.raises(imgdata.ShardError, match="no such folder"):
        imgdata.compact(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
