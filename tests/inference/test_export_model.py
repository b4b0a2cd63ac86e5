"""`imgdata export-model`: the file alone is enough to get the network's answers."""

import json
import sys
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from imgdata_cli.commands.export_model import command
from imgdata_cli.main import cli
from PIL import Image

from imgdata.errors import MissingExtraError, OptionError, OutputError
from imgdata.inference import export
from imgdata.inference.export import export_model
from imgdata.inference.predict import predict
from imgdata.recipes import Recipe
from support.digit_runs import digit_folders
from support.networks import random_network, trained_run  # noqa: F401  a fixture


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """The file that the command makes of a run, and what it says."""
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    done = CliRunner().invoke(command, [str(run), "-o", str(path), "--json"], catch_exceptions=False)
    return path, done


def session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_the_file_alone_predicts_what_the_run_predicts(run, exported, tmp_path):
    pictures = sorted(digit_folders(tmp_path, {"val": 20}).rglob("*.png"))
    model = session(exported[0])
    facts = model.get_modelmeta().custom_metadata_map
    mean, std = np.float32(json.loads(facts["mean"])), np.float32(json.loads(facts["std"]))
    # They have the size already, so nothing but the metadata is needed.
    assert json.loads(facts["size"]) == 16
    images = []
    for picture in pictures:
        with Image.open(picture) as image:
            images.append(((np.asarray(image, np.float32) / 255 - mean) / std).transpose(2, 0, 1))
    (logits_NC,) = model.run(["logits"], {"images": np.float32(images)})
    class_names = json.loads(facts["class_names"])
    expected = [one.predictions[0].name for one in predict(run, pictures, top=1)]
    assert [class_names[best] for best in logits_NC.argmax(1)] == expected
    assert len(set(expected)) > 3


def test_the_metadata_says_what_goes_in(exported):
    facts = session(exported[0]).get_modelmeta().custom_metadata_map
    assert json.loads(facts["class_ids"]) == [str(number) for number in range(10)]
    assert facts["model"] == "cnn"
    assert Recipe.from_dict(json.loads(facts["recipe"])).output_size(0) == (16, 16)
    assert json.loads(facts["mean"]) == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_any_number_of_images_goes_through(exported, count):
    (logits_NC,) = session(exported[0]).run(None, {"images": np.zeros((count, 3, 16, 16), np.float32)})
    assert logits_NC.shape == (count, 10)


def test_the_file_is_valid_onnx(exported):
    # Asserts nothing: the checker raises.
    onnx.checker.check_model(onnx.load(exported[0]), full_check=True)


def test_the_command_says_how_far_the_logits_are_apart_and_nothing_else(exported):
    path, done = exported
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert told["max_difference"] < 1e-4
    assert told["bytes"] == path.stat().st_size
    assert len(done.stderr.splitlines()) == 2
    assert f"differ from PyTorch's by {told['max_difference']:.1e} at most" in done.stderr


def test_a_network_with_batch_norm_gives_the_same_logits(tmp_path):
    trained = random_network("resnet9", size=16)
    export_model(trained, tmp_path / "model.onnx")
    images = torch.rand(4, 3, 16, 16)
    (logits_NC,) = session(tmp_path / "model.onnx").run(None, {"images": images.numpy()})
    with torch.no_grad():
        assert np.abs(trained.model(images).numpy() - logits_NC).max() < 1e-4


@pytest.mark.parametrize("wrong", ["far", "nan"])
def test_a_file_that_differs_is_not_written(tmp_path, monkeypatch, wrong):
    trained = random_network("cnn", size=16)
    if wrong == "far":
        monkeypatch.setattr(export, "MAX_DIFFERENCE", -1.0)
    else:
        torch.nn.init.constant_(trained.model.classifier.bias, float("nan"))
    with pytest.raises(OutputError, match="not written, its logits differ by"):
        export_model(trained, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


class Counts(torch.nn.Module):
    """What an ONNX graph can't hold: it asks Python how many images there are."""

    def forward(self, x):
        return x.new_full((len(x.nonzero().tolist()), 2), 1.0)


def test_a_network_that_cannot_be_exported_is_told_in_one_line(tmp_path):
    with pytest.raises(OptionError, match="PyTorch can't export it to ONNX: ") as told:
        export_model(random_network("cnn", size=16, model=Counts()), tmp_path / "model.onnx")
    assert "\n" not in str(told.value)
    assert list(tmp_path.iterdir()) == []


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(OptionError, match=r"a model must go to an \.onnx file, got .*model\.pt"):
        export_model(random_network("cnn", size=16), tmp_path / "model.pt")


def test_a_folder_that_is_missing_is_told_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "load_trained", None)
    with pytest.raises(OutputError, match="its folder must be there; make it"):
        export_model("no-run", tmp_path / "nowhere" / "model.onnx")


def test_a_network_without_a_classifier_is_not_exported(tmp_path):
    with pytest.raises(OptionError, match="the weights must have a classifier"):
        export_model(replace(random_network("cnn", size=16), classes=()), tmp_path / "model.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_without_its_packages_it_says_what_to_install(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"got none of {package}: pip install 'imgdata\[onnx\]'"):
        export_model(random_network("cnn", size=16), tmp_path / "model.onnx")


def test_the_command_is_found_by_its_name_with_a_dash():
    done = CliRunner().invoke(cli, ["export-model", "--help"])
    assert done.exit_code == 0
    assert "onnxruntime" in done.stdout
