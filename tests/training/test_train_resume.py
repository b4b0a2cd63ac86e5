"""A run that was cut off goes on with the very next batch: after kill -9, Ctrl-C, with other ranks; DDP equals one."""

import json
import shutil
import signal
import subprocess
import sys

import pytest
import torch

import imgdata
from imgdata.errors import OptionError, OutputError
from imgdata.inference.evaluate import evaluate
from imgdata.training.history import TrainWatcher
from imgdata.training.loop import train
from support.digit_runs import (
    ENVIRONMENT,
    QUICK,
    VAL_SAMPLES,
    digit_folders,
    flags,
    imgdata_command,
    losses,
    metrics,
    quick,
    run_command,
)
from support.patience import PATIENCE_S

EPOCHS = 3
STEPS = 10
SETTINGS = {"epochs": EPOCHS, "recipe": "classifier", "dropout": 0.2, "checkpoint_steps": 3, "ema": 0.8}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory):
    """A run that nothing disturbed, of augmented pictures and a network with dropout; not to be changed."""
    return train(digits, tmp_path_factory.mktemp("runs") / "whole", quick(**SETTINGS)).run


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def last(run):
    return torch.load(run / "last.pt", weights_only=True)


def assert_same_course(run, other):
    """Losses, rates, weights, averages and optimisers are equal, bit for bit."""
    state, expected = last(run), last(other)
    assert torch.equal(state["losses"], expected["losses"])
    assert torch.equal(state["lrs"], expected["lrs"])
    for part in ("model", "ema"):
        if expected[part] is not None:
            assert all(torch.equal(state[part][name], expected[part][name]) for name in expected[part])
    assert str(state["optimizer"]) == str(expected["optimizer"])
    assert metrics(run) == metrics(other)
    assert losses(run) == losses(other)


class Asking(TrainWatcher):
    """Sends this process a signal in training, after some epochs and steps, or in validation."""

    def __init__(self, sent, *, after=None, validating=False):
        self.sent, self.after, self.validating, self.notes = sent, after, validating, []

    def stepped(self, report):
        if not self.validating and self.after is not None and (report.epoch, report.step) >= self.after:
            self.ask()

    def evaluating(self, done, batches):
        if self.validating:
            self.ask()

    def ask(self):
        self.after, self.validating = None, False
        signal.raise_signal(self.sent)

    def noted(self, text):
        self.notes.append(text)


AT_A_STEP = """
import signal, sys, time
import imgdata.training.course as course
from imgdata_cli.main import main

step, (at, what), sys.argv[1:] = course.Learner.step, sys.argv[1:3], sys.argv[3:]

def step_and_more(self, *batch, number, **more):
    if number == int(at):
        if what == "SIGTERM":
            signal.raise_signal(signal.SIGTERM)
        else:
            print("there", flush=True)
            time.sleep(1000)
    return step(self, *batch, number=number, **more)

course.Learner.step = step_and_more
main()
"""


def started(digits, run, *, at, what):
    """Start the command, which waits when it comes to the step `at`, or gets a signal there."""
    train_command = ["train", digits, "--out", run, *flags(**SETTINGS)]
    command = [sys.executable, "-c", AT_A_STEP, at, what, *train_command]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(list(map(str, command)), env=ENVIRONMENT, text=True, **pipes)


@pytest.mark.slow
@pytest.mark.parametrize("at", [4, 17])
def test_after_kill_9_the_losses_are_those_of_the_whole_run(digits, whole, tmp_path, at):
    run = tmp_path / "run"
    with started(digits, run, at=at, what="wait") as process:
        assert process.stdout.readline() == "there\n"
        process.kill()
    # The last checkpoint is older.
    assert 0 < last(run)["step"] < at
    # As if it had been killed while it wrote a checkpoint.
    (run / ".last.pt.123.tmp").write_bytes(b"half")
    train(digits, run, resume=True)
    assert_same_course(run, whole)
    assert not [path.name for path in run.iterdir() if path.name.startswith(".")]


RICH = {
    "mixed": {"mixup": 0.2, "cutmix": 1.0, "balance": True, "ema": 0.9, "clip_grad": 1.0, "accumulate": 2},
    "growing": {
        "model": "resnet18",
        "size": 64,
        "recipe": "imagenet",
        "progressive": True,
        "view": "per_class=5",
        "val_view": "count=16",
        "batch_size": 16,
        "drop_path": 0.1,
    },
    "thawing": {
        "model": "resnet9",
        "recipe": "cifar",
        "view": "per_class=10",
        "freeze": True,
        "unfreeze_after": 2,
        "flip_test": True,
    },
}


@pytest.mark.parametrize(
    ("kind", "validating"),
    [("mixed", False), ("growing", False), ("thawing", False), ("mixed", True), ("thawing", True)],
)
def test_a_run_of_any_kind_that_was_stopped_goes_on_bit_for_bit(digits, tmp_path, kind, validating):
    settings = quick(**RICH[kind] | {"epochs": 3, "checkpoint_steps": 0} | weights_for(kind, digits, tmp_path))
    train(digits, tmp_path / "whole", settings)
    # It is asked at the end of the second epoch's training, and stops in the third's.
    asking = Asking(signal.SIGINT, after=(2, 1), validating=validating)
    with pytest.raises(KeyboardInterrupt):
        train(digits, tmp_path / "cut", settings, watcher=asking)
    assert "--resume continues with the next batch" in asking.notes[0]
    train(digits, tmp_path / "cut", resume=True)
    assert_same_course(tmp_path / "cut", tmp_path / "whole")


def weights_for(kind, digits, folder):
    if kind != "thawing":
        return {}
    settings = quick(model="resnet9", recipe="cifar", epochs=1, view="per_class=4")
    return {"weights": str(train(digits, folder / "first", settings).run / "best.pt")}


@pytest.mark.slow
def test_a_command_that_is_asked_to_stop_saves_first(digits, whole, tmp_path):
    run = tmp_path / "run"
    with started(digits, run, at=12, what="SIGTERM") as process:
        error = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 130
    assert "--resume continues with the next batch" in error
    assert "Traceback" not in error
    train(digits, run, {"threads": 2}, resume=True)
    assert losses(run) == losses(whole)


def test_the_second_ctrl_c_stops_at_once(digits, tmp_path):
    class Twice(Asking):
        def ask(self):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(digits, tmp_path / "run", quick(), watcher=Twice(signal.SIGINT, after=(1, 1)))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_run_is_saved_before_the_tables_of_its_last_epoch_which_are_made_up_for(digits, whole, copy):
    for table in ("metrics.csv", "steps.csv"):
        (copy / table).unlink()
    train(digits, copy, resume=True)
    assert_same_course(copy, whole)


RANKS = """
import json, os, pathlib, signal, sys, time
import imgdata
import imgdata.training.course as course

out, run, settings, stop_at = sys.argv[1:]
rank, step, save = os.environ["RANK"], course.Learner.step, course.save_checkpoint

def step_and_ask(self, *batch, number, **more):
    if stop_at != "0" and number + 1 == int(stop_at) + (rank == "0"):
        signal.raise_signal(signal.SIGTERM)
    return step(self, *batch, number=number, **more)

def save_slowly(path, state):
    time.sleep(0.5 * (path.name == "best.pt") + 2 * (0 < int(stop_at) <= state.get("step", 0)))
    save(path, state)

course.Learner.step, course.save_checkpoint = step_and_ask, save_slowly
result = imgdata.train(out, run, json.loads(settings), resume=os.path.exists(run))
(pathlib.Path(run).parent / f"best-{rank}").write_text(str(result.best.epoch))
"""


def train_by_two(digits, run, settings, *, stop_at=0):
    """Two ranks, the first with a slow disk; the second is asked to stop at the step `stop_at`, the first one later."""
    script = run.parent / "ranks.py"
    script.write_text(RANKS)
    command = [*imgdata_command(ranks=2)[:-2], script, digits, run, json.dumps(settings), str(stop_at)]
    return subprocess.run(
        list(map(str, command)), env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


# Without dropout and the turns of pictures all is the same in one process and in two.
PLAIN = QUICK | {"epochs": EPOCHS, "checkpoint_steps": 0}


@pytest.fixture(scope="module")
def plain(digits, tmp_path_factory):
    return train(digits, tmp_path_factory.mktemp("runs") / "plain", PLAIN).run


def assert_same_up_to_rounding(run, other):
    # Sums in another order are other in their last bits, and each step makes more of that; one answer may be another.
    assert losses(run) == pytest.approx(losses(other), abs=2e-3)
    for name, within in {"val_loss": 2e-3, "train_loss": 2e-3, "val_top1": 1.5 / VAL_SAMPLES}.items():
        assert [row[name] for row in metrics(run)] == pytest.approx([row[name] for row in metrics(other)], abs=within)


@pytest.mark.slow
def test_two_ranks_teach_what_one_does_and_wait_for_each_others_files(digits, plain, tmp_path):
    done = train_by_two(digits, tmp_path / "run", PLAIN)
    assert done.returncode == 0, done.stderr
    assert_same_up_to_rounding(tmp_path / "run", plain)
    assert (tmp_path / "best-0").read_text() == (tmp_path / "best-1").read_text()


@pytest.mark.slow
def test_two_ranks_that_are_asked_to_stop_at_different_steps_save_together_and_one_goes_on(digits, plain, tmp_path):
    done = train_by_two(digits, tmp_path / "run", PLAIN, stop_at=13)
    assert done.returncode != 0
    assert "KeyboardInterrupt" in done.stderr
    assert 13 <= last(tmp_path / "run")["step"] < EPOCHS * STEPS
    train(digits, tmp_path / "run", resume=True)
    assert_same_up_to_rounding(tmp_path / "run", plain)


@pytest.mark.slow
def test_a_run_of_one_goes_on_with_two(digits, plain, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(digits, tmp_path / "run", PLAIN, watcher=Asking(signal.SIGINT, after=(1, 1)))
    done = train_by_two(digits, tmp_path / "run", {})
    assert done.returncode == 0, done.stderr
    assert_same_up_to_rounding(tmp_path / "run", plain)


def test_a_finished_run_that_is_resumed_stays_as_it_is(digits, whole, copy):
    assert len(train(digits, copy, resume=True).rows) == EPOCHS
    assert_same_course(copy, whole)


def test_more_epochs_may_follow_and_the_rates_of_those_before_stay_as_they_were(digits, whole, copy):
    train(digits, copy, {"epochs": EPOCHS + 1}, resume=True)
    assert len(metrics(copy)) == EPOCHS + 1
    before, after = last(whole), last(copy)
    for name in ("losses", "lrs"):
        assert torch.equal(after[name][: EPOCHS * STEPS], before[name])
    rates = [line.split(",")[1] for line in (copy / "steps.csv").read_text().splitlines()]
    assert rates[: 1 + EPOCHS * STEPS] == [
        line.split(",")[1] for line in (whole / "steps.csv").read_text().splitlines()
    ]


def test_what_may_change_may_become_the_default_again(digits, copy):
    result = train(digits, copy, {"checkpoint_steps": 500}, resume=True)
    assert result.config["options"]["checkpoint_steps"] == 500


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.5}, "lr must be 0.006, which the run was started with, got 0.5"),
        ({"model": "resnet9"}, "model must be 'cnn', which the run was started with"),
        # Defaults are no less refused.
        ({"ema": 0.0}, "ema must be 0.8, which the run was started with, got 0.0"),
        ({"flip": True}, "flip must be False, which the run was started with, got True"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1, got 0"),
    ],
)
def test_what_would_change_the_losses_is_refused(digits, whole, options, message):
    with pytest.raises(OptionError, match=message):
        train(digits, whole, options, resume=True)


def test_the_command_refuses_what_would_change_the_losses(digits, whole):
    done = run_command("train", digits, "--out", whole, "--resume", "--flip")
    assert done.returncode == 2
    assert "flip must be False, which the run was started with" in done.stderr
    assert "Traceback" not in done.stderr


def test_other_classes_than_the_runs_are_refused(whole, tmp_path):
    raw = digit_folders(tmp_path / "raw", {"train": 60, "val": 12}, classes=6)
    imgdata.shard(raw, tmp_path / "out", workers=1)
    with pytest.raises(OptionError, match=r"its network has 10 classes \(0, ...\), .* has 6 \(0, ...\)"):
        train(tmp_path / "out", whole, resume=True)


def test_a_damaged_checkpoint_is_said_to_be_one(digits, copy):
    content = (copy / "last.pt").read_bytes()
    (copy / "last.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(OptionError, match="is no checkpoint of imgdata, or damaged"):
        train(digits, copy, resume=True)


def test_there_must_be_a_run_to_go_on_with(digits, tmp_path):
    with pytest.raises(OptionError, match="must be the folder of a run"):
        train(digits, tmp_path / "none", resume=True)


def test_a_run_can_not_go_on_and_be_replaced(digits, whole):
    with pytest.raises(OptionError, match="resume and overwrite can't be given together"):
        train(digits, whole, resume=True, overwrite=True)


@pytest.mark.parametrize("how", [{"resume": True}, {"overwrite": True}])
def test_a_second_process_does_not_write_into_a_run(digits, tmp_path, how):
    class Second(TrainWatcher):
        def epoch_done(self, row, *, best):
            with pytest.raises(OutputError, match="another process is writing this run"):
                train(digits, tmp_path / "run", {} if "resume" in how else quick(), **how)

    train(digits, tmp_path / "run", quick(), watcher=Second())
    assert len(metrics(tmp_path / "run")) == 2


@pytest.mark.slow
def test_two_ranks_thaw_together_and_validate_with_the_same_statistics(digits, tmp_path):
    first = train(digits, tmp_path / "first", quick(model="resnet9", recipe="cifar", epochs=1)).run
    thawing = flags(model="resnet9", recipe="cifar", weights=first / "best.pt", freeze=True, unfreeze_after=1, epochs=3)
    done = run_command("train", digits, "--out", tmp_path / "two", *thawing, ranks=2)
    assert done.returncode == 0, done.stderr
    # One process with the saved weights comes to the scores that the two had together.
    found = evaluate(tmp_path / "two", digits, split="val").scores
    summary = json.loads((tmp_path / "two" / "summary.json").read_text())
    assert found.correct == summary["correct"]
    assert found.loss == pytest.approx(summary["loss"], rel=1e-4)
