"""The loaders that `imgdata bench` compares with: what they can do, and that they do the same as ours."""

import re
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image

import imgdata
from imgdata import recipes
from imgdata.errors import ImgdataError
from imgdata.measure.bench import BenchOptions, bench
from imgdata.measure.bench.peers import PEERS
from imgdata.measure.bench.processes import run_together
from imgdata.measure.bench.transforms import Decoded, transforms
from support.bench_jobs import QUICK, job_of, measured
from support.loaders import damaged, dataset, seen
from support.rawdata import encoded

# torchvision's decoder is to go to another package one day; until then it is the usual one.
its_decoder = pytest.mark.filterwarnings("ignore:The image decoding and encoding capabilities of TorchVision")
needs_dali = pytest.mark.skipif(find_spec("nvidia.dali") is None, reason="DALI is not installed")
CROP, NORMALIZE = recipes.RandomResizedCrop(size=16), recipes.imagenet_eval().ops[-1]
GROWING = recipes.imagenet_train(recipes.Schedule(((0, 16), (2, 32))))


@pytest.mark.parametrize(
    ("peer", "recipe", "dtype", "reason"),
    [
        ("torchvision", recipes.imagenet_train(16), "float16", None),
        ("torchvision", recipes.classifier_train(16), "uint8", None),
        ("torchvision", recipes.cifar_train(cutout=8), "float32", "no Cutout"),
        ("webdataset", recipes.Recipe(CROP, recipes.MixUp()), "float32", "no MixUp"),
        ("torchvision-pil", recipes.Recipe(CROP, NORMALIZE, recipes.RandomErasing()), "float32", None),
        ("torchvision-pil", recipes.Recipe(CROP, NORMALIZE, recipes.RandomErasing()), "uint8", "not normalised"),
        ("webdataset", GROWING, "float32", "no sizes that change from epoch to epoch"),
        pytest.param("dali", recipes.imagenet_eval(16, 24), "float32", None, marks=needs_dali),
        pytest.param("dali", GROWING, "float32", "no sizes that change", marks=needs_dali),
        pytest.param("dali", recipes.cifar_train(), "uint8", "no PadRandomCrop", marks=needs_dali),
        pytest.param("dali", recipes.Recipe(recipes.Resize(size=(8, 8))), "uint8", "Resize without", marks=needs_dali),
        pytest.param("dali", recipes.imagenet_train(16), "bfloat16", "no bfloat16", marks=needs_dali),
    ],
)
def test_a_loader_that_can_not_do_the_recipe_says_what(peer, recipe, dtype, reason):
    found = PEERS[peer].refuses(recipe, dtype, "cpu")
    assert (found is None) if reason is None else (reason in (found or ""))


@pytest.mark.parametrize(
    ("peer", "module", "remedy"),
    [
        ("torchvision", "torchvision", "pip install 'imgdata[train]'"),
        ("webdataset", "torchvision", "pip install 'imgdata[train]'"),
        ("webdataset", "webdataset", "pip install webdataset"),
        ("dali", "nvidia.dali", "pip install 'imgdata[dali]'"),
    ],
)
def test_a_loader_that_is_not_installed_is_left_out_with_its_extra(monkeypatch, images, peer, module, remedy):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr("imgdata.measure.bench.run.run_together", lambda jobs, limit_s: [measured()] * len(jobs))
    result = bench(images, BenchOptions(**QUICK, backend="cpu", compare=(peer,)))
    assert remedy in result.left_out[peer]
    assert result.peers == ()
    assert result.notes[-1].startswith(f"{peer} left out: ")


@its_decoder
def test_torchvision_gets_the_recipe_that_we_have(images):
    recipe = recipes.imagenet_eval(16, 24)
    with imgdata.Loader(images, split="train", batch_size=8, recipe=recipe, shuffle="none", exact=True) as loader:
        expected = seen(next(iter(loader)))
    split = imgdata.open(images)["train"]
    theirs = imgdata.open(images).torch("train", transforms(recipe, "float32", pil=True))
    assert np.allclose(np.stack([theirs[at][0] for at in range(8)]), expected.images, atol=1e-6)
    on_tensors = Decoded(transforms(recipe, "float32", pil=False))
    close = np.stack([on_tensors(split.read(at)) for at in range(8)])
    # Its resize of tensors rounds in other places: a step of 255 is 0.02 here.
    assert np.abs(close - expected.images).mean() < 0.03


OPERATORS = [
    (recipes.PadRandomCrop(size=16, padding=2, mode="reflect"), "RandomCrop"),
    (recipes.HorizontalFlip(p=1.0), "RandomHorizontalFlip"),
    (recipes.VerticalFlip(p=1.0), "RandomVerticalFlip"),
    (recipes.Rotate(degrees=(10, 20), fill=(1.0, 2.0, 3.0)), "RandomRotation"),
    (recipes.RandAugment(), "RandAugment"),
    (recipes.TrivialAugment(), "TrivialAugmentWide"),
    (recipes.AutoAugment(policy="svhn"), "AutoAugment"),
    (recipes.ColorJitter(brightness=0.2, hue=(-0.1, 0.1)), "ColorJitter"),
    (recipes.Grayscale(p=1.0), "RandomGrayscale"),
    (recipes.RandomErasing(value="random"), "RandomErasing"),
]


@pytest.mark.parametrize("pil", [True, False])
@pytest.mark.parametrize(("op", "name"), OPERATORS)
def test_every_other_operator_has_its_like(op, name, pil):
    crop = [] if isinstance(op, recipes.PadRandomCrop) else [recipes.CenterCrop(size=16)]
    recipe = recipes.Recipe(*crop, op) if op != OPERATORS[-1][0] else recipes.Recipe(*crop, NORMALIZE, op)
    dtype = "float32" if name == "RandomErasing" else "uint8"
    made = transforms(recipe, dtype, pil=pil)
    assert name in repr(made)
    picture = Image.fromarray(np.full((20, 24, 3), 100, np.uint8))
    image_CHW = made(picture) if pil else made(torch.full((3, 20, 24), 100, dtype=torch.uint8))
    assert tuple(image_CHW.shape) == (3, 16, 16)
    assert image_CHW.dtype == getattr(torch, dtype)


@its_decoder
def test_what_torchvision_can_not_decode_pillow_does():
    transform = Decoded(transforms(recipes.Recipe(recipes.CenterCrop(size=16)), "uint8", pil=False))
    for format, mode in (("JPEG", "CMYK"), ("JPEG", "L"), ("BMP", "RGB")):
        assert tuple(transform(encoded(3, (40, 32), format, mode)).shape) == (3, 16, 16)


@pytest.mark.slow
def test_other_loaders_are_measured_in_turns_and_stated(images):
    names = [name for name in PEERS if name != "dali" or find_spec("nvidia.dali")]
    seen_runs = []
    result = bench(images, BenchOptions(**QUICK, compare=tuple(names)), progress=lambda *of: seen_runs.append(of))
    assert result.left_out == {}
    assert seen_runs[0] == (0, len(names) + 1)
    assert seen_runs[-1] == (len(names) + 1, len(names) + 1)
    assert [peer.name for peer in result.peers] == names
    for peer in result.peers:
        assert peer.ratio == pytest.approx(result.figures.images_per_s / peer.images_per_s)
        assert peer.cpu_ratio == pytest.approx(result.figures.cpu_ms_per_image / peer.cpu_ms_per_image)
        assert peer.version
        assert peer.peak_mb > 50
        assert any(note.startswith(f"{peer.name} {peer.version}: {peer.configuration}") for note in result.notes)
    assert "1 process" in result.peers[0].configuration
    assert any(re.search(r"and \d+ batch(es)? of warm-up or more not counted", note) for note in result.notes)


@pytest.mark.slow
def test_what_stops_another_loader_is_told(tmp_path):
    folder = dataset(tmp_path, {number: damaged(number) for number in range(0, 24, 2)}, 24)
    with pytest.raises(ImgdataError, match=r"its process ended with 1: .*ImageError: truncated: s00.. in split train"):
        run_together([job_of(folder, loader="torchvision-pil")])
