"""Settings, facts about a dataset -> the settings with nothing left open."""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from imgdata.sample import ClassName
from imgdata.training.options import Optimizer, TrainOptions

LARGE, MEDIUM = 200_000, 20_000
"""Samples from which on a dataset counts as large, such as ImageNet, and as medium, such as CIFAR."""
_SMALL_SIDE = 40
_MOST_BATCH, _MOST_BATCH_CPU, _LEAST_BATCH = 1024, 128, 16
_STEPS_PER_EPOCH = 60
"""Steps that an epoch has at least, where batches of 16 samples allow it: small sets need small batches."""
_SMALL_FORWARD = 64
"""Pictures that go through the network at once: with fewer, statistics of batches are too noisy for trained weights."""
_LETTER = re.compile(
    r"(?:(?:digit|letter|number|class|label)[ _-]?)?(?:[0-9]|[a-z])"
    r"|zero|one|two|three|four|five|six|seven|eight|nine|(?:upper|lower)(?:case)?[ _-]?[a-z]",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """Facts that are known before a network is made."""

    samples: int
    """Samples of an epoch of training."""
    classes: int
    side: int
    """Shorter side of the training pictures in pixels, the median."""
    gpu: bool
    ranks: int = 1
    """Processes that share a batch."""
    letters: bool = False
    """Whether the class names are digits or letters, whose mirror images are other signs."""


@dataclass(frozen=True, kw_only=True)
class DecidedOptions(TrainOptions):
    """Settings with nothing left open."""

    model: str
    epochs: int
    batch_size: int
    optimizer: Optimizer
    lr: float
    weight_decay: float
    warmup: float
    label_smoothing: float
    freeze_batchnorm: bool


def are_letters(classes: Sequence[ClassName]) -> bool:
    """Return whether all class names are digits or letters: `7`, `b`, `seven`, `digit_7`, `upper_B`."""
    return all(_LETTER.fullmatch(one.name.strip()) for one in classes)


def resolve(options: TrainOptions, facts: Facts) -> DecidedOptions:
    """Return `options` with every open setting decided.

    The learning rate follows the batch: linearly for SGD (Goyal et al., arXiv 1706.02677: 0.1 for 256 samples), by the
    root for AdamW (Malladi et al., "On the SDEs and scaling rules for adaptive gradient algorithms", 2022). A recipe
    from a file leaves `flip` open, since the file says it.
    """
    model = options.model or _model(facts)
    small_net = model in ("cnn", "resnet9")
    transfers = options.pretrained or options.weights is not None
    plain_sgd = not transfers and model.startswith(("resnet", "vgg", "wide_resnet", "resnext")) and not small_net
    optimizer = options.optimizer or ("sgd" if plain_sgd else "adamw")
    batch_size = options.batch_size or _batch_size(facts)
    epochs = options.epochs or (18 if facts.samples >= LARGE else 30 if facts.samples >= MEDIUM else 20)
    if optimizer == "sgd":
        lr = 0.1 * batch_size / 256
        decay = 1e-4 if facts.samples >= LARGE else 5e-4
    else:
        lr = (4e-3 if small_net else 1e-3) * math.sqrt(batch_size / 256)
        decay = 0.01 if small_net else 0.05
    decided: dict[str, Any] = {
        "model": model,
        "optimizer": optimizer,
        "batch_size": batch_size,
        "epochs": epochs,
        "lr": round(lr, 6),
        "weight_decay": decay,
        "warmup": min(5.0, round(epochs * 0.1, 2)),
        "label_smoothing": 0.1 if facts.samples >= MEDIUM and facts.classes >= 10 else 0.0,
        "flip": None if options.recipe.endswith(".json") else not facts.letters,
        "freeze_batchnorm": options.unfreeze_after is not None
        and batch_size // (facts.ranks * options.accumulate) < _SMALL_FORWARD,
    }
    given = {name: value for name, value in asdict(options).items() if value is not None or name not in decided}
    return DecidedOptions(**decided | given)


def _model(facts: Facts) -> str:
    if facts.side <= _SMALL_SIDE:
        return "resnet9"
    if facts.side <= 2 * _SMALL_SIDE and facts.samples < LARGE:
        return "cnn"
    return "resnet50" if facts.gpu else "resnet18"


def _batch_size(facts: Facts) -> int:
    """Return the power of two that leaves about `_STEPS_PER_EPOCH` steps, within limits, as a multiple of the ranks."""
    wanted = max(1, facts.samples // _STEPS_PER_EPOCH)
    power: int = 2 ** int(math.log2(wanted))
    size = min(max(power, _LEAST_BATCH), _MOST_BATCH if facts.gpu else _MOST_BATCH_CPU, facts.samples)
    return max(size // facts.ranks, 1) * facts.ranks
