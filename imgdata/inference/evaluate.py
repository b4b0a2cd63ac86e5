"""A trained network, a split -> its scores there, exact over any number of ranks, and one row for each sample."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from imgdata.backends.options import BackendName
from imgdata.dataset.dataset import Dataset
from imgdata.dataset.split import Split
from imgdata.errors import OptionError, ShardError
from imgdata.inference.class_matching import Match, MatchedBy, match_foreign, match_own
from imgdata.inference.predictions import Collector, Predictions, check_picture, save_sheet
from imgdata.inference.said import Said, SaidCollector, check_targets
from imgdata.inference.samples import crops_of, loaded, open_shown
from imgdata.inference.trained import Trained, Which, load_trained
from imgdata.loader.bad_images import BadImage
from imgdata.loose.opened import open as open_dataset
from imgdata.sample import ClassName
from imgdata.training.data import open_views, usual_split
from imgdata.training.distributed import Processes, processes
from imgdata.training.network import half_type
from imgdata.training.options import Precision
from imgdata.training.plots import plot_confusion
from imgdata.training.scores import Scores, evaluate_network
from imgdata.views.view import View


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassScore:
    """Scores of a network on the samples of one class."""

    index: int
    """Number of the network's output."""
    id: str
    name: str
    total: int
    """Samples of the class."""
    correct: int
    """Samples that are right."""

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
    """Number of these samples."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Scores of a network on a split, and its predictions."""

    model: str
    """Name of the network."""
    split: str
    """Name of the split."""
    view: str
    """Steps of the view of the split; empty for the whole split."""
    dataset: Path
    """Folder of the dataset."""
    classes: tuple[ClassName, ...]
    """Classes of the network's outputs."""
    scores: Scores
    """Figures over all samples."""
    predictions: Predictions
    """One row for each sample whose image can be decoded."""
    matched_by: MatchedBy
    """Property by which classes of the dataset and outputs of the network were matched: ids, names or numbers."""
    missing: tuple[ClassName, ...]
    """Classes that a run was trained on and that have no sample here; empty for a network by name."""
    skipped: tuple[BadImage, ...]
    """Images that can't be decoded, of all ranks; they are in no figure."""
    world_size: int
    """Number of ranks."""
    crops: int = 1
    """Crops of each picture over which probabilities were averaged."""
    flip_test: bool = False
    """Whether the logits of each crop are the mean of it and of its mirror image."""
    said: "Said | None" = None
    """What the network says of each sample, where that isn't one class: `predictions` has no rows then."""
    _samples: Split

    def __str__(self) -> str:
        scores = self.scores
        if scores.kind in ("multi-label", "regression"):
            return f"{self.title}\n{_target_lines(scores)}"
        missing = f"\nmissing      {len(self.missing):,} of {len(self.classes):,} classes" if self.missing else ""
        return (
            f"{self.title}\n"
            f"top-1        {scores.top1:.2%}  {scores.correct:,} of {scores.total:,}\n"
            f"top-5        {scores.top5:.2%}  {scores.correct_5:,} of {scores.total:,}\n"
            f"loss         {scores.loss:.4f}  mean cross-entropy\n"
            f"calibration  {scores.calibration_error:.2%}  mean distance of confidence and accuracy (ECE){missing}"
        )

    def __repr__(self) -> str:
        return f"<Evaluation\n  {str(self).replace(chr(10), chr(10) + '  ')}>"

    @property
    def title(self) -> str:
        """Network, split, view and crops, in one line."""
        view = f" | {self.view}" if self.view else ""
        averaged = [f"mean of {self.crops} crops"] if self.crops > 1 else []
        averaged += [("mirror images too" if averaged else "mean with the mirror image")] if self.flip_test else []
        return ", ".join([f"{self.model} on {self.split}{view}", *averaged])

    @property
    def per_class(self) -> list[ClassScore]:
        """Scores of each class that has samples, in the order of the outputs."""
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
        """Return the classes with the least accuracy, the worst first; of equal ones the larger first."""
        return sorted(self.per_class, key=lambda row: (row.accuracy, -row.total))[:count]

    def confusions(self, count: int) -> list[Confusion]:
        """Return the pairs of classes that are mistaken most often, the commonest first; none above 4,096 classes."""
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

    def _require_one_class(self, what: str) -> None:
        if self.said is not None:
            raise OptionError(f"{what} needs a target of one class a picture, got {self.scores.kind!r}")

    def save_confusion(self, path: Path) -> None:
        """Draw the confusion matrix, of those classes that have samples or were predicted.

        Raises `OptionError`, `OutputError`, `MissingExtraError`.
        """
        check_picture(path, "confusion")
        self._require_one_class("a confusion matrix")
        matrix_CC = self.scores.confusion_CC
        if matrix_CC is None:
            raise OptionError(
                f"{path}: a confusion matrix is counted for 4,096 classes at most, got {len(self.classes)}"
            )
        shown_S = np.flatnonzero(matrix_CC.sum(axis=0) + matrix_CC.sum(axis=1))
        plot_confusion(matrix_CC[np.ix_(shown_S, shown_S)], [self.classes[one].name for one in shown_S], path)

    def save_worst(self, path: Path, count: int = 25) -> None:
        """Draw the pictures with the highest loss, each with its label and what it was taken for, as one .png.

        Raises `OptionError`, `OutputError`, `MissingExtraError`, `ShardError`.
        """
        self._require_one_class("a sheet of the worst samples")
        found = self.predictions
        rows = found.worst(count)
        titles = [
            f"{_name(self.classes[found.label_N[row]])}\n{_name(self.classes[found.predicted_N[row]])} "
            f"{found.probability_N[row]:.0%}"
            for row in rows
        ]
        save_sheet([self._samples[int(found.position_N[row])].image for row in rows], titles, path)

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as plain values, for JSON; `confusion` has labels as rows, predictions as columns."""
        scores = self.scores
        return {
            "model": self.model,
            "split": self.split,
            "view": self.view,
            "crops": self.crops,
            "flip_test": self.flip_test,
            "top1": scores.top1,
            "top5": scores.top5,
            "loss": scores.loss,
            "correct": scores.correct,
            "total": scores.total,
            "calibration_error": scores.calibration_error,
            "matched_by": self.matched_by,
            "missing": [one.id for one in self.missing],
            **({} if scores.kind == "class" else {"target": scores.kind, "metrics": dict(scores.metrics)}),
            "skipped": [{"key": bad.key, "reason": bad.reason, "detail": bad.detail} for bad in self.skipped],
            "per_class": [{**asdict(row), "accuracy": row.accuracy} for row in self.per_class],
            "confusion": None if scores.confusion_CC is None else scores.confusion_CC.tolist(),
        }


def evaluate(
    network: str | Path | Trained,
    dataset: str | Path | Dataset,
    *,
    split: str | None = None,
    view: str = "",
    weights: Path | None = None,
    pretrained: bool = False,
    checkpoint: Which = "best",
    device: str = "auto",
    model: str | nn.Module | None = None,
    batch_size: int = 128,
    amp: Precision = "none",
    flip_test: bool | None = None,
    crops: int = 1,
    backend: BackendName = "auto",
    threads: int | None = None,
    exact: bool = False,
    progress: Callable[[int, int], None] = lambda done, batches: None,
) -> Evaluation:
    """Return how good a network is on a split of a dataset, or a view of it: each sample counts once.

    Under torchrun every process calls it, and gets the same figures over all ranks. The classes of a run are found in
    the dataset by their ids: it may lack some, and have another order. For a network by name it may have some of
    ImageNet's classes, by id, name or number; top-1 is over all outputs all the same.

    Args:
        network: A run's folder, a network's name, or what `load_trained` returned.
        dataset: The dataset's folder, or an open dataset.
        split: Name of the split. None: the samples that a run was validated with, also held-out ones, where it was
            trained on this dataset; else `val`, `test` or the like.
        view: A saved view's name, or steps such as `fraction=0.1`.
        weights: A file of weights, for a network by name; see `load_trained`, as for the next four.
        pretrained: Weights of timm's hub, for a network by name.
        checkpoint: Which weights of a run: `best` or `last`.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        model: The network of a run whose network is your own.
        batch_size: Images that each rank computes at a time.
        amp: 16-bit arithmetic; without it figures don't depend on the device.
        flip_test: The mean of the logits of each picture and its mirror image; None: as the run was validated.
        crops: Crops of each picture: 1; 5, the corners and the middle; or 10, these and those of the mirror image, as
            torchvision's `FiveCrop` and `TenCrop`. The mean is that of the probabilities: softmax, or sigmoid for
            several classes. A picture is read and decoded once.
        backend: Backend of the loader.
        threads: Threads of the loader.
        exact: Decode and resize as torchvision and timm do, for figures that must agree with theirs; slower.
        progress: Gets how many batches of this rank are done, and of how many.

    Raises:
        OptionError: Wrong options, classes that the network doesn't have, samples without a label.
        ShardError: The dataset can't be read, or none of its pictures.
        MissingExtraError: timm isn't installed, and the network is one of its.
    """
    opened = dataset if isinstance(dataset, Dataset) else open_dataset(dataset)
    with processes(str(network.device) if isinstance(network, Trained) else device) as ranks:
        trained = load_trained(
            network, weights=weights, pretrained=pretrained, checkpoint=checkpoint, device=device, model=model
        )
        recipe, flips = crops_of(trained, crops, flip_test)
        shown = _shown(trained, opened, split, view)
        collector = Collector() if trained.task.is_classes else SaidCollector(trained.task)
        if trained.task.is_classes and shown.targets is None:
            shown, match = _matched(trained, str(opened.path), shown)
        else:
            check_targets(trained, str(opened.path), shown)
            match = Match(by="ids", output_C=np.arange(len(trained.classes), dtype=np.int32))
        with loaded(
            shown,
            recipe,
            device=ranks.device,
            batch_size=batch_size,
            backend=backend,
            threads=threads,
            exact=exact,
            rank=ranks.rank,
            world_size=ranks.world_size,
        ) as loader:
            scores = evaluate_network(
                trained.model,
                loader,
                ranks,
                half=half_type(amp, ranks.device),
                flip_test=flips,
                task=trained.task if trained.task.outputs else None,
                seen=collector.add,
                progress=progress,
            )
            skipped = _of_all_ranks(loader.bad, ranks)
            keys = shown.index.column("key")
            said = None
            if isinstance(collector, SaidCollector):
                said = collector.said(keys, trained.classes, ranks)
                predictions = Collector().predictions(keys, trained.classes, trained.classes, ranks)
            else:
                predictions = collector.predictions(keys, trained.classes, trained.classes, ranks)
    if not scores.total:
        raise ShardError(
            f"{opened.path}: none of the {len(shown):,} pictures of {shown.split!r} can be decoded; {skipped[0].key}: "
            f"{skipped[0].detail}"
        )
    return Evaluation(
        model=trained.name,
        split=shown.split,
        view=shown.expression,
        dataset=opened.path,
        classes=trained.classes,
        scores=scores,
        predictions=predictions,
        matched_by=match.by,
        missing=_missing(trained, shown),
        skipped=skipped,
        world_size=ranks.world_size,
        said=said,
        crops=crops,
        flip_test=flips,
        _samples=opened[shown.split],
    )


def _target_lines(scores: Scores) -> str:
    """Return the figures of several classes or of numbers, a line each."""
    if scores.kind == "multi-label":
        return (
            f"mean AP  {scores.metrics['mean_ap']:.2%}  mean over classes of average precision\n"
            f"exact    {scores.top1:.2%}  {scores.correct:,} of {scores.total:,} with all classes right\n"
            f"loss     {scores.loss:.4f}  mean binary cross-entropy"
        )
    return (
        f"R^2   {scores.metrics['r2']:.4f}  coefficient of determination, {scores.total:,} samples\n"
        f"MAE   {scores.metrics['mae']:.4g}  mean absolute error\n"
        f"loss  {scores.loss:.4f}  in standard deviations"
    )


def _shown(trained: Trained, dataset: Dataset, split: str | None, view: str) -> View:
    """Return the view that is asked for; else the samples that the run was validated with, or the usual split."""
    options = trained.options
    if split is None and not view and options is not None and trained.data == dataset.path.resolve():
        # What a later version added was not held out.
        return open_views(dataset.at(min(trained.version, dataset.version)), options).val
    if split is None and options is not None and options.val_split in dataset:
        split = options.val_split
    split = split or usual_split(dataset, trained.split or "")
    if split is None:
        raise OptionError(
            f"{dataset.path}: split must be named where there is none to validate with, got {', '.join(dataset)}; "
            "choose one with --split"
        )
    return open_shown(dataset, split, view)


def _matched(trained: Trained, place: str, shown: View) -> tuple[View, Match]:
    """Return the samples with labels numbered as the network's outputs."""
    trained.require_classes()
    without = int((shown.label_N < 0).sum())
    if without:
        raise OptionError(
            f"{place}: every sample must have a label, got {without:,} of {len(shown.label_N):,} without in "
            f'{shown.split!r}; choose another split, or a view such as "where label>=0"'
        )
    if trained.split is not None:
        match = match_own(shown.classes, trained.classes, place, set(np.unique(shown.label_N).tolist()))
    else:
        match = match_foreign(shown.classes, trained.classes, place)
    return replace(shown, classes=trained.classes, label_N=match.output_C[shown.label_N]), match


def _of_all_ranks(bad: tuple[BadImage, ...], ranks: Processes) -> tuple[BadImage, ...]:
    if ranks.world_size == 1:
        return bad
    return tuple(sorted((one for part in ranks.gather(bad) for one in part), key=lambda one: one.position))


def _missing(trained: Trained, shown: View) -> tuple[ClassName, ...]:
    if trained.split is None or shown.targets is not None:
        return ()
    there = set(np.unique(shown.label_N).tolist())
    return tuple(one for number, one in enumerate(trained.classes) if number not in there)


def _name(one: ClassName) -> str:
    return one.name if len(one.name) <= 18 else f"{one.name[:17]}…"
