r"""The name of a file, in any bytes <-> text that every format takes: bytes that are not UTF-8 become `\udcXX`."""

import re


def escape_name(name: str) -> str:
    r"""Return `name` with bytes that are not UTF-8 written as `\udcXX`, which `unescape_name` reverses."""
    # Backslashes before such a byte, or before text that looks like one, are doubled: an odd number marks an escape.
    doubled = re.sub(r"(\\+)(?=udc[0-9a-f]{2}|[\udc80-\udcff])", r"\1\1", name)
    return doubled.encode("utf-8", "backslashreplace").decode()


def unescape_name(name: str) -> str:
    """Return the file name that `escape_name` was given."""
    if "\\udc" not in name:
        return name
    return re.sub(r"(\\+)udc([0-9a-f]{2})", _unescape, name)


def _unescape(found: re.Match[str]) -> str:
    slashes = "\\" * (len(found[1]) // 2)
    return slashes + (chr(0xDC00 + int(found[2], 16)) if len(found[1]) % 2 else "udc" + found[2])
