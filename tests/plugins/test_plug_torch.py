"""What plain PyTorch expects of a loader: a loop, a `DataLoader` around it, ranks."""

from itertools import islice

import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.transforms import v2

import imgdata
from imgdata.recipes import IMAGENET_MEAN, IMAGENET_STD
from support.plugin_pages import FOLDER, PAGES, changed
from support.plugin_training import TRAIN_SAMPLES, VAL, VAL_SAMPLES, tiny_model, train_loader, val_loader
from support.plugin_training import pets as pets

BEFORE = """
train_set = ImageFolder("imagenet/train", Compose([RandomResizedCrop(224), RandomHorizontalFlip(), ToTensor(), norm]))
sampler = DistributedSampler(train_set)
train_loader = DataLoader(train_set, 256, sampler=sampler, num_workers=8, pin_memory=True, drop_last=True)
for epoch in range(start_epoch, 90):
    sampler.set_epoch(epoch)
    for images, labels in train_loader:
        images, labels = images.cuda(non_blocking=True), labels.cuda(non_blocking=True)
        loss = cross_entropy(model(images), labels)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
"""


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_short_and_shows_what_goes_and_what_comes(page):
    lines = (FOLDER / f"{page}.md").read_text().splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 125
    assert {"+", "-"} <= {line[:1] for line in lines}


def test_the_pages_loop_shows_each_epochs_batches(pets):
    def names():
        model = tiny_model()
        cross_entropy = torch.nn.functional.cross_entropy
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        return {"model": model, "optimizer": optimizer, "cross_entropy": cross_entropy, "losses": []}

    found = names() | {"start_epoch": 1}
    exec(changed("pytorch", BEFORE, pets), found)
    expected = names()
    with train_loader(pets, recipe=imgdata.recipes.imagenet_train(16)) as train:
        train.set_epoch(1)
        for images, labels in (batch for _ in range(2) for batch in train):
            loss = expected["cross_entropy"](expected["model"](images), labels)
            expected["losses"].append(loss.item())
            expected["optimizer"].zero_grad()
            loss.backward()
            expected["optimizer"].step()
    assert found["losses"] == expected["losses"]
    assert len(set(found["losses"])) == 14


def test_a_run_that_goes_on_in_mid_epoch_ends_with_the_weights_of_a_whole_one(pets):
    def run(loader, model, optimizer, stop=None):
        for epoch in range(loader.epoch, 2):
            loader.set_epoch(epoch)
            for images, labels in islice(loader, stop):
                loss = torch.nn.functional.cross_entropy(model(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if stop is not None:
                return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "loader": loader.state_dict()}
        return {"model": model.state_dict()}

    def parts():
        model = tiny_model()
        return train_loader(pets), model, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    whole = run(*parts())
    saved = run(*parts(), stop=3)
    loader, model, optimizer = parts()
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    loader.load_state_dict(saved["loader"])
    rest = run(loader, model, optimizer)
    assert all(torch.equal(value, rest["model"][name]) for name, value in whole["model"].items())


def evaluate(model, loader):
    """How many answers are right, and of how many."""
    right = total = 0
    with torch.no_grad():
        for batch in loader:
            right += ((model(batch.images).argmax(1) == batch.labels) & batch.valid).sum().item()
            total += batch.valid.sum().item()
    return right, total


def test_a_plain_loop_learns_what_it_is_shown(pets):
    model = tiny_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    seen = imgdata.open(pets)
    with (
        train_loader(seen, view="fraction=0.3", batch_size=6, recipe=VAL["recipe"]) as train,
        val_loader(seen, split="train", view="fraction=0.3") as same,
        val_loader(seen) as val,
    ):
        before, count = evaluate(model, same)
        for _ in range(25):
            for images, labels in train:
                loss = torch.nn.functional.cross_entropy(model(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        assert count == len(same.dataset) == 0.3 * TRAIN_SAMPLES
        assert before < evaluate(model, same)[0] > 0.8 * count
        assert evaluate(model, val)[1] == VAL_SAMPLES


def test_it_has_what_code_asks_of_a_data_loader(pets):
    with train_loader(pets) as train, val_loader(pets) as val:
        assert (len(train), train.batch_size, len(train.dataset)) == (7, 8, TRAIN_SAMPLES)
        assert (len(val), val.batch_size, len(val.dataset)) == (3, 8, VAL_SAMPLES)
        mapped = train.map(tuple)
        assert (len(mapped), mapped.batch_size, len(mapped.dataset)) == (7, 8, TRAIN_SAMPLES)


def test_a_batch_moves_its_images_and_labels(pets):
    with train_loader(pets) as train:
        batch = next(iter(train))
    moved = batch.to("meta")
    assert (moved.images.device.type, moved.labels.device.type) == ("meta", "meta")
    assert (moved.images.shape, moved.labels.shape) == (batch.images.shape, batch.labels.shape)
    assert moved.positions is batch.positions
    assert moved.valid is batch.valid
    stayed = batch.to(torch.device("cpu"), non_blocking=True)
    assert stayed.images is batch.images
    assert stayed.labels is batch.labels


def test_a_mapped_loader_is_the_loader_but_for_the_batches(pets):
    def numbers(batch):
        return batch.positions.tolist(), float(batch.images.sum())

    with train_loader(pets) as train, train_loader(pets) as other:
        mapped = train.map(numbers)
        expected = [[numbers(batch) for batch in other] for _ in range(3)]
        assert [list(mapped) for _ in range(2)] == expected[:2]
        mapped.set_epoch(0)
        assert list(mapped) == expected[0]
        batches = iter(mapped)
        assert [next(batches) for _ in range(3)] == expected[1][:3]
        assert mapped.state_dict() == train.state_dict()
    with train_loader(pets) as train:
        resumed = train.map(numbers)
        resumed.load_state_dict(mapped.state_dict())
        assert list(resumed) == expected[1][3:]
        assert list(resumed) == expected[2]


def test_a_data_loader_around_it_gives_its_batches(pets):
    with train_loader(pets) as train, train_loader(pets) as other:
        wrapped = DataLoader(train.map(tuple), batch_size=None)
        assert len(wrapped) == len(train)
        for _ in range(2):
            for (images, labels), batch in zip(wrapped, other, strict=True):
                assert torch.equal(images, batch.images)
                assert torch.equal(labels, batch.labels)


def test_evaluation_is_shown_what_torchvision_showed_it(pets):
    """The code before and after: a `Dataset` with a transform, and the loader."""
    transform = v2.Compose(
        [
            v2.ToImage(),
            v2.Resize(20),
            v2.CenterCrop(16),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    before = DataLoader(imgdata.open(pets).torch("val", transform), batch_size=8)
    with val_loader(pets) as after:
        for (images, labels), batch in zip(before, after, strict=True):
            assert torch.equal(labels, batch.labels[batch.valid])
            assert (images - batch.images[batch.valid]).abs().mean() < 0.02


@pytest.fixture
def alone():
    """This process as the only one that torch.distributed knows."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_a_loader_made_for_other_ranks_than_there_are_is_refused(pets, monkeypatch, request):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with train_loader(pets) as found, train_loader(pets, rank=1, world_size=2) as given:
        request.getfixturevalue("alone")
        with pytest.raises(imgdata.OptionError, match=r"rank must be .* 0 of 1, got 1 of 2: make the loader after"):
            iter(found)
        assert len(list(given)) == len(given)
