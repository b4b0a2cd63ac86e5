"""Gray, transparent and 16-bit pictures: from the raw files through shards to batches of one and four channels."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

import imgdata
from imgdata import OptionError
from imgdata.recipes import (
    Affine,
    Apply,
    AutoContrast,
    CenterCrop,
    ColorJitter,
    CutMix,
    Cutout,
    Equalize,
    GaussianBlur,
    Grayscale,
    HorizontalFlip,
    Invert,
    MixUp,
    Normalize,
    PadRandomCrop,
    Posterize,
    RandomApply,
    RandomErasing,
    RandomResizedCrop,
    Recipe,
    Resize,
    Rotate,
    Solarize,
)
from support.loaders import recipe_for, take

SIDE = 24
WHOLE = Recipe(CenterCrop(SIDE))


def png(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def raw():
    """Pictures by name: 16 bits and 8 bits gray, colour with transparency, colour."""
    random = np.random.default_rng(0)
    return {
        "0deep": random.integers(0, 65536, (SIDE, SIDE), dtype=np.uint16),
        "1gray": random.integers(0, 256, (SIDE, SIDE), dtype=np.uint8),
        "2clear": random.integers(0, 256, (SIDE, SIDE, 4), dtype=np.uint8),
        "3colour": random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8),
    }


@pytest.fixture(scope="module")
def shards(raw, tmp_path_factory):
    """The dataset that `imgdata.shard` makes of their class folders, one picture each."""
    source, out = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("shards") / "out"
    for name, pixels in raw.items():
        (source / name).mkdir()
        (source / name / "picture.png").write_bytes(png(pixels))
    imgdata.shard(source, out)
    return out


def shown(shards, channels, recipe=WHOLE, **options):
    """The pictures by their class, `(C, H, W)` each."""
    options = {"batch_size": 4, "shuffle": "none", "threads": 2, "channels": channels, **options}
    with imgdata.Loader(shards, split="train", recipe=recipe, **options) as loader:
        (batch,) = take(loader)
    # Labels are soft where pictures are mixed: then the order has no meaning.
    order = np.argsort(batch.labels) if np.ndim(batch.labels) == 1 else range(len(batch.images))
    return [batch.images[row] for row in order]


def test_sharding_keeps_the_bytes_of_deep_and_transparent_pictures(shards, raw):
    split = imgdata.open(shards)["train"]
    images = {split.index.label_N[position]: split[position].image for position in range(4)}
    assert [images[label] for label in range(4)] == [png(pixels) for pixels in raw.values()]


def test_gray_bytes_are_the_upper_half_of_16_bits_and_the_luma_of_colours(shards, raw):
    deep, gray, clear, colour = shown(shards, 1)
    assert deep.shape == (1, SIDE, SIDE)
    assert deep.dtype == np.uint8
    assert np.array_equal(deep[0], raw["0deep"] >> 8)
    assert np.array_equal(gray[0], raw["1gray"])
    assert np.array_equal(clear[0], np.asarray(Image.fromarray(raw["2clear"]).convert("L")))
    assert np.array_equal(colour[0], np.asarray(Image.fromarray(raw["3colour"]).convert("L")))


def test_uint16_keeps_every_value(shards, raw):
    deep, gray, *_ = shown(shards, 1, dtype="uint16")
    assert deep.dtype == np.uint16
    assert np.array_equal(deep[0], raw["0deep"])
    assert np.array_equal(gray[0], raw["1gray"].astype(np.uint16) * 257)


@pytest.mark.parametrize(("dtype", "apart"), [("float32", 1e-6), ("float16", 1e-3)])
def test_floats_keep_the_depth_and_are_normalised_by_one_mean(shards, raw, dtype, apart):
    deep, gray, *_ = shown(shards, 1, dtype=dtype)
    np.testing.assert_allclose(deep[0], raw["0deep"] / 65535, atol=apart)
    np.testing.assert_allclose(gray[0], raw["1gray"] / 255, atol=apart)
    deep, *_ = shown(shards, 1, Recipe(*WHOLE.ops, Normalize(mean=(0.5,), std=(0.25,))), dtype=dtype)
    np.testing.assert_allclose(deep[0], (raw["0deep"] / 65535 - 0.5) / 0.25, atol=10 * apart)


def test_transparency_is_kept_and_what_has_none_is_opaque(shards, raw):
    _, gray, clear, colour = shown(shards, 4)
    assert np.array_equal(clear.transpose(1, 2, 0), raw["2clear"])
    assert np.array_equal(colour[:3].transpose(1, 2, 0), raw["3colour"])
    assert (colour[3] == 255).all()
    assert (gray[3] == 255).all()
    four = Normalize(mean=(0.1, 0.2, 0.3, 0.0), std=(0.5, 0.5, 0.5, 1.0))
    clear = shown(shards, 4, Recipe(*WHOLE.ops, four))[2]
    np.testing.assert_allclose(clear[3], raw["2clear"][:, :, 3] / 255, atol=1e-6)


def test_a_deep_picture_is_resized_without_losing_its_depth(shards, raw):
    deep, *_ = shown(shards, 1, Recipe(Resize(size=(12, 12))), dtype="uint16")
    expected = np.asarray(Image.fromarray(raw["0deep"].astype(np.float32)).resize((12, 12), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(deep[0], expected, atol=1)


@pytest.mark.parametrize("channels", [1, 4])
def test_crops_flips_turns_erasing_mixing_and_functions_work_on_any_channels(shards, channels):
    def halved(pixels, generator):
        assert pixels.shape == (16, 16, channels)
        return pixels // 2

    recipe = Recipe(
        RandomResizedCrop(16),
        HorizontalFlip(),
        RandomApply((Rotate(degrees=20, fill=9), Affine(5, interpolation="bilinear"))),
        Apply(halved),
        RandomErasing(p=1.0),
        MixUp(),
    )
    for dtype in ("uint8", "float32")[: 2 if channels == 4 else 1]:
        pictures = shown(shards, channels, recipe, dtype=dtype)
        assert {picture.shape for picture in pictures} == {(channels, 16, 16)}
    if channels == 1:
        turn = Rotate(degrees=20, fill=9, interpolation="bilinear")
        turned = Recipe(RandomResizedCrop(16), turn, Cutout(8), MixUp())
        assert shown(shards, 1, turned, dtype="float32")[0].std() > 0


def test_a_gray_jpeg_loads_as_its_luma(tmp_path):
    source = tmp_path / "raw" / "only"
    source.mkdir(parents=True)
    smooth = Image.fromarray(np.add.outer(np.arange(48), np.arange(48)).astype(np.uint8)).convert("RGB")
    smooth.save(source / "one.jpg", quality=95)
    imgdata.shard(tmp_path / "raw", tmp_path / "out")
    (picture,) = shown(tmp_path / "out", 1, Recipe(CenterCrop(48)), batch_size=1)
    with Image.open(source / "one.jpg") as stored:
        stored.draft("L", None)
        assert np.array_equal(picture[0], np.asarray(stored.convert("L")))


@pytest.mark.parametrize(
    ("options", "more", "message"),
    [
        ({"channels": 2}, [], "channels must be 1, 3 or 4, got 2"),
        ({"channels": True}, [], "channels must be 1, 3 or 4, got True"),
        ({"channels": 3, "dtype": "uint16"}, [], "dtype uint16 must have channels=1"),
        ({"channels": 1}, [Normalize(mean=(0, 0, 0), std=(1, 1, 1))], "Normalize must have 1 means.* got 3"),
        ({"channels": 3}, [Normalize(mean=(0,), std=(1,))], "Normalize must have 3 means.* got 1"),
        ({"channels": 1}, [ColorJitter(hue=0.1)], "ColorJitter works on red, green and blue, got channels=1"),
        ({"channels": 4}, [RandomApply((Grayscale(),))], "Grayscale works on red, green and blue, got channels=4"),
        ({"channels": 1}, [Rotate(degrees=9, fill=(1, 2, 3))], "Rotate.fill must be one number where channels=1"),
        ({"channels": 1}, [RandomErasing(value="random")], "RandomErasing.value must be one number where channels=1"),
        ({"channels": 1, "dtype": "uint16"}, [CutMix()], "CutMix must have a dtype other than uint16"),
        ({"channels": 1, "dtype": "float32"}, [Apply(lambda pixels, _: pixels)], "Apply gets pictures of 8 bits"),
        ({"channels": 1, "dtype": "float32"}, [Solarize(128)], "Solarize gets pictures of 8 bits"),
        ({"channels": 4}, [Invert()], "Invert works on red, green and blue, got channels=4"),
        ({"channels": 1, "dtype": "uint16", "backend": "resident"}, [], "'resident' keeps 8 bits .* got dtype uint16"),
        (
            {"channels": 1, "dtype": "float32", "backend": "resident"},
            [],
            "'resident' keeps 8 bits of each value, got pictures of 16 bits and channels=1; use dtype='uint8' or",
        ),
        ({"channels": 4, "backend": "dali"}, [], "backend 'dali' makes 3 channels, got channels=4; use backend='cpu'"),
    ],
)
def test_what_has_no_meaning_for_these_channels_is_refused(shards, options, more, message):
    with pytest.raises(OptionError, match=message):
        imgdata.Loader(shards, split="train", batch_size=2, recipe=Recipe(*WHOLE.ops, *more), **options)


def test_gray_and_transparent_batches_of_kept_pixels_are_those_of_the_processor(shards):
    recipe = Recipe(Resize(size=(20, 22)), PadRandomCrop(16, padding=2), HorizontalFlip(), GaussianBlur(5))
    for channels, dtype, planar in (1, "uint8", False), (4, "uint8", True), (4, "float32", False):
        options = {"dtype": dtype, "channels_last": not planar, "shuffle": "global", "seed": 3}
        mean = Normalize(mean=(0.5,) * channels, std=(0.25,) * channels)
        erasing = RandomErasing(p=0.5, value=0.25)
        made = Recipe(*recipe.ops, mean, erasing) if dtype == "float32" else recipe
        kept, made_anew = (shown(shards, channels, made, backend=backend, **options) for backend in ("resident", "cpu"))
        assert np.allclose(kept, made_anew, atol=1e-6)


def test_gray_of_jpegs_is_that_of_pillow_within_rounding(images, backend):
    if backend == "dali":
        pytest.skip("makes three channels")
    recipe = recipe_for(backend, Normalize(mean=(0.5,), std=(0.25,)))
    for dtype in "uint8", "float32":
        options = {"batch_size": 8, "split": "train", "channels": 1, "dtype": dtype, "threads": 2, "recipe": recipe}
        with imgdata.Loader(images, **options) as loader:
            made = [batch.images.float() for batch in loader]
        with imgdata.Loader(images, **options, backend="cpu", exact=True) as loader:
            exact = [batch.images.float() for batch in loader]
        step = 1 if dtype == "uint8" else 1 / (255 * 0.25)
        for one, other in zip(made, exact, strict=True):
            assert one.shape == (8, 1, 16, 16)
            assert (one - other).abs().mean() < step
            assert (backend != "pillow") or torch.equal(one, other)


@pytest.mark.parametrize(
    "op", [Solarize(100, p=1.0), Posterize(3, p=1.0), Equalize(1.0), AutoContrast(1.0), Invert(1.0)]
)
def test_operators_on_one_channel_are_torchvisions_on_gray_pictures(shards, raw, op):
    functions = {
        "Solarize": lambda picture: v2.functional.solarize(picture, 100),
        "Posterize": lambda picture: v2.functional.posterize(picture, 3),
        "Equalize": v2.functional.equalize,
        "AutoContrast": v2.functional.autocontrast,
        "Invert": v2.functional.invert,
    }
    gray = shown(shards, 1, Recipe(*WHOLE.ops, op))[1]
    assert np.array_equal(gray[0], np.asarray(functions[type(op).__name__](Image.fromarray(raw["1gray"]))))


def test_a_blur_keeps_the_depth_of_16_bits(shards, raw):
    recipe = Recipe(*WHOLE.ops, GaussianBlur(7, sigma=(1.5, 1.5)))
    deep, gray, *_ = shown(shards, 1, recipe, dtype="float32")
    for made, pixels, most in (deep, raw["0deep"], 65535), (gray, raw["1gray"], 255):
        wanted = v2.functional.gaussian_blur(
            torch.from_numpy(pixels.astype(np.float32) / most)[None], [7, 7], [1.5, 1.5]
        )
        np.testing.assert_allclose(made, wanted, atol=2e-3 if most == 255 else 1e-5)


def test_a_loader_says_why_pillow_does_the_work(shards):
    settings = {"split": "train", "batch_size": 2, "recipe": WHOLE, "backend": "cpu"}
    for options, why in ({"channels": 4}, "makes 1 or 3 channels, got 4"), ({"dtype": "uint16"}, "got uint16"):
        with imgdata.Loader(shards, **settings, **{"channels": 1, **options}) as loader:
            assert why in loader.backend_description
            assert next(iter(loader)).images.shape == torch.Size([2, options.get("channels", 1), SIDE, SIDE])
