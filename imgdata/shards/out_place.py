"""A source, OUT -> nothing, or the error that says why the dataset can't be written to OUT."""

import os
from pathlib import Path

from imgdata.errors import OptionError, OutputError
from imgdata.sources.listing import Listing
from imgdata.sources.readers import RangeReader
from imgdata.storage.atomic import output_error
from imgdata.storage.local_paths import UrlPath
from imgdata.storage.remote import is_url


def refuse_output_in_the_way(source: str, out: Path) -> None:
    """Raise `OutputError` when OUT is a file, the source, or inside the source, or can't be looked at."""
    try:
        _compare_places(source, out)
    except OSError as error:
        raise output_error(error, out) from error


def refuse_url_in_the_way(source: str, out: str | os.PathLike[str]) -> None:
    """Raise `OutputError` when the URL OUT is the source, or inside it."""
    if f"{UrlPath(out)}/".startswith(f"{source}/"):
        raise OutputError(f"{UrlPath(out)}: is the source, or inside it; choose a place beside {source}")


def check_work(out: str | os.PathLike[str], work: object) -> None:
    """Raise `OptionError` for a work folder where OUT is a folder, in which all is made."""
    if work is not None and not is_url(out):
        raise OptionError("work is for an OUT in an object store; leave it out")


def _compare_places(source: str, out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file; give a folder to write the dataset to")
    place, target = Path(source).resolve(), out.resolve()
    if place == target:
        raise OutputError(f"{out}: is the source itself; write the shards to another folder")
    if place in target.parents:
        raise OutputError(
            f"{out}: is inside the source, whose next listing would find the shards; choose a folder beside {source}"
        )


def refuse_to_replace_the_source(listing: Listing, out: Path) -> None:
    """Raise `OutputError` when OUT holds a file that is read."""
    if isinstance(listing.reader, RangeReader):
        for container in listing.reader.containers:
            if out.resolve() in container.resolve().parents:
                raise OutputError(f"{out}: holds {container.name}, which is read; write the shards to another folder")
