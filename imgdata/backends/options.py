"""What a loader is asked for -> its settings, checked, with nothing left open."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar, get_args

from imgdata import checks
from imgdata.devices import choose_device, cores_per_rank
from imgdata.errors import OptionError
from imgdata.order.epoch_order import Shuffle
from imgdata.recipes.choices import RandomApply, RandomChoice
from imgdata.recipes.functions import Apply
from imgdata.recipes.moves import Affine, Perspective
from imgdata.recipes.ops import CutMix, Cutout, MixUp, MixUpOrCutMix, Normalize, RandomErasing, Rotate
from imgdata.recipes.recipe import Recipe
from imgdata.recipes.several import any_recipe, views_of
from imgdata.recipes.tones import AutoContrast, Equalize, GaussianBlur, Invert, Posterize, Sharpness, Solarize

BackendName = str
"""The name of a backend kind (see `imgdata.backends.registry`), or `auto`."""
DType = Literal["uint8", "uint16", "float16", "bfloat16", "float32"]
OnBad = Literal["replace", "skip", "raise"]

_ON_GRAY = (AutoContrast, Equalize, Invert, Posterize, Sharpness, Solarize)
"""Operators on each channel by itself, which Pillow has for gray too."""
MAX_THREADS = 4096
_OPEN: Any = None
"""Stands for a value that the other settings decide."""
T = TypeVar("T")


def or_default(value: T | None) -> T:
    """Return `value`; None is right too for a setting of `LoaderOptions` that the other settings may decide."""
    return _OPEN if value is None else value


@dataclass(frozen=True, kw_only=True)
class LoaderOptions:
    """Settings of a loader: what its batches are, and how they are made. Raises `OptionError`.

    A setting whose default is open is decided when the object is made (`or_default` passes None on); afterwards none
    is open, and `dataclasses.replace` keeps what was decided. `imgdata.Loader` takes the same settings as keywords.
    """

    batch_size: int
    """Samples of a batch of one rank, N."""
    recipe: Recipe
    device: str = "cpu"
    """Device of images and labels: `cpu`, `cuda:0` or `mps`; `cuda` becomes the number of the current GPU."""
    backend: BackendName = "auto"
    shuffle: Shuffle = _OPEN
    """By default `global`; of a dataset in an object store a loader makes that `window`."""
    seed: int = 0
    """Seed of the order and of all that is random in the recipe, 0 to 2^63-1."""
    drop_last: bool = _OPEN
    """Whether an incomplete last batch is left out; by default when samples are shuffled."""
    dtype: DType = _OPEN
    """dtype of the images: float images are normalised by the recipe's `Normalize`, or 0 to 1 without it.

    By default float32 where the recipe has `Normalize`, else uint8."""
    channels_last: bool = _OPEN
    """Memory in the order N, H, W, C, not N, C, H, W; by default for uint8. The shape is `(N, C, H, W)` either way."""
    threads: int = _OPEN
    """Threads that read and decode; by default one for each core of this process."""
    prefetch: int = 2
    """Batches in work behind the one that is waited for."""
    window_shards: int = 16
    """Shards of a window, with `shuffle="window"`."""
    on_bad: OnBad = _OPEN
    """What becomes of an image that can't be decoded; by default `replace` in training, else `skip`."""
    exact: bool = False
    """Decode whole pictures and resize them by Pillow, as torchvision does with PIL images."""
    channels: int = 3
    """Channels of the images, C: 3 for red, green and blue, 1 for gray, 4 with transparency."""
    columns: tuple[str, ...] = ()
    """Columns of the dataset that each batch brings along."""
    joint: tuple[str, ...] = ()
    """Further images, boxes and keypoints of the samples that are moved as the pictures are."""
    ignore_index: int = 255
    """What masks have where they show nothing of the sample."""
    cache: str = "auto"
    """What is kept of a dataset in an object store: `auto`, `disk`, `memory`, `off`, or a number of gigabytes."""
    dali_options: Mapping[str, object] = field(default_factory=dict, hash=False)
    """Settings of NVIDIA DALI: see `imgdata.backends.dali.options`."""

    def __post_init__(self) -> None:
        if not isinstance(self.recipe, Recipe):
            raise OptionError(
                f"recipe must be a Recipe, such as imgdata.recipes.imagenet_train(224), got {self.recipe!r}"
            )
        for op in (op for recipe in views_of(self.recipe) for op in recipe.functions):
            # A name that is wrong is heard of here, not from a thread.
            _ = op.called
        if self.shuffle is None:
            # First, as others depend on it.
            object.__setattr__(self, "shuffle", "global")
        for name, value in self._defaults().items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        for name, least in (("batch_size", 1), ("threads", 1), ("prefetch", 1), ("window_shards", 1), ("seed", 0)):
            value = getattr(self, name)
            if not checks.is_integer(value) or value < least:
                raise OptionError(f"{name} must be a whole number of at least {least}, got {value!r}")
            object.__setattr__(self, name, int(value))
        if self.threads > MAX_THREADS:
            raise OptionError(f"threads must be at most {MAX_THREADS}, got {self.threads}")
        if not isinstance(self.drop_last, bool):
            raise OptionError(f"drop_last must be True, False or None, got {self.drop_last!r}")
        if not isinstance(self.exact, bool):
            raise OptionError(f"exact must be True or False, got {self.exact!r}")
        object.__setattr__(self, "columns", _names("columns", self.columns, "columns, such as ['caption', 'weight']"))
        object.__setattr__(self, "joint", _names("joint", self.joint, "what moves along, such as ['mask', 'boxes']"))
        checks.integer("ignore_index", self.ignore_index, -(2**31), 2**31 - 1)
        for name, choices in (("dtype", DType), ("on_bad", OnBad), ("shuffle", Shuffle)):
            _check_choice(name, getattr(self, name), get_args(choices))
        for recipe in views_of(self.recipe):
            _check_channels(self, recipe)
        object.__setattr__(self, "cache", str(self.cache))
        object.__setattr__(self, "device", choose_device(self.device))

    def _defaults(self) -> dict[str, object]:
        """Return what the open settings become."""
        shuffled = self.shuffle != "none"
        normalizes = any(recipe.find(Normalize) is not None for recipe in views_of(self.recipe))
        dtype = self.dtype or ("float32" if normalizes else "uint8")
        trains = shuffled or bool(self.drop_last)
        return {
            "drop_last": shuffled,
            "dtype": dtype,
            "channels_last": dtype == "uint8",
            "threads": cores_per_rank(),
            "on_bad": "replace" if trains else "skip",
        }

    @property
    def of_views(self) -> "tuple[LoaderOptions, ...]":
        """The settings for each view of a picture: one, these, for a recipe that makes no others."""
        recipes = views_of(self.recipe)
        return (self,) if recipes == (self.recipe,) else tuple(replace(self, recipe=recipe) for recipe in recipes)

    @property
    def deep(self) -> bool:
        """Whether the depth of 16-bit pictures is kept, which are gray."""
        return self.channels == 1 and self.dtype != "uint8"

    @property
    def training(self) -> bool:
        """Whether batches should be mixed well: they are shuffled, or an incomplete one is left out."""
        return self.shuffle != "none" or self.drop_last

    @property
    def mixes(self) -> bool:
        """Whether labels are soft."""
        return any(isinstance(op, MixUp | CutMix | MixUpOrCutMix) for op in self.recipe.ops)

    @property
    def on_gpu(self) -> bool:
        """Whether the images are wanted on an NVIDIA GPU."""
        return self.device.startswith("cuda")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        plain = {one.name: getattr(self, one.name) for one in fields(self)}
        return {**plain, "recipe": self.recipe.to_dict(), "dali_options": dict(self.dali_options)}

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> "LoaderOptions":
        """Return the settings that `to_dict` wrote. Raises `OptionError`."""
        return LoaderOptions(**{**content, "recipe": any_recipe(content["recipe"])})


def _names(option: str, names: object, meant: str) -> tuple[str, ...]:
    """Return the names that an option lists, each once."""
    if isinstance(names, str):
        names = (names,)
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise OptionError(f"{option} must be names of {meant}, got {names!r}")
    return tuple(dict.fromkeys(names))


def _check_channels(options: LoaderOptions, recipe: Recipe) -> None:
    """Check that the recipe and the dtype are for so many channels."""
    channels, dtype = options.channels, options.dtype
    if channels not in (1, 3, 4) or isinstance(channels, bool):
        raise OptionError(f"channels must be 1, 3 or 4, got {channels!r}")
    if dtype == "uint16" and channels != 1:
        raise OptionError(f"dtype uint16 must have channels=1, the gray pictures of 16 bits, got channels={channels}")
    normalize = recipe.find(Normalize)
    if normalize is not None and len(normalize.mean) != channels:
        raise OptionError(
            f"Normalize must have {channels} means, one for each channel, got {len(normalize.mean)}; change it, or "
            "channels"
        )
    if dtype == "uint16":
        for op in recipe.ops:
            if isinstance(op, RandomErasing | Cutout | MixUp | CutMix | MixUpOrCutMix):
                raise OptionError(f"{type(op).__name__} must have a dtype other than uint16; use float32")
    if channels != 3:
        erasing = recipe.find(RandomErasing) or recipe.find(Cutout)
        if erasing is not None and not checks.is_number(erasing.value):
            raise OptionError(f"{type(erasing).__name__}.value must be one number where channels={channels}")
        for one in recipe.pixel_ops:
            _check_op(one, options)


def _check_op(op: object, options: LoaderOptions) -> None:
    """Check that an operator on pixels works on pictures that are not red, green and blue."""
    if isinstance(op, RandomApply | RandomChoice):
        for held in op.ops:
            _check_op(held, options)
    elif isinstance(op, Rotate | Affine | Perspective):
        if options.channels == 1 and isinstance(op.fill, tuple):
            raise OptionError(f"{type(op).__name__}.fill must be one number where channels=1, got {op.fill!r}")
    elif isinstance(op, GaussianBlur):
        return
    elif not isinstance(op, Apply) and not (isinstance(op, _ON_GRAY) and options.channels == 1):
        raise OptionError(f"{type(op).__name__} works on red, green and blue, got channels={options.channels}")
    elif options.deep:
        raise OptionError(f"{type(op).__name__} gets pictures of 8 bits, got channels=1 without dtype='uint8'")


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise OptionError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
