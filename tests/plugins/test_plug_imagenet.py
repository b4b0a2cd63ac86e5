"""The structure of PyTorch's ImageNet example with our loaders: alone, resumed, and as two ranks under torchrun.

As a script it is that example: main, train, validate, checkpoints by the epoch, meters reduced over the ranks.
"""

import argparse
import json
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed

from support.plugin_pages import changed
from support.plugin_training import VAL_SAMPLES, leave, run_ranks, tiny_model, train_loader, val_loader
from support.plugin_training import pets as pets

BATCH = 8


BEFORE = """
def main_worker(device, args):
    train_loader = torch.utils.data.DataLoader(train_dataset, batch_size=args.batch_size, sampler=train_sampler, ...)
    val_loader = torch.utils.data.DataLoader(val_dataset, batch_size=args.batch_size, sampler=val_sampler, ...)
    for epoch in range(args.start_epoch, args.epochs):
        if args.distributed:
            train_sampler.set_epoch(epoch)
        shown.extend(train(train_loader, model, criterion, optimizer))
        counts.append(validate(val_loader))

def validate(val_loader):
    def run_validate(loader):
        with torch.no_grad():
            for i, (images, target) in enumerate(loader):
                images = images.to("cpu")
                output = model(images)
                loss = criterion(output, target)
                losses.update(loss.item(), target.size(0))
    losses = AverageMeter()
    run_validate(val_loader)
    assert losses.mean > 0
    return losses.count
"""


class AverageMeter:
    """A value's mean over samples, on this rank or, after `all_reduce`, on all."""

    def __init__(self):
        self.sum, self.count = 0.0, 0

    @property
    def mean(self):
        return self.sum / self.count

    def update(self, value, count):
        self.sum += float(value) * count
        self.count += count

    def all_reduce(self):
        total = torch.tensor([self.sum, self.count], dtype=torch.float64)
        distributed.all_reduce(total)
        self.sum, self.count = total[0].item(), int(total[1])


def accuracy(output, target, topk=(1,)):
    """For each k the percentage of samples whose class is among the k best."""
    best = output.topk(max(topk), dim=1).indices == target[:, None]
    return [100.0 * best[:, :k].any(1).float().mean() for k in topk]


def train(train_loader, model, criterion, optimizer):
    losses, top1, shown = AverageMeter(), AverageMeter(), []
    model.train()
    for batch in train_loader:
        images, target = batch
        output = model(images)
        loss = criterion(output, target)
        losses.update(loss.item(), len(images))
        top1.update(accuracy(output, target)[0], len(images))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        shown.append(batch.positions.tolist())
    return shown


def validate(val_loader, model, criterion, distributed_run):
    losses, top1, top2 = AverageMeter(), AverageMeter(), AverageMeter()
    model.eval()
    with torch.no_grad():
        for batch in val_loader:
            # Each sample counts once over all ranks: no Subset for a rest that the ranks can't share evenly.
            images, target = batch
            # The padding goes through the model as well: under DDP all ranks call it equally often.
            output = model(images)
            output, target = output[batch.valid], target[batch.valid]
            if not len(target):
                continue
            losses.update(criterion(output, target).item(), len(target))
            for meter, value in zip((top1, top2), accuracy(output, target, topk=(1, 2)), strict=True):
                meter.update(value, len(target))
    if distributed_run:
        for meter in (losses, top1, top2):
            meter.all_reduce()
    return {"loss": losses.mean, "top1": top1.mean, "top2": top2.mean, "count": top1.count}


def main(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--resume", type=Path)
    args = parser.parse_args(arguments)
    distributed_run = distributed.is_torchelastic_launched()
    model = tiny_model()
    if distributed_run:
        distributed.init_process_group("gloo")
        model = torch.nn.parallel.DistributedDataParallel(model)
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    start_epoch = 0
    if args.resume:
        checkpoint = torch.load(args.resume)
        start_epoch = checkpoint["epoch"]
        model.load_state_dict(checkpoint["state_dict"])
        optimizer.load_state_dict(checkpoint["optimizer"])

    # The two loaders, instead of ImageFolder, DistributedSampler and DataLoader.
    batch_size = BATCH // (distributed.get_world_size() if distributed_run else 1)
    loader = train_loader(args.data, batch_size=batch_size)
    val = val_loader(args.data, batch_size=batch_size)

    shown = []
    for epoch in range(start_epoch, args.epochs):
        loader.set_epoch(epoch)
        shown += train(loader, model, criterion, optimizer)
        found = validate(val, model, criterion, distributed_run)
        if loader.rank == 0:
            state = {"epoch": epoch + 1, "state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(state, args.out / f"checkpoint-{epoch}.pt")
    weights = torch.cat([value.detach().flatten() for value in model.parameters()]).tolist()
    result = {"shown": shown, "found": found, "weights": weights}
    (args.out / f"rank{loader.rank}.json").write_text(json.dumps(result))


def run(folder, out, *options):
    """The example in this process; what it wrote."""
    out.mkdir()
    main([str(folder), str(out), *options])
    return json.loads((out / "rank0.json").read_text())


def test_alone_it_validates_each_sample_once(pets, tmp_path):
    result = run(pets, tmp_path / "out")
    assert result["found"]["count"] == VAL_SAMPLES
    assert len(result["shown"]) == 14
    # A share of so many samples, not of the batches.
    right = result["found"]["top1"] * VAL_SAMPLES / 100
    assert right == pytest.approx(round(right), abs=1e-3)


@pytest.mark.parametrize(("rank", "count"), [(0, 13), (1, 8)])
def test_the_pages_code_trains_and_validates_on_what_is_a_ranks(pets, monkeypatch, rank, count):
    # One of two ranks, by what torchrun sets; the second one's last batch of evaluation is padding alone.
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", "2")
    model = tiny_model()
    names = {"model": model, "optimizer": torch.optim.SGD(model.parameters(), 0.05), "shown": [], "counts": []}
    names |= {"torch": torch, "train": train, "criterion": torch.nn.CrossEntropyLoss(), "AverageMeter": AverageMeter}
    exec(changed("imagenet-example", BEFORE, pets), names)
    args = argparse.Namespace(data=pets, batch_size=8, start_epoch=1, epochs=3, distributed=True)
    names["main_worker"](torch.device("cpu"), args)
    with train_loader(pets, rank=rank, world_size=2) as loader:
        loader.set_epoch(1)
        assert names["shown"] == [batch.positions.tolist() for _ in range(2) for batch in loader]
    assert names["counts"] == [count] * 2


def test_an_epoch_after_a_resume_is_that_of_the_whole_run(pets, tmp_path):
    whole = run(pets, tmp_path / "whole")
    resumed = run(pets, tmp_path / "rest", "--resume", str(tmp_path / "whole" / "checkpoint-0.pt"))
    assert resumed["shown"] == whole["shown"][7:]
    assert resumed["weights"] == whole["weights"]


@pytest.mark.slow
def test_two_ranks_train_and_validate_as_one(pets, tmp_path):
    one = run(pets, tmp_path / "one")
    (tmp_path / "two").mkdir()
    run_ranks(__file__, pets, tmp_path / "two")
    ranks = [json.loads((tmp_path / "two" / f"rank{rank}.json").read_text()) for rank in range(2)]
    # A global batch is the same samples, so the same gradient and, but for rounding, the same model.
    for batch, *parts in zip(one["shown"], *(rank["shown"] for rank in ranks), strict=True):
        assert sorted(batch) == sorted(position for part in parts for position in part)
    assert ranks[0]["weights"] == ranks[1]["weights"] == pytest.approx(one["weights"], abs=1e-4)
    assert ranks[0]["found"] == ranks[1]["found"] == pytest.approx(one["found"], rel=1e-3)


if __name__ == "__main__":
    main(sys.argv[1:])
    leave()
