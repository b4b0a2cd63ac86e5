"""A dataset, settings -> all that a run works with: decided settings, loaders, the network."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from imgdata.backends.options import DType, LoaderOptions, or_default
from imgdata.errors import OptionError
from imgdata.loader.loader import Loader
from imgdata.models import model_input
from imgdata.recipes.recipe import Recipe
from imgdata.sample import ClassName
from imgdata.training.data import evaluation_recipe, facts_of, one_size, open_views, training_recipe
from imgdata.training.defaults import DecidedOptions, Facts, resolve
from imgdata.training.distributed import Processes
from imgdata.training.network import half_type, make_network
from imgdata.training.options import TrainOptions
from imgdata.version import __version__
from imgdata.views.balance import class_weights
from imgdata.views.view import View

_PACKAGES = ("torch", "torchvision", "timm")
"""Whose versions are kept, of those that are installed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """What a run works with."""

    out: Path
    options: DecidedOptions
    """With nothing left open."""
    classes: tuple[ClassName, ...]
    size: int
    """Side of the pictures in pixels; with growing ones the last."""
    recipe: Recipe
    eval_recipe: Recipe
    train: Loader
    val: Loader
    model: nn.Module
    weight_C: torch.Tensor | None
    """Weights of the classes in the loss, float32 `(C,)` on the device."""

    @property
    def parameters(self) -> int:
        """Weights of the network, all of them."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def config(self) -> dict[str, Any]:
        """What `config.json` holds."""
        return {
            "data": str(self.out.resolve()),
            "options": self.options.to_dict(),
            "size": self.size,
            "classes": [list(one) for one in self.classes],
            "recipe": self.recipe.to_dict(),
            "eval_recipe": self.eval_recipe.to_dict(),
            "samples": {"train": len(self.train.view), "val": len(self.val.view)},
            "parameters": self.parameters,
            "steps_per_epoch": len(self.train),
            "versions": {"imgdata": __version__, **{name: version(name) for name in _PACKAGES if find_spec(name)}},
        }


@contextmanager
def prepare(out: Path, options: TrainOptions, ranks: Processes) -> Iterator[Prepared]:
    """Open the data, decide what is open in `options`, make loaders and network. Raises `OptionError`, `ShardError`."""
    views = open_views(out, options)
    facts = facts_of(views.train, gpu=ranks.device.type == "cuda", ranks=ranks.world_size)
    decided = resolve(options, facts)
    # Raises where the device can't compute in it, before anything is made.
    half_type(decided.amp, ranks.device)
    if decided.unfreeze_after is not None and decided.unfreeze_after >= decided.epochs:
        raise OptionError(
            f"unfreeze_after must be below the {decided.epochs} epochs, got {decided.unfreeze_after}; leave it out to "
            "train the classifier alone"
        )
    if decided.batch_size > len(views.train):
        raise OptionError(
            f"batch_size must be at most the {len(views.train):,} samples to train on, got {decided.batch_size:,}"
        )
    takes = model_input(decided.model)
    size = decided.size or _size(decided, takes.size, facts)
    recipe = training_recipe(decided, takes, size, facts, one_size(views.train))
    if decided.size is None:
        # That of a recipe from a file.
        size = min(recipe.output_size(decided.epochs - 1))
    eval_recipe = evaluation_recipe(decided, takes, size, facts, recipe)
    _check_size(decided, recipe, size)
    with ExitStack() as stack:
        loaders = {
            name: stack.enter_context(_loader(view, used, decided, ranks, shuffled=name == "train"))
            for name, view, used in (("train", views.train, recipe), ("val", views.val, eval_recipe))
        }
        yield Prepared(
            out=out,
            options=decided,
            classes=views.train.classes,
            size=size,
            recipe=recipe,
            eval_recipe=eval_recipe,
            train=loaders["train"],
            val=loaders["val"],
            model=make_network(decided, len(views.train.classes), size, ranks),
            weight_C=_weights(views.train, decided, ranks.device),
        )


def read_classes(config: Mapping[str, Any]) -> tuple[ClassName, ...]:
    """The classes in `config.json`."""
    return tuple(ClassName(*one) for one in config["classes"])


def _size(options: DecidedOptions, usual: int, facts: Facts) -> int:
    """The network's usual side; that of the pictures where they are small and the network takes any."""
    return facts.side if options.model in ("cnn", "resnet9") and facts.side < usual else usual


def _check_size(options: DecidedOptions, recipe: Recipe, size: int) -> None:
    sizes = {recipe.output_size(epoch) for epoch in range(options.epochs)}
    if options.model == "cnn" and sizes != {(size, size)}:
        raise OptionError(f"cnn takes pictures of one size, {size}x{size}, got {sorted(sizes)}; use another network")


def _loader(view: View, recipe: Recipe, options: DecidedOptions, ranks: Processes, *, shuffled: bool) -> Loader:
    if options.batch_size % ranks.world_size:
        raise OptionError(
            f"batch_size must be a multiple of the {ranks.world_size} ranks that share it, got {options.batch_size}"
        )
    half: DType = "float16" if ranks.device.type == "cuda" and half_type(options.amp, ranks.device) else "float32"
    loading = LoaderOptions(
        batch_size=options.batch_size // ranks.world_size,
        recipe=recipe,
        device=str(ranks.device),
        backend=options.backend,
        shuffle="global" if shuffled else "none",
        seed=options.seed,
        dtype=half,
        channels_last=options.channels_last,
        threads=or_default(options.threads),
        prefetch=options.prefetch,
    )
    return Loader.from_options(view, loading, rank=ranks.rank, world_size=ranks.world_size)


def _weights(view: View, options: DecidedOptions, device: torch.device) -> torch.Tensor | None:
    """Class weights whose mean over the samples of an epoch is 1."""
    if options.class_weights == "none":
        return None
    weight_C = class_weights(view, options.class_weights)
    mean = (weight_C * view.drawn_C).sum() / view.drawn_C.sum()
    return torch.tensor(weight_C / mean, dtype=torch.float32, device=device)
