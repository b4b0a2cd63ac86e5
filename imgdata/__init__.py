"""imgdata: image datasets into verified, indexed WebDataset shards."""

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
)
from imgdata.images import Encoding
from imgdata.sample import ClassName, Sample
from imgdata.shards.adopt import index
from imgdata.shards.export import export
from imgdata.shards.job import ShardSummary, Watcher, plan_shards, shard
from imgdata.shards.options import ShardOptions
from imgdata.shards.verify import Fault, verify
from imgdata.sources.options import SourceOptions
from imgdata.version import __version__

__all__ = [
    "ClassName",
    "Dataset",
    "Encoding",
    "Fault",
    "ImageError",
    "ImgdataError",
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
    "Watcher",
    "__version__",
    "export",
    "index",
    "inspect",
    "open",
    "plan_shards",
    "recipes",
    "shard",
    "verify",
]
