"""What is known of samples without looking at the object in the picture -> columns of numbers and words.

From the index (size, format), from the names, from the `json` members, and from `Facts` such as brightness where they
are at hand.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imgdata.auditing.outcome import Progress
from imgdata.auditing.samples import Samples
from imgdata.dataset.dataset import Dataset

MOST_WORDS = 50
"""Different words of a column at most: those that come most often, all others are one more, `other`."""
OTHER, NOTHING = "other", "none"
_NUMBERS = 0.95
"""Share of values that must be numbers for a column of numbers."""
_STEP = 5_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Column:
    """One column of M values."""

    name: str
    value_M: NDArray[np.float64]
    """A number of each sample, NaN for none; for words, the position in `words`."""
    words: tuple[str, ...] = ()
    """Words, the most frequent first; empty for a column of numbers."""

    def codes(self, bins: int = 10) -> NDArray[np.int64]:
        """Return a small number for each sample, int64 `(M,)`: its word, or which of `bins` quantiles it is in.

        Samples without a number have the code behind the last.
        """
        if self.words:
            return self.value_M.astype(np.int64)
        known_M = np.isfinite(self.value_M)
        if not known_M.any():
            return np.zeros(len(self.value_M), np.int64)
        edges = np.unique(np.quantile(self.value_M[known_M], np.arange(1, bins) / bins))
        return np.where(known_M, np.searchsorted(edges, self.value_M, side="right"), len(edges) + 1)

    def varies(self) -> bool:
        """Return whether there are two different values."""
        known = self.value_M[np.isfinite(self.value_M)]
        return len(known) > 0 and bool((known != known[0]).any() or len(known) < len(self.value_M))


def number_column(name: str, value_M: NDArray[np.generic]) -> Column:
    """Return a column of numbers."""
    return Column(name=name, value_M=value_M.astype(np.float64))


def word_column(name: str, words: Sequence[str], code_M: NDArray[np.integer]) -> Column:
    """Return a column of words, each given by its position in `words`; rare ones become `other`."""
    count_W = np.bincount(code_M, minlength=len(words))
    order = np.argsort(-count_W, kind="stable")
    kept = [which for which in order[:MOST_WORDS].tolist() if count_W[which]]
    rest = bool((count_W[order[MOST_WORDS:]] > 0).any())
    place_W = np.full(len(words), len(kept))
    place_W[kept] = np.arange(len(kept))
    return Column(
        name=name,
        value_M=place_W[code_M].astype(np.float64),
        words=(*(words[which] for which in kept), *([OTHER] if rest else [])),
    )


def index_columns(samples: Samples) -> list[Column]:
    """Return the columns that the index alone gives: sides in pixels, bytes, format, mode, EXIF orientation, names."""
    width_M, height_M = (samples.array(side).astype(np.float64) for side in ("width", "height"))
    size_M = samples.array("size").astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        aspect_M, packed_M = width_M / height_M, size_M / (width_M * height_M)
    return [
        number_column("width", width_M),
        number_column("height", height_M),
        number_column("aspect", _finite(aspect_M)),
        number_column("bytes", size_M),
        number_column("bytes per pixel", _finite(packed_M)),
        word_column("format", *samples.words("format")),
        word_column("mode", *samples.words("mode")),
        number_column("orientation", samples.array("orientation")),
        _name_column(samples),
    ]


def json_columns(samples: Samples, dataset: Dataset, progress: Progress) -> list[Column]:
    """Return a column for each field of the `json` members that holds numbers, truths or short words.

    A field whose words nearly all differ, such as a caption or a name, is none. Reads each member once.
    """
    if not any(view.index.has_fields for view in samples.views):
        return []
    values: dict[str, dict[int, object]] = {}
    number = 0
    for view in samples.views:
        split = dataset[view.split]
        for position in view.position_N.tolist():
            for name, value in split.metadata(position).items():
                values.setdefault(name, {})[number] = value
            number += 1
            if number % _STEP == 0:
                progress(number, len(samples))
    found = (_json_column(name, known, len(samples)) for name, known in sorted(values.items()))
    return [column for column in found if column is not None]


def _json_column(name: str, known: Mapping[int, object], total: int) -> Column | None:
    number_K = np.fromiter(known, np.int64, len(known))
    numbers = [float(value) if isinstance(value, int | float) else math.nan for value in known.values()]
    if np.isfinite(numbers).mean() >= _NUMBERS and not any(isinstance(value, bool) for value in known.values()):
        value_M = np.full(total, np.nan)
        value_M[number_K] = numbers
        return number_column(name, value_M)
    texts = [str(value) for value in known.values()]
    counts = Counter(texts)
    if len(counts) > max(MOST_WORDS, len(texts) // 10):
        return None
    words = [*counts, NOTHING]
    code_M = np.full(total, len(words) - 1)
    place = {text: code for code, text in enumerate(counts)}
    code_M[number_K] = [place[text] for text in texts]
    return word_column(name, words, code_M)


def _name_column(samples: Samples) -> Column:
    """Return the form of the files' names: `IMG_0001.JPG` is `IMG_0.JPG`; a class in them is `*`, as it tells itself.

    The folders are left out: with class folders they are the label.
    """
    names = sorted({one for label in samples.classes for one in label if len(one) > 1}, key=lambda one: -len(one))
    # Thousands of classes in one expression are slow, and their ids mostly numbers: digits become 0 anyway.
    classes = re.compile("|".join(map(re.escape, names[:1000])) or r"(?!)", re.IGNORECASE)
    known: dict[str, int] = {}
    codes = []
    for start in range(0, len(samples), _STEP):
        numbers = np.arange(start, min(start + _STEP, len(samples)))
        for source in samples.texts("source", numbers):
            form = re.sub(r"\d+", "0", classes.sub("*", re.split(r"[/\\:]", source)[-1]))
            form = re.sub(r"[0-9a-f]{12,}", "0", form, flags=re.IGNORECASE)
            codes.append(known.setdefault(form, len(known)))
    return word_column("form of the name", list(known), np.array(codes, np.int64))


def _finite(value_M: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isfinite(value_M), value_M, np.nan)
