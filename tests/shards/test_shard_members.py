"""Further images in shards: what is stored, which are rejected, and what verify, export and index make of them."""

import io
import json
import re
import struct
import warnings
import zlib

import datasets
import numpy as np
import pytest
from PIL import Image

import imgdata
from imgdata.images.masks import moved_numbers
from support.masks import image_folder, numbers, png, write_dataset
from support.pictures import exif, with_segment
from support.rawdata import encoded, picture
from support.tars import flip, webdataset_samples, write_tar

SIZE = (64, 48)
MASK = numbers(1)


def pair(root, picture_data, mask_data, name="a", mask_ending="png"):
    """One picture, one mask; no bytes for a mask that is not there."""
    for folder, ending, data in (("images", "jpg", picture_data), ("masks", mask_ending, mask_data)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        if data:
            (root / folder / f"{name}.{ending}").write_bytes(data)


def only(out):
    (sample,) = imgdata.open(out)["train"]
    return sample


def test_masks_in_png_keep_their_bytes_and_webdataset_reads_them(tmp_path):
    root = image_folder(tmp_path / "raw", {"train": 3, "val": 2})
    imgdata.shard(root, tmp_path / "out", shuffle=False)
    dataset = imgdata.open(tmp_path / "out")
    for name, split in dataset.items():
        files = sorted((root / "masks" / name).iterdir())
        assert [sample.members["mask"] for sample in split] == [file.read_bytes() for file in files]
        assert [one["mask.png"] for one in webdataset_samples(split.shards)] == [file.read_bytes() for file in files]
    assert imgdata.verify(tmp_path / "out", deep=True) == []


@pytest.mark.parametrize(
    ("mask", "ending"),
    [
        (Image.fromarray(MASK), "bmp"),
        (Image.fromarray(MASK), "tif"),
        (Image.fromarray(MASK.astype(np.uint16) * 2000), "tif"),
        (Image.fromarray(MASK).convert("RGB"), "png"),
        (Image.fromarray(MASK > 10), "png"),
    ],
    ids=["BMP", "TIFF", "TIFF of 16 bits", "gray in RGB", "1 bit"],
)
def test_masks_in_other_forms_become_png_of_the_same_numbers(tmp_path, mask, ending):
    file = tmp_path / f"mask.{ending}"
    mask.save(file)
    pair(tmp_path / "raw", encoded(1), file.read_bytes(), mask_ending=ending)
    imgdata.shard(tmp_path / "raw", tmp_path / "out")
    expected = np.asarray(mask)[..., 0] if mask.mode == "RGB" else np.asarray(mask)
    assert np.array_equal(only(tmp_path / "out").array_of("mask"), expected)
    assert imgdata.open(tmp_path / "out")["train"].index.words("mask_format") == ["png"]


@pytest.mark.parametrize(
    ("mask", "reason", "detail"),
    [
        (b"", "mask-missing", "its mask: there is none, though others of the split have one"),
        (b"no image", "mask-not-an-image", r"its mask masks/a\.png: looks like text"),
        (png(MASK)[:-40], "mask-truncated", r"its mask masks/a\.png: "),
        (png(numbers(1, (32, 48))), "mask-size", "32 x 48 pixels, the picture has 64 x 48; make both of one size"),
        (encoded(2), "mask-unsupported", "jpeg changes the numbers of pixels"),
        (encoded(2, format="PNG"), "mask-unsupported", "must have one number for each pixel, got colours"),
    ],
)
def test_a_sample_whose_mask_can_not_be_used_is_rejected_and_counted(tmp_path, mask, reason, detail):
    pair(tmp_path / "raw", encoded(1), mask)
    pair(tmp_path / "raw", encoded(2), png(numbers(2)), "b")
    summary = imgdata.shard(tmp_path / "raw", tmp_path / "out")
    assert (summary.samples, dict(summary.rejected)) == (1, {reason: 1})
    (line,) = (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()
    reject = json.loads(line)
    assert reject["source"] == "images/a.jpg"
    assert re.search(detail, reject["detail"])
    with pytest.raises(imgdata.ImageError, match=reason):
        imgdata.shard(tmp_path / "raw", tmp_path / "other", on_bad="fail")


def test_without_a_check_samples_keep_what_they_have(tmp_path):
    pair(tmp_path / "raw", encoded(1), b"")
    pair(tmp_path / "raw", encoded(2), png(numbers(2, (32, 48))), "b")
    pair(tmp_path / "raw", encoded(3), b"no image", "c")
    imgdata.shard(tmp_path / "raw", tmp_path / "out", check="none", shuffle=False)
    split = imgdata.open(tmp_path / "out")["train"]
    assert [sample.members.get("mask", b"") for sample in split] == [b"", png(numbers(2, (32, 48))), b"no image"]
    assert [split.index.words("mask_format")[code] for code in split.index.array("mask_format")] == [
        "",
        "png",
        "unknown",
    ]
    assert split.read_member(0, "mask") == b""


def test_a_split_without_any_masks_stays_without(tmp_path):
    root = image_folder(tmp_path / "raw", {"train": 2, "test": 2})
    for file in (root / "masks" / "test").iterdir():
        file.unlink()
    summary = imgdata.shard(root, tmp_path / "out")
    assert summary.samples == 4
    assert any("split test has no masks" in text for text in summary.warnings)
    assert [sample.members for sample in imgdata.open(tmp_path / "out")["test"]] == [{}, {}]


@pytest.mark.parametrize("resize", [24, 96])
def test_masks_are_resized_with_their_pictures_by_the_nearest_pixel(tmp_path, resize):
    pair(tmp_path / "raw", encoded(1), png(MASK, "P"))
    imgdata.shard(tmp_path / "raw", tmp_path / "out", resize=resize, upscale=True)
    sample = only(tmp_path / "out")
    size = (resize * 4 // 3, resize)
    assert sample.pil().size == size
    assert np.array_equal(sample.array_of("mask"), moved_numbers(MASK, 1, size))
    assert set(np.unique(sample.array_of("mask"))) <= set(np.unique(MASK))


def test_depth_keeps_16_bits_and_pictures_are_resized_as_pictures(tmp_path):
    depth = numbers(3, most=60000, dtype=np.uint16)
    with imgdata.Writer(tmp_path / "out", resize=24) as writer:
        writer.write(encoded(1), members={"depth": depth, "right": picture(2)})
    sample = only(tmp_path / "out")
    assert np.array_equal(sample.array_of("depth"), moved_numbers(depth, 1, (32, 24)))
    assert imgdata.open(tmp_path / "out").members[1].kind == "image"
    with Image.open(io.BytesIO(sample.members["right"])) as right:
        assert (right.size, right.mode) == ((32, 24), "RGB")


def turned(orientation):
    return with_segment(encoded(1), 0xE1, exif(orientation))


@pytest.mark.parametrize("orientation", range(2, 9))
def test_masks_become_upright_with_their_pictures(tmp_path, orientation):
    pair(tmp_path / "raw", turned(orientation), png(MASK))
    imgdata.shard(tmp_path / "raw", tmp_path / "kept")
    assert np.array_equal(only(tmp_path / "kept").array_of("mask"), MASK)
    imgdata.shard(tmp_path / "raw", tmp_path / "upright", on_bad="repair")
    sample = only(tmp_path / "upright")
    found = sample.array_of("mask")
    assert found.shape[::-1] == sample.pil().size
    assert np.array_equal(found, moved_numbers(MASK, orientation, sample.pil().size))


def test_a_mask_that_was_drawn_on_the_upright_picture_fits_that_alone(tmp_path):
    upright = numbers(2, SIZE[::-1])
    pair(tmp_path / "raw", turned(6), png(upright))
    pair(tmp_path / "raw", encoded(2), png(MASK), "b")
    summary = imgdata.shard(tmp_path / "raw", tmp_path / "kept")
    assert dict(summary.rejected) == {"mask-size": 1}
    assert "--on-bad repair" in (tmp_path / "kept" / "rejects.jsonl").read_text()
    imgdata.shard(tmp_path / "raw", tmp_path / "upright", on_bad="repair", shuffle=False)
    assert np.array_equal(imgdata.open(tmp_path / "upright")["train"][0].array_of("mask"), upright)


def test_crop_ready_shards_have_their_masks_untouched(tmp_path):
    pytest.importorskip("imgdata.native._compiled")
    root = image_folder(tmp_path / "raw", {"train": 3})
    imgdata.shard(root, tmp_path / "out", crop_ready=True, shuffle=False)
    files = sorted((root / "masks" / "train").iterdir())
    split = imgdata.open(tmp_path / "out")["train"]
    assert [sample.members["mask"] for sample in split] == [file.read_bytes() for file in files]
    assert split.index.has_crop_ready


def test_the_bytes_do_not_depend_on_workers_and_a_finished_dataset_is_found(tmp_path):
    root = image_folder(tmp_path / "raw", {"train": 9})
    for workers in (1, 3):
        imgdata.shard(root, tmp_path / str(workers), name="x", workers=workers, shard_samples=2)
    first, second = ({file.name: file.read_bytes() for file in (tmp_path / n).iterdir()} for n in "13")
    assert first == second
    assert imgdata.shard(root, tmp_path / "1", name="x", shard_samples=2).already_complete


def test_a_mask_that_has_changed_since_is_another_source(tmp_path):
    root = image_folder(tmp_path / "raw", {"train": 3})
    imgdata.shard(root, tmp_path / "out")
    mask = root / "masks" / "train" / "001.png"
    data = mask.read_bytes()
    with Image.open(mask) as image:
        size = image.size
    # Other numbers in a file of the same size, as a brush may leave.
    palette = bytearray(data)
    at = palette.index(b"PLTE") + 4
    palette[at] ^= 1
    end = at + 768
    palette[end : end + 4] = struct.pack(">I", zlib.crc32(bytes(palette[at - 4 : end])))
    mask.write_bytes(bytes(palette))
    assert size[0] > 0
    with pytest.raises(imgdata.OutputError, match="1 image of the source had other bytes"):
        imgdata.shard(root, tmp_path / "out")


def test_verify_names_the_mask_that_differs(tmp_path):
    write_dataset(tmp_path / "out", 3)
    split = imgdata.open(tmp_path / "out")["train"]
    offset = int(split.index.array("mask_offset")[1])
    flip(split.shards[0], offset + 60)
    faults = imgdata.verify(tmp_path / "out")
    assert [str(fault) for fault in faults] == [
        f"out-train-000000.tar byte {offset} key 00000001: mask differs from the one indexed"
    ]
    with pytest.raises(imgdata.ShardError, match=r"00000001 \(mask\) at byte .* differs from the index"):
        imgdata.export(tmp_path / "out", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_verify_finds_masks_of_another_size_and_those_that_are_none(tmp_path):
    files = [("a.jpg", encoded(1)), ("a.mask.png", png(MASK)), ("b.jpg", encoded(2)), ("b.mask.png", png(MASK[:40]))]
    write_tar(tmp_path / "x.tar", [*files, ("c.jpg", encoded(3)), ("c.mask.png", encoded(3, format="PNG"))])
    imgdata.index(tmp_path)
    assert imgdata.verify(tmp_path) == []
    what = [fault.what for fault in imgdata.verify(tmp_path, deep=True)]
    assert what == [
        "mask has 64 x 40 pixels, the picture 64 x 48",
        "mask can't be decoded: unsupported: a mask must be gray, or have a palette, got RGB",
    ]


def test_an_export_of_unlabelled_pictures_is_a_pair_of_folders_again(tmp_path):
    root = image_folder(tmp_path / "raw", {"train": 3, "val": 2})
    imgdata.shard(root, tmp_path / "out")
    imgdata.export(tmp_path / "out", tmp_path / "back")
    names = lambda top: {str(file.relative_to(top)): file.read_bytes() for file in top.rglob("*.*")}  # noqa: E731
    assert names(tmp_path / "back") == names(root)


def test_an_export_of_classes_has_masks_in_a_tree_of_the_same_shape(tmp_path):
    masks = write_dataset(tmp_path / "out", 4)
    imgdata.export(tmp_path / "out", tmp_path / "back")
    imgdata.shard(tmp_path / "back", tmp_path / "again", masks=tmp_path / "back" / "masks", shuffle=False)
    again = imgdata.open(tmp_path / "again")["train"]
    assert sorted(sample.array_of("mask").tolist() for sample in again) == sorted(mask.tolist() for mask in masks)
    assert sorted(sample.label for sample in again) == [0, 0, 1, 1]


def test_shards_are_sharded_again_with_their_masks_and_as_views(tmp_path):
    masks = write_dataset(tmp_path / "out", 6)
    imgdata.shard(tmp_path / "out", tmp_path / "again", shuffle=False)
    again = imgdata.open(tmp_path / "again")
    assert again.members == imgdata.open(tmp_path / "out").members
    assert all(np.array_equal(one.array_of("mask"), mask) for one, mask in zip(again["train"], masks, strict=True))
    imgdata.shard(tmp_path / "out", tmp_path / "some", views=["where class in 1"], shuffle=False)
    some = imgdata.open(tmp_path / "some")["train"]
    assert all(np.array_equal(one.array_of("mask"), mask) for one, mask in zip(some, masks[1::2], strict=True))


def test_inspect_counts_masks(tmp_path):
    write_dataset(tmp_path / "out", 3)
    summary = imgdata.inspect(tmp_path / "out")
    assert summary.members == {"mask": "mask"}
    assert summary.splits["train"].members == {"mask": {"png": 3}}
    assert "mask  3 of 3: png 3" in str(summary)


def test_the_card_says_what_the_masks_are(tmp_path):
    write_dataset(tmp_path / "out", 3)
    text = (tmp_path / "out" / "README.md").read_text()
    assert "`mask`, of the same size" in text
    assert "`KEY.mask.*` is its mask" in text


def test_other_readers_find_pictures_and_masks(tmp_path, monkeypatch):
    mlcroissant = pytest.importorskip("mlcroissant")
    epath = pytest.importorskip("etils.epath")
    with imgdata.Writer(tmp_path / "out", shuffle=False) as writer:
        for number, key in enumerate(("a", "ab/c", "deep/er/0001")):
            writer.write(encoded(number, format="PNG"), number, key=key, mask=numbers(number))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        monkeypatch.setattr(
            "mlcroissant._src.operation_graph.operations.extract.EXTRACT_PATH", epath.Path(tmp_path / "extracted")
        )
        records = list(mlcroissant.Dataset(jsonld=str(tmp_path / "out" / "croissant.json")).records("train"))
        assert [record["train/key"].decode() for record in records] == ["a", "ab/c", "deep/er/0001"]
        datasets.disable_progress_bars()
        files = {"train": str(tmp_path / "out" / "out-train-*.tar")}
        found = datasets.load_dataset("webdataset", data_files=files, cache_dir=str(tmp_path / "cache"))["train"]
    assert [np.asarray(row["mask.png"]).tolist() for row in found] == [numbers(number).tolist() for number in range(3)]


def test_parts_on_several_machines_write_the_same_bytes(tmp_path):
    root = image_folder(tmp_path / "raw", {"train": 7, "val": 2, "test": 2})
    for file in (root / "masks" / "test").iterdir():
        file.unlink()
    (root / "masks" / "train" / "003.png").unlink()
    imgdata.shard(root, tmp_path / "whole", name="x", shard_samples=2)
    imgdata.begin_parts(root, tmp_path / "parts", name="x", shard_samples=2, workers=1)
    for part in range(2):
        imgdata.write_part(tmp_path / "parts", part, 2, workers=1)
    assert dict(imgdata.finish_parts(tmp_path / "parts").rejected) == {"mask-missing": 1}
    first, second = (
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("whole", "parts")
    )
    assert first == second
