"""What goes wrong around a run: packages, memory, disks and pictures that are not as they should be."""

import resource
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

import imgdata
from imgdata.errors import DeviceMemoryError, MissingExtraError, OptionError, OutputError, TrainingError
from imgdata.training.checkpoint import load_checkpoint, save_checkpoint
from imgdata.training.distributed import Processes, processes
from imgdata.training.learner import Learner
from imgdata.training.loop import train
from imgdata.training.run_folder import RunFolder
from imgdata.training.setup import prepare
from support.digit_runs import ENVIRONMENT, digit_folders, quick
from support.patience import PATIENCE_S

ALONE = Processes(rank=0, world_size=1, device=torch.device("cpu"))


@pytest.mark.parametrize(
    ("module", "settings", "message"),
    [
        ("matplotlib.figure", {}, r"plots need matplotlib: pip install 'imgdata\[train\]'"),
        ("torch.utils.tensorboard", {"tensorboard": True}, r"pip install 'imgdata\[tensorboard\]'"),
    ],
)
def test_a_package_that_is_missing_is_named_before_anything_is_trained(
    digits, tmp_path, monkeypatch, module, settings, message
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=message):
        train(digits, tmp_path / "run", quick(**settings))
    assert not (tmp_path / "run").exists()


def test_an_average_without_timm_names_the_extra(digits, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm.utils.model_ema", None)
    with pytest.raises(MissingExtraError, match=r"ema needs timm: pip install 'imgdata\[train\]'"):
        train(digits, tmp_path / "run", quick(ema=0.9))


WITHOUT = """
import sys
sys.modules["timm"] = sys.modules["torchvision"] = None
from imgdata.training.loop import train
config = train(sys.argv[1], sys.argv[2], {"model": "cnn", "epochs": 1, "threads": 1}).config
assert set(config["versions"]) == {"imgdata", "torch"}, config
"""


@pytest.mark.slow
def test_own_networks_need_neither_timm_nor_torchvision(digits, tmp_path):
    command = [sys.executable, "-c", WITHOUT, str(digits), str(tmp_path / "run")]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr


def test_a_checkpoint_on_a_full_disk_leaves_the_one_before(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"weights": torch.ones(3)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OutputError, match=r"last\.pt: can't be written: File too large"):
            save_checkpoint(path, {"weights": torch.ones(10, 10_000), "more": torch.ones(10, 10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert torch.equal(load_checkpoint(path)["weights"], torch.ones(3))
    assert [one.name for one in tmp_path.iterdir()] == ["last.pt"]


def test_a_folder_that_can_not_be_looked_into_is_said_to_be_one(unprivileged_folder):
    closed = unprivileged_folder / "closed"
    closed.mkdir(mode=0o000)
    with pytest.raises(OutputError, match=r"closed/run: can't be written \(Permission denied\)"):
        RunFolder(closed / "run").check()


def test_what_a_killed_run_left_does_not_keep_another_from_its_place(digits, tmp_path):
    (tmp_path / ".config.json.77.tmp").write_text("{")
    train(digits, tmp_path, quick(epochs=1))
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_several_processes_without_torchrun_are_told_of_it(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with (
        pytest.raises(OptionError, match=r"2 processes must know of each other.*start them with torchrun"),
        processes("cpu"),
    ):
        pass


@pytest.mark.parametrize("where", ["imgdata.training.course.evaluate_network", "imgdata.training.setup.make_network"])
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        DeviceMemoryError("out of memory on cuda:0 in NVIDIA DALI"),
        MemoryError(),
    ],
)
def test_memory_may_be_out_anywhere(digits, tmp_path, monkeypatch, where, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(where, fail)
    with pytest.raises(TrainingError, match="out of memory on cpu; try a smaller batch_size than 32 or size"):
        train(digits, tmp_path / "run", quick(epochs=1))


def test_other_faults_than_memory_come_out_as_they_are(digits, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("mat1 and mat2")

    monkeypatch.setattr("imgdata.training.course.evaluate_network", fail)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        train(digits, tmp_path / "run", quick(epochs=1))


@pytest.mark.parametrize("settings", [{"batch_size": 1, "view": "count=4"}, {"batch_size": 4, "accumulate": 4}])
def test_batch_norm_of_one_picture_says_what_it_needs(digits, tmp_path, settings):
    with pytest.raises(TrainingError, match="batch norm must see 2 pictures at once or more, got 1"):
        train(digits, tmp_path / "run", quick(model="resnet18", size=32, **settings))


def test_one_class_is_nothing_to_tell_apart(tmp_path):
    raw = digit_folders(tmp_path / "raw", {"train": 20, "val": 5}, classes=1)
    imgdata.shard(raw, tmp_path / "out", workers=1)
    with pytest.raises(OptionError, match="must have at least 2 classes to tell apart, got 1"):
        train(tmp_path / "out", tmp_path / "run", quick(batch_size=4))


def test_validation_has_the_classes_that_are_trained_on(digits, tmp_path):
    split = imgdata.open(digits)["train"]
    parity = [f"{split[number].key},{('even', 'odd')[split[number].label % 2]}" for number in range(len(split))]
    (tmp_path / "labels.csv").write_text("\n".join(["key,label", *parity]))
    view = f"relabel={tmp_path / 'labels.csv'},classes=table"
    with pytest.raises(OptionError, match="val_view must have the 2 classes that are trained on, got 10"):
        train(digits, tmp_path / "run", quick(view=view))


@pytest.mark.parametrize("settings", [{"freeze": True, "unfreeze_after": 2, "epochs": 2}])
def test_what_would_never_thaw_is_refused(digits, tmp_path, settings):
    first = train(digits, tmp_path / "first", quick(epochs=1)).run
    with pytest.raises(OptionError, match="unfreeze_after must be below the 2 epochs, got 2"):
        train(digits, tmp_path / "run", quick(weights=str(first / "best.pt"), **settings))


def test_a_checkpoint_of_another_device_goes_on_with_this_ones_arithmetic(digits, monkeypatch):
    with prepare(Path(digits), quick(), ALONE) as prepared:
        state = Learner(prepared.model, prepared.options, ALONE).state()
        for group in state["optimizer"]["param_groups"]:
            group["fused"] = True
        # A GPU without bf16, from the CPU: there was nothing to scale yet.
        monkeypatch.setattr("imgdata.training.learner.half_type", lambda *_: torch.float16)
        monkeypatch.setattr("torch.amp.GradScaler", partial(torch.amp.GradScaler, "cpu"))
        learner = Learner(prepared.model, prepared.options, ALONE)
        learner.load_state(state)
    assert not any(group["fused"] for group in learner.optimizer.param_groups)
    assert learner.state()["scaler"]["scale"] > 1
