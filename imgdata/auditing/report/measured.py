"""The figures of each check, as checks keep them -> figures as the page shows them: tables, numbers, histograms."""

from collections.abc import Callable, Mapping
from typing import Any

Figures = Mapping[str, Any]


def shown_figures(check: str, figures: Figures) -> Figures:
    """Return the figures of a check in the form of `charts.figures`; of a check without a form of its own as they are.

    What a check keeps may be of another version: where a form does not fit, the figures are shown as they are.
    """
    form = _FORMS.get(check)
    if form is None:
        return figures
    try:
        return form(figures)
    except (KeyError, TypeError, IndexError, ValueError, AttributeError):
        return figures


def _balance(figures: Figures) -> Figures:
    splits, remedies = figures["splits"], figures["remedies"]
    names = [name for _, name in figures["classes"]]
    rows = [{"split": split, **{words: one[key] for key, words in _OF_SPLIT.items()}} for split, one in splits.items()]
    classes = [
        {
            "class": name,
            **{split: one["counts"][number] for split, one in splits.items()},
            **{words: float(remedies[key][number]) for key, words in _REMEDIES.items() if key in remedies},
        }
        for number, name in enumerate(names)
    ]
    return {"splits": rows, "classes": classes}


_OF_SPLIT = {
    "samples": "samples",
    "labelled": "labelled",
    "ratio": "largest to smallest",
    "effective_classes": "as diverse as so many equal classes",
}
_REMEDIES = {
    "drawn": "drawn by --balance",
    "each": "times each",
    "balanced": "weight, balanced",
    "effective": "weight, effective",
}


def _drift(figures: Figures) -> Figures:
    rows = sorted(figures["pairs"], key=lambda row: -float(row["apart"]))
    return {
        "how far splits are apart": [
            {
                "column": row["column"],
                "splits": f"{row['one']}, {row['other']}",
                "apart": row["apart"],
                "by chance": row["chance"],
                "medians": row["medians"],
            }
            for row in rows
        ]
    }


def _bias(figures: Figures) -> Figures:
    tree = figures.get("tree") or {}
    return {
        **({"a tree that sees no picture": tree} if tree else {}),
        "what each column tells of the class": figures["columns"],
    }


def _slices(figures: Figures) -> Figures:
    scored = figures["accuracy"] is not None
    names = ("column", "slice", "samples", *(("accuracy", "low", "high") if scored else ()))
    rows = [{name: row[name] for name in names} for row in figures["slices"]]
    return {**({"accuracy": figures["accuracy"]} if scored else {}), "slices": rows}


def _quality(figures: Figures) -> Figures:
    found = {what: int(one["found"]) for what, one in figures.items()}
    histograms = {
        f"{what}: {one['measure']}": {"edges": one["edges"], "counts": one["counts"], "threshold": one.get("limit")}
        for what, one in figures.items()
        if "edges" in one
    }
    return {"found": found, **histograms}


def _labels(figures: Figures) -> Figures:
    if "share" not in figures:
        return figures
    told = {
        "labels checked": figures["checked"],
        "right, out of sample": figures["accuracy"],
        "estimated wrong": figures["share"],
        "give or take": figures["share_error"],
        "flipped by the audit": figures["flipped"],
        "of these found": figures["found"],
        "in the top": figures["top"],
        "class before suggested": figures["restored"],
        "can be trusted": figures["trusted"],
        "features": figures["features"],
    }
    return {**told, "features tried": figures["tried"]}


_FORMS: Mapping[str, Callable[[Figures], Figures]] = {
    "balance": _balance,
    "drift": _drift,
    "bias": _bias,
    "slices": _slices,
    "quality": _quality,
    "labels": _labels,
}
