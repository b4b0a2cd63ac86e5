"""NVIDIA DALI on the processor: only the crop is decoded, antialiased resize, flip."""

from benchmarks.loader_peers.task import AREA, MEAN, RATIO, SIDE, STD, Batches, Task


def open_loader(task: Task) -> Batches:
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.plugin.base_iterator import LastBatchPolicy
    from nvidia.dali.plugin.pytorch import DALIGenericIterator

    @pipeline_def(batch_size=task.batch, num_threads=task.threads, device_id=None, seed=1)
    def pipeline():  # type: ignore[no-untyped-def]
        jpegs, labels = fn.readers.file(
            file_root=str(task.data / "folders"), random_shuffle=True, initial_fill=1024, name="reader"
        )
        images = fn.decoders.image_random_crop(
            jpegs, device="cpu", output_type=types.RGB, random_area=AREA, random_aspect_ratio=RATIO, num_attempts=10
        )
        images = fn.resize(images, size=(SIDE, SIDE), interp_type=types.INTERP_LINEAR, antialias=True)
        mirror = fn.random.coin_flip()
        if not task.is_float:
            return fn.flip(images, horizontal=mirror), labels
        images = fn.crop_mirror_normalize(
            images,
            mirror=mirror,
            mean=[255 * mean for mean in MEAN],
            std=[255 * std for std in STD],
            dtype=types.FLOAT,
            output_layout="CHW",
        )
        return images, labels

    batches = DALIGenericIterator(
        pipeline(), ["images", "labels"], reader_name="reader", last_batch_policy=LastBatchPolicy.DROP
    )
    return ((batch[0]["images"], batch[0]["labels"]) for batch in batches)
