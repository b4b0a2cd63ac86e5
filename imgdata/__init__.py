"""imgdata: image datasets into verified, indexed WebDataset shards."""

from typing import TYPE_CHECKING, Any

from imgdata import recipes
from imgdata.dataset.dataset import Dataset, Split, open
from imgdata.dataset.summary import inspect
from imgdata.errors import (
    ImageError,
    ImgdataError,
    MissingExtraError,
    OptionError,
    OutputError,
    ShardError,
    SourceError,
    TrainingError,
)
from imgdata.images.encode import Encoding
from imgdata.sample import Batch, ClassName, Sample
from imgdata.shards.export import export
from imgdata.shards.index_tars import index
from imgdata.shards.job import ShardSummary, Watcher, plan_shards, shard
from imgdata.shards.options import ShardOptions
from imgdata.shards.verify import Fault, verify
from imgdata.sources.options import SourceOptions
from imgdata.version import __version__

if TYPE_CHECKING:
    from imgdata.loader.bad_images import BadImage, BadImageWarning
    from imgdata.loader.loader import Loader

__all__ = [
    "BadImage",
    "BadImageWarning",
    "Batch",
    "ClassName",
    "Dataset",
    "Encoding",
    "Fault",
    "ImageError",
    "ImgdataError",
    "Loader",
    "MissingExtraError",
    "OptionError",
    "OutputError",
    "Sample",
    "ShardError",
    "ShardOptions",
    "ShardSummary",
    "SourceError",
    "SourceOptions",
    "Split",
    "TrainingError",
    "Watcher",
    "__version__",
    "dali_pipeline",
    "export",
    "index",
    "inspect",
    "open",
    "plan_shards",
    "recipes",
    "shard",
    "verify",
]


def __getattr__(name: str) -> Any:
    """The loader and DALI, imported when they are first asked for: who only shards has no use for them."""
    if name == "Loader":
        from imgdata.loader import loader

        return loader.Loader
    if name in ("BadImage", "BadImageWarning"):
        from imgdata.loader import bad_images

        return getattr(bad_images, name)
    if name == "dali_pipeline":
        from imgdata.backends.dali import webdataset_pipeline

        return webdataset_pipeline.dali_pipeline
    raise AttributeError(f"module 'imgdata' has no attribute {name!r}")
