"""A source, OUT -> nothing, or the error that says why the dataset can't be written to OUT."""

from pathlib import Path

from imgdata.errors import OutputError
from imgdata.sources.listing import Listing
from imgdata.sources.readers import RangeReader
from imgdata.storage.atomic import output_error


def refuse_output_in_the_way(source: str, out: Path) -> None:
    """Raise `OutputError` when OUT is a file, the source, or inside the source, or can't be looked at."""
    try:
        _compare_places(source, out)
    except OSError as error:
        raise output_error(error, out) from error


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
