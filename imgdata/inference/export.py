"""A trained network -> an ONNX file that gives the same logits, and says by itself what it takes and what it means."""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from imgdata.errors import MissingExtraError, OptionError, OutputError
from imgdata.inference.predictions import check_folder
from imgdata.inference.trained import Trained, Which, load_trained
from imgdata.recipes.ops import CenterCrop, Normalize, Resize
from imgdata.storage.atomic import write_atomic
from imgdata.version import __version__

MAX_DIFFERENCE = 1e-3
"""Largest difference between logits of the file and of the network."""
_CHECKED_BATCHES = (1, 3)


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """A file that was written and checked."""

    path: Path
    bytes: int
    """Size of the file in bytes."""
    opset: int
    """Version of ONNX's operators."""
    max_difference: float
    """Largest difference between its logits, by onnxruntime, and the network's, for batches of 1 and 3 images."""
    size: int
    """Side of the images in pixels; the number of images is open."""
    classes: int
    """Number of classes."""


def export_model(
    network: str | Path | Trained,
    path: str | Path,
    *,
    weights: Path | None = None,
    pretrained: bool = False,
    checkpoint: Which = "best",
    model: str | nn.Module | None = None,
) -> Exported:
    """Write the network as ONNX: `images` float32 `(batch, 3, S, S)`, normalised, to `logits` float32 `(batch, C)`.

    onnxruntime runs it before it gets its name; a file whose logits differ by more than `MAX_DIFFERENCE` is refused.
    Its metadata, all text: `model`, `size`, `mean` and `std` (JSON, of red, green, blue on the scale from 0 to 1),
    `resize` and `interpolation`, `class_ids` and `class_names` (JSON, in the order of the logits), `recipe` (JSON, as
    `Recipe.to_dict`), `imgdata_version`.

    Args:
        network: A run's folder, a network's name, or what `load_trained` returned.
        path: The file that is written; one that is there is replaced.
        weights: A file of weights, for a network by name; see `load_trained`, as for the next three.
        pretrained: Weights of timm's hub, for a network by name.
        checkpoint: Which weights of a run: `best` or `last`.
        model: The network of a run whose network is your own.

    Raises:
        OptionError: Another suffix, a network that can't be exported, and as `load_trained`.
        OutputError: The file can't be written, or differs from the network.
        MissingExtraError: onnx, onnxruntime, onnxscript or timm isn't installed.
    """
    file = Path(path)
    if file.suffix != ".onnx":
        raise OptionError(f"a model must go to an .onnx file, got {file}")
    check_folder(file)
    onnx, onnxruntime = _packages()
    trained = load_trained(
        network, weights=weights, pretrained=pretrained, checkpoint=checkpoint, device="cpu", model=model
    )
    trained.require_classes()
    proto = _converted(trained)
    onnx.helper.set_model_props(proto, _metadata(trained))
    data: bytes = proto.SerializeToString()
    difference = _difference(onnxruntime, data, trained)
    if not difference <= MAX_DIFFERENCE:
        raise OutputError(
            f"{file}: not written, its logits differ by {difference:.2g} from the network's, at most "
            f"{MAX_DIFFERENCE:g} is right; another version of onnx, onnxscript or onnxruntime may do better"
        )
    write_atomic(file, data)
    return Exported(
        path=file,
        bytes=len(data),
        opset=next(one.version for one in proto.opset_import if not one.domain),
        max_difference=difference,
        size=trained.size,
        classes=len(trained.classes),
    )


def _packages() -> tuple[ModuleType, ModuleType]:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"export needs onnx, onnxruntime and onnxscript, got none of {error.name}: pip install 'imgdata[onnx]'"
        ) from error
    return onnx, onnxruntime


def _converted(trained: Trained) -> Any:
    """Return the network as an `onnx.ModelProto`, with an open number of images."""
    # Two, since the exporter takes a batch of one for a constant.
    example = torch.zeros(2, 3, trained.size, trained.size, device=trained.device)
    with _silence():
        try:
            program = torch.onnx.export(
                trained.model,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=["images"],
                output_names=["logits"],
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            first = str(error).strip().partition("\n")[0]
            raise OptionError(
                f"{trained.name}: PyTorch can't export it to ONNX: {first}; take another network"
            ) from error
    assert program is not None, "no ONNX program in spite of dynamo=True"
    return program.model_proto


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Hide what the exporter prints, logs and warns of in the block, which is meant for its developers."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _metadata(trained: Trained) -> dict[str, str]:
    recipe = trained.recipe
    normalize, resize, crop = recipe.find(Normalize), recipe.find(Resize), recipe.find(CenterCrop)
    mean, std = (normalize.mean, normalize.std) if normalize is not None else ((0.0,) * 3, (1.0,) * 3)
    values: dict[str, Any] = {
        "model": trained.name,
        "size": trained.size,
        "mean": list(mean),
        "std": list(std),
        "class_ids": [one.id for one in trained.classes],
        "class_names": [one.name for one in trained.classes],
        "recipe": recipe.to_dict(),
        "imgdata_version": __version__,
    }
    if resize is not None:
        values |= {"resize": resize.size, "interpolation": resize.interpolation}
    if crop is not None:
        values["crop"] = crop.size
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}


def _difference(onnxruntime: ModuleType, data: bytes, trained: Trained) -> float:
    """Return the largest difference of logits, over batches of several lengths of random images."""
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    generator = np.random.Generator(np.random.Philox(key=[0, 0]))
    largest = 0.0
    for count in _CHECKED_BATCHES:
        # Normalised pixels are about as spread.
        images = generator.standard_normal((count, 3, trained.size, trained.size), np.float32)
        with torch.no_grad():
            wanted = trained.model(torch.from_numpy(images).to(trained.device)).float().cpu().numpy()
        (got,) = session.run(["logits"], {"images": images})
        # A logit that is no number differs from any.
        largest = max(largest, float(np.nan_to_num(np.abs(got - wanted), nan=np.inf).max()))
    return largest
