"""Datasets that viewers show."""

from pathlib import Path

import pytest

from support.animals import animals


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The animals, 20 to train and 6 to validate; not to be changed."""
    return animals(tmp_path_factory.mktemp("zoo"))
