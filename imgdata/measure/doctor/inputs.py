"""A dataset, words of a command line -> what is measured: samples, recipe, a loader's settings."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

import imgdata.recipes as ready
from imgdata.backends.options import BackendName, DType, LoaderOptions, or_default
from imgdata.backends.protocol import BackendKind, BackendSetup
from imgdata.devices import choose_device
from imgdata.errors import OptionError
from imgdata.loader.delivery import Engine
from imgdata.loader.opened import Given, Opened, open_source
from imgdata.loader.remote_cache import usual_shuffle
from imgdata.recipes import HorizontalFlip, Normalize, PadRandomCrop
from imgdata.recipes.presets import OF_ONE_SIZE, SHORT_NAMES, named_recipe
from imgdata.recipes.recipe import Recipe
from imgdata.training.data import sides_of

_SMALL_SIDE = 64
_USUAL_BATCH, _USUAL_SIZE = 256, 224


@dataclass(frozen=True, kw_only=True, slots=True)
class DoctorOptions:
    """Settings of a measurement. Raises `OptionError`."""

    split: str | None = None
    """Split that is read; by default `train`, else the first."""
    recipe: str | None = None
    """A ready one, such as `imagenet_train`, or a JSON file as `Recipe.to_dict` gives it; None: by picture size."""
    size: int | None = None
    """Side of the output in pixels; by default the network's, else 224, or that of small pictures."""
    batch_size: int | None = None
    """Samples of a batch; by default 256, or all where there are fewer."""
    model: str | None = None
    """A network whose steps are timed as well: `cnn`, `resnet9`, or any of timm's."""
    device: str = "auto"
    backend: BackendName = "auto"
    threads: int | None = None
    dtype: DType | None = None
    """Type of the images; by default the loader's, with `model` on a GPU that of a run."""
    cache: str = "auto"
    """What is kept of a dataset in an object store: `auto`, `disk`, `memory`, `off`, or a number of gigabytes."""
    tune_seconds: float | None = None
    """Try other settings for so long."""

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 8:
            raise OptionError(f"size must be at least 8, got {self.size}")
        if self.tune_seconds is not None and not self.tune_seconds > 0:
            raise OptionError(f"seconds must be above 0, got {self.tune_seconds:g}")


class Case(NamedTuple):
    """The subject of a measurement, with every default decided."""

    dataset: str
    opened: Opened
    recipe_code: str
    """Python that makes the recipe."""
    options: LoaderOptions
    setup: BackendSetup
    """Setup of the loader's backend."""
    kind: BackendKind
    """The kind of backend that was chosen."""
    description: str

    @property
    def recipe(self) -> Recipe:
        """Recipe of each sample."""
        return self.options.recipe

    @property
    def samples(self) -> int:
        """Number of samples in an epoch."""
        return len(self.opened.view)

    @property
    def side(self) -> int:
        """Median of the pictures' shorter sides in pixels."""
        return int(np.median(np.minimum(*sides_of(self.opened.view))))

    @property
    def out_side(self) -> int:
        """Shorter side of what comes out, in pixels."""
        return min(self.recipe.output_size(0))


def make_case(dataset: str | Path, options: DoctorOptions) -> Case:
    """Open the dataset and decide what is open. Raises `OptionError`, `ShardError`, `MissingExtraError`."""
    from imgdata.loose.opened import open as open_dataset

    data = open_dataset(dataset)
    if options.model is not None:
        _model_size(options)
    split = options.split or ("train" if "train" in data else next(iter(data)))
    opened = open_source(Given(data, split))
    recipe, code = choose_recipe(options, opened)
    loading = LoaderOptions(
        batch_size=options.batch_size or min(_USUAL_BATCH, len(opened.view)),
        recipe=recipe,
        device=options.device,
        backend=options.backend,
        dtype=or_default(options.dtype or _trained_dtype(options)),
        threads=or_default(options.threads),
        shuffle=usual_shuffle(opened.view),
        cache=options.cache,
    )
    if loading.batch_size > len(opened.view):
        raise OptionError(f"batch_size must be at most the {len(opened.view):,} samples, got {loading.batch_size:,}")
    engine = Engine(opened, loading)
    return Case(str(dataset), opened, code, loading, engine.setup, engine.kind, engine.description)


def _trained_dtype(options: DoctorOptions) -> DType | None:
    """Return the type of the images of a run with this network on a GPU; None leaves it to the loader."""
    if options.model is None:
        return None
    import torch

    from imgdata.training.network import image_type

    device = torch.device(choose_device(options.device))
    return None if device.type != "cuda" else image_type("auto", device)


def choose_recipe(options: DoctorOptions, opened: Opened) -> tuple[Recipe, str]:
    """Return the recipe, and the Python that makes it."""
    name = options.recipe
    if name is None:
        return _fitting_recipe(options, opened)
    name = SHORT_NAMES.get(name, name)
    if name.endswith(".json"):
        code = f"imgdata.recipes.Recipe.from_dict(json.loads(Path({json.dumps(name)}).read_text()))"
        return named_recipe(name, options.size), code
    size = options.size
    if size is None and name not in OF_ONE_SIZE:
        size = _model_size(options)
    return named_recipe(name, size), f"imgdata.recipes.{name}({size or ''})"


def _fitting_recipe(options: DoctorOptions, opened: Opened) -> tuple[Recipe, str]:
    """Return shifts and mirroring where all pictures are small squares; else random crops, as for ImageNet."""
    width_N, height_N = sides_of(opened.view)
    side = int(width_N[0])
    small = side <= _SMALL_SIDE and bool((width_N == side).all() and (height_N == side).all())
    if small and options.size in (None, side):
        if side == 32:
            return ready.cifar_train(), "imgdata.recipes.cifar_train()"
        mean, std = ready.IMAGENET_MEAN, ready.IMAGENET_STD
        ops = (PadRandomCrop(size=side, padding=max(1, side // 8)), HorizontalFlip(), Normalize(mean=mean, std=std))
        inside = ", ".join(f"imgdata.recipes.{op!r}" for op in ops)
        return Recipe(*ops), f"imgdata.recipes.Recipe({inside})"
    size = options.size or _model_size(options) or _USUAL_SIZE
    return ready.imagenet_train(size), f"imgdata.recipes.imagenet_train({size})"


def _model_size(options: DoctorOptions) -> int | None:
    if options.model is None:
        return None
    from imgdata.models import model_input

    return model_input(options.model).size
