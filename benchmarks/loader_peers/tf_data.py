"""tf.data over TFRecords: decodes only the crop in one fused operator, as TensorFlow's own ImageNet input does."""

from typing import Any

from benchmarks.loader_peers.task import AREA, MEAN, RATIO, SIDE, STD, Batches, Task


def antialiased(task: Task) -> Batches:
    return _batches(task, antialias=True)


def without_antialias(task: Task) -> Batches:
    """How `tf.image.resize` works when nothing is asked for; aliased."""
    return _batches(task, antialias=False)


def _batches(task: Task, *, antialias: bool) -> Batches:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(task.threads)
    tf.config.threading.set_inter_op_parallelism_threads(task.threads)
    features = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}

    def augment(record: Any) -> tuple[Any, Any]:
        row = tf.io.parse_single_example(record, features)
        shape = tf.io.extract_jpeg_shape(row["image"])
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            shape,
            tf.zeros([1, 0, 4]),
            use_image_if_no_bounding_boxes=True,
            min_object_covered=0.0,
            area_range=AREA,
            aspect_ratio_range=RATIO,
            max_attempts=10,
        )
        window = tf.stack([begin[0], begin[1], size[0], size[1]])
        image = tf.io.decode_and_crop_jpeg(row["image"], window, channels=3)
        image = tf.image.resize(image, [SIDE, SIDE], antialias=antialias)
        image = tf.image.random_flip_left_right(image)
        if task.is_float:
            image = (image - 255 * tf.constant(MEAN)) / (255 * tf.constant(STD))
            image = tf.transpose(image, [2, 0, 1])
        else:
            image = tf.saturate_cast(tf.round(image), tf.uint8)
        return image, row["label"]

    options = tf.data.Options()
    options.threading.private_threadpool_size = task.threads
    options.threading.max_intra_op_parallelism = 1
    options.deterministic = False
    files = [str(path) for path in sorted((task.data / "tfrecord").glob("*.tfrecord"))]
    dataset = (
        tf.data.TFRecordDataset(files)
        .shuffle(1024)
        .map(augment, num_parallel_calls=task.threads)
        .batch(task.batch, drop_remainder=True)
        .prefetch(2)
        .with_options(options)
    )
    return dataset.as_numpy_iterator()  # type: ignore[no-any-return]
