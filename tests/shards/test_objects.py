"""Python objects become the same shards as files: any iterable by `imgdata.shard`, one by one by `imgdata.Writer`."""

import dataclasses
import hashlib
import io

import numpy as np
import pytest
from PIL import Image

import imgdata
from imgdata import Encoding, ShardOptions
from imgdata.shards.keywords import ShardKeywords
from support.rawdata import class_folders, encoded, picture


def digests(out):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.iterdir() if path.is_file()}


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def array(seed):
    return np.asarray(picture(seed, (20, 16)))


PAIRS = [(encoded(number, (24, 16)), number % 3) for number in range(12)]

IMAGES = {
    "JPEG": (encoded(1), lambda data: data == encoded(1)),
    "bytearray": (bytearray(encoded(1)), lambda data: data == encoded(1)),
    "undecoded": ({"bytes": encoded(1), "path": None}, lambda data: data == encoded(1)),
    "PIL RGB": (picture(2), lambda data: (pixels(data) == np.asarray(picture(2))).all()),
    "PIL L": (picture(2).convert("L"), lambda data: (pixels(data) == np.asarray(picture(2).convert("L"))).all()),
    "PIL RGBA": (picture(2).convert("RGBA"), lambda data: pixels(data).shape == (48, 64, 4)),
    "PIL P": (picture(2).convert("P"), lambda data: Image.open(io.BytesIO(data)).mode == "P"),
    "PIL CMYK": (picture(2).convert("CMYK"), lambda data: pixels(data).shape == (48, 64, 3)),
    "array HWC": (array(3), lambda data: (pixels(data) == array(3)).all()),
    "array HW": (array(3)[..., 0], lambda data: (pixels(data) == array(3)[..., 0]).all()),
    "array HW1": (array(3)[..., :1], lambda data: (pixels(data) == array(3)[..., 0]).all()),
    "array, not contiguous": (array(3)[::-1, ::2], lambda data: (pixels(data) == array(3)[::-1, ::2]).all()),
}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_bytes_a_pil_image_or_an_array_and_loses_nothing(tmp_path, name):
    image, same = IMAGES[name]
    imgdata.shard([(image, 0)], tmp_path / "out", workers=1)
    assert same(imgdata.open(tmp_path / "out")["train"][0].image)
    assert imgdata.verify(tmp_path / "out") == []


class MapStyle:
    """As torchvision's datasets: a length, items by position, names of the classes, no `__iter__`."""

    classes = ("ant", "bee", "cow")

    def __len__(self):
        return len(PAIRS)

    def __getitem__(self, position):
        return PAIRS[position]


DATASETS = {
    "list of pairs": lambda: PAIRS,
    "generator": lambda: (pair for pair in PAIRS),
    "dicts": lambda: [{"image": image, "label": label} for image, label in PAIRS],
    "webdataset's names": lambda: [{"jpg": image, "cls": np.int64(label)} for image, label in PAIRS],
    "map style": MapStyle,
}


@pytest.mark.parametrize("name", DATASETS)
def test_any_iterable_gives_the_same_samples(tmp_path, name):
    summary = imgdata.shard(DATASETS[name](), tmp_path / "out", shard_samples=5, shuffle=False, workers=1)
    split = imgdata.open(tmp_path / "out")["train"]
    assert [(sample.image, sample.label) for sample in split] == PAIRS
    assert summary.splits["train"]["shards"] == 3
    assert imgdata.verify(tmp_path / "out") == []
    ids = [one.id for one in imgdata.open(tmp_path / "out").classes]
    assert ids == (["ant", "bee", "cow"] if name == "map style" else ["0", "1", "2"])


def test_a_mapping_of_splits_keeps_them_and_keys_differ_over_all_splits(tmp_path):
    imgdata.shard({"train": PAIRS, "validation": PAIRS[:4]}, tmp_path / "out", workers=1)
    dataset = imgdata.open(tmp_path / "out")
    assert {name: len(split) for name, split in dataset.items()} == {"train": 12, "val": 4}
    keys = [key for split in dataset.values() for key in split.index.column("key").to_pylist()]
    assert len(set(keys)) == 16


def test_a_dataset_of_imgdata_is_one_too(tmp_path):
    raw = class_folders(tmp_path / "pets", {"": 4})
    imgdata.shard(raw, tmp_path / "one", split={"train": 0.5, "val": 0.5}, workers=1)
    one = imgdata.open(tmp_path / "one")
    imgdata.shard(one, tmp_path / "two", workers=1, shuffle=False)
    two = imgdata.open(tmp_path / "two")
    assert [one_class.id for one_class in two.classes] == ["cat", "dog", "newt"]
    for name in one:
        assert [(s.key, s.image, s.label) for s in two[name]] == [(s.key, s.image, s.label) for s in one[name]]


def test_names_as_labels_become_classes_in_the_order_of_names(tmp_path):
    imgdata.shard([(PAIRS[0][0], "dog"), (PAIRS[1][0], "cat"), (PAIRS[2][0], None)], tmp_path / "o", shuffle=False)
    dataset = imgdata.open(tmp_path / "o")
    assert [one.id for one in dataset.classes] == ["cat", "dog"]
    assert [sample.label for sample in dataset["train"]] == [1, 0, -1]


def test_further_columns_go_into_json(tmp_path):
    rows = [{"image": PAIRS[0][0], "label": 0, "place": "here", "size": np.int32(3), "json": {"more": [1, 2]}}]
    imgdata.shard(rows, tmp_path / "o")
    fields = imgdata.open(tmp_path / "o")["train"][0].fields
    assert {name: fields[name] for name in ("place", "size", "more")} == {"place": "here", "size": 3, "more": [1, 2]}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_hugging_face_datasets_keep_their_bytes_and_names(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])})
    rows = {"image": [{"bytes": image, "path": None} for image, _ in PAIRS], "label": [label for _, label in PAIRS]}
    found = datasets.Dataset.from_dict(rows, features=features)
    imgdata.shard(datasets.DatasetDict({"train": found}), tmp_path / "o", shuffle=False)
    dataset = imgdata.open(tmp_path / "o")
    assert [one.id for one in dataset.classes] == ["a", "b", "c"]
    assert [(sample.image, sample.label) for sample in dataset["train"]] == PAIRS


@pytest.mark.slow
def test_torchvision_datasets_and_their_subsets(tmp_path):
    data = pytest.importorskip("torch.utils.data")
    folder = pytest.importorskip("torchvision.datasets").ImageFolder(str(class_folders(tmp_path / "in", {"": 3})))
    for name, dataset in (("all", folder), ("some", data.Subset(folder, [0, 4, 8]))):
        imgdata.shard(dataset, tmp_path / name, shuffle=False)
        made = imgdata.open(tmp_path / name)
        assert [one.id for one in made.classes] == ["cat", "dog", "newt"]
        for sample, (image, label) in zip(made["train"], dataset, strict=True):
            assert sample.label == label
            assert (pixels(sample.image) == np.asarray(image)).all()


def test_the_writer_makes_the_same_files_as_the_function(tmp_path):
    options = ShardOptions(name="same", shard_samples=4, seed=3)
    imgdata.shard(PAIRS, tmp_path / "one", options, class_names=["x", "y", "z"], workers=1)
    with imgdata.Writer(tmp_path / "two", options, classes=["x", "y", "z"], workers=1) as writer:
        for image, label in PAIRS:
            writer.write(image, label)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert writer.summary.samples == 12
    assert not (tmp_path / "two" / ".imgdata").exists()


def test_the_writer_takes_splits_keys_and_columns(tmp_path):
    with imgdata.Writer(tmp_path / "o", classes=["cat", ("n2", "dog")], shard_samples=2) as writer:
        writer.write(PAIRS[0][0], "cat", split="train", key="first", json={"by": "me"})
        writer.write(array(1), 1, split="val", key="second")
    dataset = imgdata.open(tmp_path / "o")
    assert [(one.id, one.name) for one in dataset.classes] == [("cat", "cat"), ("n2", "dog")]
    assert dataset["train"][0].key == "first"
    assert dataset["train"][0].fields["by"] == "me"
    assert dataset["val"].find("second") == 0


def test_a_block_that_fails_leaves_nothing(tmp_path):
    def failing():
        with imgdata.Writer(tmp_path / "o") as writer:
            writer.write(*PAIRS[0])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert list(tmp_path.iterdir()) == []


def test_a_generator_that_fails_leaves_an_old_dataset_alone(tmp_path):
    imgdata.shard(PAIRS, tmp_path / "o", name="old")
    before = digests(tmp_path / "o")

    def broken():
        yield PAIRS[0]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        imgdata.shard(broken(), tmp_path / "o", name="new", overwrite=True)
    assert digests(tmp_path / "o") == before
    assert not (tmp_path / "o" / ".imgdata").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_that_was_cut_off_is_resumed_and_a_finished_one_is_complete(tmp_path, overwrite):
    out = tmp_path / "o"
    if overwrite:
        imgdata.shard(PAIRS[:5], out, name="old")

    class Stop(imgdata.Watcher):
        def advanced(self, samples, num_bytes, rejects):
            if [tar for tar in out.rglob("*.tar") if "new" in tar.name]:
                raise KeyboardInterrupt

    settings = {"name": "new", "shard_samples": 2, "workers": 1}
    with pytest.raises(KeyboardInterrupt):
        imgdata.shard(PAIRS, out, watch=Stop(), overwrite=overwrite, **settings)
    assert imgdata.shard(iter(PAIRS), out, overwrite=overwrite, **settings).resumed_shards > 0
    assert imgdata.shard(PAIRS, out, **settings).already_complete
    with pytest.raises(imgdata.OutputError, match="its list of images has changed"):
        imgdata.shard([(encoded(99, (24, 16)), 0), *PAIRS[1:]], out, **settings)
    imgdata.shard(PAIRS, tmp_path / "fresh", **settings)
    assert digests(out) == digests(tmp_path / "fresh")


def test_bad_bytes_are_left_out_with_the_reason(tmp_path):
    summary = imgdata.shard([*PAIRS, (b"<html>", 0), (b"", 1)], tmp_path / "o")
    assert summary.rejected == {"empty": 1, "not-an-image": 1}
    assert summary.samples == 12


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (7, "must be a path, or an iterable of samples, got int"),
        ([], "no images found"),
        ([("photo.jpg", 0)], r"item 0: an image must be a PIL image, .* got str"),
        ([(np.zeros((4, 4, 3), np.float32), 0)], r"item 0: an array must be uint8 .* got float32 of shape \(4, 4, 3\)"),
        ([(np.zeros((3, 4, 5), np.uint8), 0)], r"got uint8 of shape \(3, 4, 5\)"),
        ([(np.zeros((0, 4, 3), np.uint8), 0)], "has no pixels"),
        ([PAIRS[0], (PAIRS[1][0], 1.5)], "item 1: a label must be a class index, a class name or None, got 1.5"),
        ([(PAIRS[0][0], True)], "got True"),
        ([(PAIRS[0][0], -3)], "got -3"),
        ([(PAIRS[0][0], 10**9)], "larger than 999999"),
        ([(PAIRS[0][0], 0), (PAIRS[1][0], "cat")], "labels are numbers and names"),
        ([{"label": 3}], "item 0: has no image"),
        ([(1, 2, 3)], "got 3 values"),
        ([{"image": PAIRS[0][0], "key": "a"}, {"image": PAIRS[1][0], "key": "a"}], "item 1: key 'a' was given before"),
        ({"train": [{"image": PAIRS[0][0], "key": "a"}], "val": [{"image": PAIRS[1][0], "key": "a"}]}, "item 0 of val"),
        ([{"image": PAIRS[0][0], "key": 3}], "a key must be a text, got 3"),
        ([{"image": PAIRS[0][0], "split": ""}], "a split must be a word"),
        ([{"image": PAIRS[0][0], "label": 0, "when": object()}], "columns when must be JSON values"),
        ([(Image.new("F", (4, 4)), 0)], "PIL image of mode F"),
    ],
)
def test_what_is_no_sample_is_one_clear_error_and_leaves_nothing(tmp_path, dataset, message):
    with pytest.raises(imgdata.SourceError, match=message):
        imgdata.shard(dataset, tmp_path / "o")
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_is_told_the_way(tmp_path):
    torch = pytest.importorskip("torch")
    with pytest.raises(imgdata.SourceError, match=r"permute\(1, 2, 0\)\.numpy\(\)"):
        imgdata.shard([(torch.zeros(3, 4, 5), 0)], tmp_path / "o")


def test_labels_beyond_the_classes_are_refused(tmp_path):
    with (
        pytest.raises(imgdata.SourceError, match="label 2 is none of the 2 classes, such as a, b"),
        imgdata.Writer(tmp_path / "o", classes=["a", "b"]) as writer,
    ):
        writer.write(PAIRS[0][0], 2)
    with pytest.raises(imgdata.OptionError, match="inside the block"):
        imgdata.Writer(tmp_path / "o").write(PAIRS[0][0])


def test_keywords_are_the_options_of_the_command(tmp_path):
    raw = class_folders(tmp_path / "pets", {"": 6})
    flat = imgdata.shard(
        raw,
        tmp_path / "a",
        resize=24,
        split={"train": 0.5, "val": 0.5},
        classes="cat,dog",
        shard_size="20KB",
        quality=80,
    )
    options = ShardOptions(
        encoding=Encoding(resize=24, quality=80),
        split={"train": 0.5, "val": 0.5},
        classes=("cat", "dog"),
        shard_bytes=20_000,
    )
    imgdata.shard(raw, tmp_path / "b", options)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert flat.splits.keys() == {"train", "val"}
    plan = imgdata.plan_shards(raw, split="train=0.5,val=0.5", shard_samples=2, kind="folder")
    assert plan["splits"]["train"]["shards"] == 5


def test_every_option_is_a_keyword():
    fields = {
        field.name for one in (ShardOptions, Encoding, imgdata.SourceOptions) for field in dataclasses.fields(one)
    }
    assert set(ShardKeywords.__annotations__) == fields - {"encoding"} | {"shard_size"}


def test_a_pattern_as_keyword_leaves_names_out(tmp_path):
    raw = class_folders(tmp_path / "pets", {"": 2})
    assert imgdata.shard(raw, tmp_path / "o", exclude="cat/*", class_order="text").samples == 4


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"resise": 3}, "unknown keyword 'resise'; near: resize"),
        ({"resize": 3, "options": ShardOptions()}, "either options objects or keywords"),
        ({"shard_size": "big"}, "'big' is not a size"),
        ({"resize": "3"}, "resize|wrong type"),
    ],
)
def test_keywords_without_a_meaning_are_refused(tmp_path, keywords, message):
    with pytest.raises(imgdata.OptionError, match=message):
        imgdata.shard(class_folders(tmp_path / "in", {"": 1}), tmp_path / "o", **keywords)
    assert not (tmp_path / "o").exists()
