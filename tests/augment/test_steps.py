"""What further operators on pixels draw: torchvision's distributions, streams of their own, choices among operators."""

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import v2

from imgdata.augment import augmix, moves
from imgdata.augment.mix import GAMMA_DRAWS, log_gamma_variate, log_gamma_variates
from imgdata.augment.policies import OPS
from imgdata.augment.steps import layout
from imgdata.recipes import (
    Affine,
    AugMix,
    CenterCrop,
    ColorJitter,
    Equalize,
    GaussianBlur,
    Grayscale,
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
    Solarize,
    ThreeAugment,
)
from support.draws import CROP, DRAWS, LEAST_P, made

PICTURE = torch.zeros(3, 224, 224, dtype=torch.uint8)


def values(batch, recipe, number=0):
    """Which samples get the first step of operator `number` on pixels, and its values."""
    step = layout(recipe).steps[number][0]
    return batch.done_NS[:, step.column], batch.value_NV[:, step.first : step.first + step.values]


def theirs(transform, count=2000):
    torch.manual_seed(0)
    return [transform.make_params([PICTURE]) for _ in range(count)]


def assert_same_distribution(ours, other):
    assert stats.ks_2samp(ours, other).pvalue > LEAST_P


def test_an_affine_draws_as_torchvisions():
    op = Affine((-10, 40), translate=(0.1, 0.3), scale=(0.5, 1.5), shear=(-5, 5, 2, 9), p=0.5)
    recipe = Recipe(CROP, op)
    done_N, value_N6 = values(made(recipe), recipe)
    assert abs(done_N.mean() - 0.5) < 0.02
    drawn = theirs(v2.RandomAffine((-10, 40), (0.1, 0.3), (0.5, 1.5), (-5, 5, 2, 9)))
    for column, other in enumerate(
        zip(*[(d["angle"], *d["translate"], d["scale"], *d["shear"]) for d in drawn], strict=True)
    ):
        assert_same_distribution(value_N6[:, column], other)
    assert (value_N6[:, 1:3] == np.rint(value_N6[:, 1:3])).all()


def test_a_perspective_draws_corners_as_torchvisions():
    recipe = Recipe(CROP, Perspective(0.4, p=1.0))
    done_N, value_N8 = values(made(recipe), recipe)
    assert done_N.all()
    reach = int(0.4 * 112) + 1
    for corner, (x, y) in enumerate([(0, 0), (224 - reach, 0), (224 - reach, 224 - reach), (0, 224 - reach)]):
        for column, least in ((2 * corner, x), (2 * corner + 1, y)):
            place_N = value_N8[:, column]
            assert set(place_N) == set(range(least, least + reach))
            assert stats.chisquare(np.unique(place_N, return_counts=True)[1]).pvalue > LEAST_P


def test_coefficients_of_a_perspective_are_torchvisions():
    recipe = Recipe(CROP, Perspective(0.5, p=1.0))
    _, value_N8 = values(made(recipe, count=50), recipe)
    corners = [[0, 0], [223, 0], [223, 223], [0, 223]]
    for ours, row in zip(moves.perspective(value_N8, 224, 224), value_N8, strict=True):
        other = v2.functional._geometry._get_perspective_coeffs(corners, row.reshape(4, 2).astype(int).tolist())
        np.testing.assert_allclose(ours, other, rtol=1e-5, atol=1e-7)


def test_corners_on_a_line_move_nothing():
    assert moves.perspective(np.zeros((1, 8)), 1, 1).tolist() == [[1, 0, 0, 0, 1, 0, 0, 0]]


def test_a_blur_draws_its_deviation_evenly():
    recipe = Recipe(CROP, GaussianBlur(9, sigma=(0.5, 1.5), p=0.3))
    done_N, value_N1 = values(made(recipe), recipe)
    assert abs(done_N.mean() - 0.3) < 0.02
    assert stats.kstest(value_N1[:, 0], stats.uniform(0.5, 1.0).cdf).pvalue > LEAST_P


@pytest.mark.parametrize("op", [Solarize(1, p=0.3), Posterize(1, p=0.3), Equalize(0.3), Invert(0.3)])
def test_an_operator_is_done_with_its_probability(op):
    done_N, value_N0 = values(made(Recipe(CROP, op)), Recipe(CROP, op))
    assert abs(done_N.mean() - 0.3) < 0.02
    assert value_N0.shape == (DRAWS, 0)


def test_operators_of_different_kinds_are_drawn_independently():
    batch = made(Recipe(CROP, Equalize(), Invert(), Posterize(1), Solarize(1), RandomApply((Grayscale(p=1),))))
    correlation = np.corrcoef(batch.done_NS.T)
    assert np.abs(correlation - np.eye(5)).max() < 0.04


def test_an_operator_of_another_kind_changes_no_draws():
    lean, full = (
        Recipe(CROP, GaussianBlur(9), Grayscale()),
        Recipe(CROP, Affine(3), Grayscale(), GaussianBlur(9), Invert()),
    )
    assert np.array_equal(values(made(lean), lean)[1], values(made(full), full, 2)[1])
    assert np.array_equal(made(lean).gray_N, made(full).gray_N)


def test_an_operator_draws_the_same_wherever_it_stands_among_those_on_pixels():
    jitter, turn = ColorJitter(brightness=0.4, hue=0.1, p=0.5), Rotate(degrees=30)
    before, after = made(Recipe(CROP, turn, jitter)), made(Recipe(CROP, jitter, turn))
    assert np.array_equal(before.jitter_N4, after.jitter_N4)
    assert np.array_equal(before.angle_N, after.angle_N)


def test_what_another_operator_holds_draws_for_itself():
    recipe = Recipe(CROP, ColorJitter(brightness=0.4), RandomApply((ColorJitter(brightness=0.4),), p=1.0))
    batch = made(recipe)
    _, value_N8 = values(batch, recipe, 1)
    assert abs(np.corrcoef(value_N8[:, 4], batch.jitter_N4[:, 0])[0, 1]) < 0.04
    assert_same_distribution(value_N8[:, 4], batch.jitter_N4[:, 0])


def test_two_of_a_kind_that_are_held_draw_different_numbers():
    recipe = Recipe(CROP, RandomChoice((GaussianBlur(9), GaussianBlur(5))))
    first, second = layout(recipe).steps[0]
    batch = made(recipe)
    assert abs(np.corrcoef(batch.value_NV[:, first.first], batch.value_NV[:, second.first])[0, 1]) < 0.04


def test_all_of_what_is_applied_together_is_done_or_nothing():
    recipe = Recipe(CROP, RandomApply((Invert(1), RandomApply((Equalize(1), Solarize(1, p=1)), p=0.5)), p=0.6))
    invert_N, equalize_N, solarize_N = made(recipe).done_NS.T
    assert np.array_equal(equalize_N, solarize_N)
    assert not (equalize_N & ~invert_N).any()
    assert abs(invert_N.mean() - 0.6) < 0.02
    assert abs(equalize_N.mean() - 0.3) < 0.02


@pytest.mark.parametrize(("weights", "shares"), [(None, (1 / 3, 1 / 3, 1 / 3)), ((1, 0, 3), (0.25, 0, 0.75))])
def test_one_is_chosen_as_often_as_its_weight_says(weights, shares):
    done_NS = made(Recipe(CROP, RandomChoice((Invert(1), Equalize(1), Grayscale(1)), weights=weights))).done_NS
    assert (done_NS.sum(axis=1) == 1).all()
    np.testing.assert_allclose(done_NS.mean(axis=0), shares, atol=0.02)


def test_of_three_each_is_done_in_a_third_of_the_cases():
    recipe = Recipe(CROP, ThreeAugment())
    batch = made(recipe)
    assert [type(step.op).__name__ for step in layout(recipe).steps[0]] == ["Grayscale", "Solarize", "GaussianBlur"]
    assert (batch.done_NS.sum(axis=1) == 1).all()
    np.testing.assert_allclose(batch.done_NS.mean(axis=0), 1 / 3, atol=0.02)


def test_a_held_policy_draws_as_one_that_is_not():
    recipe = Recipe(CROP, RandomApply((RandAugment(n=3, m=12),), p=1.0))
    _, value_N6 = values(made(recipe), recipe)
    alone = made(Recipe(CROP, RandAugment(n=3, m=12)))
    counts = [np.bincount(op_NP.astype(int).ravel(), minlength=len(OPS)) for op_NP in (value_N6[:, :3], alone.op_NP)]
    assert stats.chi2_contingency([row[:14] for row in counts]).pvalue > LEAST_P
    assert set(np.abs(value_N6[:, 3:]).ravel()) == set(np.abs(alone.strength_NP).ravel())


# --- AugMix --------------------------------------------------------------------------------------------------------


def chains(op, count=DRAWS):
    recipe = Recipe(CROP, op)
    return augmix.parts(op, values(made(recipe, count=count), recipe)[1])


def test_chains_have_torchvisions_operations_depths_and_strengths():
    op_NWD, strength_NWD, _ = chains(AugMix())
    lengths, counts = np.unique((op_NWD > 0).sum(axis=2), return_counts=True)
    assert lengths.tolist() == [1, 2, 3]
    assert stats.chisquare(counts).pvalue > LEAST_P
    names = [OPS[number] for number in np.unique(op_NWD) if number]
    assert set(names) == set(v2.AugMix._AUGMENTATION_SPACE)
    for name in names:
        magnitudes, signed = v2.AugMix._AUGMENTATION_SPACE[name]
        table = magnitudes(10, 224, 224)
        allowed = {0.0} if table is None else {float(value) for value in table[:3]}
        allowed |= {-value for value in allowed} if signed else set()
        drawn = set(strength_NWD[op_NWD == OPS.index(name)].tolist())
        np.testing.assert_allclose(sorted(drawn), sorted(allowed), rtol=1e-6, err_msg=name)


def test_shares_are_those_of_the_beta_and_dirichlet_distributions():
    for alpha in (1.0, 0.4):
        _, _, share_NW = chains(AugMix(alpha=alpha))
        np.testing.assert_allclose(share_NW.sum(axis=1), 1.0)
        assert stats.kstest(share_NW[:, 0], stats.beta(alpha, alpha).cdf).pvalue > LEAST_P
        first_N = share_NW[:, 1] / (1 - share_NW[:, 0]).clip(1e-12)
        assert stats.kstest(first_N, stats.beta(alpha, 2 * alpha).cdf).pvalue > LEAST_P


def test_the_partial_space_has_no_operations_on_colour():
    op_NWD, *_ = chains(AugMix(all_ops=False, depth=2, width=1))
    assert {OPS[number] for number in np.unique(op_NWD)} == set(v2.AugMix._PARTIAL_AUGMENTATION_SPACE)
    assert op_NWD.shape == (DRAWS, 1, 2)


def test_many_gamma_variates_are_those_that_come_one_by_one():
    draw_KGD = np.random.default_rng(0).random((20, 3, GAMMA_DRAWS))
    together = log_gamma_variates(0.7, draw_KGD)
    np.testing.assert_allclose(together, [[log_gamma_variate(0.7, d) for d in row] for row in draw_KGD], rtol=1e-12)


# --- random sizes --------------------------------------------------------------------------------------------------


def test_a_random_resize_draws_every_size_but_the_largest():
    batch = made(Recipe(RandomResize(50, 60), CenterCrop(32)), width=300, height=200)
    sizes, counts = np.unique(batch.resized_N2[:, 1], return_counts=True)
    assert sizes.tolist() == list(range(50, 60))
    assert stats.chisquare(counts).pvalue > LEAST_P
    assert (batch.resized_N2[:, 0] == batch.resized_N2[:, 1] * 3 // 2).all()


def test_a_random_crop_behind_a_random_resize_reaches_every_place():
    batch = made(Recipe(RandomResize(40, 42), PadRandomCrop(size=32)), width=300, height=300)
    spare_N2 = batch.resized_N2 - 32
    assert (batch.offset_N2 >= 0).all()
    assert (batch.offset_N2 <= spare_N2).all()
    assert (batch.offset_N2 == spare_N2).any()


def test_scale_jitter_is_torchvisions_with_a_crop_or_margins_behind():
    batch = made(Recipe(ScaleJitter(64, scale=(0.5, 2.0))), width=300, height=200)
    picture = torch.zeros(3, 200, 300, dtype=torch.uint8)
    torch.manual_seed(0)
    drawn = [v2.ScaleJitter((64, 64), (0.5, 2.0)).make_params([picture])["size"] for _ in range(2000)]
    assert_same_distribution(batch.resized_N2[:, 0], [width for _, width in drawn])
    assert_same_distribution(batch.resized_N2[:, 1], [height for height, _ in drawn])
    smaller_N2 = batch.resized_N2 <= 64
    assert (batch.offset_N2[smaller_N2] == 0).all()
    assert ((batch.offset_N2 >= 0) & (batch.offset_N2 <= np.maximum(batch.resized_N2 - 64, 0))).all()
