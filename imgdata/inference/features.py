"""A network, a split -> one vector for each image, the classifier's input, with keys and labels; as a file."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import nn

from imgdata.arrow import number_array, text_array
from imgdata.backends.options import BackendName
from imgdata.dataset.dataset import Dataset
from imgdata.errors import OptionError
from imgdata.inference.predictions import check_folder
from imgdata.inference.samples import loaded, open_shown
from imgdata.inference.trained import Trained, Which, load_trained
from imgdata.loader.bad_images import BadImage
from imgdata.loader.loader import Loader
from imgdata.loose.opened import open as open_dataset
from imgdata.order.ranks import rank_and_world
from imgdata.sample import ClassName
from imgdata.storage.atomic import whole_file
from imgdata.training.network import exact_products

SUFFIXES = (".npz", ".parquet")
_ROW_GROUP = 8192


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """The vectors of a split, in the order of its index."""

    model: str
    """Name of the network."""
    vector_ND: NDArray[np.float32]
    """Input of the network's classifier, float32 `(N, D)`."""
    keys: list[str]
    """Keys of the samples, `(N,)`."""
    label_N: NDArray[np.int64]
    """Class index in `classes`, int64 `(N,)`; -1 for none."""
    classes: tuple[ClassName, ...]
    """Classes of the dataset."""
    skipped: tuple[BadImage, ...]
    """Samples that have no row, as their image can't be decoded."""

    def __repr__(self) -> str:
        rows, width = self.vector_ND.shape
        return f"<Features of {self.model}: {rows:,} vectors of {width:,} numbers>"


def features(
    network: str | Path | Trained,
    dataset: str | Path | Dataset,
    path: str | Path | None = None,
    *,
    split: str = "train",
    view: str = "",
    weights: Path | None = None,
    pretrained: bool = False,
    checkpoint: Which = "best",
    device: str = "auto",
    model: str | nn.Module | None = None,
    batch_size: int = 128,
    backend: BackendName = "auto",
    threads: int | None = None,
    exact: bool = False,
    progress: Callable[[int, int], None] = lambda done, batches: None,
) -> Features:
    """Return the features of each sample once, in the order of the index, and write them to `path` if it is given.

    They are `forward_head(forward_features(x), pre_logits=True)`, pooled: 2048 numbers of resnet50, 4096 of vgg16, 1280
    of efficientnet_b0. All are in memory together, 4 N D bytes.

    A `.npz` file has the arrays `features` float32 `(N, D)`, `key`, `label` int64, and `classes`, the ids; numpy.load
    reads it without pickles. A `.parquet` file has the columns `key`, `label`, `features` (lists of D floats), and its
    metadata the classes as JSON.

    Args:
        network: A run's folder, a network's name, or what `load_trained` returned.
        dataset: The dataset's folder, or an open dataset; its classes may be any.
        path: The file that is written.
        split: Name of the split.
        view: A saved view's name, or steps such as `fraction=0.1`.
        weights: A file of weights, for a network by name; see `load_trained`, as for the next four.
        pretrained: Weights of timm's hub, for a network by name.
        checkpoint: Which weights of a run: `best` or `last`.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        model: The network of a run whose network is your own.
        batch_size: Images that are computed at a time.
        backend: Backend of the loader.
        threads: Threads of the loader.
        exact: Decode and resize as torchvision and timm do, for figures that must agree with theirs; slower.
        progress: Gets how many batches are done, and of how many.

    Raises:
        OptionError: Wrong options, another suffix, several ranks, a balanced view, and as `load_trained`.
        OutputError: The file can't be written.
        ShardError: The dataset can't be read.
        MissingExtraError: timm isn't installed, and the network is one of its.
    """
    file = None if path is None else _checked(Path(path))
    _refuse_ranks()
    shown = open_shown(dataset if isinstance(dataset, Dataset) else open_dataset(dataset), split, view)
    if shown.resampling is not None:
        raise OptionError("the view of features must have each sample once, got a balanced one; leave balance out")
    trained = load_trained(
        network, weights=weights, pretrained=pretrained, checkpoint=checkpoint, device=device, model=model
    )
    require_features(trained)
    with loaded(
        shown,
        trained.recipe,
        device=trained.device,
        batch_size=batch_size,
        backend=backend,
        threads=threads,
        exact=exact,
    ) as loader:
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
        part_MD = network_vectors(trained, batch.images)[good_M.to(batch.images.device)].cpu().numpy()
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


def require_features(trained: Trained) -> None:
    """Raise `OptionError` for a network that gives no features."""
    if not hasattr(trained.model, "forward_head"):
        raise OptionError(
            f"{trained.name}: features need a network with forward_features(x) and forward_head(x, pre_logits=True), "
            "as timm's have; add them to yours"
        )


@torch.no_grad()
def network_vectors(trained: Trained, images: torch.Tensor) -> torch.Tensor:
    """Return features, float32 `(N, D)`; a few of timm's networks keep sides of 1 after their pooling."""
    model = trained.model
    with exact_products(trained.device):
        vectors: torch.Tensor = model.forward_head(model.forward_features(images), pre_logits=True)  # type: ignore[operator]
    return vectors.flatten(1).float()


def _checked(path: Path) -> Path:
    """Return the path; raise for one that can't be written before hours are spent on its contents."""
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
