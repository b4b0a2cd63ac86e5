"""The loaders that `imgdata bench` compares with: what they can do, and that they do the same as ours."""

import re
import signal
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
from imgdata.recipes.choices import PIXELS
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
        ("torchvision", recipes.Recipe(CROP, recipes.Apply(np.copy)), "float32", "no Apply"),
        ("torchvision", recipes.Recipe(CROP, recipes.RandomApply((recipes.Apply(np.copy),))), "uint8", "no Apply"),
        ("torchvision", recipes.Recipe(recipes.FixedCrop(9)), "uint8", "no FixedCrop"),
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


ON_PIXELS = (
    recipes.Rotate(degrees=20),
    recipes.Affine(10, translate=(0.1, 0.1), shear=(1.0, 2.0)),
    recipes.Perspective(p=1.0, fill=(1, 2, 3)),
    recipes.RandAugment(),
    recipes.TrivialAugment(),
    recipes.AutoAugment(),
    recipes.ColorJitter(hue=0.1),
    recipes.Grayscale(p=1.0),
    recipes.GaussianBlur(5, p=0.5),
    recipes.Solarize(128, p=1.0),
    recipes.Posterize(3, p=1.0),
    recipes.Equalize(1.0),
    recipes.AutoContrast(1.0),
    recipes.Sharpness(2.0, p=1.0),
    recipes.Invert(1.0),
    recipes.RandomApply((recipes.Solarize(100), recipes.GaussianBlur(3))),
    recipes.RandomChoice((recipes.Invert(1.0), recipes.Posterize(2)), weights=(0.2, 0.8)),
    recipes.ThreeAugment(),
    recipes.AugMix(),
)


def test_torchvisions_peers_have_every_operator_on_pixels_but_functions():
    assert {type(op) for op in ON_PIXELS} == set(PIXELS) - {recipes.Apply}


@its_decoder
@pytest.mark.parametrize(
    "ops",
    [
        *([recipes.RandomResizedCrop(16), op] for op in ON_PIXELS),
        [recipes.RandomResize(20, 30), recipes.CenterCrop(16)],
        [recipes.ScaleJitter(16, scale=(0.5, 2.0))],
    ],
    ids=lambda ops: type(ops[-1]).__name__,
)
def test_torchvisions_peers_make_pictures_by_each_operator(images, ops):
    recipe = recipes.Recipe(*ops)
    assert PEERS["torchvision"].refuses(recipe, "uint8", "cpu") is None
    split = imgdata.open(images)["train"]
    for at in range(4):
        made = Decoded(transforms(recipe, "uint8", pil=False))(split.read(at))
        by_pil = transforms(recipe, "uint8", pil=True)(split[at].pil())
        assert made.shape == by_pil.shape == (3, 16, 16)
        assert made.dtype == by_pil.dtype == torch.uint8


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
    names = [name for name in PEERS if PEERS[name].refuses(recipes.imagenet_train(16), "float32", "cpu") is None]
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


# --- DALI by hand ----------------------------------------------------------------------------------------------------


@pytest.fixture
def two_gpus(monkeypatch):
    """PyTorch says that there are two GPUs; nothing may be done with them."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)


@needs_dali
@pytest.mark.parametrize(
    ("peer", "device", "safe", "whole"),
    [
        ("dali", "cuda:1", True, False),
        ("dali", "cuda:1", False, True),
        ("dali", "cpu", False, False),
        ("dali_fused", "cuda:1", False, False),
    ],
)
def test_dalis_decoder_crops_where_it_can_be_trusted(monkeypatch, images, two_gpus, peer, device, safe, whole):
    from imgdata.measure.bench import dali_peer

    asked = []
    monkeypatch.setattr(dali_peer, "crop_decode_is_safe", lambda device_id: asked.append(device_id) or safe)
    monkeypatch.setattr(dali_peer, "_opened", lambda job, whole: whole)
    assert getattr(dali_peer, peer)(job_of(images, device=device)) is whole
    assert asked == ([1] if (peer, device) == ("dali", "cuda:1") else [])


@needs_dali
@pytest.mark.parametrize("dtype", ["uint8", "float16"])
@pytest.mark.parametrize(
    ("whole", "there", "missing"),
    [(True, b"RandomResizedCrop", b"ImageRandomCrop"), (False, b"ImageRandomCrop", b"RandomResizedCrop")],
)
def test_the_pipeline_for_a_gpu_can_be_written_down(images, two_gpus, whole, there, missing, dtype):
    from imgdata.measure.bench.dali_peer import make_pipeline

    # Without a device: its operators are checked, but not made.
    written = make_pipeline(job_of(images, device="cuda:0", dtype=dtype), whole=whole, device_id=None).serialize()
    assert there in written
    assert missing not in written
    # The decoder's threads stay on the cores that the process was given.
    assert b"affine" in written
    assert b"mixed" in written


@needs_dali
@pytest.mark.parametrize("whole", [True, False])
def test_both_pipelines_make_the_batches_that_were_asked_for(images, whole):
    from imgdata.measure.bench.dali_peer import _opened

    loader = _opened(job_of(images, dtype="float16"), whole=whole)
    batch = next(loader.batches)
    # A note shows which of them was measured.
    assert loader.version.endswith(", whole pictures") is whole
    assert (tuple(batch.shape), batch.dtype) == ((8, 3, 16, 16), torch.float16)


def test_a_decoder_that_ends_its_process_costs_the_others_nothing(monkeypatch, images):
    def run(jobs, limit_s):
        if jobs[0].loader == "dali-fused":
            raise ImgdataError(f"its process ended with {-signal.SIGSEGV}: it wrote nothing")
        return [measured()] * len(jobs)

    monkeypatch.setattr("imgdata.measure.bench.run.run_together", run)
    monkeypatch.setattr("imgdata.measure.bench.run._refused", lambda *arguments: {})
    result = bench(images, BenchOptions(**QUICK, backend="cpu", compare=("dali", "dali-fused")))
    assert [peer.name for peer in result.peers] == ["dali"]
    assert result.left_out == {"dali-fused": "failed: its process ended with -11: it wrote nothing"}
