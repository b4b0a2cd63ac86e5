"""What the tests of parameters share."""

import numpy as np

from imgdata.augment.params import params
from imgdata.recipes import RandomResizedCrop

DRAWS = 10_000
# Seeds are fixed, so a test gives the same p for ever; one this small would be an error, not bad luck.
LEAST_P = 1e-3
CROP = RandomResizedCrop(size=224)
SEED, EPOCH = 3, 2


def made(recipe, width=300, height=300, count=DRAWS, seed=SEED, epoch=EPOCH):
    """Parameters of `count` pictures of one size."""
    side_N = np.ones(count, int)
    return params(recipe, side_N * width, side_N * height, seed=seed, epoch=epoch, position_N=np.arange(count))
