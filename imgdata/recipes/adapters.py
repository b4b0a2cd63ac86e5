"""A transform of torchvision or albumentations -> an `Apply` that draws from the sample's generator alone."""

import copy
import threading
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imgdata.errors import MissingExtraError, OptionError
from imgdata.recipes.functions import Apply

if TYPE_CHECKING:
    import torch

Pixels = NDArray[np.uint8]


def from_torchvision(transform: Callable[[Any], Any], *, tensors: bool = False) -> Apply:
    """Return an operator that calls a transform of torchvision, of version 2 or 1, with each picture.

    The transform gets a PIL image, or with `tensors` a uint8 tensor `(3, H, W)`, and returns one: leave out
    `ToDtype`, `ToTensor` and `Normalize`. What it draws from PyTorch comes from the sample's own generator, in each
    thread by itself. What it draws from Python's or NumPy's global generators (some of version 1) is not reproducible.
    Raises `MissingExtraError` without torchvision.
    """
    try:
        import torchvision  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("from_torchvision needs torchvision: pip install 'imgdata[train]'") from error
    if not callable(transform):
        raise OptionError(f"transform must be a transform of torchvision, got {transform!r}")
    return Apply(TorchvisionFunction(transform, tensors=tensors))


def from_albumentations(transform: Any) -> Apply:
    """Return an operator that calls a transform of albumentations with each picture: a `Compose`, or a single one.

    Each thread has a copy of it, whose generators are set anew for each sample. Leave out `Normalize` and `ToTensorV2`.
    Raises `MissingExtraError` without albumentations.
    """
    try:
        albumentations: Any = import_module("albumentations")
    except ImportError as error:
        raise MissingExtraError("from_albumentations needs albumentations: pip install albumentations") from error
    if not callable(transform):
        raise OptionError(f"transform must be a transform of albumentations, got {transform!r}")
    if not hasattr(transform, "set_random_seed"):
        raise OptionError(f"transform must have set_random_seed, got {transform!r}; use albumentations 1.4.19 or later")
    if not isinstance(transform, albumentations.BaseCompose):
        transform = albumentations.Compose([transform])
    return Apply(AlbumentationsFunction(transform))


class TorchvisionFunction:
    """A transform of torchvision as a function of pixels and a generator; safe in threads, and can be pickled."""

    def __init__(self, transform: Callable[[Any], Any], *, tensors: bool) -> None:
        self._transform, self._tensors = transform, tensors
        self.shown_as = f"torchvision's {type(transform).__name__}"

    def __call__(self, pixels_HWC: Pixels, generator: np.random.Generator) -> Any:
        """Return the picture transformed, uint8 `(H, W, 3)`, or what else the transform returns."""
        import torch

        given: Any
        if self._tensors:
            given = torch.from_numpy(pixels_HWC).permute(2, 0, 1)
        else:
            from PIL import Image

            given = Image.fromarray(pixels_HWC)
        own = torch.Generator()
        own.manual_seed(int(generator.integers(2**63)))
        with _drawing_from(own):
            made = self._transform(given)
        if isinstance(made, torch.Tensor):
            return made.permute(1, 2, 0).numpy() if made.ndim == 3 else made.numpy()
        return np.asarray(made)


class AlbumentationsFunction:
    """A transform of albumentations as a function of pixels and a generator; safe in threads, and can be pickled."""

    def __init__(self, transform: Any) -> None:
        self._transform = transform
        self._of_thread = threading.local()
        self.shown_as = f"albumentations' {type(transform).__name__}"

    def __getstate__(self) -> dict[str, Any]:
        return {"_transform": self._transform}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_transform"])  # type: ignore[misc]

    def __call__(self, pixels_HWC: Pixels, generator: np.random.Generator) -> Any:
        """Return the picture transformed, uint8 `(H, W, 3)`, or what else the transform returns."""
        own = getattr(self._of_thread, "transform", None)
        if own is None:
            own = self._of_thread.transform = copy.deepcopy(self._transform)
        own.set_random_seed(int(generator.integers(2**32)))
        return own(image=pixels_HWC)["image"]


def _like(torch: Any) -> dict[Any, Any]:
    """Return functions that make random numbers like a tensor, and those that make them of a shape."""
    return {torch.rand_like: torch.rand, torch.randn_like: torch.randn}


def _drawing(torch: Any) -> frozenset[Any]:
    """Return the functions that draw, and take a generator."""
    names = ("uniform_", "normal_", "random_", "bernoulli_", "exponential_", "geometric_", "cauchy_", "log_normal_")
    makers = ("rand", "randn", "randint", "randperm", "multinomial", "bernoulli", "normal", "poisson")
    return frozenset(
        (
            *(getattr(torch.Tensor, name) for name in names),
            *(getattr(torch, name) for name in makers),
            torch._sample_dirichlet,
            torch._standard_gamma,
            torch.Tensor.multinomial,
            torch.Tensor.bernoulli,
        )
    )


@cache
def _mode() -> Any:
    """Return the class of `_drawing_from`'s contexts; made once, since PyTorch takes a second to import."""
    import torch
    from torch.overrides import TorchFunctionMode

    like, drawing = _like(torch), _drawing(torch)

    class Drawing(TorchFunctionMode):
        def __init__(self, generator: torch.Generator) -> None:
            super().__init__()
            self._generator = generator

        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if function in like and args:
                own = {"dtype": args[0].dtype, "device": args[0].device, "generator": self._generator}
                return like[function](args[0].shape, **{**own, **kwargs})
            if function in drawing and kwargs.get("generator") is None:
                kwargs = {**kwargs, "generator": self._generator}
            return function(*args, **kwargs)

    return Drawing


def _drawing_from(generator: "torch.Generator") -> Any:
    """Return a context in which this thread's calls of PyTorch draw from `generator`, not from the process's one.

    A mode of PyTorch is a thread's own, so threads don't wait for one another, as they would behind a lock.
    """
    return _mode()(generator)
