"""A dataset's folder -> a plain DALI pipeline that reads its shards, for code that is written for DALI already.

No loader is behind it: DALI reads, shuffles and draws by itself, and a bad image ends it.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from imgdata.backends.dali.available import load, refusal
from imgdata.backends.dali.options import decoder_place
from imgdata.dataset.dataset import Dataset
from imgdata.dataset.dataset import open as open_dataset
from imgdata.dataset.remote_manifest import require_local
from imgdata.dataset.split import require_shards
from imgdata.errors import OptionError, ShardError

READER = "imgdata"
"""Name of the reader in the pipeline: `DALIGenericIterator(..., reader_name="imgdata")`."""
_PLACES = 19
"""Most digits of a class: an int64 has so many."""


def dali_pipeline(
    path: str | Path | Dataset,
    *,
    split: str,
    batch_size: int,
    transform: Callable[[Any], Any] | None = None,
    device_id: int | None = None,
    threads: int = 4,
    shuffle: bool = False,
    shard_id: int = 0,
    num_shards: int = 1,
    seed: int = 0,
    **options: Any,
) -> Any:
    """Return A built `nvidia.dali.Pipeline` over a split, by `fn.readers.webdataset` with our index files.

    Its outputs are what `transform` gives and, where labels are in members `cls`, these as int64 `(1,)`; a sample
    without one ends it. Raises `OptionError`, `ShardError`, `MissingExtraError`.

    Args:
        path: A dataset's folder, or a `Dataset`.
        split: Name of the split.
        batch_size: Samples of a batch.
        transform: Gets the encoded images, a `DataNode`, and returns the outputs: one node or a tuple. By
            default they are decoded in RGB, as stored, each in its own size.
        device_id: Number of the GPU; None for the processor. A `transform` says itself what runs where.
        threads: Threads of the pipeline.
        shuffle: Shuffle in a buffer of DALI's, as samples are read.
        shard_id: Part of the split that this process reads, from 0 to `num_shards` - 1.
        num_shards: See `shard_id`.
        seed: Seed of the shuffling.
        options: Further arguments of `fn.readers.webdataset`, such as `dont_use_mmap=True`.
    """
    load()
    reason = refusal("cpu" if device_id is None else f"cuda:{device_id}")
    if reason is not None:
        raise OptionError(reason)
    dataset = path if isinstance(path, Dataset) else open_dataset(path)
    require_shards(dataset.folder, "DALI's pipeline reads tars")
    require_local(dataset.folder, "DALI's pipeline reads files")
    if split not in dataset:
        raise OptionError(f"split must be one of {', '.join(dataset)}, got {split!r}")
    tars, manifest = dataset[split].shards, dataset.manifest
    indexes = [tar.with_suffix(".idx") for tar in tars]
    for index in indexes:
        if not index.is_file():
            raise ShardError(f"{index}: no such DALI index; make it with `imgdata index {dataset.path}`")
    return _build(
        tars,
        indexes,
        transform,
        ["cls"] if manifest.label_from == "cls" and (dataset[split].index.label_N >= 0).any() else [],
        {"batch_size": batch_size, "num_threads": threads, "device_id": device_id, "seed": seed},
        {
            "ext": manifest.image_extension,
            "missing_component_behavior": "error",
            "random_shuffle": shuffle,
            "shard_id": shard_id,
            "num_shards": num_shards,
            "seed": seed,
            **options,
        },
    )


def _build(
    tars: list[Path],
    indexes: list[Path],
    transform: Callable[[Any], Any] | None,
    label: list[str],
    of_pipeline: dict[str, Any],
    of_reader: dict[str, Any],
) -> Any:
    fn, types = import_module("nvidia.dali.fn"), import_module("nvidia.dali.types")
    pipeline = import_module("nvidia.dali.pipeline").Pipeline(**of_pipeline)

    def decoded(encoded: Any) -> Any:
        place = decoder_place(of_pipeline["device_id"])
        return fn.decoders.image(encoded, **place, output_type=types.RGB, adjust_orientation=False)

    with pipeline:
        members = fn.readers.webdataset(
            paths=list(map(str, tars)),
            index_paths=list(map(str, indexes)),
            name=READER,
            **{**of_reader, "ext": [of_reader["ext"], *label]},
        )
        encoded, *texts = members if label else (members,)
        images = (transform or decoded)(encoded)
        labels = (_number(text, fn, types) for text in texts)
        pipeline.set_outputs(*(images if isinstance(images, tuple) else (images,)), *labels)
    pipeline.build()
    return pipeline


def _number(text: Any, fn: Any, types: Any) -> Any:
    """Return int64 `(1,)` of ASCII, uint8 `(D,)`, of a whole number, maybe with a minus and white space around it.

    The sum of digits times their powers of ten, over that of the places behind the last one.
    """

    def constant(values: list[int]) -> Any:
        return types.Constant(values, dtype=types.INT64, device="cpu")

    def as_int(values: Any) -> Any:
        return fn.cast(values, dtype=types.INT64)

    digits = as_int(text) - ord("0")
    is_digit = as_int((digits >= 0) & (digits <= 9))
    count = as_int(text.shape()[0])
    powers = constant([10**power for power in reversed(range(_PLACES))])
    last = fn.reductions.max(constant(list(range(1, _PLACES + 1)))[:count] * is_digit)
    value = fn.reductions.sum(digits * is_digit * powers[_PLACES - count :]) // powers[_PLACES - 1 - (count - last)]
    minus = fn.reductions.max(as_int(text == ord("-")))
    return fn.reshape(value * (1 - 2 * minus), shape=[1])
