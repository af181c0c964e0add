"""Sidecars that ship as the upload protocol has it, against the real collector over TLS.

python -m bench.shipping CLIENT PORT CA ...      one process of senders; see `main`

Senders are a process of their own and cost nothing here: what is measured is the CPU time of
the collector's processes, so that a busy machine changes little.
"""

import contextlib
import json
import os
import random
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.result import say
from nightcap.contract.uploads import MAX_BODY_BYTES
from sidecar.shipping import Delay
from tests.unit.retrieval.builders import CAPTURE, a_capture, a_pod
from tests.unit.retrieval.fake_api import FakeApi
from tests.unit.retrieval.programs import Installation
from tests.unit.retrieval.s3 import S3Server

SEGMENT_BYTES: Final = 3 * MAX_BODY_BYTES
_HEADER: Final = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_REPORT: Final = json.dumps(
    {"v": 1, "at": 1.5, "state": "capturing", "packets": 10**6, "bytes": 10**9, "received": 10**6}
)


@dataclass(frozen=True, slots=True)
class Spent:
    """What the collector needed.

    Attributes:
        said: What the senders say that they did.
        cpu_seconds: User and system time of the collector's processes.
        rss_before, rss_after: Resident set in MiB after a first round, and the highest later.
    """

    said: dict[str, float]
    cpu_seconds: float
    rss_before: float
    rss_after: float


@contextmanager
def collector(folder: Path, pods: int, *, on_objects: bool = False) -> Iterator[Installation]:
    """A running collector that knows so many pods; over an S3-speaking server if so wished."""
    api = FakeApi()
    api.captures = [a_capture(limits={"maxSize": "0"})]
    for number in range(pods):
        name, uid = f"web-{number}", f"90d00000-0000-4000-8000-{number:012d}"
        api.pods["storefront", name] = a_pod(name, uid)
        api.add_pod_token(f"token-{number}", "storefront", name, uid)
    server = S3Server(folder) if on_objects else None
    if server is not None:
        installation = Installation(api, folder, server.new_url(), server.environ)
    else:
        installation = Installation(api, folder)
    try:
        installation.start("collector")
        yield installation
    finally:
        installation.kill()
        api.close()
        if server is not None:
            server.stop()


def measure(installation: Installation, kind: str, *options: float) -> Spent:
    """Let one process of senders run to its end."""
    (process,) = installation.processes.values()
    pids = _processes(process.pid)
    port = installation.port_of("collector")
    ca = installation.folder / "ca.pem"
    ca.write_text(installation.ca)
    command = [sys.executable, "-m", "bench.shipping", kind, str(port), str(ca)]
    with subprocess.Popen(
        [*command, *map(str, options)], stdout=subprocess.PIPE, text=True
    ) as senders:
        assert senders.stdout is not None  # noqa: S101 - for the type checker
        senders.stdout.readline()  # all are connected, and known
        before = sum(map(_cpu_seconds, pids))
        rss = []
        while senders.poll() is None:
            rss.append(sum(map(_rss_mib, pids)))
            time.sleep(0.1)
        said = json.loads(senders.stdout.read())
    spent = sum(map(_cpu_seconds, pids)) - before
    third = max(1, len(rss) // 3)
    return Spent(said, spent, max(rss[:third]), max(rss[third:] or rss))


def _processes(first: int) -> list[int]:
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    return [first, *map(int, children)]


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _rss_mib(pid: int) -> float:
    with contextlib.suppress(FileNotFoundError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    return 0.0


class Sender:
    """One sidecar's connection; as little of a client as there can be."""

    def __init__(self, port: int, context: ssl.SSLContext, number: int) -> None:
        raw = socket.create_connection(("127.0.0.1", port), timeout=60)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = context.wrap_socket(raw, server_hostname="localhost")
        self._head = f"Host: c\r\nAuthorization: Bearer token-{number}\r\n"
        self._reports = 0
        self.put_off = 0
        """How often the collector said 503."""

    def ask(
        self, method: str, seq: int, body: bytes = b"", offset: int = 0, *, complete: bool = False
    ) -> dict[str, str]:
        """One request, again and again as long as the collector puts it off; the answer's headers.

        Raises:
            RuntimeError: it was refused.
        """
        delay = Delay()
        while True:
            answer = self._ask_once(method, seq, body, offset, complete=complete)
            first, *lines = answer.split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)
            }
            is_conflict = " 409 " in first and int(headers["upload-offset"]) > offset
            if " 204 " in first or is_conflict:  # kept before, though that was not said
                return headers
            if " 503 " not in first:
                raise RuntimeError(answer)
            self.put_off += 1
            time.sleep(delay.longer(random.uniform(0.5, 1.5)))  # noqa: S311 - as sidecars spread

    def _ask_once(self, method: str, seq: int, body: bytes, offset: int, *, complete: bool) -> str:
        """One request; the answer's head."""
        self._reports += 1
        report = _REPORT.replace("{", f'{{"seq": {self._reports}, ', 1)
        request = (
            f"{method} /v1/captures/{CAPTURE}/eth0/{seq} HTTP/1.1\r\n{self._head}"
            f"Upload-Offset: {offset}\r\nUpload-Complete: ?{int(complete)}\r\n"
            f"Nightcap-Report: {report}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._socket.sendall(request.encode())
        if body:
            self._socket.sendall(body)
        answer = b""
        while b"\r\n\r\n" not in answer:
            piece = self._socket.recv(65536)
            if not piece:
                raise RuntimeError("the collector closed the connection")
            answer += piece
        head, _, rest = answer.partition(b"\r\n\r\n")
        if method != "HEAD":
            self._read_rest(head, rest)
        return head.decode()

    def _read_rest(self, head: bytes, rest: bytes) -> None:
        """Take a refusal's sentence, so that the next answer begins with its own head."""
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        left = int(length or 0) - len(rest)
        while left > 0:
            piece = self._socket.recv(left)
            if not piece:
                raise RuntimeError("the collector closed the connection")
            left -= len(piece)

    def segment(self, seq: int, body: bytes) -> None:
        """A whole segment, until it is durable."""
        offset, durable = 0, 0
        while offset < SEGMENT_BYTES:
            last = offset + len(body) >= SEGMENT_BYTES
            answer = self.ask("PATCH", seq, body, offset, complete=last)
            offset, durable = int(answer["upload-offset"]), int(answer["nightcap-durable"])
        while durable < offset:
            time.sleep(0.1)
            durable = int(self.ask("HEAD", seq)["nightcap-durable"])

    def slowly(self, together: threading.Barrier, seconds: float, bytes_per_second: float) -> int:
        """A quiet pod: appends at the pace it is told; how many."""
        seq = time.monotonic_ns() % 10**8
        answer = self.ask("PATCH", seq, _HEADER)
        appends, offset = 0, len(_HEADER)
        together.wait()
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            pace = float(answer["nightcap-pace"])
            time.sleep(min(pace, max(0.0, until - now)))
            body = bytes(int(bytes_per_second * pace))
            answer = self.ask("PATCH", seq, body, offset)
            appends, offset = appends + 1, offset + len(body)
        return appends


def _many(
    count: int,
    work: Callable[[int], Any],
    together: threading.Barrier,
    ready: Callable[[], Any],
) -> list[Any]:
    """Results of so many threads, and of `ready`, which runs beside them when all are connected."""
    results: list[Any] = [None] * count
    faults: list[BaseException] = []

    def one(number: int) -> None:
        try:
            results[number] = work(number)
        except (OSError, RuntimeError) as error:
            faults.append(error)
            together.abort()  # the others would wait for ever

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    with contextlib.suppress(threading.BrokenBarrierError):
        together.wait()
        print("ready", flush=True)
        results.append(ready())
    for thread in threads:
        thread.join()
    if faults:
        raise next(
            (f for f in faults if not isinstance(f, threading.BrokenBarrierError)), faults[0]
        )
    return results


def fast(port: int, ca: str, senders: float, segments: float) -> dict[str, float]:
    """So many sidecars, each with so many segments, as fast as they can."""
    context = ssl.create_default_context(cafile=ca)
    body = _HEADER + os.urandom(MAX_BODY_BYTES - len(_HEADER))
    base = time.monotonic_ns() // 10**6 % 10**6

    together = threading.Barrier(int(senders) + 1)

    def work(number: int) -> tuple[int, int]:
        sender = Sender(port, context, number)
        sender.ask("HEAD", base * 50)
        together.wait()
        for seq in range(int(segments)):
            sender.segment(base * 50 + seq, body)
        return SEGMENT_BYTES * int(segments), sender.put_off

    *done, started = _many(int(senders), work, together, time.monotonic)
    return {
        "bytes": sum(size for size, _ in done),
        "put_off": sum(count for _, count in done),
        "seconds": time.monotonic() - started,
    }


def slow(port: int, ca: str, senders: float, seconds: float, rate: float) -> dict[str, float]:
    """So many quiet sidecars for so long; the measured time begins when all are connected."""
    context = ssl.create_default_context(cafile=ca)
    together = threading.Barrier(int(senders) + 1)

    def work(number: int) -> int:
        sender = Sender(port, context, number)
        return sender.slowly(together, seconds, rate)

    *appends, _ = _many(int(senders), work, together, time.monotonic)
    return {"appends": sum(appends), "seconds": seconds}


def main() -> int:
    """`fast PORT CA SENDERS SEGMENTS` or `slow PORT CA SENDERS SECONDS BYTES_PER_SECOND`."""
    kind, port, ca, *options = sys.argv[1:]
    kinds: dict[str, Callable[..., dict[str, float]]] = {"fast": fast, "slow": slow}
    said = kinds[kind](int(port), ca, *map(float, options))
    print(json.dumps(said))
    return 0


def progress(what: str, spent: Spent) -> None:
    """One line about a round."""
    say(f"{what}: {spent.cpu_seconds:.2f} CPU s, {spent.said}, RSS {spent.rss_after:.0f} MiB")


if __name__ == "__main__":
    sys.exit(main())
