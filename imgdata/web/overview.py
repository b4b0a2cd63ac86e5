"""The index -> what the first look at a dataset asks for: classes with examples, sizes, formats, views."""

from typing import Any

import numpy as np

from imgdata.dataset.dataset import Dataset
from imgdata.views.saved import saved_views
from imgdata.web.rows import Rows

EXAMPLES = 8
BINS = 32
MOST_CLASSES = 1000
"""Classes that are listed, the largest first; the others are found by name."""


def overview(rows: Rows) -> dict[str, Any]:
    """Return counts of splits, classes (with the numbers of a few samples each), formats, and sizes."""
    label_M = rows.array("label")
    classes = rows.dataset.manifest.classes
    # Sorted once: the samples of a class are a stretch of this, in the order of the shards.
    order = np.argsort(label_M, kind="stable")
    label_U, start_U, count_U = np.unique(label_M[order], return_index=True, return_counts=True)
    listed = np.argsort(-count_U, kind="stable")[:MOST_CLASSES].tolist()
    return {
        "splits": [
            {"name": split.name, "samples": len(split), "labelled": int((split.index.label_N >= 0).sum())}
            for split in rows.splits
        ],
        "classes": [
            {
                "label": int(label_U[which]),
                "name": classes[label_U[which]].name if label_U[which] >= 0 else "no label",
                "samples": int(count_U[which]),
                "examples": _spread(order[start_U[which] : start_U[which] + count_U[which]]),
            }
            for which in listed
        ],
        "formats": _formats(rows),
        "sizes": [_sizes(rows, column) for column in ("width", "height", "size")],
    }


def views(dataset: Dataset) -> list[dict[str, Any]]:
    """Return the saved views. Raises `ShardError` for a damaged one."""
    return [
        {"name": view.name, "split": view.split, "samples": view.samples, "expression": view.expression}
        for view in saved_views(dataset)
    ]


def _spread(number_K: Any) -> list[int]:
    place_E = np.linspace(0, len(number_K) - 1, min(len(number_K), EXAMPLES)).astype(np.int64)
    return [int(number) for number in number_K[place_E]]


def _formats(rows: Rows) -> list[dict[str, Any]]:
    words, code_M = rows.words("format")
    counts = np.bincount(code_M, minlength=len(words))
    return [{"name": words[which], "samples": int(counts[which])} for which in np.argsort(-counts, kind="stable")]


def _sizes(rows: Rows, column: str) -> dict[str, Any]:
    value_M = rows.array(column)
    return {
        "name": "bytes" if column == "size" else column,
        "least": int(value_M.min()),
        "median": int(np.median(value_M)),
        "most": int(value_M.max()),
        **_histogram(value_M),
    }


def _histogram(value_M: Any) -> dict[str, Any]:
    """Return the samples in `BINS` equal steps; the rare largest ones are counted in the last."""
    least, most = float(value_M.min()), float(np.quantile(value_M, 0.995))
    if most <= least:
        return {"counts": [len(value_M)], "edges": [least, most]}
    counts, _ = np.histogram(np.minimum(value_M, most), bins=BINS, range=(least, most))
    return {"counts": counts.tolist(), "edges": [least, most]}
