"""Copies are found whatever was done to them; one is kept by a rule, and no unlike pictures are put together."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

import imgdata
from imgdata.auditing import copies, duplicates, hashes
from imgdata.auditing.copies import EXACT, WHATS
from imgdata.auditing.facts import facts
from imgdata.auditing.groups import Links, around_representatives, best_by_other
from imgdata.auditing.matching import ALIKE, ALIKE_IN_DETAIL, correlations, details
from imgdata.auditing.samples import samples_of
from imgdata.views import open_view
from support.pictures import can_write, photo_file

PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg", "ihc.png")
SIDE = 160


def tiles():
    """Return pictures of 160 x 160 that show different things, all of them with structure."""
    found = []
    for name in PHOTOGRAPHS:
        with Image.open(photo_file("skimage", f"data/{name}")) as image:
            whole = image.convert("RGB")
        for left in range(0, whole.width - SIDE + 1, SIDE):
            tile = whole.crop((left, SIDE // 2, left + SIDE, SIDE // 2 + SIDE))
            if hashes.gates(thumbnail(tile)[None])[0] >= hashes.CLEAR:
                found.append(tile)
    return found


def thumbnail(image):
    return np.asarray(image.convert("L").resize((64, 64), Image.Resampling.BICUBIC))


def saved(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def cropped(image, part):
    across, down = round(part * image.width), round(part * image.height)
    return image.crop((across, down, image.width - across, image.height - down))


def audited(folder, rows, classes=("cat", "dog"), **options):
    """Return what is found in samples (key, bytes, label, split)."""
    with imgdata.Writer(folder, classes=list(classes), shuffle=False) as writer:
        for key, data, label, split in rows:
            writer.write(data, label, split=split, key=key)
    dataset = imgdata.open(folder)
    samples = samples_of([open_view(dataset, split) for split in dataset])
    return duplicates.find(samples, facts(samples, folder.parent / "facts"), **options)


def told(outcome):
    return {(one.kind, one.what, one.place.key, one.other.key) for one in outcome.findings}


TILES = tiles()

EDITS = {
    "encoded again": (lambda image: saved(image, "JPEG", quality=50), "near"),
    "WebP": (lambda image: saved(image, "WEBP", quality=60), "near"),
    "half the size": (lambda image: saved(image.reduce(2)), "near"),
    "other sides": (lambda image: saved(image.resize((200, 140))), "near"),
    "gray": (lambda image: saved(image.convert("L")), "near"),
    "brighter": (lambda image: saved(image.point(lambda level: level * 0.8 + 30)), "near"),
    "mirrored": (lambda image: saved(ImageOps.mirror(image)), "mirrored"),
    "5 % of each side cropped": (lambda image: saved(cropped(image, 0.05)), "cropped"),
    "10 % of each side cropped": (lambda image: saved(cropped(image, 0.1)), "cropped"),
    "lossless WebP": (lambda image: saved(image, "WEBP", lossless=True), "same pixels"),
    "other bytes": (lambda image: saved(image, compress_level=1), "same pixels"),
    "same bytes": (lambda image: saved(image), "same bytes"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_copies_are_found_and_nothing_else(edit, tmp_path):
    make, what = EDITS[edit]
    if "WebP" in edit and not can_write("WEBP"):
        pytest.skip("this Pillow writes no WebP")
    rows = [(f"original{number}", saved(tile), 0, "train") for number, tile in enumerate(TILES)]
    rows += [(f"copy{number}", make(tile), 0, "train") for number, tile in enumerate(TILES)]
    outcome = audited(tmp_path / "out", rows)
    pairs = {frozenset((one.place.key, one.other.key)) for one in outcome.findings}
    expected = {frozenset((f"original{number}", f"copy{number}")) for number in range(len(TILES))}
    assert pairs <= expected
    assert len(pairs) >= (1.0 if what.startswith("same") else 0.95) * len(expected)
    assert {one.what for one in outcome.findings} <= {what, *(["near"] if what == "cropped" else [])}
    assert {one.kind for one in outcome.findings} == {
        "exact-duplicate" if what.startswith("same") else "near-duplicate"
    }
    assert all(ALIKE <= one.score <= 1 and one.proposal == "exclude" for one in outcome.findings)


@pytest.mark.parametrize(
    "make", [lambda image: saved(image.reduce(2)), lambda image: saved(image, "JPEG", quality=50)], ids=["half", "JPEG"]
)
def test_copies_of_pictures_as_small_as_those_of_cifar_are_found(make, tmp_path):
    small = [image for tile in TILES if hashes.gates(thumbnail(image := tile.reduce(5))[None])[0] >= hashes.CLEAR]
    rows = [(f"original{number}", saved(tile), 0, "train") for number, tile in enumerate(small)]
    rows += [(f"copy{number}", make(tile), 0, "train") for number, tile in enumerate(small)]
    pairs = {frozenset((one.place.key, one.other.key)) for one in audited(tmp_path / "out", rows).findings}
    expected = {frozenset((f"original{number}", f"copy{number}")) for number in range(len(small))}
    assert pairs <= expected
    assert len(pairs) >= 0.9 * len(expected) > 5


def test_a_jpeg_saved_as_png_has_the_same_pixels_and_so_has_one_without_its_metadata(tmp_path):
    exif = Image.Exif()
    exif[270] = "a comment"
    jpeg, tagged = (saved(TILES[0], "JPEG", quality=90, **more) for more in ({}, {"exif": exif}))
    with Image.open(io.BytesIO(jpeg)) as decoded:
        png = saved(decoded.convert("RGB"))
    outcome = audited(tmp_path / "out", [("a", jpeg, 0, "train"), ("b", tagged, 0, "train"), ("c", png, 0, "train")])
    assert {one.what for one in outcome.findings} == {"same pixels"}
    assert len(outcome.findings) == 2


def test_flat_pictures_are_found_by_their_pixels_alone(tmp_path):
    gray, lighter = (
        Image.new("RGB", (80, 80), (90, 90, 90)),
        Image.new("RGB", (80, 80), (92, 92, 92)),
    )
    rows = [
        ("gray", saved(gray), 0, "train"),
        ("same", saved(gray, compress_level=0), 0, "train"),
        ("lighter", saved(lighter), 0, "train"),
        ("small", saved(gray.resize((40, 40))), 0, "train"),
    ]
    outcome = audited(tmp_path / "out", rows)
    assert {frozenset((one.place.key, one.other.key)) for one in outcome.findings} == {frozenset(("gray", "same"))}
    assert outcome.figures["flat"] == 4
    assert "too little structure" in outcome.notes[0]


def test_different_digits_of_one_shape_are_no_copies_of_each_other(tmp_path):
    # Strokes on black correlate by more than 0.9, whoever wrote them.
    rows = []
    for number in range(6):
        digit = Image.new("L", (28, 28))
        ImageDraw.Draw(digit).line((15 - number % 3, 5, 12 + number % 2, 23), fill=255, width=3)
        rows.append((f"one{number}", saved(digit), 1, "train" if number % 2 else "test"))
    rows.append(("again", saved(digit, compress_level=0), 1, "train"))
    outcome = audited(tmp_path / "out", rows)
    assert {finding.what for finding in outcome.findings} == {"same pixels"}
    assert outcome.figures["flat"] == 7


SPLITS = {
    "train and test": (("train", "test"), ("train", "test")),
    "train and val": (("train", "val"), ("train", "val")),
    "val and test": (("val", "test"), ("val", "test")),
    "written the other way round": (("test", "train"), ("train", "test")),
}


@pytest.mark.parametrize("case", SPLITS)
@pytest.mark.parametrize("edited", [False, True])
def test_of_a_leak_the_copy_nearer_to_training_is_to_go(case, edited, tmp_path):
    (first, second), (gone, kept) = SPLITS[case]
    data = {first: saved(TILES[0]), second: saved(ImageOps.mirror(TILES[0]) if edited else TILES[0])}
    outcome = audited(tmp_path / "out", [(f"in-{split}", data[split], 0, split) for split in (first, second)])
    (finding,) = outcome.findings
    assert (finding.kind, finding.place.split, finding.other.split) == ("leak", gone, kept)
    assert finding.proposal == "exclude"
    assert f"in {kept}" in finding.message
    assert outcome.figures["leaks_between"] == {f"{gone} in {kept}": 1}


def test_exact_copies_of_a_leak_are_leaks_too(tmp_path):
    small, large = saved(TILES[0].reduce(2)), saved(TILES[0])
    rows = [("a", small, 0, "train"), ("b", small, 0, "train"), ("t", large, 0, "test")]
    found = told(audited(tmp_path / "out", rows))
    assert {row for row in found if row[0] == "leak"} == {("leak", "near", "a", "t"), ("leak", "near", "b", "t")}


def test_copies_under_different_labels_are_a_conflict_instead_of_a_duplicate(tmp_path):
    rows = [
        ("a", saved(TILES[0]), "cat", "train"),
        ("b", saved(TILES[0]), "dog", "train"),
        ("c", saved(TILES[1]), "cat", "train"),
        ("d", saved(TILES[1]), None, "train"),
    ]
    outcome = audited(tmp_path / "out", rows)
    assert told(outcome) == {("conflict", "same bytes", "b", "a"), ("exact-duplicate", "same bytes", "d", "c")}
    conflict = outcome.findings[0]
    assert conflict.proposal == "look"
    assert conflict.message.endswith("and they are labelled dog and cat.")


def test_a_leak_under_another_label_is_both(tmp_path):
    rows = [("a", saved(TILES[0]), "cat", "train"), ("t", saved(TILES[0]), "dog", "test")]
    assert told(audited(tmp_path / "out", rows)) == {
        ("leak", "same bytes", "a", "t"),
        ("conflict", "same bytes", "a", "t"),
    }


KEPT = {
    "of more pixels": (lambda image: saved(image.reduce(2)), lambda image: saved(image, "JPEG", quality=40)),
    "of more bytes": (lambda image: saved(image, "JPEG", quality=60), lambda image: saved(image, "JPEG", quality=90)),
}


@pytest.mark.parametrize("case", KEPT)
def test_the_picture_is_kept_that_is(case, tmp_path):
    less, more = KEPT[case]
    rows = [("less", less(TILES[0]), 0, "train"), ("more", more(TILES[0]), 0, "train")]
    assert told(audited(tmp_path / "out", rows)) == {("near-duplicate", "near", "less", "more")}


def test_of_equal_files_the_first_is_kept(tmp_path):
    rows = [(key, saved(TILES[0]), 0, "train") for key in "cab"]
    assert {(place, kept) for _, _, place, kept in told(audited(tmp_path / "out", rows))} == {("a", "c"), ("b", "c")}


def test_a_picture_in_other_colours_is_another_picture(tmp_path):
    luma = np.asarray(TILES[0].convert("L").convert("RGB"), np.float32)
    blue = Image.fromarray(np.clip(luma * (0.6, 0.9, 2.0), 0, 255).astype(np.uint8))
    orange = Image.fromarray(np.clip(luma * (1.5, 0.85, 0.4), 0, 255).astype(np.uint8))
    rows = [("blue", saved(blue), 0, "train"), ("orange", saved(orange), 0, "train")]
    assert not audited(tmp_path / "out", rows).findings


def test_bad_images_are_compared_by_their_bytes_alone(tmp_path):
    whole = saved(TILES[0], "JPEG", quality=90)
    rows = [("a", whole, 0, "train"), ("b", whole, 0, "train"), ("c", saved(TILES[0]), 0, "train")]
    folder = tmp_path / "out"
    with imgdata.Writer(folder, classes=["cat"], shuffle=False) as writer:
        for key, data, label, split in rows:
            writer.write(data, label, split=split, key=key)
    dataset = imgdata.open(folder)
    samples = samples_of([open_view(dataset, "train")])
    damaged = SimpleNamespace(
        **{
            name: getattr(facts(samples, tmp_path / "facts"), name)
            for name in ("luma_M64x64", "hash_MQ4", "gate_M", "entropy_M", "brightness_M", "red_M", "green_M", "blue_M")
        }
    )
    damaged.decoded_M = np.array([False, False, False])
    assert told(duplicates.find(samples, damaged)) == {("exact-duplicate", "same bytes", "b", "a")}


def test_threads_change_nothing_and_progress_is_told(tmp_path):
    rows = [(f"o{number}", saved(tile), number % 2, "train") for number, tile in enumerate(TILES)]
    rows += [(f"m{number}", saved(ImageOps.mirror(tile)), number % 2, "val") for number, tile in enumerate(TILES)]
    progress = []
    one = audited(tmp_path / "one", rows, threads=1, progress=lambda done, total: progress.append((done, total)))
    four = audited(tmp_path / "four", rows, threads=4)
    assert one == four
    assert progress[-1][0] == progress[-1][1] > 0


# --- Groups ----------------------------------------------------------------------------------------------


def links(*rows):
    kept, other, what, score = zip(*rows, strict=True)
    return Links(
        kept_L=np.array(kept),
        other_L=np.array(other),
        what_L=np.array(what, np.int8),
        score_L=np.array(score, np.float32),
        distance_L=np.where(np.array(what) < EXACT, -1, 9).astype(np.int16),
    )


GROUPS = {
    "a pair": ([(0, 1, 2, 0.9)], {1: 0}),
    "all like the first": ([(0, 1, 2, 0.9), (0, 2, 2, 0.9), (1, 2, 2, 0.95)], {1: 0, 2: 0}),
    "a chain is cut": ([(0, 1, 2, 0.9), (1, 2, 2, 0.99), (2, 3, 2, 0.9)], {1: 0, 3: 2}),
    "the nearest representative": ([(0, 2, 2, 0.91), (1, 2, 2, 0.97)], {2: 1}),
    "an exact copy of a member": ([(0, 1, 2, 0.9), (1, 2, 0, 1.0)], {1: 0, 2: 1}),
    "the surest relation": ([(0, 2, 4, 0.99), (1, 2, 2, 0.92)], {2: 1}),
}


@pytest.mark.parametrize("case", GROUPS)
def test_each_member_is_like_its_representative(case):
    rows, expected = GROUPS[case]
    chosen = around_representatives(links(*rows), np.arange(10))
    assert dict(zip(chosen.other_L.tolist(), chosen.kept_L.tolist(), strict=True)) == expected
    near = chosen.take(chosen.what_L >= EXACT)
    assert not set(chosen.other_L.tolist()) & set(near.kept_L.tolist())


def test_the_best_link_of_a_sample_is_the_surest_then_the_strongest():
    best = best_by_other(links((0, 9, 2, 0.99), (1, 9, 0, 1.0), (2, 8, 3, 0.91), (3, 8, 3, 0.95)), np.arange(10))
    assert dict(zip(best.other_L.tolist(), best.kept_L.tolist(), strict=True)) == {9: 1, 8: 3}


def test_a_chain_of_pictures_that_each_show_a_little_less_is_cut(tmp_path):
    sides = [SIDE - 8 * step for step in range(9)]
    with Image.open(photo_file("skimage", "data/astronaut.png")) as image:
        whole = image.convert("RGB").resize((SIDE, SIDE))
    rows = [
        (f"step{step}", saved(whole.crop(((SIDE - side) // 2,) * 2 + ((SIDE + side) // 2,) * 2)), 0, "train")
        for step, side in enumerate(sides)
    ]
    outcome = audited(tmp_path / "out", rows)
    assert outcome.figures["groups"] > 1
    for one in outcome.findings:
        assert abs(int(one.place.key[4:]) - int(one.other.key[4:])) <= 5


# --- Many ------------------------------------------------------------------------------------------------


def made_up(count, luma_MxHxW, hash_MQ4):
    """Return samples without pictures, of `count` sizes, and facts with these thumbnails and hashes."""
    columns = {
        "xxh64": np.arange(count, dtype=np.uint64),
        "size": np.full(count, 9),
        "width": np.arange(count) + 1,
        "height": np.full(count, 1),
        "orientation": np.ones(count, np.uint8),
    }
    methods = {
        "array": lambda self, name: columns[name],
        "byte_hashes": lambda self, *keys: columns["xxh64"],
        "__len__": lambda self: count,
    }
    samples = type("Many", (), methods)()
    zero_M = np.zeros(count, np.float32)
    return samples, SimpleNamespace(
        decoded_M=np.ones(count, np.bool_),
        luma_M64x64=luma_MxHxW,
        hash_MQ4=hash_MQ4,
        gate_M=np.full(count, 100, np.uint8),
        entropy_M=np.full(count, 6, np.float32),
        brightness_M=zero_M,
        red_M=zero_M,
        green_M=zero_M,
        blue_M=zero_M,
    )


def test_100_000_pictures_that_are_all_alike_are_one_group_in_seconds():
    count = 100_000
    luma = thumbnail(TILES[0])
    hash_BQ4, _ = hashes.hashes(luma[None])
    samples, many = made_up(
        count, np.broadcast_to(luma, (count, 64, 64)), np.broadcast_to(hash_BQ4[0], (count, len(hashes.QUERIES), 4))
    )
    found = copies.find_links(samples, many, np.arange(count))
    assert len(found) == count - 1
    assert set(found.kept_L.tolist()) == {0}


def test_equal_hashes_of_unlike_pictures_are_no_copies():
    luma_MxHxW = np.stack([thumbnail(tile) for tile in (TILES[0], TILES[1], TILES[0], TILES[1], TILES[2])])
    hash_BQ4, _ = hashes.hashes(luma_MxHxW[:1])
    samples, facts_ = made_up(5, luma_MxHxW, np.repeat(hash_BQ4, 5, axis=0))
    found = copies.find_links(samples, facts_, np.arange(5))
    assert set(zip(found.kept_L.tolist(), found.other_L.tolist(), strict=True)) == {(0, 2), (1, 3)}


@pytest.mark.parametrize("query", range(len(hashes.QUERIES)))
def test_what_a_query_shows_correlates_with_a_copy_that_shows_it(query):
    box, mirrored = hashes.QUERIES[query].box, hashes.QUERIES[query].mirrored
    edges = [round(edge * SIDE) for edge in box]
    shown = TILES[0].crop(tuple(edges))
    luma_MxHxW = np.stack([thumbnail(TILES[0]), thumbnail(ImageOps.mirror(shown) if mirrored else shown)])
    zero, one, which = np.array([0]), np.array([1]), np.array([query])
    assert correlations(luma_MxHxW, zero, one, which)[0] > 0.98


def test_pictures_that_share_a_frame_alone_correlate_but_not_in_detail():
    framed = [ImageOps.expand(tile.convert("L").point(lambda level: level // 12 + 100), 24) for tile in TILES[:2]]
    luma_MxHxW = np.stack([thumbnail(image) for image in framed])
    pair = np.array([0]), np.array([1]), np.array([0])
    assert correlations(luma_MxHxW, *pair)[0] > ALIKE
    assert details(luma_MxHxW, *pair)[0] < ALIKE_IN_DETAIL


def test_pictures_of_one_colour_correlate_with_nothing():
    luma_MxHxW = np.stack([np.full((64, 64), 90, np.uint8), thumbnail(TILES[0])])
    pair = np.array([0, 1]), np.array([1, 0]), np.array([0, 0])
    assert correlations(luma_MxHxW, *pair).tolist() == [0, 0]


def test_the_words_for_copies_are_these():
    assert WHATS == ("same bytes", "same pixels", "near", "mirrored", "cropped")
