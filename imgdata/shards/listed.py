"""A path + options -> the listing of the samples that are asked for."""

import dataclasses
import os

from imgdata.shards.options import ShardOptions
from imgdata.shards.resized_fields import without_places
from imgdata.shards.select import exclude, select_classes, with_key_prefix
from imgdata.shards.split import apply_split
from imgdata.shards.store_source import mirrored
from imgdata.sources.detect import list_source
from imgdata.sources.listing import Listing
from imgdata.sources.options import SourceOptions
from imgdata.sources.synthetic import PREFIX as SYNTHETIC
from imgdata.storage.local_paths import UrlPath, local_path
from imgdata.storage.remote import is_url


def source_of(source: str | os.PathLike[str]) -> str:
    """Return the path, description or URL of the raw dataset."""
    return str(UrlPath(source)) if is_url(source) else local_source(source)


def local_source(source: str | os.PathLike[str]) -> str:
    """Return the path or description of the raw dataset. Raises `OptionError` for a URL."""
    text = os.fspath(source)
    return text if text.startswith(SYNTHETIC) else os.fspath(local_path(text, "SOURCE"))


def listed(path: str, read: SourceOptions | None, options: ShardOptions) -> Listing:
    """Return the part of the raw dataset at `path` that `options` ask for. Raises `SourceError` and `OptionError`."""
    read = dataclasses.replace(read or SourceOptions(), exclude=options.exclude)
    if is_url(path):
        with mirrored(path) as mirror:
            listing = mirror.in_store(_whole(os.fspath(mirror.source), read, options))
    else:
        listing = _whole(path, read, options)
    if options.views:
        # Imported here: a twentieth of the start, which few runs need.
        from imgdata.shards.select_views import select_views

        listing = select_views(listing, path, options.views)
    return selected(listing, options)


def _whole(path: str, read: SourceOptions, options: ShardOptions) -> Listing:
    listing = list_source(path, read)
    return listing if options.encoding.resize is None else without_places(listing, read)


def selected(listing: Listing, options: ShardOptions) -> Listing:
    """Return the part of `listing` that `options` ask for, cut into splits. Raises `OptionError`."""
    if options.classes:
        listing = select_classes(listing, options.classes)
    if options.exclude:
        listing = exclude(listing, options.exclude)
    if options.key_prefix:
        listing = with_key_prefix(listing, options.key_prefix)
    return apply_split(listing, options.split, options.seed) if options.split else listing
