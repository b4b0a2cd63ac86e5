"""What is measured of encoded images, whichever decoder makes their pixels."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from imgdata import native
from imgdata.auditing.jpeg_quality import jpeg_quality
from imgdata.auditing.pixels import FIGURES, look, pixel_hash, scaled_by, upright
from imgdata.errors import ImageError
from imgdata.images.probe import probe
from support.pictures import cmyk_jpeg, encode, exif, jpeg, photo, photo_file


@pytest.fixture(params=["compiled", "not compiled"], autouse=True)
def decoder(request, monkeypatch):
    """The compiled module where there is one, and without it."""
    if request.param == "not compiled":
        monkeypatch.setattr(native, "AVAILABLE", False)
    elif not native.AVAILABLE:
        pytest.skip("the extension was not built")


def looked(*files, **options):
    infos = [probe(file) for file in files]
    return look(
        files,
        formats=[info.format for info in infos],
        size_B2=np.array([(info.width, info.height) for info in infos], np.int32),
        orientation_B=np.array([info.orientation for info in infos], np.uint8),
        **options,
    )


def figure(pixels, name, row=0):
    return float(pixels.figure_BxF[row, FIGURES.index(name)])


def large_photo():
    with Image.open(photo_file("sklearn", "datasets/images/china.jpg")) as image:
        return image.convert("RGB").resize((500, 375))


def apart(one, other):
    return np.abs(one.astype(float) - other.astype(float)).mean()


FILES = {
    "JPEG": jpeg(quality=95),
    "gray JPEG": jpeg("L", quality=95),
    "progressive JPEG": jpeg(quality=95, progressive=True),
    "CMYK JPEG": cmyk_jpeg(2),
    "JPEG of rare chroma": encode(photo(), "JPEG", quality=95, subsampling="4:1:1"),
    "PNG": encode(photo(), "PNG"),
    "gray PNG": encode(photo().convert("L"), "PNG"),
    "palette": encode(photo().quantize(200), "PNG"),
    "bilevel": encode(photo().convert("1"), "PNG"),
    "BMP": encode(photo(), "BMP"),
}


@pytest.mark.parametrize("name", FILES)
def test_thumbnails_are_those_that_pillow_makes_of_the_whole_picture(name):
    pixels = looked(FILES[name])
    with Image.open(io.BytesIO(FILES[name])) as image:
        whole = image.convert("RGB")
    assert pixels.bad == {}
    luma = np.asarray(whole.convert("L").resize((64, 64), Image.Resampling.BICUBIC))
    colour = np.asarray(whole.resize((16, 16), Image.Resampling.BICUBIC))
    assert apart(pixels.luma_BxHxW[0], luma) < 1.5
    assert apart(pixels.colour_BxHxWx3[0], colour) < 2.5


def test_a_large_picture_is_measured_at_the_scale_of_a_small_one():
    small = large_photo()
    large = small.resize((2000, 1500), Image.Resampling.BICUBIC)
    one, other = (looked(encode(image, "JPEG", quality=95)) for image in (small, large))
    assert apart(one.luma_BxHxW, other.luma_BxHxW) < 1.5
    for name in ("brightness", "dark", "bright", "contrast", "colourfulness", "red", "green", "blue", "border"):
        assert figure(one, name) == pytest.approx(figure(other, name), abs=0.03), name
    # The large one has no more detail, and its scaled one a little less.
    assert 0.6 < figure(other, "sharpness") / figure(one, "sharpness") <= 1.1


@pytest.mark.parametrize(
    ("size", "shrink"),
    [((500, 375), 4), ((79, 79), 1), ((159, 1000), 1), ((160, 160), 2), ((1280, 2000), 16), ((1, 1), 1), ((90, 9), 1)],
)
def test_sides_are_halved_as_long_as_the_shorter_one_keeps_80_pixels(size, shrink):
    assert scaled_by(*size) == shrink


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_thumbnails_are_upright(orientation, format):
    block = Image.Exif()
    block[0x0112] = orientation
    data = encode(photo(), format, exif=block.tobytes(), **({"quality": 95} if format == "JPEG" else {}))
    shown = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    pixels = looked(data)
    assert probe(data).orientation == orientation
    assert apart(pixels.luma_BxHxW[0], np.asarray(shown.convert("L").resize((64, 64), 3))) < 1.5
    assert apart(pixels.colour_BxHxWx3[0], np.asarray(shown.resize((16, 16), 3))) < 2.5
    np.testing.assert_array_equal(
        upright(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), orientation), np.asarray(shown)
    )


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (3, 3), (1, 900), (3000, 2)])
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_pictures_of_odd_sizes_have_figures(size, format):
    pixels = looked(encode(Image.new("RGB", size, (200, 30, 30)), format))
    assert pixels.bad == {}
    assert np.isfinite(pixels.figure_BxF).all()
    assert figure(pixels, "red") == pytest.approx(200 / 255, abs=0.02)
    assert figure(pixels, "contrast") == pytest.approx(0, abs=0.01)


def test_figures_say_what_is_seen():
    black, white = Image.new("RGB", (200, 150)), Image.new("RGB", (200, 150), "white")
    framed = photo().copy()
    for box in ((0, 0, 160, 10), (0, 110, 160, 120), (0, 0, 10, 120), (150, 0, 160, 120)):
        framed.paste((255, 255, 255), box)
    images = [photo(), black, white, framed, photo().convert("L")]
    pixels = looked(*(encode(image, "PNG") for image in images))
    value = {name: pixels.figure_BxF[:, FIGURES.index(name)].tolist() for name in FIGURES}
    assert (value["brightness"][1], value["brightness"][2]) == pytest.approx((0, 1))
    assert (value["bright"][1], value["dark"][2]) == (0, 1)
    assert value["entropy"][1] == 0
    assert 6 < value["entropy"][0] < 8
    assert value["border"][3] > 0.9
    assert value["border"][0] < 0.7
    assert value["colourfulness"][4] == pytest.approx(0, abs=1e-6)
    assert value["colourfulness"][0] > 0.1
    mean = np.asarray(photo()).mean(axis=(0, 1)) / 255
    assert [value[name][0] for name in ("red", "green", "blue")] == pytest.approx(mean.tolist(), abs=0.01)


def test_sharpness_falls_with_every_blur_and_not_with_contrast():
    image = large_photo()
    blurred = [image.filter(ImageFilter.GaussianBlur(radius)) for radius in (0, 2, 4, 8, 16)]
    sharpness = [figure(looked(encode(one, "JPEG", quality=95)), "sharpness") for one in blurred]
    assert sharpness == sorted(sharpness, reverse=True)
    assert sharpness[0] > 0.3
    assert sharpness[3] < 0.1
    pale = image.point(lambda level: 100 + level // 8)
    assert figure(looked(encode(pale, "JPEG", quality=95)), "sharpness") > 0.3


def test_both_decoders_agree(monkeypatch):
    files = [encode(large_photo(), "JPEG", quality=90), jpeg(), jpeg("L")]
    one = looked(*files)
    monkeypatch.setattr(native, "AVAILABLE", False)
    other = looked(*files)
    assert apart(one.luma_BxHxW, other.luma_BxHxW) < 0.1
    assert apart(one.colour_BxHxWx3, other.colour_BxHxWx3) < 1.5
    assert np.abs(one.figure_BxF - other.figure_BxF).max() < 0.05


# --- bad images ----------------------------------------------------------------------------------------


def test_bad_images_have_reasons_and_leave_the_others_alone():
    good, cut = jpeg(), jpeg()[:-300]
    pixels = look(
        [good, cut, b"no image at all", encode(photo(), "PNG"), jpeg("L")],
        formats=["jpeg", "jpeg", "jpeg", "jpeg", "jpeg"],
        size_B2=np.array([(160, 120), (160, 120), (160, 120), (160, 120), (99, 99)], np.int32),
        orientation_B=np.ones(5, np.uint8),
    )
    assert {row: error.reason for row, error in pixels.bad.items()} == {
        1: "truncated",
        2: "not-an-image",
        3: "corrupt",
        4: "corrupt",
    }
    assert "the index says jpeg of 160 x 120" in str(pixels.bad[3])
    np.testing.assert_array_equal(pixels.luma_BxHxW[0], looked(good).luma_BxHxW[0])
    assert not pixels.figure_BxF[1:].any()


def test_images_larger_than_allowed_are_not_decoded():
    assert looked(jpeg(), encode(photo(), "PNG"), max_pixels=160 * 120).bad == {}
    bad = looked(jpeg(), encode(photo(), "PNG"), max_pixels=160 * 120 - 1).bad
    assert {row: error.reason for row, error in bad.items()} == {0: "too-large", 1: "too-large"}


def test_an_image_whose_size_the_index_does_not_know_is_bad():
    pixels = look([b"?"], formats=["unknown"], size_B2=np.zeros((1, 2), np.int32), orientation_B=np.ones(1, np.uint8))
    assert pixels.bad[0].reason == "not-an-image"


# --- all pixels ----------------------------------------------------------------------------------------


def test_pixel_hashes_are_equal_for_equal_pixels_alone():
    stored = encode(photo(), "PNG", compress_level=1)
    saved_anew = encode(photo(), "PNG", compress_level=9)
    rotated = Image.Exif()
    rotated[0x0112] = 6
    on_its_side = encode(photo().transpose(Image.Transpose.ROTATE_90), "PNG", exif=rotated.tobytes())
    assert stored != saved_anew
    assert pixel_hash(stored) == pixel_hash(saved_anew) == pixel_hash(on_its_side)
    assert pixel_hash(stored) != pixel_hash(encode(photo().crop((0, 0, 159, 120)), "PNG"))
    # As many pixels of one colour, in another shape.
    assert pixel_hash(encode(Image.new("RGB", (6, 4)), "PNG")) != pixel_hash(encode(Image.new("RGB", (4, 6)), "PNG"))


def test_a_jpeg_without_its_metadata_has_the_same_pixels():
    assert pixel_hash(jpeg(exif=exif(1), comment=b"by a camera")) == pixel_hash(jpeg())


def test_a_damaged_image_has_no_pixel_hash():
    with pytest.raises(ImageError, match="truncated"):
        pixel_hash(jpeg()[:-300])
    with pytest.raises(ImageError, match="too-large"):
        pixel_hash(jpeg(), max_pixels=100)


# --- quality of JPEGs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_quality_that_a_jpeg_was_saved_with_is_found(mode):
    assert [jpeg_quality(jpeg(mode, quality=quality)) for quality in range(1, 101)] == list(range(1, 101))


def test_the_nearest_quality_is_found_of_tables_of_ones_own():
    table = [min(255, 3 + index) for index in range(64)]
    found = jpeg_quality(encode(photo(), "JPEG", qtables=[table, table]))
    assert 70 < found < 95
    twice = [min(255, 2 * value) for value in table]
    assert jpeg_quality(encode(photo(), "JPEG", qtables=[twice, twice])) < found


def test_a_progressive_jpeg_has_a_quality():
    assert jpeg_quality(jpeg(quality=42, progressive=True)) == 42


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", jpeg()[:20], encode(photo(), "PNG"), b"\xff\xd8\xff\xdb\0\3\0\xff\xc0"]
)
def test_what_has_no_table_has_no_quality(data):
    assert jpeg_quality(data) == 0
