"""How long a training run waited for data, a few facts -> one line of advice."""

import math
from collections.abc import Mapping
from typing import Any

from imgdata import native
from imgdata.measure.machine.host import look_at_cpu

LEAST_WAIT = 0.05
"""Share of the time from which on advice is given."""
_LEAST_WAITED_S = 10.0
"""Seconds of waiting in the whole run that are worth changing anything for."""
_LARGE = 1.5
"""Pictures whose shorter side is so many times what the network gets cost time that a resize before would save."""
_FEW_CORES = 8
_FEW_HITS = 0.9
"""Share of images in the cache of shards below which it is worth more room."""


def advice_for_wait(
    data_wait: float,
    *,
    data: str,
    model: str,
    cores: float,
    threads: int,
    native_active: bool,
    picture_side: int,
    output_side: int,
    gpu: bool,
    cache_hits: float | None = None,
) -> str | None:
    """Return one line with the likeliest remedy and the command that measures it; None below `LEAST_WAIT`.

    Args:
        data_wait: Share of the time that the network waited, 0 to 1.
        data: The dataset's folder.
        model: The network's name.
        cores: Cores' worth of time that the process can have.
        threads: Of the loader.
        native_active: Whether the compiled extension decodes.
        picture_side: Shorter side of the pictures as stored, in pixels, the median.
        output_side: Of what the network gets, in pixels.
        gpu: Whether the network is on a GPU.
        cache_hits: Share of the images that the cache of shards had, 0 to 1; None where the dataset is on this machine.
    """
    if data_wait < LEAST_WAIT:
        return None
    resized = round(output_side * 8 / 7)
    if not native_active:
        remedy = "the compiled extension is not active, which decodes several times as fast"
    elif cache_hits is not None and cache_hits < _FEW_HITS:
        remedy = (
            f"{1 - cache_hits:.0%} of the images of the last epoch came from the object store; let the cache hold the "
            "whole split (--cache GIGABYTES, IMGDATA_CACHE), or copy the dataset to this machine"
        )
    elif threads < int(cores):
        remedy = f"only {threads} of {int(cores)} cores decode; leave out --threads"
    elif picture_side > _LARGE * output_side and picture_side > resized:
        remedy = (
            f"pictures of {picture_side:,} pixels become {output_side}: `imgdata shard SOURCE NEW --resize {resized}` "
            "makes decoding cheaper"
        )
    elif gpu and cores < _FEW_CORES:
        remedy = f"{cores:g} cores decode for a GPU; --backend dali lets the GPU decode"
    elif not gpu:
        remedy = "loader and network share the cores; decode less, or train on a GPU"
    else:
        remedy = "more cores, or smaller pictures in the shards"
    return (
        f"the network waited for data {data_wait:.0%} of the time: {remedy}; `imgdata doctor {data} --model {model}` "
        "measures what would help"
    )


def advice_for_run(
    config: Mapping[str, Any], data_wait: float, *, waited_s: float = math.inf, cache_hits: float | None = None
) -> str | None:
    """Return `advice_for_wait` with the facts of a run (`config.json`), of this machine and of the index.

    `waited_s` is how many seconds the network waited in all; below 10 there is no advice. `cache_hits` is the last
    epoch's share of images that the cache of shards had. Raises `ShardError` where the
    dataset is missing.
    """
    if data_wait < LEAST_WAIT or waited_s < _LEAST_WAITED_S:
        return None
    import numpy as np

    from imgdata.loose.asked import reading_as
    from imgdata.loose.opened import open as open_dataset

    options = config["options"]
    with reading_as(config["data"], config.get("read", {})):
        index = open_dataset(config["data"])[options["split"]].index
    index.load(("width", "height"))
    cores = look_at_cpu().usable
    return advice_for_wait(
        data_wait,
        data=config["data"],
        model=options["model"],
        cores=cores,
        threads=options["threads"] or int(cores) or 1,
        native_active=native.AVAILABLE,
        picture_side=int(np.median(np.minimum(index.width_N, index.height_N))),
        output_side=int(config["size"]),
        gpu=str(config.get("device", "cpu")).startswith("cuda"),
        cache_hits=cache_hits,
    )
