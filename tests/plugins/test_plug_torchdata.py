"""torchdata's conventions of state: `StatefulDataLoader` around a loader, a loader as a node."""

import pytest
import torch
import torchdata.nodes
from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.stateful import Stateful

from support.loaders import as_saved
from support.plugin_pages import changed
from support.plugin_training import pets as pets
from support.plugin_training import train_loader

# Its own call of a function that PyTorch gave up.
pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")


BEFORE = """
loader = StatefulDataLoader(train_set, batch_size=256, shuffle=True, num_workers=8)
for images, labels in loader:
    loss = train_step(images, labels)
    torch.save({"loader": loader.state_dict()}, "checkpoint.pt")
"""


def positions(batch):
    return batch.positions.tolist()


def around(pets, num_workers=0):
    """A loader of torchdata around ours, and ours."""
    loader = train_loader(pets)
    return StatefulDataLoader(loader.map(positions), batch_size=None, num_workers=num_workers), loader


@pytest.fixture
def expected(pets):
    """The positions of three epochs' batches, uninterrupted."""
    with train_loader(pets) as loader:
        return [[positions(batch) for batch in loader] for _ in range(3)]


def take(batches, count):
    return [next(batches) for _ in range(count)]


def test_the_loader_and_what_map_gives_are_stateful(pets):
    with train_loader(pets) as loader:
        assert isinstance(loader, Stateful)
        assert isinstance(loader.map(tuple), Stateful)


@pytest.mark.parametrize("taken", [0, 1, 5])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_state_of_mid_epoch_gives_the_rest_of_it(pets, expected, num_workers, taken):
    first, loader = around(pets, num_workers)
    with loader:
        assert take(iter(first), taken) == expected[0][:taken]
        # Worker processes are ahead of what was handed out; the state is not.
        state = first.state_dict()
    resumed, loader = around(pets, num_workers)
    with loader:
        resumed.load_state_dict(state)
        assert list(resumed) == expected[0][taken:]


def test_the_state_at_the_end_of_an_epoch_gives_the_next_one(pets, expected):
    first, loader = around(pets)
    with loader:
        assert [list(first) for _ in range(2)] == expected[:2]
        state = first.state_dict()
    resumed, loader = around(pets)
    with loader:
        resumed.load_state_dict(state)
        assert list(resumed) == expected[2]


def test_after_the_rest_of_an_epoch_comes_the_next_one(pets, expected):
    first, loader = around(pets)
    with loader:
        take(iter(first), 4)
        state = first.state_dict()
    resumed, loader = around(pets)
    with loader:
        resumed.load_state_dict(state)
        assert [list(resumed) for _ in range(2)] == [expected[0][4:], expected[1]]


def test_a_worker_process_is_told_the_epoch(pets, expected):
    # Each epoch's worker begins with a copy of this process's loader, which hands out nothing itself.
    batches, loader = around(pets, num_workers=1)
    with loader:
        for epoch in range(2):
            loader.set_epoch(epoch)
            assert list(batches) == expected[epoch]


@pytest.mark.parametrize("taken", [1, 5])
def test_a_node_goes_on_where_it_was(pets, expected, taken):
    def node(loader):
        shown = torchdata.nodes.IterableWrapper(loader)
        return torchdata.nodes.Loader(torchdata.nodes.Mapper(shown, positions))

    with train_loader(pets) as loader:
        first = node(loader)
        assert take(iter(first), taken) == expected[0][:taken]
        state = first.state_dict()
    with train_loader(pets) as loader:
        resumed = node(loader)
        resumed.load_state_dict(state)
        assert list(resumed) == expected[0][taken:]
        assert list(resumed) == expected[1]


def test_the_pages_checkpoint_goes_on_with_the_very_next_batch(pets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = []

    def train_step(images, labels):
        if len(seen) == 3:
            raise KeyError("the power is gone")
        seen.append(labels.tolist())

    names = {"torch": torch, "train_step": train_step}
    with pytest.raises(KeyError, match="the power is gone"):
        exec(changed("torchdata", BEFORE, pets), names)
    with train_loader(pets) as loader, train_loader(pets) as whole:
        loader.load_state_dict(torch.load("checkpoint.pt")["loader"])
        assert seen + [batch.labels.tolist() for batch in loader] == [batch.labels.tolist() for batch in whole]


def test_loading_a_state_gives_it_back(pets):
    with train_loader(pets) as loader, train_loader(pets) as other:
        take(iter(loader), 3)
        state = as_saved(loader.state_dict())
        other.load_state_dict(state)
        assert as_saved(other.state_dict()) == state
