"""Servers that send a store's files over plain HTTP or a bare socket, and what that costs them.

python -m bench.zips SERVE FOLDER PORT      our application under gunicorn, without TLS

CPU is user and system time of the server's processes, of the second of two downloads: by then
all imports are made and the files are in the page cache, for every server alike.
"""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nightcap.contract.captures import parse_capture
from nightcap.contract.segments import SegmentKey, StreamKey
from nightcap.kube.reviews import Identity
from retrieval.audit import Auditor
from retrieval.files.app import create_app
from retrieval.store.base import StreamMeta
from retrieval.store.directory import ReadableDirectory
from retrieval.store.writing import DirectoryStore
from tests.unit.retrieval.builders import CAPTURE, a_capture

FILE_BYTES: Final = 10 * 2**20
_PATH: Final = "/v1/namespaces/storefront/packetcaptures/dns/files.zip"
_PODS: Final = 10


@dataclass(frozen=True, slots=True)
class Served:
    """One download.

    Attributes:
        cpu_seconds: Of the server.
        grown_mib: What the server's resident set was larger by at its highest.
    """

    sent_bytes: int
    cpu_seconds: float
    grown_mib: float


def fill(folder: Path, files: int) -> int:
    """Write a store of so many files; bytes."""
    store = DirectoryStore(folder / "store")
    content = os.urandom(65536 - 16)
    for number in range(files):
        pod = number % _PODS
        stream = StreamKey("storefront", CAPTURE, f"90d00000-0000-4000-8000-{pod:012d}")
        (folder / "store").mkdir(exist_ok=True)
        if number < _PODS:
            store.create_stream(stream, StreamMeta(pod=f"web-{pod}", node="node", capture="dns"))
        path = folder / "store" / SegmentKey(stream, "eth0", number).path
        path.parent.mkdir(exist_ok=True)
        head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 2**18, 1)
        at = 1_700_000_000 + number
        record = struct.pack("<IIII", at, 0, len(content), len(content)) + content
        path.write_bytes(head + record * (FILE_BYTES // len(record)))
    store.close()
    return FILE_BYTES * files


def ours(folder: Path) -> Served:
    """The real application under gunicorn, as it is served, but without TLS."""
    port = _free_port()
    command = [sys.executable, "-m", "bench.zips", str(folder / "store"), str(port)]
    with _running(command) as process:
        _wait_listening(port)
        _download(port, _PATH)
        worker = int(_children(process.pid)[0])
        before, rss = _cpu_seconds(worker), _rss_mib(worker)
        sent, peak = _download(port, _PATH, look=lambda: _rss_mib(worker))
        return Served(sent, _cpu_seconds(worker) - before, peak - rss)


def cat(folder: Path) -> Served:
    """`cat FILES` into a TCP connection, as one would with nc."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        files = sorted(map(str, (folder / "store").rglob("*.pcap")))
        script = 'exec cat "$@" > /dev/tcp/127.0.0.1/' + str(port)
        started = os.times()
        with subprocess.Popen(["bash", "-c", script, "cat", *files]) as process:
            connection, _ = listening.accept()
            with connection:
                sent = _drain(connection)
            process.wait()
        ended = os.times()
    spent = ended.children_user + ended.children_system
    return Served(sent, spent - started.children_user - started.children_system, 0.0)


def nginx(program: Path, folder: Path) -> Served:
    """Send by nginx with sendfile; each file is asked for on one connection."""
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="nightcap-nginx-") as name:
        configuration = Path(name) / "nginx.conf"
        configuration.write_text(
            f"user root; daemon off; worker_processes 1; pid {name}/pid; error_log {name}/errors;\n"
            "events {}\n"
            f"http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000;\n"
            f"  client_body_temp_path {name}/b; proxy_temp_path {name}/p; "
            f"fastcgi_temp_path {name}/f; uwsgi_temp_path {name}/u; scgi_temp_path {name}/s;\n"
            f"  server {{ listen 127.0.0.1:{port}; root {folder / 'store'}; }} }}\n"
        )
        with _running([str(program), "-c", str(configuration)]) as process:
            _wait_listening(port)
            worker = int(_children(process.pid)[0])
            files = sorted((folder / "store").rglob("*.pcap"))
            paths = [f"/{file.relative_to(folder / 'store')}" for file in files]
            _download(port, *paths[:1])
            before = _cpu_seconds(worker)
            sent, _ = _download(port, *paths)
            return Served(sent, _cpu_seconds(worker) - before, 0.0)


def _download(port: int, *paths: str, look: Callable[[], float] = lambda: 0.0) -> tuple[int, float]:
    """Fetch one after the other on one connection; bytes of the bodies, and the highest look."""
    total, peak = 0, 0.0
    buffer = bytearray(2**20)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for path in paths:
            request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\n\r\n"
            connection.sendall(request.encode())
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += connection.recv(65536)
            head, _, rest = answer.partition(b"\r\n\r\n")
            if b" 200 " not in head.split(b"\r\n")[0]:
                raise RuntimeError(head.decode())
            length = int(head.lower().partition(b"content-length: ")[2].split()[0])
            left, seen = length - len(rest), 0
            while left:
                left -= connection.recv_into(buffer, min(left, len(buffer)))
                if (length - left) >> 26 != seen:
                    seen = (length - left) >> 26
                    peak = max(peak, look())
            total += length
    return total, max(peak, look())


def _drain(connection: socket.socket) -> int:
    total, buffer = 0, bytearray(2**20)
    while count := connection.recv_into(buffer):
        total += count
    return total


@contextlib.contextmanager
def _running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _wait_listening(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


class _Everybody:
    """Says yes to all: what the API server would be asked costs the same whatever is sent."""

    def identify(self, token: str) -> Identity:
        return Identity("somebody")

    def may(self, identity: Identity, asked: Any) -> bool:
        return True

    def find(self, capture: Any) -> Any:
        return parse_capture(_json(a_capture()))

    def services(self, namespace: str) -> tuple[tuple[str, str], ...]:
        return ()


def _json(value: object) -> bytes:
    import msgspec

    return msgspec.json.encode(value)


def serve(store: Path, port: int) -> None:
    """Our application under gunicorn's threads."""
    from gunicorn.app.base import BaseApplication

    class Plain(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            settings = {"bind": f"127.0.0.1:{port}", "threads": 8, "worker_class": "gthread"}
            for key, value in settings.items():
                self.cfg.set(key, value)

        def load(self) -> Any:
            auditor = Auditor(lambda _: None)
            return create_app(ReadableDirectory(store), _Everybody(), auditor, lambda: True)

    Plain().run()


if __name__ == "__main__":
    folder, port = sys.argv[1:]
    sys.argv[1:] = []  # gunicorn would read them
    serve(Path(folder), int(port))
