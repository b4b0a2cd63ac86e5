"""`with imgdata.Writer(out) as writer: writer.write(image, label)` -> a dataset folder, as `imgdata shard` makes it."""

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Unpack

from imgdata.errors import OptionError
from imgdata.shards.job import write_listing
from imgdata.shards.job_folder import JobFolder, own
from imgdata.shards.keywords import WriterKeywords, with_keywords
from imgdata.shards.listed import selected
from imgdata.shards.object_spool import ObjectSpool
from imgdata.shards.options import ShardOptions
from imgdata.shards.parallel import check_workers
from imgdata.shards.summary import ShardSummary, Watcher
from imgdata.storage.local_paths import local_path


class Writer:
    """Takes samples one by one; the dataset is written when the `with` block ends without an error.

    Nothing is there before, and nothing is left of a block that ended with an error. `classes` are the names of the
    classes, or pairs of id and name; without them they follow from the labels.
    """

    def __init__(
        self,
        out: str | Path,
        options: ShardOptions | None = None,
        *,
        classes: Sequence[Any] | None = None,
        workers: int | None = None,
        overwrite: bool = False,
        watch: Watcher | None = None,
        **keywords: Unpack[WriterKeywords],
    ) -> None:
        """Take the options of `shard`, as an object or as keywords. Raises `OptionError`."""
        self._out = local_path(out, "OUT")
        self._options, _ = with_keywords(options, None, keywords)
        self._classes = classes
        self._workers = check_workers(workers)
        self._overwrite = overwrite
        self._watch = watch or Watcher()
        self._stack = contextlib.ExitStack()
        self._started = 0.0
        self._job: JobFolder | None = None
        self._spool: ObjectSpool | None = None
        self.summary: ShardSummary | None = None
        """What was written, once the block has ended."""

    def __enter__(self) -> "Writer":
        self._started = time.perf_counter()
        self._job = self._stack.enter_context(own(self._out))
        try:
            self._spool = ObjectSpool(self._job.objects, self._classes)
        except BaseException as error:
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def write(
        self,
        image: Any,
        label: int | str | None = None,
        *,
        split: str = "train",
        key: str | None = None,
        json: Mapping[str, Any] | None = None,
        mask: Any = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a sample: encoded bytes, a PIL image, or a uint8 array `(H, W)` or `(H, W, C)`, with its label.

        `label` is a class index or a name; `key` must differ over all splits and is a number by default; `json` are
        further columns. `mask` is an array of whole numbers `(H, W)`, a PIL image or an encoded one; `members` are
        further images by name, such as `depth`. Raises `SourceError` for values of other types and for a key that was
        given before.
        """
        if self._spool is None:
            raise OptionError("write inside the block: `with imgdata.Writer(out) as writer: writer.write(...)`")
        members = {**({} if mask is None else {"mask": mask}), **(members or {})}
        self._spool.add(image, label, split=split, key=key, fields=json, members=members)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        spool, self._spool = self._spool, None
        assert spool is not None
        if error is not None:
            spool.close()
            return self._stack.__exit__(kind, error, trace)
        with self._stack:
            assert self._job is not None
            self.summary = write_listing(
                self._job,
                selected(spool.listing(self._options.name or self._out.resolve().name), self._options),
                self._options,
                workers=self._workers,
                overwrite=self._overwrite,
                watch=self._watch,
                started=self._started,
            )
        return None
