"""Settings of a benchmark -> the same, checked; the name or file of a recipe -> the recipe."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from imgdata import checks
from imgdata.backends.options import BackendName, DType
from imgdata.errors import OptionError
from imgdata.measure.bench.peers import PEERS
from imgdata.recipes.presets import named_recipe
from imgdata.recipes.recipe import Recipe
from imgdata.recipes.several import one_view

_MAX_SECONDS = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchOptions:
    """Settings of a measurement. Raises `OptionError`."""

    split: str = "train"
    recipe: str | Recipe = "imagenet_train"
    """Name of a ready one, a JSON file as `Recipe.to_dict` gives it, or a recipe."""
    size: int | None = None
    """Side of the output in pixels; by default the ready recipe's."""
    backend: BackendName = "auto"
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, ...; auto: a GPU if there is one."""
    batch_size: int | None = None
    """Samples of a batch of one rank; by default 256, or all that one has where there are less."""
    threads: int | None = None
    """Threads of our loader, and worker processes of the others; by default the cores for this process."""
    dtype: DType | None = None
    """Type of the images; by default float32 where the recipe has `Normalize`, else uint8."""
    cache: str = "auto"
    """What is kept of a dataset in an object store: `auto`, `disk`, `memory`, `off`, or a number of gigabytes."""
    ranks: int = 1
    """The loader is rank 0 of so many; the others are not there."""
    seconds: float = 10.0
    """Measured time of each loader in each round; start and warm-up come before it."""
    rounds: int = 3
    compare: tuple[str, ...] = ()
    """Names of other loaders: torchvision, torchvision-pil, torchvision-batched, torchcodec, webdataset, dali,
    dali-fused."""
    all_gpus: bool = False
    """A process on each GPU at the same time: rank i of so many."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "ranks", "rounds"):
            value = getattr(self, name)
            if name != "batch_size" or value is not None:
                checks.integer(name, value, 1)
        if not (math.isfinite(self.seconds) and 0 < self.seconds <= _MAX_SECONDS):
            raise OptionError(f"seconds must be above 0 and at most {_MAX_SECONDS:g}, got {self.seconds!r}")
        unknown = [name for name in self.compare if name not in PEERS]
        if unknown:
            raise OptionError(f"compare must be of {', '.join(PEERS)}, got {unknown[0]!r}")
        if len(set(self.compare)) != len(self.compare):
            raise OptionError(f"compare must name each loader once, got {', '.join(self.compare)}")
        if self.all_gpus and (self.ranks > 1 or self.device not in ("auto", "cuda")):
            raise OptionError(
                f"all_gpus must come without ranks and device, which it sets, got ranks {self.ranks} and device "
                f"{self.device!r}; leave them out"
            )

    def command(self, dataset: str | Path, read: Sequence[str] = ()) -> str:
        """Return the command line that measures the same again. A recipe that has no name is `RECIPE.json`.

        `read` are the options that say how raw images are read.
        """
        words = ["imgdata", "bench", str(dataset), *read]
        for field in fields(self):
            value = getattr(self, field.name)
            if value == field.default:
                continue
            flag = f"--{field.name.replace('_', '-')}"
            if value is True:
                words.append(flag)
            elif isinstance(value, tuple):
                words += [flag, ",".join(value)]
            elif isinstance(value, Recipe):
                words += [flag, "RECIPE.json"]
            else:
                words += [flag, f"{value:g}" if isinstance(value, float) else str(value)]
        return shlex.join(words)


def ready_recipe(options: BenchOptions) -> Recipe:
    """Return the recipe that the options name. Raises `OptionError`."""
    name, size = options.recipe, options.size
    if not isinstance(name, Recipe):
        return named_recipe(name, size)
    if size is not None:
        raise OptionError(f"size must be left out with a recipe that has its own, got {size}")
    return one_view(name)


def recipe_name(options: BenchOptions) -> str:
    """Return the recipe's name for people; empty where it has none."""
    return options.recipe if isinstance(options.recipe, str) else ""
