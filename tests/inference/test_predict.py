"""`imgdata predict`: the pixels are the loader's, bad images stop nobody, and explanations look at the right place."""

import http.server
import json
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from imgdata_cli.commands.predict import command
from PIL import Image

import imgdata
from imgdata.errors import ImageError, MissingExtraError, OptionError
from imgdata.inference import image_files
from imgdata.inference.explain import heat_map, last_map
from imgdata.inference.predict import predict
from imgdata.inference.trained import load_trained
from support.loaders import damaged, dataset, sample
from support.networks import MEAN, STD, random_network, trained_run  # noqa: F401  a fixture

ROUNDING = 1e-4
"""What another place in a batch, on any processor, may change in a probability."""
COUNT = 23
"""Of images: JPEGs in colour, gray and CMYK, and PNGs."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The images of `loaders.dataset` as files of their own."""
    folder = tmp_path_factory.mktemp("files")
    for number in range(COUNT):
        (folder / f"{number:02d}.jpg").write_bytes(sample(number))
    return folder


def probabilities(found):
    """Return the probability of each class of one image."""
    return {each.name: each.probability for each in found.predictions}


@pytest.fixture
def server(tmp_path):
    """A local web server of the files in `tmp_path`, and its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=tmp_path)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_the_pixels_are_those_of_an_exact_loader_of_the_same_files(files, tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "_GROUP", 10)
    trained = random_network("cnn")
    batches = image_files.file_batches(
        image_files.find_images([files]), trained.recipe, device=trained.device, batch_size=4, refused=pytest.fail
    )
    found = {number: image for batch in batches for number, image in zip(batch.numbers, batch.images, strict=True)}
    out = dataset(tmp_path, count=COUNT)
    loader = imgdata.Loader(
        out, split="train", batch_size=COUNT, recipe=trained.recipe, shuffle="none", drop_last=False, exact=True
    )
    with loader:
        (batch,) = loader
        for number in range(COUNT):
            assert torch.equal(found[number], batch.images[number]), number


def test_probabilities_are_the_softmax_of_the_logits(files, tmp_path):
    trained = random_network("cnn", classes=7)
    out = dataset(tmp_path, count=COUNT)
    with (
        torch.no_grad(),
        imgdata.Loader(
            out, split="train", batch_size=COUNT, recipe=trained.recipe, shuffle="none", exact=True
        ) as loader,
    ):
        (batch,) = loader
        chance_NC = trained.model(batch.images).softmax(1).numpy()
    found = predict(trained, [files], top=7)
    for one, chance_C in zip(found, chance_NC, strict=True):
        assert [each.index for each in one.predictions] == np.argsort(-chance_C).tolist()
        assert [each.probability for each in one.predictions] == pytest.approx(np.sort(chance_C)[::-1], rel=ROUNDING)
        assert one.predictions[0].name == f"class {one.predictions[0].index}"


def test_a_run_that_was_validated_with_mirror_images_predicts_with_them(files, tmp_path):
    mirrored = tmp_path / "mirrored.png"
    with Image.open(files / "00.jpg") as image:
        image.save(tmp_path / "plain.png")
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(mirrored)
    images = [tmp_path / "plain.png", mirrored]
    one, other = predict(random_network("cnn", flip_test=True), images)
    assert probabilities(one) == pytest.approx(probabilities(other), rel=ROUNDING)
    one, other = predict(random_network("cnn"), images)
    assert probabilities(one) != pytest.approx(probabilities(other), rel=ROUNDING)


def test_ten_crops_of_a_picture_and_of_its_mirror_image_are_the_same(files, tmp_path):
    with Image.open(files / "00.jpg") as image:
        image.save(tmp_path / "plain.png")
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "mirrored.png")
    images = [tmp_path / "plain.png", tmp_path / "mirrored.png"]
    one, other = predict(random_network("cnn"), images, crops=10)
    assert probabilities(one) == pytest.approx(probabilities(other), rel=ROUNDING)
    assert probabilities(one) != pytest.approx(probabilities(predict(random_network("cnn"), images)[0]), rel=ROUNDING)
    with pytest.raises(OptionError, match="explain shows where the network looks in one crop of an image"):
        predict(random_network("cnn"), images, crops=5, explain=tmp_path / "looked")


def test_a_dataset_is_predicted_with_the_crops_that_it_is_evaluated_with(digits):
    trained = random_network("cnn", size=16, classes=10, ids=tuple(map(str, range(10))))
    predicted = imgdata.predict_dataset(trained, digits, split="val", crops=5).predictions
    evaluated = imgdata.evaluate(trained, digits, split="val", crops=5).predictions
    assert np.array_equal(predicted.probability_N, evaluated.probability_N)


def test_a_run_knows_most_of_its_digits(run, digits, tmp_path):
    right = 0
    # One image needs no list.
    for number in range(20):
        known = imgdata.open(digits)["val"][number * 4]
        (tmp_path / "digit.png").write_bytes(known.image)
        (one,) = predict(run, tmp_path / "digit.png", top=1)
        right += one.predictions[0].name == str(known.label)
    assert right >= 10


def test_weights_of_other_classes_keep_the_classifier_that_they_have(tmp_path):
    own = random_network("cnn", size=64, classes=3).model
    torch.save(own.state_dict(), tmp_path / "own.pth")
    trained = load_trained("cnn", weights=tmp_path / "own.pth")
    assert [one.name for one in trained.classes] == ["0", "1", "2"]
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(trained.model(images), own(images))


def test_weights_without_a_classifier_predict_nothing(files):
    with pytest.raises(OptionError, match=r"cnn: the weights must have a classifier, .*or `imgdata features`"):
        predict(replace(random_network("cnn"), classes=()), [files])


def test_images_come_in_the_order_given_and_folders_sorted(files, tmp_path):
    for name in ("b/2.jpg", "b/10.jpg", "a.jpg", "z/deep/er.jpg", "b/notes.txt", ".hidden.jpg"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sample(1))
    found = predict(random_network("cnn"), [files / "05.jpg", tmp_path / "tree", files / "05.jpg"])
    tree = [str(tmp_path / "tree" / name) for name in ("a.jpg", "b/10.jpg", "b/2.jpg", "z/deep/er.jpg")]
    assert [one.image for one in found] == [str(files / "05.jpg"), *tree, str(files / "05.jpg")]


def test_bad_images_have_an_error_and_stop_nobody(files, tmp_path):
    (tmp_path / "cut.jpg").write_bytes(damaged(1))
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    bad = [tmp_path / name for name in ("cut.jpg", "text.jpg", "empty.jpg", "folder", "absent.jpg")]
    progress = []
    found = predict(
        random_network("cnn"), [*bad, files / "01.jpg"], progress=lambda done, total: progress.append((done, total))
    )
    reasons = [
        "truncated",
        "not-an-image",
        "empty",
        "not-an-image: a folder without images",
        "unreadable: No such file",
    ]
    for one, reason in zip(found, reasons, strict=False):
        assert one.error is not None
        assert one.error.startswith(reason)
        assert one.predictions == ()
    assert found[-1].error is None
    assert len(found[-1].predictions) == 3
    assert progress[-1] == (6, 6)


def test_urls_are_fetched(server, tmp_path, monkeypatch):
    (tmp_path / "one.jpg").write_bytes(sample(0))
    trained = random_network("cnn")
    found = predict(trained, [f"{server}/one.jpg", tmp_path / "one.jpg", f"{server}/absent.jpg", "http://[bad/x.jpg"])
    assert probabilities(found[0]) == pytest.approx(probabilities(found[1]), rel=ROUNDING)
    assert found[2].error == "unreadable: HTTP Error 404: File not found"
    assert found[3].error is not None
    monkeypatch.setattr(image_files, "MAX_DOWNLOAD_BYTES", 100)
    (large,) = predict(trained, [f"{server}/one.jpg"])
    assert large.error == "too-large: more than 100 bytes; download it yourself, and name the file"


def test_a_server_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(image_files, "DOWNLOAD_TIMEOUT_S", 0.2)
    with (
        http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as silent,
        pytest.raises(ImageError, match="unreadable: timed out"),
    ):
        image_files.read_image(f"http://127.0.0.1:{silent.server_port}/one.jpg")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top": 0}, "top must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
def test_wrong_options_are_told(files, options, message):
    with pytest.raises(OptionError, match=message):
        predict(random_network("cnn"), [files], **options)


def test_json_is_a_list_in_the_order_given(run, files, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_text("no image")
    arguments = [str(run), str(files / "02.jpg"), str(bad), str(files / "01.jpg"), "--json", "--top", "3"]
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 1
    assert f"left out {bad}: not-an-image" in done.stderr
    found = json.loads(done.stdout)
    assert [one["image"] for one in found] == arguments[1:4]
    assert [len(one["predictions"]) for one in found] == [3, 0, 3]
    assert ["error" in one for one in found] == [False, True, False]
    assert set(found[0]["predictions"][0]) == {"index", "name", "probability"}
    assert load_trained(run).classes[found[0]["predictions"][0]["index"]].name == found[0]["predictions"][0]["name"]


def test_the_command_prints_names_and_percentages(run, files):
    done = CliRunner().invoke(command, [str(run), str(files / "02.jpg"), "--top", "2"], catch_exceptions=False)
    (one,) = predict(run, [files / "02.jpg"], top=2)
    lines = done.stdout.splitlines()
    assert lines[0] == str(files / "02.jpg")
    for line, each in zip(lines[1:], one.predictions, strict=True):
        assert line.split()[0] == f"{each.probability:.1%}"
        assert line.split()[-1] == each.name


def test_explain_saves_a_picture_of_each_image(run, files, tmp_path):
    (tmp_path / "01.png").write_bytes(sample(9))
    images = [files / "01.jpg", tmp_path / "01.png", files / "02.jpg"]
    found = predict(run, images, explain=tmp_path / "looked")
    assert [one.explanation.name for one in found] == ["01.png", "01-2.png", "02.png"]
    assert len({one.explanation.read_bytes() for one in found}) == 3
    with Image.open(found[0].explanation) as picture:
        assert picture.width > picture.height > 300


class Spots(torch.nn.Module):
    """Class 0 is how red a picture is, class 1 how blue, wherever."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 2, 4, stride=4, bias=False)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[0, 0] = self.conv.weight[1, 2] = 1 / 16

    def forward_features(self, x):
        return self.conv(x).relu()

    def forward(self, x):
        return self.forward_features(x).mean((2, 3))


@pytest.mark.parametrize("method", ["Grad-CAM", "saliency"])
@pytest.mark.parametrize(("index", "corner"), [(0, (0, 0)), (1, (1, 1))])
def test_the_heat_is_where_the_class_is(method, index, corner):
    image = torch.zeros(1, 3, 32, 32)
    image[0, 0, :16, :16] = 1.0
    image[0, 2, 16:, 16:] = 1.0
    model = Spots()
    layer = last_map(model, image) if method == "Grad-CAM" else None
    assert layer is (model.conv if method == "Grad-CAM" else None)
    heat_HW = heat_map(model, layer, image, index)
    assert heat_HW.shape == (32, 32)
    assert heat_HW.max() == pytest.approx(1)
    assert heat_HW.min() >= 0
    corners = heat_HW.reshape(2, 16, 2, 16).sum((1, 3))
    assert corners[corner] > 0.7 * corners.sum()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("cnn", "pool2"),
        ("resnet9", "stage3"),
        ("resnet18", "layer4"),
        ("tf_efficientnet_lite0", "bn2"),
        ("vgg11", "features"),
        ("vit_tiny_patch16_224", None),
        ("swin_tiny_patch4_window7_224", None),
    ],
)
def test_grad_cam_takes_the_last_map_that_has_places(name, layer):
    size = 224 if name.startswith("swin") else 64
    model = random_network(name, size=size).model
    image = torch.rand(1, 3, size, size)
    assert last_map(model, image) is (None if layer is None else model.get_submodule(layer))
    heat_HW = heat_map(model, last_map(model, image), image, 1)
    assert heat_HW.shape == (size, size)
    assert np.isfinite(heat_HW).all()


@pytest.mark.parametrize("package", ["captum", "matplotlib"])
def test_explain_without_its_packages_says_what_to_install(files, tmp_path, monkeypatch, package):
    for name in list(sys.modules):
        if name.partition(".")[0] == package:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package}: pip install 'imgdata\[train\]'"):
        predict(random_network("cnn"), [files], explain=tmp_path / "looked")


def test_the_picture_shows_the_pixels_before_they_were_normalised(files, tmp_path):
    from imgdata.inference.explain import pixels_before

    trained = random_network("cnn")
    (batch,) = image_files.file_batches(
        [str(files / "09.jpg")], trained.recipe, device=trained.device, batch_size=1, refused=pytest.fail
    )
    with Image.open(files / "09.jpg") as image:
        side = min(image.size)
        resized = image.convert("RGB").resize(tuple(round(32 * each / side) for each in image.size), 2)
    left = (resized.width - 32) // 2
    expected = np.asarray(resized.crop((left, 0, left + 32, 32)), np.float32) / 255
    assert np.abs(pixels_before(batch.images[0], trained) - expected).mean() < 0.02
    assert np.abs((expected - MEAN) / STD - batch.images[0].numpy().transpose(1, 2, 0)).mean() < 0.1
