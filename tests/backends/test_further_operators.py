"""Further operators on pixels: by Pillow torchvision's on PIL images, in torch its on tensors, on all backends."""

import numpy as np
import pytest
import torch
from PIL import Image

from imgdata import OptionError
from imgdata.backends import torch_ops
from imgdata.backends.pillow import operators
from imgdata.backends.pillow.blur import blurred, kernels
from imgdata.measure.parity import reference
from imgdata.recipes import (
    Affine,
    AugMix,
    AutoContrast,
    CenterCrop,
    ColorJitter,
    Equalize,
    GaussianBlur,
    Grayscale,
    HorizontalFlip,
    Invert,
    PadRandomCrop,
    Perspective,
    Posterize,
    RandAugment,
    RandomApply,
    RandomChoice,
    RandomResize,
    Recipe,
    Rotate,
    ScaleJitter,
    Sharpness,
    Solarize,
    ThreeAugment,
    TrivialAugment,
)
from support.device_batches import FILL, applied, batch, difference, one_thread, photos  # noqa: F401
from support.loaders import assert_same, loader, on_streaming, take

pytestmark = pytest.mark.usefixtures("one_thread")

MOVED = {
    "affine": Affine(30, translate=(0.1, 0.2), scale=(0.7, 1.5), shear=(-10, 10, -5, 5), fill=FILL),
    "affine, bilinear": Affine(30, translate=(0.1, 0.2), scale=(0.7, 1.5), fill=FILL, interpolation="bilinear"),
    "affine, far": Affine(180, translate=(1.0, 1.0), scale=(0.05, 20.0), shear=80, fill=FILL),
    "perspective": Perspective(p=1.0, fill=FILL),
    "perspective, nearest": Perspective(0.9, p=1.0, interpolation="nearest"),
}
TONES = {
    "solarize": Solarize(100.5, p=1.0),
    "posterize": Posterize(3, p=1.0),
    "equalize": Equalize(1.0),
    "auto contrast": AutoContrast(1.0),
    "sharper": Sharpness(2.5, p=1.0),
    "smoother": Sharpness(0.3, p=1.0),
    "invert": Invert(1.0),
}
BLURS = {"small blur": GaussianBlur(5), "large blur": GaussianBlur(31, sigma=(0.1, 5.0)), "three": ThreeAugment()}
MIXED = {
    "apply": RandomApply((ColorJitter(brightness=0.4, contrast=0.4), Grayscale(p=0.5)), p=0.7),
    "choice": RandomChoice((Rotate(degrees=30), RandAugment(), TrivialAugment(), Equalize())),
}
AUGMIX = {"augmix": AugMix(), "strong augmix": AugMix(severity=10, width=2, depth=2, fill=FILL)}
EVERY = {**MOVED, **TONES, **BLURS, **MIXED, **AUGMIX}


def many(op, repeats=8):
    images = photos().repeat(repeats, 1, 1, 1)
    return (*batch(op, images=images), images)


def pillows(recipe, drawn, images):
    return [Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0))) for image in images]


def by_pillow(recipe, drawn, images):
    rows = [
        np.array(operators.apply_image(picture, drawn, row, recipe))
        for row, picture in enumerate(pillows(recipe, drawn, images))
    ]
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2)


def by_torchvision(recipe, drawn, pictures):
    return torch.stack([reference.window(picture, drawn, row, recipe) for row, picture in enumerate(pictures)])


@pytest.mark.parametrize("name", [*MOVED, *TONES, *MIXED])
def test_by_pillow_it_is_torchvisions_on_pil_images(name):
    case = many(EVERY[name])
    assert torch.equal(by_pillow(*case), by_torchvision(*case[:2], pillows(*case)))


@pytest.mark.parametrize("name", BLURS)
def test_a_blur_is_torchvisions_but_for_the_order_of_its_sums(name):
    case = many(EVERY[name])
    apart = difference(by_pillow(*case), by_torchvision(*case[:2], pillows(*case)))
    assert apart.max() <= 1
    assert apart.float().mean() < 2e-4


@pytest.mark.parametrize("name", AUGMIX)
def test_augmix_is_torchvisions_but_for_operations_that_it_makes_on_tensors(name):
    case = many(EVERY[name])
    apart = difference(by_pillow(*case), by_torchvision(*case[:2], pillows(*case)))
    assert apart.float().mean() < 0.5


@pytest.mark.parametrize("name", EVERY)
def test_in_torch_it_is_torchvisions_on_tensors(name):
    recipe, drawn, images = many(EVERY[name])
    apart = difference(applied(recipe, drawn, images), by_torchvision(recipe, drawn, images))
    # At the border between two pixels float32 may take either, as with a rotation.
    assert (apart > 1).float().mean() < (0 if name in (*TONES, *BLURS) else 5e-3) + 1e-9
    assert apart.float().mean() < 0.2


@pytest.mark.parametrize("name", EVERY)
def test_in_torch_a_picture_is_the_same_alone_and_in_any_order_of_memory(name):
    recipe, drawn, images = many(EVERY[name], repeats=2)
    whole = applied(recipe, drawn, images)
    last = torch_ops.apply(images.clone(memory_format=torch.channels_last), drawn, recipe)
    assert torch.equal(last, whole)
    for row in (0, 5):
        recipe, one = batch(EVERY[name], images=images[row : row + 1], first=row)
        assert torch.equal(applied(recipe, one, images[row : row + 1])[0], whole[row])


def test_a_blur_has_the_same_pixels_by_numpy_and_in_torch():
    recipe, drawn, images = many(GaussianBlur(15, sigma=(0.1, 3.0)))
    assert torch.equal(applied(recipe, drawn, images), by_pillow(recipe, drawn, images))


def test_a_blur_keeps_a_flat_picture_and_the_sum_of_its_weights():
    weight_RK = kernels(np.array([0.1, 1.0, 2.0, 9.0]), 23)
    np.testing.assert_allclose(2 * weight_RK.sum(axis=1) - weight_RK[:, 0], 1.0, rtol=1e-6)
    flat = np.full((30, 40, 3), 200, np.uint8)
    assert (blurred(flat, 2.0, 23) == 200).all()


def test_a_neighbour_that_is_not_chosen_stays():
    recipe, drawn, images = many(RandomApply((Invert(1.0),), p=0.5))
    changed = (applied(recipe, drawn, images) != images).flatten(1).any(1)
    assert changed.tolist() == drawn.done_NS[:, 0].tolist()
    assert 0 < changed.sum() < len(images)


# --- through a loader, on every backend ----------------------------------------------------------------------------

MORE = [
    RandomApply((ColorJitter(brightness=0.4, hue=0.1), GaussianBlur(5)), p=0.8),
    Affine(20, translate=(0.1, 0.1), p=0.5),
    RandomChoice((Solarize(128, p=1), Grayscale(p=1), Equalize(1))),
    AugMix(),
]


def test_an_epoch_is_the_same_again_and_resumes_exactly(images, backend):
    with loader(images, more=MORE) as batches:
        whole = take(batches)
    with loader(images, more=MORE, threads=1) as batches:
        first = take(batches, 3)
        state = batches.state_dict()
    with loader(images, more=MORE) as batches:
        batches.load_state_dict(state)
        assert_same([*first, *take(batches)], whole)


def test_a_sample_is_the_same_at_any_number_of_ranks(images, backend):
    def shown(**options):
        with loader(images, more=MORE, **options) as batches:
            pairs = [pair for batch in take(batches) for pair in zip(batch.positions, batch.images, strict=True)]
        return dict(pairs)

    alone = shown()
    for rank in range(2):
        for position, picture in shown(batch_size=4, rank=rank, world_size=2).items():
            assert np.array_equal(picture, alone[position])


@pytest.mark.parametrize(
    "head", [(RandomResize(24, 40), CenterCrop(16)), (RandomResize(24, 40), PadRandomCrop(16)), (ScaleJitter(24),)]
)
@on_streaming
def test_a_random_resize_is_that_of_pillow(images, backend, head):
    """The extension and DALI resize in their own way, so only nearly."""
    options = {"recipe": Recipe(*head, HorizontalFlip())}
    with loader(images, **options) as batches, loader(images, exact=True, backend="cpu", **options) as pillow:
        for ours, theirs in zip(take(batches, 4), take(pillow, 4), strict=True):
            apart = np.abs(ours.images.astype(int) - theirs.images)
            assert apart.mean() < 2


def test_what_resizes_at_random_is_refused_where_pixels_are_kept(images):
    with pytest.raises(OptionError, match="RandomResize resizes it by another factor each time; use backend='cpu'"):
        loader(images, recipe=Recipe(RandomResize(24, 40), CenterCrop(16)), backend="resident")
