"""What DALI says of a run that failed -> whose fault it is: a picture's, that of missing memory, or the machine's."""

import re

from imgdata.devices import says_no_device_memory
from imgdata.errors import DeviceMemoryError

_NAMED = re.compile(r"Failed to decode sample #(\d+)")
_OF_A_PICTURE = ("Failed to decode sample", "nvImageCodec failure")
_OF_THE_MACHINE = ("cuda", "alloc", "nvml", "error in thread", "out of memory")
"""Words, in small letters, that are not said of a picture. A decoder's faults of this kind name the decoder as well."""
_MOST_CHARACTERS = 200


class DecodeError(RuntimeError):
    """A picture could not be decoded, as far as DALI's words show; the pipeline is of no use any more."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        named = _NAMED.search(message)
        self.row = int(named.group(1)) if named else None
        """Which one; one of them if there were several. None where DALI doesn't say."""


def names_a_picture(error: RuntimeError) -> bool:
    """Return whether DALI says that a picture can't be decoded, and names nothing that is the machine's."""
    said = _said(error)
    return any(sign in said for sign in _OF_A_PICTURE) and not any(sign in said.lower() for sign in _OF_THE_MACHINE)


def not_a_pictures(error: DecodeError, shown_by: str) -> RuntimeError:
    """Return the error to raise where `shown_by` shows that no picture is at fault, whatever DALI says."""
    return RuntimeError(
        f"NVIDIA DALI failed, and not because of a picture: {shown_by}; it says: {_line(error)}. Its memory may be "
        "used up, or the GPU, its driver and DALI don't fit together; see the GPU's state with `nvidia-smi`, and try a "
        "smaller batch_size, dali_options={'crop_decode': False}, or backend='cpu'"
    )


def with_advice(error: BaseException, *, device: str, batch_size: int, depth: int, threads: int) -> BaseException:
    """Return `error`, or a `DeviceMemoryError` that says what to do where memory was missing."""
    is_shortage = isinstance(error, RuntimeError | MemoryError) and not isinstance(error, DeviceMemoryError)
    if not is_shortage or not (isinstance(error, MemoryError) or says_no_device_memory(_said(error))):
        return error
    ways = [f"a batch_size below {batch_size:,}"] if batch_size > 1 else []
    ways += ["dali_options={'depth': 1}"] if depth > 1 else []
    ways += [f"fewer threads than {threads:,}, each of which decodes a picture"] if threads > 1 else []
    end = "end what else uses its memory" + ("" if device == "cpu" else ", which `nvidia-smi` shows")
    told = DeviceMemoryError(
        f"out of memory on {device} in NVIDIA DALI ({_line(error)}); "
        + (f"use {', '.join(ways)}, or {end}" if ways else end)
    )
    told.__cause__ = error
    return told


def _said(error: BaseException) -> str:
    """Return the words behind DALI's traceback of the pipeline's definition, which holds names of folders."""
    text = str(error)
    return text.partition("encountered:")[2] or text


def _line(error: BaseException) -> str:
    """Return the first line of `_said`, or the error's name."""
    lines = [line.strip() for line in _said(error).splitlines() if line.strip()]
    return lines[0][:_MOST_CHARACTERS] if lines else type(error).__name__
