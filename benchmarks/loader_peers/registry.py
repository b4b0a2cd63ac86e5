"""The loaders by name: where each is written, what it needs; imports none of them."""

from dataclasses import dataclass
from importlib import import_module

from benchmarks.loader_peers.task import Batches, Task

DTYPES = ("uint8", "float32")


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One loader of the comparison."""

    name: str
    place: str
    """`module:function` inside this package."""
    package: str
    """The distribution whose version is reported."""
    layout: str
    """Data that the loader reads: a folder of `loader_data`."""
    peers: bool = False
    """Whether the loader runs in the environment `.venv-peers`, not in ours."""
    simd: bool = False
    """Whether Pillow-SIMD is first on the path, where it is built."""
    antialias: bool = True
    """Resizes without aliasing; otherwise it is a figure to compare with, and no equal."""
    dtypes: tuple[str, ...] = DTYPES

    def open(self, task: Task) -> Batches:
        """Its batches. Raises `ImportError` where it isn't installed."""
        module, _, function = self.place.partition(":")
        batches: Batches = getattr(import_module(f"benchmarks.loader_peers.{module}"), function)(task)
        return batches


OURS = "imgdata"

PEERS = {
    peer.name: peer
    for peer in (
        Peer(name=OURS, place="ours:open_loader", package="imgdata", layout="shards"),
        Peer(
            name="bare crop decode",
            place="bare_crop:crops",
            package="",
            layout="shards",
            antialias=False,
            dtypes=("uint8",),
        ),
        Peer(
            name="bare full decode",
            place="bare_crop:whole",
            package="",
            layout="shards",
            antialias=False,
            dtypes=("uint8",),
        ),
        Peer(
            name="simplejpeg full decode",
            place="bare_threads:full_decode",
            package="simplejpeg",
            layout="folders",
            antialias=False,
            dtypes=("uint8",),
        ),
        Peer(
            name="simplejpeg + Pillow-SIMD threads",
            place="bare_threads:open_loader",
            package="simplejpeg",
            layout="folders",
            simd=True,
        ),
        Peer(
            name="torchvision v2",
            place="torch_loaders:torchvision_tensors",
            package="torchvision",
            layout="folders",
        ),
        Peer(
            name="TorchCodec + torchvision v2",
            place="torch_loaders:torchcodec",
            package="torchcodec",
            layout="folders",
        ),
        Peer(
            name="torchvision v2 (Pillow)",
            place="torch_loaders:torchvision_pil",
            package="torchvision",
            layout="folders",
        ),
        Peer(
            name="torchvision v2 (Pillow-SIMD)",
            place="torch_loaders:torchvision_pil",
            package="torchvision",
            layout="folders",
            simd=True,
        ),
        Peer(name="timm", place="torch_loaders:timm", package="timm", layout="folders"),
        Peer(name="timm (Pillow-SIMD)", place="torch_loaders:timm", package="timm", layout="folders", simd=True),
        Peer(name="webdataset", place="torch_loaders:webdataset", package="webdataset", layout="shards"),
        Peer(name="DALI", place="dali:open_loader", package="nvidia-dali-cuda120", layout="folders"),
        Peer(name="HF datasets", place="torch_loaders:hugging_face", package="datasets", layout="parquet"),
        Peer(
            name="Streaming",
            place="torch_loaders:streaming",
            package="mosaicml-streaming",
            layout="mds",
            peers=True,
        ),
        Peer(name="LitData", place="torch_loaders:litdata", package="litdata", layout="litdata", peers=True),
        Peer(
            name="Grain + Pillow-SIMD",
            place="grain_threads:open_loader",
            package="grain",
            layout="array_record",
            peers=True,
            simd=True,
        ),
        Peer(name="SPDL", place="spdl_ffmpeg:open_loader", package="spdl", layout="folders", peers=True),
        Peer(name="FFCV", place="ffcv_loader:open_loader", package="ffcv", layout="beton", peers=True),
        Peer(
            name="tf.data",
            place="tf_data:antialiased",
            package="tensorflow-cpu",
            layout="tfrecord",
            peers=True,
        ),
        Peer(
            name="tf.data without antialias",
            place="tf_data:without_antialias",
            package="tensorflow-cpu",
            layout="tfrecord",
            peers=True,
            antialias=False,
        ),
    )
}
