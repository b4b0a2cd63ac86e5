"""A loader's `dali_options` -> checked settings of the pipeline."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from imgdata.checks import is_integer, is_number
from imgdata.errors import OptionError

_FEW_CORES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class DaliOptions:
    """What may be set for DALI beside the loader's own arguments. Raises `OptionError`."""

    hw_decoder_load: float | None = None
    """Share of the JPEGs that the GPU's decoder engine gets, 0 to 1. Of the others host threads decode the Huffman
    codes, so the default is 0.95 up to 8 threads, and DALI's own above."""
    depth: int = 2
    """Batches inside the pipeline at a time, at least 1: as many times its memory is needed."""
    crop_decode: bool | None = None
    """Whether a GPU decodes the crop alone; by default if a trial in another process went well, and was faster."""
    preallocate: bool = True
    """Let decoders take memory at once for the largest picture of the index, so that it doesn't grow later; but not for
    the largest thousandth, nor for more than 25 megapixels."""

    def __post_init__(self) -> None:
        load = self.hw_decoder_load
        if load is not None and not (is_number(load) and 0 <= load <= 1):
            raise OptionError(f"dali_options['hw_decoder_load'] must be a number from 0 to 1, got {load!r}")
        if not (is_integer(self.depth) and self.depth >= 1):
            raise OptionError(f"dali_options['depth'] must be a whole number of at least 1, got {self.depth!r}")
        if self.crop_decode not in (None, True, False) or not isinstance(self.preallocate, bool):
            raise OptionError("dali_options['crop_decode'] and ['preallocate'] must be True or False")

    def decoder_load(self, threads: int) -> float | None:
        """Return `hw_decoder_load`, or what suits so many threads; None for DALI's own value."""
        if self.hw_decoder_load is None and threads <= _FEW_CORES:
            return 0.95
        return self.hw_decoder_load


def decoder_place(device_id: int | None) -> dict[str, Any]:
    """Return the arguments of DALI's decoders for a GPU, or for the processor if None.

    By default each decoder thread asks NVML for its place on a GPU. Virtual machines and containers refuse that, which
    ends the pipeline, and it undoes the user's own choice of cores.
    """
    return {"device": "cpu"} if device_id is None else {"device": "mixed", "affine": False}


def dali_options(options: Mapping[str, object]) -> DaliOptions:
    """Return the settings. Raises `OptionError` for those that don't exist or have no meaning."""
    names = [field.name for field in fields(DaliOptions)]
    unknown = sorted(set(options) - set(names))
    if unknown:
        raise OptionError(f"dali_options must be some of {', '.join(names)}, got {unknown[0]!r}")
    return DaliOptions(**options)  # type: ignore[arg-type]
