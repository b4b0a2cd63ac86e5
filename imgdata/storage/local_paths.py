"""What a user names -> a path on this machine, or a URL that is passed on like one; else an error."""

import os
import re
from pathlib import Path, PosixPath
from typing import Any

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
            f"{what + ': ' if what else ''}{UrlPath(path)} is a URL, where a path on this machine is needed: "
            f"mount or copy what is at {scheme}://, and give a local path"
        )
    return Path(path)


class UrlPath(PosixPath):
    """A URL where code passes paths on: its text is `s3://bucket/folder`, it has a name and parents, and no file."""

    def __str__(self) -> str:
        scheme, _, rest = super().__str__().partition(":/")
        slashes = "///" if scheme == "file" else "//"
        return f"{scheme}:{slashes}{rest.lstrip('/')}"

    def __fspath__(self) -> str:
        return str(self)

    def as_posix(self) -> str:
        """Return the URL."""
        return str(self)

    def absolute(self) -> "UrlPath":
        """Return the URL itself."""
        return self

    def resolve(self, strict: bool = False) -> "UrlPath":
        """Return the URL itself."""
        return self

    def exists(self, **options: Any) -> bool:
        """Return False: it is nowhere on this machine."""
        return False


def any_path(path: str | os.PathLike[str]) -> Path:
    """Return a path of this machine, or the `UrlPath` of a URL."""
    return Path(path) if url_scheme(path) is None else UrlPath(path)
