"""What the tests of `imgdata bench` share: settings that take a moment, jobs, made-up figures."""

from imgdata import recipes
from imgdata.backends.options import LoaderOptions
from imgdata.measure.bench.job import OURS, Job, Measured

QUICK = {"size": 16, "batch_size": 8, "threads": 1, "seconds": 0.05, "rounds": 1}
"""Of `BenchOptions`."""


def job_of(folder, *, loader=OURS, split="train", rank=0, world_size=1, seconds=0.05, **settings):
    """Our loader on the dataset in `folder`; `settings` are a loader's."""
    defaults = {"recipe": recipes.imagenet_train(16), "batch_size": 8, "threads": 1, "dtype": "float32"}
    options = LoaderOptions(**{"backend": "cpu", **defaults, **settings})
    return Job(
        loader=loader,
        dataset=str(folder),
        split=split,
        options=options,
        rank=rank,
        world_size=world_size,
        seconds=seconds,
    )


def measured(**values):
    """What a run came to."""
    usual = {"images": 1000, "images_per_s": 500.0, "cpu_s": 2.0, "p50_ms": 10.0, "p95_ms": 20.0, "p99_ms": 30.0}
    usual |= {"first_batch_s": 0.1, "warm_up_batches": 4, "batches": 10, "peak_mb": 700.0, "gpu_mb": None, "bad": 0}
    return Measured(**{**usual, "version": "1", **values})
