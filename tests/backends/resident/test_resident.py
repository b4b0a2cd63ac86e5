"""The resident backend: the same batches as the CPU backend's, out of pixels that were decoded once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import imgdata
from imgdata.backends import postprocess
from imgdata.backends.cpu.backend import CpuBackend
from imgdata.backends.resident import kind as resident
from imgdata.backends.resident import pixel_cache
from imgdata.backends.resident.backend import ResidentBackend
from imgdata.backends.resident.device_store import DeviceStore
from imgdata.backends.resident.host_store import HostStore
from imgdata.backends.resident.kind import ResidentKind
from imgdata.backends.resident.window import kept
from imgdata.recipes import CenterCrop, HorizontalFlip, PadRandomCrop, RandomResizedCrop, Recipe, Resize, Schedule
from support.loaders import dataset
from support.resident_batches import (
    BATCH,
    FLIPS,
    GEOMETRY,
    HEIGHT,
    PIXELS,
    WIDTH,
    batches,
    images_of,
    planner_of,
    setup_of,
    with_options,
)

pytestmark = pytest.mark.usefixtures("resident_cache")

# --- the same pixels ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("recipe", GEOMETRY.values(), ids=GEOMETRY)
def test_geometry_is_that_of_the_cpu_backend_bit_for_bit(one_size, recipe, channels_last):
    setup = setup_of(one_size, recipe, channels_last=channels_last)
    for epoch in (0, 1):
        found, expected = (images_of(kind, setup, epoch=epoch) for kind in (ResidentBackend, CpuBackend))
        assert torch.equal(found, expected)
    assert found[0].is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
@pytest.mark.parametrize("recipe", PIXELS.values(), ids=PIXELS)
def test_every_stage_is_that_of_the_cpu_backend(one_size, recipe, dtype):
    setup = setup_of(one_size, recipe, dtype=dtype, channels_last=dtype == "uint8")
    found, expected = (images_of(kind, setup) for kind in (ResidentBackend, CpuBackend))
    if dtype == "uint8":
        assert torch.equal(found, expected)
    else:
        # One product may be rounded with its sum or before it; float16 has 11 bits.
        assert (found.float() - expected.float()).abs().max() <= (1e-6 if dtype == "float32" else 2e-3)


def test_floats_may_have_channels_last(one_size):
    setup = setup_of(one_size, PIXELS["cifar"], dtype="float32")
    for dtype in ("float32", "float16"):
        last, first = (
            images_of(ResidentBackend, with_options(setup, dtype=dtype, channels_last=kind)) for kind in (True, False)
        )
        assert torch.equal(last, first)
        assert last[0].is_contiguous(memory_format=torch.channels_last)


def test_pictures_of_any_size_can_be_kept_where_the_window_is_fixed(images):
    setup = setup_of(images, Recipe(Resize(size=(24, 24)), HorizontalFlip()))
    assert torch.equal(images_of(ResidentBackend, setup), images_of(CpuBackend, setup))


@settings(max_examples=60)
@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    crop=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    padding=st.integers(0, 5),
    mode=st.sampled_from(["zero", "reflect"]),
    seed=st.integers(0, 2**32),
    channels_last=st.booleans(),
)
def test_windows_are_cut_of_padded_pictures(one_size, size, crop, padding, mode, seed, channels_last):
    size = tuple(max(side, padding + 1) if mode == "reflect" else side for side in size)
    crop = tuple(min(window, side + 2 * padding) for window, side in zip(crop, size, strict=True))
    recipe = Recipe(Resize(size=size), PadRandomCrop(size=crop, padding=padding, mode=mode), *FLIPS)
    setup = setup_of(one_size, recipe, channels_last=channels_last)
    window = kept(setup)
    count = len(setup.split)
    pixels_NHWC = np.random.Generator(np.random.Philox(key=[seed, 0])).integers(0, 256, (count, *size, 3), np.uint8)
    margins = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded_NHWC = np.pad(pixels_NHWC, margins, "reflect" if mode == "reflect" and padding else "constant")
    planner = planner_of(setup)
    work = planner.work(planner.draft(0, BATCH))
    for store in (HostStore(setup, window), DeviceStore(setup, window)):
        store.put(0, pixels_NHWC[:11])
        store.put(11, pixels_NHWC[11:])
        found_NHWC = store.make(work).permute(0, 2, 3, 1).numpy()
        for row, (left, top) in enumerate((work.params.offset_N2 + padding).tolist()):
            expected = padded_NHWC[work.position_N[row], top : top + crop[0], left : left + crop[1]]
            expected = expected[:, ::-1] if work.params.flip_N[row] else expected
            expected = expected[::-1] if work.params.vflip_N[row] else expected
            assert np.array_equal(found_NHWC[row], expected)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("name", ["cifar", "values by channel", "not normalised", "colours", "RandAugment"])
def test_pytorch_makes_what_numpy_makes(one_size, name, dtype):
    setup = setup_of(one_size, PIXELS[name], dtype=dtype, channels_last=False)
    window = kept(setup)
    planner = planner_of(setup)
    work = planner.work(planner.draft(0, 0))
    work = replace(work, skip_N=np.arange(BATCH) == 2)
    stores = HostStore(setup, window), DeviceStore(setup, window)
    for store in stores:
        pixel_cache.fill(setup, window, store.put, lambda: None)
    by_numpy, by_torch = (store.make(work).float() for store in stores)
    for images in (by_numpy, by_torch):
        assert torch.allclose(images[2], torch.from_numpy(postprocess.black(setup.options.recipe, dtype)))
    difference = (by_numpy - by_torch).abs() * (255 * 0.25 if dtype == "float32" else 1)
    # Operators on pixels are Pillow's on the one side, torchvision's for tensors on the other.
    assert difference.mean() < (2.0 if name in ("colours", "RandAugment") else 1e-4)


# --- bad pictures ------------------------------------------------------------------------------------------------


def test_what_was_bad_is_bad_out_of_the_cache(spoilt):
    setup = setup_of(spoilt, Recipe(Resize(size=(24, 24))))
    decoded, cached = ResidentBackend(setup), ResidentBackend(setup)
    (first, second) = (batches(backend) for backend in (decoded, cached))
    decoded.close()
    cached.close()
    assert [failed for _, failed in first] == [failed for _, failed in second]
    assert sum(len(failed) for _, failed in first) == 2
    assert all(torch.equal(one, other) for (one, _), (other, _) in zip(first, second, strict=True))


def test_pictures_that_are_all_bad_are_kept_where_the_size_is_fixed(tmp_path):
    folder = dataset(tmp_path, dict.fromkeys(range(8), b"no image at all"), count=8)
    exact = Recipe(Resize(size=(24, 24)), PadRandomCrop(size=20))
    assert ResidentKind().refuses(setup_of(folder, exact)) is None
    assert "none of a known size" in ResidentKind().refuses(setup_of(folder, Recipe(PadRandomCrop(size=20))))


def test_a_picture_above_the_limit_is_bad_and_not_decoded(one_size):
    setup = setup_of(one_size, Recipe(Resize(size=(24, 24))), max_pixels=WIDTH * HEIGHT - 1)
    backend = ResidentBackend(setup)
    (_, failed), *_ = batches(backend)
    backend.close()
    assert set(failed) == set(range(BATCH))
    assert all("too-large: 40 x 32 pixels, the limit is 1279" in text for text in failed.values())


# --- which recipes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe(RandomResizedCrop(size=16)), "RandomResizedCrop cuts another part of the picture each time"),
        (Recipe(CenterCrop(size=Schedule(((0, 8), (2, 16))))), "a size that changes by epoch"),
        (Recipe(PadRandomCrop(size=16)), r"got 48 x 40 and 49 x 40; put Resize\(size=\(height, width\)\) first or"),
        (Recipe(Resize(size=30), PadRandomCrop(size=16)), "got 36 x 30 and 37 x 30"),
    ],
)
def test_a_recipe_without_a_fixed_window_is_refused_with_the_way_out(images, recipe, message):
    setup = setup_of(images, recipe)
    reason = ResidentKind().refuses(setup)
    assert "\n" not in reason
    for text in (message, "use backend='cpu'$"):
        with pytest.raises(imgdata.OptionError, match=text):
            ResidentBackend(setup)
    assert not ResidentKind().prefers(setup)


def test_a_split_fits_up_to_the_budget(one_size, monkeypatch):
    setup = setup_of(one_size, GEOMETRY["mirrored margins"])
    assert ResidentKind().refuses(setup) is None
    for spare, expected in ((0, True), (-1, False)):
        monkeypatch.setattr(resident, "BUDGET", 30 * HEIGHT * (WIDTH + 8) * 3 + spare)
        assert ResidentKind().prefers(setup) is expected


def test_it_says_what_it_keeps(one_size, resident_cache):
    text = ResidentKind().describe(setup_of(one_size, GEOMETRY["mirrored margins"]))
    assert text == (
        "resident: 30 pictures of 40 x 32 decoded once, 0.1 MB in host memory, batches by NumPy, 2 threads; "
        f"cached in {resident_cache}"
    )


# --- a GPU -------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
@pytest.mark.parametrize("name", ["cifar", "values by channel", "not normalised", "MixUp", "CutMix"])
def test_a_gpu_makes_what_the_processor_makes(one_size, name, dtype):
    setup = setup_of(one_size, PIXELS[name], dtype=dtype)
    found, expected = (images_of(ResidentBackend, with_options(setup, device=device)) for device in ("cuda", "cpu"))
    assert (found.float() - expected.float()).abs().max() <= {"uint8": 1, "float16": 4e-3, "float32": 4e-6}[dtype]


@pytest.mark.gpu
def test_a_batch_is_whole_in_a_stream_that_is_busy(one_size):
    setup = setup_of(one_size, PIXELS["cifar"], dtype="float32")
    expected = images_of(ResidentBackend, setup)
    backend = ResidentBackend(with_options(setup, device="cuda"))
    planner = planner_of(setup)
    side = torch.cuda.Stream()
    found = []
    for number in range(3):
        pending = backend.start(planner.work(planner.draft(0, number * BATCH)))
        pending.wait()
        with torch.cuda.stream(side):
            torch.cuda._sleep(10_000_000)
            found.append(pending.images() + 0)
        del pending
    side.synchronize()
    backend.close()
    assert (torch.stack(found).cpu() - expected).abs().max() <= 4e-6
