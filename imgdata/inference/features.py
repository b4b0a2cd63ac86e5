"""A network, a split -> a file with one vector for each image: what the classifier gets, with keys and labels."""

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from imgdata.arrow import number_array, text_array
from imgdata.backends.options import BackendName
from imgdata.errors import OptionError
from imgdata.inference.evaluate import check_folder, open_shown
from imgdata.inference.trained import Trained, Which, load_trained
from imgdata.loader.bad_images import BadImage, BadImageWarning
from imgdata.loader.loader import Loader
from imgdata.order.ranks import rank_and_world
from imgdata.sample import ClassName
from imgdata.storage.atomic import whole_file

SUFFIXES = (".npz", ".parquet")
_ROW_GROUP = 8192


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """The vectors of a split, in the order of its index."""

    model: str
    vector_ND: NDArray[np.float32]
    """What the network's classifier gets, float32 `(N, D)`."""
    keys: list[str]
    """Of the samples, `(N,)`."""
    label_N: NDArray[np.int64]
    """Class index in `classes`, int64 `(N,)`; -1 for none."""
    classes: tuple[ClassName, ...]
    """Of the dataset."""
    skipped: tuple[BadImage, ...]
    """Samples that have no row, as their image can't be decoded."""


def features(
    source: str | Path | Trained,
    out: str | Path,
    path: str | Path | None = None,
    *,
    split: str = "train",
    view: str = "",
    weights: Path | None = None,
    pretrained: bool = False,
    checkpoint: Which = "best",
    device: str = "auto",
    batch_size: int = 128,
    backend: BackendName = "auto",
    threads: int | None = None,
    exact: bool = False,
    progress: Callable[[int, int], None] = lambda done, batches: None,
) -> Features:
    """The features of each sample once, in the order of the index, and a file of them where `path` is given.

    They are `forward_head(forward_features(x), pre_logits=True)`, pooled: 2048 numbers of resnet50, 4096 of vgg16, 1280
    of efficientnet_b0. All are in memory together, 4 N D bytes.

    A `.npz` file has the arrays `features` float32 `(N, D)`, `key`, `label` int64, and `classes`, the ids; numpy.load
    reads it without pickles. A `.parquet` file has the columns `key`, `label`, `features` (lists of D floats), and its
    metadata the classes as JSON.

    Args:
        source: A run's folder, a network's name, or what `load_trained` gave.
        out: The dataset's folder; its classes may be any.
        path: What is written.
        split: Name of the split.
        view: A saved view's name, or steps such as `fraction=0.1`.
        weights: A file of weights, for a network by name; see `load_trained`, as for the next three.
        pretrained: Weights of timm's hub, for a network by name.
        checkpoint: Of a run: `best` or `last`.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        batch_size: Images that are computed at a time.
        backend: Of the loader.
        threads: Of the loader.
        exact: Decode and resize as torchvision and timm do, for figures that must agree with theirs; slower.
        progress: Gets how many batches are done, and of how many.

    Raises:
        OptionError: Of options, another suffix, several ranks, a balanced view, and as `load_trained`.
        OutputError: The file can't be written.
        ShardError: The dataset can't be read.
        MissingExtraError: timm isn't installed, and the network is one of its.
    """
    file = None if path is None else _checked(Path(path))
    _refuse_ranks()
    shown = open_shown(Path(out), split, view)
    if shown.resampling is not None:
        raise OptionError("the view of features must have each sample once, got a balanced one; leave balance out")
    trained = load_trained(source, weights=weights, pretrained=pretrained, checkpoint=checkpoint, device=device)
    with (
        warnings.catch_warnings(),
        Loader(
            shown,
            # What fills up a batch is computed, too.
            batch_size=min(batch_size, len(shown)),
            recipe=trained.recipe,
            device=trained.device,
            backend=backend,
            shuffle="none",
            dtype="float32",
            threads=threads,
            exact=exact,
        ) as loader,
    ):
        # They are named in the result.
        warnings.simplefilter("ignore", BadImageWarning)
        found = _collect(trained, loader, progress)
    if file is not None:
        (_write_npz if file.suffix == ".npz" else _write_parquet)(found, file)
    return found


@torch.no_grad()
def _collect(trained: Trained, loader: Loader, progress: Callable[[int, int], None]) -> Features:
    vector_ND = np.empty((0, 0), np.float32)
    position_N = np.empty(len(loader.view), np.int64)
    label_N = np.empty(len(loader.view), np.int64)
    done = 0
    for number, batch in enumerate(loader, 1):
        good_M = batch.valid
        part_MD = _vectors(trained, batch.images)[good_M.to(batch.images.device)].cpu().numpy()
        if not done:
            vector_ND = np.empty((len(loader.view), part_MD.shape[1]), np.float32)
        end = done + len(part_MD)
        vector_ND[done:end] = part_MD
        position_N[done:end] = batch.positions[good_M].numpy()
        label_N[done:end] = batch.labels.cpu()[good_M].numpy()
        done = end
        progress(number, len(loader))
    keys = loader.view.index.column("key").take(number_array(position_N[:done]))
    return Features(
        model=trained.name,
        vector_ND=vector_ND[:done],
        keys=keys.to_pylist(),
        label_N=label_N[:done],
        classes=loader.classes,
        skipped=loader.bad,
    )


def _vectors(trained: Trained, images: torch.Tensor) -> torch.Tensor:
    """float32 `(N, D)`; a few of timm's networks leave sides of 1 behind their pooling."""
    model = trained.model
    vectors: torch.Tensor = model.forward_head(model.forward_features(images), pre_logits=True)  # type: ignore[operator]
    return vectors.flatten(1).float()


def _checked(path: Path) -> Path:
    """The path, before hours are spent on what belongs there."""
    if path.suffix not in SUFFIXES:
        raise OptionError(f"features must go to a {' or '.join(SUFFIXES)} file, got {path}")
    check_folder(path)
    return path


def _refuse_ranks() -> None:
    _, world_size = rank_and_world()
    if world_size > 1:
        raise OptionError(f"features must be computed by one process, got {world_size}; start it without torchrun")


def _write_npz(found: Features, path: Path) -> None:
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        np.savez(
            file,
            features=found.vector_ND,
            key=np.array(found.keys, np.str_),
            label=found.label_N,
            classes=np.array([one.id for one in found.classes], np.str_),
        )


def _write_parquet(found: Features, path: Path) -> None:
    width = found.vector_ND.shape[1]
    metadata = {"model": found.model, "classes": json.dumps([list(one) for one in found.classes])}
    schema = pa.schema(
        [("key", pa.string()), ("label", pa.int64()), ("features", pa.list_(pa.float32(), width))], metadata=metadata
    )
    with whole_file(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for start in range(0, len(found.keys), _ROW_GROUP):
            rows = slice(start, start + _ROW_GROUP)
            vectors = pa.FixedSizeListArray.from_arrays(number_array(found.vector_ND[rows].reshape(-1)), width)
            columns = [text_array(found.keys[rows]), number_array(found.label_N[rows]), vectors]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
