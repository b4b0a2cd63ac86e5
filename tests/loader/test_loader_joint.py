"""Masks, further images, boxes and keypoints move exactly as their pictures do, on every backend."""

import json
import pickle
import warnings

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

import imgdata
from imgdata import BadImageWarning, ImageError, OptionError
from imgdata.backends.joint import batch as joint_batch
from imgdata.backends.joint import pixels
from imgdata.recipes import (
    Affine,
    AugMix,
    CenterCrop,
    ColorJitter,
    CutMix,
    HorizontalFlip,
    MixUp,
    Normalize,
    PadRandomCrop,
    RandomApply,
    RandomErasing,
    Recipe,
    Resize,
    Rotate,
    VerticalFlip,
    views,
)
from support.joint import HEIGHT, SAMPLES, STEP, dataset, encoded, fields, numbers, parts, width
from support.loaders import TRAIN, recipe_for
from support.remote_servers import web_server

ALL = ["mask", "depth", "boxes", "keypoints"]
FLIPS = (HorizontalFlip(), VerticalFlip())
CUT = Recipe(CenterCrop((40, 40)), *FLIPS)
"""Nothing is resized, so that each pixel can be compared."""
WHOLE = Recipe(Resize((HEIGHT, 60)))


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("masked"))


def loader(data, **options):
    return imgdata.Loader(data, **{**TRAIN, "joint": ["mask"], **options})


def shown(images):
    """The classes that pictures show, `(N, H, W)`."""
    return (images[:, 0].float() / STEP).round().to(torch.uint8)


def taken(batches, names=("mask",)):
    """What every batch has, copied."""
    return [
        (batch.positions.tolist(), batch.images.numpy().copy(), [batch.columns[name].numpy().copy() for name in names])
        for batch in batches
    ]


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one[0] == other[0]
        assert np.array_equal(one[1], other[1])
        assert all(map(np.array_equal, one[2], other[2]))


def test_a_mask_lies_on_its_picture_pixel_by_pixel(masked, backend):
    turned = (Rotate(30, p=0.7, interpolation="nearest", fill=255), Affine(10, translate=(0.2, 0), fill=255))
    with loader(masked, recipe=Recipe(*CUT.ops, *turned)) as batches:
        seen = 0
        for batch in batches:
            mask = batch.columns["mask"]
            assert (mask.dtype, mask.shape) == (torch.uint8, (8, 40, 40))
            inside = mask != 255
            # JPEGs round a little, and DALI and the extension each in their own way.
            assert (shown(batch.images)[inside] == mask[inside]).float().mean() > 0.99
            assert (batch.images[:, 0][~inside].float() > 240).float().mean() > 0.9 or inside.all()
            seen += int((~inside).sum())
        assert seen


def test_a_resized_mask_lies_on_its_picture(masked, backend):
    with loader(masked, recipe=recipe_for(backend, ColorJitter(hue=0.0), RandomErasing(p=0.0))) as batches:
        agree = torch.cat([(shown(batch.images) == batch.columns["mask"]).flatten() for batch in batches])
    assert agree.float().mean() > 0.6


def test_all_of_a_mask_is_there_where_nothing_is_cut(masked, backend):
    with loader(masked, recipe=WHOLE, shuffle="none") as batches:
        for batch in batches:
            for position, mask in zip(batch.positions.tolist(), batch.columns["mask"], strict=True):
                column = np.floor(np.arange(60, dtype=np.float32) * np.float32(width(position) / 60)).astype(int)
                np.testing.assert_array_equal(mask, numbers(position)[:, column])


def test_masks_do_not_depend_on_the_backend_threads_or_prefetching(masked, backend):
    recipe = recipe_for("resident", Rotate(40, p=0.5))
    with (
        loader(masked, recipe=recipe, threads=1, prefetch=1, backend="cpu") as one,
        loader(masked, recipe=recipe) as other,
    ):
        for batch, same in zip(one, other, strict=True):
            assert torch.equal(batch.columns["mask"], same.columns["mask"])


def test_colours_normalisation_and_erasing_leave_masks_alone(masked, backend):
    more = (ColorJitter(brightness=0.5, hue=0.2), Normalize(mean=(0.5,) * 3, std=(0.2,) * 3), RandomErasing(p=1.0))
    with loader(masked, recipe=CUT) as plain, loader(masked, recipe=Recipe(*CUT.ops, *more)) as changed:
        for one, other in zip(plain, changed, strict=True):
            assert torch.equal(one.columns["mask"], other.columns["mask"])
            assert not torch.equal(one.images, other.images)


def test_masks_are_resumed_and_shared_by_ranks(masked, backend):
    recipe = recipe_for(backend)
    with loader(masked, recipe=recipe) as whole:
        expected = taken(whole)
    with loader(masked, recipe=recipe) as begun:
        next(iter(begun))
        state = json.loads(json.dumps(begun.state_dict()))
    with loader(masked, recipe=recipe) as resumed:
        resumed.load_state_dict(state)
        assert_same(taken(resumed), expected[1:])
    made = []
    for rank in range(2):
        with loader(masked, recipe=recipe, batch_size=4, rank=rank, world_size=2) as part:
            made.append(taken(part))
    for (positions, _, [mask]), (begin, _, [first]), (end, _, [second]) in zip(expected, *made, strict=True):
        assert positions == begin + end
        assert np.array_equal(mask, np.concatenate([first, second]))


def test_depth_keeps_its_16_bits_and_moves_with_the_picture(masked, backend):
    with loader(masked, recipe=CUT, joint=["depth", "mask"]) as batches:
        for batch in batches:
            depth = batch.columns["depth"]
            assert (depth.dtype, depth.shape) == (torch.float32, (8, 1, 40, 40))
            assert torch.equal(depth[:, 0], batch.columns["mask"] * 1000.0)


def test_boxes_keypoints_and_their_fields_come_in_pixels_of_the_output(masked, backend):
    with loader(masked, recipe=WHOLE, shuffle="none", joint=["boxes", "keypoints", "iscrowd"]) as batches:
        for batch in batches:
            assert list(batch.columns) == ["boxes", "keypoints", "iscrowd", "box_labels"]
            for row, position in enumerate(batch.positions.tolist()):
                scale, stored = 60 / width(position), fields(position)
                boxes = torch.tensor(stored["boxes"]) * torch.tensor([scale, 1, scale, 1])
                torch.testing.assert_close(batch.columns["boxes"][row], boxes)
                points = torch.tensor(stored["keypoints"], dtype=torch.float32) * torch.tensor([scale, 1, 1])
                points[0, 1] = 0
                torch.testing.assert_close(batch.columns["keypoints"][row], points)
                assert batch.columns["box_labels"][row].tolist() == [position, 1]
                assert batch.columns["iscrowd"][row].tolist() == [0, 1]


def test_boxes_that_are_cut_off_go_with_their_fields(masked, backend):
    with loader(masked, recipe=Recipe(CenterCrop(20)), joint=["boxes", "keypoints"]) as batches:
        for batch in batches:
            for row, boxes in enumerate(batch.columns["boxes"]):
                assert boxes.tolist() == [[0, 0, 20, 20]]
                assert batch.columns["box_labels"][row].tolist() == [1]
                points = batch.columns["keypoints"][row]
                assert points.shape == (1, 2, 3)
                assert points[0, :, 2].tolist() == [1, 0]
                assert points[0, 1].tolist() == [0, 0, 0]


def test_each_view_has_its_own_mask(masked, backend):
    if backend == "dali":
        pytest.skip("makes one view")
    second = Recipe(Resize((24, 24)), PadRandomCrop(20, padding=2), *FLIPS)
    with loader(masked, recipe=views(CUT, 2, second), joint=["mask", "boxes"]) as batches:
        with loader(masked, recipe=CUT) as alone:
            for batch, one in zip(batches, alone, strict=True):
                masks = batch.columns["mask"]
                assert [tuple(mask.shape) for mask in masks] == [(8, 40, 40), (8, 20, 20), (8, 20, 20)]
                assert torch.equal(masks[0], one.columns["mask"])
                assert not torch.equal(masks[1], masks[2])
                assert [len(boxes) for boxes in batch.columns["boxes"]] == [8, 8, 8]
        assert isinstance(batch.to("cpu").columns["mask"], tuple)
        with pytest.raises(OptionError, match="batches of one view, got 3 views"):
            batch.tv_tensors()


def test_buckets_have_masks_of_their_shape(masked):
    recipe = Recipe(Resize(40), CenterCrop(40), HorizontalFlip())
    with loader(masked, recipe=recipe, buckets=[(40, 40), (40, 60)]) as batches:
        shapes = set()
        for batch in batches:
            assert batch.columns["mask"].shape[1:] == batch.images.shape[2:]
            shapes.add(tuple(batch.images.shape[2:]))
            assert (shown(batch.images) == batch.columns["mask"]).float().mean() > 0.7
    assert len(shapes) == 2


@pytest.mark.parametrize("margin", [255, 0, -100, 70_000])
def test_margins_have_the_number_that_the_caller_wants(masked, backend, margin):
    with loader(masked, recipe=Recipe(CenterCrop((60, 90))), ignore_index=margin) as batches:
        mask = next(iter(batches)).columns["mask"]
    assert mask.dtype == (torch.uint8 if 0 <= margin <= 255 else torch.int32)
    assert (mask[:, 0] == margin).all()
    assert (mask[:, 10, 30] < 6).all()


BAD = {
    (3, "mask.png"): b"no image at all",
    (11, "mask.png"): encoded(numbers(11)[:, 1:]),
    (17, "mask.png"): encoded(numbers(17)[:, :, None].repeat(3, 2)),
    (20, "mask.png"): None,
    (24, "mask.png"): encoded(numbers(24).astype(np.uint16) * 300),
    (30, "mask.png"): parts(30)["mask.png"][:-30],
    (33, "json"): json.dumps({**fields(33), "boxes": [[1, 2, 3]]}).encode(),
    (35, "json"): json.dumps({**fields(35), "box_labels": [1]}).encode(),
    (36, "jpg"): parts(36)["jpg"][:300],
}
REASONS = {3: "not-an-image", 11: "corrupt", 17: "unsupported", 20: "missing", 24: "unsupported"}


@pytest.fixture(scope="module")
def flawed(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("flawed"), BAD)


def test_a_sample_whose_mask_or_boxes_are_bad_is_bad(flawed, backend):
    bad = {number for number, _ in BAD}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BadImageWarning)
        with loader(flawed, recipe=CUT, shuffle="none", joint=["mask", "boxes"]) as batches:
            seen = list(batches)
            found = {image.position: image for image in batches.bad}
        with loader(flawed, recipe=CUT, joint=["mask", "boxes"]) as replaced:
            for batch in replaced:
                assert not set(batch.positions.tolist()) & bad
                assert (shown(batch.images) == batch.columns["mask"]).float().mean() > 0.99
                assert all(len(boxes) for boxes in batch.columns["boxes"])
    assert set(found) == bad
    assert {position: found[position].reason for position in REASONS} == REASONS
    assert "boxes of the json member must be a list of [left, top, right, bottom]" in found[33].detail
    assert "got 2 boxes, 1 box_labels" in found[35].detail
    assert f"{width(11) - 1} x 48 pixels, its picture has {width(11)} x 48" in found[11].detail
    for batch in seen:
        for row, position in enumerate(batch.positions.tolist()):
            assert bool(batch.valid[row]) == (position not in bad)
            if position in bad:
                assert (batch.images[row] == 0).all()
                assert (batch.columns["mask"][row] == 255).all()
                assert batch.columns["boxes"][row].shape == (0, 4)


def test_a_bad_mask_is_raised_where_that_is_wanted(flawed):
    with (
        loader(flawed, recipe=CUT, shuffle="none", on_bad="raise") as batches,
        pytest.warns(BadImageWarning, match="s0003 in split train is bad"),
        pytest.raises(ImageError, match="s0003 in split train: its mask: looks like text"),
    ):
        list(batches)


def test_masks_that_nobody_asked_for_are_not_read(flawed, backend):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BadImageWarning)
        with loader(flawed, recipe=CUT, shuffle="none", joint=()) as batches:
            assert [batch.columns for batch in batches] == [{}] * len(batches)
            assert [image.position for image in batches.bad] == [36]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"joint": ["masks"]}, r"joint must be among .*mask.*, got 'masks' \(did you mean 'mask'\?\)"),
        ({"joint": 3}, "joint must be names of what moves along, such as"),
        ({"joint": ["iscrowd"]}, r"joint must name 'boxes' as well, got 'iscrowd' alone.*columns=\['iscrowd'\]"),
        ({"joint": ["boxes"], "columns": ["boxes"]}, "'boxes' must stand in one of joint and columns"),
        ({"joint": (), "columns": ["s", "mask"]}, r"columns can't hold images, got 'mask'; joint=\['mask'\] brings it"),
        ({"recipe": Recipe(*CUT.ops, MixUp())}, "MixUp mixes pictures, which no mask or box can follow; leave it out"),
        ({"recipe": Recipe(*CUT.ops, CutMix())}, "CutMix mixes pictures"),
        ({"recipe": Recipe(*CUT.ops, RandomApply([AugMix()]))}, "AugMix sums pictures that were moved in different"),
        ({"ignore_index": 0.5}, "ignore_index must be an integer"),
    ],
)
def test_what_can_not_move_with_pictures_is_refused(masked, options, message):
    with pytest.raises(OptionError, match=message):
        loader(masked, **{"recipe": CUT, **options})


def test_pictures_without_labels_and_with_masks_are_not_mixed_because_of_the_masks(tmp_path):
    imgdata.shard([{"image": np.zeros((8, 8, 3), np.uint8), "mask": np.eye(8, dtype=np.uint8)}] * 4, tmp_path)
    with pytest.raises(OptionError, match="CutMix mixes pictures, which no mask or box can follow"):
        imgdata.Loader(tmp_path, split="train", recipe=Recipe(CenterCrop(8), CutMix()), batch_size=2, joint=["mask"])


def test_a_dataset_without_masks_says_so(images):
    with pytest.raises(OptionError, match="this dataset has no masks, boxes or keypoints"):
        loader(images)


def test_batches_become_tv_tensors(masked):
    with loader(masked, recipe=CUT, joint=ALL) as batches:
        batch = next(iter(batches))
    samples = batch.tv_tensors()
    assert len(samples) == 8
    for row, sample in enumerate(samples):
        assert list(sample) == ["image", "labels", "mask", "depth", "boxes", "keypoints", "visibility"]
        assert isinstance(sample["image"], tv_tensors.Image)
        assert isinstance(sample["mask"], tv_tensors.Mask)
        assert isinstance(sample["depth"], tv_tensors.Image)
        assert isinstance(sample["boxes"], tv_tensors.BoundingBoxes)
        assert (sample["boxes"].canvas_size, sample["boxes"].format.value) == ((40, 40), "XYXY")
        assert isinstance(sample["keypoints"], tv_tensors.KeyPoints)
        assert torch.equal(sample["labels"], batch.columns["box_labels"][row])
        assert torch.equal(sample["visibility"], batch.columns["keypoints"][row][..., 2])


def test_batches_move_with_all_that_belongs_to_them(masked):
    with loader(masked, recipe=CUT, joint=ALL) as batches:
        moved = next(iter(batches)).to("meta")
    assert all(moved.columns[name].device.type == "meta" for name in ("mask", "depth"))
    assert all(one.device.type == "meta" for name in ("boxes", "keypoints") for one in moved.columns[name])


def test_a_loader_with_masks_is_described_pickled_and_closed(masked, backend):
    with loader(masked, recipe=CUT, joint=ALL) as batches:
        assert "moved with them: mask, depth, boxes, keypoints, box_labels" in repr(batches)
        iterator = iter(batches)
        next(iterator)
        assert len(list(pickle.loads(pickle.dumps(batches)))) == len(batches) - 1
    with pytest.raises(OptionError, match="this loader is closed"):
        next(iterator)


def test_batches_that_are_kept_stay_as_they_are(masked, backend):
    with loader(masked, recipe=CUT) as batches:
        kept = [(batch, batch.columns["mask"].clone()) for batch in batches]
    assert all(torch.equal(batch.columns["mask"], copy) for batch, copy in kept)


def test_masks_of_8_and_16_bits_are_int32_together(tmp_path):
    dataset(tmp_path, {(10, "mask.png"): encoded(numbers(10).astype(np.uint16) + 1000)}, count=16)
    with loader(tmp_path, recipe=CUT, shuffle="none") as batches:
        masks = torch.cat([batch.columns["mask"] for batch in batches])
    assert masks.dtype == torch.int32
    assert masks[10].min() >= 1000
    assert masks[9].max() < 6


def test_masks_come_from_a_store_as_from_a_folder(masked, monkeypatch, tmp_path):
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path))
    options = {"recipe": CUT, "joint": ALL, "shuffle": "global"}
    with web_server(masked) as url, loader(url, **options) as there, loader(masked, **options) as here:
        assert_same(taken(there, ["mask", "depth"]), taken(here, ["mask", "depth"]))
        assert not there.bad


@pytest.mark.parametrize(("name", "decoded"), [("cpu", 2 * SAMPLES), ("resident", SAMPLES)])
def test_masks_are_decoded_once_where_pictures_are(masked, monkeypatch, tmp_path, name, decoded):
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path))
    decode, seen = pixels.decode_mask, []
    monkeypatch.setattr(pixels, "decode_mask", lambda *arguments: seen.append(1) or decode(*arguments))
    with loader(masked, recipe=CUT, backend=name) as batches:
        first, second = taken(batches), taken(batches)
    assert len(seen) == decoded
    assert len(first) == len(second)


def test_masks_are_decoded_each_time_where_they_would_fill_the_memory(masked, monkeypatch, tmp_path):
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path))
    monkeypatch.setattr(joint_batch, "KEPT_BYTES", 4 * 48 * 48)
    decode, seen = pixels.decode_mask, []
    monkeypatch.setattr(pixels, "decode_mask", lambda *arguments: seen.append(1) or decode(*arguments))
    with loader(masked, recipe=CUT, backend="resident") as batches:
        assert len(taken(batches)) == len(taken(batches))
    assert len(seen) == 2 * SAMPLES


def test_a_split_without_masks_says_so(tmp_path):
    samples = [{"image": numbers(number) * STEP, "mask": numbers(number)} for number in range(4)]
    imgdata.shard({"train": samples, "test": [one["image"] for one in samples]}, tmp_path / "out")
    with pytest.raises(OptionError, match="joint names 'mask', but no sample of split 'test' has one"):
        loader(tmp_path / "out", split="test", recipe=CUT, batch_size=2)


def test_masks_and_boxes_of_several_datasets_are_loaded_as_of_one(masked, tmp_path):
    other = dataset(tmp_path, count=9)
    options = {"recipe": WHOLE, "joint": ["mask", "boxes"], "shuffle": "none"}
    with loader([masked, other], **options) as both, loader(masked, **options) as one, loader(other, **options) as two:
        parts = [[batch.columns for batch in batches] for batches in (both, one, two)]
    masks, *expected = (torch.cat([columns["mask"] for columns in part]) for part in parts)
    boxes, *boxes_of = ([box for columns in part for box in columns["boxes"]] for part in parts)
    assert torch.equal(masks[:49], torch.cat([expected[0], expected[1][:9]]))
    assert all(map(torch.equal, boxes[:49], [*boxes_of[0], *boxes_of[1][:9]]))


def test_pictures_masks_boxes_and_keypoints_are_those_of_torchvisions_transforms(masked):
    """All four by the transforms themselves, of a recipe without chance: the usual one of an evaluation."""
    theirs = v2.Compose([v2.Resize(40), v2.CenterCrop(30)])
    clean = v2.SanitizeBoundingBoxes(labels_getter=lambda sample: sample["labels"])
    split = imgdata.open(masked)["train"]
    recipe = Recipe(Resize(40), CenterCrop(30))
    with loader(masked, recipe=recipe, joint=ALL, exact=True, shuffle="none") as batches:
        samples = [sample for batch in batches for sample in batch.tv_tensors()]
    for position, ours in enumerate(samples):
        size, stored = (HEIGHT, width(position)), fields(position)
        points = torch.tensor(stored["keypoints"], dtype=torch.float32)
        expected = theirs(
            {
                "image": tv_tensors.Image(v2.functional.pil_to_tensor(split[position].pil())),
                "mask": tv_tensors.Mask(torch.from_numpy(numbers(position))),
                "boxes": tv_tensors.BoundingBoxes(stored["boxes"], format="XYXY", canvas_size=size),
                "keypoints": tv_tensors.KeyPoints(points[..., :2], canvas_size=size),
                "labels": torch.arange(2),
            }
        )
        assert torch.equal(ours["mask"], expected["mask"])
        # Pillow rounds after each pass of a resize, PyTorch once.
        assert (ours["image"].int() - expected["image"].int()).abs().max() <= 2
        kept = clean({name: expected[name] for name in ("boxes", "labels")})
        torch.testing.assert_close(ours["boxes"], kept["boxes"], atol=1e-4, rtol=0)
        left, seen = kept["labels"].tolist(), ours["visibility"] > 0
        assert ours["labels"].tolist() == [stored["box_labels"][row] for row in left]
        assert seen.any()
        torch.testing.assert_close(ours["keypoints"][seen], expected["keypoints"][left][seen], atol=1e-4, rtol=0)
