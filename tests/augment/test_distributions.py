"""What is drawn is distributed like what torchvision draws."""

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import v2

from imgdata.augment.params import erasing_noise
from imgdata.recipes import (
    CenterCrop,
    ColorJitter,
    Cutout,
    Grayscale,
    HorizontalFlip,
    PadRandomCrop,
    RandomErasing,
    RandomResizedCrop,
    Recipe,
    Rotate,
    VerticalFlip,
)
from support.draws import CROP, DRAWS, LEAST_P, made


def torchvision_boxes(width, height, **settings):
    """(left, top, width, height) of torchvision's crops, `(DRAWS, 4)`."""
    torch.manual_seed(0)
    crop, image = v2.RandomResizedCrop(224, **settings), torch.zeros(3, height, width, device="meta")
    drawn = (crop.make_params([image]) for _ in range(DRAWS))
    return np.array([[one["left"], one["top"], one["width"], one["height"]] for one in drawn])


def least_p(ours_N4, theirs_N4, width, height):
    """The smallest p of Kolmogorov-Smirnov tests of area, ratio and place of boxes."""

    def features(box_N4):
        left_N, top_N, width_N, height_N = box_N4.T
        # How far along the free way; boxes that have none say nothing.
        along = [
            place[free > 0] / free[free > 0] for place, free in ((left_N, width - width_N), (top_N, height - height_N))
        ]
        return [width_N * height_N, width_N / height_N, left_N, top_N, *along]

    pairs = zip(features(ours_N4), features(theirs_N4), strict=True)
    return min(stats.ks_2samp(*pair, method="asymp").pvalue for pair in pairs if min(map(len, pair)))


@pytest.mark.parametrize(("width", "height"), [(500, 375), (120, 200), (900, 60)])
def test_crops_are_distributed_like_torchvisions(width, height):
    theirs_N4 = torchvision_boxes(width, height)
    ours_N4 = made(Recipe(CROP), width, height).box_N4
    assert least_p(ours_N4, theirs_N4, width, height) > LEAST_P


def test_extreme_pictures_fall_back_to_the_middle_as_often_as_torchvisions():
    middle = [(900 - 80) // 2, 0, 80, 60]
    counts = [
        (boxes == middle).all(axis=1).sum()
        for boxes in (torchvision_boxes(900, 60), made(Recipe(CROP), 900, 60).box_N4)
    ]
    assert min(counts) > 100
    assert stats.chi2_contingency([counts, [DRAWS - count for count in counts]]).pvalue > LEAST_P


@pytest.mark.parametrize("settings", [{"scale": (0.12, 1.0)}, {"ratio": (0.8, 4 / 3)}])
def test_the_test_of_distributions_can_fail(settings):
    ours_N4 = made(Recipe(CROP), 500, 375).box_N4
    assert least_p(ours_N4, torchvision_boxes(500, 375, **settings), 500, 375) < LEAST_P / 1000


def test_positions_of_crops_are_even_over_the_free_way():
    boxes = made(Recipe(PadRandomCrop(size=32, padding=4, mode="reflect")), 32, 32).offset_N2
    for offset_N in boxes.T:
        assert stats.chisquare(np.bincount(offset_N + 4, minlength=9)).pvalue > LEAST_P


@pytest.mark.parametrize("p", [0, 0.1, 0.5, 1])
def test_flips_and_gray_come_with_their_probability_and_by_themselves(p):
    batch = made(Recipe(CROP, HorizontalFlip(p=p), VerticalFlip(p=p), Grayscale(p=p)))
    for happened_N in (batch.flip_N, batch.vflip_N, batch.gray_N):
        assert stats.binomtest(int(happened_N.sum()), DRAWS, p).pvalue > LEAST_P
    both = int((batch.flip_N & batch.vflip_N).sum())
    assert stats.binomtest(both, DRAWS, p * p).pvalue > LEAST_P


def test_crops_do_not_depend_on_flips():
    batch = made(Recipe(CROP, HorizontalFlip()))
    area_N = batch.box_N4[:, 2] * batch.box_N4[:, 3]
    assert stats.ks_2samp(area_N[batch.flip_N], area_N[~batch.flip_N]).pvalue > LEAST_P


def test_angles_are_even_between_their_limits():
    angle_N = made(Recipe(CROP, Rotate(degrees=(-10, 30), p=0.7))).angle_N
    turned = angle_N[angle_N != 0]
    assert stats.binomtest(len(turned), DRAWS, 0.7).pvalue > LEAST_P
    assert stats.kstest(turned, stats.uniform(-10, 40).cdf).pvalue > LEAST_P


def test_jitter_is_distributed_like_torchvisions():
    settings = {"brightness": 0.4, "contrast": (0.5, 2.0), "saturation": 1.5, "hue": 0.1}
    batch = made(Recipe(CROP, ColorJitter(**settings)))
    torch.manual_seed(0)
    theirs = v2.ColorJitter(**settings)
    drawn = [theirs.make_params([]) for _ in range(DRAWS)]
    for column, name in enumerate(settings):
        assert stats.ks_2samp(batch.jitter_N4[:, column], [d[f"{name}_factor"] for d in drawn]).pvalue > LEAST_P
    place = np.array([1000, 100, 10, 1])
    tables = [
        np.unique(order_N4 @ place, return_counts=True)
        for order_N4 in (batch.order_N4, np.array([d["fn_idx"].tolist() for d in drawn]))
    ]
    assert len(tables[0][0]) == 24
    assert np.array_equal(tables[0][0], tables[1][0])
    assert stats.chi2_contingency([counts for _, counts in tables]).pvalue > LEAST_P


def test_jitter_that_is_not_drawn_is_neutral():
    batch = made(Recipe(CROP, ColorJitter(brightness=0.4, hue=0.2, p=0.25)))
    neutral_N = (batch.jitter_N4 == (1, 1, 1, 0)).all(axis=1)
    assert stats.binomtest(int(neutral_N.sum()), DRAWS, 0.75).pvalue > LEAST_P
    assert (batch.jitter_N4[:, 1:3] == 1).all()
    first = np.bincount(batch.order_N4[~neutral_N, 0], minlength=4)
    assert stats.chisquare(first).pvalue > LEAST_P


@pytest.mark.parametrize(("width", "height"), [(224, 224), (96, 32)])
def test_erased_boxes_are_distributed_like_torchvisions(width, height):
    torch.manual_seed(0)
    erase, image = v2.RandomErasing(p=1), torch.zeros(3, height, width)
    drawn = [erase.make_params([image]) for _ in range(DRAWS)]
    theirs_N4 = np.array([[d["j"], d["i"], d["w"], d["h"]] for d in drawn if d["v"] is not None])
    ours_N4 = made(Recipe(RandomResizedCrop(size=(height, width)), RandomErasing(p=1))).erase_N4
    ours_N4 = ours_N4[ours_N4[:, 2:].all(axis=1)]
    assert least_p(ours_N4, theirs_N4, width, height) > LEAST_P
    half = made(Recipe(CROP, RandomErasing(p=0.3))).erase_N4[:, 2] > 0
    assert stats.binomtest(int(half.sum()), DRAWS, 0.3).pvalue > LEAST_P


def test_cutout_squares_lie_about_any_pixel_and_are_cut_at_the_edge():
    box_N4 = made(Recipe(CenterCrop(size=32), Cutout(size=16)), 32, 32).erase_N4
    left_N, top_N, width_N, height_N = box_N4.T
    assert (left_N >= 0).all()
    assert (left_N + width_N <= 32).all()
    assert (width_N[(left_N > 0) & (left_N + width_N < 32)] == 16).all()
    # The middle is any of 32 pixels: 8 of them leave less than the half to the left.
    assert stats.binomtest(int((left_N == 0).sum()), DRAWS, 9 / 32).pvalue > LEAST_P
    assert stats.binomtest(int((height_N == 16).sum()), DRAWS, 17 / 32).pvalue > LEAST_P
    assert stats.ks_2samp(left_N, top_N).pvalue > LEAST_P


def test_noise_is_gaussian_and_a_function_of_the_position():
    noise = erasing_noise(1, 2, 3, 51, 41)
    assert noise.shape == (3, 51, 41)
    assert noise.dtype == np.float32
    assert stats.kstest(noise.ravel(), "norm").pvalue > LEAST_P
    assert np.array_equal(noise, erasing_noise(1, 2, 3, 51, 41))
    # Of 65,536 values, so that some are the same by chance.
    for other in (erasing_noise(1, 2, 4, 51, 41), erasing_noise(1, 3, 3, 51, 41), erasing_noise(2, 2, 3, 51, 41)):
        assert np.mean(noise == other) < 1e-3


def test_noise_is_as_wide_as_it_should_be_and_depends_on_nothing_before():
    noise = erasing_noise(5, 0, 2**40, 500, 501).ravel()
    assert stats.kstest(noise, "norm").pvalue > LEAST_P
    assert noise.mean() == pytest.approx(0, abs=5e-3)
    assert noise.var() == pytest.approx(1, abs=1e-2)
    assert 4 < np.abs(noise).max() < 4.4
    assert np.abs(np.corrcoef(noise[:-1], noise[1:])[0, 1]) < 5e-3
