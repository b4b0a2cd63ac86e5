"""A folder, dataset or view -> the split that a loader reads, the view of it and the limit of pixels."""

from pathlib import Path
from typing import NamedTuple

from imgdata.dataset.dataset import Dataset, Split, reopen
from imgdata.dataset.index import index_id
from imgdata.errors import OptionError
from imgdata.loose.opened import open as open_dataset
from imgdata.views.saved import open_view
from imgdata.views.view import View

MAX_DRAWN = 2**32
"""Draws of an epoch of a balanced view: they are kept in memory, 8 bytes for each."""


class Opened(NamedTuple):
    """What a loader reads from."""

    split: Split
    view: View
    max_pixels: int
    """Most pixels of a picture; larger ones are refused."""


def open_source(source: str | Path | Dataset | View, split: str | None, view: str | None) -> Opened:
    """Return the split of a folder, dataset or view, and what a loader takes of it.

    Raises `OptionError`, `ShardError`.
    """
    opened = _opened(source, split, view)
    if opened.view.resampling is not None and len(opened.view) > MAX_DRAWN:
        raise OptionError(
            f"balance: length must be at most {MAX_DRAWN:,}, since the draws of an epoch are kept in memory, got "
            f"{len(opened.view):,}; make the view shorter"
        )
    return opened


def _opened(source: str | Path | Dataset | View, split: str | None, view: str | None) -> Opened:
    if isinstance(source, View):
        if view is not None or split not in (None, source.split):
            raise OptionError(
                f"split and view must be left out when the source is a View, got {split!r} and {view!r}; apply them "
                "with imgdata.open_view before"
            )
        dataset = reopen(source.folder)
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
