"""A dataset, settings -> what a run works with: decided settings, loaders, the network."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from imgdata.backends.options import LoaderOptions, or_default
from imgdata.dataset.dataset import Dataset
from imgdata.errors import OptionError
from imgdata.loader.loader import Loader
from imgdata.loader.remote_cache import usual_shuffle
from imgdata.loose.opened import open as open_dataset
from imgdata.models import ModelInput, model_input
from imgdata.recipes.recipe import Recipe
from imgdata.sample import ClassName
from imgdata.storage.folder import LooseFolder
from imgdata.training.data import (
    Views,
    choose_validation,
    evaluation_recipe,
    facts_of,
    one_size,
    open_views,
    recipe_kind,
    training_recipe,
)
from imgdata.training.defaults import DecidedOptions, Facts, resolve
from imgdata.training.distributed import Processes
from imgdata.training.network import half_type, image_type, make_network
from imgdata.training.options import TrainOptions
from imgdata.training.own import OwnParts, is_own, own_input
from imgdata.training.task import Task, fitted_options, task_of
from imgdata.version import __version__
from imgdata.views.balance import class_weights
from imgdata.views.view import View

_PACKAGES = ("torch", "torchvision", "timm")
"""Packages whose versions are kept, of those that are installed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """Everything that a run needs, ready to start."""

    dataset: Path
    options: DecidedOptions
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
    recipe_name: str
    """`imagenet`, `cifar`, `classifier`, `plain`, or the file of the training recipe."""
    letters: bool
    """Whether the class names are digits or letters."""
    own: OwnParts
    task: Task
    """What the network learns to say of a picture."""
    weight_scale: float = 1.0
    """What makes the mean of `weight_column` 1."""
    version: int = 1
    """Version of the dataset."""

    @property
    def parameters(self) -> int:
        """Number of the network's weights."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def config(self) -> dict[str, Any]:
        """Return what `config.json` holds."""
        return {
            "data": str(self.dataset.resolve()),
            **_read_as(self.train.view),
            # Runs of before datasets could grow say nothing.
            **({} if self.version == 1 else {"data_version": self.version}),
            "options": self.options.to_dict(),
            "size": self.size,
            "classes": [list(one) for one in self.classes],
            **({} if self.task.kind == "class" else {"target": self.task.to_dict()}),
            "recipe": self.recipe.to_dict(),
            "eval_recipe": self.eval_recipe.to_dict(),
            "recipe_name": self.recipe_name,
            "samples": {"train": len(self.train.view), "val": len(self.val.view)},
            "views": {"train": _shown(self.train.view), "val": _shown(self.val.view)},
            "trained_and_validated": _shared(self.train.view, self.val.view),
            "letters": self.letters,
            "backend": {"train": self.train.backend, "val": self.val.backend},
            "backend_description": self.train.backend_description,
            "own": self.own.names(),
            "parameters": self.parameters,
            "steps_per_epoch": len(self.train),
            "versions": {"imgdata": __version__, **{name: version(name) for name in _PACKAGES if find_spec(name)}},
        }


@contextmanager
def prepare(
    dataset: Path,
    options: TrainOptions,
    ranks: Processes,
    *,
    own: OwnParts | None = None,
    saved: bool = False,
    version: int | None = None,
) -> Iterator[Prepared]:
    """Open the data, decide what is open in `options`, make loaders and network; close the loaders after the block.

    `own` are parts of the user's code; `saved` means that the options are those of a run, which decided them. `version`
    is that of the dataset, by default the newest. Raises `OptionError`, `ShardError`.
    """
    own = own or OwnParts()
    opened = open_dataset(dataset, version=version)
    options, views = chosen_data(opened, options, saved=saved)
    facts = facts_of(views.train, gpu=ranks.device.type == "cuda", ranks=ranks.world_size)
    task = task_of(views.train, options.regression_loss or "mse")
    decided = fitted_options(_with_own_loss(resolve(options, facts), options, own), options, task)
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
    takes = _input(decided, facts)
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
            dataset=dataset,
            options=decided,
            classes=views.train.classes,
            size=size,
            recipe=recipe,
            eval_recipe=eval_recipe,
            train=loaders["train"],
            val=loaders["val"],
            model=make_network(decided, task.outputs, size, ranks, own.model),
            weight_C=_weights(views.train, decided, ranks.device),
            recipe_name=decided.recipe if decided.recipe.endswith(".json") else recipe_kind(decided, facts),
            letters=facts.letters,
            own=own,
            task=task,
            weight_scale=_weight_scale(loaders["train"], decided, own),
            version=opened.version,
        )


def chosen_data(dataset: Dataset, options: TrainOptions, *, saved: bool = False) -> tuple[TrainOptions, Views]:
    """Return the options with the samples to validate with decided, and the views to train on and to validate with.

    Options that are `saved` stay as they are. Raises `OptionError`, `ShardError`.
    """
    options = options if saved else choose_validation(dataset, options)
    return options, open_views(dataset, options)


def saved_version(config: Mapping[str, Any]) -> int:
    """Return which version of the dataset the run with this `config.json` reads."""
    return int(config.get("data_version", 1))


def read_classes(config: Mapping[str, Any]) -> tuple[ClassName, ...]:
    """Return the classes in `config.json`."""
    return tuple(ClassName(*one) for one in config["classes"])


def _read_as(view: View) -> dict[str, Any]:
    """Return how raw images were read, where their layout left a choice."""
    read = view.folder.read_as if isinstance(view.folder, LooseFolder) else {}
    return {"read": read} if read else {}


def _shown(view: View) -> dict[str, str]:
    return {"split": view.split, "view": view.expression}


def _shared(train: View, val: View) -> int:
    """Return how many samples are trained on and validated with."""
    return len(np.intersect1d(train.position_N, val.position_N)) if train.split == val.split else 0


def _with_own_loss(decided: DecidedOptions, given: TrainOptions, own: OwnParts) -> DecidedOptions:
    """Return the settings without what a loss of the user's own does not do."""
    if own.loss is None:
        return decided
    for name in ("label_smoothing", "class_weights"):
        if getattr(given, name) not in (None, 0, "none"):
            raise OptionError(f"{name} can't be given with a loss of your own; put it into that")
    return replace(decided, label_smoothing=0.0)


def _input(options: DecidedOptions, facts: Facts) -> ModelInput:
    return own_input(facts.side) if is_own(options.model) else model_input(options.model)


def _size(options: DecidedOptions, usual: int, facts: Facts) -> int:
    """Return the network's usual side; that of the pictures where they are small and the network takes any."""
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
    loading = LoaderOptions(
        batch_size=options.batch_size // ranks.world_size,
        recipe=recipe,
        device=str(ranks.device),
        backend=options.backend,
        shuffle=usual_shuffle(view) if shuffled else "none",
        seed=options.seed,
        dtype=image_type(options.amp, ranks.device),
        channels_last=options.channels_last,
        threads=or_default(options.threads),
        prefetch=options.prefetch,
        cache=options.cache,
        columns=(options.weight_column,) if shuffled and options.weight_column is not None else (),
    )
    return Loader.from_options(view, loading, rank=ranks.rank, world_size=ranks.world_size, shuffle_open=shuffled)


def _weight_scale(loader: Loader, options: DecidedOptions, own: OwnParts) -> float:
    """Return 1 over the mean weight of the samples to train on. Raises `OptionError` for what are no weights."""
    name = options.weight_column
    if name is None:
        return 1.0
    if own.loss is not None:
        raise OptionError(
            "weight_column can't be given with a loss of your own, which doesn't see it; put it into that"
        )
    weights = loader.column(name)
    good = isinstance(weights, np.ndarray) and weights.ndim == 1
    weight_N = np.asarray(weights, np.float64) if good else np.full(1, np.nan)
    if not (np.isfinite(weight_N).all() and (weight_N >= 0).all() and weight_N.any()):
        raise OptionError(f"weight_column must be of numbers from 0, and not all 0, got {name!r}")
    return float(1 / weight_N.mean())


def _weights(view: View, options: DecidedOptions, device: torch.device) -> torch.Tensor | None:
    """Return class weights whose mean over the samples of an epoch is 1."""
    if options.class_weights == "none":
        return None
    weight_C = class_weights(view, options.class_weights)
    mean = (weight_C * view.drawn_C).sum() / view.drawn_C.sum()
    return torch.tensor(weight_C / mean, dtype=torch.float32, device=device)
