"""A folder, dataset or view, or several -> the split that a loader reads, the view of it and the limit of pixels."""

from collections.abc import Iterator, Sequence
from itertools import islice, product
from pathlib import Path
from typing import NamedTuple, cast

from imgdata.dataset.dataset import Dataset, reopen
from imgdata.dataset.index import index_id
from imgdata.dataset.joined import JoinedSplit
from imgdata.dataset.split import Split
from imgdata.errors import OptionError
from imgdata.loose.opened import open as open_dataset
from imgdata.views.saved import open_view
from imgdata.views.together import JoinClasses, joined_view
from imgdata.views.view import View

MAX_DRAWN = 2**32
"""Draws of an epoch of a balanced view: they are kept in memory, 8 bytes for each."""
Source = str | Path | Dataset | View
"""What one dataset is given as: its folder, itself, or a view of it."""
_MOST_VERSIONS = 1000


class Opened(NamedTuple):
    """What a loader reads from."""

    split: Split
    view: View
    max_pixels: int
    """Most pixels of a picture; larger ones are refused."""


class Given(NamedTuple):
    """What a loader was given to read."""

    source: Source | Sequence[Source]
    split: str | None = None
    view: str | None = None
    version: int | None = None
    weights: Sequence[float] | None = None
    classes: JoinClasses = "joined"
    seed: int = 0
    """Seed of the draws from datasets with weights."""

    def earlier(self) -> Iterator["Given"]:
        """Yield the same in each earlier version of its datasets, the newest first; none where a version was named.

        Raises `OptionError`, `ShardError`.
        """
        if self.version is not None:
            return
        several = _is_several(self.source)
        opened = [_opened(one) for one in cast("Sequence[Source]", self.source if several else [self.source])]
        numbers = [range(one.version, 0, -1) if isinstance(one, Dataset) else range(1) for one in opened]
        for chosen in islice(product(*numbers), 1, _MOST_VERSIONS):
            sources = [
                one.at(number) if isinstance(one, Dataset) else one for one, number in zip(opened, chosen, strict=True)
            ]
            yield self._replace(source=sources if several else sources[0])


def open_source(given: Given) -> Opened:
    """Return the split of a folder, dataset or view, and what a loader takes of it; of several as one.

    Raises `OptionError`, `ShardError`.
    """
    opened = _open_all(given)
    if opened.view.resampling is not None and len(opened.view) > MAX_DRAWN:
        raise OptionError(
            f"balance: length must be at most {MAX_DRAWN:,}, since the draws of an epoch are kept in memory, got "
            f"{len(opened.view):,}; make the view shorter"
        )
    return opened


def _open_all(given: Given) -> Opened:
    if not _is_several(given.source):
        if given.weights is not None or given.classes != "joined":
            raise OptionError("weights and classes are for several datasets; give their list as the source")
        return _open_one(cast("Source", given.source), given.split, given.view, given.version)
    sources = cast("Sequence[Source]", given.source)
    if not sources:
        raise OptionError("source must be a dataset, or a list with at least one, got an empty list")
    if given.version is not None:
        raise OptionError("version is of one dataset; of several give imgdata.open(path, version=...) in the list")
    opened = [_open_one(one, given.split, given.view, None) for one in sources]
    split = JoinedSplit([one.split for one in opened])
    views = [one.view for one in opened]
    view = joined_view(split, views, weights=given.weights, classes=given.classes, seed=given.seed)
    return Opened(split, view, min(one.max_pixels for one in opened))


def _is_several(source: object) -> bool:
    return isinstance(source, Sequence) and not isinstance(source, str | Dataset | View)


def _opened(source: Source) -> Dataset | View:
    return source if isinstance(source, Dataset | View) else open_dataset(source)


def _open_one(source: Source, split: str | None, view: str | None, version: int | None) -> Opened:
    if version is not None and isinstance(source, Dataset | View):
        raise OptionError(
            f"version must be left out when the source is open already, got {version!r}; imgdata.open takes it"
        )
    if isinstance(source, View):
        if view is not None or split not in (None, source.split):
            raise OptionError(
                f"split and view must be left out when the source is a View, got {split!r} and {view!r}; apply them "
                "with imgdata.open_view before"
            )
        dataset = reopen(source.folder)
        if source.split in dataset:
            dataset = _with_index(dataset, source.split, source.index.path)
        if source.split not in dataset or index_id(dataset[source.split].index) != index_id(source.index):
            raise OptionError(
                f"{source.index.path}: the dataset must be the one that the view was made of, got another since; "
                "make the view again"
            )
        return Opened(dataset[source.split], source, dataset.manifest.max_pixels)
    if not isinstance(source, str | Path | Dataset):
        raise OptionError(f"source must be a dataset's folder, a Dataset or a View, got {source!r}")
    dataset = source if isinstance(source, Dataset) else open_dataset(source, version=version)
    if split is None or split not in dataset:
        raise OptionError(f"split must be one of {', '.join(dataset)}, got {split!r}")
    return Opened(dataset[split], open_view(dataset, split, view or ""), dataset.manifest.max_pixels)


def _with_index(dataset: Dataset, split: str, path: Path) -> Dataset:
    """Return the newest version of the dataset whose index of `split` is the file `path`; itself where none is."""
    for number in range(dataset.version - 1, 0, -1):
        if dataset[split].index.path == path:
            break
        earlier = dataset.at(number)
        if split in earlier and earlier[split].index.path == path:
            return earlier
    return dataset
