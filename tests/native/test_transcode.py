"""imgdata.native: the symbols of a JPEG are coded anew, as libjpeg codes them, whichever way they are read."""

import hashlib
import io
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imgdata import native
from support.native_crops import SAMPLINGS, encode, gentle

pytestmark = pytest.mark.skipif(not native.AVAILABLE, reason="the extension was not built")


def ready(data: bytes, *, interval: int = 0) -> tuple[bytes, int]:
    """`make_crop_ready`, where it has to take the file."""
    result = native.make_crop_ready(data, interval=interval)
    assert result is not None
    return result


def picture(width: int, height: int, noise: int, seed: int = 0) -> Image.Image:
    """Soft colours and noise: at high qualities its numbers are long, at low ones its blocks end early."""
    soft_HWC = np.asarray(gentle(width, height, seed, 250)).astype(int)
    generator = np.random.Generator(np.random.Philox(key=seed))
    noisy_HWC = soft_HWC + generator.integers(-noise, noise + 1, soft_HWC.shape)
    return Image.fromarray(noisy_HWC.clip(0, 255).astype(np.uint8))


def by_pillow(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


# --- usual files --------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(
    st.integers(1, 130),
    st.integers(1, 70),
    st.sampled_from(["4:4:4", "4:2:2", "4:2:0", "gray"]),
    st.sampled_from([2, 50, 90, 100]),
    st.sampled_from([0, 10, 120]),
    st.sampled_from([{}, {"optimize": True}, {"restart_marker_blocks": 3}, {"restart_marker_rows": 1}]),
    st.sampled_from([0, 1, 5]),
)
def test_a_baseline_file_becomes_what_a_progressive_one_of_the_same_coefficients_becomes(
    width: int,
    height: int,
    sampling: str,
    quality: int,
    noise: int,
    options: dict[str, object],
    interval: int,
) -> None:
    image = picture(width, height, noise)
    how: dict[str, object] = {"quality": quality, "subsampling": sampling}
    if sampling == "gray":
        image, how = image.convert("L"), {"quality": quality}
    # libjpeg reads progressive files.
    baseline, progressive = by_pillow(image, **how, **options), by_pillow(image, **how, progressive=True)
    assert ready(baseline, interval=interval) == ready(progressive, interval=interval)


@pytest.mark.skipif(shutil.which("jpegtran") is None, reason="jpegtran is not installed (Debian: libjpeg-turbo-progs)")
@settings(max_examples=30)
@given(st.integers(1, 90), st.integers(1, 60), st.sampled_from([*SAMPLINGS, "gray"]), st.sampled_from([30, 90, 97]))
def test_jpegtran_writes_the_same_bytes(width: int, height: int, sampling: str, quality: int) -> None:
    image = picture(width, height, 30)
    if sampling == "gray":
        image = image.convert("L")
    original = encode(image, sampling, quality=quality)
    data, interval = ready(original)
    command = ["jpegtran", "-copy", "all", "-optimize", "-restart", f"{interval}B"]
    made = subprocess.run(command, input=original, capture_output=True, check=True).stdout
    assert data == made


def test_files_are_those_of_earlier_versions() -> None:
    images = [picture(width, height, noise) for width, height in ((1, 1), (123, 77)) for noise in (0, 60)]
    originals = [
        by_pillow(image, quality=quality, **options)
        for image in images
        for quality in (20, 97)
        for options in (
            {"subsampling": "4:4:4"},
            {"subsampling": "4:2:2", "optimize": True},
            {"subsampling": "4:2:0", "restart_marker_blocks": 2},
            {"subsampling": "4:1:1"},
            {"keep_rgb": True},
            {"progressive": True},
        )
    ]
    if digest(originals) != "e6f0187f61ed19b8":
        pytest.skip("this version of Pillow encodes pictures otherwise")
    # libjpeg wrote them then.
    assert digest([ready(original)[0] for original in originals]) == "fb8a1611aa8e71ef"


def digest(files: list[bytes]) -> str:
    return hashlib.sha256(b"".join(files)).hexdigest()[:16]


@pytest.mark.parametrize(("sampling", "height"), [("4:2:2", 64), ("4:2:0", 49)])
def test_blocks_behind_the_edge_are_not_kept(sampling: str, height: int) -> None:
    whole = bytearray(by_pillow(picture(64, 64, 60), quality=95, subsampling=sampling))
    frame = whole.index(b"\xff\xc0")
    # As many MCUs, but their last blocks are behind the edges.
    whole[frame + 5 : frame + 9] = bytes((0, height, 0, 50))
    original = bytes(whole)
    data, interval = ready(original)
    assert native.same_coefficients(original, data)
    assert ready(data) == (data, interval)
    assert len(data) < len(original)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), np.asarray(Image.open(io.BytesIO(original))))


# --- unusual files, bit by bit ------------------------------------------------------------------------------

END, ZEROS = 0x00, 0xF0
DC_SYMBOLS = (0, 1, 12)
AC_SYMBOLS = (END, ZEROS, 0x01, 0xE1, 0xF1, 0x30, 0x0B)
"""Run of zeros << 4 | bits of the number behind."""


def segment(marker: int, payload: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(payload) + 2).to_bytes(2) + payload


def codes(kind: int, symbols: tuple[int, ...], length: int) -> bytes:
    """A table in which all codes have the same length."""
    counts = [len(symbols) if bits == length else 0 for bits in range(1, 17)]
    return segment(0xC4, bytes((kind, *counts, *symbols)))


def block(*symbols: int, dc: int = 0) -> str:
    """The bits of a block; all numbers are ones."""
    bits = f"{DC_SYMBOLS.index(dc):02b}" + "1" * dc
    return bits + "".join(f"{AC_SYMBOLS.index(symbol):03b}" + "1" * (symbol & 15) for symbol in symbols)


def gray(*blocks: str, ac_length: int = 3) -> bytes:
    """A baseline JPEG, eight pixels high."""
    bits = "".join(blocks)
    bits += "1" * (-len(bits) % 8)
    coded = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)).replace(b"\xff", b"\xff\0")
    return b"".join(
        (
            b"\xff\xd8",
            segment(0xDB, bytes((0, *[1] * 64))),
            segment(0xC0, bytes((8, 0, 8, 0, 8 * len(blocks), 1, 1, 0x11, 0))),
            codes(0x00, DC_SYMBOLS, 2),
            codes(0x10, AC_SYMBOLS, ac_length),
            segment(0xDA, bytes((1, 1, 0, 0, 63, 0))),
            coded,
            b"\xff\xd9",
        )
    )


@pytest.mark.parametrize(
    ("unusual", "usual"),
    [
        ((ZEROS, END), (END,)),
        ((0x01, ZEROS, ZEROS, END), (0x01, END)),
        ((ZEROS, ZEROS, 0xE1, ZEROS), (ZEROS, ZEROS, 0xE1, END)),  # the zeros fill the block
        ((0x01, 0x30), (0x01, END)),
    ],
)
def test_symbols_that_say_nothing_are_left_out(unusual: tuple[int, ...], usual: tuple[int, ...]) -> None:
    before, behind = block(0x01, END, dc=1), block(0xE1, 0x01, END, dc=1)
    data, _ = ready(gray(before, block(*unusual), behind))
    assert data == ready(gray(before, block(*usual), behind))[0]


def test_a_block_can_be_full() -> None:
    full = block(ZEROS, ZEROS, ZEROS, 0xE1)
    data, _ = ready(gray(full, full, block(END, dc=1)))
    assert native.same_coefficients(gray(full, full, block(END, dc=1)), data)


def test_a_run_over_the_end_of_a_block_is_read_as_libjpeg_reads_it() -> None:
    original = gray(block(0xF1, 0xF1, 0xF1, 0xF1), block(END, dc=1))
    assert native.same_coefficients(original, ready(original)[0])


@pytest.mark.parametrize(
    "unfit",
    [
        gray(block(0x0B, END)),  # eleven bits
        gray(block(END, dc=12)),
        gray("10" + block(0x01, END) + "111" * 9),  # no code
        gray(block(0x01)),  # cut off
        gray(block(END)).replace(b"\xff\xd9", bytes(40) + b"\xff\xd9"),
        gray(block(END)).replace(codes(0x10, AC_SYMBOLS, 3), codes(0x10, (*AC_SYMBOLS, 0x02), 3)),  # ones are a code
        gray(block(END)).replace(codes(0x10, AC_SYMBOLS, 3), b""),
        gray(block(END)).replace(segment(0xDB, bytes((0, *[1] * 64))), b""),
    ],
)
def test_what_baseline_jpeg_has_no_codes_for_and_what_is_damaged_is_left_to_others(unfit: bytes) -> None:
    assert native.make_crop_ready(unfit) is None
