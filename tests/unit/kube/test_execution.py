"""`pods/exec` over a real WebSocket on the loopback, in the place of the API server."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

import pytest
from kubernetes.client import Configuration

from nightcap.kube.client import KubeClient
from nightcap.kube.errors import ClusterUnavailable, Forbidden
from nightcap.kube.execution import Channel, execute

SUCCESS = json.dumps({"status": "Success"}).encode()
FAILURE = json.dumps(
    {
        "status": "Failure",
        "message": "command terminated with exit code 3",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": "3"}]},
    }
).encode()
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Peer:
    """The server's end of one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.file = connection.makefile("rb")
        lines = iter(self.file.readline, b"\r\n")
        self.request = next(lines).decode()
        self.headers = {
            name.lower(): value.strip()
            for name, _, value in (line.decode().partition(":") for line in lines)
        }

    def accept(self) -> None:
        key = self.headers["sec-websocket-key"].encode()
        proof = base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()  # noqa: S324
        self._connection.sendall(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {proof}\r\n"
            "Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n".encode()
        )

    def refuse(self, body: bytes) -> None:
        self._connection.sendall(
            b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )

    def send(self, channel: int, data: bytes) -> None:
        message = bytes([channel]) + data
        length = (
            bytes([len(message)])
            if len(message) < 126
            else struct.pack("!BQ", 127, len(message))
        )  # fmt: skip
        self._connection.sendall(b"\x82" + length + message)

    def end(self) -> None:
        self._connection.sendall(b"\x88\x02\x03\xe8")

    def hears_the_end(self) -> bool:
        """Whether the client says goodbye, or just goes."""
        head = self.file.read(2)
        return head[:1] in (b"", b"\x88")


@contextmanager
def serving(act: Callable[[Peer], None]) -> Iterator[KubeClient]:
    """A client of a server that does this with one connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                peer = Peer(connection)
                act(peer)
                # The file that reads from it would keep it open.
                peer.file.close()

        thread = threading.Thread(target=serve)
        thread.start()
        configuration = Configuration(
            host=f"http://127.0.0.1:{listening.getsockname()[1]}",
            api_key={"authorization": "Bearer the-token"},
        )
        client = KubeClient(configuration)
        yield client
        thread.join(10)
        client.close()


def run(client: KubeClient, *, stdin: bool = False) -> tuple[dict[Channel, bytes], int | None]:
    heard = {Channel.OUT: b"", Channel.ERR: b""}
    with execute(client, "shop", "web", "app", ["a", "b c"], stdin=stdin) as running:
        for channel, data in running:
            heard[channel] += data
    return heard, running.exit_code


def test_output_comes_by_channel_and_every_byte_of_it() -> None:
    every = bytes(range(256)) * 1000
    asked: list[Peer] = []

    def act(peer: Peer) -> None:
        asked.append(peer)
        peer.accept()
        for channel in (0, 1, 2, 3):
            peer.send(channel, b"")  # as the kubelet opens them
        peer.send(1, every)
        peer.send(2, b"beside it")
        peer.send(1, b"rest")
        peer.send(3, SUCCESS)
        peer.end()

    with serving(act) as client:
        heard, code = run(client, stdin=True)
    assert heard == {Channel.OUT: every + b"rest", Channel.ERR: b"beside it"}
    assert code == 0
    url = urlsplit(asked[0].request.split()[1])
    assert url.path == "/api/v1/namespaces/shop/pods/web/exec"
    assert parse_qs(url.query) == {
        "command": ["a", "b c"], "container": ["app"],
        "stdout": ["true"], "stderr": ["true"], "stdin": ["true"],
    }  # fmt: skip
    assert asked[0].headers["authorization"] == "Bearer the-token"
    assert asked[0].headers["sec-websocket-protocol"] == "v4.channel.k8s.io"


@pytest.mark.parametrize(
    ("status", "code"),
    [(FAILURE, 3), (b'{"status": "Failure"}', 1), (b"no JSON", 1), (b"[]", 1)],
)
def test_commands_exit_code_is_told(status: bytes, code: int) -> None:
    def act(peer: Peer) -> None:
        peer.accept()
        peer.send(3, status)
        peer.end()

    with serving(act) as client:
        assert run(client)[1] == code


def test_connection_that_breaks_has_no_exit_code() -> None:
    def act(peer: Peer) -> None:
        peer.accept()
        peer.send(1, b"half")

    with serving(act) as client:
        heard, code = run(client)
    assert heard[Channel.OUT] == b"half"
    assert code is None


def test_refusal_is_in_the_servers_words() -> None:
    body = json.dumps({"reason": "Forbidden", "message": "jo may not", "code": 403}).encode()
    with (
        serving(lambda peer: peer.refuse(body)) as client,
        pytest.raises(Forbidden, match="jo may not"),
    ):
        run(client)


def test_leaving_the_block_ends_the_connection() -> None:
    ended = threading.Event()

    def act(peer: Peer) -> None:
        peer.accept()
        peer.send(1, b"on and on")
        if peer.hears_the_end():
            ended.set()

    with serving(act) as client, execute(client, "shop", "web", "app", ["a"]) as running:
        assert next(iter(running)) == (Channel.OUT, b"on and on")
    assert ended.wait(10)


def test_server_that_is_away_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    client = KubeClient(Configuration(host=url))
    with pytest.raises(ClusterUnavailable, match="did not answer"):
        run(client)
