"""Further images of a sample, such as masks: what `dataset.json`, index and samples say of them."""

import json
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import imgdata
from imgdata.dataset.manifest import parse_manifest, read_manifest
from imgdata.dataset.members import Member, kind_of
from imgdata.sample import mask_numbers
from support import pictures
from support.masks import numbers, png, write_dataset
from support.rawdata import encoded


def test_a_sample_has_its_mask_beside_its_picture(tmp_path):
    masks = write_dataset(tmp_path / "out")
    dataset = imgdata.open(tmp_path / "out")
    assert dataset.members == (Member(name="mask", kind="mask"),)
    split = dataset["train"]
    for i, (sample, expected) in enumerate(zip(split, masks, strict=True)):
        assert sample.image == encoded(i, (48 + i, 40))
        assert np.array_equal(sample.array_of("mask"), expected)
        assert split.read_member(i, "mask") == split.verified_member(i, "mask") == sample.members["mask"]
        assert "mask" in repr(sample)
    assert pickle.loads(pickle.dumps(split))[2].members == split[2].members


def test_the_index_says_where_each_mask_lies(tmp_path):
    write_dataset(tmp_path / "out")
    split = imgdata.open(tmp_path / "out")["train"]
    assert split.index.names[-4:] == ["mask_offset", "mask_size", "mask_format", "mask_xxh64"]
    assert split.index.members == ("mask",)
    (tar,) = split.shards
    data = tar.read_bytes()
    for i, (offset, size) in enumerate(
        zip(split.index.array("mask_offset").tolist(), split.index.array("mask_size").tolist(), strict=True)
    ):
        assert data[offset : offset + size] == split.read_member(i, "mask")
    assert split.index.words("mask_format") == ["png"]


def test_dataset_json_names_the_further_images_only_where_there_are_any(tmp_path):
    write_dataset(tmp_path / "out")
    content = json.loads((tmp_path / "out" / "dataset.json").read_bytes())
    assert content["members"] == [{"name": "mask", "kind": "mask"}]
    with imgdata.Writer(tmp_path / "plain") as writer:
        writer.write(encoded(1), 0)
    assert "members" not in json.loads((tmp_path / "plain" / "dataset.json").read_bytes())
    assert imgdata.open(tmp_path / "plain").members == ()
    assert imgdata.open(tmp_path / "plain")["train"][0].members == {}


def test_a_split_without_such_images_says_what_there_is(tmp_path):
    write_dataset(tmp_path / "out")
    split = imgdata.open(tmp_path / "out")["train"]
    with pytest.raises(KeyError, match="no further images 'depth' in split 'train', only mask"):
        split.read_member(0, "depth")
    with pytest.raises(KeyError, match="has no further image 'depth'; there are: mask"):
        split[0].array_of("depth")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"name": "mask", "kind": "video"}], "the kind of 'mask' must be mask or image"),
        ([{"name": "../mask", "kind": "mask"}], "the name of a further image must be a word of lower-case letters"),
        ([{"name": "png", "kind": "image"}], "the name of a further image"),
        ([{"name": "mask", "kind": "mask"}] * 2, "different names"),
        ([{"name": "mask"}], "KeyError: 'kind'"),
        ([3], "damaged"),
    ],
)
def test_further_images_that_cannot_be_are_a_damaged_manifest(tmp_path, entries, message):
    write_dataset(tmp_path / "out", 1)
    path = tmp_path / "out" / "dataset.json"
    content = json.loads(path.read_bytes())
    with pytest.raises(imgdata.ShardError, match=message):
        parse_manifest(json.dumps({**content, "members": entries}).encode(), path)


def test_an_index_that_lacks_the_further_images_is_refused(tmp_path):
    write_dataset(tmp_path / "out", 1)
    path = tmp_path / "out" / "dataset.json"
    path.write_bytes(path.read_bytes().replace(b'"name": "mask"', b'"name": "depth"'))
    with pytest.raises(imgdata.ShardError, match=r"must be \['depth'\] as dataset.json says, got \['mask'\]; rebuild"):
        imgdata.open(tmp_path / "out")


def test_the_name_of_a_splits_contents_depends_on_its_masks(tmp_path):
    from imgdata.dataset.index import index_id

    ids = []
    for number in (0, 1):
        with imgdata.Writer(tmp_path / str(number)) as writer:
            writer.write(encoded(1), 0, mask=numbers(number))
        ids.append(index_id(imgdata.open(tmp_path / str(number))["train"].index))
    assert ids[0] != ids[1]


RAMP = np.arange(12, dtype=np.uint8).reshape(3, 4)
WIDE = (np.arange(12, dtype=np.uint16) * 5000).reshape(3, 4)
BITS = np.array([[0, 1], [1, 0]], bool)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png(RAMP), RAMP),
        (png(RAMP, "P"), RAMP),
        (png(WIDE), WIDE),
        (png(BITS), BITS.astype(np.uint8)),
        # Gray of 2 and of 4 bits: the value as written.
        (pictures.png(4, 1, 2, 0, b"\0" + bytes([0b00011011])), np.array([[0, 1, 2, 3]], np.uint8)),
        (pictures.png(4, 1, 4, 0, b"\0" + bytes([0x01, 0x9F])), np.array([[0, 1, 9, 15]], np.uint8)),
    ],
    ids=["gray", "palette", "16 bits", "1 bit", "2 bits", "4 bits"],
)
def test_the_numbers_of_a_mask_are_indices_of_a_palette_or_gray_values(data, expected):
    found = mask_numbers(data)
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("data", "reason"), [(encoded(1), "unsupported"), (b"no image", "corrupt"), (png(numbers(1))[:90], "corrupt")]
)
def test_bytes_without_numbers_are_no_mask(data, reason):
    with pytest.raises(imgdata.ImageError) as raised:
        mask_numbers(data)
    assert raised.value.reason == reason


@pytest.mark.parametrize(
    ("name", "kind"),
    [("mask", "mask"), ("seg", "mask"), ("left_mask", "mask"), ("depth", "image"), ("right", "image")],
)
def test_the_kind_of_an_image_follows_from_its_name(name, kind):
    assert kind_of(name) == kind


def test_a_dataset_without_masks_has_the_manifest_that_it_had(tmp_path):
    with imgdata.Writer(tmp_path / "plain") as writer:
        writer.write(encoded(1), 0)
    before = (tmp_path / "plain" / "dataset.json").read_bytes()
    assert read_manifest(tmp_path / "plain").to_bytes() == before


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("mask_offset", -1, "mask_offset in row 1 must be an integer from 0 to"),
        ("mask_size", 2**40, "mask_size in row 1 must be an integer from 0 to"),
    ],
)
def test_places_that_cannot_be_are_one_error(tmp_path, column, value, message):
    write_dataset(tmp_path / "out", 3)
    path = tmp_path / "out" / "out-train.index.parquet"
    table = pq.read_table(path)
    at = table.schema.get_field_index(column)
    values = table[column].to_pylist()
    values[1] = value
    pq.write_table(table.set_column(at, table.schema.field(at), pa.array(values, pa.int64())), path)
    with pytest.raises(imgdata.ShardError, match=message):
        imgdata.open(tmp_path / "out")["train"].read_member(0, "mask")
    assert any(message in str(fault) or "sha256" in str(fault) for fault in imgdata.verify(tmp_path / "out"))


def test_a_shard_that_is_cut_short_inside_a_mask_is_one_error(tmp_path):
    write_dataset(tmp_path / "out", 3)
    split = imgdata.open(tmp_path / "out")["train"]
    end = int(split.index.array("mask_offset")[1]) + 5
    with open(split.shards[0], "r+b") as file:
        file.truncate(end)
    with pytest.raises(imgdata.ShardError, match=f"cut short at byte {end}, 00000001 ends at byte"):
        imgdata.open(tmp_path / "out")["train"].read_member(1, "mask")
    assert len(imgdata.verify(tmp_path / "out")) > 0
