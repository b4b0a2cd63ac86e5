"""What the tests of whole batches in torch share: photographs, and recipes with what they draw for them."""

from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image

from imgdata.augment.params import params
from imgdata.backends import torch_ops
from imgdata.recipes import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    CenterCrop,
    ColorJitter,
    Grayscale,
    Normalize,
    RandAugment,
    Recipe,
    Rotate,
)
from support.pictures import photo_file

HEIGHT, WIDTH = 72, 96
FILL = (10.0, 100.0, 200.0)
ALL = (
    Rotate(degrees=30.0, p=0.5),
    RandAugment(n=2, fill=FILL),
    ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8),
    Grayscale(p=0.2),
)
NORMALIZE = Normalize(mean=IMAGENET_MEAN, std=IMAGENET_STD)


@pytest.fixture(scope="module")
def one_thread():
    """Batches are small: where others use the cores, threads would wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def photos(height=HEIGHT, width=WIDTH):
    """Four photographs, uint8 `(4, 3, H, W)`."""
    files = [
        photo_file("skimage", f"data/{name}") for name in ("coffee.png", "chelsea.png", "rocket.jpg", "astronaut.png")
    ]
    images = [np.asarray(Image.open(file).convert("RGB").resize((width, height))) for file in files]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def batch(*ops, images, first=0, seed=3):
    """The images, a recipe of these operators, and parameters at positions from `first` on."""
    count, _, height, width = images.shape
    recipe = Recipe(CenterCrop(size=(height, width)), *ops)
    side_N = np.ones(count, int)
    position_N = np.arange(first, first + count)
    return recipe, params(recipe, side_N * width, side_N * height, seed=seed, epoch=0, position_N=position_N)


def applied(recipe, drawn, images):
    return torch_ops.apply(images.clone(), drawn, recipe)


def difference(ours, theirs):
    return (ours.int() - theirs.int()).abs()
