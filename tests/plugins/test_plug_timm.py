"""The structure of timm's training script with our loaders in place of `create_loader`, mixing included."""

from argparse import Namespace

import pytest
import timm.data
import torch
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, accuracy

import imgdata
from imgdata.recipes import IMAGENET_MEAN, IMAGENET_STD, MixUp, MixUpOrCutMix, Recipe
from support.plugin_pages import changed
from support.plugin_training import CLASSES, NORMALIZE, TRAIN, VAL_SAMPLES, train_loader, val_loader
from support.plugin_training import pets as pets

EPOCHS = 2
MIXED = Recipe(*TRAIN["recipe"].ops, MixUpOrCutMix(mixup_alpha=0.8, cutmix_alpha=1.0))


BEFORE = """
def main(args, data_config, device):
    if not args.naflex_loader:
        loader_train = create_loader(dataset_train, input_size=data_config['input_size'], ...)

    if args.val_split:
        if not args.naflex_loader:
            loader_eval = create_loader(dataset_eval, input_size=data_config['input_size'], ...)

    if not args.evaluate:
        for epoch in range(args.start_epoch, args.epochs):
            _set_loader_epoch(loader_train, epoch)
            train(loader_train, epoch)
            validate(loader_eval)
"""


def train_one_epoch(epoch, model, loader, optimizer, loss_fn, lr_scheduler, mixup_fn=None):
    losses = AverageMeter()
    updates = epoch * len(loader)
    model.train()
    for number, (images, target) in enumerate(loader):
        if mixup_fn is not None:
            images, target = mixup_fn(images, target)
        loss = loss_fn(model(images), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.update(loss.item(), len(images))
        lr_scheduler.step_update(num_updates=updates + number + 1, metric=losses.avg)
    return losses


def validate(model, loader):
    top1 = AverageMeter()
    model.eval()
    with torch.no_grad():
        for batch in loader:
            output, target = model(batch.images)[batch.valid], batch.labels[batch.valid]
            top1.update(accuracy(output, target)[0].item(), len(target))
    return top1


def timms_mixup():
    return timm.data.Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=CLASSES)


def test_the_pages_loaders_show_what_create_loader_did(pets):
    model = timm.create_model("test_vit", num_classes=CLASSES, img_size=32)
    data_config, device = timm.data.resolve_data_config({}, model=model), torch.device("cpu")
    # A model that was not trained with the statistics and filters that the ready recipes have.
    assert (data_config["mean"], data_config["interpolation"]) == ((0.5, 0.5, 0.5), "bicubic")
    same = ("input_size", "crop_pct", "interpolation", "mean", "std")
    options = {"batch_size": 8, "num_workers": 0, "persistent_workers": False, "device": device}
    before = timm.data.create_loader(imgdata.open(pets).torch("val"), **{n: data_config[n] for n in same}, **options)
    trained, checked = [], []

    def train(loader, epoch):
        trained.append([labels.tolist() for _, labels in loader])

    names = {"train": train, "validate": lambda loader: checked.append(list(loader))}
    exec(changed("timm", BEFORE, pets), names)
    args = Namespace(batch_size=8, val_split="val", naflex_loader=False, evaluate=False, start_epoch=1, epochs=3)
    names["main"](args, data_config, device)
    for epoch in checked:
        for (images, target), (found, labels) in zip(before, epoch, strict=True):
            assert torch.equal(target, labels)
            assert (images - found).abs().mean() < 0.02
    with train_loader(pets) as loader:
        loader.set_epoch(1)
        assert trained == [[batch.labels.tolist() for batch in loader] for _ in range(2)]


@pytest.mark.parametrize(
    ("recipe", "mixup_fn", "loss_fn"),
    [
        (TRAIN["recipe"], None, LabelSmoothingCrossEntropy(0.1)),
        (MIXED, None, SoftTargetCrossEntropy()),
        (TRAIN["recipe"], timms_mixup(), SoftTargetCrossEntropy()),
    ],
    ids=["plain", "mixed by the recipe", "mixed by timm"],
)
def test_the_loop_trains_and_validates(pets, recipe, mixup_fn, loss_fn):
    model = timm.create_model("test_resnet", num_classes=CLASSES)
    before = [value.detach().clone() for value in model.parameters()]
    with train_loader(pets, recipe=recipe) as loader_train, val_loader(pets) as loader_eval:
        optimizer = create_optimizer_v2(model, opt="sgd", lr=0.01)
        scheduler, epochs = create_scheduler_v2(
            optimizer, sched="cosine", num_epochs=EPOCHS, cooldown_epochs=0, updates_per_epoch=len(loader_train)
        )
        for epoch in range(epochs):
            loader_train.set_epoch(epoch)
            losses = train_one_epoch(epoch, model, loader_train, optimizer, loss_fn, scheduler, mixup_fn)
            assert losses.count == 8 * len(loader_train) == 56
            top1 = validate(model, loader_eval)
            assert top1.count == VAL_SAMPLES
            scheduler.step(epoch + 1, top1.avg)
    assert epochs == EPOCHS
    after = list(model.parameters())
    assert all(value.isfinite().all() for value in after)
    assert any(not torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_evaluation_is_shown_what_create_loader_showed_it(pets):
    before = timm.data.create_loader(
        imgdata.open(pets).torch("val"),
        input_size=(3, 16, 16),
        batch_size=8,
        crop_pct=0.8,
        interpolation="bilinear",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        num_workers=0,
        persistent_workers=False,
        device=torch.device("cpu"),
    )
    with val_loader(pets) as after:
        assert len(before) == len(after)
        for (images, target), batch in zip(before, after, strict=True):
            assert torch.equal(target, batch.labels[batch.valid])
            assert images.dtype == batch.images.dtype
            assert (images - batch.images[batch.valid]).abs().mean() < 0.02


def test_soft_labels_are_what_timms_mixup_makes_of_the_same_share(pets):
    mixup = Recipe(*TRAIN["recipe"].ops, MixUp(alpha=1.0))
    with train_loader(pets) as plain, train_loader(pets, recipe=mixup) as mixed:
        for one, other in zip(plain, mixed, strict=True):
            # Our partners are neighbours, timm's come from the other end.
            swapped = torch.arange(8) ^ 1
            lam = share(one.images, one.images[swapped], other.images)
            own, partner = (
                torch.nn.functional.one_hot(one.labels[rows], CLASSES) for rows in (torch.arange(8), swapped)
            )
            assert torch.allclose(other.labels, lam * own + (1 - lam) * partner, atol=1e-4)


def share(own, partner, mixed):
    """The weight of `own` in `mixed`, by least squares."""
    difference = (own - partner).double()
    return float(((mixed - partner).double() * difference).sum() / (difference**2).sum())


def test_the_statistics_are_timms():
    assert (NORMALIZE.mean, NORMALIZE.std) == (timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD)
