"""RandAugment, TrivialAugment and AutoAugment are the published ones, as torchvision has them."""

import numpy as np
import pytest
from scipy import stats
from torchvision.transforms import v2
from torchvision.transforms.v2 import AutoAugmentPolicy

from imgdata.augment.policies import OPS, strengths, sub_policies
from imgdata.recipes import AutoAugment, RandAugment, RandomResizedCrop, Recipe, TrivialAugment
from support.draws import DRAWS, LEAST_P, made

SPACES = {"RandAugment": v2.RandAugment, "AutoAugment": v2.AutoAugment, "TrivialAugment": v2.TrivialAugmentWide}


def drawn(policy, size=224):
    return made(Recipe(RandomResizedCrop(size=size), policy))


def torchvision_strengths(space, bins, height, width):
    made = np.zeros((len(OPS), bins))
    for name, (strengths_of, _) in space.items():
        values = strengths_of(bins, height, width)
        if values is not None:
            made[OPS.index(name)] = values.numpy()
    return made


@pytest.mark.parametrize("bins", [2, 10, 11, 31, 100])
@pytest.mark.parametrize(("height", "width"), [(224, 224), (160, 331), (32, 48)])
@pytest.mark.parametrize(("name", "wide"), [("RandAugment", False), ("AutoAugment", False), ("TrivialAugment", True)])
def test_strengths_are_torchvisions(name, wide, bins, height, width):
    expected = torchvision_strengths(SPACES[name]._AUGMENTATION_SPACE, bins, height, width)
    ours = strengths(bins, height, width, wide=wide)
    # The last bit of a float32 may differ; whole pixels and bits, which are cut out of them, may not.
    np.testing.assert_allclose(ours, expected, rtol=3e-7, atol=1e-12)
    assert np.array_equal(ours[3:5].astype(int), expected[3:5].astype(int))
    assert np.array_equal(ours[OPS.index("Posterize")], expected[OPS.index("Posterize")])


@pytest.mark.parametrize("name", SPACES)
def test_the_signed_operations_are_torchvisions(name):
    policy = {"RandAugment": RandAugment(), "TrivialAugment": TrivialAugment(), "AutoAugment": AutoAugment()}[name]
    if name == "AutoAugment":
        batches = [drawn(AutoAugment(policy=one)) for one in ("imagenet", "cifar10", "svhn")]
    else:
        batches = [drawn(policy)]
    space = SPACES[name]._AUGMENTATION_SPACE
    for op, (_, signed) in space.items():
        low = min(batch.strength_NP[batch.op_NP == OPS.index(op)].min(initial=0.0) for batch in batches)
        assert (low < 0) == signed, op


@pytest.mark.parametrize("policy", ["imagenet", "cifar10", "svhn"])
def test_sub_policies_are_torchvisions(policy):
    table = sub_policies(policy)
    ours = [
        [
            (OPS[op], p, level)
            for op, p, level in zip(table.op_S2[row], table.probability_S2[row], table.bin_S2[row], strict=True)
        ]
        for row in range(25)
    ]
    theirs = [
        [(name, p, level or 0) for name, p, level in pair]
        for pair in v2.AutoAugment(AutoAugmentPolicy(policy))._policies
    ]
    assert ours == theirs


@pytest.mark.parametrize("policy", [RandAugment(n=1), RandAugment(n=3), TrivialAugment()])
def test_each_operation_is_as_likely_in_every_slot(policy):
    for op_N in drawn(policy).op_NP.T:
        counts = np.bincount(op_N, minlength=len(OPS))
        assert counts[OPS.index("Invert")] == 0
        assert stats.chisquare(counts[:-1]).pvalue > LEAST_P


def test_the_slots_of_randaugment_are_independent():
    op_N2 = drawn(RandAugment(n=2)).op_NP
    table, *_ = np.histogram2d(op_N2[:, 0], op_N2[:, 1], bins=14)
    assert stats.chi2_contingency(table).pvalue > LEAST_P


def test_randaugment_has_one_strength_and_even_signs():
    batch = drawn(RandAugment(m=9, bins=31))
    rotate_NP = batch.op_NP == OPS.index("Rotate")
    angles = batch.strength_NP[rotate_NP]
    assert set(np.abs(angles).round(4)) == {9.0}
    assert stats.binomtest(int((angles < 0).sum()), len(angles)).pvalue > LEAST_P
    assert set(batch.strength_NP[batch.op_NP == OPS.index("Equalize")]) == {0.0}


def test_trivialaugment_has_every_strength_as_often():
    batch = drawn(TrivialAugment(bins=31))
    solarize = batch.strength_NP[batch.op_NP == OPS.index("Solarize")]
    assert stats.chisquare(np.bincount((solarize * 30).round().astype(int), minlength=31)).pvalue > LEAST_P


@pytest.mark.parametrize("policy", ["imagenet", "cifar10", "svhn"])
def test_autoaugment_takes_operations_as_often_as_its_probabilities_say(policy):
    table = sub_policies(policy)
    batch = drawn(AutoAugment(policy=policy))
    for slot in range(2):
        expected = np.zeros(len(OPS))
        np.add.at(expected, table.op_S2[:, slot], table.probability_S2[:, slot] / 25)
        expected[0] = 1 - expected[1:].sum()
        counts = np.bincount(batch.op_NP[:, slot], minlength=len(OPS))
        assert counts[expected == 0].sum() == 0
        used = expected > 0
        assert stats.chisquare(counts[used], expected[used] * DRAWS).pvalue > LEAST_P


def test_autoaugment_takes_both_operations_from_one_sub_policy():
    pairs = {tuple(pair) for pair in sub_policies("svhn").op_S2.tolist()}
    drawn_pairs = {tuple(pair) for pair in drawn(AutoAugment(policy="svhn")).op_NP.tolist() if 0 not in pair}
    assert drawn_pairs <= pairs
    assert len(drawn_pairs) > 15


def torchvision_choices(transform, count):
    """What torchvision's policy does to `count` pictures: (operation, strength) of the first operation of each."""
    import torch

    chosen = []
    transform._apply_image_or_video_transform = lambda image, name, strength, **_: chosen.append((name, strength))
    image = torch.zeros(3, 224, 224, dtype=torch.uint8)
    torch.manual_seed(0)
    for _ in range(count):
        transform(image)
    return [name for name, _ in chosen], [strength for _, strength in chosen]


def test_trivialaugment_is_distributed_like_torchvisions():
    names, strength = torchvision_choices(v2.TrivialAugmentWide(), 3000)
    batch = drawn(TrivialAugment())
    table = [
        np.bincount([OPS.index(name) for name in names], minlength=14),
        np.bincount(batch.op_NP[:, 0], minlength=14),
    ]
    assert stats.chi2_contingency(table).pvalue > LEAST_P
    assert stats.ks_2samp(strength, batch.strength_NP[:, 0]).pvalue > LEAST_P


def test_shifts_follow_the_size_of_the_output():
    def shift(size):
        batch = drawn(RandAugment(m=30, bins=31), size=size)
        return np.abs(batch.strength_NP[batch.op_NP == OPS.index("TranslateX")]).max()

    assert shift(331) == pytest.approx(150, rel=1e-6)
    assert shift(662) == pytest.approx(300, rel=1e-6)
