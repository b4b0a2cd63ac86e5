"""Masks, boxes and keypoints go where torchvision's joint transforms put them, given the same crops and angles."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from imgdata.augment.motion import moves_of
from imgdata.augment.params import params
from imgdata.augment.steps import layout
from imgdata.backends.joint import boxes, pixels
from imgdata.backends.pillow import crop, operators
from imgdata.dataset.members import Member
from imgdata.recipes import (
    Affine,
    CenterCrop,
    ColorJitter,
    HorizontalFlip,
    PadRandomCrop,
    Perspective,
    RandAugment,
    RandomApply,
    RandomChoice,
    RandomResize,
    RandomResizedCrop,
    Recipe,
    Resize,
    Rotate,
    ScaleJitter,
    TrivialAugment,
    VerticalFlip,
)
from support.pictures import encode

WIDTH, HEIGHT, COUNT = 97, 61, 12
IGNORE = 255
FLIPS = (HorizontalFlip(), VerticalFlip())
CUTS = {
    "a random crop": Recipe(RandomResizedCrop(40), *FLIPS),
    "a random crop made larger": Recipe(RandomResizedCrop((90, 70), scale=(0.05, 0.2)), *FLIPS),
    "resize and crop": Recipe(Resize(50), CenterCrop(40), *FLIPS),
    "all of it, squeezed": Recipe(Resize((33, 70))),
    "nothing resized": Recipe(CenterCrop((50, 80)), *FLIPS),
    "a crop larger than the picture": Recipe(CenterCrop((80, 120)), *FLIPS),
    "black margins": Recipe(Resize((32, 32)), PadRandomCrop(32, padding=6), *FLIPS),
    "mirrored margins": Recipe(Resize((32, 32)), PadRandomCrop(32, padding=6, mode="reflect"), *FLIPS),
    "scale jitter": Recipe(ScaleJitter(48), *FLIPS),
    "random resize": Recipe(RandomResize(40, 60), PadRandomCrop(40, padding=4), *FLIPS),
}
MOVES = {
    "rotation": (Rotate(180, p=1.0, fill=9),),
    "affine": (Affine(30, translate=(0.2, 0.1), scale=(0.7, 1.3), shear=(-10, 10, -5, 5)),),
    "perspective": (Perspective(0.5, p=1.0),),
    "policy": (RandAugment(n=3, m=15),),
    "held": (RandomChoice([Rotate(90, p=1.0), RandomApply([Affine(20), ColorJitter(hue=0.1)])]), TrivialAugment()),
}


def drawn(recipe, seed=5, width=WIDTH, height=HEIGHT):
    width_N, height_N = np.full((2, COUNT), [[width], [height]])
    return params(recipe, width_N, height_N, seed=seed, epoch=0, position_N=np.arange(COUNT))


def numbers(high, height=HEIGHT, width=WIDTH):
    """A mask in which neighbours differ, so that any other pixel is seen."""
    return np.random.default_rng(1).integers(0, high, (height, width))


def form(kind="mask", *, deep=False, ignore=IGNORE, channels=1):
    return pixels.Form(member=Member(name=kind, kind=kind), deep=deep, channels=channels, ignore_index=ignore)


def cut(tensor, drawn, row, recipe, fill=IGNORE):
    """What torchvision makes of one of its tensors, by the crop and flips that were drawn."""
    left, top, width, height = drawn.box_N4[row].tolist()
    resized_width, resized_height = drawn.resized_N2[row].tolist()
    x, y = drawn.offset_N2[row].tolist()
    tensor = functional.crop(tensor, top, left, height, width)
    tensor = functional.resize(tensor, [resized_height, resized_width], InterpolationMode.NEAREST)
    margins = [
        max(-x, 0),
        max(-y, 0),
        max(x + drawn.width - resized_width, 0),
        max(y + drawn.height - resized_height, 0),
    ]
    if any(margins):
        mode = "reflect" if recipe.mirrors_margins and isinstance(tensor, tv_tensors.Mask) else "constant"
        tensor = functional.pad(tensor, margins, fill=fill if mode == "constant" else None, padding_mode=mode)
    tensor = functional.crop(tensor, y + margins[1], x + margins[0], drawn.height, drawn.width)
    tensor = functional.horizontal_flip(tensor) if drawn.flip_N[row] else tensor
    return functional.vertical_flip(tensor) if drawn.vflip_N[row] else tensor


def turn(thing, drawn, row, recipe, fill=IGNORE):
    """What torchvision makes of a picture, mask, boxes or keypoints, by the angles and corners that were drawn."""
    nearest = {"interpolation": InterpolationMode.NEAREST, "fill": fill}
    if drawn.angle_N[row]:
        thing = functional.rotate(thing, float(drawn.angle_N[row]), **nearest)
    for step in (step for steps in layout(recipe).steps for step in steps):
        value = drawn.value_NV[row, step.first : step.first + step.values].tolist()
        if isinstance(step.op, Affine):
            angle, x, y, scale, *shear = value
            thing = functional.affine(thing, angle, [x, y], scale, shear, **nearest)
        elif isinstance(step.op, Perspective):
            far = [drawn.width - 1, drawn.height - 1]
            start = [[0, 0], [far[0], 0], far, [0, far[1]]]
            end = [[int(x), int(y)] for x, y in zip(value[0::2], value[1::2], strict=True)]
            thing = functional.perspective(thing, start, end, **nearest)
    return thing


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
@pytest.mark.parametrize("name", CUTS)
def test_a_mask_is_cut_and_resized_as_torchvision_does_it(name, dtype):
    recipe, deep = CUTS[name], dtype == np.int32
    batch, mask = drawn(recipe), numbers(60_000 if deep else 250).astype(dtype)
    for row in range(COUNT):
        ours = pixels.mask_window(mask, batch, row, recipe, form(deep=deep))
        assert ours.dtype == dtype
        theirs = cut(tv_tensors.Mask(torch.from_numpy(mask)), batch, row, recipe)
        np.testing.assert_array_equal(ours, theirs.numpy())


@pytest.mark.parametrize("sides", [(1, 1), (3, 500), (640, 427), (1001, 7)])
def test_the_nearest_pixel_is_torchvisions_for_any_two_sizes(sides):
    width, height = sides
    mask = numbers(250, height, width).astype(np.uint8)
    for size in [(1, 1), (7, 13), (224, 224), (height, width), (2 * height, 2 * width), (600, 3)]:
        recipe = Recipe(Resize(size))
        ours = pixels.mask_window(mask, drawn(recipe, width=width, height=height), 0, recipe, form())
        theirs = functional.resize(tv_tensors.Mask(torch.from_numpy(mask)), list(size))
        np.testing.assert_array_equal(ours, theirs.numpy())


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("name", MOVES)
def test_a_mask_is_moved_as_a_picture_that_takes_the_nearest_pixel(name, deep):
    """Pixel by pixel: the picture's own operators, of a picture that shows the mask's numbers."""
    recipe = Recipe(Resize((HEIGHT, WIDTH)), *MOVES[name])
    batch, mask = drawn(recipe), numbers(60_000 if deep else 250).astype(np.int32 if deep else np.uint8)
    for row in range(COUNT):
        ours = pixels.mask_window(mask, batch, row, recipe, form(deep=deep))
        theirs = Image.fromarray(mask)
        for move in moves_of(recipe, batch, row):
            theirs = pixels.moved(theirs, move, Image.Resampling.NEAREST, IGNORE)
        np.testing.assert_array_equal(ours, np.asarray(theirs))


@pytest.mark.parametrize("name", ["rotation", "affine", "perspective"])
def test_a_mask_is_rotated_and_warped_as_torchvision_does_it_with_pictures(name):
    recipe = Recipe(Resize((HEIGHT, WIDTH)), *MOVES[name])
    batch, mask = drawn(recipe), numbers(250).astype(np.uint8)
    for row in range(COUNT):
        ours = pixels.mask_window(mask, batch, row, recipe, form())
        np.testing.assert_array_equal(ours, np.asarray(turn(Image.fromarray(mask), batch, row, recipe)))
        # Tensors are sampled by float32 places: a pixel on the border of two may be the other one.
        theirs = turn(tv_tensors.Mask(torch.from_numpy(mask)), batch, row, recipe).numpy()
        assert (ours != theirs).mean() < 0.01


@pytest.mark.parametrize(
    "moves",
    [
        (Rotate(180, p=1.0, fill=IGNORE),),
        (Affine(30, translate=(0.2, 0.1), scale=(0.7, 1.3), shear=10, fill=IGNORE),),
        (Perspective(0.5, p=1.0, fill=IGNORE, interpolation="nearest"),),
        (RandomChoice([Rotate(90, p=1.0, fill=IGNORE), Affine(20, fill=IGNORE)]), Rotate(20, p=0.5, fill=IGNORE)),
    ],
)
def test_a_mask_stays_on_its_picture(moves):
    """A picture that shows the mask's numbers, and is sampled by the nearest pixel, shows them afterwards too."""
    recipe = Recipe(CenterCrop((HEIGHT, WIDTH)), *FLIPS, *moves)
    batch, mask = drawn(recipe), numbers(250).astype(np.uint8)
    data = encode(Image.fromarray(np.repeat(mask[:, :, None], 3, axis=2)), "PNG")
    for row in range(COUNT):
        ours = pixels.mask_window(mask, batch, row, recipe, form())
        shown = crop.cut(data, size=(WIDTH, HEIGHT), format="png", params=batch, row=row, recipe=recipe)
        np.testing.assert_array_equal(operators.apply(shown, batch, row, recipe)[:, :, 1], ours)


def some_boxes(count=9):
    corner = np.random.default_rng(3).uniform(-10, [[[WIDTH + 10, HEIGHT + 10]]], (count, 2, 2))
    return np.sort(corner, axis=1).reshape(count, 4)


def some_points(count=20):
    xy = np.random.default_rng(4).uniform(0, [[WIDTH, HEIGHT]], (count, 2))
    return np.concatenate([xy, np.arange(count)[:, None] % 3], axis=1)


RECIPES = {
    **CUTS,
    **{name: Recipe(Resize((HEIGHT, WIDTH)), *FLIPS, *MOVES[name]) for name in ("rotation", "affine", "perspective")},
    "all": Recipe(RandomResizedCrop(50), *FLIPS, Rotate(20, p=0.7), *MOVES["affine"], *MOVES["perspective"]),
}


@pytest.mark.parametrize("name", RECIPES)
def test_boxes_go_where_torchvision_puts_them(name):
    recipe, found = RECIPES[name], some_boxes()
    batch = drawn(recipe)
    row_B = np.repeat(np.arange(COUNT), len(found))
    ours = boxes.moved_boxes(np.tile(found, (COUNT, 1)), row_B, batch, recipe)
    for row in range(COUNT):
        theirs = tv_tensors.BoundingBoxes(torch.from_numpy(found), format="XYXY", canvas_size=(HEIGHT, WIDTH))
        theirs = functional.clamp_bounding_boxes(theirs)
        theirs = turn(cut(theirs, batch, row, recipe), batch, row, recipe)
        np.testing.assert_allclose(ours[row_B == row], theirs.numpy(), atol=1e-4)


@pytest.mark.parametrize("name", RECIPES)
def test_keypoints_go_where_torchvision_puts_them_and_are_not_visible_outside(name):
    recipe, found = RECIPES[name], some_points()
    batch, side = drawn(recipe), np.array([RECIPES[name].output_size(0)[::-1]])
    row_P = np.repeat(np.arange(COUNT), len(found))
    ours = boxes.moved_points(np.tile(found, (COUNT, 1)), row_P, batch, recipe)
    for row in range(COUNT):
        theirs = tv_tensors.KeyPoints(torch.from_numpy(found[:, :2]), canvas_size=(HEIGHT, WIDTH))
        theirs = turn(cut(theirs, batch, row, recipe), batch, row, recipe).numpy()
        point_P3 = ours[row_P == row]
        seen = point_P3[:, 2] > 0
        np.testing.assert_allclose(point_P3[seen, :2], theirs[seen], atol=1e-4)
        assert (point_P3[~seen] == 0).all()
        inside = ((theirs >= 0) & (theirs < side)).all(axis=1) & (found[:, 2] > 0)
        assert not (seen & ~inside).any()
        if not moves_of(recipe, batch, row):
            assert (seen == inside).all()


def test_a_box_is_left_out_when_less_than_a_pixel_of_it_is_left():
    box_B4 = np.array([[0, 0, 1, 1], [0, 0, 0.9, 9], [3, 4, 9, 4.5], [5, 5, 5, 5], [2, 2, 3.5, 3]])
    assert boxes.is_left(box_B4).tolist() == [True, False, False, False, True]


@pytest.mark.parametrize(
    ("mode", "values"),
    [
        ("L", np.arange(256).reshape(16, 16)),
        ("P", np.arange(256).reshape(16, 16)),
        ("1", np.eye(16)),
        ("I;16", np.arange(256).reshape(16, 16) * 256 + 7),
    ],
)
def test_a_mask_is_read_by_its_numbers_whatever_its_palette(mode, values):
    image = Image.fromarray(values.astype(np.uint16 if mode == "I;16" else np.uint8))
    if mode == "P":
        image.putpalette([value * 3 % 256 for value in range(768)])
    if mode == "1":
        image = Image.fromarray(values.astype(bool))
    data = encode(image, "PNG")
    made = pixels.form_of(Member(name="mask", kind="mask"), [b"bad", data], IGNORE)
    assert made.dtype == ("int32" if mode == "I;16" else "uint8")
    np.testing.assert_array_equal(pixels.decode_mask(data, made, (16, 16), 10**6), values)


def test_a_number_for_nothing_that_fits_no_byte_makes_larger_numbers():
    assert form(ignore=-100).dtype == "int32"
    assert form(ignore=0).dtype == "uint8"
