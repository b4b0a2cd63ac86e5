"""Who gets an answer from the viewer's server, what answers carry, and what no client can stop."""

import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import imgdata
import imgdata.web.connections
import imgdata.web.server
from imgdata.dataset.index_schema import INDEX_SCHEMA
from imgdata.dataset.index_writing import write_index
from imgdata.web.connections import MOST_CONNECTIONS, MOST_HEAD_BYTES
from imgdata.web.security import LONGEST_QUERY, MOST_BYTES
from imgdata.web.view import open_viewer
from support.animals import animals
from support.patience import PATIENCE_S, settles
from support.viewers import Served, commanded, rename_first_class, served


@pytest.fixture(scope="module")
def server(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(zoo, reviews=tmp_path_factory.mktemp("reviews") / "decisions.jsonl") as found:
        yield found


DECISION = {"decisions": [{"split": "train", "key": "train/cat/000", "action": "flag"}]}
PAGES = ("/", "/api/dataset", "/thumb/0/96", "/static/app.js", "/api/decisions.csv")


@pytest.mark.parametrize("path", PAGES)
def test_the_cookie_opens_every_page(server: Served, path: str) -> None:
    assert server.get(path).status == 200


@pytest.mark.parametrize("path", [*PAGES, "/none", "/t/x/"])
@pytest.mark.parametrize(
    "headers",
    [{}, {"cookie": "imgdata-{port}=wrong"}, {"cookie": "imgdata={token}"}, {"authorization": "Bearer wrong"}],
    ids=["no token", "wrong token", "another cookie", "wrong bearer"],
)
def test_without_the_token_there_is_nothing(server: Served, path: str, headers: dict[str, str]) -> None:
    sent = {name: value.format(port=server.port, token=server.token) for name, value in headers.items()}
    answer = server.get(path, known=False, headers=sent)
    assert answer.status == 403
    assert b"with its token" in answer.body


@pytest.mark.parametrize("path", ["/?token={token}", "//elsewhere.example/?token={token}", "/api/rows?token={token}"])
def test_the_token_becomes_a_cookie_that_scripts_and_other_sites_never_see(server: Served, path: str) -> None:
    answer = server.get(path.format(token=server.token), known=False)
    assert answer.status == 303
    assert answer.headers["location"] == "/"
    assert answer.headers["set-cookie"] == f"{server.cookie}; HttpOnly; Path=/; SameSite=strict"


def test_cookies_of_other_servers_of_this_machine_do_no_harm(server: Served) -> None:
    odd = {"cookie": f'_xsrf=2|a; {{"json": "no cookie"}}=; a b c; {server.cookie}; last="'}
    assert server.get("/api/dataset", known=False, headers=odd).status == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost:{port}", 200),
        ("LOCALHOST:{port}", 200),
        ("localhost:9000", 200),  # a tunnel has another port
        ("[::1]:{port}", 200),
        ("evil.example:{port}", 421),  # a name that was made to lead here
        ("127.0.0.1.evil.example:{port}", 421),
        ("localhost.evil.example", 421),
        ("10.0.0.7:{port}", 421),
        ("", 421),
        (":{port}", 421),
        ("localhost@evil.example", 421),
    ],
)
def test_only_own_names_are_answered(server: Served, host: str, status: int) -> None:
    assert server.get("/api/dataset", headers={"host": host.format(port=server.port)}).status == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://127.0.0.1:{port}", "sec-fetch-site": "same-origin"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:1"}, 403),  # another server of this machine: browsers call it the same site
        ({"origin": "http://localhost:{port}"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "none"}, 403),
        ({"origin": "http://127.0.0.1:{port}", "sec-fetch-site": "cross-site"}, 403),
    ],
)
@pytest.mark.parametrize("path", ["/api/decisions", "/api/undo", "/api/import", "/api/save-view"])
def test_only_the_page_itself_may_change_something(
    server: Served, path: str, headers: dict[str, str], status: int
) -> None:
    sent = {name: value.format(port=server.port) for name, value in headers.items()}
    answer = server.post(path, DECISION, headers=sent)
    assert (answer.status == 403) == (status == 403)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"])
def test_other_methods_are_refused(server: Served, method: str) -> None:
    assert server.request(method, "/api/dataset").status in (400, 405)


@pytest.mark.parametrize("path", ["/api/decisions", "/api/undo", "/api/import", "/api/save-view"])
def test_reading_never_writes(server: Served, path: str) -> None:
    assert server.get(path).status == 405
    assert server.request("HEAD", path).status == 405


def test_writing_where_there_is_only_something_to_read_is_refused(server: Served) -> None:
    assert server.post("/api/rows", {}).status == 405


@pytest.mark.parametrize("path", PAGES)
def test_a_head_has_no_body(server: Served, path: str) -> None:
    answer = server.request("HEAD", path)
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/rows?text=" + "x" * LONGEST_QUERY, 414),
        ("/" + "x" * LONGEST_QUERY * 2, 414),
        ("/thumb/" + "9" * 4000 + "/96", 404),
        ("/thumb/99999999999999999999/96", 404),
        ("/thumb/-1/96", 404),
        ("/thumb/0/97", 400),
        ("/thumb/0/99999999999", 400),
        ("/picture/99999999999999999999", 404),
        ("/api/sample/99999999999999999999", 404),
        ("/api/rows?start=99999999999999999999", 200),
        ("/api/rows?start=-1", 400),
        ("/api/rows?count=501", 400),
        ("/api/rows?count=nothing", 400),
        ("/api/rows?class=99999999999999999999", 200),
        ("/api/rows?width_min=1e999", 200),
        ("/api/rows?width_min=nothing", 400),
        ("/api/rows?split=../train", 400),
        ("/api/rows?mark=view:../../x", 400),
        ("/api/rows?sort=__class__", 400),
        ("/none", 404),
    ],
)
def test_odd_addresses_are_answered_at_once(server: Served, path: str, status: int) -> None:
    answer = server.get(path)
    assert answer.status == status
    assert b"Traceback" not in answer.body


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static/..%5capp.py",
        "/static/%2e%2e%2fapp.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/static/app.js%00.css",
        "/static/",
    ],
)
def test_no_path_leads_out_of_the_static_files(server: Served, path: str) -> None:
    assert server.get(path).status in (400, 404)


@pytest.mark.parametrize(
    ("method", "path", "known"),
    [
        ("GET", "/", True),
        ("GET", "/", False),
        ("GET", "/none", True),
        ("GET", "/api/rows?count=x", True),
        ("GET", "/thumb/0/96", True),
        ("GET", "/picture/0", True),
        ("GET", "/static/app.js", True),
        ("GET", "/api/rows?text=" + "x" * LONGEST_QUERY, True),
        ("POST", "/api/decisions", True),
        ("PUT", "/", True),
    ],
)
def test_every_answer_says_that_nothing_from_elsewhere_runs(
    server: Served, method: str, path: str, known: bool
) -> None:
    headers = server.request(method, path, known=known).headers
    policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'self'"
    assert "unsafe" not in headers["content-security-policy"]
    assert policy["frame-ancestors"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert [name for name in headers if name.startswith("access-control")] == []
    assert "server" not in headers


@pytest.mark.parametrize(
    "sent", [b"\x00\x01\x02\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00"]
)
def test_what_is_no_http_is_refused_with_the_same_headers(server: Served, sent: bytes) -> None:
    with socket.create_connection((server.host, server.port), PATIENCE_S) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        found = b"".join(iter(lambda: client.recv(4096), b""))
    assert found.startswith(b"HTTP/1.1 400 ")
    assert b"x-content-type-options: nosniff" in found


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b"[]", 400),
        (b"null", 400),
        (b'"text"', 400),
        (b"[" * 100_000, 400),
        (b'{"decisions": 3}', 400),
        (b'{"decisions": [3]}', 400),
        (b'{"decisions": [{"split": 3, "key": "a", "action": "flag"}]}', 400),
        (b'{"decisions": [{"split": "train", "key": "a", "action": "delete everything"}]}', 400),
    ],
)
def test_what_is_no_decision_is_refused(server: Served, body: bytes, status: int) -> None:
    assert server.post("/api/decisions", body).status == status


@pytest.mark.parametrize("length", ["", "content-length: 1048577\r\n", "content-length: 99999999999999999999999\r\n"])
def test_no_body_is_larger_than_it_may_be_whatever_it_says_of_itself(server: Served, length: str) -> None:
    head = (
        f"POST /api/decisions HTTP/1.1\r\nhost: localhost\r\ncookie: {server.cookie}\r\n"
        f"{length or 'transfer-encoding: chunked' + chr(13) + chr(10)}\r\n"
    )
    with socket.create_connection((server.host, server.port), PATIENCE_S) as client:
        client.sendall(head.encode())
        if not length:
            part = b"10000\r\n" + bytes(0x10000) + b"\r\n"
            try:
                for _ in range(4 * MOST_BYTES // 0x10000):
                    client.sendall(part)
            except ConnectionError:
                # It was refused before all was sent.
                return
        try:
            found = client.recv(4096)
        except ConnectionResetError:
            return
    # A number that no machine has is no HTTP any more.
    assert found.startswith((b"HTTP/1.1 413 ", b"HTTP/1.1 400 "))


def test_no_head_is_larger_than_it_may_be(server: Served) -> None:
    with socket.create_connection((server.host, server.port), PATIENCE_S) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\nx: ")
        for _ in range(MOST_HEAD_BYTES // 1024 + 2):
            try:
                client.sendall(b"x" * 1024)
            except OSError:
                break
        try:
            found = client.recv(4096)
        except ConnectionResetError:
            found = b"HTTP/1.1 400 "
    assert found.startswith(b"HTTP/1.1 400 ")


def test_clients_that_say_nothing_do_not_stop_the_others(server: Served) -> None:
    idle = [socket.create_connection((server.host, server.port), PATIENCE_S) for _ in range(2 * MOST_CONNECTIONS)]
    try:
        assert server.get("/api/dataset").status == 200
    finally:
        for client in idle:
            client.close()


def test_a_request_that_never_ends_is_ended(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imgdata.web.connections, "REQUEST_S", 0.2)
    starts = [
        b"",
        b"GET / HTTP/1.1\r\nhost: localhost\r\n",
        f"POST /api/undo HTTP/1.1\r\nhost: localhost\r\ncookie: {server.cookie}\r\ncontent-length: 9\r\n\r\n".encode(),
    ]
    for start in starts:
        with socket.create_connection((server.host, server.port), PATIENCE_S) as client:
            client.sendall(start)
            # Drip by drip, as the attack does.
            stop = threading.Event()
            drip = threading.Thread(target=_drip, args=(client, b"x" if start else b"", stop))
            drip.start()
            try:
                while client.recv(4096):
                    pass
            except ConnectionResetError:
                pass
            finally:
                stop.set()
                drip.join()
    assert server.get("/api/dataset").status == 200


def _drip(client: socket.socket, data: bytes, stop: threading.Event) -> None:
    while not stop.wait(0.05):
        try:
            client.sendall(data)
        except OSError:
            return


def test_clients_that_hang_up_leave_nothing_behind(server: Served, capfd: pytest.CaptureFixture[str]) -> None:
    requests = [
        "GET /picture/0 HTTP/1.1\r\nhost: localhost\r\ncookie: {cookie}\r\n\r\n",
        "GET /thumb/1/480 HTTP/1.1\r\nhost: localhost\r\ncookie: {cookie}\r\n\r\n",
        "POST /api/undo HTTP/1.1\r\nhost: localhost\r\ncookie: {cookie}\r\ncontent-length: 9\r\n\r\n{{",
        "GET / HT",
    ]
    for request in requests * 5:
        client = socket.create_connection((server.host, server.port), PATIENCE_S)
        client.sendall(request.format(cookie=server.cookie).encode())
        client.close()
    assert settles(lambda: server.get("/api/dataset").status, 200)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("format", ["svg", "svg+xml", "html", "JPEG", "image/svg+xml"])
def test_a_picture_is_never_served_as_something_that_runs(tmp_path: Path, format: str) -> None:
    out = animals(tmp_path)
    index = imgdata.open(out)["train"].index
    columns = {name: index.column(name).combine_chunks() for name in INDEX_SCHEMA.names}
    columns["format"] = pa.array([format] * len(index)).dictionary_encode()
    write_index(index.path, pa.table(columns, schema=INDEX_SCHEMA))
    with served(out) as server:
        answer = server.get("/picture/0")
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith("attachment")
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "\x1b]0;owned\x07\x1b[2J", "\u202e", "a\r\nset-cookie: b=c"]
)
def test_names_of_classes_stay_text(tmp_path: Path, name: str) -> None:
    out = animals(tmp_path)
    rename_first_class(out, name)
    with served(out) as server:
        for path in ("/api/dataset", "/api/overview"):
            answer = server.get(path)
            assert answer.headers["content-type"] == "application/json"
            assert "set-cookie" not in answer.headers
            assert name in _texts(answer.json)
            assert b"\x1b" not in answer.body
    with commanded(out) as (process, server):
        process.send_signal(signal.SIGINT)
        rest, said = process.communicate(timeout=PATIENCE_S)
    assert "\x1b" not in rest + said


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for one in value.values() for text in _texts(one)]
    if isinstance(value, list):
        return [text for one in value for text in _texts(one)]
    return [value] if isinstance(value, str) else []


def test_answers_are_sent_at_once(zoo: Path) -> None:
    # Of a socket without this protocol asyncio leaves Nagle's algorithm on: 40 ms more for each answer.
    server = imgdata.web.server.Server(open_viewer(zoo))
    assert server._socket.proto == socket.IPPROTO_TCP
    server.close()


def test_frames_are_for_notebooks_of_this_machine_and_need_the_token(zoo: Path) -> None:
    with served(zoo, framed=True) as server:
        below = server.get(f"/t/{server.token}/api/dataset", known=False)
        assert below.status == 200
        assert "frame-ancestors http://127.0.0.1:* http://localhost:*" in below.headers["content-security-policy"]
        assert server.get(f"/t/{server.token[:-1]}/api/dataset", known=False).status == 403
        assert server.get(f"/t/{server.token}", known=False).status == 403
    with served(zoo) as server:
        assert server.get(f"/t/{server.token}/api/dataset", known=False).status == 403


@pytest.mark.parametrize(
    ("host", "status"), [("10.0.0.7", 200), ("[fe80::1]", 200), ("evil.example", 421), ("127.0.0.1", 200)]
)
def test_for_other_machines_addresses_in_numbers_are_own_names_too(
    zoo: Path, monkeypatch: pytest.MonkeyPatch, host: str, status: int
) -> None:
    monkeypatch.setattr(imgdata.web.server, "is_loopback", lambda host: False)
    with served(zoo) as server:
        assert server.get("/api/dataset", headers={"host": f"{host}:{server.port}"}).status == status
