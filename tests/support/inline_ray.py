"""A Ray that runs tasks in this process, one at a time; what they get and return is pickled, as between machines."""

import inspect
import pickle
from functools import partial
from types import SimpleNamespace

import pytest

from imgdata import cluster


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause: Exception) -> None:
        self.cause = cause


class InlineRay:
    """A cluster of two processors."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self) -> None:
        self.ended = 0
        self.bytes = 0
        """Bytes of the largest arguments or result."""

    def is_initialized(self):
        return True

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": 2, "memory": 4e9}}]

    def remote(self, function):
        # The work goes with its function, once.
        work = self._sent(inspect.getclosurevars(function).nonlocals["work"])

        def start(*arguments):
            return partial(self._timed, work, *self._sent(arguments))

        return SimpleNamespace(options=lambda **settings: SimpleNamespace(remote=start))

    def wait(self, tasks, num_returns, timeout):
        # The last one first: results come in any order.
        return tasks[-1:], []

    def get(self, task):
        self.ended += 1
        try:
            return self._sent(task())
        except Exception as error:
            raise RayTaskError(error) from error

    def cancel(self, task, force):
        pass

    def _timed(self, work, *arguments):
        return 0.1, work(*arguments)

    def _sent(self, value):
        data = pickle.dumps(value)
        self.bytes = max(self.bytes, len(data))
        return pickle.loads(data)


@pytest.fixture
def inline_ray(monkeypatch: pytest.MonkeyPatch) -> InlineRay:
    """The Ray that `engine="ray"` gets."""
    ray = InlineRay()
    monkeypatch.setattr(cluster, "_imported", lambda: ray)
    return ray
