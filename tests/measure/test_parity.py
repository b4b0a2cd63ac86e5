"""`imgdata parity`: our pixels beside torchvision's; a wrong backend is seen."""

import dataclasses
import json
import re
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from click.testing import CliRunner
from imgdata_cli.commands.parity import command
from PIL import Image

from imgdata import native, recipes
from imgdata.augment.policies import OPS
from imgdata.backends.registry import kind_named
from imgdata.errors import MissingExtraError, OptionError, SourceError
from imgdata.measure import torch_codec
from imgdata.measure.parity.by_backend import by_backend
from imgdata.measure.parity.by_torchcodec import by_torchcodec
from imgdata.measure.parity.cases import operator_cases, recipe_cases
from imgdata.measure.parity.executors import by_pillow
from imgdata.measure.parity.parity import difference, parity
from imgdata.measure.parity.pictures import load_pictures
from support.pictures import encode, exif, jpeg, photo, photo_file, png16, rgba
from support.tars import dataset

needs_torchcodec = pytest.mark.skipif(not torch_codec.is_installed(), reason="TorchCodec is not installed")
EXACT = {"mean": 0.0, "within_1": 1.0, "max": 0.0}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of real photographs: five JPEGs, and a PNG in colour, in gray and with alpha."""
    folder = tmp_path_factory.mktemp("photos")
    with Image.open(photo_file("skimage", "data/chelsea.png")) as cat:
        for number, image in enumerate((photo(), cat.convert("RGB"), cat.rotate(90, expand=True), cat.convert("L"))):
            image.convert("RGB" if number < 3 else "L").save(folder / f"{number}.jpg", quality=92)
    (folder / "deeper").mkdir()
    (folder / "deeper" / "progressive.jpeg").write_bytes(jpeg(progressive=True))
    (folder / "gray.png").write_bytes(encode(photo().convert("L"), "PNG"))
    (folder / "alpha.png").write_bytes(encode(rgba(), "PNG"))
    (folder / "colour.PNG").write_bytes(encode(photo(), "PNG"))
    (folder / "notes.txt").write_text("no image")
    return folder


def compared(folder, cases, **options):
    return parity(load_pictures([folder], 100), cases, **options)


def rows_of(result, backend="pillow"):
    return {row.operator: row for row in result.rows if row.backend == backend}


# --- the comparison -----------------------------------------------------------------------------------


def test_every_operator_of_a_recipe_is_compared():
    used = {type(op).__name__ for case in operator_cases(64) for op in case.recipe.ops}
    # A policy is a choice of operations, each of which is compared, MixUpOrCutMix is one of two, and functions are
    # the user's.
    rest = {"TrivialAugment", "AutoAugment", "MixUpOrCutMix", "Apply", "BatchApply"}
    operators = {name for name in recipes.__all__ if hasattr(getattr(recipes, name), "__dataclass_fields__")}
    assert used | rest == operators - {"Recipe", "Ramp", "Schedule", "Views"}
    policy = [case.operator for case in operator_cases(64) if case.operator in OPS]
    assert policy == list(OPS[1:])


@pytest.fixture(scope="module")
def every_row(photos):
    return rows_of(compared(photos, operator_cases(64), backends={"pillow": by_pillow}))


def test_by_pillow_every_operator_is_torchvisions_on_pil_images(every_row):
    assert len(every_row) == 52
    for name, row in every_row.items():
        if name in ("normalize", "random erasing", "cutout", "mixup", "cutmix"):
            assert row.pil.max < 1e-3, name
        elif name in ("blur", "apply", "three augment"):
            # Sums in another order: a value in some ten thousand is a step off.
            assert row.pil.max <= 1, name
            assert row.pil.mean < 1e-3, name
        elif name == "augmix":
            # torchvision makes a tensor of the picture, and its operations on tensors have other pixels.
            assert row.pil.mean < 0.5, name
        else:
            assert dataclasses.asdict(row.pil) == EXACT, name


# On tensors torchvision has other code. Mean difference from it, at most, in steps of 255.
ON_TENSORS = {
    "crop, bilinear": 0.05,
    "crop, bicubic": 0.06,
    "resize, bilinear": 0.05,
    "resize, bicubic": 0.06,
    "Color": 0.8,
    "Contrast": 0.8,
    "jitter hue": 1.0,
    "grayscale": 0.8,
    "turn, nearest": 1.0,
}


def test_the_difference_from_tensors_is_stated(every_row):
    for name, most in ON_TENSORS.items():
        assert every_row[name].tensor.mean < most, name
    # Pillow-SIMD resizes as torchvision does tensors, but no Pillow rounds gray as it does.
    assert every_row["grayscale"].tensor.mean > 0.1


@pytest.mark.skipif(not native.AVAILABLE, reason="the extension is not compiled")
def test_the_extension_is_close_to_torchvision_and_leaves_png_to_pillow(photos):
    pictures = load_pictures([photos], 100)
    result = parity(pictures, operator_cases(64), backends={"native": by_backend(kind_named("cpu"))})
    rows = rows_of(result, "native")
    assert rows["crop, bilinear"].pil.mean < 0.6
    assert rows["flip"].pil.mean < 0.6
    png = pictures._replace(good=[picture for picture in pictures.good if picture.format == "png"])
    assert len(png.good) == 3
    for row in parity(png, operator_cases(64)[:8], backends={"native": by_backend(kind_named("cpu"))}).rows:
        assert dataclasses.asdict(row.pil) == EXACT, row.operator


WRONG = {
    "channels swapped": lambda pixels: pixels[..., ::-1],
    "a pixel to the right": lambda pixels: np.roll(pixels, 1, axis=2),
    "mirrored": lambda pixels: pixels[:, :, ::-1],
    "two steps brighter": lambda pixels: np.minimum(pixels, 253) + np.uint8(2),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_backend_is_seen(photos, name):
    def wrong(pictures, params, recipe):
        return WRONG[name](by_pillow(pictures, params, recipe))

    rows = rows_of(compared(photos, operator_cases(64)[:4], backends={"wrong": wrong}), "wrong")
    for row in rows.values():
        assert row.pil.mean > 0.8
        assert row.pil.within_1 < 0.95


@pytest.mark.parametrize("name", ["imagenet_train", "imagenet_eval", "cifar_train", "cifar_eval", "classifier_train"])
def test_a_recipe_is_compared_step_by_step(photos, name):
    recipe = getattr(recipes, name)()
    result = compared(photos, recipe_cases(recipe), backends={"pillow": by_pillow})
    names = [row.operator for row in result.rows]
    assert len(names) == len(recipe.ops) - ("," in names[0])
    assert names[-1] == "+ Normalize"
    assert all(row.pil.max < 1e-3 for row in result.rows)


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (recipes.Recipe(recipes.Resize(size=(32, 32)), recipes.HorizontalFlip()), ["Resize", "+ HorizontalFlip"]),
        (recipes.Recipe(recipes.Resize(size=40), recipes.PadRandomCrop(size=32)), ["Resize, PadRandomCrop"]),
        (recipes.Recipe(recipes.RandomResizedCrop(size=32), recipes.MixUp()), ["RandomResizedCrop", "+ MixUp"]),
    ],
)
def test_the_first_step_is_the_crop(recipe, expected):
    assert [case.operator for case in recipe_cases(recipe)] == expected


def test_differences_are_counted_in_steps():
    ours = np.array([[0, 10, 255, 7]], np.uint8)
    theirs = np.array([[1, 10, 250, 7]], np.uint8)
    assert dataclasses.asdict(difference(ours, theirs)) == {"mean": 1.5, "within_1": 0.75, "max": 5.0}


# --- which pictures -----------------------------------------------------------------------------------


def test_every_nth_image_of_a_folder_is_taken(photos):
    names = [picture.name.rsplit("/", 1)[-1] for picture in load_pictures([photos], 100).good]
    assert names == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "alpha.png", "colour.PNG", "gray.png", "progressive.jpeg"]
    assert [picture.name.rsplit("/", 1)[-1] for picture in load_pictures([photos], 4).good] == names[::2]


def test_a_dataset_and_single_files_will_do(tmp_path, photos):
    folder = dataset(tmp_path / "out")
    pictures = load_pictures([folder, photos / "0.jpg"], 100).good
    assert pictures[0].name == "train 0"
    assert pictures[-1].name.endswith("0.jpg")
    assert len(pictures) > 2


def test_images_that_a_loader_would_refuse_are_left_out_and_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    (tmp_path / "b.jpg").write_bytes(jpeg()[:-300])
    (tmp_path / "c.png").write_bytes(b"no picture")
    (tmp_path / "d.png").write_bytes(png16(0, 1))
    result = compared(tmp_path, operator_cases(32)[:1])
    assert result.images == 2
    assert sorted(line.rsplit("/", 1)[-1].split(": ")[:2] for line in result.refused) == [
        ["b.jpg", "truncated"],
        ["c.png", "not-an-image"],
    ]


def test_without_images_it_says_so(tmp_path):
    with pytest.raises(SourceError, match="no images found; name images or their folder"):
        load_pictures([tmp_path], 3)
    with pytest.raises(SourceError, match=r"x\.jpg: not there"):
        load_pictures([tmp_path / "x.jpg"], 3)
    with pytest.raises(OptionError, match="images must be at least 1, got 0"):
        load_pictures([tmp_path], 0)
    (tmp_path / "a.jpg").write_bytes(jpeg()[:-300])
    with pytest.raises(SourceError, match=r"none of 1 images can be compared; the first: .*a\.jpg: truncated"):
        compared(tmp_path, operator_cases(32))


# --- the command --------------------------------------------------------------------------------------


def run(*arguments):
    result = CliRunner().invoke(command, [str(argument) for argument in arguments], env={"COLUMNS": "120"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_the_command_prints_a_table(photos):
    output = run(photos, "--recipe", "imagenet_train", "--size", "48", "--images", "3").stdout
    lines = output.splitlines()
    backend = ["backend"] * native.AVAILABLE
    columns = ["mean", "within", "1", "max"]
    assert lines[0].split() == ["PIL", "tensor"]
    assert lines[1].split() == ["operator", *backend, *columns, *columns]
    assert lines[2].startswith("RandomResizedCrop")
    assert re.search(r" 0\.000 +100\.00% +0 ", lines[2])
    assert max(map(len, lines)) <= 80
    assert lines[-1].strip() == "3 images, differences in steps of 255"


def test_all_backends_have_a_line_where_the_recipe_is_for_them(photos, monkeypatch):
    monkeypatch.setattr("imgdata.measure.torch_codec.is_installed", lambda: False)
    names = ["pillow", *["native"] * native.AVAILABLE, "resident", *["dali"] * (find_spec("nvidia.dali") is not None)]
    of_crops = [name for name in names if name != "resident"]
    for recipe, wanted in (
        ("imagenet_eval", names),
        ("imagenet_train", of_crops),
    ):
        output = run(photos, "--recipe", recipe, "--size", "48", "--images", "2", "--all-backends", "--json").stdout
        rows = [row for row in json.loads(output)["rows"] if not row["operator"].startswith("+")]
        assert [row["backend"] for row in rows] == wanted
        assert all(row["pil"]["mean"] < 0.6 for row in rows)


@needs_torchcodec
def test_with_torchcodec_pixels_are_torchvisions_on_tensors(photos):
    output = run(photos, "--recipe", "imagenet_train", "--size", "48", "--all-backends", "--json").stdout
    [crop, flipped, normalized] = [row for row in json.loads(output)["rows"] if row["backend"] == "torchcodec"]
    assert crop["tensor"] == flipped["tensor"] == EXACT
    assert normalized["tensor"]["max"] < 1e-3
    assert crop["pil"]["mean"] < 0.6


@needs_torchcodec
def test_what_torchcodec_would_turn_or_does_not_know_is_decoded_by_pillow(tmp_path):
    turned, bmp = jpeg(exif=exif(6)), encode(photo(), "BMP")
    (tmp_path / "turned.jpg").write_bytes(turned)
    (tmp_path / "a.bmp").write_bytes(bmp)
    result = compared(tmp_path, operator_cases(32)[:3], backends={"torchcodec": by_torchcodec})
    assert result.images == 2
    assert [dataclasses.asdict(row.tensor) for row in result.rows] == [EXACT] * 3


def test_without_torchcodec_its_way_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    with pytest.raises(MissingExtraError, match="torchcodec is not installed: pip install"):
        by_torchcodec([], None, None)


def test_the_command_prints_json_and_names_what_it_left_out(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    (tmp_path / "b.jpg").write_bytes(jpeg()[:-300])
    result = run(tmp_path, "--recipe", "cifar_train", "--json")
    figures = json.loads(result.stdout)
    assert figures["images"] == 1
    assert figures["rows"][0] == {"operator": "PadRandomCrop", "backend": "pillow", "pil": EXACT, "tensor": EXACT}
    assert "note left out" in result.stderr
    assert "b.jpg: truncated" in result.stderr


def test_a_recipe_of_one_size_takes_no_other(photos):
    with pytest.raises(OptionError, match="cifar_eval must have its own size, 32, got size 64; leave it out"):
        run(photos, "--recipe", "cifar_eval", "--size", "64")


def test_without_torchvision_the_command_names_the_extra(photos):
    program = (
        "import sys; sys.modules['torchvision'] = None\n"
        f"from imgdata_cli.main import main; main(['parity', {str(photos)!r}])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == "imgdata: comparing with torchvision needs it: pip install 'imgdata[train]'\n"
