"""PyTorch, which is optional -> nothing where it is installed, or the error that says what to install."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

from imgdata.errors import MissingExtraError


def has_torch() -> bool:
    """Return whether PyTorch is installed, without importing it."""
    return importlib.util.find_spec("torch") is not None


def require_torch(what: str, extra: str = "torch") -> None:
    """Raise `MissingExtraError` where PyTorch, which `what` needs, is not installed; `extra` brings it."""
    if not has_torch():
        raise _without_torch(what, extra)


@contextmanager
def importing_torch(what: str) -> Iterator[None]:
    """Raise `MissingExtraError` for an import inside that fails since PyTorch, which `what` needs, is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise _without_torch(what) from error


def _without_torch(what: str, extra: str = "torch") -> MissingExtraError:
    return MissingExtraError(f"{what} needs PyTorch: pip install 'imgdata[{extra}]'")
