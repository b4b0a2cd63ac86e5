"""The environment -> the folder in which is kept what can be made again; never anything else."""

import os
from pathlib import Path


class CacheWarning(UserWarning):
    """The cache can't be used: what was made is not kept, and the next run makes it again."""


def cache_folder() -> Path:
    """`$IMGDATA_CACHE`, else `$XDG_CACHE_HOME/imgdata`, else `~/.cache/imgdata`; it may not be there yet."""
    own, common = os.environ.get("IMGDATA_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return (Path(own) if own else Path(common or "~/.cache") / "imgdata").expanduser()
