"""Poor images are found among good ones, by the same limits whatever the dataset; CleanVision finds the same ones."""

import contextlib
import io
import json

import pytest
from PIL import Image, ImageFilter

import imgdata
from imgdata.auditing import quality
from imgdata.auditing.facts import facts
from imgdata.auditing.samples import samples_of
from imgdata.views import open_view
from support import loaders
from support.pictures import encode, photo, photo_file

SIZE = (320, 240)


def parts(count, size=SIZE):
    """Different parts of a photograph in colour."""
    with Image.open(photo_file("sklearn", "datasets/images/china.jpg")) as image:
        image = image.convert("RGB")
    for number in range(count):
        left, top = 7 * number % 280, 5 * number % 150
        yield image.crop((left, top, left + 360, top + 270)).resize(size, Image.Resampling.BICUBIC)


def few_colours():
    """Two colours: little information, but neither dark nor blurred."""
    image = Image.new("RGB", SIZE, (210, 60, 60))
    image.paste((60, 210, 60), (60, 50, 240, 190))
    return image


PLANTED = {
    "blank": lambda image: Image.new("RGB", SIZE, (90, 120, 90)),
    "dark": lambda image: image.point(lambda level: level // 6),
    "bright": lambda image: image.point(lambda level: 243 + level // 20),
    "blurred": lambda _: photo().resize(SIZE).filter(ImageFilter.GaussianBlur(10)),
    "low information": lambda _: few_colours(),
    "gray among colour": lambda image: image.convert("L"),
    "odd aspect": lambda image: image.resize((640, 60)),
    "tiny": lambda image: image.resize((24, 18)),
    "huge": lambda image: image.resize((2240, 1680)),
}
"""What is planted -> how it is made of a good picture."""


def written(folder, images, labels=None, format="JPEG", **options):
    """Return the samples of a dataset of pictures, or of encoded images."""
    with imgdata.Writer(folder, classes=["a", "b"]) as writer:
        for number, image in enumerate(images):
            data = image if isinstance(image, bytes) else encode(image, format, **options)
            writer.write(data, labels[number] if labels else number % 2, split="train", key=f"{number:04d}")
    return samples_of([open_view(imgdata.open(folder), "train")])


def found(samples, tmp_path):
    return quality.find(samples, facts(samples, tmp_path / "facts"))


def keys(outcome, what):
    return sorted(finding.place.key for finding in outcome.findings if finding.what == what)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """40 good pictures, then two of each planted kind: samples, outcome, keys by kind."""
    folder = tmp_path_factory.mktemp("planted")
    images, expected = list(parts(40)), {}
    for what, make in PLANTED.items():
        expected[what] = [f"{len(images) + i:04d}" for i in range(2)]
        images += [make(image) for image in parts(2)]
    samples = written(folder / "out", images, quality=92)
    return samples, found(samples, folder), expected, images


@pytest.mark.parametrize("what", PLANTED)
def test_planted_pictures_are_found_and_good_ones_are_not(planted, what):
    _, outcome, expected, _ = planted
    assert set(expected[what]) <= set(keys(outcome, what))
    # Bright and dark pictures have few levels as well, and hardly a colour.
    others = ("bright", "dark") if what in ("low information", "gray among colour") else ()
    assert set(keys(outcome, what)) <= {key for kind in (what, *others) for key in expected[kind]}


def test_every_finding_says_what_and_why(planted):
    _, outcome, _, _ = planted
    for finding in outcome.findings:
        assert finding.kind == "quality"
        assert finding.what in quality.WHATS
        assert 0.5 <= finding.score <= 1
        assert finding.message.endswith(".")
        assert finding.evidence["limit"] > 0
    scores = [finding.score for finding in outcome.findings]
    assert scores == sorted(scores, reverse=True)
    (blank, _) = (finding for finding in outcome.findings if finding.what == "blank")
    assert blank.proposal == "exclude"
    assert "one colour only" in blank.message


def test_the_distribution_of_each_measure_is_told(planted):
    samples, outcome, expected, _ = planted
    assert json.loads(json.dumps(outcome.figures)) == outcome.figures
    assert set(outcome.figures) == set(quality.WHATS) - {"damaged"}
    dark = outcome.figures["dark"]
    assert sum(dark["counts"]) == dark["of"] == len(samples) - len(expected["blank"])
    assert len(dark["edges"]) == len(dark["counts"]) + 1
    assert (dark["limit"], dark["worse"], dark["found"]) == (quality.DARK_BRIGHT, "below", 2)


def test_cleanvision_names_the_same_pictures(planted, tmp_path):
    cleanvision = pytest.importorskip("cleanvision")
    _, outcome, expected, images = planted
    for number, image in enumerate(images):
        (tmp_path / f"{number:04d}.jpg").write_bytes(encode(image, "JPEG", quality=92))
    with contextlib.redirect_stdout(io.StringIO()):
        lab = cleanvision.Imagelab(data_path=str(tmp_path))
        lab.find_issues({name: {} for name in THEIRS}, n_jobs=1)

    def theirs(name):
        rows = lab.issues[lab.issues[f"is_{name}_issue"]]
        return {path.rpartition("/")[2].removesuffix(".jpg") for path in rows.index}

    for name, whats in THEIRS.items():
        ours = {key for what in whats for key in keys(outcome, what)}
        either = {key for what in EITHER.get(name, ()) for key in expected[what]}
        assert theirs(name) - either == ours - either, name


THEIRS = {
    "dark": ["dark"],
    "light": ["bright"],
    "blurry": ["blurred"],
    "low_information": ["low information", "blank"],
    "grayscale": ["gray among colour"],
    "odd_aspect_ratio": ["odd aspect"],
}
"""Name of an issue there -> names here."""
EITHER = {"blurry": ["blank"], "grayscale": ["bright"]}
"""Name there -> what may be named or not: blank is blurred too, which is said once here; white has hardly a colour."""


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda image, step: image.point(lambda level: level // (8 + 4 * step)), "dark"),
        (lambda image, step: image.filter(ImageFilter.GaussianBlur(6 + 2 * step)), "blurred"),
        (lambda image, step: image.resize((24 - 6 * step, 18 - 4 * step)), "tiny"),
        (lambda image, step: image.resize((400 + 300 * step, 60)), "odd aspect"),
    ],
)
def test_the_worse_a_picture_is_the_higher_is_its_score(tmp_path, make, what):
    images = [*parts(30), *(make(photo().resize(SIZE), step) for step in range(3))]
    outcome = found(written(tmp_path / "out", images), tmp_path)
    rows = sorted((finding.place.key, finding.score) for finding in outcome.findings if finding.what == what)
    assert [key for key, _ in rows] == ["0030", "0031", "0032"]
    scores = [score for _, score in rows]
    assert scores == sorted(scores)
    assert scores[0] < scores[2]


def test_strongly_compressed_jpegs_are_found(tmp_path):
    images = [encode(image, "JPEG", quality=85) for image in parts(15)]
    images += [encode(photo(), "JPEG", quality=quality) for quality in (35, 25, 5)]
    outcome = found(written(tmp_path / "out", images), tmp_path)
    assert keys(outcome, "strongly compressed") == ["0016", "0017"]
    (worst, _) = (finding for finding in outcome.findings if finding.what == "strongly compressed")
    assert (worst.place.key, worst.evidence["jpeg_quality"]) == ("0017", 5)


def test_pictures_that_exif_rotates_are_found(tmp_path):
    images = []
    for number, image in enumerate(parts(12)):
        block = Image.Exif()
        block[0x0112] = {3: 6, 4: 3, 5: 2}.get(number, 1)
        images.append(encode(image, "JPEG", exif=block.tobytes()))
    outcome = found(written(tmp_path / "out", images), tmp_path)
    rows = [(finding.place.key, finding.message) for finding in outcome.findings if finding.what == "rotated"]
    assert rows == [
        ("0003", "The picture is stored on its side (EXIF orientation 6): training sees it so."),
        ("0004", "The picture is stored upside down (EXIF orientation 3): training sees it so."),
        ("0005", "The picture is stored mirrored (EXIF orientation 2): training sees it so."),
    ]
    assert outcome.figures["rotated"]["counts"] == [0, 9, 1, 1, 0, 0, 1, 0, 0]


# --- what is like the dataset is not found --------------------------------------------------------------


def test_what_most_pictures_are_is_no_finding_but_a_note(tmp_path):
    images = [image.point(lambda level: level // 6) for image in parts(30)]
    outcome = found(written(tmp_path / "out", images), tmp_path)
    assert keys(outcome, "dark") == []
    assert any(note.startswith("30 of 30 images are dark: no findings") for note in outcome.notes)
    assert outcome.figures["dark"]["found"] == 30


def test_gray_pictures_are_no_finding_in_a_gray_class_or_split(tmp_path):
    gray_class = [image.convert("L") if number < 4 else image for number, image in enumerate(parts(40))]
    samples = written(tmp_path / "class", gray_class, labels=[0] * 4 + [1] * 36)
    outcome = found(samples, tmp_path)
    assert keys(outcome, "gray among colour") == []
    assert any(note.startswith("4 of 40 images are gray, as others of their split or class") for note in outcome.notes)
    mixed = [image.convert("L") if number % 3 else image for number, image in enumerate(parts(30))]
    assert keys(found(written(tmp_path / "split", mixed), tmp_path), "gray among colour") == []


def test_a_set_of_small_pictures_has_no_tiny_ones(tmp_path):
    outcome = found(written(tmp_path / "out", parts(12, (32, 32))), tmp_path)
    assert [finding for finding in outcome.findings if finding.what in ("tiny", "blurred", "odd aspect")] == []


# --- bad images, and few --------------------------------------------------------------------------------


def test_damaged_images_are_found_and_counted_by_reason(tmp_path):
    folder = loaders.dataset(tmp_path, {3: loaders.damaged(3), 7: loaders.damaged(7)}, 20)
    samples = samples_of([open_view(imgdata.open(folder), "train")])
    outcome = found(samples, tmp_path)
    damaged = [finding for finding in outcome.findings if finding.what == "damaged"]
    assert [(finding.place.position, finding.score, finding.proposal) for finding in damaged] == [
        (3, 1.0, "exclude"),
        (7, 1.0, "exclude"),
    ]
    assert damaged[0].message.startswith("The image can't be used: truncated: ")
    assert "2 of 20 images can't be used, and are in no other check: 2 truncated." in outcome.notes
    others = [finding for finding in outcome.findings if finding.what != "damaged"]
    assert not {3, 7} & {finding.place.position for finding in others}


@pytest.mark.parametrize("image", [Image.new("RGB", (1, 1)), photo(), photo().convert("L")])
def test_a_single_picture_can_be_looked_at(tmp_path, image):
    progress = []
    samples = written(tmp_path / "out", [image])
    outcome = quality.find(samples, facts(samples, tmp_path / "facts"), lambda *told: progress.append(told))
    assert progress[-1][0] == progress[-1][1]
    assert "gray among colour" not in {finding.what for finding in outcome.findings}


def test_nothing_is_found_where_no_image_can_be_used(tmp_path):
    folder = loaders.dataset(tmp_path, {number: loaders.damaged(number) for number in range(6)}, 6)
    samples = samples_of([open_view(imgdata.open(folder), "train")])
    assert {finding.what for finding in found(samples, tmp_path).findings} == {"damaged"}
