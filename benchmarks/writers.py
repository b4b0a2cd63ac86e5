"""A folder of JPEGs -> a dataset on disk, by imgdata and by its peers; each measured in a process of its own.

`python -m benchmarks.writers NAME SOURCE OUT` prints one JSON line: seconds and CPU-seconds of the work alone
(start of Python and imports left out), and the largest resident set of the process and its children in MB.
"""

import io
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

WORKERS = 2
SHARD_BYTES = int(os.environ.get("SHARD_BYTES", 256_000_000))

Writer = Callable[[Path, Path], None]
"""Function that writes the class folders of the first argument as a dataset into the second."""


def _files(source: Path) -> Iterator[tuple[Path, int]]:
    """Every image with its label, in order."""
    for label, folder in enumerate(sorted(path for path in source.iterdir() if path.is_dir())):
        for path in sorted(folder.iterdir()):
            yield path, label


def imgdata_writer(workers: int = WORKERS, **options: Any) -> Writer:
    """`imgdata.shard` with `options`."""
    import imgdata

    settings = imgdata.ShardOptions(shard_bytes=SHARD_BYTES, **options)
    # Imported here, as the peers' modules are: before the clock starts.
    shard = imgdata.shard

    def write(source: Path, out: Path) -> None:
        shard(source, out, settings, workers=workers)

    return write


def tar() -> Writer:
    """GNU tar: copies the bytes and knows nothing of them; the bound for anything that writes tars."""

    def write(source: Path, out: Path) -> None:
        out.mkdir(parents=True)
        # Files may be linked to each other, to have more of them in less memory: `tar` has to copy each as well.
        subprocess.run(["tar", "--hard-dereference", "-cf", out / "all.tar", "-C", source, "."], check=True)

    return write


def jpegtran() -> Writer:
    """`jpegtran`, a process for each file: best codes, a marker every two MCUs; neither shards nor hashes."""
    program = shutil.which("jpegtran")
    if program is None:
        raise ImportError("jpegtran is not installed (Debian: libjpeg-turbo-progs)")
    options = [program, "-copy", "all", "-optimize", "-restart", "2B", "-outfile"]

    def write(source: Path, out: Path) -> None:
        out.mkdir(parents=True)
        with ThreadPoolExecutor(WORKERS) as pool:
            commands = ([*options, out / path.name, path] for path, _ in _files(source))
            list(pool.map(partial(subprocess.run, check=True), commands))

    return write


def shardwriter() -> Writer:
    """`webdataset.ShardWriter` in the loop that its documentation shows."""
    import webdataset

    def write(source: Path, out: Path) -> None:
        out.mkdir(parents=True)
        with webdataset.ShardWriter(
            str(out / "train-%06d.tar"), maxcount=10**9, maxsize=SHARD_BYTES, verbose=0
        ) as sink:
            for number, (path, label) in enumerate(_files(source)):
                sink.write({"__key__": f"{number:08d}", "jpg": path.read_bytes(), "cls": label})

    return write


def resize_with_pillow(path: Path) -> bytes:
    """Shorter side 256, quality 90, the way a script does it: `draft`, antialiased resize, save."""
    from PIL import Image

    with Image.open(path) as opened:
        # `draft` lets libjpeg shrink while decoding, where that leaves enough pixels.
        opened.draft("RGB", (256, 256))
        image = opened.convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=90)
    return encoded.getvalue()


def shardwriter_resize() -> Writer:
    """`ShardWriter` fed by a process pool that resizes with Pillow (or Pillow-SIMD, where that is installed)."""
    import webdataset

    def write(source: Path, out: Path) -> None:
        out.mkdir(parents=True)
        files = list(_files(source))
        with (
            ProcessPoolExecutor(WORKERS) as pool,
            webdataset.ShardWriter(str(out / "train-%06d.tar"), maxcount=10**9, maxsize=SHARD_BYTES, verbose=0) as sink,
        ):
            images = pool.map(resize_with_pillow, [path for path, _ in files], chunksize=16)
            for number, (image, (_, label)) in enumerate(zip(images, files, strict=True)):
                sink.write({"__key__": f"{number:08d}", "jpg": image, "cls": label})

    return write


def decode_all(path: Path) -> int:
    """Full decode of one JPEG to RGB by libjpeg-turbo; returns the number of values."""
    import simplejpeg

    return int(simplejpeg.decode_jpeg(path.read_bytes()).size)


def libjpeg_turbo() -> Writer:
    """Nothing but decoding every JPEG to RGB with libjpeg-turbo in two processes; writes nothing."""

    def write(source: Path, out: Path) -> None:
        with ProcessPoolExecutor(WORKERS) as pool:
            assert all(pool.map(decode_all, [path for path, _ in _files(source)], chunksize=64))

    return write


def hf_parquet() -> Writer:
    """Hugging Face `datasets`: images as bytes in Parquet."""
    import datasets

    def write(source: Path, out: Path) -> None:
        out.mkdir(parents=True)
        files = list(_files(source))
        features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int32")})

        def rows() -> Iterator[dict[str, Any]]:
            for path, label in files:
                yield {"image": {"bytes": path.read_bytes(), "path": path.name}, "label": label}

        dataset = datasets.Dataset.from_generator(rows, features=features, cache_dir=str(out / "cache"))
        dataset.to_parquet(out / "train.parquet")

    return write


def array_record() -> Writer:
    """Google's ArrayRecord, uncompressed, one image a record."""
    from array_record.python.array_record_module import ArrayRecordWriter

    def write(source: Path, out: Path) -> None:
        out.mkdir(parents=True)
        writer = ArrayRecordWriter(str(out / "train.arrayrecord"), "group_size:1,uncompressed")
        for path, label in _files(source):
            writer.write(label.to_bytes(4, "little") + path.read_bytes())
        writer.close()

    return write


def tfrecord() -> Writer:
    """TFRecord with `tf.train.Example`."""
    import tensorflow as tf

    def write(source: Path, out: Path) -> None:
        out.mkdir(parents=True)
        with tf.io.TFRecordWriter(str(out / "train.tfrecord")) as writer:
            for path, label in _files(source):
                features = {
                    "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[path.read_bytes()])),
                    "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
                }
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(example.SerializeToString())

    return write


def mds() -> Writer:
    """MosaicML Streaming's MDS, images as bytes."""
    import streaming

    def write(source: Path, out: Path) -> None:
        with streaming.MDSWriter(
            out=str(out), columns={"image": "bytes", "label": "int"}, size_limit=SHARD_BYTES
        ) as writer:
            for path, label in _files(source):
                writer.write({"image": path.read_bytes(), "label": label})

    return write


def litdata_sample(item: tuple[Path, int]) -> dict[str, Any]:
    """One sample as LitData's `optimize` wants it."""
    path, label = item
    return {"image": path.read_bytes(), "label": label}


def litdata() -> Writer:
    """Lightning's LitData: `optimize` with two workers, images as bytes."""
    import litdata as library

    def write(source: Path, out: Path) -> None:
        library.optimize(
            litdata_sample, list(_files(source)), output_dir=str(out), chunk_bytes=SHARD_BYTES, num_workers=WORKERS
        )

    return write


def ffcv() -> Writer:
    """FFCV's writer, with the JPEGs as they are instead of re-encoded."""
    import ffcv.writer  # noqa: F401  Where it is missing, this fails before anything is written.

    from benchmarks.loader_peers.ffcv_loader import write

    return lambda source, out: write(source, out, workers=WORKERS)


WRITERS: dict[str, Callable[[], Writer]] = {
    "imgdata hash=none": lambda: imgdata_writer(check="header", hash="none"),
    "imgdata hash=xxh128": lambda: imgdata_writer(check="header", hash="xxh128"),
    "imgdata hash=sha256": lambda: imgdata_writer(check="header"),
    "imgdata check=decode": lambda: imgdata_writer(check="decode"),
    "imgdata crop-ready": lambda: imgdata_writer(crop_ready=True),
    "imgdata resize=256": lambda: imgdata_writer(encoding=_resized()),
    "tar cf": tar,
    "jpegtran": jpegtran,
    "webdataset ShardWriter": shardwriter,
    "ShardWriter + Pillow pool": shardwriter_resize,
    "libjpeg-turbo full decode": libjpeg_turbo,
    "HF parquet": hf_parquet,
    "ArrayRecord": array_record,
    "TFRecord": tfrecord,
    "MDS": mds,
    "LitData": litdata,
    "FFCV": ffcv,
}


def _resized() -> Any:
    import imgdata

    return imgdata.Encoding(resize=256, quality=90)


def main(name: str, source: Path, out: Path) -> None:
    """Measure one writer and print its figures, or why it can't run."""
    # Peers chat on standard output; the figures go where it was.
    figures = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        write = WRITERS[name]()
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), file=figures, flush=True)
        return
    before, started = _cpu_s(), time.perf_counter()
    write(source, out)
    seconds, cpu_s = time.perf_counter() - started, _cpu_s() - before
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    peak_mb = max(resource.getrusage(kind).ru_maxrss for kind in kinds) / 1024
    print(json.dumps({"seconds": seconds, "cpu_s": cpu_s, "peak_mb": round(peak_mb)}), file=figures, flush=True)
    # Some peers leave threads that never end.
    os._exit(0)


def _cpu_s() -> float:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, kinds))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
