"""What the host cuts out of encoded pictures is what torchvision cuts; faults have a reason."""

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from imgdata.augment.params import params
from imgdata.backends.pillow import crop
from imgdata.errors import ImageError
from imgdata.images.probe import probe
from imgdata.recipes import CenterCrop, HorizontalFlip, PadRandomCrop, RandomResizedCrop, Recipe, Resize, VerticalFlip
from support.pictures import (
    animation,
    cmyk_jpeg,
    encode,
    exif,
    jpeg,
    palette_with_alpha,
    photo,
    png16,
    present,
    rgba,
    with_segment,
)

MODES = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}
MIDDLE = Recipe(CenterCrop(size=64))


def drawn(recipe, size, *, count=1, seed=3):
    """Parameters of `count` pictures of `size` (width, height)."""
    width_N, height_N = np.full((2, count), np.array(size)[:, None])
    return params(recipe, width_N, height_N, seed=seed, epoch=0, position_N=np.arange(count))


def cut(data, recipe, *, batch=None, row=0, **changes):
    """The window of a picture whose index is right, but for `changes`."""
    info = probe(data)
    size = info.width, info.height
    batch = drawn(recipe, size) if batch is None else batch
    index = {"size": size, "format": info.format, **changes}
    return crop.cut(data, **index, params=batch, row=row, recipe=recipe)


def pillow(data):
    """The picture as torchvision's datasets open it."""
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB")


def difference(ours_HWC, theirs):
    """Absolute differences in steps of 255, from an image or from a tensor `(3, H, W)`."""
    theirs_HWC = np.asarray(theirs) if isinstance(theirs, Image.Image) else theirs.permute(1, 2, 0).numpy()
    return np.abs(ours_HWC.astype(int) - theirs_HWC.astype(int))


# --- beside torchvision, on a photograph --------------------------------------------------------------


@pytest.mark.parametrize(("interpolation", "mean", "most"), [("bilinear", 0.05, 1), ("bicubic", 0.05, 5)])
def test_a_random_resized_crop_is_torchvisions(interpolation, mean, most):
    recipe = Recipe(RandomResizedCrop(size=(56, 72), interpolation=interpolation))
    batch = drawn(recipe, photo().size, count=20)
    data, tensors = jpeg(quality=92), []
    for row in range(20):
        left, top, width, height = batch.box_N4[row].tolist()
        how = {"size": [56, 72], "interpolation": MODES[interpolation], "antialias": True}
        ours = cut(data, recipe, batch=batch, row=row)
        assert not difference(ours, functional.resized_crop(pillow(data), top, left, height, width, **how)).any()
        tensors.append(
            difference(
                ours, functional.resized_crop(functional.pil_to_tensor(pillow(data)), top, left, height, width, **how)
            )
        )
    # torchvision's own two ways differ: on tensors the weights have fewer bits.
    assert np.mean(tensors) < mean
    assert np.max(tensors) <= most


@pytest.mark.parametrize("interpolation", MODES)
@pytest.mark.parametrize(("resize", "crop"), [(64, 56), (64, 64), (100, (97, 40)), ((50, 90), (50, 80)), (300, 256)])
def test_resize_and_center_crop_are_torchvisions(resize, crop, interpolation):
    recipe = Recipe(Resize(size=resize, interpolation=interpolation), CenterCrop(size=crop))
    sides = list(resize) if isinstance(resize, tuple) else resize
    theirs = v2.Compose([v2.Resize(sides, interpolation=MODES[interpolation], antialias=True), v2.CenterCrop(crop)])
    for image in (photo(), photo().transpose(Image.Transpose.ROTATE_90)):
        data = encode(image, "JPEG")
        assert not difference(cut(data, recipe), theirs(pillow(data))).any()


@pytest.mark.parametrize("resize", [400, (1000, 300)])
def test_a_small_window_of_a_large_resize_is_torchvisions_within_one_step(resize):
    recipe = Recipe(Resize(size=resize), CenterCrop(size=64))
    theirs = v2.Compose([v2.Resize(resize, antialias=True), v2.CenterCrop(64)])
    apart = difference(cut(jpeg(), recipe), theirs(pillow(jpeg())))
    assert apart.max() <= 1
    assert apart.mean() < 0.05


def test_a_very_long_picture_is_not_resized_as_a_whole():
    data = encode(Image.new("RGB", (60_000, 1), "teal"), "PNG")
    # As a whole it would be 64 x 3,840,000 pixels.
    assert (cut(data, Recipe(Resize(size=64), CenterCrop(size=64))) == (0, 128, 128)).all()


@pytest.mark.parametrize("mode", ["zero", "reflect"])
def test_padding_and_a_random_crop_are_torchvisions(mode):
    recipe = Recipe(PadRandomCrop(size=(100, 150), padding=13, mode=mode))
    batch = drawn(recipe, photo().size, count=30)
    padded = functional.pad(pillow(jpeg()), 13, padding_mode={"zero": "constant"}.get(mode, mode))
    for row in range(30):
        left, top = (batch.offset_N2[row] + 13).tolist()
        assert not difference(
            cut(jpeg(), recipe, batch=batch, row=row), functional.crop(padded, top, left, 100, 150)
        ).any()


@pytest.mark.parametrize("size", [(33, 20), (70, 20), (20, 70), (64, 64), (65, 63)])
def test_a_small_picture_gets_torchvisions_margins(size):
    data = encode(photo().resize(size), "PNG")
    assert not difference(cut(data, MIDDLE), v2.CenterCrop(64)(pillow(data))).any()


@pytest.mark.parametrize("flips", [(), (HorizontalFlip,), (VerticalFlip,), (HorizontalFlip, VerticalFlip)])
def test_flips_are_torchvisions(flips):
    recipe = Recipe(CenterCrop(size=64), *(flip(p=1.0) for flip in flips))
    theirs = v2.Compose([v2.CenterCrop(64), *(getattr(v2, f"Random{flip.__name__}")(p=1.0) for flip in flips)])
    assert not difference(cut(jpeg(), recipe), theirs(pillow(jpeg()))).any()


SIDES = st.integers(1, 40)


@given(data=st.data(), width=SIDES, height=SIDES, seed=st.integers(0, 1000))
@settings(max_examples=60)
def test_any_box_and_window_is_torchvisions(data, width, height, seed):
    noise = np.random.Generator(np.random.Philox(seed)).integers(0, 256, (height, width, 3), np.uint8)
    image = Image.fromarray(noise)
    out = data.draw(st.tuples(SIDES, SIDES))
    margin = data.draw(st.integers(0, min(width, height) - 1))
    interpolation = data.draw(st.sampled_from(list(MODES)))
    recipes = {
        "crop": Recipe(RandomResizedCrop(size=out, interpolation=interpolation), HorizontalFlip()),
        "resize": Recipe(Resize(size=out, interpolation=interpolation)),
        "middle": Recipe(CenterCrop(size=out)),
    }
    if out[0] <= height + 2 * margin and out[1] <= width + 2 * margin:
        recipes["pad"] = Recipe(PadRandomCrop(size=out, padding=margin, mode="reflect"))
    kind = data.draw(st.sampled_from(list(recipes)))
    batch = drawn(recipes[kind], image.size, seed=seed)
    left, top, box_width, box_height = batch.box_N4[0].tolist()
    how = {"interpolation": MODES[interpolation], "antialias": True}
    if kind == "crop":
        expected = functional.resized_crop(image, top, left, box_height, box_width, list(out), **how)
        expected = functional.horizontal_flip(expected) if batch.flip_N[0] else expected
    elif kind == "resize":
        expected = functional.resize(image, list(out), **how)
    elif kind == "middle":
        expected = functional.center_crop(image, list(out))
    else:
        left, top = (batch.offset_N2[0] + margin).tolist()
        expected = functional.crop(functional.pad(image, margin, padding_mode="reflect"), top, left, *out)
    # Of a resize to more than four windows only the window is made, whose place is rounded.
    within = 1 if 4 * out[0] * out[1] < np.prod(batch.resized_N2[0]) else 0
    assert difference(cut(encode(image, "PNG"), recipes[kind], batch=batch), expected).max() <= within


# --- pictures made to catch one mistake each ----------------------------------------------------------


def ramps():
    """A picture whose red is its x and whose green is its y."""
    x_W, y_H = np.arange(240, dtype=np.uint8), np.arange(200, dtype=np.uint8)
    return Image.fromarray(np.stack([*np.meshgrid(x_W, y_H), np.zeros((200, 240), np.uint8)], axis=2))


def misplaced(pixels_HWC, batch):
    """How far output pixels are from the place that `BatchParams` promises, in pixels of the picture, at most."""
    scale_2 = batch.box_N4[0, 2:] / batch.resized_N2[0]
    far = 0.0
    for channel, side in ((0, batch.width), (1, batch.height)):
        middle = batch.box_N4[0, channel] + (np.arange(side) + batch.offset_N2[0, channel] + 0.5) * scale_2[channel]
        value = pixels_HWC[:, :, channel] if channel == 0 else pixels_HWC[:, :, channel].T
        # Close to the box's edge the filter is cut off, and the ramp bends.
        far = max(far, np.abs(value - (middle - 0.5))[:, 3:-3].max())
    return far


RAMP_RECIPES = {
    "crop": Recipe(RandomResizedCrop(size=40)),
    "middle": Recipe(Resize(size=80), CenterCrop(size=48)),
    "small window": Recipe(Resize(size=90), CenterCrop(size=20)),
    "nothing resized": Recipe(PadRandomCrop(size=90)),
}


@pytest.mark.parametrize("name", RAMP_RECIPES)
def test_every_pixel_is_at_its_place(name):
    batch = drawn(RAMP_RECIPES[name], (240, 200))
    assert misplaced(cut(encode(ramps(), "PNG"), RAMP_RECIPES[name], batch=batch), batch) < 0.6


@pytest.mark.parametrize("name", RAMP_RECIPES)
def test_a_shift_by_half_an_output_pixel_would_be_seen(name):
    batch = drawn(RAMP_RECIPES[name], (240, 200))
    scale = batch.box_N4[0, 2] / batch.resized_N2[0, 0]
    left, top, width, height = batch.box_N4[0].tolist()
    wrong = ramps().crop((left, top, left + width, top + height))
    wrong = wrong.transform(wrong.size, Image.Transform.AFFINE, (1, 0, max(scale / 2, 1), 0, 1, 0))
    wrong = wrong.resize(tuple(batch.resized_N2[0].tolist()), Image.Resampling.BILINEAR)
    left, top = batch.offset_N2[0].tolist()
    assert misplaced(np.asarray(wrong.crop((left, top, left + batch.width, top + batch.height))), batch) > 0.8


def stripes():
    """Black and white columns of one pixel: gray from afar."""
    return Image.fromarray(np.tile(np.array([[0], [255]], np.uint8).repeat(3, axis=1), (200, 120, 1)))


@pytest.mark.parametrize("interpolation", MODES)
def test_a_smaller_picture_is_antialiased(interpolation):
    recipe = Recipe(Resize(size=47, interpolation=interpolation), CenterCrop(size=40))
    assert np.std(cut(encode(stripes(), "PNG"), recipe)) < 12
    # torchvision's bilinear without antialias, on a tensor: what the bound must catch.
    wrong = functional.resize(
        functional.pil_to_tensor(stripes()), 47, interpolation=MODES[interpolation], antialias=False
    )
    assert np.std(wrong.numpy()) > 60


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP"])
def test_channels_are_red_green_blue(format):
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    image = Image.fromarray(colors.repeat(16, axis=0)[None].repeat(48, axis=0))
    pixels = cut(encode(image, format, **({"quality": 95} if format == "JPEG" else {})), Recipe(CenterCrop(size=48)))
    middle = pixels[24, 8::16].astype(int)
    assert np.abs(middle - colors).max() < 4
    assert np.abs(middle[:, ::-1] - colors).max() > 200  # A swap would be seen.


# --- odd files ----------------------------------------------------------------------------------------

ODD = present(
    {
        "gray JPEG": jpeg("L"),
        "CMYK": cmyk_jpeg(0),
        "YCCK": cmyk_jpeg(2),
        "progressive": jpeg(progressive=True),
        "rotated by EXIF": with_segment(jpeg(), 0xE1, exif(6)),
        "gray": encode(photo().convert("L"), "PNG"),
        "black and white": encode(photo().convert("1"), "PNG"),
        "palette": encode(photo().quantize(16), "PNG"),
        "palette with transparency": palette_with_alpha(),
        "alpha": encode(rgba(), "PNG"),
        "gray with alpha": encode(rgba().convert("LA"), "PNG"),
        "a transparent colour": encode(photo(), "PNG", transparency=(10, 20, 30)),
        "16 bits": png16(2, 3),
        "16-bit gray": png16(0, 1),
        "GIF": animation("GIF"),
        "WebP": encode(photo(), "WEBP"),
    }
)


@pytest.mark.filterwarnings("ignore:Palette images with Transparency:UserWarning")  # Of Pillow's own `convert`.
@pytest.mark.parametrize("name", ODD)
def test_odd_pictures_are_what_pillow_makes_of_them(name):
    pixels = cut(ODD[name], MIDDLE)
    assert pixels.shape == (64, 64, 3)
    assert pixels.dtype == np.uint8
    assert not difference(pixels, v2.CenterCrop(64)(pillow(ODD[name]))).any()
    assert np.ptp(pixels) > 100


def test_no_transparency_makes_pillow_warn():
    # Asserts nothing: warnings are errors in these tests; `pillow_errors` would turn one into an `ImageError`.
    cut(palette_with_alpha(), MIDDLE)


DAMAGED = present(
    {
        "JPEG": jpeg()[:-200],
        "gray JPEG": jpeg("L")[:-200],
        "CMYK": cmyk_jpeg(0)[:-200],
        "PNG": encode(photo(), "PNG")[:-200],
        "PNG without its end": encode(photo(), "PNG")[:-12],
        "WebP": encode(photo(), "WEBP")[:-200],
        "GIF": encode(photo(), "GIF")[:-200],
    }
)


@pytest.mark.parametrize("name", DAMAGED)
def test_a_picture_that_is_cut_short_is_refused(name):
    with pytest.raises(ImageError, match="truncated"):
        cut(DAMAGED[name], MIDDLE)


FAULTS = [
    ({"size": (161, 120)}, "corrupt", "a jpeg of 160 x 120 pixels, the index says jpeg of 161 x 120"),
    ({"size": (160, 119)}, "corrupt", "the index says jpeg of 160 x 119"),
    ({"format": "png"}, "corrupt", "the index says png"),
    ({"max_pixels": 160 * 120 - 1}, "too-large", "160 x 120 pixels, the limit is 19199"),
]


@pytest.mark.parametrize(("changes", "reason", "message"), FAULTS)
def test_what_is_not_in_the_index_is_refused(changes, reason, message):
    with pytest.raises(ImageError, match=message) as caught:
        cut(jpeg(), MIDDLE, **changes)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "empty"), (b"\xff\xd8\xff", "truncated"), (b"no picture at all", "not-an-image")]
)
def test_what_is_no_picture_is_refused(data, reason):
    with pytest.raises(ImageError) as caught:
        crop.cut(data, size=(160, 120), format="jpeg", params=drawn(MIDDLE, (160, 120)), row=0, recipe=MIDDLE)
    assert caught.value.reason == reason


def test_a_flipped_bit_in_a_png_is_found():
    data = bytearray(encode(photo(), "PNG"))
    data[len(data) // 2] ^= 1
    with pytest.raises(ImageError, match="checksum"):
        cut(bytes(data), MIDDLE)


def test_the_last_pixel_of_a_picture_can_be_cut():
    batch = replace(drawn(Recipe(RandomResizedCrop(size=1)), photo().size), box_N4=np.array([[159, 119, 1, 1]]))
    assert cut(jpeg(), Recipe(RandomResizedCrop(size=1)), batch=batch)[0, 0].tolist() == list(
        pillow(jpeg()).getpixel((159, 119))
    )
