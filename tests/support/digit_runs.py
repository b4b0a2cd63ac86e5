"""What the tests of the trainer share: small sets of real digits, settings that train in a second, commands."""

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import imgdata
from imgdata.training.options import TrainOptions
from support.patience import PATIENCE_S

TRAIN_SAMPLES, VAL_SAMPLES = 320, 80
SIDE = 16
QUICK = {"model": "cnn", "epochs": 2, "batch_size": 32, "flip": False, "recipe": "plain", "threads": 1, "lr": 0.006}
"""Ten steps an epoch."""


def digit_folders(root: Path, splits: dict[str, int], classes: int = 10) -> Path:
    """`root/SPLIT/DIGIT/NUMBER.png`: scikit-learn's scanned digits, 8 x 8 pixels, four times as large in area."""
    from sklearn.datasets import load_digits  # Not above: the tests of wheels run without scikit-learn.

    digits = load_digits()
    numbers: dict[int, int] = {}
    for split, samples in splits.items():
        for label in range(classes):
            folder = root / split / str(label)
            folder.mkdir(parents=True)
            pictures = digits.images[digits.target == label]
            first = numbers.get(label, 0)
            numbers[label] = first + samples // classes
            for number in range(first, numbers[label]):
                small = Image.fromarray((pictures[number] * 15.9).astype("uint8"))
                small.resize((SIDE, SIDE)).convert("RGB").save(folder / f"{number:03d}.png")
    return root


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 320 digits to train with and 80 to validate with; not to be changed."""
    work = tmp_path_factory.mktemp("digits")
    raw = digit_folders(work / "raw", {"train": TRAIN_SAMPLES, "val": VAL_SAMPLES})
    imgdata.shard(raw, work / "out", imgdata.ShardOptions(shard_samples=100), workers=1)
    return work / "out"


def quick(**settings: Any) -> TrainOptions:
    """`QUICK`, with other settings."""
    return TrainOptions(**QUICK | settings)


def flags(**settings: Any) -> list[str]:
    """`QUICK` with other settings, as options of the command."""
    words: list[str] = []
    for name, value in (QUICK | settings).items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", str(value)]
    return words


def imgdata_command(*arguments: str | Path, ranks: int = 1) -> list[str]:
    """The command line, of one process or of several ranks."""
    launcher = [sys.executable]
    if ranks > 1:
        launcher += ["-m", "support.ranks", str(ranks)]
    return [*launcher, "-m", "imgdata_cli.main", *map(str, arguments)]


ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
"""Of commands: more threads in several processes would wait for each other."""


def run_command(*arguments: str | Path, ranks: int = 1) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    command = imgdata_command(*arguments, ranks=ranks)
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def losses(run: Path) -> list[float]:
    """The loss of each step."""
    with open(run / "steps.csv", newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def metrics(run: Path) -> list[dict[str, float]]:
    """The rows of `metrics.csv`, without what depends on the machine."""
    timing = ("images_per_s", "data_wait", "seconds")
    with open(run / "metrics.csv", newline="") as file:
        return [{key: float(row[key]) for key in row if key not in timing} for row in csv.DictReader(file)]
