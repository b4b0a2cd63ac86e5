"""Normalising, erasing and mixing are torchvision's, run with our numbers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from imgdata.augment.mix import MixParams, partners
from imgdata.augment.params import erasing_noise, params
from imgdata.backends import postprocess
from imgdata.recipes import IMAGENET_MEAN, IMAGENET_STD, CenterCrop, Cutout, Normalize, RandomErasing, Recipe
from support.pictures import photo

HEIGHT, WIDTH, CLASSES = 40, 56, 7
CROP = CenterCrop(size=(HEIGHT, WIDTH))
NORMALIZE = Normalize(mean=IMAGENET_MEAN, std=IMAGENET_STD)
WINDOW_HWC = np.asarray(photo().crop((20, 10, 20 + WIDTH, 10 + HEIGHT)))
DTYPES = {"uint8": np.uint8, "float16": np.float16, "float32": np.float32}


def empty(dtype, channels_last):
    """Pixels `(3, H, W)` of no particular value, in either order of memory."""
    if channels_last:
        return np.full((HEIGHT, WIDTH, 3), 77, dtype).transpose(2, 0, 1)
    return np.full((3, HEIGHT, WIDTH), 77, dtype)


def normalised(recipe):
    """What torchvision makes of the window, float32 `(3, H, W)`."""
    image = functional.to_dtype(functional.to_image(WINDOW_HWC.copy()), torch.float32, scale=True)
    op = recipe.find(Normalize)
    return (functional.normalize(image, op.mean, op.std) if op else image).numpy()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ops", [(NORMALIZE,), ()], ids=["normalised", "0 to 1"])
def test_pixels_are_written_as_torchvision_normalises_them(ops, dtype, channels_last):
    recipe = Recipe(CROP, *ops)
    out_CHW = empty(dtype, channels_last)
    postprocess.write(WINDOW_HWC, out_CHW, *postprocess.scale_shift(recipe))
    if dtype == "uint8":
        np.testing.assert_array_equal(out_CHW, WINDOW_HWC.transpose(2, 0, 1))
    elif dtype == "float32":
        np.testing.assert_allclose(out_CHW, normalised(recipe), rtol=0, atol=1e-6)
    else:
        # Rounded once: half a step of float16, which has 11 bits.
        np.testing.assert_allclose(out_CHW, normalised(recipe), rtol=2**-11, atol=2e-6)


def test_scale_and_shift_are_float32():
    for array_3 in postprocess.scale_shift(Recipe(CROP, NORMALIZE)):
        assert array_3.dtype == np.float32
        assert array_3.shape == (3,)


# --- erasing ------------------------------------------------------------------------------------------


def erased(op, dtype, *, ops=(NORMALIZE,), row=0, channels_last=False):
    recipe = Recipe(CROP, *ops, op)
    side_N = np.ones(8, int)
    batch = params(recipe, WIDTH * side_N, HEIGHT * side_N, seed=5, epoch=2, position_N=100 + np.arange(8))
    out_CHW = empty(dtype, channels_last)
    postprocess.write(WINDOW_HWC, out_CHW, *postprocess.scale_shift(recipe))
    postprocess.erase(out_CHW, batch, row, recipe, seed=5, epoch=2)
    return out_CHW, batch.erase_N4[row].tolist(), recipe


VALUES = [0.0, -1.5, (0.5, -0.25, 1.0), "random"]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("value", VALUES)
def test_an_erased_rectangle_is_torchvisions(value, channels_last):
    for row in range(8):
        op = RandomErasing(p=1.0, value=value)
        ours, (left, top, width, height), recipe = erased(op, np.float32, row=row, channels_last=channels_last)
        if value == "random":
            fill = torch.from_numpy(erasing_noise(5, 2, 100 + row, height, width))
        else:
            fill = torch.tensor(value if isinstance(value, tuple) else [value])[:, None, None]
        theirs = functional.erase(torch.from_numpy(normalised(recipe)), top, left, height, width, fill)
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("value", VALUES)
def test_a_uint8_batch_is_erased_with_what_becomes_the_value(value):
    ours, (left, top, width, height), recipe = erased(RandomErasing(p=1.0, value=value), np.uint8)
    floats, _, _ = erased(RandomErasing(p=1.0, value=value), np.float32)
    box = (slice(None), slice(top, top + height), slice(left, left + width))
    scale_3, shift_3 = postprocess.scale_shift(recipe)
    expected = ((floats - shift_3[:, None, None]) / scale_3[:, None, None]).clip(0, 255)
    assert np.abs(ours - expected).max() < 0.501
    assert np.abs(ours[box] - expected[box]).max() > 0 or value == "random"
    outside = np.ones((3, HEIGHT, WIDTH), bool)
    outside[box] = False
    np.testing.assert_array_equal(ours[outside], WINDOW_HWC.transpose(2, 0, 1)[outside])


@pytest.mark.parametrize(("dtype", "value"), [(np.uint8, 127.0), (np.float32, 0.5), (np.float16, 0.5)])
def test_without_normalize_values_are_in_the_units_of_the_batch(dtype, value):
    ours, (left, top, width, height), _ = erased(RandomErasing(p=1.0, value=value), dtype, ops=())
    assert (ours[:, top : top + height, left : left + width] == value).all()


def test_cutout_paints_its_square():
    ours, (left, top, width, height), recipe = erased(Cutout(size=16, value=-9.0), np.float32)
    expected = normalised(recipe)
    expected[:, top : top + height, left : left + width] = -9.0
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)


def test_a_sample_without_a_rectangle_stays():
    ours, box_4, recipe = erased(RandomErasing(p=0.0, value=5.0), np.float32)
    assert box_4 == [0, 0, 0, 0]
    np.testing.assert_allclose(ours, normalised(recipe), rtol=0, atol=1e-6)


# --- mixing -------------------------------------------------------------------------------------------


def batch_of(count, dtype=torch.float32, *, channels_last=False):
    """Images that differ in every value, and labels."""
    noise = np.random.Generator(np.random.Philox(count)).integers(0, 256, (count, 3, HEIGHT, WIDTH))
    images = torch.from_numpy(noise).to(dtype)
    images = images / 255 if dtype.is_floating_point else images
    return images.to(memory_format=torch.channels_last) if channels_last else images, torch.arange(count) % CLASSES


def mixing(kind, count, lam=0.3, box_4=(5, 7, 20, 11)):
    if kind == "cutmix":
        lam = 1.0 - box_4[2] * box_4[3] / (HEIGHT * WIDTH)
    box_4 = box_4 if kind == "cutmix" else (0, 0, 0, 0)
    return MixParams(kind=kind, lam=lam, box_4=box_4, partner_N=partners(count))


def by_torchvision(kind, images, labels, mix):
    """v2.MixUp or v2.CutMix with our numbers, pair by pair: their partner is the row before, as in our pairs."""
    theirs = {"mixup": v2.MixUp, "cutmix": v2.CutMix}[kind](num_classes=CLASSES)
    left, top, width, height = mix.box_4
    numbers = {"lam": mix.lam, "lam_adjusted": mix.lam, "box": (left, top, left + width, top + height)}
    out_images, out_labels = [], []
    count = len(images)
    # Three are left over of an odd number, and go round in a circle.
    begins = [*range(0, count - 3, 2), count - 3] if count % 2 else [*range(0, count, 2)]
    for begin in begins:
        end = count if begin == begins[-1] else begin + 2
        part, label = images[begin:end], labels[begin:end]
        made = {"labels": label, "batch_size": end - begin, **numbers}
        out_images.append(theirs.transform(part, made))
        out_labels.append(theirs.transform(label, made))
    return torch.cat(out_images), torch.cat(out_labels)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("count", [2, 3, 8, 9, 16, 17, 30, 31])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_batches_are_torchvisions(kind, count, channels_last):
    images, labels = batch_of(count, channels_last=channels_last)
    mix = mixing(kind, count)
    expected_images, expected_labels = by_torchvision(kind, images, labels, mix)
    place = images.data_ptr()
    mixed, soft = postprocess.mix_images(images, mix), postprocess.soft_labels(labels, mix, CLASSES)
    assert mixed.data_ptr() == place
    atol = 0 if kind == "cutmix" else 2e-7
    torch.testing.assert_close(mixed, expected_images, rtol=0, atol=atol, check_stride=False)
    torch.testing.assert_close(soft, expected_labels, rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16])
def test_other_types_are_mixed_within_their_rounding(kind, dtype, channels_last):
    images, labels = batch_of(9, dtype, channels_last=channels_last)
    mix = mixing(kind, 9)
    expected, _ = by_torchvision(kind, images.float(), labels, mix)
    mixed = postprocess.mix_images(images, mix)
    assert mixed.dtype == dtype
    # To the nearest: a uint8 that is cut off would be wrong by up to 1.
    atol = {torch.uint8: 0.501, torch.float16: 6e-4, torch.bfloat16: 5e-3}[dtype]
    torch.testing.assert_close(mixed.float(), expected, rtol=0, atol=atol, check_stride=False)


@given(count=st.integers(1, 40), lam=st.floats(0, 1), data=st.data())
@settings(max_examples=40)
def test_any_partners_are_mixed_with_what_they_were_before(count, lam, data):
    partner_N = np.array(data.draw(st.permutations(range(count))))
    images = torch.from_numpy(np.random.Generator(np.random.Philox(count)).random((count, 3, 2, 2), np.float32))
    expected = lam * images + (1 - lam) * images[torch.from_numpy(partner_N)]
    mix = MixParams(kind="mixup", lam=lam, box_4=(0, 0, 0, 0), partner_N=partner_N)
    torch.testing.assert_close(postprocess.mix_images(images, mix), expected, rtol=0, atol=3e-7)


def test_an_unmixed_batch_keeps_its_images_and_has_soft_labels_all_the_same():
    images, labels = batch_of(5)
    before = images.clone()
    mix = MixParams(kind="none", lam=1.0, box_4=(0, 0, 0, 0), partner_N=np.arange(5))
    assert torch.equal(postprocess.mix_images(images, mix), before)
    soft = postprocess.soft_labels(labels, mix, CLASSES)
    assert torch.equal(soft, torch.nn.functional.one_hot(labels, CLASSES).float())


def test_a_sample_without_a_label_adds_nothing():
    soft = postprocess.soft_labels(torch.tensor([2, -1]), mixing("mixup", 2), CLASSES)
    torch.testing.assert_close(soft.sum(dim=1), torch.tensor([0.3, 0.7]))
    torch.testing.assert_close(soft[:, 2], torch.tensor([0.3, 0.7]))


def test_a_box_of_no_area_mixes_nothing():
    images, _ = batch_of(4)
    before = images.clone()
    postprocess.mix_images(images, replace(mixing("cutmix", 4), lam=1.0, box_4=(9, 3, 0, 0)))
    assert torch.equal(images, before)
