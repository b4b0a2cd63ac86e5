"""imgdata.native: threads without work help with a large crop-ready picture; nothing but its time changes."""

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from imgdata import native
from support.native_crops import Files, Geometry, encode, gentle, submit

pytestmark = pytest.mark.skipif(not native.AVAILABLE, reason="the extension was not built")

SIZE = (1300, 1000)
CROPS = [
    Geometry(box=(0, 0, *SIZE), resized=(64, 48)),
    Geometry(box=(20, 10, 1250, 970), resized=(1250, 970)),
    Geometry(box=(1, 1, 1299, 900), resized=(150, 100), flip=True),
]


@pytest.fixture(scope="module", params=[1, 2, 5])
def pool(request: pytest.FixtureRequest) -> Iterator[native.Pool]:
    pool = native.Pool(request.param)
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def alone() -> Iterator[native.Pool]:
    pool = native.Pool(1)
    yield pool
    pool.close()


def ready(sampling: str) -> bytes:
    image = gentle(*SIZE, 3, 250)
    made = native.make_crop_ready(encode(image.convert("L") if sampling == "gray" else image, sampling))
    assert made is not None
    return made[0]


def made_by(pool: native.Pool, files: list[bytes], crop: Geometry) -> tuple[list[int], NDArray[np.uint8]]:
    """The outcomes, and the pictures of those that are done."""
    images = np.zeros((len(files), *crop.size[::-1], 3), np.uint8)
    with Files(files) as opened:
        outcomes = submit(pool, opened, [SIZE] * len(files), crop, images).wait()
    return outcomes.tolist(), images[outcomes == native.DONE]


@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("sampling", ["4:2:0", "4:4:4", "gray"])
def test_any_number_of_threads_makes_the_same_picture(
    pool: native.Pool, alone: native.Pool, sampling: str, count: int
) -> None:
    data = ready(sampling)
    for crop in CROPS:
        outcomes, images = made_by(pool, [data] * count, crop)
        assert outcomes == [native.DONE] * count
        expected = made_by(alone, [data], crop)[1][0]
        assert all(np.array_equal(image, expected) for image in images)


def test_any_number_of_threads_finds_the_same_faults(pool: native.Pool, alone: native.Pool) -> None:
    data = ready("4:2:0")
    start = data.index(b"\xff\xda") + 14
    generator = np.random.Generator(np.random.Philox(key=2))
    for _ in range(12):
        at = int(generator.integers(start, len(data) - 1))
        damaged = data[:at] + bytes([int(generator.integers(256))]) + data[at + int(generator.integers(1, 3)) :]
        for crop in CROPS[:2]:
            outcomes, images = made_by(pool, [damaged], crop)
            assert outcomes == made_by(alone, [damaged], crop)[0]
            assert np.array_equal(images, made_by(alone, [damaged], crop)[1])
