"""TorchCodec, where it is installed: its image decoders, or what to install."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from imgdata.errors import MissingExtraError

MISSING = "torchcodec is not installed: pip install torchcodec, 0.16 or later, for the CUDA of PyTorch"


def is_installed() -> bool:
    """Return whether TorchCodec is there, without importing it."""
    return find_spec("torchcodec") is not None


def load() -> tuple[Any, str]:
    """Return the module `torchcodec.decoders`, which has `decode_jpeg` and `decode_image`, and TorchCodec's version.

    Its image decoders need no FFmpeg. Raises `MissingExtraError` where it isn't installed, or is too old.
    """
    try:
        package, decoders = import_module("torchcodec"), import_module("torchcodec.decoders")
    except ModuleNotFoundError as error:
        raise MissingExtraError(MISSING) from error
    if not hasattr(decoders, "decode_jpeg"):
        raise MissingExtraError(
            f"torchcodec must be 0.16 or later, which has decode_jpeg, got {package.__version__}; "
            "pip install --upgrade torchcodec"
        )
    return decoders, package.__version__
