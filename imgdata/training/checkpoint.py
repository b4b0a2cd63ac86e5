"""A run's state -> a file that is whole or not there, and back; nothing but tensors and plain values is read."""

import pickle
from pathlib import Path
from typing import Any

import torch

from imgdata.errors import OptionError
from imgdata.storage.atomic import whole_file

CHECKPOINT_VERSION = 1


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state`, tensors and plain values; the file has its name when it is complete. Raises `OutputError`."""
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        try:
            torch.save({"version": CHECKPOINT_VERSION, **state}, file)
        except RuntimeError as error:
            # A disk that is full: PyTorch raises another error while it handles that one.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return what `save_checkpoint` wrote, its tensors in the processor's memory. Raises `OptionError`."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise OptionError(f"{path}: the checkpoint can't be read: {error.strerror or error}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise OptionError(f"{path}: is no checkpoint of imgdata, or damaged; take another, or start again") from error
    if not isinstance(state, dict) or state.get("version") != CHECKPOINT_VERSION:
        raise OptionError(f"{path}: must be a checkpoint of version {CHECKPOINT_VERSION}; another imgdata wrote it")
    return state
