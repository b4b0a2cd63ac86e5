"""A path -> a `Dataset`: shards that `imgdata shard` wrote, or raw images where they lie, by an index in the cache."""

from pathlib import Path
from typing import TYPE_CHECKING

from imgdata.dataset.dataset import Dataset
from imgdata.dataset.dataset import open as open_shards
from imgdata.dataset.manifest import MANIFEST, dataset_folder, how_to_shard
from imgdata.dataset.summary import Summary, summarise
from imgdata.errors import OptionError, ShardError, SourceError
from imgdata.loose.asked import asked_for
from imgdata.storage.atomic import JOB_FOLDER
from imgdata.storage.local_paths import url_scheme

if TYPE_CHECKING:
    from imgdata.sources.options import SourceOptions


def open(path: str | Path, read: "SourceOptions | None" = None, *, version: int | None = None) -> Dataset:
    """Open the dataset at `path`: a folder that `imgdata shard` wrote, or its URL, or raw images where they lie.

    Raw images are all that `imgdata shard` takes, and `read` says what their layout leaves open, as for that. Their
    listing and headers are read once and kept in the cache folder; later calls look whether files have changed. Nothing
    is written beside the images. A file that is no image counts as a sample, with which a loader does what its `on_bad`
    says. `version` is an earlier version of shards to which images were appended since, such as 1.

    Raises `ShardError` for a damaged dataset and for a path that is neither, `SourceError` for raw images that can't be
    listed, `OptionError` for a version that there isn't, and says what to do.
    """
    if url_scheme(path) is not None:
        if read is not None or asked_for(path):
            raise OptionError(f"{path}: raw images are not read from a URL; `imgdata shard` them, or copy them first")
        return open_shards(path, version=version)
    folder = dataset_folder(path)
    asked = {} if read is not None else asked_for(folder)
    try:
        return open_shards(folder, version=version)
    except ShardError as error:
        # Not where shards are damaged, unfinished or missing.
        begun = (folder / MANIFEST).exists() or (folder / JOB_FOLDER).exists()
        if begun or not (folder.exists() or read is not None or asked):
            raise
        why = error
    # Sources take a while to import, and readers of shards don't need them.
    from imgdata.loose.raw import open_raw
    from imgdata.sources.options import SourceOptions

    try:
        opened = open_raw(folder, SourceOptions.from_dict(asked) if read is None else read)
        return opened.at(1 if version is None else version)
    except SourceError as error:
        if read is not None or asked:
            raise
        # Sharding it would fail for the same reason.
        reason = str(why).removesuffix(f"; {how_to_shard(folder)}")
        raise ShardError(f"{reason}. As raw images: {str(error).removeprefix(f'{folder}: ')}") from error


def inspect(path: str | Path | Dataset) -> Summary:
    """Return figures of the dataset at `path`; no image is decoded. Raises `ShardError`, `SourceError`."""
    return summarise(path if isinstance(path, Dataset) else open(path))
