"""What the fake backend says of itself."""

from imgdata.backends.protocol import Backend, BackendKind, BackendSetup, batch_bytes


class FakeKind(BackendKind):
    name = "fake"
    makes_on_device = False
    benefit = "it is counted"

    def refuses(self, setup: BackendSetup) -> str | None:
        return "backend 'fake' makes uint8 batches alone" if setup.options.dtype != "uint8" else None

    def prefers(self, setup: BackendSetup) -> bool:
        return False

    def describe(self, setup: BackendSetup) -> str:
        return f"fake: {setup.options.threads} threads, counted"

    def memory(self, setup: BackendSetup, epoch: int) -> int:
        return batch_bytes(setup, epoch)

    def make(self, setup: BackendSetup) -> Backend:
        from support.fakebackend.backend import FakeBackend

        return FakeBackend(setup)
