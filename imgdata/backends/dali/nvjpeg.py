"""The DALI that is installed -> the version of nvJPEG that decodes for it on a GPU; read without a GPU."""

import ctypes
import os
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from imgdata.backends.dali.available import load

CROPS_SINCE = (13, 2)
"""First nvJPEG that decodes crops of JPEGs with subsampled chroma: nvImageCodec leaves those to the host below it."""
_MAJOR, _MINOR = 0, 1
"""nvJPEG's `libraryPropertyType`."""


@cache
def nvjpeg_version() -> tuple[int, int] | None:
    """Return nvJPEG's version (major, minor); None where the library isn't found."""
    name = f"libnvjpeg.so.{str(load().__cuda_version__)[:2]}"
    for library in _libraries(name):
        found = [ctypes.c_int(), ctypes.c_int()]
        if not any(library.nvjpegGetProperty(what, ctypes.byref(found[what])) for what in (_MAJOR, _MINOR)):
            return found[_MAJOR].value, found[_MINOR].value
    return None


def decodes_crops() -> bool:
    """Return whether nvJPEG decodes crops of all JPEGs, as far as its version says."""
    version = nvjpeg_version()
    return version is None or version >= CROPS_SINCE


def _libraries(name: str) -> Iterator[ctypes.CDLL]:
    """Yield the library as nvImageCodec finds it: loaded already, beside its own package, in the system."""
    spec = find_spec("nvidia")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [] if spec else [])]
    files = [str(file) for folder in folders for file in sorted(folder.glob(f"*/lib/{name}"))]
    for place, mode in [(name, os.RTLD_NOLOAD), *((file, 0) for file in files), (name, 0)]:
        try:
            yield ctypes.CDLL(place, mode=mode or ctypes.DEFAULT_MODE)
        except OSError:
            continue
