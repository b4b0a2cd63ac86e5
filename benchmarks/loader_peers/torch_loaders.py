"""Datasets for PyTorch's `DataLoader`: torchvision, TorchCodec, timm, webdataset, HF, Streaming, LitData."""

from typing import Any

from benchmarks.loader_peers.task import MEAN, SIDE, STD, Batches, Task, data_loader, tensor_transform, torchvision_v2


def torchvision_tensors(task: Task) -> Batches:
    """`ImageFolder` that reads bytes; `decode_jpeg`, then all operators on uint8 tensors."""
    from pathlib import Path

    from torchvision.datasets import ImageFolder

    transform = tensor_transform(task)
    dataset = ImageFolder(task.data / "folders", transform, loader=lambda path: Path(path).read_bytes())
    return data_loader(task, dataset, shuffle=True)


def torchcodec(task: Task) -> Batches:
    """`ImageFolder` that reads bytes; TorchCodec's `decode_jpeg`, then all operators on uint8 tensors."""
    from pathlib import Path

    from torchcodec.decoders import decode_jpeg
    from torchvision.datasets import ImageFolder

    augment = torchvision_v2(task)
    dataset = ImageFolder(
        task.data / "folders",
        lambda data: augment(decode_jpeg(data, mode="RGB")),
        loader=lambda path: Path(path).read_bytes(),
    )
    return data_loader(task, dataset, shuffle=True)


def torchvision_pil(task: Task) -> Batches:
    """`ImageFolder` as it comes: PIL images."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    dataset = ImageFolder(task.data / "folders", torchvision_v2(task, v2.PILToTensor()))
    return data_loader(task, dataset, shuffle=True)


def timm(task: Task) -> Batches:
    """`create_dataset` and `create_loader`; uint8 batches are what its prefetcher gets, float32 what it makes."""
    import torch
    from timm.data import create_dataset, create_loader

    torch.set_num_threads(task.threads)
    dataset = create_dataset("", root=str(task.data / "folders"), is_training=True)
    loader = create_loader(
        dataset,
        input_size=(3, SIDE, SIDE),
        batch_size=task.batch,
        is_training=True,
        hflip=0.5,
        color_jitter=None,
        interpolation="bilinear",
        mean=MEAN,
        std=STD,
        num_workers=task.threads,
        device=torch.device("cpu"),
        pin_memory=False,
        persistent_workers=False,
    )
    batches: Batches = loader if task.is_float else loader.loader
    return batches


def webdataset(task: Task) -> Batches:
    """Our shards as a `WebDataset`, batched in the workers as its docs advise."""
    import webdataset as wds

    transform = tensor_transform(task)
    shards = [str(path) for path in sorted((task.data / "shards").glob("*.tar"))]
    dataset = (
        wds.WebDataset(shards, shardshuffle=len(shards))
        .shuffle(1000)
        .to_tuple("jpg", "cls")
        .map_tuple(transform, int)
        .batched(task.batch, partial=False)
    )
    return data_loader(task, dataset, batch_size=None, drop_last=False)


def hugging_face(task: Task) -> Batches:
    """Parquet by `load_dataset`, images left as bytes and decoded by torchvision."""
    import datasets
    import torch

    transform = tensor_transform(task)

    def batch(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {"image": [transform(image["bytes"]) for image in rows["image"]], "label": rows["label"]}

    def collate(rows: list[dict[str, Any]]) -> tuple[Any, Any]:
        return torch.stack([row["image"] for row in rows]), torch.tensor([row["label"] for row in rows])

    datasets.disable_progress_bars()
    dataset = datasets.load_dataset(
        "parquet", data_files=str(task.data / "parquet" / "*.parquet"), split="train", cache_dir=str(task.data / "hf")
    )
    dataset = dataset.cast_column("image", datasets.Image(decode=False)).with_transform(batch)
    return data_loader(task, dataset, shuffle=True, collate_fn=collate)


def streaming(task: Task) -> Batches:
    """MosaicML's `StreamingDataset` over local MDS shards."""
    return data_loader(task, mds_images(task, local=str(task.data / "mds")))


def mds_images(task: Task, **place: str) -> Any:
    """Return MosaicML's dataset of MDS shards at a place, shuffled."""
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    transform = tensor_transform(task)

    class Images(StreamingDataset):
        def __getitem__(self, at: int) -> Any:
            row = super().__getitem__(at)
            return transform(row["image"]), row["label"]

    # A process that was ended leaves its shared memory behind, and the next one takes it for its own.
    clean_stale_shared_memory()
    return Images(**place, shuffle=True, batch_size=task.batch)


def litdata(task: Task) -> Batches:
    """Lightning's `StreamingDataset` over local chunks, with its own loader."""
    return lit_loader(task, str(task.data / "litdata"))


def lit_loader(task: Task, place: Any, *, persistent_workers: bool = False, **options: Any) -> Batches:
    """Return Lightning's loader of its chunks at a place, shuffled."""
    from litdata import StreamingDataLoader, StreamingDataset

    transform = tensor_transform(task)

    class Images(StreamingDataset):
        def __getitem__(self, at: Any) -> Any:
            row = super().__getitem__(at)
            return transform(row["image"]), row["label"]

    loader: Batches = StreamingDataLoader(
        Images(place, shuffle=True, drop_last=True, **options),
        batch_size=task.batch,
        num_workers=task.threads,
        persistent_workers=persistent_workers,
    )
    return loader
