"""The listing of a dataset's shards, views of its splits -> the samples of the views, under their labels."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imgdata.dataset.dataset import Dataset
from imgdata.dataset.dataset import open as open_dataset
from imgdata.dataset.manifest import MANIFEST
from imgdata.errors import OptionError
from imgdata.shards.select import select_rows
from imgdata.shards.store_readers import StoreRanges
from imgdata.sources.listing import Listing
from imgdata.sources.readers import RangeReader
from imgdata.storage.remote import is_url
from imgdata.views.by_split import views_by_split
from imgdata.views.view import View


def select_views(listing: Listing, source: str, texts: Sequence[str]) -> Listing:
    """Return the samples of the views alone, with the views' labels and classes; other splits stay whole.

    Raises `OptionError` for a source that is no dataset of imgdata, a view that draws samples several times, and views
    of different classes.
    """
    is_dataset = is_url(source) or Path(source).is_dir() or Path(source).name == MANIFEST
    if not is_dataset or not isinstance(listing.reader, RangeReader | StoreRanges):
        raise OptionError(f"view: {source} must be a dataset of imgdata, whose views are taken")
    dataset = open_dataset(source)
    views = views_by_split(dataset, texts)
    for split, view in views.items():
        if view.resampling is not None:
            raise OptionError(f"view of {split}: balance draws samples several times, which shards can't; leave it out")
        if view.classes != views[next(iter(views))].classes:
            raise OptionError(f"views must have the same classes, got others in {next(iter(views))} and {split}")
    kept_N = np.zeros(len(listing), bool)
    label_N = np.full(len(listing), -1, np.int32)
    for view in views.values():
        row_K = _rows_of(view, dataset, listing)
        kept_N[row_K] = True
        label_N[row_K] = view.label_N
    classes = views[next(iter(views))].classes
    return select_rows(dataclasses.replace(listing, label_N=label_N, classes=classes), kept_N, "left out by views")


def _rows_of(view: View, dataset: Dataset, listing: Listing) -> NDArray[np.int64]:
    """Return the row of the listing of each sample of the view: both know the tar and the byte."""
    assert isinstance(listing.reader, RangeReader | StoreRanges)
    containers = {path.absolute(): number for number, path in enumerate(listing.reader.containers)}
    paths = [dataset.folder.place(name).absolute() for name in view.index.words("shard")]
    container_S = np.array([containers[path] for path in paths], np.int64)
    wanted_K = _place(container_S[view.index.shard_N[view.position_N]], view.index.offset_N[view.position_N])
    place_N = _place(listing.container_N.astype(np.int64), listing.offset_N)
    order_N = np.argsort(place_N, kind="stable")
    found_K = order_N[np.minimum(np.searchsorted(place_N, wanted_K, sorter=order_N), len(order_N) - 1)]
    if not np.array_equal(place_N[found_K], wanted_K):
        raise OptionError(f"view of {view.split}: the tars hold other samples than the index; run `imgdata verify`")
    return found_K


def _place(container_N: NDArray[np.int64], offset_N: NDArray[np.int64]) -> NDArray[np.int64]:
    # Tars are smaller than 2^44 bytes, datasets have fewer than 2^19 of them.
    return (container_N << 44) | offset_N
