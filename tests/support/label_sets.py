"""Made-up features in clouds, one for each class, and labels of which some are wrong; samples with such labels."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

import imgdata
from imgdata.auditing.probe import principal
from imgdata.auditing.samples import Samples, samples_of
from imgdata.views import open_view


def clouds(samples=600, classes=4, *, apart=4.0, wrong=0.05, seed=0):
    """Return points, labels, and which labels are wrong."""
    generator = np.random.Generator(np.random.Philox(key=[seed, 100]))
    right_N = np.arange(samples, dtype=np.int32) % classes
    centre_CD = generator.standard_normal((classes, 16)) * apart / np.sqrt(16)
    vector_ND = (centre_CD[right_N] + generator.standard_normal((samples, 16))).astype(np.float32)
    wrong_N = np.zeros(samples, np.bool_)
    wrong_N[generator.choice(samples, round(wrong * samples), replace=False)] = True
    label_N = np.where(wrong_N, (right_N + generator.integers(1, classes, samples)) % classes, right_N).astype(np.int32)
    return principal(vector_ND), label_N, wrong_N


def labelled_samples(folder: Path, labels: Sequence[int | None], classes: int = 4) -> Samples:
    """Return samples with these labels, in this order, of noise that is other noise in each picture."""
    generator = np.random.Generator(np.random.Philox(key=[0, 101]))
    names = [f"c{number}" for number in range(classes)]
    with imgdata.Writer(folder, imgdata.ShardOptions(shuffle=False), classes=names) as writer:
        for label in labels:
            file = io.BytesIO()
            Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)).save(file, "PNG")
            writer.write(file.getvalue(), None if label is None else int(label), split="train")
    return samples_of([open_view(imgdata.open(folder), "train")])
