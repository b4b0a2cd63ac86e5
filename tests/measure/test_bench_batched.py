"""The peers of `imgdata bench` that decode in batches on the device: torchvision's and TorchCodec's `decode_jpeg`.

Here they run on the processor, with a TorchCodec that stands in for the real one, which is tried too where it is
installed. What a GPU alone can do is marked so.
"""

import sys
import types
from importlib.util import find_spec
from itertools import islice

import numpy as np
import pytest
import torch
import torchvision

import imgdata
from imgdata import recipes
from imgdata.errors import ImgdataError
from imgdata.measure.bench import BenchOptions, batched_peers, bench
from imgdata.measure.bench.peers import MOST_AT_ONCE, PEERS
from imgdata.measure.bench.transforms import Decoded, transforms
from support.bench_jobs import QUICK, job_of
from support.loaders import SAMPLES, dataset
from support.rawdata import encoded

pytestmark = [
    pytest.mark.filterwarnings("ignore:The image decoding and encoding capabilities of TorchVision"),
    pytest.mark.usefixtures("threads_of_pytorch"),
]
EVALUATION = recipes.imagenet_eval(16, 24)
needs_torchcodec = pytest.mark.skipif(find_spec("torchcodec") is None, reason="TorchCodec is not installed")


@pytest.fixture
def threads_of_pytorch():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def torchcodec(monkeypatch):
    """A package that decodes by torchvision, as the real one is called."""
    package, decoders = types.ModuleType("torchcodec"), types.ModuleType("torchcodec.decoders")
    package.__version__ = "0.17.0+fake"
    calls = []

    def decode_jpeg(source, *, mode="RGB", device="cpu"):
        calls.append((len(source), mode, device))
        return torchvision.io.decode_jpeg(source, torchvision.io.ImageReadMode[mode])

    decoders.decode_jpeg = decode_jpeg
    monkeypatch.setitem(sys.modules, "torchcodec", package)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", decoders)
    return types.SimpleNamespace(decoders=decoders, calls=calls)


def opened(peer, folder, **settings):
    """The loader of that name, on the processor."""
    job = job_of(folder, loader=peer, **settings)
    return getattr(batched_peers, PEERS[peer].place.partition(":")[2])(job)


def taken(loader, count):
    """The next batches; the threads behind them end."""
    batches = list(islice(loader.batches, count))
    loader.batches.close()
    return batches


@pytest.mark.parametrize("peer", ["torchvision-batched", "torchcodec"])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16"])
def test_each_picture_is_decoded_once_an_epoch_and_gets_the_recipe(images, torchcodec, peer, dtype):
    found = taken(opened(peer, images, recipe=EVALUATION, dtype=dtype, batch_size=SAMPLES, threads=2), 2)
    split, one_by_one = imgdata.open(images)["train"], Decoded(transforms(EVALUATION, dtype, pil=False))
    expected = torch.stack([one_by_one(split.read(position)) for position in range(SAMPLES)])

    def as_a_set(batch):
        return sorted(image.numpy().tobytes() for image in batch)

    # The dataset has JPEGs of CMYK and PNGs too, which no batch of JPEGs can hold: they are decoded on the host.
    assert as_a_set(found[0]) == as_a_set(expected)
    assert as_a_set(found[1]) == as_a_set(expected)
    # In another order in another epoch.
    assert not torch.equal(found[0], found[1])


def test_jpegs_are_decoded_as_one_batch(tmp_path, torchcodec):
    folder = dataset(tmp_path, {number: encoded(number, (40, 32)) for number in range(24)}, 24)
    loader = opened("torchcodec", folder, threads=1)
    taken(loader, 3)
    assert set(torchcodec.calls[1:]) == {(8, "RGB", "cpu")}
    assert loader.version == "0.17.0+fake"
    assert loader.group == 1


def test_ranks_share_out_the_pictures(images, torchcodec):
    shares = [
        next(batched_peers._positions(job_of(images, rank=rank, world_size=2, batch_size=SAMPLES // 2)))
        for rank in (0, 1)
    ]
    assert sorted(np.concatenate(shares).tolist()) == list(range(SAMPLES))


def test_augmentation_is_for_each_picture_and_erasing_comes_last(images):
    recipe = recipes.Recipe(
        recipes.RandomResizedCrop(size=16), EVALUATION.ops[-1], recipes.RandomErasing(p=1.0, value=(9.0, 9.0, 9.0))
    )
    [batch] = taken(opened("torchvision-batched", images, recipe=recipe), 1)
    erased = {tuple((image[0] == 9.0).flatten().tolist()) for image in batch}
    assert len(erased) > 1
    assert all(map(any, erased))


@pytest.mark.parametrize(
    ("device", "threads", "group"), [("cpu", 16, 16), ("cuda:1", 16, MOST_AT_ONCE), ("cuda:0", 2, 2)]
)
def test_on_a_gpu_few_batches_are_made_at_once(monkeypatch, images, device, threads, group):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    job = job_of(images, device=device, threads=threads)
    assert batched_peers._opened(job, lambda encoded: encoded, "1").group == group


def test_a_library_that_can_not_decode_there_is_left_out_instead_of_the_host_doing_it(images, torchcodec):
    def without_cuda(source, *, mode, device):
        raise RuntimeError("decode_jpegs_cuda: torchcodec was not built with CUDA.\nframe #0")

    torchcodec.decoders.decode_jpeg = without_cuda
    with pytest.raises(ImgdataError, match=r"torchcodec can't decode JPEGs on cpu: .* not built with CUDA\.$"):
        opened("torchcodec", images)


def test_a_decoder_that_refuses_most_pictures_is_not_replaced_by_the_host(images, torchcodec):
    real = torchcodec.decoders.decode_jpeg

    def full(source, *, mode, device):
        if source[0].numel() < 700:
            return real(source, mode=mode, device=device)
        raise RuntimeError("nvJPEG: status 5")

    torchcodec.decoders.decode_jpeg = full
    with pytest.raises(ImgdataError, match="most JPEGs can't be decoded on cpu: nvJPEG: status 5"):
        taken(opened("torchcodec", images, threads=1), 20)


def test_memory_that_is_out_is_no_picture_s_fault(images, torchcodec):
    real, calls = torchcodec.decoders.decode_jpeg, []

    def full(source, **options):
        calls.append(len(source))
        if len(calls) == 1:
            return real(source, **options)
        raise torch.OutOfMemoryError("CUDA out of memory")

    torchcodec.decoders.decode_jpeg = full
    with pytest.raises(torch.OutOfMemoryError):
        taken(opened("torchcodec", images, threads=1), 1)
    assert 1 not in calls[1:]


def test_an_old_torchcodec_names_the_version_that_it_must_be(images, torchcodec):
    del torchcodec.decoders.decode_jpeg
    with pytest.raises(ImgdataError, match=r"torchcodec must be 0\.16 or later, which has decode_jpeg, got 0\.17"):
        opened("torchcodec", images)


@pytest.mark.parametrize("peer", ["torchvision-batched", "torchcodec"])
def test_an_apple_gpu_is_refused(monkeypatch, torchcodec, peer):
    monkeypatch.setattr("imgdata.measure.torch_codec.is_installed", lambda: True)
    assert "NVIDIA's GPUs" in PEERS[peer].refuses(EVALUATION, "uint8", "mps")
    assert PEERS[peer].refuses(EVALUATION, "uint8", "cpu") is None


@needs_torchcodec
def test_the_real_torchcodec_makes_the_batches_that_were_asked_for(images):
    [batch] = taken(opened("torchcodec", images, dtype="float16"), 1)
    assert (tuple(batch.shape), batch.dtype) == ((8, 3, 16, 16), torch.float16)


def test_without_torchcodec_the_others_are_measured(monkeypatch, images):
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    monkeypatch.setattr("imgdata.measure.torch_codec.is_installed", lambda: False)
    result = bench(images, BenchOptions(**QUICK, backend="cpu", compare=("torchvision-batched", "torchcodec")))
    assert [peer.name for peer in result.peers] == ["torchvision-batched"]
    assert result.peers[0].cpu_ms_per_image > 0
    assert result.left_out["torchcodec"].startswith(
        "torchcodec is not installed: pip install torchcodec, 0.16 or later"
    )


class Stream:
    """A stream that writes down what happens on it, instead of a GPU."""

    def __init__(self, name, log):
        self.name, self._log = name, log

    def synchronize(self):
        self._log.append(f"{self.name} is waited for")

    def record_event(self):
        self._log.append(f"event of {self.name}")
        return f"event of {self.name}"

    def wait_event(self, event):
        self._log.append(f"{self.name} waits for {event}")

    def __enter__(self):
        self._log.append(f"{self.name} is current")

    def __exit__(self, *error):
        self._log.append(f"{self.name} is left")


def test_on_a_gpu_each_thread_has_a_stream_and_the_reader_waits_for_its_batch(monkeypatch, tmp_path):
    """Decoded into memory that is still read, or read before it is decoded, pictures would be mixed up."""
    log = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.Stream", lambda device: Stream(f"own stream on {device}", log))
    monkeypatch.setattr("torch.cuda.stream", lambda stream: stream)
    monkeypatch.setattr("torch.cuda.current_stream", lambda device: Stream("the reader's", log))
    monkeypatch.setattr("torch.Tensor.record_stream", lambda tensor, stream: log.append(f"memory is {stream.name}"))
    folder = dataset(tmp_path, {number: encoded(number, (40, 32)) for number in range(24)}, 24)

    def decode(encoded):
        log.append("decodes")
        return [torch.zeros(3, 32, 40, dtype=torch.uint8) for _ in encoded]

    job = job_of(folder, device="cuda:0")
    make = batched_peers._Maker(job, decode)
    own = "own stream on cuda:0"
    images, made = make(np.arange(8))
    assert log == [f"{own} is waited for", f"{own} is current", "decodes", f"event of {own}", f"{own} is left"]
    log.clear()
    batches = batched_peers._batches(lambda positions: (images, made), iter([None] * 4), 1)
    assert next(batches) is images
    batches.close()
    assert log == [f"the reader's waits for event of {own}", "memory is the reader's"]


@pytest.mark.gpu
@pytest.mark.parametrize("peer", ["torchvision-batched", pytest.param("torchcodec", marks=needs_torchcodec)])
def test_on_a_gpu_the_pictures_are_those_of_the_host_but_for_rounding(images, peer):
    job = job_of(images, loader=peer, recipe=EVALUATION, dtype="uint8", device="cuda:0", threads=2)
    make = getattr(batched_peers, PEERS[peer].place.partition(":")[2])(job)
    [batch] = taken(make, 1)
    split, one_by_one = imgdata.open(images)["train"], Decoded(transforms(EVALUATION, "uint8", pil=False))
    positions = next(batched_peers._positions(job)).tolist()
    expected = torch.stack([one_by_one(split.read(position)) for position in positions])
    # nvJPEG and libjpeg-turbo round in other places, and make chroma larger in other ways.
    assert (batch.cpu().float() - expected.float()).abs().mean() < 3.0
