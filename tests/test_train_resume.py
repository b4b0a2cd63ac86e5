"""A run that was cut off goes on with the very next batch: after kill -9, Ctrl-C, with other ranks; DDP equals one."""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest
from runs import ENVIRONMENT, flags, imgdata_command, losses, metrics, run_command

EPOCHS = 3
STEPS = 10


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory):
    """A run that nothing disturbed, of augmented pictures and a network with dropout."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    done = run_command("train", digits, "--out", run, *settings())
    assert done.returncode == 0, done.stderr
    return run


def settings(**more):
    return flags(epochs=EPOCHS, recipe="classifier", dropout=0.2, checkpoint_steps=3, ema=0.8, **more)


def cut_off(digits, run, sent, *, at):
    """Start the run, and send it a signal once it has saved a checkpoint after `at` steps."""
    import torch

    with subprocess.Popen(
        imgdata_command("train", digits, "--out", run, *settings()), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None:
            time.sleep(0.002)
            if (run / "last.pt").exists() and torch.load(run / "last.pt", weights_only=True)["step"] >= at:
                process.send_signal(sent)
                break
        error = process.communicate(timeout=60)[1]
    return process.returncode, error


@pytest.mark.slow
@pytest.mark.parametrize("at", [3, 9, 16])
def test_after_kill_9_the_losses_are_those_of_the_whole_run(digits, whole, tmp_path, at):
    code, _ = cut_off(digits, tmp_path / "run", signal.SIGKILL, at=at)
    assert code == -signal.SIGKILL
    done = run_command("train", digits, "--out", tmp_path / "run", "--resume")
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "run") == losses(whole)
    assert metrics(tmp_path / "run") == metrics(whole)


@pytest.mark.slow
def test_ctrl_c_saves_first(digits, whole, tmp_path):
    code, error = cut_off(digits, tmp_path / "run", signal.SIGINT, at=12)
    assert code == 130
    assert "--resume goes on with the next batch" in error
    assert "Traceback" not in error
    done = run_command("train", digits, "--out", tmp_path / "run", "--resume", "--threads", "2")
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "run") == losses(whole)


@pytest.mark.slow
def test_two_ranks_teach_what_one_does_and_a_run_of_two_goes_on_as_one(digits, whole, tmp_path):
    two = tmp_path / "two"
    # Without dropout and the turns of pictures all is the same in one process and in two.
    plain = flags(epochs=EPOCHS, checkpoint_steps=3)
    for run, ranks in ((tmp_path / "one", 1), (two, 2)):
        done = run_command("train", digits, "--out", run, *plain, ranks=ranks)
        assert done.returncode == 0, done.stderr
    assert losses(two) == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
    one, other = metrics(tmp_path / "one"), metrics(two)
    assert [row["val_loss"] for row in other] == pytest.approx([row["val_loss"] for row in one], abs=1e-4)
    # Two epochs by two ranks, saved in the middle of the second, and the rest by one.
    with subprocess.Popen(
        imgdata_command("train", digits, "--out", tmp_path / "half", *plain, ranks=2),
        env=ENVIRONMENT,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        wait_for_step(tmp_path / "half", 12)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = run_command("train", digits, "--out", tmp_path / "half", "--resume")
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "half") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)


def wait_for_step(run, step):
    import torch

    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        if (run / "last.pt").exists() and torch.load(run / "last.pt", weights_only=True)["step"] >= step:
            return
        time.sleep(0.002)
    raise AssertionError(f"no checkpoint after step {step}")


def test_a_finished_run_that_is_resumed_stays_as_it_is(digits, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    done = run_command("train", digits, "--out", tmp_path / "run", "--resume", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["epochs"] == EPOCHS
    assert losses(tmp_path / "run") == losses(whole)


def test_more_epochs_may_follow(digits, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    done = run_command("train", digits, "--out", tmp_path / "run", "--resume", "--epochs", str(EPOCHS + 1))
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "run")[: EPOCHS * STEPS] == losses(whole)
    assert len(metrics(tmp_path / "run")) == EPOCHS + 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lr", "0.5"], "lr must be 0.006, which the run was started with, got 0.5"),
        (["--model", "resnet9"], "model must be 'cnn', which the run was started with"),
    ],
)
def test_what_would_change_the_losses_is_refused(digits, whole, options, message):
    done = run_command("train", digits, "--out", whole, "--resume", *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_other_classes_than_the_runs_are_refused(whole, tmp_path):
    from runs import digit_folders

    import imgdata

    raw = digit_folders(tmp_path / "raw", {"train": 60, "val": 12}, classes=6)
    imgdata.shard(raw, tmp_path / "out", workers=1)
    done = run_command("train", tmp_path / "out", "--out", whole, "--resume")
    assert done.returncode == 2
    assert "its network has 10 classes (0, ...)" in done.stderr
    assert "has 6 (0, ...)" in done.stderr


def test_a_damaged_checkpoint_is_said_to_be_one(digits, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    content = (whole / "last.pt").read_bytes()
    (tmp_path / "run" / "last.pt").write_bytes(content[: len(content) // 2])
    done = run_command("train", digits, "--out", tmp_path / "run", "--resume")
    assert done.returncode == 2
    assert "is no checkpoint of imgdata, or damaged" in done.stderr
    assert "Traceback" not in done.stderr


def test_there_must_be_a_run_to_go_on_with(digits, tmp_path):
    done = run_command("train", digits, "--out", tmp_path / "none", "--resume")
    assert done.returncode == 2
    assert "must be the folder of a run" in done.stderr


@pytest.mark.slow
def test_two_ranks_thaw_together_and_validate_with_the_same_statistics(digits, tmp_path):
    first = tmp_path / "first"
    settings = flags(model="resnet9", recipe="cifar", epochs=1)
    assert run_command("train", digits, "--out", first, *settings).returncode == 0
    thawing = flags(model="resnet9", recipe="cifar", weights=first / "best.pt", freeze=True, unfreeze_after=1, epochs=3)
    done = run_command("train", digits, "--out", tmp_path / "two", *thawing, ranks=2)
    assert done.returncode == 0, done.stderr
    # One process with the saved weights comes to the scores that the two had together.
    found = run_command("evaluate", tmp_path / "two", digits, "--json")
    summary = json.loads((tmp_path / "two" / "summary.json").read_text())
    answer = json.loads(found.stdout)
    assert answer["correct"] == summary["correct"]
    assert answer["loss"] == pytest.approx(summary["loss"], rel=1e-5)


def test_a_run_that_was_cut_off_in_its_validation_validates_at_once(digits, whole, tmp_path):
    import torch

    run = tmp_path / "run"
    shutil.copytree(whole, run)
    state = torch.load(run / "last.pt", weights_only=True)
    state["epoch_so_far"] = [round(320 * state["rows"].pop()["train_top1"]), 1.0, 0.0]
    torch.save(state, run / "last.pt")
    done = run_command("train", digits, "--out", run, "--resume")
    assert done.returncode == 0, done.stderr
    assert losses(run) == losses(whole)
    assert [row["val_loss"] for row in metrics(run)] == [row["val_loss"] for row in metrics(whole)]
