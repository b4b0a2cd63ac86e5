"""Dataset folder -> `Dataset` -> `Split` -> `Sample`; a finished folder, read by its index."""

from imgdata.dataset.dataset import Dataset, open
from imgdata.dataset.index import Index, IndexRow
from imgdata.dataset.split import Split
from imgdata.dataset.summary import Summary, inspect

__all__ = ["Dataset", "Index", "IndexRow", "Split", "Summary", "inspect", "open"]
