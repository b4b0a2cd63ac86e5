"""Unusual bytes that change no pixel, and the notes on them."""

import io

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from imgdata.errors import ImageError
from imgdata.images import encode as images_encode
from imgdata.images.decode import check
from imgdata.images.encode import Encoding, lost_in_encoding, reencode
from imgdata.images.jpeg import STRAY_BYTES, decode_jpeg
from imgdata.images.pillow import heard_warnings
from imgdata.images.png import encode_png
from imgdata.images.probe import probe
from support.pictures import encode, jpeg, photo

JPEGS = {
    "sequential": jpeg(quality=95),
    "progressive": jpeg(progressive=True),
    "with restarts": jpeg(restart_marker_blocks=2),
    "gray": jpeg("L"),
}
PNG = encode(photo(), "PNG")


def as_png(data: bytes) -> bytes:
    return reencode(data, probe(data), Encoding(format="png"), extension="png")[0]


@pytest.mark.parametrize("name", JPEGS)
@pytest.mark.parametrize("inserted", [b"\x12\x34\x56\x78" * 8, bytes(30) + b"\1" * 3, b"\x7f", b"<!-- -->" * 99])
def test_stray_bytes_behind_the_last_pixel_are_noted_and_change_none(name: str, inserted: bytes) -> None:
    clean = JPEGS[name]
    stray = clean[:-2] + inserted + clean[-2:]
    notes = check(stray, probe(stray))
    assert notes in ((STRAY_BYTES,), ())
    assert notes or len(inserted) < 8
    assert as_png(stray) == as_png(clean)
    decoded = [decode_jpeg(data, probe(data), "RGB") for data in (clean, stray)]
    assert np.array_equal(*decoded)


def test_a_picture_whose_decoder_stopped_amid_a_byte_is_damaged() -> None:
    # The last byte before the stray ones is not filled up with ones, as every encoder fills it.
    data = JPEGS["sequential"]
    middle = len(data) // 2
    verdicts = []
    for at in range(middle, middle + 60):
        damaged = data[:at] + bytes(12) + data[at + 12 :]
        try:
            check(damaged, probe(damaged))
        except ImageError as error:
            verdicts.append("extraneous bytes before marker 0xd9" in error.detail)
    assert any(verdicts)


def big_png() -> bytes:
    text = PngInfo()
    text.add_text("parameters", "x" * 3_000_000, zip=True)
    text.add_itxt("more", "y" * 2_000_000, zip=True)
    file = io.BytesIO()
    photo().save(file, "PNG", pnginfo=text, icc_profile=bytes(5_000_000))
    return file.getvalue()


def test_texts_and_profiles_of_megabytes_are_no_damage_of_a_png() -> None:
    plain = io.BytesIO()
    photo().save(plain, "PNG")
    big = big_png()
    assert (check(big, probe(big)), probe(big)) == ((), probe(plain.getvalue()))
    assert as_png(big) == as_png(plain.getvalue())
    with pytest.raises(ImageError, match="checksum"):
        check(big.replace(b"parameters", b"parameterz"), probe(big))


@pytest.mark.parametrize("kind", ["TIFF", pytest.param("WEBP", marks=pytest.mark.webp), "BMP"])
def test_what_is_encoded_has_no_texts_and_profiles_left(kind: str) -> None:
    file = io.BytesIO()
    photo().save(file, kind, **({} if kind == "BMP" else {"icc_profile": bytes(2_000_000)}))
    encoded, info = reencode(file.getvalue(), probe(file.getvalue()), Encoding(), extension="png")
    assert (check(encoded, info), b"iCCP" in encoded) == ((), False)


def test_what_does_not_decode_to_what_was_encoded_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        images_encode, "_encoded", lambda image, *_: encode_png(np.zeros((*image.size[::-1], 3), np.uint8))
    )
    with pytest.raises(ImageError, match="does not decode to the same picture"):
        reencode(PNG, probe(PNG), Encoding(), extension="png")


@pytest.mark.parametrize(
    ("data", "noted"),
    [
        (JPEGS["sequential"] + bytes(5000), True),
        (JPEGS["sequential"] + bytes(100), False),
        (PNG + bytes(5000), True),
    ],
)
def test_many_bytes_behind_the_end_are_noted(data: bytes, noted: bool) -> None:
    assert any("behind the end" in note for note in check(data, probe(data))) is noted


def test_warnings_of_pillow_are_notes_and_reach_no_terminal(recwarn: pytest.WarningsRecorder) -> None:
    file = io.BytesIO()
    photo().resize((40, 30)).save(file, "TIFF")
    data = bytearray(file.getvalue())
    start = int.from_bytes(data[4:8], "little")
    for entry in range(start + 2, start + 2 + 12 * int.from_bytes(data[start : start + 2], "little"), 12):
        if data[entry : entry + 2] == (259).to_bytes(2, "little"):
            # Two compressions, where one is to be named.
            data[entry + 4] = 2
    assert any("Pillow warns" in note for note in check(bytes(data), probe(bytes(data))))
    assert not list(recwarn)
    with heard_warnings() as texts:
        probe(bytes(data))
    assert texts


def test_formats_that_shards_do_not_hold_say_what_they_lose() -> None:
    file = io.BytesIO()
    Image.new("RGBA", (9, 9)).save(file, "TIFF")
    assert lost_in_encoding(probe(file.getvalue())) == ("transparency was laid on white",)
    file = io.BytesIO()
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(file, "TIFF", save_all=True, append_images=[photo()])
    assert lost_in_encoding(probe(file.getvalue())) == ("16 bits became 8", "only the first frame or page was kept")
