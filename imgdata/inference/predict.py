"""A trained network, images -> the classes that it sees in each, with probabilities."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from imgdata.errors import ImageError, OptionError
from imgdata.inference.explain import Explainer
from imgdata.inference.image_files import FileBatch, file_batches, find_images
from imgdata.inference.trained import Trained, Which, load_trained
from imgdata.loader.bad_images import BadImageWarning


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """One class that an image may be of."""

    index: int
    """Of the class among the network's outputs."""
    name: str
    probability: float
    """Softmax over all classes, 0 to 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Predicted:
    """What the network sees in one image."""

    image: str
    """As it was given; of a folder its path in it, joined."""
    predictions: tuple[Prediction, ...] = ()
    """The most probable first; empty where the image can't be used."""
    error: str | None = None
    """Why it can't be used."""
    explanation: Path | None = None
    """The picture of where the network looked."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON: `image`, `predictions` with `index`, `name` and `probability` each; `error` where there is one."""
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
    source: str | Path | Trained,
    images: str | Path | Sequence[str | Path],
    *,
    weights: Path | None = None,
    pretrained: bool = False,
    checkpoint: Which = "best",
    device: str = "auto",
    top: int = 5,
    batch_size: int = 32,
    explain: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Predicted]:
    """What the network sees in each of `images`, in the order given.

    Pixels are those that a CPU loader with the network's recipe of evaluation would give for the same files; as there,
    an EXIF rotation is not applied. A run that was validated with mirror images as well predicts with them. An image
    that can't be used has an `error`, and doesn't stop the others.

    Args:
        source: A run's folder, a network's name, or what `load_trained` gave.
        images: Files, folders (all images inside, sorted) and URLs; or one of them.
        weights: A file of weights, for a network by name; see `load_trained`, as for the next three.
        pretrained: Weights of timm's hub, for a network by name.
        checkpoint: Of a run: `best` or `last`.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        top: How many classes of each image, at most.
        batch_size: Images that are computed at a time.
        explain: A folder for a picture of each image: where the network looked to see the most probable class.
        progress: Gets how many images are done, and of how many.

    Raises:
        OptionError: Of options, and as `load_trained`.
        MissingExtraError: timm, or for `explain` captum or matplotlib, isn't installed.
        SourceError: A folder can't be read.
        OutputError: A picture, or the copy of an image in the temporary folder, can't be written.
    """
    for name, value in (("top", top), ("batch_size", batch_size)):
        if value < 1:
            raise OptionError(f"{name} must be at least 1, got {value}")
    trained = load_trained(source, weights=weights, pretrained=pretrained, checkpoint=checkpoint, device=device)
    trained.require_classes()
    names = find_images([images] if isinstance(images, str | Path) else images)
    explainer = None if explain is None else Explainer(trained, explain)
    found: dict[int, Predicted] = {}

    def refused(number: int, error: ImageError) -> None:
        found[number] = Predicted(image=names[number], error=str(error))
        progress(len(found), len(names))

    with warnings.catch_warnings():
        # Each bad image has its error.
        warnings.simplefilter("ignore", BadImageWarning)
        batches = file_batches(names, trained.recipe, device=trained.device, batch_size=batch_size, refused=refused)
        for batch in batches:
            for number, one in zip(batch.numbers, _predict_batch(trained, batch, names, top), strict=True):
                found[number] = one
            if explainer is not None:
                for number, image_CHW in zip(batch.numbers, batch.images, strict=True):
                    best = found[number].predictions[0]
                    title = f"{best.name}  {best.probability:.1%}"
                    path = explainer.save(image_CHW, best.index, names[number], title)
                    found[number] = Predicted(
                        image=names[number], predictions=found[number].predictions, explanation=path
                    )
            progress(len(found), len(names))
    return [found[number] for number in range(len(names))]


@torch.no_grad()
def _predict_batch(trained: Trained, batch: FileBatch, names: Sequence[str], top: int) -> list[Predicted]:
    logits_NC = trained.model(batch.images)
    if trained.flip_test:
        logits_NC = (logits_NC + trained.model(batch.images.flip(-1))) / 2
    best = logits_NC.float().softmax(dim=1).topk(min(top, logits_NC.shape[1]), dim=1)
    return [
        Predicted(
            image=names[number],
            predictions=tuple(
                Prediction(index=index, name=trained.classes[index].name, probability=probability)
                for index, probability in zip(indices, probabilities, strict=True)
            ),
        )
        for number, indices, probabilities in zip(
            batch.numbers, best.indices.tolist(), best.values.tolist(), strict=True
        )
    ]
