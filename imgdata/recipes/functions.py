"""Operators of a recipe that are functions of the user's, given as they are or named `package.module:function`."""

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from imgdata.errors import OptionError


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Apply:
    """A function of each picture: `function(pixels, generator)`.

    It gets uint8 `(H, W, 3)`, which it may change, and a `numpy.random.Generator`, and returns uint8 of that shape.
    `H` and `W` are those of the output, since the crop comes before. It is called by the loader's threads, several at a
    time. The generator is made of the seed, the epoch and the sample's position: a function that draws from nothing
    else gives the same pictures at any number of threads and ranks, and after a resume.
    """

    function: Callable[..., Any] | str = field(kw_only=False, hash=False)
    """The function, or its name `package.module:function`; only a recipe whose functions have names can be JSON."""

    def __post_init__(self) -> None:
        _check("Apply", self.function)

    def __repr__(self) -> str:
        return f"Apply({_shown(self.function)})"

    def __hash__(self) -> int:
        return hash(Apply)

    @property
    def called(self) -> Callable[..., Any]:
        """The function itself, imported where it is a name. Raises `OptionError`."""
        return _called("Apply", self.function)


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class BatchApply:
    """A function of each finished batch, on its device: `function(images, generator)`.

    It gets the images `(N, C, H, W)` as the loader would hand them out, mixed already, and a `torch.Generator` of their
    device, and returns images of the same shape, dtype and device. It is called when the batch is asked for, in the
    thread that asks. The generator is made of the seed, the epoch and the place of the batch's first sample in the
    epoch: the same after a resume, as long as batch size and number of ranks stay.
    """

    function: Callable[..., Any] | str = field(kw_only=False, hash=False)
    """The function, or its name `package.module:function`; only a recipe whose functions have names can be JSON."""

    def __post_init__(self) -> None:
        _check("BatchApply", self.function)

    def __repr__(self) -> str:
        return f"BatchApply({_shown(self.function)})"

    def __hash__(self) -> int:
        return hash(BatchApply)

    @property
    def called(self) -> Callable[..., Any]:
        """The function itself, imported where it is a name. Raises `OptionError`."""
        return _called("BatchApply", self.function)


def name_of(function: object) -> str:
    """Return the name of a function for people: `module:function`, or that of its class, or what it is `shown_as`."""
    if isinstance(function, str):
        return function
    shown_as = getattr(function, "shown_as", None)
    if isinstance(shown_as, str):
        return shown_as
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}:{named.__qualname__}"


def json_name(where: str, function: Callable[..., Any] | str) -> str:
    """Return the name under which another process finds the function. Raises `OptionError` where it has none."""
    name = name_of(function)
    if isinstance(function, str):
        return name
    module, _, attribute = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if found is not function or module == "__main__":
        raise OptionError(
            f"{where}: a recipe that is saved, or sent to another process, must have functions with a name, got "
            f"{name}; put the function into a module and write {where}('package.module:function')"
        )
    return name


def import_named(name: str) -> Any:
    """Return what `package.module:name` names; the code of the module is run.

    Modules of the working directory are found too. Raises `ImportError`, `AttributeError` or `ValueError`.
    """
    module_name, _, attribute = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    finally:
        sys.path.remove(os.getcwd())
    return found


def _check(where: str, function: object) -> None:
    if isinstance(function, str):
        module, colon, name = function.partition(":")
        if not (colon and all(part.isidentifier() for part in (*module.split("."), *name.split(".")))):
            raise OptionError(f"{where}.function must be a function, or package.module:function, got {function!r}")
    elif not callable(function):
        raise OptionError(f"{where}.function must be a function, or package.module:function, got {function!r}")


def _called(where: str, function: Callable[..., Any] | str) -> Callable[..., Any]:
    return _imported(where, function) if isinstance(function, str) else function


@lru_cache(maxsize=256)
def _imported(where: str, name: str) -> Callable[..., Any]:
    try:
        found = import_named(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise OptionError(f"{where} must name a function, package.module:function, got {name!r}: {error}") from error
    if isinstance(found, Apply | BatchApply):
        # What `from_torchvision` returns, at the top of a module.
        found = found.called
    if not callable(found):
        raise OptionError(f"{where} must name a function, got {name!r}, which is {type(found).__name__}")
    function: Callable[..., Any] = found
    return function


def _shown(function: Callable[..., Any] | str) -> str:
    return repr(function) if isinstance(function, str) else f"<{name_of(function)}>"
