"""Hashes of pictures: the same for copies, others for other pictures, and the same bits on every machine."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from imgdata.auditing.hashes import CLEAR, FLAT, QUERIES, WHOLE, Box, coarse_hashes, distance, gates, hashes
from imgdata.auditing.near import RADIUS
from support.pictures import photo_file


def scene():
    with Image.open(photo_file("skimage", "data/astronaut.png")) as image:
        return image.convert("L")


def thumbnail(image):
    return np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC))


def cut(image, box):
    width, height = image.size
    return image.crop(
        (round(box.left * width), round(box.top * height), round(box.right * width), round(box.bottom * height))
    )


def nearest(one, other):
    """Return in how many bits the whole `other` differs from the query of `one` that is nearest to it."""
    (one_Q4, other_Q4), _ = hashes(np.stack([thumbnail(one), thumbnail(other)]))
    return int(distance(one_Q4, other_Q4[0]).min())


def test_hashes_have_a_bit_for_half_of_the_256_frequencies():
    hash_BQ4, _ = hashes(np.stack([thumbnail(scene())]))
    assert hash_BQ4.shape == (1, len(QUERIES), 4)
    assert set(np.bitwise_count(hash_BQ4).sum(-1).ravel().tolist()) == {128}


def test_the_first_query_is_the_whole_picture():
    assert QUERIES[0].box == WHOLE
    assert not QUERIES[0].mirrored


@pytest.mark.parametrize(
    "query", QUERIES, ids=lambda query: f"{query.box.left:.3f} {query.box.top:.3f} {'mirrored' * query.mirrored}"
)
def test_a_query_is_near_the_hash_of_a_copy_that_shows_what_it_says(query):
    shown = cut(scene(), query.box)
    copy = ImageOps.mirror(shown) if query.mirrored else shown
    hash_BQ4, _ = hashes(np.stack([thumbnail(scene()), thumbnail(copy)]))
    assert distance(hash_BQ4[0, QUERIES.index(query)], hash_BQ4[1, 0]) <= 16


@pytest.mark.parametrize("at", [(0, 0), (0.5, 0.5), (1, 1), (0, 1), (0.3, 0.9)])
def test_a_copy_without_5_percent_of_the_area_is_near_wherever_it_was_cut(at):
    cropped = 1 - 0.95**0.5
    left, top = at[0] * cropped, at[1] * cropped
    assert nearest(scene(), cut(scene(), Box(left, top, left + 1 - cropped, top + 1 - cropped))) <= RADIUS


def test_other_pictures_are_far():
    with Image.open(photo_file("skimage", "data/coffee.png")) as image:
        assert nearest(scene(), image.convert("L")) > 80


def test_half_the_size_is_the_same_picture():
    assert nearest(scene(), scene().reduce(2)) <= 8


@pytest.mark.parametrize(
    ("make", "least", "most"),
    [
        (lambda: Image.new("L", (64, 64), 99), 0, 0),
        (lambda: Image.linear_gradient("L").resize((64, 64)), 0, CLEAR),
        (scene, CLEAR, 100),
    ],
    ids=["one colour", "gradient", "photograph"],
)
def test_the_gate_says_how_much_structure_a_picture_has(make, least, most):
    (gate,) = gates(np.stack([thumbnail(make())]))
    assert least <= gate <= most


def test_pictures_of_one_colour_are_flat():
    assert gates(np.full((1, 64, 64), 200, np.uint8))[0] < FLAT


def test_a_coarse_hash_is_the_bits_of_the_8_lowest_frequencies_of_both_directions():
    hash_N4 = np.random.default_rng(0).integers(0, 2**64, (20, 4), dtype=np.uint64)
    bit_NxFxF = np.unpackbits(hash_N4.view(np.uint8), axis=1, bitorder="little").reshape(20, 16, 16)
    low_Nx64 = bit_NxFxF[:, :8, :8].reshape(20, 64)
    expected = np.packbits(low_Nx64, axis=1, bitorder="little").view(np.uint64)
    assert np.array_equal(coarse_hashes(hash_N4), np.repeat(expected, 4, axis=1))


def test_hashes_do_not_depend_on_how_many_are_made_at_once():
    luma_BxHxW = np.random.default_rng(0).integers(0, 256, (150, 64, 64), dtype=np.uint8)
    at_once, gate_B = hashes(luma_BxHxW)
    one_by_one = np.concatenate([hashes(luma_BxHxW[row : row + 1])[0] for row in range(len(luma_BxHxW))])
    assert np.array_equal(at_once, one_by_one)
    assert gate_B.dtype == np.uint8


EXPECTED = ["d1529a6aee2d9224", "d550c114ce1cd2c9", "9d33c59bba2e7589", "f7b3369e38133ce1"]


def test_a_hash_has_the_same_bits_everywhere():
    rows, columns = np.mgrid[:64, :64]
    made = ((rows * rows * 7 + columns * columns * 3 + rows * columns * 5) % 251).astype(np.uint8)
    hash_BQ4, gate_B = hashes(made[None])
    assert [f"{word:016x}" for word in hash_BQ4[0, 0].tolist()] == EXPECTED
    assert gate_B.tolist() == [100]


@pytest.mark.parametrize("wrong", [np.zeros((2, 32, 32), np.uint8), np.zeros((2, 64, 64))])
def test_arrays_that_are_no_thumbnails_are_refused(wrong):
    with pytest.raises(ValueError, match=r"thumbnails must be uint8 \(B, 64, 64\)"):
        hashes(wrong)
