"""What the tests of trained networks share: a run on digits, and networks with random weights that need no files."""

from pathlib import Path
from typing import Any

import pytest
import torch

from imgdata.inference.trained import Trained
from imgdata.models import create_model
from imgdata.recipes import CenterCrop, Normalize, Recipe, Resize
from imgdata.sample import ClassName
from imgdata.training.loop import train
from support.digit_runs import quick

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture(scope="session", name="run")
def trained_run(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CNN after two epochs of digits; not to be changed."""
    folder = tmp_path_factory.mktemp("answers") / "run"
    train(digits, folder, quick())
    return folder


def random_network(
    name: str, *, size: int = 32, classes: int = 3, ids: tuple[str, ...] = (), **changes: Any
) -> Trained:
    """A network that has learned nothing, always the same, as if it were of a run."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_model(name, num_classes=classes, size=size)
    fields: dict[str, Any] = {
        "model": model.eval(),
        "classes": tuple(ClassName(one, f"class {one}") for one in ids or map(str, range(classes))),
        "recipe": Recipe(Resize(size=size), CenterCrop(size=size), Normalize(mean=MEAN, std=STD)),
        "name": name,
        "size": size,
        "device": torch.device("cpu"),
        "split": "train",
    }
    return Trained(**fields | changes)
