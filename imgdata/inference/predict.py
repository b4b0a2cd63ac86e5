"""A trained network, images or a dataset -> the classes that it sees in each image, with probabilities."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from imgdata.backends.options import BackendName
from imgdata.dataset.dataset import Dataset
from imgdata.dataset.remote_manifest import manifest_of
from imgdata.errors import ImageError, OptionError, ShardError
from imgdata.inference.explain import Explainer
from imgdata.inference.image_files import FileBatch, file_batches, find_images
from imgdata.inference.predictions import Collector, Predictions
from imgdata.inference.said import Said, SaidCollector
from imgdata.inference.samples import crops_of, loaded, open_shown
from imgdata.inference.trained import Trained, Which, load_trained
from imgdata.loader.bad_images import BadImage, BadImageWarning
from imgdata.loose.opened import open as open_dataset
from imgdata.order.ranks import rank_and_world
from imgdata.sample import ClassName
from imgdata.storage.local_paths import any_path
from imgdata.training.crops import outputs_of
from imgdata.training.distributed import Processes
from imgdata.training.network import exact_products
from imgdata.training.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """One class that an image may be of."""

    index: int
    """Number of the network's output."""
    name: str
    """Name of the class."""
    id: str = ""
    """Id of the class."""
    probability: float
    """Softmax over all classes, 0 to 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Predicted:
    """The classes that the network sees in one image."""

    image: str
    """Name of the image as it was given; for a folder the path of the file."""
    predictions: tuple[Prediction, ...] = ()
    """The most probable first; empty where the image can't be used."""
    error: str | None = None
    """Why it can't be used."""
    explanation: Path | None = None
    """Picture of where the network looked."""
    rotated: bool = False
    """Whether EXIF says that the picture is to be rotated; see `upright` of `predict`."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: `image`, `predictions` with `index`, `name`, `probability`; `error` if any."""
        found: dict[str, Any] = {
            "image": self.image,
            "predictions": [
                {"index": one.index, "name": one.name, "probability": one.probability} for one in self.predictions
            ],
        }
        if self.error is not None:
            found["error"] = self.error
        if self.explanation is not None:
            found["explanation"] = str(self.explanation)
        return found


def predict(
    network: str | Path | Trained,
    images: str | Path | Sequence[str | Path],
    *,
    weights: Path | None = None,
    pretrained: bool = False,
    checkpoint: Which = "best",
    device: str = "auto",
    model: str | nn.Module | None = None,
    upright: bool | None = None,
    top: int = 5,
    crops: int = 1,
    batch_size: int = 32,
    explain: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Predicted]:
    """Return the classes that the network sees in each of `images`, in the order given.

    Pixels are those that a CPU loader with the network's recipe of evaluation would give for the same files. A run that
    was validated with mirror images as well predicts with them. An image that can't be used has an `error`, and doesn't
    stop the others.

    Args:
        network: A run's folder, a network's name, or what `load_trained` returned.
        images: Files, folders (all images inside, sorted) and URLs; or one of them.
        weights: A file of weights, for a network by name; see `load_trained`, as for the next four.
        pretrained: Weights of timm's hub, for a network by name.
        checkpoint: Which weights of a run: `best` or `last`.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        model: The network of a run whose network is your own.
        upright: Rotate pictures as their EXIF says. None: where the network was trained on pictures that `imgdata
            shard` re-encoded, which are upright.
        top: How many classes of each image, at most.
        crops: Crops of each image, see `evaluate`: 1, 5 or 10.
        batch_size: Images that are computed at a time.
        explain: A folder for a picture of each image: where the network looked to see the most probable class.
        progress: Gets how many images are done, and of how many.

    Raises:
        OptionError: Wrong options, and as `load_trained`.
        MissingExtraError: timm, or for `explain` captum or matplotlib, isn't installed.
        SourceError: A folder can't be read.
        OutputError: A picture, or the copy of an image in the temporary folder, can't be written.
    """
    for name, value in (("top", top), ("batch_size", batch_size)):
        if value < 1:
            raise OptionError(f"{name} must be at least 1, got {value}")
    trained = load_trained(
        network, weights=weights, pretrained=pretrained, checkpoint=checkpoint, device=device, model=model
    )
    trained.require_classes()
    recipe, flip_test = crops_of(trained, crops)
    if crops > 1 and explain is not None:
        raise OptionError("explain shows where the network looks in one crop of an image; leave crops out")
    if trained.task.kind == "regression":
        raise OptionError(
            f"{trained.name} predicts numbers, and those of a dataset alone: shard the images with --target none, and "
            "predict that, -o FILE.csv"
        )
    names = find_images([images] if isinstance(images, str | Path) else images)
    explainer = None if explain is None else Explainer(trained, explain)
    found: dict[int, Predicted] = {}
    turned: set[int] = set()

    def refused(number: int, error: ImageError) -> None:
        found[number] = Predicted(image=names[number], error=str(error), rotated=number in turned)
        progress(len(found), len(names))

    with warnings.catch_warnings():
        # Each bad image has its error.
        warnings.simplefilter("ignore", BadImageWarning)
        batches = file_batches(
            names,
            recipe,
            device=trained.device,
            batch_size=batch_size,
            refused=refused,
            upright=made_upright(trained.data) if upright is None else upright,
            rotated=turned.add,
        )
        for batch in batches:
            for number, one in zip(batch.numbers, _predict_batch(trained, batch, names, top, flip_test), strict=True):
                found[number] = replace(one, rotated=number in turned)
            if explainer is not None:
                for number, image_CHW in zip(batch.numbers, batch.images, strict=True):
                    best = found[number].predictions[0]
                    title = f"{best.name}  {best.probability:.1%}"
                    path = explainer.save(image_CHW, best.index, names[number], title)
                    found[number] = replace(found[number], explanation=path)
            progress(len(found), len(names))
    return [found[number] for number in range(len(names))]


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictedDataset:
    """The predictions for a split of a dataset."""

    model: str
    """Name of the network."""
    split: str
    """Name of the split."""
    predictions: Predictions
    """One row for each sample whose image can be decoded."""
    skipped: tuple[BadImage, ...]
    """Samples without a row, as their image can't be decoded."""
    said: Said | None = None
    """What the network says of each sample, where that isn't one class: `predictions` has no rows then."""


@torch.no_grad()
def predict_dataset(
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
    crops: int = 1,
    batch_size: int = 128,
    backend: BackendName = "auto",
    threads: int | None = None,
    progress: Callable[[int, int], None] = lambda done, batches: None,
) -> PredictedDataset:
    """Return the class that the network sees in each sample of a split, with or without labels; or its numbers.

    Args:
        network: A run's folder, a network's name, or what `load_trained` returned.
        dataset: The dataset's folder, or an open dataset; its classes may be any.
        split: Name of the split. None: `test`, or the only one.
        view: A saved view's name, or steps such as `fraction=0.1`.
        weights: A file of weights, for a network by name; see `load_trained`, as for the next four.
        pretrained: Weights of timm's hub, for a network by name.
        checkpoint: Which weights of a run: `best` or `last`.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        model: The network of a run whose network is your own.
        crops: Crops of each image, see `evaluate`: 1, 5 or 10.
        batch_size: Images that are computed at a time.
        backend: Backend of the loader.
        threads: Threads of the loader.
        progress: Gets how many batches are done, and of how many.

    Raises:
        OptionError: Wrong options, several ranks, and as `load_trained`.
        ShardError: The dataset can't be read.
        MissingExtraError: timm isn't installed, and the network is one of its.
    """
    if (world_size := rank_and_world()[1]) > 1:
        raise OptionError(f"predictions must be computed by one process, got {world_size}; start it without torchrun")
    opened = dataset if isinstance(dataset, Dataset) else open_dataset(dataset)
    if split is None:
        split = "test" if "test" in opened else next(iter(opened))
        if split != "test" and len(opened) > 1:
            raise OptionError(f"split must be one of {', '.join(opened)}, got none; choose one with --split")
    shown = open_shown(opened, split, view)
    trained = load_trained(
        network, weights=weights, pretrained=pretrained, checkpoint=checkpoint, device=device, model=model
    )
    trained.require_classes()
    recipe, flip_test = crops_of(trained, crops)
    collector: Collector | SaidCollector = Collector() if trained.task.is_classes else SaidCollector(trained.task)
    # Labels are shown, and not compared: the classes may be others.
    unlabelled = replace(shown, label_N=np.full_like(shown.label_N, -1), targets=None)
    with loaded(
        unlabelled,
        recipe,
        device=trained.device,
        batch_size=batch_size,
        backend=backend,
        threads=threads,
    ) as loader:
        for number, batch in enumerate(loader, 1):
            collector.add(_logits(trained, batch.views, flip_test), batch)
            progress(number, math.ceil(len(shown) / loader.batch_size))
        skipped = loader.bad
    alone = Processes(rank=0, world_size=1, device=trained.device)
    if isinstance(collector, SaidCollector):
        said = collector.said(shown.index.column("key"), trained.classes, alone)
        none = Collector().predictions(shown.index.column("key"), trained.classes, shown.classes, alone)
        return PredictedDataset(model=trained.name, split=split, predictions=none, skipped=skipped, said=said)
    found = collector.predictions(shown.index.column("key"), trained.classes, shown.classes, alone)
    label_P = dict(zip(shown.position_N.tolist(), shown.label_N.tolist(), strict=True))
    label_N = np.array([label_P[position] for position in found.position_N.tolist()], np.int64)
    return PredictedDataset(
        model=trained.name, split=split, predictions=replace(found, label_N=label_N), skipped=skipped
    )


def to_predictions(found: Sequence[Predicted]) -> Predictions:
    """Return the most probable class of each image that could be used as rows, which have no labels."""
    rows = [(one.image, one.predictions[0]) for one in found if one.error is None]
    classes = tuple(dict.fromkeys(ClassName(best.id, best.name) for _, best in rows))
    return Predictions(
        keys=[image for image, _ in rows],
        position_N=np.arange(len(rows)),
        label_N=np.full(len(rows), -1, np.int64),
        predicted_N=np.array([classes.index(ClassName(best.id, best.name)) for _, best in rows], np.int64),
        probability_N=np.array([best.probability for _, best in rows], np.float32),
        loss_N=np.full(len(rows), np.nan, np.float32),
        classes=classes,
        labels=(),
    )


def run_upright(network: str | Path) -> bool:
    """Return whether a run was trained on upright pictures, see `upright` of `predict`; False for what is no run."""
    folder = RunFolder(Path(network))
    return folder.config.exists() and made_upright(any_path(folder.read_config()["data"]))


def made_upright(dataset: Path | None) -> bool:
    """Return whether the pictures of a dataset were re-encoded, and so rotated as their EXIF says."""
    if dataset is None:
        return False
    try:
        options = manifest_of(dataset).options
        return options["resize"] is not None or options["format"] != "keep"
    except (ShardError, KeyError):
        return False


def _logits(trained: Trained, crops: Sequence[torch.Tensor], flip_test: bool) -> torch.Tensor:
    with exact_products(trained.device):
        return outputs_of(trained.model, crops, flip_test=flip_test, task=trained.task)


@torch.no_grad()
def _predict_batch(
    trained: Trained, batch: FileBatch, names: Sequence[str], top: int, flip_test: bool
) -> list[Predicted]:
    logits_NC = _logits(trained, batch.views, flip_test)
    several = trained.task.kind == "multi-label"
    share_NC = logits_NC.float().sigmoid() if several else logits_NC.float().softmax(dim=1)
    best = share_NC.topk(min(top, logits_NC.shape[1]), dim=1)
    return [
        Predicted(
            image=names[number],
            predictions=tuple(
                Prediction(
                    index=index,
                    name=trained.classes[index].name,
                    id=trained.classes[index].id,
                    probability=probability,
                )
                for index, probability in zip(indices, probabilities, strict=True)
            ),
        )
        for number, indices, probabilities in zip(
            batch.numbers, best.indices.tolist(), best.values.tolist(), strict=True
        )
    ]
