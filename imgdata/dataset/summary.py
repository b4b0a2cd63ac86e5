"""Dataset folder -> `Summary`: what is in it, from the index alone; and what commands and `print` show of that."""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imgdata.dataset.dataset import Dataset, open
from imgdata.dataset.index import Index
from imgdata.dataset.lazy_array import every_position
from imgdata.dataset.split import Split
from imgdata.dataset.targets import Targets
from imgdata.tables import as_html, as_text, counted, new_table

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

SIDE_EDGES = (0, 32, 64, 128, 256, 384, 512, 768, 1024, 2048, 4096)
"""Lower ends in pixels of the histogram's bins of the shorter side; the last bin is open."""
_FEW = 5
"""Largest and smallest classes shown when there are many."""
_SLICE = 1 << 18
"""Rows of an index that are counted at a time."""
_BAR = 30
_EIGHTHS = " ▏▎▍▌▋▊▉█"


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """The spread of samples over the classes."""

    largest: int
    smallest: int
    """Samples of the largest and of the smallest class; classes without samples count."""
    ratio: float | None
    """Largest over smallest; None when a class is empty."""
    empty_classes: int
    effective_classes: float
    """exp(H), H the Shannon entropy of the class shares: Hill's number of order 1 (Ecology 54(2), 1973).

    As many equally large classes would be as diverse.
    """
    evenness: float
    """H / ln(number of classes), 0 to 1: Pielou's index (J. Theor. Biol. 13, 1966); 1 for one class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Smallest, middle and largest value."""

    min: int
    median: float
    max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSummary:
    """One split."""

    samples: int
    shards: int
    bytes: int
    """Size of the tars."""
    image_bytes: int
    mean_image_bytes: float
    unlabelled: int
    class_counts: tuple[int, ...]
    """Samples of each class, by class index."""
    formats: dict[str, int]
    modes: dict[str, int]
    width: Spread | None
    """Spread of the widths in pixels; None when the split is empty."""
    height: Spread | None
    shorter_side: dict[str, int]
    """Pixels of the shorter side, as `from-to` -> samples; empty bins at both ends are left out."""
    rotated: int
    """Samples whose EXIF orientation isn't upright."""
    crop_ready: dict[int, int]
    """Restart interval in MCUs -> samples, of crop-ready images; empty where there are none."""
    balance: Balance | None
    """Imbalance of the classes; None when nothing is labelled."""
    columns: dict[str, str] = field(default_factory=dict)
    """Type of each further column, such as `number` or `text`; empty for datasets without a file of columns."""
    members: dict[str, dict[str, int]] = field(default_factory=dict)
    """Samples that have each further image, such as `mask`, by the format of its bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A dataset in figures."""

    name: str
    path: str
    samples: int
    bytes: int
    rejected: int
    classes: tuple[tuple[str, str], ...]
    """`(id, name)` by class index."""
    splits: dict[str, SplitSummary]
    source: dict[str, Any]
    target: str = "class"
    """What a network has to say of a sample: `class`, `multi-label`, `soft`, `regression` or `none`."""
    target_columns: tuple[str, ...] = ()
    """Columns that hold it; none for one class."""
    members: dict[str, str] = field(default_factory=dict)
    """Further images of the samples, such as `mask`, with their kind: `mask` or `image`."""
    versions: tuple[int, ...] = ()
    """Samples of each version of a dataset that has grown, this one last; none where nothing was appended."""

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as values that `json.dumps` takes; `members` and `versions` only where there are any."""
        values = asdict(self)
        if not self.versions:
            del values["versions"]
        if not self.members:
            for part in (values, *values["splits"].values()):
                del part["members"]
        return values

    def __str__(self) -> str:
        return as_text(summary_parts(self), width=80)

    def _repr_html_(self) -> str:
        return as_html(summary_parts(self), width=80)


def inspect(path: str | Path) -> Summary:
    """Return figures of the dataset in the folder `path`; no shard is opened. Raises `ShardError`."""
    return summarise(open(path))


def summarise(dataset: Dataset) -> Summary:
    """Return figures of a dataset; no image is read. Raises `ShardError`."""
    entries = {entry.name: entry for entry in dataset.manifest.splits}
    return Summary(
        name=dataset.name,
        path=str(dataset.path),
        samples=dataset.manifest.samples,
        bytes=sum(entry.bytes for entry in entries.values()),
        rejected=dataset.manifest.rejected,
        classes=tuple((name.id, name.name) for name in dataset.classes),
        splits={
            name: summarise_split(split, entries[name].bytes, len(dataset.classes), dataset.targets(name))
            for name, split in dataset.items()
        },
        source=dict(dataset.manifest.source),
        target=dataset.target.kind,
        target_columns=dataset.target.columns,
        members={member.name: member.kind for member in dataset.members},
        versions=tuple(
            sum(split.samples for split in version.splits.values()) for version in dataset.manifest.versions
        ),
    )


def summarise_split(split: Split, num_bytes: int, num_classes: int, targets: Targets | None = None) -> SplitSummary:
    """Return figures of one split; with `targets` a sample counts for each of its classes, and by its shares."""
    index = split.index
    index.load(("label", "size", "width", "height", "format", "mode", "orientation"))
    words = ["format", "mode", *(f"{name}_format" for name in index.members)]
    found = _Tally(num_classes, {name: len(index.words(name)) for name in words})
    for start in range(0, len(index), _SLICE):
        found.add(index, slice(start, min(start + _SLICE, len(index))))
    counts_C, unlabelled = found.label_C[1:], int(found.label_C[0])
    if targets is not None:
        position_N = every_position(len(split))
        unlabelled = targets.missing(position_N)
        if targets.of_classes:
            counts_C = np.rint(targets.counts(position_N)).astype(np.int64)
    of_words = {name: _word_counts(index.words(name), count_W) for name, count_W in found.word_counts.items()}
    return SplitSummary(
        samples=len(split),
        shards=len(split.shards),
        bytes=num_bytes,
        image_bytes=found.image_bytes,
        mean_image_bytes=found.image_bytes / len(split) if len(split) else 0.0,
        unlabelled=unlabelled,
        class_counts=tuple(counts_C.tolist()),
        formats=of_words["format"],
        modes=of_words["mode"],
        width=_spread(found.widths),
        height=_spread(found.heights),
        shorter_side=_side_histogram(found.shorter_E),
        rotated=found.rotated,
        crop_ready={interval: count for interval, count in sorted(found.intervals.items()) if interval},
        balance=balance(counts_C.tolist()),
        columns=split.columns.types if split.columns.are_stored else {},
        members={
            name: {kind: count for kind, count in of_words[f"{name}_format"].items() if kind} for name in index.members
        },
    )


class _Tally:
    """What is counted of a split, some rows at a time: whatever its size, memory is for these rows."""

    def __init__(self, num_classes: int, num_words: Mapping[str, int]) -> None:
        self.label_C = np.zeros(num_classes + 1, np.int64)
        """Samples of each class, those without a label first."""
        self.word_counts = {name: np.zeros(count, np.int64) for name, count in num_words.items()}
        self.image_bytes = self.rotated = 0
        self.widths: Counter[int] = Counter()
        self.heights: Counter[int] = Counter()
        self.intervals: Counter[int] = Counter()
        """Restart intervals; 0 for images that are not crop-ready."""
        self.shorter_E = np.zeros(len(SIDE_EDGES), np.int64)

    def add(self, index: Index, rows: slice) -> None:
        """Count the samples of `rows`."""
        width_N, height_N = index.width_N[rows], index.height_N[rows]
        self.label_C += np.bincount(index.label_N[rows] + 1, minlength=len(self.label_C))
        for name, count_W in self.word_counts.items():
            count_W += np.bincount(index.array(name)[rows], minlength=len(count_W))
        self.image_bytes += int(index.size_N[rows].sum(dtype=np.int64))
        _count(self.widths, width_N)
        _count(self.heights, height_N)
        side_N = np.searchsorted(SIDE_EDGES, np.minimum(width_N, height_N), side="right") - 1
        self.shorter_E += np.bincount(side_N, minlength=len(SIDE_EDGES))
        self.rotated += int((index.orientation_N[rows] > 1).sum())
        if index.has_crop_ready:
            _count(self.intervals, index.array("restart_interval")[rows])


def _count(counts: "Counter[int]", value_N: NDArray[Any]) -> None:
    value_U, count_U = np.unique(value_N, return_counts=True)
    counts.update(dict(zip(value_U.tolist(), count_U.tolist(), strict=True)))


def balance(counts: Sequence[int]) -> Balance | None:
    """Return the imbalance of classes with so many samples each; None when there are no samples."""
    counts_C = np.asarray(counts, np.float64)
    if not counts_C.sum():
        return None
    share_C = counts_C[counts_C > 0] / counts_C.sum()
    entropy = float(-(share_C * np.log(share_C)).sum())
    smallest, largest = int(counts_C.min()), int(counts_C.max())
    return Balance(
        largest=largest,
        smallest=smallest,
        ratio=largest / smallest if smallest else None,
        empty_classes=int((counts_C == 0).sum()),
        effective_classes=math.exp(entropy),
        evenness=entropy / math.log(len(counts_C)) if len(counts_C) > 1 else 1.0,
    )


def _word_counts(words: Sequence[str], count_W: NDArray[np.int64]) -> dict[str, int]:
    return dict(sorted(zip(words, count_W.tolist(), strict=True), key=lambda item: (-item[1], item[0])))


def _spread(counts: Mapping[int, int]) -> Spread | None:
    if not counts:
        return None
    value_U = np.array(sorted(counts))
    upto_U = np.cumsum([counts[value] for value in value_U.tolist()])
    # The middle value, or the mean of both.
    middle_2 = value_U[np.searchsorted(upto_U, [(upto_U[-1] - 1) // 2, upto_U[-1] // 2], side="right")]
    return Spread(min=int(value_U[0]), median=float(middle_2.mean()), max=int(value_U[-1]))


def _side_histogram(count_E: NDArray[np.int64]) -> dict[str, int]:
    used = np.flatnonzero(count_E)
    if not len(used):
        return {}
    ends = [*(f"{low}-{high - 1}" for low, high in itertools.pairwise(SIDE_EDGES)), f"{SIDE_EDGES[-1]}-"]
    return {ends[i]: int(count_E[i]) for i in range(used[0], used[-1] + 1)}


def summary_parts(summary: Summary, *, all_classes: bool = False) -> "Iterator[RenderableType]":
    """Yield what is shown of a dataset, from the top; of many classes the largest and the smallest."""
    from rich.filesize import decimal
    from rich.text import Text

    source = f"  from {summary.source['kind']}" if "kind" in summary.source else ""
    rejected = f", {summary.rejected:,} rejected" if summary.rejected else ""
    yield Text.assemble((summary.name, "bold"), source)
    contents = f"{counted(summary.samples, 'sample')}, {counted(len(summary.classes), 'class')}"
    yield f"{contents}, {decimal(summary.bytes)}{rejected}\n"
    if summary.versions:
        earlier = ", ".join(f"{number}: {count:,}" for number, count in enumerate(summary.versions[:-1], 1))
        yield f"version {len(summary.versions)}; samples of earlier versions: {earlier}\n"
    if summary.target_columns:
        yield f"target: {summary.target}, {', '.join(summary.target_columns)}\n"
    if summary.members:
        kinds = (name if name == kind else f"{name} ({kind})" for name, kind in summary.members.items())
        yield f"further images: {', '.join(kinds)}\n"
    yield _split_table(summary)
    for name, split in summary.splits.items():
        yield Text(f"\n{name}", style="bold")
        yield from _split_lines(split)
        if split.shorter_side:
            yield "  shorter side in pixels"
            yield from _bars(split.shorter_side)
    if summary.classes:
        yield ""
        yield _class_table(summary, all_classes)


def _split_table(summary: Summary) -> "Table":
    from rich.filesize import decimal

    table = new_table()
    table.add_column("split")
    # Raw images have none.
    shards = ["shards"] if any(split.shards for split in summary.splits.values()) else []
    for column in ("samples", *shards, "size", "mean image"):
        table.add_column(column, justify="right")
    for name, split in summary.splits.items():
        mean = decimal(round(split.mean_image_bytes))
        table.add_row(name, f"{split.samples:,}", *(f"{split.shards:,}" for _ in shards), decimal(split.bytes), mean)
    return table


def _split_lines(split: SplitSummary) -> Iterator[str]:
    yield f"  formats  {_counts(split.formats)}"
    yield f"  modes    {_counts(split.modes)}"
    if split.width and split.height:
        yield (
            f"  width    {split.width.min:,} to {split.width.max:,}, median {split.width.median:,.0f}; "
            f"height {split.height.min:,} to {split.height.max:,}, median {split.height.median:,.0f}"
        )
    if split.rotated:
        yield f"  rotated by EXIF  {split.rotated:,}"
    if split.crop_ready:
        intervals = ", ".join(f"{interval} ({count:,})" for interval, count in split.crop_ready.items())
        ready = sum(split.crop_ready.values())
        yield f"  crop-ready  {ready:,} of {split.samples:,}; MCUs between restart markers: {intervals}"
    if split.unlabelled:
        yield f"  without a label  {split.unlabelled:,}"
    for name, formats in split.members.items():
        yield f"  {name}  {sum(formats.values()):,} of {split.samples:,}: {_counts(formats)}"
    if split.columns:
        yield f"  columns  {', '.join(f'{name} ({kind})' for name, kind in split.columns.items())}"
    if split.balance:
        even = split.balance
        empty = f"{even.empty_classes:,} {'classes are' if even.empty_classes > 1 else 'class is'} empty"
        ratio = f"{even.ratio:,.1f} to 1" if even.ratio is not None else empty
        yield (
            f"  balance  {even.smallest:,} to {even.largest:,} a class ({ratio}), "
            f"as diverse as {even.effective_classes:,.1f} equal ones"
        )


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{word} {count:,}" for word, count in counts.items()) or "none"


def _bars(counts: Mapping[str, int]) -> Iterator["Text"]:
    from rich.text import Text

    largest = max(counts.values())
    for label, count in counts.items():
        eighths = round(count / largest * _BAR * 8)
        # A bin that holds anything is to be seen.
        eighths = max(eighths, 1) if count else 0
        bar = "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
        yield Text.assemble(f"  {label:>9}  ", (f"{bar:<{_BAR}}", "cyan"), f" {count:,}")


def _class_table(summary: Summary, all_classes: bool) -> "Table":
    totals = [sum(split.class_counts[i] for split in summary.splits.values()) for i in range(len(summary.classes))]
    order = list(range(len(totals)))
    shown: list[int | None] = list(order)
    if not all_classes and len(order) > 2 * _FEW:
        ranked = sorted(order, key=lambda i: (-totals[i], i))
        shown = [*ranked[:_FEW], None, *ranked[-_FEW:]]
    table = new_table()
    table.add_column("class", justify="right")
    table.add_column("id", overflow="ellipsis", no_wrap=True, max_width=20)
    table.add_column("name", overflow="ellipsis", no_wrap=True, max_width=24)
    for name in summary.splits:
        table.add_column(name, justify="right")
    for i in shown:
        if i is None:
            table.add_row("...", f"{len(order) - 2 * _FEW:,} more", "(--all-classes)")
            continue
        counts = (f"{split.class_counts[i]:,}" for split in summary.splits.values())
        table.add_row(str(i), *summary.classes[i], *counts)
    return table
