"""Columns that say nothing of the object in the picture, labels -> what they give away of the labels.

A network that can tell classes by size, format or brightness learns that, and fails where it doesn't hold.
"""

import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgdata.auditing.columns import Column
from imgdata.auditing.finding import Finding
from imgdata.auditing.outcome import Outcome, Progress
from imgdata.auditing.samples import Samples
from imgdata.auditing.statistics import mutual_information, ranks_apart, wilson

WHAT = ("without the picture", "column tells the class", "class of one kind", "class apart")
TELLS = 0.1
"""Share of the labels' entropy that a column must tell, beyond chance, to be named."""
ABOVE_CHANCE = 0.1
"""A tree's accuracy above that of the largest class, of what is left to 1, to be named."""
ONE_KIND, OTHERS = 0.9, 0.5
"""A class is of one kind where so much of it has a word that at most so much of the others have."""
APART = 0.95
"""A class is apart where a value of it is above (or below) one of all others so often."""
_FEW = 5
"""Samples below which nothing is said of a class."""
_TREE_SAMPLES = 100_000
_DEPTH, _FOLDS = 5, 5


def find(samples: Samples, columns: Sequence[Column], progress: Progress = lambda done, total: None) -> Outcome:
    """Return which columns, alone or together, tell the class of a sample.

    - Each column: its mutual information with the label as a share of the label's entropy, less what shuffled labels
      give.
    - Each class: a word (format, mode, ...) that most of it and few of the others have; a number that is nearly always
      above or below that of the others.
    - All columns together: a tree of depth 5 that sees nothing else, its accuracy out of 5 folds beside the share of
      the largest class. Needs scikit-learn, of the extra `audit`.

    `figures`: `columns` (name, share told, chance), and `tree` (accuracy, interval, chance, its three best columns).
    """
    labelled_M = samples.label_M >= 0
    label_K = samples.label_M[labelled_M]
    if len(np.unique(label_K)) < 2:
        return Outcome(findings=(), notes=("bias needs labels of at least two classes, and there are fewer",))
    varying = [_of(column, labelled_M) for column in columns if _of(column, labelled_M).varies()]
    findings: list[Finding] = []
    rows: list[dict[str, Any]] = []
    for number, column in enumerate(varying):
        found, chance = mutual_information(label_K, column.codes())
        rows.append({"column": column.name, "tells": max(found - chance, 0.0), "chance": chance})
        findings += _of_classes(samples, label_K, column)
        progress(number + 1, len(varying) + 1)
    rows.sort(key=lambda row: -row["tells"])
    findings += [_telling(row) for row in rows if row["tells"] >= TELLS]
    tree, notes = _tree(label_K, varying)
    progress(len(varying) + 1, len(varying) + 1)
    if tree and tree["low"] - tree["chance"] >= ABOVE_CHANCE * (1 - tree["chance"]):
        findings.append(_blind(tree))
    return Outcome(findings=tuple(findings), figures={"columns": rows, "tree": tree}, notes=notes)


def _of(column: Column, kept_M: NDArray[np.bool_]) -> Column:
    return Column(name=column.name, value_M=column.value_M[kept_M], words=column.words)


def _of_classes(samples: Samples, label_K: NDArray[np.int32], column: Column) -> list[Finding]:
    classes = len(samples.classes)
    if column.words:
        joint_CW = np.bincount(
            label_K.astype(np.int64) * len(column.words) + column.codes(), minlength=classes * len(column.words)
        ).reshape(classes, len(column.words))
        return _kinds(samples, column, joint_CW)
    return _sizes(samples, label_K, column)


def _kinds(samples: Samples, column: Column, joint_CW: NDArray[np.int64]) -> list[Finding]:
    total_C, total_W = joint_CW.sum(1), joint_CW.sum(0)
    found = []
    for label in np.flatnonzero(total_C >= _FEW).tolist():
        others = int(total_W.sum() - total_C[label])
        if not others:
            continue
        word = int(joint_CW[label].argmax())
        inside = joint_CW[label, word] / total_C[label]
        outside = (total_W[word] - joint_CW[label, word]) / others
        if inside >= ONE_KIND and outside <= OTHERS:
            name = samples.classes[label].name
            found.append(
                Finding(
                    kind="bias",
                    what="class of one kind",
                    place=None,
                    score=float(inside - outside),
                    label=samples.classes[label].id,
                    message=f"class {name!r} is {inside:.0%} {column.words[word]} ({column.name}), the others are "
                    f"{outside:.0%}",
                    evidence={"inside": float(inside), "others": float(outside), "samples": float(total_C[label])},
                )
            )
    return found


def _sizes(samples: Samples, label_K: NDArray[np.int32], column: Column) -> list[Finding]:
    above_C = ranks_apart(label_K, column.value_M, len(samples.classes))
    count_C = np.bincount(label_K[np.isfinite(column.value_M)], minlength=len(samples.classes))
    apart_C = np.where(count_C >= _FEW, np.maximum(above_C, 1 - above_C), 0.0)
    found = []
    for label in np.flatnonzero(np.nan_to_num(apart_C) >= APART).tolist():
        inside = np.nanmedian(column.value_M[label_K == label])
        outside = np.nanmedian(column.value_M[label_K != label])
        more = "larger" if above_C[label] > 0.5 else "smaller"
        found.append(
            Finding(
                kind="bias",
                what="class apart",
                place=None,
                score=float(2 * apart_C[label] - 1),
                label=samples.classes[label].id,
                message=f"class {samples.classes[label].name!r}: {column.name} is {more} than in the others in "
                f"{apart_C[label]:.0%} of pairs (medians {inside:,.4g} and {outside:,.4g})",
                evidence={"above": float(above_C[label]), "median": float(inside), "median_of_others": float(outside)},
            )
        )
    return found


def _telling(row: dict[str, Any]) -> Finding:
    return Finding(
        kind="bias",
        what="column tells the class",
        place=None,
        score=min(row["tells"], 1.0),
        message=f"{row['column']} alone tells {row['tells']:.0%} of what there is to know of the class",
        evidence={"tells": row["tells"], "chance": row["chance"]},
    )


def _blind(tree: dict[str, Any]) -> Finding:
    return Finding(
        kind="bias",
        what="without the picture",
        place=None,
        score=min((tree["accuracy"] - tree["chance"]) / (1 - tree["chance"]), 1.0),
        message=f"a model that sees no picture, only {_listed(tree['columns'])}, reaches {tree['accuracy']:.0%} "
        f"(chance {tree['chance']:.0%})",
        evidence={"accuracy": tree["accuracy"], "low": tree["low"], "high": tree["high"], "chance": tree["chance"]},
    )


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _tree(label_K: NDArray[np.int32], columns: Sequence[Column]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the accuracy of a small tree on the columns alone, out of sample; nothing where it can't be fitted."""
    count_C = np.bincount(label_K)
    if not columns or count_C[count_C > 0].min() < _FOLDS:
        # Stratified folds need some of each class.
        kept = np.flatnonzero(count_C >= _FOLDS)
        kept_K = np.isin(label_K, kept)
        if len(kept) < 2 or not columns:
            return {}, ("the tree that sees no picture needs two classes of five samples",)
        return _tree(label_K[kept_K], [_of(column, kept_K) for column in columns])
    if importlib.util.find_spec("sklearn") is None:
        return {}, ("the tree that sees no picture needs scikit-learn: pip install 'imgdata[audit]'",)
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.tree import DecisionTreeClassifier

    if len(label_K) > _TREE_SAMPLES:
        drawn = np.random.Generator(np.random.Philox(key=[0, 2])).permutation(len(label_K))[:_TREE_SAMPLES]
        kept_K = np.zeros(len(label_K), bool)
        kept_K[drawn] = True
        return _tree(label_K[kept_K], [_of(column, kept_K) for column in columns])
    names, value_KF = _table(columns)
    tree = DecisionTreeClassifier(max_depth=_DEPTH, min_samples_leaf=5, random_state=0)
    guess_K = cross_val_predict(tree, value_KF, label_K, cv=StratifiedKFold(_FOLDS, shuffle=True, random_state=0))
    right = int((guess_K == label_K).sum())
    low, high = wilson(right, len(label_K))
    weight_F = tree.fit(value_KF, label_K).feature_importances_
    weights: dict[str, float] = {}
    for name, weight in zip(names, weight_F.tolist(), strict=True):
        weights[name] = weights.get(name, 0.0) + weight
    best = [name for name in sorted(weights, key=lambda name: -weights[name])[:3] if weights[name] > 0.01]
    return {
        "accuracy": right / len(label_K),
        "low": low,
        "high": high,
        "chance": float(count_C.max() / count_C.sum()),
        "columns": best or [columns[0].name],
        "samples": len(label_K),
    }, ()


def _table(columns: Sequence[Column]) -> tuple[list[str], NDArray[np.float64]]:
    """Return all columns as numbers, words as one column of 0 and 1 each."""
    names, parts = [], []
    for column in columns:
        if column.words:
            for word in range(len(column.words)):
                names.append(column.name)
                parts.append((column.value_M == word).astype(np.float64))
        else:
            names.append(column.name)
            parts.append(np.where(np.isfinite(column.value_M), column.value_M, -1e9))
    return names, np.stack(parts, 1)
