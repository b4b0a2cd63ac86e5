"""What the tests of training code share: a dataset of two splits, its loaders, a tiny model, and processes of ranks."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import imgdata
from imgdata.recipes import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    CenterCrop,
    HorizontalFlip,
    Normalize,
    RandomResizedCrop,
    Recipe,
    Resize,
)
from support.patience import PATIENCE_S
from support.rawdata import class_folders

CLASSES = 3
TRAIN_SAMPLES, VAL_SAMPLES = 60, 21
NORMALIZE = Normalize(mean=IMAGENET_MEAN, std=IMAGENET_STD)
TRAIN = {
    "split": "train",
    "batch_size": 8,
    "recipe": Recipe(RandomResizedCrop(size=16), HorizontalFlip(), NORMALIZE),
    "threads": 1,
}
VAL = {
    "split": "val",
    "batch_size": 8,
    "recipe": Recipe(Resize(size=20), CenterCrop(size=16), NORMALIZE),
    "shuffle": "none",
    "threads": 1,
}


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 60 images to train with and 21 to evaluate with, in three classes; not to be changed."""
    work = tmp_path_factory.mktemp("pets")
    raw = class_folders(work / "raw", {"train": TRAIN_SAMPLES // CLASSES, "val": VAL_SAMPLES // CLASSES})
    imgdata.shard(raw, work / "out", imgdata.ShardOptions(shard_samples=15), workers=1)
    return work / "out"


def train_loader(folder: Path | str, **options: Any) -> imgdata.Loader:
    return imgdata.Loader(folder, **{**TRAIN, **options})


def val_loader(folder: Path | str, **options: Any) -> imgdata.Loader:
    return imgdata.Loader(folder, **{**VAL, **options})


def tiny_model() -> torch.nn.Module:
    """The same weights at each call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3, stride=4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, CLASSES)
        )


def run_ranks(script: str, *arguments: str | Path, ranks: int = 2, timeout_s: int = PATIENCE_S) -> None:
    """Run a test module as a script, in so many ranks."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "support.ranks", str(ranks), script]
    done = subprocess.run(
        [*command, *arguments], env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def leave() -> None:
    """End a script of ranks, all at once.

    PyTorch 2.15 aborts in 3 of 100 runs when Python takes gloo's threads down, without imgdata too; what the script had
    to say is written by now. The barrier is there because torchrun ends all ranks when one is gone.
    """
    torch.distributed.barrier()
    sys.stdout.flush()
    os._exit(0)
