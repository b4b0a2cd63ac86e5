"""Any file name -> a key that every reader of WebDataset tars takes."""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

MAX_KEY_CHARS = 88
"""A USTAR name field holds 100 bytes: the key, a dot and an extension of up to 11 characters."""

_CLEAN = re.compile(r"[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*")
_FORBIDDEN = re.compile(r"[^A-Za-z0-9_/-]+")
_SLASHES = re.compile(r"/{2,}")
_RESERVED = re.compile(r"__[^/]*__")
"""webdataset skips members with such names: `__key__` and the like are its own."""


def is_clean_key(key: str) -> bool:
    """Return whether `key` is safe for every reader as it stands."""
    return (
        len(key) <= MAX_KEY_CHARS
        and _CLEAN.fullmatch(key) is not None
        and not ("__" in key and _RESERVED.fullmatch(key.rsplit("/", 1)[-1]))
    )


def clean_key(raw: str) -> str:
    """Return `raw` (a path without extension) as `[A-Za-z0-9_/-]+` of at most `MAX_KEY_CHARS` characters.

    Letters lose their accents, anything else becomes `_`. What is cut for length is replaced by a
    hash of the whole name, so that two long names that start alike stay apart.
    """
    if is_clean_key(raw):
        return raw
    ascii_only = unicodedata.normalize("NFKD", raw).encode("ascii", "ignore").decode()
    # A name in a script without ASCII forms would shrink to nothing: keep it apart by its hash.
    lost = len(ascii_only) < len(raw)
    key = _SLASHES.sub("/", _FORBIDDEN.sub("_", ascii_only)).strip("/")
    folder, _, base = key.rpartition("/")
    if _RESERVED.fullmatch(base):
        key = f"{folder}/{base.strip('_') or 'x'}" if folder else base.strip("_") or "x"
    if lost or not key or len(key) > MAX_KEY_CHARS:
        digest = xxhash.xxh64_hexdigest(raw.encode("utf-8", "surrogatepass"))[:10]
        key = f"{key[: MAX_KEY_CHARS - 11].rstrip('/')}-{digest}".lstrip("-")
    return key


def duplicate_positions(keys: Sequence[str]) -> list[int]:
    """Return the positions of keys that came before in `keys`, in order; takes 8 bytes of memory a key."""
    return equal_before(key_hashes(keys))


def key_hashes(keys: Sequence[str]) -> NDArray[np.uint64]:
    """Return a hash of each key, uint64 `(N,)`."""
    return np.fromiter((xxhash.xxh3_64_intdigest(key.encode()) for key in keys), np.uint64, len(keys))


def equal_before(hash_N: NDArray[np.uint64]) -> list[int]:
    """Return the positions of hashes that came before, in order."""
    sorted_N = np.sort(hash_N)
    if not (sorted_N[1:] == sorted_N[:-1]).any():
        return []
    order_N = np.argsort(hash_N, kind="stable")
    repeated = hash_N[order_N[1:]] == hash_N[order_N[:-1]]
    return sorted(order_N[1:][repeated].tolist())


def numbered_key(key: str, number: int) -> str:
    """Return `key` with `-number` behind it, cut so that it stays short enough."""
    suffix = f"-{number}"
    return key[: MAX_KEY_CHARS - len(suffix)] + suffix
