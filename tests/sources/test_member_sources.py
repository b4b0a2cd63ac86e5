"""Masks and other further images in tables, Parquet, Arrow, tars and Python objects; boxes of COCO."""

import csv
import io
import json

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torchvision
from click.testing import CliRunner
from imgdata_cli.commands.shard import command as shard_command
from PIL import Image

import imgdata
from imgdata.dataset.members import Member
from imgdata.errors import OptionError, SourceError
from support.masks import image_folder, numbers, png
from support.rawdata import class_folders, encoded, picture
from support.tars import write_tar

SIZE = (64, 48)
MASKS = [png(numbers(seed), "P" if seed % 2 else None) for seed in range(5)]
IMAGES = [encoded(seed) for seed in range(5)]
MASK = (Member(name="mask", kind="mask"),)


@pytest.fixture(autouse=True)
def quiet():
    datasets.disable_progress_bars()


def stored(out, name="mask", split="train"):
    return [sample.members.get(name) for sample in imgdata.open(out)[split]]


def table(root, rows, **files):
    root.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        path = root / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    with open(root / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "truth"], *rows])
    return root


def test_a_column_of_a_table_names_the_masks(tmp_path):
    rows = [["images/a.jpg", "cat", "truth/a.png"], ["images/b.jpg", "dog", "truth/b.png"]]
    files = {"images__a_jpg": IMAGES[0], "images__b_jpg": IMAGES[1], "truth__a_png": MASKS[0], "truth__b_png": MASKS[1]}
    root = table(tmp_path / "raw", rows, **files)
    summary = imgdata.shard(root, tmp_path / "out", mask_column="truth", shuffle=False)
    assert stored(tmp_path / "out") == MASKS[:2]
    assert imgdata.open(tmp_path / "out")["train"][0].fields == {}
    assert "images that the table doesn't name" not in summary.skipped


def test_a_mask_that_a_table_names_and_that_is_not_there_rejects_its_sample(tmp_path):
    rows = [["a.jpg", "cat", "m/a.png"], ["b.jpg", "dog", "m/gone.png"], ["c.jpg", "dog", ""]]
    files = {"a_jpg": IMAGES[0], "b_jpg": IMAGES[1], "c_jpg": IMAGES[2], "m__a_png": MASKS[0]}
    summary = imgdata.shard(table(tmp_path / "raw", rows, **files), tmp_path / "out", mask_column="truth")
    assert dict(summary.rejected) == {"mask-missing": 2}
    with pytest.raises(SourceError, match=r"no column 'mask' \(--mask-column\); it has: path, label, truth"):
        imgdata.shard(tmp_path / "raw", tmp_path / "other", mask_column="mask")


def parquet(path, **columns):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    arrays = {
        name: pa.array([{"bytes": one, "path": None} for one in values], kind)
        if isinstance(values[0], bytes)
        else values
        for name, values in columns.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(arrays), path, row_group_size=2)
    return path


@pytest.mark.parametrize(
    ("columns", "options", "members"),
    [
        ({"image": IMAGES, "annotation": MASKS}, {}, (Member(name="annotation", kind="mask"),)),
        # As datasets for segmentation call it.
        ({"pixel_values": IMAGES, "label": MASKS}, {}, MASK),
        ({"image": IMAGES, "truth": MASKS}, {"mask_column": "truth"}, MASK),
        ({"image": IMAGES, "right": IMAGES, "n": list(range(5))}, {}, (Member(name="right", kind="image"),)),
        # A thumbnail has another size.
        ({"image": IMAGES, "thumb": [encoded(9, (8, 8))] * 5, "n": list(range(5))}, {}, ()),
    ],
)
def test_a_second_column_of_images_in_parquet_is_a_further_image(tmp_path, columns, options, members):
    imgdata.shard(parquet(tmp_path / "x" / "train.parquet", **columns), tmp_path / "out", shuffle=False, **options)
    dataset = imgdata.open(tmp_path / "out")
    assert dataset.members == members
    assert [sample.image for sample in dataset["train"]] == IMAGES
    for member in members:
        assert stored(tmp_path / "out", member.name) == list(columns.values())[1]
    warnings = dataset.manifest.source["warnings"]
    assert ("column thumb holds bytes and is left out" in warnings) == ("thumb" in columns)


def test_parquet_files_of_several_splits_have_their_own_masks(tmp_path, monkeypatch):
    for split, kept in (("train", slice(0, 3)), ("test", slice(3, 5))):
        parquet(tmp_path / "raw" / f"{split}.parquet", image=IMAGES[kept], mask=MASKS[kept])
    # As large files are: all images are copied out first.
    monkeypatch.setattr("imgdata.shards.begun.SPOOL_BYTES", 0)
    imgdata.shard(tmp_path / "raw", tmp_path / "out", shuffle=False)
    assert stored(tmp_path / "out") == MASKS[:3]
    assert stored(tmp_path / "out", split="test") == MASKS[3:]


def test_a_column_that_holds_no_masks_is_refused(tmp_path):
    file = parquet(tmp_path / "train.parquet", image=IMAGES, n=list(range(5)))
    with pytest.raises(SourceError, match=r"no column 'n' of encoded masks \(--mask-column\); there are image"):
        imgdata.shard(file, tmp_path / "out", mask_column="n")


def hugging_face():
    return datasets.Dataset.from_dict(
        {"image": [{"bytes": one} for one in IMAGES], "annotation": [{"bytes": one} for one in MASKS]},
        features=datasets.Features({"image": datasets.Image(), "annotation": datasets.Image()}),
    )


def test_datasets_of_hugging_face_have_their_masks_saved_or_in_memory(tmp_path):
    hugging_face().save_to_disk(tmp_path / "saved", num_shards=2)
    imgdata.shard(tmp_path / "saved", tmp_path / "one", shuffle=False)
    imgdata.shard(hugging_face(), tmp_path / "two", shuffle=False)
    assert stored(tmp_path / "one", "annotation") == stored(tmp_path / "two", "annotation") == MASKS
    assert imgdata.open(tmp_path / "one").members == (Member(name="annotation", kind="mask"),)


@pytest.mark.parametrize("read", ["index", "shard"])
def test_tars_of_others_have_masks_beside_their_pictures(tmp_path, read):
    files = []
    for number in range(4):
        files += [(f"{number}.jpg", IMAGES[number]), (f"{number}.cls", b"0")]
        files += [(f"{number}.seg.png", MASKS[number]), (f"{number}.right.jpg", IMAGES[4])]
        files += [(f"{number}.thumb.jpg", encoded(9, (8, 8)))]
    write_tar(tmp_path / "raw" / "x-0.tar", files[:10])
    write_tar(tmp_path / "raw" / "x-1.tar", files[10:])
    out = tmp_path / "raw" if read == "index" else tmp_path / "out"
    if read == "index":
        imgdata.index(out)
    else:
        imgdata.shard(tmp_path / "raw", out, shuffle=False)
    dataset = imgdata.open(out)
    assert dataset.members == (Member(name="right", kind="image"), Member(name="seg", kind="mask"))
    assert stored(out, "seg") == MASKS[:4]
    assert stored(out, "right") == [IMAGES[4]] * 4
    assert [sample.image for sample in dataset["train"]] == IMAGES[:4]
    assert "4 samples have several images (jpg, " in " ".join(dataset.manifest.source["warnings"])
    assert imgdata.verify(out, deep=True) == []


def test_an_index_that_is_built_anew_knows_what_the_images_were(tmp_path):
    with imgdata.Writer(tmp_path) as writer:
        for number in range(3):
            members = {"scribbles_mask": numbers(number), **({"depth": numbers(9)} if number else {})}
            writer.write(IMAGES[number], members=members) if number else writer.write(IMAGES[0], members=members)
    # Two of the three have depth, so that the first was rejected.
    before = imgdata.open(tmp_path)
    assert len(before["train"]) == 2
    rows = before["train"].index.column("mask_offset" if "mask" in before["train"].index.members else "depth_offset")
    imgdata.index(tmp_path)
    again = imgdata.open(tmp_path)
    assert again.members == before.members
    assert again["train"].index.column("depth_offset").to_pylist() == rows.to_pylist()
    assert imgdata.verify(tmp_path, deep=True) == []


def test_a_tar_of_which_only_some_samples_have_masks_is_indexed_as_it_is(tmp_path):
    write_tar(tmp_path / "x-0.tar", [("a.jpg", IMAGES[0]), ("b.jpg", IMAGES[1]), ("b.mask.png", MASKS[1])])
    write_tar(tmp_path / "x-1.tar", [("c.jpg", IMAGES[2]), ("c.cls", b"0")])
    imgdata.index(tmp_path)
    assert stored(tmp_path) == [None, MASKS[1], None]
    assert imgdata.inspect(tmp_path).splits["train"].members == {"mask": {"png": 1}}
    assert imgdata.verify(tmp_path, deep=True) == []


OBJECTS = {
    "array": numbers(1),
    "array of 16 bits": numbers(1, most=3000, dtype=np.uint16),
    "array of int64": numbers(1).astype(np.int64),
    "truths": numbers(1) > 9,
    "PIL P": Image.open(io.BytesIO(MASKS[1])),
    "PIL L": Image.fromarray(numbers(1)),
    "bytes": MASKS[1],
    "undecoded": {"bytes": MASKS[1], "path": None},
}


@pytest.mark.parametrize("mask", OBJECTS.values(), ids=OBJECTS)
def test_python_objects_bring_masks(tmp_path, mask):
    imgdata.shard([{"image": picture(1), "mask": mask, "n": 3}], tmp_path / "out")
    (sample,) = imgdata.open(tmp_path / "out")["train"]
    expected = np.asarray(mask) if isinstance(mask, np.ndarray) else numbers(1)
    assert np.array_equal(sample.array_of("mask"), expected)
    assert sample.fields["n"] == 3


@pytest.mark.parametrize("image", [picture(1), np.asarray(picture(1))], ids=["PIL", "array"])
def test_arrays_of_the_pictures_size_are_images_by_any_name(tmp_path, image):
    right, thermal = np.asarray(picture(2)), numbers(3, most=60000, dtype=np.uint16)
    code = np.arange(12, dtype=np.uint8).reshape(3, 4)
    imgdata.shard([{"image": image, "right": right, "thermal": thermal, "code": code}], tmp_path / "out")
    (sample,) = imgdata.open(tmp_path / "out")["train"]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(sample.members["right"]))), right)
    assert np.array_equal(sample.array_of("thermal"), thermal)
    assert sample.fields["code"] == code.tolist()
    assert not {"right", "thermal"} & sample.fields.keys()


def test_mappings_may_have_members_as_a_writer_takes_them_and_masks_that_are_none(tmp_path):
    items = [{"image": picture(1), "members": {"depth": numbers(1)}, "mask": None}, {"image": picture(2), "members": 7}]
    imgdata.shard({"train": items[:1], "val": items[1:]}, tmp_path / "out")
    dataset = imgdata.open(tmp_path / "out")
    assert np.array_equal(dataset["train"][0].array_of("depth"), numbers(1))
    assert not {"members", "mask"} & dataset["train"][0].fields.keys()
    assert dataset["val"][0].fields["members"] == 7


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mask", r"mask must be an array of whole numbers of shape \(H, W\), got float32"),
        ("depth", r"depth must be an array of uint8 .* got float32 of shape \(48, 64\); scale floats"),
    ],
)
def test_floats_that_are_called_a_mask_or_depth_are_refused(tmp_path, name, message):
    with pytest.raises(SourceError, match=message):
        imgdata.shard([{"image": picture(1), name: numbers(1).astype(np.float32)}], tmp_path / "out")


def test_pairs_of_pictures_and_masks_are_no_labels(tmp_path):
    class Pets(torchvision.datasets.VisionDataset):
        def __len__(self):
            return 3

        def __getitem__(self, number):
            return picture(number), Image.fromarray(numbers(number))

    imgdata.shard(Pets("nowhere"), tmp_path / "out", shuffle=False)
    found = imgdata.open(tmp_path / "out")["train"]
    assert [sample.label for sample in found] == [-1, -1, -1]
    assert all(np.array_equal(sample.array_of("mask"), numbers(i)) for i, sample in enumerate(found))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"mask": numbers(1).astype(np.int32) - 1}, "numbers of a mask must be 0 to 65535, got -1 to"),
        ({"mask": numbers(1) / 2}, r"mask must be an array of whole numbers of shape \(H, W\), got float64"),
        ({"mask": picture(1)}, "mask must be a PIL image of mode 1, L, P, I or I;16, .* got mode RGB"),
        ({"Depth map": numbers(1)}, "must be called by a word of lower-case letters, digits and '_'"),
        ({"mask": 3}, "mask: an image must be a PIL image"),
    ],
)
def test_what_is_no_mask_is_refused_with_its_sample(tmp_path, members, message):
    good = {"image": picture(0), "mask": numbers(0)}
    with imgdata.Writer(tmp_path / "out") as writer:
        writer.write(**good)
        with pytest.raises(SourceError, match=f"sample 1: .*{message}"):
            writer.write(picture(1), members=members)
    # The other one is written, with what it had.
    assert [sample.key for sample in imgdata.open(tmp_path / "out")["train"]] == ["00000000"]


def test_a_named_folder_of_masks_goes_through_the_command(tmp_path):
    raw = class_folders(tmp_path / "raw", {"": 2}, ("cat", "dog"))
    for file in raw.rglob("*.jpg"):
        target = tmp_path / "truth" / file.relative_to(raw).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(file) as image:
            target.write_bytes(png(numbers(1, image.size)))
    arguments = [str(raw), str(tmp_path / "out"), "--masks", str(tmp_path / "truth"), "--quiet"]
    result = CliRunner().invoke(shard_command, arguments)
    assert result.exit_code == 0, result.output
    assert len([mask for mask in stored(tmp_path / "out") if mask]) == 4


def test_masks_in_parquet_are_left_out_in_place_with_a_note(tmp_path):
    table = pa.table({"image": IMAGES[:2], "mask": MASKS[:2], "label": [0, 1]})
    (tmp_path / "raw").mkdir()
    pq.write_table(table, tmp_path / "raw" / "train-00000-of-00001.parquet")
    opened = imgdata.open(tmp_path / "raw")
    assert [sample.members for sample in opened["train"]] == [{}, {}]
    assert any("further images (mask) are left out" in text for text in opened.manifest.source["warnings"])


CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person", "keypoints": ["nose", "eye"]}]
BOXES = [
    {"id": 5, "image_id": 1, "category_id": 18, "bbox": [236.98, 142.51, 24.7, 69.5], "area": 100.5, "iscrowd": 0},
    {"id": 4, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 1},
]


def coco(root, **files):
    (root / "annotations").mkdir(parents=True)
    (root / "train2017").mkdir()
    for number in (1, 2):
        (root / "train2017" / f"{number}.jpg").write_bytes(IMAGES[number])
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in (1, 2)]
    for kind, annotations in files.items():
        content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
        (root / "annotations" / f"{kind}_train2017.json").write_text(json.dumps(content))
    return root


def test_boxes_of_coco_are_corners_and_class_indices(tmp_path):
    keypoints = [{**BOXES[1], "keypoints": [1, 2, 2, 3.5, 4, 1], "num_keypoints": 2}]
    root = coco(tmp_path / "raw", instances=BOXES, person_keypoints=keypoints)
    imgdata.shard(root, tmp_path / "out", target="boxes", shuffle=False)
    dataset = imgdata.open(tmp_path / "out")
    first, second = (sample.fields for sample in dataset["train"])
    assert first == {
        "source": "train2017/1.jpg",
        "width": 64,
        "height": 48,
        "image_id": 1,
        "labels": ["person", "dog"],
        "boxes": [[1, 2, 4, 6], [236.98, 142.51, 261.68, 212.01]],
        "box_labels": [0, 1],
        "areas": [12, 100.5],
        "iscrowd": [1, 0],
        # An object that is no person has zeros.
        "keypoints": [[[1, 2, 2], [3.5, 4, 1]], [[0, 0, 0], [0, 0, 0]]],
    }
    assert (second["boxes"], second["box_labels"], second["keypoints"]) == ([], [], [])
    assert [one.id for one in dataset.classes] == ["person", "dog"]
    assert dataset.target.kind == "none"
    assert dataset["train"].columns.values("boxes", np.arange(2)) == [first["boxes"], []]


def test_boxes_do_not_stay_where_pictures_are_resized(tmp_path):
    root = coco(tmp_path / "raw", instances=BOXES)
    summary = imgdata.shard(root, tmp_path / "out", resize=24, shuffle=False)
    assert "boxes and keypoints are left out, since pictures are resized; the loader resizes both" in summary.warnings
    fields = imgdata.open(tmp_path / "out")["train"][0].fields
    assert (fields["labels"], fields["image_id"], fields.keys() & {"boxes", "areas"}) == (["person", "dog"], 1, set())
    with pytest.raises(OptionError, match="resize: boxes are in the pixels of the pictures as they are"):
        imgdata.shard(root, tmp_path / "other", resize=24, target="boxes")


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"bbox": [1, 2, 3]}, r"bbox of annotation 4 must be \[x, y, width, height\], got \[1, 2, 3\]"),
        ({"bbox": [1, 2, -3, 4]}, "bbox of annotation 4 must be"),
        ({"bbox": [1, 2, "nan", 4]}, "numbers must be finite"),
        ({"keypoints": [1, 2]}, "keypoints of annotation 4 must be x, y and visibility, got 2 numbers"),
        ({"category_id": 3}, "KeyError: 3"),
    ],
)
def test_annotations_that_can_not_be_are_one_error(tmp_path, annotation, message):
    with pytest.raises(SourceError, match=message):
        imgdata.shard(coco(tmp_path / "raw", instances=[{**BOXES[1], **annotation}]), tmp_path / "out")


def test_some_annotations_without_a_box_are_one_error(tmp_path):
    without = {name: value for name, value in BOXES[0].items() if name != "bbox"}
    with pytest.raises(SourceError, match="some annotations have no bbox"):
        imgdata.shard(coco(tmp_path / "raw", instances=[without, BOXES[1]]), tmp_path / "out")


def test_boxes_that_are_not_there_are_no_target(tmp_path):
    with pytest.raises(OptionError, match="target 'boxes' needs samples with boxes"):
        imgdata.shard(image_folder(tmp_path / "raw", {"train": 2}), tmp_path / "out", target="boxes")
