"""A run's folder, or a network's name and weights -> a network ready to predict, its classes and its recipe."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from imgdata.devices import choose_device
from imgdata.errors import OptionError
from imgdata.models import create_model, model_input
from imgdata.models.catalogue import IMAGENET_CLASSES, OWN, imagenet_classes
from imgdata.recipes.recipe import Recipe
from imgdata.sample import ClassName
from imgdata.storage.local_paths import any_path
from imgdata.training.checkpoint import load_checkpoint
from imgdata.training.options import TrainOptions, saved_options
from imgdata.training.own import build_own, is_own
from imgdata.training.run_folder import RunFolder
from imgdata.training.setup import read_classes, saved_version
from imgdata.training.task import ONE_CLASS, Task

Which = Literal["best", "last"]
_SHOWN_CHARS = 200


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """A trained network, with its classes and its recipe."""

    model: nn.Module
    """The network, in evaluation mode, on `device`."""
    classes: tuple[ClassName, ...]
    """Id and name of each output."""
    recipe: Recipe
    """The recipe of evaluation, which has nothing random."""
    name: str
    """The network's name, such as `resnet50`."""
    size: int
    """Side of the pictures in pixels."""
    device: torch.device
    flip_test: bool = False
    """Whether it was validated with the mean of each picture and its mirror image."""
    split: str | None = None
    """Name of the split that it was trained on; None for weights from elsewhere."""
    data: Path | None = None
    """Folder of the dataset that a run was trained on."""
    version: int = 1
    """Version of that dataset."""
    options: TrainOptions | None = None
    """Settings of the run; None for weights from elsewhere."""
    task: Task = ONE_CLASS
    """What the network says of a picture."""

    def require_one_class(self, what: str) -> None:
        """Raise `OptionError` for a network whose outputs aren't those of one class; `what` needs one that is."""
        if not self.task.is_classes:
            raise OptionError(f"{self.name}: {what} needs a network of one class a picture, got {self.task.kind!r}")

    def require_classes(self) -> None:
        """Raise `OptionError` for weights without a classifier, which give features alone."""
        if not self.classes and self.task.kind != "regression":
            raise OptionError(
                f"{self.name}: the weights must have a classifier, got features alone; take others, see `imgdata "
                f"models {self.name.partition('.')[0]}`, or `imgdata features`"
            )


def load_trained(
    network: str | Path | Trained,
    *,
    weights: Path | None = None,
    pretrained: bool = False,
    checkpoint: Which = "best",
    device: str = "auto",
    model: str | nn.Module | None = None,
) -> Trained:
    """Return the network of a run, or a network by its name with a file of weights or those of timm's hub.

    A network by name has as many outputs as its weights: 1,000 are ImageNet's classes, others have numbers for names.
    Nothing but tensors is read from files.

    Args:
        network: A run's folder, a network's name, or a `Trained`, which is returned as it is.
        weights: A file of weights, for a network by name.
        pretrained: Weights of timm's hub, for a network by name.
        checkpoint: Which weights of a run: `best` or `last`.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        model: For a run with a network of your own: the module, which is filled with the run's weights, or
            `package.module:function`. Functions named in a run's files are not run.

    Raises:
        OptionError: No such run or network, weights that don't fit, or a device that isn't there.
        MissingExtraError: timm isn't installed, and the network is one of its.
    """
    if isinstance(network, Trained):
        return network
    place = torch.device(choose_device(device, by_rank=True))
    if Path(network).is_dir():
        if weights is not None or pretrained:
            raise OptionError(f"weights and pretrained are for networks by name; {network} is a run, which has its own")
        if not (folder := RunFolder(Path(network))).config.exists():
            raise OptionError(
                f"{network}: must be the folder of a run, got one without {folder.config.name}; the run comes first, "
                "then the dataset or the images"
            )
        return _of_run(folder, checkpoint, place, model)
    if model is not None:
        raise OptionError(f"model is for runs with a network of your own; {network} is none")
    name = str(network)
    if Path(network).is_file():
        raise OptionError(
            f"{network}: must be the folder of a run or the name of a network, got a file; give the run's folder, or "
            f"--weights {network} after the network's name"
        )
    if "/" in name:
        raise OptionError(f"{network}: must be the folder of a run or the name of a network, got neither")
    takes = model_input(name)
    if weights is None and not pretrained:
        hub = "" if name in OWN else ", or --pretrained for those of timm's hub"
        raise OptionError(f"{name} needs weights: --weights FILE{hub}")
    model = create_model(name, num_classes=None, size=takes.size, weights=weights, pretrained=pretrained)
    outputs: int = model.num_classes  # type: ignore[assignment]
    return Trained(
        model=model.to(place).eval(),
        classes=imagenet_classes() if outputs == IMAGENET_CLASSES else _numbered(outputs),
        recipe=takes.eval_recipe(),
        name=name,
        size=takes.size,
        device=place,
    )


def _network(name: str, own: str | nn.Module | None, num_classes: int, size: int, folder: RunFolder) -> nn.Module:
    if not is_own(name):
        if own is not None:
            raise OptionError(f"model is for runs with a network of your own; that of {folder.path} is {name}")
        return create_model(name, num_classes=num_classes, size=size)
    if own is None:
        raise OptionError(
            f"{folder.path}: its network is your own, {name}, whose code is run only where you name it; add --model "
            f"{name} (model=... in Python)"
        )
    return build_own(own, num_classes) if isinstance(own, str) else own


def _numbered(outputs: int) -> tuple[ClassName, ...]:
    return tuple(ClassName(str(number), str(number)) for number in range(outputs))


def _of_run(folder: RunFolder, checkpoint: Which, device: torch.device, own: str | nn.Module | None = None) -> Trained:
    try:
        return _restored(folder, checkpoint, device, own)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        # What a run writes fits together: other types, names or shapes were put there by someone else.
        why = " ".join(f"{type(error).__name__}: {error}".split())[:_SHOWN_CHARS]
        raise OptionError(f"{folder.path}: the run's files are damaged or don't belong together ({why})") from error


def _restored(folder: RunFolder, checkpoint: Which, device: torch.device, own: str | nn.Module | None) -> Trained:
    config = folder.read_config()
    options = saved_options(config["options"])
    classes, size = read_classes(config), config["size"]
    path = folder.best if checkpoint == "best" else folder.last
    if not path.exists():
        raise OptionError(f"{folder.path}: has no {path.name} yet; train an epoch first")
    state = load_checkpoint(path)
    if options.model is None:
        raise OptionError(f"{folder.config}: must name the model; it is damaged")
    task = Task.from_dict(config["target"]) if "target" in config else replace(ONE_CLASS, outputs=len(classes))
    model = _network(options.model, own, task.outputs, size, folder)
    model.load_state_dict(state.get("ema") or state["model"])
    return Trained(
        model=model.to(device).eval(),
        classes=classes,
        recipe=Recipe.from_dict(config["eval_recipe"]),
        name=options.model,
        size=size,
        device=device,
        flip_test=options.flip_test,
        split=options.split,
        data=any_path(config["data"]),
        version=saved_version(config),
        options=options,
        task=task,
    )
