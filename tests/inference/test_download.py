"""A picture behind a URL: slow and hostile servers cost a bounded time and a bounded memory."""

import socket
import threading
import time

import pytest

from imgdata.errors import ImageError
from imgdata.inference import image_files
from imgdata.inference.image_files import read_image

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n"


@pytest.fixture
def serve():
    """A function that starts a server, which gives each client to `answer(connection)`; returns its URL."""
    stopped, sockets = threading.Event(), []

    def start(answer):
        server = socket.create_server(("127.0.0.1", 0))
        sockets.append(server)

        def run():
            while not stopped.is_set():
                try:
                    connection, _ = server.accept()
                    with connection:
                        connection.recv(4096)
                        answer(connection, stopped)
                except OSError:
                    # The client has gone, or the test is over.
                    continue

        threading.Thread(target=run, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}/a.jpg"

    yield start
    stopped.set()
    for server in sockets:
        server.close()


def drip(data):
    def answer(connection, stopped):
        for byte in data * 100_000:
            if stopped.is_set():
                return
            connection.sendall(bytes([byte]))
            time.sleep(0.02)

    return answer


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("headers", drip(b"HTTP/1.1 200 OK\r\nX: 1\r\n")),
        ("a body", lambda connection, stopped: (connection.sendall(HEAD), drip(b"x")(connection, stopped))),
    ],
)
def test_what_drips_is_given_up(serve, monkeypatch, name, answer):
    monkeypatch.setattr(image_files, "MAX_DOWNLOAD_S", 0.5)
    with pytest.raises(ImageError, match=r"no whole answer within 0\.5 s"):
        read_image(serve(answer))


def test_an_endless_body_is_not_kept(serve, monkeypatch):
    monkeypatch.setattr(image_files, "MAX_DOWNLOAD_BYTES", 10_000)

    def endless(connection, stopped):
        connection.sendall(HEAD)
        while not stopped.is_set():
            connection.sendall(bytes(4096))

    with pytest.raises(ImageError, match=r"10,000|0\.01|larger|limit"):
        read_image(serve(endless))


def test_a_silent_server_is_given_up(serve, monkeypatch):
    monkeypatch.setattr(image_files, "DOWNLOAD_TIMEOUT_S", 0.3)
    with pytest.raises(ImageError, match="timed out"):
        read_image(serve(lambda connection, stopped: stopped.wait(20)))
