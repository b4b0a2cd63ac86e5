"""Meta's SPDL: FFmpeg decodes, cuts, scales and mirrors in the threads of a pipeline."""

from collections.abc import Iterator
from typing import Any

from benchmarks.loader_peers.task import MEAN, SIDE, STD, Batches, Task


def open_loader(task: Task) -> Batches:
    import numpy as np
    import spdl.io
    import torch
    from spdl.pipeline import PipelineBuilder

    from benchmarks.loader_peers.pillow import random_box

    files = sorted((task.data / "folders").rglob("*.jpg"))
    classes = {name: label for label, name in enumerate(sorted({path.parent.name for path in files}))}
    rng = np.random.Generator(np.random.Philox(key=[1, 0]))
    mean, deviation = (torch.tensor(values)[:, None, None] * 255 for values in (MEAN, STD))

    def source() -> Iterator[tuple[str, int, int]]:
        for at in rng.permutation(len(files)):
            yield str(files[at]), classes[files[at].parent.name], int(at)

    def decode(item: tuple[str, int, int]) -> tuple[Any, int]:
        path, label, at = item
        own = np.random.Generator(np.random.Philox(key=[2, at]))
        packets = spdl.io.demux_image(path)
        left, top, right, bottom = random_box(packets.width, packets.height, own)
        flip = "hflip," if own.random() < 0.5 else ""
        # FFmpeg's bilinear filter grows as it shrinks: it is antialiased.
        chain = f"crop={right - left}:{bottom - top}:{left}:{top},scale={SIDE}:{SIDE}:flags=bilinear,{flip}format=rgb24"
        return spdl.io.decode_packets(packets, filter_desc=chain), label

    def collate(rows: list[tuple[Any, int]]) -> tuple[Any, Any]:
        images = spdl.io.to_torch(spdl.io.convert_frames([frames for frames, _ in rows]))
        labels = torch.tensor([label for _, label in rows])
        if not task.is_float:
            return images, labels
        return ((images.permute(0, 3, 1, 2) - mean) / deviation).contiguous(), labels

    try:
        spdl.io.demux_image(str(files[0]))
    except RuntimeError as error:
        # It comes without FFmpeg, and says so only when it is used.
        raise ImportError(f"SPDL needs FFmpeg's libraries (Debian: libavdevice59): {error}") from error
    torch.set_num_threads(task.threads)
    pipeline = (
        PipelineBuilder()
        .add_source(source())
        .pipe(decode, concurrency=task.threads)
        .aggregate(task.batch, drop_last=True)
        .pipe(collate)
        .add_sink(3)
        .build(num_threads=task.threads)
    )
    with pipeline.auto_stop():
        yield from pipeline
