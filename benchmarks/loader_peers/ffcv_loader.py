"""FFCV: images written into its own format as the JPEGs they are; whole decode and OpenCV's area filter."""

import io
import multiprocessing
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.loader_peers.task import AREA, MEAN, RATIO, SIDE, STD, Batches, Task


def _stored_jpeg() -> type:
    """Return a field that keeps the bytes: FFCV's own field re-encodes everything."""
    from ffcv.fields.rgb_image import IMAGE_MODES, RGBImageField
    from PIL import Image

    class StoredJPEG(RGBImageField):  # type: ignore[misc]
        @staticmethod
        def from_binary(binary: Any) -> Any:
            return StoredJPEG()

        def encode(self, destination: Any, image: bytes, malloc: Any) -> None:
            destination["mode"] = IMAGE_MODES["jpg"]
            with Image.open(io.BytesIO(image)) as opened:
                destination["width"], destination["height"] = opened.size
            destination["data_ptr"], storage = malloc(len(image))
            storage[:] = np.frombuffer(image, np.uint8)

    return StoredJPEG


class _Files:
    """What its writer takes: (JPEG bytes, label) by number."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.rglob("*.jpg"))
        self.classes = sorted({path.parent.name for path in self.paths})

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, at: int) -> tuple[bytes, int]:
        path = self.paths[at]
        return path.read_bytes(), self.classes.index(path.parent.name)


def write(source: Path, out: Path, workers: int = 1) -> None:
    """Class folders -> `out/train.beton`."""
    from ffcv.fields import IntField
    from ffcv.writer import DatasetWriter

    out.mkdir(parents=True)
    fields = {"image": _stored_jpeg()(), "label": IntField()}
    DatasetWriter(str(out / "train.beton"), fields, num_workers=workers).from_indexed_dataset(_Files(source))
    # It doesn't wait for its processes, and the processor time of those that nobody waited for is not counted.
    for process in multiprocessing.active_children():
        process.join()


def open_loader(task: Task) -> Batches:
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, Squeeze, ToTensor, ToTorchImage

    mean, deviation = (255 * np.array(values) for values in (MEAN, STD))
    normalize = [NormalizeImage(mean, deviation, np.float32)] if task.is_float else []
    image = [
        RandomResizedCropRGBImageDecoder((SIDE, SIDE), scale=AREA, ratio=RATIO),
        RandomHorizontalFlip(),
        *normalize,
        ToTensor(),
        # Channels first as a view for uint8, as memory for float.
        ToTorchImage(channels_last=not task.is_float),
    ]
    return Loader(  # type: ignore[no-any-return]
        str(task.data / "beton" / "train.beton"),
        batch_size=task.batch,
        num_workers=task.threads,
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=True,
        seed=1,
        pipelines={"image": image, "label": [IntDecoder(), ToTensor(), Squeeze()]},
        custom_fields={"image": _stored_jpeg()},
    )


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
