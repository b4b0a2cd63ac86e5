"""`create_model`, `model_input`, `imgdata models`: networks by name, the small ones layer by layer."""

import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import timm.data
import torch
from click.testing import CliRunner
from imgdata_cli.commands.models import command
from torch import nn

from imgdata.errors import MissingExtraError, OptionError
from imgdata.models import RECOMMENDED, ModelInput, create_model, model_input
from imgdata.models.catalogue import matching
from imgdata.models.resnet9 import ResNet9
from imgdata.recipes import CenterCrop, Normalize, Recipe, Resize
from support.patience import PATIENCE_S
from support.places import REPOSITORY

CLASSES = 10
SIZES = {"cnn": 64, "resnet9": 32, "resnet10t": 64, "test_efficientnet": 64, "vit_tiny_patch16_224": 96}
"""Networks of every kind, small ones, and a picture's side for each."""
of_every_kind = pytest.mark.parametrize("name", SIZES)


def made(name, **options):
    torch.manual_seed(0)
    return create_model(name, **{"num_classes": CLASSES, "size": SIZES.get(name, 224), **options})


def pictures(size, count=2):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


# --- the textbook's network ---------------------------------------------------------------------------


CNN_SHAPES = [
    ("conv1", (32, 62, 62)),
    ("pool1", (32, 31, 31)),
    ("conv2", (64, 29, 29)),
    ("pool2", (64, 14, 14)),
    ("flatten", (12_544,)),
    ("dense", (128,)),
    ("classifier", (10,)),
]


def test_each_layer_of_the_cnn_has_the_textbooks_shape():
    x = pictures(64)
    shapes = []
    for name, layer in made("cnn").named_children():
        x = layer(x)
        shapes.append((name, tuple(x.shape[1:])))
    assert shapes == CNN_SHAPES


def test_the_cnns_layers_one_after_the_other_are_the_network():
    model, x = made("cnn").eval(), pictures(64)
    assert torch.equal(nn.Sequential(*model.children())(x), model(x))


def test_convolutions_and_the_dense_layer_of_the_cnn_give_nothing_below_zero():
    model, x = made("cnn"), pictures(64)
    for name, layer in model.named_children():
        x = layer(x)
        assert (x.min() >= 0) == (name != "classifier"), name


@pytest.mark.parametrize(
    ("size", "width"), [(10, 64), (11, 64), (14, 4 * 64), (28, 25 * 64), (32, 36 * 64), (65, 12_544)]
)
def test_the_cnns_dense_layer_fits_the_picture(size, width):
    model = made("cnn", size=size)
    assert model.dense.linear.in_features == width
    assert model(pictures(size)).shape == (2, CLASSES)


# --- the small residual network -----------------------------------------------------------------------


@pytest.mark.parametrize(("size", "side"), [(8, 1), (28, 3), (32, 4), (64, 8), (96, 12)])
def test_resnet9_takes_pictures_of_any_size(size, side):
    model = made("resnet9", size=size)
    assert model.forward_features(pictures(size)).shape == (2, 256, side, side)
    assert model(pictures(size)).shape == (2, CLASSES)


def test_resnet9_stays_in_channels_last_memory_with_the_same_logits():
    model, x = made("resnet9").eval(), pictures(32)
    plain = model(x)
    model.to(memory_format=torch.channels_last)
    x = x.to(memory_format=torch.channels_last)
    assert model.forward_features(x).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x), plain, rtol=1e-3, atol=1e-4)


def test_the_width_of_resnet9_is_an_argument():
    assert ResNet9(num_classes=3, size=32, width=64).head_hidden_size == 512


def test_resnet9_learns_a_few_pictures_by_heart():
    model, x = made("resnet9", num_classes=2), pictures(32, count=8)
    labels = torch.arange(8) % 2
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(15):
        loss = nn.functional.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05


# --- what all of them have in common ------------------------------------------------------------------


@of_every_kind
def test_features_and_head_make_the_logits(name):
    model, x = made(name).eval(), pictures(SIZES[name])
    logits = model(x)
    assert logits.shape == (2, CLASSES) == (2, model.num_classes)
    features = model.forward_head(model.forward_features(x), pre_logits=True)
    assert features.shape == (2, model.head_hidden_size)
    torch.testing.assert_close(model.forward_head(model.forward_features(x)), logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.get_classifier()(features), logits, rtol=1e-4, atol=1e-4)


@of_every_kind
def test_a_new_classifier_leaves_the_rest_as_it_is(name):
    model = made(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.reset_classifier(7)
    assert model.num_classes == 7
    assert model(pictures(SIZES[name])).shape == (2, 7)
    head = {id(parameter) for parameter in model.get_classifier().parameters()}
    rest = {key: value for key, value in model.named_parameters() if id(value) not in head}
    assert len(rest) == len(list(model.parameters())) - 2
    assert all(torch.equal(value, before[key]) for key, value in rest.items())


@pytest.mark.parametrize("name", ["cnn", "resnet9"])
def test_without_a_classifier_the_network_gives_features(name):
    model = made(name).to(torch.float64)
    model.reset_classifier(0)
    assert model(pictures(SIZES[name]).double()).shape == (2, model.head_hidden_size)
    model.reset_classifier(3)
    assert model.get_classifier().weight.dtype == torch.float64


@of_every_kind
def test_the_seed_decides_the_weights(name):
    again = made(name).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in made(name).state_dict().items())


@of_every_kind
def test_dropout_acts_in_training_and_not_after_it(name):
    model, x = made(name, dropout=0.5), pictures(SIZES[name])
    model.eval()
    features = model.forward_features(x)
    assert torch.equal(model.forward_head(features), model.forward_head(features))
    model.train()
    assert not torch.equal(model.forward_head(features), model.forward_head(features))


def test_drop_path_reaches_networks_that_have_it():
    assert any(type(module).__name__ == "DropPath" for module in made("vit_tiny_patch16_224", drop_path=0.1).modules())


# --- what they take -----------------------------------------------------------------------------------


LITE0 = Recipe(
    Resize(size=256, interpolation="bicubic"), CenterCrop(size=224), Normalize(mean=(0.5,) * 3, std=(0.5,) * 3)
)


def test_lite0_takes_what_its_weights_were_evaluated_with():
    assert model_input("tf_efficientnet_lite0").eval_recipe() == LITE0


@pytest.mark.parametrize(("name", "size", "mean"), [("cnn", 64, 0.0), ("resnet9", 32, 0.4914)])
def test_small_networks_take_whole_small_pictures(name, size, mean):
    takes = model_input(name)
    assert (takes.size, takes.resize, takes.mean[0]) == (size, size, mean)


@pytest.mark.parametrize(
    "name", ["resnet50", "resnet50.tv_in1k", "vgg16", "convnext_tiny", "dm_nfnet_f0", "efficientnet_b5"]
)
def test_the_recipe_of_evaluation_is_timms_own(name):
    resize, crop, normalize = model_input(name).eval_recipe().ops
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    theirs = timm.data.create_transform(**config).transforms
    size = theirs[0].size
    assert resize.size == (tuple(size) if isinstance(size, list | tuple) else size)
    assert resize.interpolation == theirs[0].interpolation.value
    assert (crop.size, crop.size) == tuple(theirs[1].size)
    assert (*normalize.mean, *normalize.std) == pytest.approx([*theirs[-1].mean.tolist(), *theirs[-1].std.tolist()])


def test_every_network_of_timms_has_a_recipe():
    for name in timm.list_models():
        takes = model_input(name)
        assert takes.eval_recipe().output_size(0) == (takes.size, takes.size), name


@pytest.mark.parametrize(("size", "resize"), [(None, 256), (224, 256), (112, 128), (448, 512), (96, 110)])
def test_another_size_shows_the_same_part_of_a_picture(size, resize):
    assert model_input("vgg16").eval_recipe(size).ops[0].size == resize


def test_a_crop_that_is_larger_than_the_picture_is_refused():
    with pytest.raises(OptionError, match="size must be 1 to resize, 32, got 64"):
        ModelInput(size=64, resize=32, mean=(0.0,) * 3, std=(1.0,) * 3, interpolation="bilinear")


# --- what is refused ----------------------------------------------------------------------------------


REFUSED = {
    "an unknown name": ("resnet5O", {}, r"got 'resnet5O'; perhaps resnet50, .*; `imgdata models PATTERN`"),
    "a name like none": ("qqqqqq", {}, r"got 'qqqqqq'; `imgdata models"),
    "a repository": ("hf-hub:someone/resnet50", {}, "one of timm's, got 'hf-hub:someone/resnet50'"),
    "unknown weights": ("resnet18.mine", {}, "weights of resnet18 must be one of a1_in1k, .*, got 'mine'"),
    "no class": ("cnn", {"num_classes": 0}, "num_classes must be at least 1, got 0"),
    "a small size for cnn": ("cnn", {"size": 9}, "size for cnn must be at least 10, got 9; use larger"),
    "a small size for resnet9": ("resnet9", {"size": 7}, "size for resnet9 must be at least 8, got 7; use larger"),
    "a small size for timm's": (
        "vit_tiny_patch16_224",
        {"size": 8},
        "vit_tiny_patch16_224 can take, such as 224, got 8: ",
    ),
    "an odd size": ("levit_128s", {"size": 100}, "levit_128s can take, such as 224, got 100: "),
    "drop_path for cnn": ("cnn", {"drop_path": 0.1}, "drop_path must be 0 for cnn, which has none, got 0.1"),
    "drop_path for vgg": ("inception_v3", {"drop_path": 0.1}, "drop_path must be 0 for inception_v3, which has none"),
    "no weights of cnn": ("cnn", {"pretrained": True}, "pretrained must be left out for cnn, .* --weights FILE"),
    "no weights on the hub": ("seresnet18", {"pretrained": True}, "left out for seresnet18, .* --weights FILE"),
    "no network": ("resnet10t", {"pretrained": True}, "weights of resnet10t must be in the cache .*: --weights FILE"),
    "two weights": (
        "resnet18",
        {"pretrained": True, "weights": Path("a.pth")},
        "from a file or from the hub, got both",
    ),
}


@pytest.mark.parametrize(("name", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_can_not_be_made_is_refused_with_the_way_out(name, options, message):
    with pytest.raises(OptionError, match=message):
        made(name, **options)


def test_weights_must_be_given_to_say_how_many_classes_there_are():
    with pytest.raises(OptionError, match="num_classes must be given for a network without weights"):
        made("cnn", num_classes=None)


def test_a_hub_that_is_out_of_reach_is_told_once(monkeypatch):
    def asks_and_asks(name, **_):
        for number in range(3):
            logger.warning("'no route' thrown while requesting HEAD https://hub")
            logger.warning("Retrying in %ss [Retry %s/5].", 2**number, number)
        logger.warning("a licence has changed")
        raise OSError("Nobody answers. Ever.")

    logger, heard = logging.getLogger("huggingface_hub.utils._http"), []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())
    parent = logging.getLogger("huggingface_hub")
    monkeypatch.setattr(parent, "handlers", [handler])
    monkeypatch.setattr(timm, "create_model", asks_and_asks)
    with pytest.raises(OptionError, match="must be in the cache or within reach, got: Nobody answers; "):
        made("resnet10t", pretrained=True)
    assert heard == [
        "the hub gives no answer yet ('no route'); asking again for up to a minute",
        "a licence has changed",
    ]
    assert handler.filters == []


def test_without_timm_the_own_networks_work_and_others_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert made("cnn").num_classes == CLASSES
    with pytest.raises(MissingExtraError, match=r"cnn and resnet9 need timm .*: pip install 'imgdata\[train\]'"):
        made("resnet18")


# --- imgdata models -----------------------------------------------------------------------------------


@pytest.mark.parametrize("row", RECOMMENDED, ids=lambda row: row.name)
def test_the_recommended_networks_have_the_figures_that_are_listed(row):
    # Without memory, and so without the time to fill it.
    with torch.device("meta"):
        model = create_model(row.name, num_classes=row.classes, size=row.size).eval()
        features = model.forward_head(model.forward_features(torch.empty(1, 3, row.size, row.size)), pre_logits=True)
    assert sum(parameter.numel() for parameter in model.parameters()) == row.parameters
    assert features.shape == (1, row.features) == (1, model.head_hidden_size)
    assert model_input(row.name).size == row.size


def test_features_are_as_wide_as_the_textbooks_say():
    widths = {row.name: row.features for row in RECOMMENDED}
    assert (widths["resnet50"], widths["vgg16"], widths["efficientnet_b0"]) == (2048, 4096, 1280)


def listed(*arguments):
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_lists_what_is_recommended():
    lines = listed().splitlines()
    assert lines[0].split() == ["name", "size", "parameters", "features", "what", "for"]
    assert [line.split()[0] for line in lines[1:-1]] == [row.name for row in RECOMMENDED]
    assert re.search(r"resnet50 +224 +25,557,032 +2,048 +\w", "\n".join(lines))
    assert max(map(len, lines)) <= 80


def test_as_json_the_figures_are_numbers():
    rows = json.loads(listed("--json"))["models"]
    assert rows[0] == {
        "name": "cnn",
        "size": 64,
        "parameters": 1_626_442,
        "features": 128,
        "classes": 10,
        "purpose": "to see how a CNN works",
    }
    assert len(rows) == len(RECOMMENDED)


PATTERNS = [
    ("resnet9", {"resnet9"}),
    ("vit_small*224", {"vit_small_patch16_224", "vit_small_patch32_224"}),
    ("ResNet50", {"resnet50", "resnet50d", "wide_resnet50_2"}),
    ("resnet[15]?", {"resnet18", "resnet50"}),
]


@pytest.mark.parametrize(("pattern", "some"), PATTERNS, ids=[pattern for pattern, _ in PATTERNS])
def test_a_pattern_finds_names(pattern, some):
    assert some <= set(matching(pattern))
    assert "vgg16" not in matching(pattern)


def test_names_that_were_found_stand_with_their_size_and_weights():
    rows = {row["name"]: row for row in json.loads(listed("tf_efficientnet_lite", "--json"))["models"]}
    assert rows["tf_efficientnet_lite0"] == {"name": "tf_efficientnet_lite0", "size": 224, "weights": ["in1k"]}
    assert re.search(r"^tf_efficientnet_lite4 +380 +in1k *$", listed("tf_efficientnet_lite"), re.M)
    assert re.search(r"^seresnet18 +224 +none *$", listed("seresnet18"), re.M)


def test_the_usual_weights_come_first():
    assert json.loads(listed("vit_tiny_patch16_224", "--json"))["models"][0]["weights"] == [
        timm.get_pretrained_cfg("vit_tiny_patch16_224").tag,
        "augreg_in21k",
    ]


def test_a_pattern_without_a_match_is_refused_with_near_names():
    with pytest.raises(OptionError, match="got 'resnet5O'; perhaps resnet50"):
        matching("resnet5O")


def test_the_network_itself_stands_before_those_with_its_name_in_theirs():
    assert matching("resnet18")[0] == "resnet18"
    assert len(matching("resnet18")) > 1


def test_the_list_needs_neither_torch_nor_timm():
    script = """
import sys
from imgdata_cli.main import main
try:
    main(["models"])
except SystemExit as end:
    assert end.code == 0
assert not {"torch", "timm"} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert "resnet50" in done.stdout


def test_the_page_has_the_same_table():
    page = (REPOSITORY / "docs" / "models.md").read_text()
    rows = [
        f"| `{row.name}` | {row.size} | {row.parameters:,} | {row.features:,} | {row.purpose} |" for row in RECOMMENDED
    ]
    assert "\n".join(rows) in page
