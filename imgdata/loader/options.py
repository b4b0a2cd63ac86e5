"""Arguments of a loader -> checked options; a source -> the split, the view of it and the limit of pixels."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from imgdata.backends.protocol import BackendName, DType
from imgdata.dataset.dataset import Dataset, Split
from imgdata.dataset.dataset import open as open_dataset
from imgdata.dataset.index import index_id
from imgdata.devices import choose_device, cores_per_rank
from imgdata.errors import OptionError
from imgdata.order.epoch_order import Shuffle
from imgdata.recipes.ops import CutMix, MixUp, MixUpOrCutMix, Normalize
from imgdata.recipes.recipe import Recipe
from imgdata.views.saved import open_view
from imgdata.views.view import View

if TYPE_CHECKING:
    import torch

MAX_THREADS = 4096
OnBad = Literal["replace", "skip", "raise"]


@dataclass(frozen=True, kw_only=True)
class LoaderOptions:
    """See `imgdata.loader.loader.Loader`, whose arguments these are. Raises `OptionError`."""

    batch_size: int
    recipe: Recipe
    device: str
    backend: BackendName
    shuffle: Shuffle
    seed: int
    drop_last: bool
    dtype: DType
    channels_last: bool
    threads: int
    prefetch: int
    window_shards: int
    on_bad: OnBad
    exact: bool
    dali_options: Mapping[str, object]

    def __post_init__(self) -> None:
        if not isinstance(self.recipe, Recipe):
            raise OptionError(
                f"recipe must be a Recipe, such as imgdata.recipes.imagenet_train(224), got {self.recipe!r}"
            )
        for name, least in (("batch_size", 1), ("threads", 1), ("prefetch", 1), ("window_shards", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise OptionError(f"{name} must be a whole number of at least {least}, got {value!r}")
        if self.threads > MAX_THREADS:
            raise OptionError(f"threads must be at most {MAX_THREADS}, got {self.threads}")
        if not isinstance(self.drop_last, bool):
            raise OptionError(f"drop_last must be True, False or None, got {self.drop_last!r}")
        if not isinstance(self.exact, bool):
            raise OptionError(f"exact must be True or False, got {self.exact!r}")
        for name, choices in (("backend", BackendName), ("dtype", DType), ("on_bad", OnBad), ("shuffle", Shuffle)):
            _check_choice(name, getattr(self, name), get_args(choices))

    @property
    def training(self) -> bool:
        """Whether batches should be mixed well: they are shuffled, or an incomplete one is left out."""
        return self.shuffle != "none" or self.drop_last

    @property
    def mixes(self) -> bool:
        """Whether labels are soft."""
        return any(isinstance(op, MixUp | CutMix | MixUpOrCutMix) for op in self.recipe.ops)


def make_options(
    *,
    device: "str | torch.device",
    shuffle: Shuffle,
    drop_last: bool | None,
    dtype: DType | None,
    channels_last: bool | None,
    threads: int | None,
    on_bad: OnBad | None,
    **others: Any,
) -> LoaderOptions:
    """The options, with what was left open decided."""
    shuffled = shuffle != "none"
    recipe = others["recipe"]
    if drop_last is None:
        drop_last = shuffled
    if dtype is None:
        dtype = "float32" if isinstance(recipe, Recipe) and recipe.find(Normalize) is not None else "uint8"
    return LoaderOptions(
        device=choose_device(device),
        shuffle=shuffle,
        drop_last=drop_last,
        dtype=dtype,
        channels_last=dtype == "uint8" if channels_last is None else channels_last,
        threads=cores_per_rank() if threads is None else threads,
        on_bad=("replace" if shuffled or drop_last else "skip") if on_bad is None else on_bad,
        **others,
    )


class Opened(NamedTuple):
    """What a loader reads from."""

    split: Split
    view: View
    max_pixels: int


def open_source(source: str | Path | Dataset | View, split: str | None, view: str | None) -> Opened:
    """A folder, dataset or view -> its split and what the loader takes of it. Raises `OptionError`, `ShardError`."""
    if isinstance(source, View):
        if view is not None or split not in (None, source.split):
            raise OptionError(
                f"split and view must be left out when the source is a View, got {split!r} and {view!r}; apply them "
                "with imgdata.open_view before"
            )
        dataset = open_dataset(source.folder.path)
        if source.split not in dataset or index_id(dataset[source.split].index) != index_id(source.index):
            raise OptionError(
                f"{source.index.path}: the dataset must be the one that the view was made of, got another since; "
                "make the view again"
            )
        return Opened(dataset[source.split], source, dataset.manifest.max_pixels)
    if not isinstance(source, str | Path | Dataset):
        raise OptionError(f"source must be a dataset's folder, a Dataset or a View, got {source!r}")
    dataset = source if isinstance(source, Dataset) else open_dataset(source)
    if split is None or split not in dataset:
        raise OptionError(f"split must be one of {', '.join(dataset)}, got {split!r}")
    return Opened(dataset[split], open_view(dataset, split, view or ""), dataset.manifest.max_pixels)


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise OptionError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
