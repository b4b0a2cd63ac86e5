"""Lightning's `Trainer` with our loaders: training, exact validation, resume in mid-epoch, ranks. A script as well."""

import json
import os
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from support.patience import PATIENCE_S
from support.plugin_pages import changed
from support.plugin_training import TRAIN_SAMPLES, VAL_SAMPLES, leave, tiny_model, train_loader, val_loader
from support.plugin_training import pets as pets

STOP = 10
"""Batches before the run is ended; an epoch has 7."""

pytestmark = [
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty"),
    # Its own call of what PyTorch will take away.
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec"),
]


BEFORE = """
class Data(lightning.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(self.train_set, batch_size=256, shuffle=True, num_workers=8)

    def val_dataloader(self):
        return DataLoader(self.val_set, batch_size=256, num_workers=8)

class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net, self.shown, self.right = tiny_model(), [], []

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        self.shown.append(batch.positions.tolist())
        return torch.nn.functional.cross_entropy(self(images), labels)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        right = (self(images).argmax(1) == labels).float()
        self.log("top1", right.mean())
        self.right += right.tolist()
"""


class Module(lightning.LightningModule):
    def __init__(self, stop=None):
        super().__init__()
        self.net, self.stop = tiny_model(), stop
        self.trained, self.checked = [], []

    def training_step(self, batch, batch_idx):
        if len(self.trained) == self.stop:
            raise KeyError("the power is gone")
        self.trained.append(batch.positions.tolist())
        images, labels = batch
        return torch.nn.functional.cross_entropy(self.net(images), labels)

    def validation_step(self, batch, batch_idx):
        self.checked += batch.positions[batch.valid].tolist()
        right = (self.net(batch.images).argmax(1) == batch.labels)[batch.valid].float()
        self.log("right", right.sum(), reduce_fx="sum", sync_dist=True)
        total = len(self.trainer.val_dataloaders.dataset)
        self.log("top1", right.sum() / total, reduce_fx="sum", sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


class Data(lightning.LightningDataModule):
    """Makes the loaders once the ranks are known."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def train_dataloader(self):
        return train_loader(self.folder, device=self.trainer.strategy.root_device)

    def val_dataloader(self):
        return val_loader(self.folder, device=self.trainer.strategy.root_device)


def trainer(folder, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return lightning.Trainer(
        **{"accelerator": "cpu", "devices": 1, "max_epochs": 3, "default_root_dir": folder, **quiet, **options}
    )


@pytest.fixture
def whole(pets, tmp_path):
    """A run of three epochs, uninterrupted."""
    module = Module()
    runner = trainer(tmp_path, enable_checkpointing=False, num_sanity_val_steps=0)
    with train_loader(pets) as train, val_loader(pets) as val:
        runner.fit(module, train, val)
        expected = [batch.positions.tolist() for epoch in range(3) for batch in _epoch(train, epoch)]
    return module, expected, runner.callback_metrics


def _epoch(loader, epoch):
    loader.set_epoch(epoch)
    return loader


def test_fit_shows_every_batch_and_validates_each_sample_once(whole):
    module, expected, metrics = whole
    assert module.trained == expected
    assert module.checked == [*range(VAL_SAMPLES)] * 3
    assert metrics["top1"] == pytest.approx(metrics["right"] / VAL_SAMPLES)


def test_the_pages_code_fits_and_validates_each_sample_once(pets, tmp_path):
    names = {"lightning": lightning, "torch": torch, "tiny_model": tiny_model}
    exec(changed("lightning", BEFORE, pets), names)
    runner, module = trainer(tmp_path, enable_checkpointing=False, num_sanity_val_steps=0), names["Module"]()
    runner.fit(module, datamodule=names["Data"]())
    with train_loader(pets) as train:
        assert module.shown == [batch.positions.tolist() for _ in range(3) for batch in train]
    assert len(module.right) == 3 * VAL_SAMPLES
    assert runner.callback_metrics["top1"] == pytest.approx(sum(module.right[-VAL_SAMPLES:]) / VAL_SAMPLES)


def test_a_resume_in_mid_epoch_gives_exactly_what_was_left(pets, whole, tmp_path):
    stopped = Module(stop=STOP)

    def runner():
        return trainer(tmp_path, callbacks=[ModelCheckpoint(tmp_path, every_n_train_steps=3)])

    with pytest.raises(KeyError, match="the power is gone"):
        (first := runner()).fit(stopped, datamodule=Data(pets))
    assert stopped.trained == whole[1][:STOP]
    resumed = Module()
    runner().fit(resumed, datamodule=Data(pets), ckpt_path=first.checkpoint_callback.best_model_path)
    # The newest checkpoint was written behind batch 9, the second of the second epoch.
    assert resumed.trained == whole[1][9:]
    for one, other in zip(resumed.net.parameters(), whole[0].net.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
def test_two_ranks_of_lightnings_own_launcher_share_the_samples(pets, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, pets, tmp_path],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    steps = [[*zip(*(rank["trained"] for rank in ranks), strict=True)][epoch * 3 : epoch * 3 + 3] for epoch in range(2)]
    for epoch in steps:
        samples = [position for pair in epoch for batch in pair for position in batch]
        assert len(set(samples)) == len(samples) == 48 <= TRAIN_SAMPLES
    assert sorted(ranks[0]["checked"] + ranks[1]["checked"]) == sorted([*range(VAL_SAMPLES)] * 2)
    # The second rank's last batch is padding alone.
    assert (len(ranks[0]["checked"]), len(ranks[1]["checked"])) == (26, 16)
    for rank in ranks:
        assert rank["top1"] == pytest.approx(rank["right"] / VAL_SAMPLES)


def main(folder: str, out: str) -> None:
    module = Module()
    runner = trainer(out, devices=2, strategy="ddp", max_epochs=2, enable_checkpointing=False, num_sanity_val_steps=0)
    runner.fit(module, datamodule=Data(folder))
    metrics = {name: float(value) for name, value in runner.callback_metrics.items()}
    seen = {"trained": module.trained, "checked": module.checked, **metrics}
    Path(out, f"{runner.global_rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
    leave()
