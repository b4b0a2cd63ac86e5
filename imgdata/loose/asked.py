"""How raw images are to be read, said once -> every opening of them by their path, such as those of one command."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

_ASKED: ContextVar[Mapping[str, Mapping[str, Any]] | None] = ContextVar("asked", default=None)


@contextmanager
def reading_as(path: str | Path, read: Mapping[str, Any]) -> Iterator[None]:
    """Open raw images at `path` as `read` says, which is `SourceOptions.to_dict`, in this context."""
    before = _ASKED.get() or {}
    token = _ASKED.set({**before, os.path.realpath(path): read} if read else before)
    try:
        yield
    finally:
        _ASKED.reset(token)


def asked_for(path: str | Path) -> Mapping[str, Any]:
    """Return how raw images at `path` are to be read; empty where nothing was said."""
    return (_ASKED.get() or {}).get(os.path.realpath(path), {})
