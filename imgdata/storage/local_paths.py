"""A path from the user -> a path on this machine; URLs are refused before the first byte."""

import os
import re
from pathlib import Path

from imgdata.errors import OptionError

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):/")
"""`s3://bucket/key`, and the `s3:/bucket/key` that `pathlib` makes of it."""


def url_scheme(text: str | os.PathLike[str]) -> str | None:
    """Return the scheme, such as `s3`, when `text` looks like a URL; None for a path."""
    found = _URL.match(os.fspath(text)) if isinstance(text, str | os.PathLike) else None
    return found["scheme"] if found else None


def local_path(path: str | os.PathLike[str], what: str = "") -> Path:
    """Return `path` as a path of this machine. Raises `OptionError` for a URL, named as `what`."""
    scheme = url_scheme(path)
    if scheme is not None:
        raise OptionError(
            f"{what + ': ' if what else ''}{os.fspath(path)} is a URL, and imgdata reads and writes local files only: "
            f"mount or copy what is at {scheme}://, and give a local path"
        )
    return Path(path)
