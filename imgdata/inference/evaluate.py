"""A trained network, a split -> how good it is on it, exactly, over any number of ranks."""

import math
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import distributed

from imgdata.backends.options import BackendName
from imgdata.dataset.dataset import open as open_dataset
from imgdata.errors import OptionError, OutputError, ShardError
from imgdata.inference.class_matching import Match, MatchedBy, match_foreign, match_own
from imgdata.inference.trained import Trained, Which, load_trained
from imgdata.loader.bad_images import BadImage, BadImageWarning
from imgdata.loader.loader import Loader
from imgdata.sample import ClassName
from imgdata.training.data import open_views, usual_split
from imgdata.training.distributed import Processes, processes
from imgdata.training.network import half_type
from imgdata.training.options import Precision
from imgdata.training.plots import plot_confusion
from imgdata.training.scores import Scores, evaluate_network
from imgdata.views.saved import open_view
from imgdata.views.view import View


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassScore:
    """How good a network is on the samples of one class."""

    index: int
    """Of the network's output."""
    id: str
    name: str
    total: int
    correct: int

    @property
    def accuracy(self) -> float:
        """Share of the samples that are right, 0 to 1."""
        return self.correct / self.total


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion:
    """Samples of one class that were taken for another."""

    label: ClassName
    prediction: ClassName
    count: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """How good a network is on a split."""

    model: str
    split: str
    view: str
    """Steps of the view of the split; empty for all of it."""
    classes: tuple[ClassName, ...]
    """Of the network's outputs."""
    scores: Scores
    matched_by: MatchedBy
    """What told which of the outputs stands for a class of the dataset."""
    skipped: tuple[BadImage, ...]
    """Images that can't be decoded, of all ranks; they are in no figure."""
    world_size: int

    @property
    def per_class(self) -> list[ClassScore]:
        """Each class that has samples, in the order of the outputs."""
        scores = self.scores
        return [
            ClassScore(
                index=number,
                id=self.classes[number].id,
                name=self.classes[number].name,
                total=int(scores.count_C[number]),
                correct=int(scores.right_C[number]),
            )
            for number in np.flatnonzero(scores.count_C).tolist()
        ]

    def worst(self, count: int) -> list[ClassScore]:
        """The classes with the least accuracy, the worst first; of equal ones the larger first."""
        return sorted(self.per_class, key=lambda row: (row.accuracy, -row.total))[:count]

    def confusions(self, count: int) -> list[Confusion]:
        """The pairs of classes that are mistaken most often, the commonest first; none above 4,096 classes."""
        if self.scores.confusion_CC is None:
            return []
        wrong_CC = self.scores.confusion_CC.copy()
        np.fill_diagonal(wrong_CC, 0)
        most = np.argsort(-wrong_CC, axis=None, kind="stable")[:count]
        cells = zip(*np.unravel_index(most, wrong_CC.shape), strict=True)
        return [
            Confusion(
                label=self.classes[label],
                prediction=self.classes[prediction],
                count=int(wrong_CC[label, prediction]),
            )
            for label, prediction in cells
            if wrong_CC[label, prediction]
        ]

    def save_confusion(self, path: Path) -> None:
        """Draw the confusion matrix, of those classes that have samples or were predicted.

        Raises `OptionError`, `OutputError`, `MissingExtraError`.
        """
        check_confusion(path)
        matrix_CC = self.scores.confusion_CC
        if matrix_CC is None:
            raise OptionError(
                f"{path}: a confusion matrix is counted for 4,096 classes at most, got {len(self.classes)}"
            )
        shown_S = np.flatnonzero(matrix_CC.sum(axis=0) + matrix_CC.sum(axis=1))
        plot_confusion(matrix_CC[np.ix_(shown_S, shown_S)], [self.classes[one].name for one in shown_S], path)

    def to_dict(self) -> dict[str, Any]:
        """All figures as plain values, for JSON; `confusion` has a row for each label, a column for each prediction."""
        scores = self.scores
        return {
            "model": self.model,
            "split": self.split,
            "view": self.view,
            "top1": scores.top1,
            "top5": scores.top5,
            "loss": scores.loss,
            "correct": scores.correct,
            "total": scores.total,
            "calibration_error": scores.calibration_error,
            "matched_by": self.matched_by,
            "skipped": [{"key": bad.key, "reason": bad.reason, "detail": bad.detail} for bad in self.skipped],
            "per_class": [{**asdict(row), "accuracy": row.accuracy} for row in self.per_class],
            "confusion": None if scores.confusion_CC is None else scores.confusion_CC.tolist(),
        }


def evaluate(
    source: str | Path | Trained,
    out: str | Path,
    *,
    split: str | None = None,
    view: str = "",
    weights: Path | None = None,
    pretrained: bool = False,
    checkpoint: Which = "best",
    device: str = "auto",
    batch_size: int = 128,
    amp: Precision = "none",
    flip_test: bool | None = None,
    backend: BackendName = "auto",
    threads: int | None = None,
    exact: bool = False,
    progress: Callable[[int, int], None] = lambda done, batches: None,
) -> Evaluation:
    """How good a network is on a split of the dataset in `out`, or a view of it: each sample counts once.

    Under torchrun every process calls it, and gets the same figures over all ranks. A run needs a dataset with its own
    classes, in the same order. For a network by name it may have some of ImageNet's classes, see
    `imgdata.inference.class_matching`; its top-1 is over all outputs all the same.

    Args:
        source: A run's folder, a network's name, or what `load_trained` gave.
        out: The dataset's folder.
        split: Name of the split. None: what a run was validated with, also where that was held out, if `out` is the
            dataset that it was trained on; else `val`, or what else such a split is called.
        view: A saved view's name, or steps such as `fraction=0.1`.
        weights: A file of weights, for a network by name; see `load_trained`, as for the next three.
        pretrained: Weights of timm's hub, for a network by name.
        checkpoint: Of a run: `best` or `last`.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        batch_size: Images that each rank computes at a time.
        amp: 16-bit arithmetic; without it figures don't depend on the device.
        flip_test: The mean of the logits of each picture and its mirror image; None: as the run was validated.
        backend: Of the loader.
        threads: Of the loader.
        exact: Decode and resize as torchvision and timm do, for figures that must agree with theirs; slower.
        progress: Gets how many batches of this rank are done, and of how many.

    Raises:
        OptionError: Of options, classes that differ, samples without a label, and as `load_trained`.
        ShardError: The dataset can't be read, or none of its pictures.
        MissingExtraError: timm isn't installed, and the network is one of its.
    """
    with processes(str(source.device) if isinstance(source, Trained) else device) as ranks:
        trained = load_trained(source, weights=weights, pretrained=pretrained, checkpoint=checkpoint, device=device)
        shown, match = _matched(trained, str(out), _shown(trained, Path(out), split, view))
        with (
            warnings.catch_warnings(),
            Loader(
                shown,
                # What fills up a batch is computed, too.
                batch_size=min(batch_size, math.ceil(len(shown) / ranks.world_size)),
                recipe=trained.recipe,
                device=ranks.device,
                backend=backend,
                shuffle="none",
                dtype="float32",
                threads=threads,
                exact=exact,
                rank=ranks.rank,
                world_size=ranks.world_size,
            ) as loader,
        ):
            # They are named in the result.
            warnings.simplefilter("ignore", BadImageWarning)
            scores = evaluate_network(
                trained.model,
                loader,
                ranks,
                half=half_type(amp, ranks.device),
                flip_test=trained.flip_test if flip_test is None else flip_test,
                progress=progress,
            )
            skipped = _of_all_ranks(loader.bad, ranks)
    if not scores.total:
        raise ShardError(
            f"{out}: none of the {len(shown):,} pictures of {shown.split!r} can be decoded; {skipped[0].key}: "
            f"{skipped[0].detail}"
        )
    return Evaluation(
        model=trained.name,
        split=shown.split,
        view=shown.expression,
        classes=trained.classes,
        scores=scores,
        matched_by=match.by,
        skipped=skipped,
        world_size=ranks.world_size,
    )


def check_confusion(path: Path) -> None:
    """Raise `OptionError` for a name that a confusion matrix can't have, `OutputError` where its folder is missing."""
    if path.suffix.lower() != ".png":
        raise OptionError(f"confusion must be a .png file, got {path}")
    check_folder(path)


def check_folder(path: Path) -> None:
    """Raise `OutputError` where the folder of a file isn't there, before hours are spent on what belongs into it."""
    if not path.parent.is_dir():
        raise OutputError(f"{path}: its folder must be there; make it, or choose another")


def open_shown(out: Path, split: str, view: str) -> View:
    """What `view` shows of a split of the dataset in `out`. Raises `OptionError`, `ShardError`."""
    dataset = open_dataset(out)
    if split not in dataset:
        raise OptionError(f"split must be one of {', '.join(dataset)}, got {split!r}")
    return open_view(dataset, split, view)


def _shown(trained: Trained, out: Path, split: str | None, view: str) -> View:
    """What is asked for; where nothing is, what the run was validated with, or the usual split."""
    options = trained.options
    if split is None and not view and options is not None and trained.data == out.resolve():
        return open_views(out, options).val
    if split is None:
        split = (options and options.val_split) or usual_split(open_dataset(out), trained.split or "")
    if split is None:
        raise OptionError(
            f"{out}: split must be named where there is none to validate with, got {', '.join(open_dataset(out))}; "
            "choose one with --split"
        )
    return open_shown(out, split, view)


def _matched(trained: Trained, out: str, shown: View) -> tuple[View, Match]:
    """The samples, their labels numbered as the network's outputs."""
    trained.require_classes()
    without = int((shown.label_N < 0).sum())
    if without:
        raise OptionError(
            f"{out}: every sample must have a label, got {without:,} of {len(shown.label_N):,} without in "
            f'{shown.split!r}; choose another split, or a view such as "where label>=0"'
        )
    find = match_own if trained.split is not None else match_foreign
    match = find(shown.classes, trained.classes, out)
    return replace(shown, classes=trained.classes, label_N=match.output_C[shown.label_N]), match


def _of_all_ranks(bad: tuple[BadImage, ...], ranks: Processes) -> tuple[BadImage, ...]:
    if ranks.world_size == 1:
        return bad
    gathered: list[Any] = [None] * ranks.world_size
    distributed.all_gather_object(gathered, bad)
    return tuple(sorted((one for part in gathered for one in part), key=lambda one: one.position))
