"""imgdata.images.encode: full checks, odd pictures made plain, resizes and new encodings."""

import io
import random
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from imgdata import native
from imgdata.errors import ImageError, OptionError
from imgdata.images.decode import check, refuse_large
from imgdata.images.encode import Encoding, extension_of, needs_encoding, needs_repair, oddities, reencode, repair
from imgdata.images.info import ImageInfo
from imgdata.images.jpeg import STRAY_BYTES
from imgdata.images.probe import probe
from support.pictures import (
    EXTENSIONS,
    FORMATS,
    animation,
    bomb,
    chunk,
    cmyk_jpeg,
    encode,
    exif,
    jpeg,
    palette_with_alpha,
    photo,
    photo_file,
    png16,
    present,
    rgba,
    with_segment,
)

GOOD = present(
    {
        "jpeg": jpeg(quality=95),
        "jpeg progressive": jpeg(progressive=True),
        "jpeg with restarts": jpeg(restart_marker_blocks=2),
        "jpeg gray": jpeg("L"),
        "jpeg cmyk": cmyk_jpeg(0),
        "jpeg ycck": cmyk_jpeg(2),
        "jpeg 1 x 1": encode(photo().resize((1, 1)), "JPEG"),
        "png": encode(photo(), "PNG"),
        "png rgb 16": png16(2, 3),
        "png palette alpha": palette_with_alpha(),
        "webp": encode(photo(), "WEBP"),
        "webp lossless": encode(rgba(), "WEBP", lossless=True),
        "gif": encode(photo(), "GIF"),
        "bmp": encode(photo(), "BMP"),
        "tiff": encode(photo(), "TIFF"),
        "animated gif": animation("GIF"),
        "animated png": animation("PNG"),
        "animated webp": animation("WEBP"),
    }
)


@pytest.fixture(
    scope="module",
    autouse=True,
    params=[
        pytest.param(True, marks=pytest.mark.skipif(not native.AVAILABLE, reason="the extension was not built")),
        False,
    ],
    ids=["native", "python"],
)
def _both_ways(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run every test twice: with the compiled way from JPEG to JPEG, and without."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "AVAILABLE", request.param)
        yield


def checked(data: bytes) -> ImageInfo:
    info = probe(data)
    refuse_large(info, 4_000_000)
    check(data, info)
    return info


def found_odd(data: bytes) -> bool:
    """Return whether the image is refused, or noted as one that may be damaged."""
    try:
        return check(data, probe(data)) == (STRAY_BYTES,)
    except ImageError as error:
        return error.reason in ("truncated", "corrupt")


def pixels(data: bytes) -> NDArray[np.int16]:
    """Return the pixels as Pillow decodes them: int16 `(H, W)` or `(H, W, 3)`."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image).astype(np.int16)


def remade(data: bytes, *, extension: str = "png", **encoding: Any) -> tuple[bytes, ImageInfo]:
    """Return the result of `reencode`, after a new probe gave the same header facts."""
    encoded, info = reencode(data, probe(data), Encoding(**encoding), extension=extension)
    assert probe(encoded) == info
    assert oddities(info) == ()
    return encoded, info


def remade_if_small(data: bytes) -> None:
    info = probe(data)
    refuse_large(info, 4_000_000)
    reencode(data, info, Encoding(), extension="png")
    reencode(data, info, Encoding(resize=32), extension="jpg")


# --- check --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", GOOD.values(), ids=GOOD)
def test_good_images_pass(data: bytes) -> None:
    # Asserts nothing: a bad image raises.
    checked(data)


@pytest.mark.parametrize(
    "path",
    [
        *sorted(photo_file("skimage", "data").glob("*.jpg")),
        *sorted(photo_file("skimage", "data").glob("*.png")),
        *sorted(photo_file("sklearn", "datasets/images").glob("*.jpg")),
        *sorted(photo_file("foolbox", "data").glob("imagenet_0*")),
    ],
    ids=lambda path: path.name,
)
def test_photographs_of_packages_pass(path: Path) -> None:
    # Asserts nothing: a bad image raises.
    checked(path.read_bytes())


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9, -100, -3, -1])
@pytest.mark.parametrize(
    "name", sorted(GOOD.keys() - {"gif", "tiff", "jpeg 1 x 1"} - {name for name in GOOD if name.startswith("animated")})
)
def test_truncated_images_are_refused_wherever_they_end(name: str, part: float) -> None:
    data = GOOD[name]
    cut = data[: int(len(data) * part) if 0 < part < 1 else int(part)]
    with pytest.raises(ImageError, match="truncated") as caught:
        checked(cut)
    assert caught.value.reason == "truncated"


@pytest.mark.parametrize("name", ["gif", "tiff"])
def test_truncated_images_of_other_formats_are_refused(name: str) -> None:
    with pytest.raises(ImageError, match=r"truncated|corrupt"):
        checked(GOOD[name][: len(GOOD[name]) // 2])


@pytest.mark.parametrize("name", ["jpeg", "jpeg progressive", "jpeg with restarts", "jpeg cmyk"])
def test_overwritten_stretches_of_jpegs_are_found(name: str) -> None:
    # Not every flipped bit can be found: JPEG has no checksum, and most bit strings decode to something.
    data = GOOD[name]
    middle = len(data) // 2
    for noise in (bytes(400), b"\x5a\xa5\x0f" * 133, b"\xff\xd8\xff\xe0" * 100):
        assert found_odd(data[:middle] + noise + data[middle + len(noise) :])


def test_a_missing_piece_of_a_jpeg_is_found_where_pillow_is_silent() -> None:
    data = GOOD["jpeg"]
    middle = len(data) // 2
    data = data[:middle] + data[middle + 64 :].replace(b"\xff\xd9", bytes(range(1, 65)) * 20 + b"\xff\xd9")
    assert pixels(data).shape == (120, 160, 3)
    assert found_odd(data)


@pytest.mark.parametrize("at", [0.2, 0.5, 0.8])
def test_any_flipped_bit_of_a_png_is_found(at: float) -> None:
    data = bytearray(GOOD["png"])
    data[int(len(data) * at)] ^= 0x10
    with pytest.raises(ImageError, match="corrupt: PNG checksum is wrong for chunk b'IDAT' at byte 33"):
        checked(bytes(data))


def test_a_png_with_right_checksums_but_half_its_pixels_is_refused() -> None:
    data = GOOD["png"]
    start = data.index(b"IDAT") + 4
    pixel_data = data[start : start + int.from_bytes(data[start - 8 : start - 4], "big")]
    with pytest.raises(ImageError, match="truncated"):
        checked(data[:33] + chunk(b"IDAT", pixel_data[: len(pixel_data) // 2]) + chunk(b"IEND", b""))


def before(marker: bytes, inserted: bytes) -> bytes:
    data: bytes = GOOD["jpeg"]
    at = data.rindex(marker)
    return data[:at] + inserted + data[at:]


HARMLESS = {
    "garbage behind the end": GOOD["jpeg"] + b"<!-- cached -->" * 9,
    "a second picture behind the end": GOOD["jpeg"] + GOOD["jpeg"][:500],
    "fill bytes": before(b"\xff\xda", b"\xff\xff\xff"),
    "garbage before the tables": before(b"\xff\xc4", b"garbage"),
    "garbage before the scan": before(b"\xff\xda", b"\x12\x34\x56"),
    "zeros before the end": before(b"\xff\xd9", bytes(700)),
    "fill bytes before the end": before(b"\xff\xd9", b"\xff" * 700),
    "an unknown JFIF version": GOOD["jpeg"].replace(b"JFIF\0\1", b"JFIF\0\7"),
    "an unknown Adobe transform": with_segment(GOOD["jpeg"], 0xEE, b"Adobe\0\x64\0\0\0\0\x09"),
    "odd scan parameters": GOOD["jpeg"].replace(b"\3\x11\0\x3f\0", b"\3\x11\0\0\0"),
    "a damaged colour profile": with_segment(GOOD["jpeg"], 0xE2, b"ICC_PROFILE\0\7\2" + bytes(20)),
    "garbage, and zeros before the end": before(b"\xff\xd9", bytes(9)).replace(b"\xff\xda", b"x\xff\xda"),
}


@pytest.mark.parametrize("data", HARMLESS.values(), ids=HARMLESS)
def test_faults_that_touch_no_pixel_are_no_reason_to_refuse(data: bytes) -> None:
    assert data != GOOD["jpeg"]
    checked(data)
    same, _ = remade(data)
    assert same == remade(GOOD["jpeg"])[0]


def test_a_harmless_fault_does_not_hide_a_real_one() -> None:
    data = GOOD["jpeg"].replace(b"JFIF\0\1", b"JFIF\0\7")
    with pytest.raises(ImageError, match="corrupt"):
        checked(data[: len(data) // 2] + b"\xff\xd8" * 200 + data[len(data) // 2 + 400 :])


def test_rgb_jpegs_with_harmless_faults_keep_their_colours() -> None:
    clean = jpeg(keep_rgb=True, quality=95)
    at = clean.rindex(b"\xff\xda")
    assert remade(clean[:at] + b"garbage" + clean[at:])[0] == remade(clean)[0]


def test_jpegs_with_12_bits_are_unsupported() -> None:
    data = bytearray(GOOD["jpeg"])
    data[data.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(ImageError, match="unsupported: JPEG with 12 bits"):
        checked(bytes(data))


def test_bombs_are_refused_by_their_header_and_memory_stays_flat() -> None:
    data = bomb()
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match="too-large: 60000 x 60000 pixels, the limit is 100000000") as caught:
            refuse_large(probe(data), 100_000_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.reason == "too-large"
    assert peak < 1_000_000


def test_images_beyond_pillows_own_limit_are_judged_by_ours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    # As if they were huge: Pillow would warn above this number of pixels, and refuse above twice as many.
    # Asserts nothing: Pillow's refusal would raise.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5_000)
    for name in ("jpeg", "jpeg cmyk", "png", "bmp"):
        info = checked(GOOD[name])
        refuse_large(info, 160 * 120)
        reencode(GOOD[name], info, Encoding(resize=32), extension="jpg")


@settings(deadline=None)
@given(st.sampled_from(list(GOOD.values())), st.randoms(use_true_random=False), st.booleans())
def test_damaged_images_pass_or_are_refused_alike_by_check_and_reencode(
    data: bytes, rng: random.Random, cut: bool
) -> None:
    damaged = bytearray(data[: rng.randrange(len(data))] if cut else data)
    for _ in range(rng.randint(0, 4)):
        if damaged:
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    try:
        checked(bytes(damaged))
        fine = True
    except ImageError:
        fine = False
    if fine:
        remade_if_small(bytes(damaged))
    else:
        with pytest.raises(ImageError):
            remade_if_small(bytes(damaged))


def test_threads_do_not_disturb_each_other() -> None:
    def work(name: str) -> bytes:
        return remade(GOOD[name], extension="jpg", resize=50)[0]

    names = sorted(GOOD) * 4
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, names)) == [work(name) for name in names]


# --- oddities and repair ------------------------------------------------------------------------------


ODD = present(
    {
        "plain jpeg": (jpeg(), (), False),
        "gray": (jpeg("L"), (), False),
        "black and white": (encode(photo().convert("1"), "PNG"), (), False),
        "palette": (encode(photo().quantize(99), "PNG"), ("palette",), False),
        "cmyk": (cmyk_jpeg(0), ("cmyk",), True),
        "ycck": (cmyk_jpeg(2), ("cmyk",), True),
        "16-bit": (png16(2, 3), ("16-bit",), True),
        "16-bit gray": (png16(0, 1), ("16-bit",), True),
        "16-bit alpha": (png16(6, 4), ("16-bit", "alpha"), True),
        "alpha": (encode(rgba(), "PNG"), ("alpha",), True),
        "gray alpha": (encode(rgba().convert("LA"), "PNG"), ("alpha",), True),
        "webp alpha": (encode(rgba(), "WEBP"), ("alpha",), True),
        "palette alpha": (palette_with_alpha(), ("palette", "alpha"), True),
        "animated gif": (animation("GIF"), ("palette", "animated"), True),
        "animated png": (animation("PNG"), ("animated",), True),
        "animated webp": (animation("WEBP"), ("animated",), True),
        "rotated": (jpeg(exif=exif(6)), ("rotated",), True),
    }
)


@pytest.mark.parametrize(("data", "expected", "to_repair"), ODD.values(), ids=ODD)
def test_oddities_are_named_and_repaired(data: bytes, expected: tuple[str, ...], to_repair: bool) -> None:
    info = probe(data)
    assert oddities(info) == expected
    assert needs_repair(info) == to_repair
    for extension in EXTENSIONS:
        encoded, after = repair(data, info, extension=extension, quality=90)
        assert probe(encoded) == after
        assert extension_of(after.format) == extension
        assert oddities(after) == ()
        assert (after.width, after.height) == info.upright_size
        checked(encoded)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", FORMATS)
def test_rotated_images_become_what_pillow_shows_upright(format: str, orientation: int) -> None:
    data = encode(photo(), format, exif=exif(orientation))
    encoded, info = remade(data)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image)).astype(np.int16)
    assert (info.height, info.width) == expected.shape[:2]
    # The two carry different versions of libjpeg-turbo.
    assert np.abs(pixels(encoded) - expected).max() <= (1 if format == "JPEG" else 0)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_resize_counts_upright_sides(orientation: int) -> None:
    data = encode(photo().crop((0, 0, 160, 80)), "JPEG", exif=exif(orientation))
    _, info = remade(data, resize=40)
    assert (info.width, info.height) == ((80, 40) if orientation < 5 else (40, 80))


@pytest.mark.parametrize("transform", [0, 2, None])
def test_cmyk_becomes_the_rgb_that_pillow_shows(transform: int | None) -> None:
    data = cmyk_jpeg(transform)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("RGB")).astype(np.int16)
    assert np.array_equal(pixels(remade(data)[0]), expected)


def test_inverted_cmyk_of_adobe_looks_like_the_photograph() -> None:
    assert np.abs(pixels(remade(cmyk_jpeg(0))[0]) - np.asarray(photo()).astype(np.int16)).mean() < 5


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3)])
def test_16_bits_are_scaled_not_clipped(colour: int, channels: int) -> None:
    encoded, info = remade(png16(colour, channels))
    assert info.mode == ("L" if channels == 1 else "RGB")
    row = pixels(encoded)[0].reshape(64, channels)
    expected = np.linspace(0, 255, 64)[:, None]
    assert np.abs(row - expected).max() <= 1
    assert row[0].tolist() == [0] * channels
    assert row[-1].tolist() == [255] * channels


def test_gray_of_16_bits_in_tiff_is_scaled_for_both_byte_orders() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(2, axis=0)
    for dtype in ("<u2", ">u2"):
        data = encode(Image.fromarray(ramp.astype(dtype)), "TIFF")
        assert np.array_equal(pixels(remade(data)[0])[0], np.arange(256))


def test_float_pixels_are_unsupported() -> None:
    with pytest.raises(ImageError, match="unsupported: gray values beyond 16 bits"):
        remade(encode(Image.new("F", (4, 4), 0.5), "TIFF"))


@pytest.mark.parametrize(
    "data",
    [
        encode(Image.new("RGBA", (8, 8), (200, 0, 0, 0)), "PNG"),
        encode(Image.new("LA", (8, 8), (7, 0)), "PNG"),
        encode(photo().quantize(16), "PNG", transparency=bytes(16)),
        encode(Image.new("RGB", (8, 8), (1, 2, 3)), "PNG", transparency=(1, 2, 3)),
    ],
)
def test_transparent_pixels_become_white(data: bytes) -> None:
    assert pixels(remade(data)[0]).min() == 255


def test_half_transparent_pixels_are_mixed_with_white() -> None:
    data = encode(Image.new("RGBA", (8, 8), (100, 0, 255, 128)), "PNG")
    assert np.abs(pixels(remade(data)[0])[0, 0] - (177, 127, 255)).max() <= 1


@pytest.mark.parametrize("format", FORMATS[1:])
def test_the_first_frame_of_an_animation_is_kept(format: str) -> None:
    expected = pixels(encode(photo(), format))
    assert np.abs(pixels(remade(animation(format))[0]) - expected).mean() < 5


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("source", [jpeg("L"), encode(rgba().convert("LA"), "PNG"), png16(0, 1)])
def test_gray_stays_gray_where_the_format_has_gray(source: bytes, extension: str) -> None:
    assert remade(source, extension=extension)[1].mode == ("RGB" if extension == "webp" else "L")


# --- encode anew --------------------------------------------------------------------------------------

Mode = Literal["shorter", "longer", "exact"]
SIZES: list[tuple[tuple[int, int], int, Mode, bool, tuple[int, int]]] = [
    ((500, 375), 256, "shorter", False, (341, 256)),  # 341.33, cut as torchvision does
    ((375, 500), 256, "shorter", False, (256, 341)),
    ((500, 375), 256, "longer", False, (256, 192)),
    ((500, 375), 256, "exact", False, (256, 256)),
    ((300, 300), 256, "shorter", False, (256, 256)),
    ((200, 300), 256, "shorter", False, (200, 300)),  # never enlarged unless asked
    ((200, 300), 256, "shorter", True, (256, 384)),
    ((200, 100), 256, "longer", False, (200, 100)),
    ((200, 100), 256, "longer", True, (256, 128)),
    ((200, 300), 256, "exact", False, (200, 256)),
    ((200, 300), 256, "exact", True, (256, 256)),
    ((256, 300), 256, "shorter", False, (256, 300)),
    ((1000, 2), 16, "longer", False, (16, 1)),  # at least one pixel
]


@pytest.mark.parametrize(("size", "resize", "mode", "upscale", "expected"), SIZES)
def test_sizes_after_the_resize(
    size: tuple[int, int], resize: int, mode: Mode, upscale: bool, expected: tuple[int, int]
) -> None:
    encoding = Encoding(resize=resize, resize_mode=mode, upscale=upscale)
    data = encode(photo().resize(size), "JPEG")
    _, info = reencode(data, probe(data), encoding, extension="jpg")
    assert (info.width, info.height) == expected
    assert needs_encoding(probe(data), encoding) == (size != expected)


@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 500))
def test_shorter_and_longer_keep_the_proportions(width: int, height: int, resize: int) -> None:
    info = ImageInfo("png", width, height, "L", 8)
    data = encode(Image.new("L", (width, height)), "PNG", compress_level=1)
    for mode, named in (("shorter", min), ("longer", max)):
        encoding = Encoding(resize=resize, resize_mode=mode)  # type: ignore[arg-type]
        _, after = reencode(data, info, encoding, extension="png")
        assert named(after.width, after.height) == min(resize, named(width, height))
        assert after.width <= width
        assert after.height <= height
        factor = named(after.width, after.height) / named(width, height)
        assert abs(after.width - width * factor) <= 1
        assert abs(after.height - height * factor) <= 1


@pytest.mark.parametrize(
    ("format", "encoding", "expected"),
    [
        ("jpeg", Encoding(), False),
        ("png", Encoding(), False),
        ("webp", Encoding(), False),
        ("gif", Encoding(), True),
        ("bmp", Encoding(format="keep"), True),
        ("jpeg", Encoding(format="jpg"), False),
        ("jpeg", Encoding(format="jpg", quality=50), False),
        ("jpeg", Encoding(format="png"), True),
        ("webp", Encoding(format="jpg"), True),
        ("jpeg", Encoding(resize=100), False),
        ("jpeg", Encoding(resize=99), True),
        ("jpeg", Encoding(resize=101), False),
        ("jpeg", Encoding(resize=101, upscale=True), True),
        ("jpeg", Encoding(resize=150, resize_mode="longer"), False),
        ("jpeg", Encoding(resize=100, resize_mode="exact"), True),
    ],
)
def test_bytes_are_kept_unless_an_option_asks_otherwise(format: str, encoding: Encoding, expected: bool) -> None:
    assert needs_encoding(ImageInfo(format, 150, 100, "RGB", 8), encoding) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "gif"}, "format must be keep, jpg, png or webp, got 'gif'"),
        ({"resize_mode": "fit"}, "resize mode must be shorter, longer or exact, got 'fit'"),
        ({"resize": 0}, "resize must be 1 to 16383 pixels, got 0"),
        ({"resize": 20_000}, "resize must be 1 to 16383 pixels, got 20000"),
        ({"quality": 0}, "quality must be 1 to 100, got 0"),
        ({"quality": 101}, "quality must be 1 to 100, got 101"),
    ],
)
def test_options_without_meaning_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Encoding(**options)


def test_an_unknown_extension_is_refused() -> None:
    with pytest.raises(OptionError, match="extension must be one of jpg, png, webp, got 'gif'"):
        reencode(jpeg(), probe(jpeg()), Encoding(), extension="gif")


def test_a_format_that_this_pillow_cannot_write_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(Image.SAVE, "WEBP", raising=False)
    with pytest.raises(OptionError, match="this build of Pillow can't write webp; choose jpg or png"):
        Encoding(format="webp")
    with pytest.raises(OptionError, match="this build of Pillow can't write webp"):
        repair(jpeg(), probe(jpeg()), extension="webp")


def test_sides_that_a_format_cannot_hold_are_refused() -> None:
    data = encode(Image.new("L", (66_000, 1)), "PNG")
    with pytest.raises(ImageError, match="too-large: 66000 x 1 pixels, jpg holds 65500 a side"):
        remade(data, extension="jpg")


@pytest.mark.parametrize(("name", "extension"), [("jpeg", "jpg"), ("png", "png"), ("bmp", "png")])
def test_the_resize_is_antialiased(name: str, extension: str) -> None:
    # Stripes one pixel wide: taking every fourth pixel would give black or white, averaging gives gray.
    stripes = Image.fromarray(np.tile(np.array([[0, 255]], np.uint8), (200, 100)))
    data = encode(stripes, name.upper())
    result = pixels(remade(data, extension=extension, resize=50)[0])
    assert np.abs(result - 127.5).max() < 12


@pytest.mark.parametrize("factor", [1.5, 2, 3, 4.5, 9])
def test_jpegs_shrunk_while_decoding_look_like_those_shrunk_afterwards(factor: float) -> None:
    with Image.open(photo_file("sklearn", "datasets/images/china.jpg")) as image:
        large = image.convert("RGB")
    data = encode(large, "JPEG", quality=95)
    lossless = encode(Image.fromarray(pixels(data).astype(np.uint8)), "PNG")
    resize = int(min(large.size) / factor)
    difference = pixels(remade(data, resize=resize)[0]) - pixels(remade(lossless, resize=resize)[0])
    # 34 dB is the loss of quality 90 on this picture.
    assert np.sqrt((difference.astype(float) ** 2).mean()) < 5


def test_quality_and_chroma_follow_the_option() -> None:
    sizes = [len(remade(GOOD["png"], extension="jpg", quality=quality)[0]) for quality in (50, 90, 91, 98)]
    assert sizes == sorted(sizes)
    assert sizes[2] > 1.15 * sizes[1]  # 4:4:4 begins


@pytest.mark.skipif("webp" not in EXTENSIONS, reason="this Pillow has no WebP")
def test_quality_of_webp_follows_the_option() -> None:
    low, high = (len(remade(GOOD["png"], extension="webp", quality=quality)[0]) for quality in (50, 95))
    assert high > 1.5 * low


def test_png_is_lossless() -> None:
    assert np.array_equal(pixels(remade(GOOD["bmp"])[0]), np.asarray(photo()))


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_the_same_input_gives_the_same_bytes(extension: str) -> None:
    assert remade(GOOD["jpeg"], extension=extension, resize=60) == remade(GOOD["jpeg"], extension=extension, resize=60)


def test_metadata_is_dropped() -> None:
    data = jpeg(exif=exif(6), comment=b"secret")
    for extension in EXTENSIONS:
        encoded, info = remade(data, extension=extension)
        assert b"secret" not in encoded
        assert info.orientation == 1
