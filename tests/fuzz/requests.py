"""Any requests at retrieval's two programs.

python -m tests.fuzz.requests [--count N] [--senders N] [--seed N]

Real processes over real TLS. What must hold: no answer says that we failed, nobody without a
right gets a byte of a file or any yes, nothing is written outside the folders of the pods that
may, requests whose end is ambiguous are refused, and both programs live and answer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import socket
import ssl
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tests.unit.retrieval.builders import CAPTURE, HEADER, a_capture, a_pod, a_record, a_report
from tests.unit.retrieval.fake_api import FakeApi
from tests.unit.retrieval.programs import Installation

SECRET = b"what-nobody-without-a-right-may-read"
READERS = 64
PODS = 16
_FIRST_US = 1_700_000_000_000_000
FILE = f"web-0_eth0-{_FIRST_US}.pcap"
_BASE = "/v1/namespaces/storefront/packetcaptures"


@dataclass(frozen=True)
class Target:
    """One of the programs."""

    program: str
    port: int
    installation: Installation

    def connect(self, source: random.Random) -> ssl.SSLSocket:
        """From some address of the loopback, so that limits of one do not hide the rest."""
        here = f"127.{source.randrange(1, 255)}.{source.randrange(256)}.{source.randrange(1, 255)}"
        raw = socket.create_connection(("127.0.0.1", self.port), 10, source_address=(here, 0))
        return self.installation.trust.wrap_socket(raw, server_hostname="localhost")


def open_installation(folder: Path) -> tuple[FakeApi, Installation]:
    """Both programs, people with and without rights, pods, and one file with a secret."""
    api = FakeApi()
    api.captures = [a_capture()]
    for number in range(READERS):
        api.users[f"reader-{number}", "api"] = {"username": f"reader-{number}"}
        asked = ("get", "nightcap.dev", "packetcaptures", "files", "storefront", "dns")
        api.allowed.add((f"reader-{number}", *asked))
        api.users[f"nobody-{number}", "api"] = {"username": f"nobody-{number}"}
    for number in range(PODS):
        name, uid = f"web-{number}", f"90d00000-0000-4000-8000-{number:012d}"
        api.pods["storefront", name] = a_pod(name, uid)
        api.add_pod_token(f"pod-{number}", "storefront", name, uid)
    installation = Installation(api, folder)
    installation.start("collector")
    installation.start("files")
    connection = installation.connect(installation.port_of("collector"))
    body = HEADER + a_record(_FIRST_US, SECRET.ljust(100))
    headers = {"Authorization": "Bearer pod-0", "Upload-Offset": "0", "Upload-Complete": "?1"}
    connection.request("PATCH", f"/v1/captures/{CAPTURE}/eth0/0", body, headers)
    assert connection.getresponse().status == 204
    connection.close()
    return api, installation


class Requests:
    """Makes requests: mostly well-formed, with something wrong somewhere."""

    def __init__(self, source: random.Random) -> None:
        self.source = source

    def one(self, program: str) -> tuple[bytes, bool]:
        """A request, and whether its sender may read the secret."""
        source = self.source
        who, may_read = self._who()
        method = self._often(
            ["GET", "HEAD", "DELETE"] if program == "files" else ["PATCH", "HEAD", "PATCH"],
            ["OPTIONS", "TRACE", "CONNECT", "POST", "PUT", "get", "X" * 300, "G\0ET", ""],
        )
        path = self._files_path() if program == "files" else self._upload_path()
        headers = [("Host", "localhost"), *who]
        if program == "files":
            headers += self._some([("Range", self._range()), ("If-Range", self._word())])
            headers += self._some([("If-None-Match", self._word()), ("Accept", "*/*")])
        else:
            headers += [("Upload-Offset", self._number()), ("Upload-Complete", self._flag())]
            headers += self._some([("Nightcap-Report", self._report())])
        body = source.choice([b"", b"", HEADER, HEADER + a_record(1), source.randbytes(300)])
        if body or source.random() < 0.2:
            length = self._often([str(len(body))], ["-1", "1e3", "", "99999999999", "0x10", "+5"])
            headers.append(("Content-Length", length))
        headers += self._some([(self._word(), self._word()), ("X-Forwarded-For", self._word())])
        if source.random() < 0.05:
            source.shuffle(headers)
        version = self._often(["HTTP/1.1"], ["HTTP/1.0", "HTTP/2.0", "HTTP/9", "", "http/1.1"])
        lines = [f"{method} {path} {version}"] + [f"{name}: {value}" for name, value in headers]
        data = ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape") + body
        if source.random() < 0.02:
            form = AMBIGUOUS[source.choice(list(AMBIGUOUS))]
            return data.replace(b"\r\n\r\n", b"\r\n" + form, 1), may_read
        return (self._torn(data) if source.random() < 0.1 else data), may_read

    def _who(self) -> tuple[list[tuple[str, str]], bool]:
        source = self.source
        number = source.randrange(READERS)
        kind = source.randrange(8)
        if kind < 3:
            return [("Authorization", f"Bearer reader-{number}")], True
        pods = [("Authorization", f"Bearer pod-{number % PODS}")]
        nobody = [("Authorization", f"Bearer nobody-{number}")]
        bad = [("Authorization", self._often(["Bearer x", "Basic eDp5"], [self._word()]))]
        return [pods, nobody, bad, [], [*bad, *bad]][kind - 3], False

    def _files_path(self) -> str:
        source = self.source
        paths = [
            f"{_BASE}/dns/files",
            f"{_BASE}/dns/files/{FILE}",
            f"{_BASE}/dns/files.zip",
            f"{_BASE}/dns/merged.pcapng?filter={self._word()}&from={self._number()}",
            "/download/storefront/dns/files.zip",
            "/packet-capture/files/storefront/dns",
            "/healthz",
        ]
        return self._bent(source.choice(paths))

    def _upload_path(self) -> str:
        seq = self._often([str(self.source.randrange(1, 50))], [self._number(), self._word()])
        interface = self._often(["eth0", "net1"], ["..", "%2e%2e", "a%2fb", "%00", "meta.json"])
        return self._bent(f"/v1/captures/{CAPTURE}/{interface}/{seq}")

    def _bent(self, path: str) -> str:
        source = self.source
        if source.random() < 0.6:
            return path
        place = source.randrange(len(path) + 1)
        bends = ["/../", "/./", "//", "%2f..%2f", "%00", "%", "\\..\\", "?", "#", ";", "\u00e9",
                 "%c0%af", "%ff", "*", "a" * 5000, " ", "\t"]  # fmt: skip
        bent = path[:place] + source.choice(bends) + path[place + source.randrange(3) :]
        return self._often([bent], [f"http://elsewhere{path}", "*", "", "../../etc/passwd"])

    def _range(self) -> str:
        parts = [self._number(), "", self._number()]
        first = f"bytes={self.source.choice(parts)}-{self.source.choice(parts)}"
        return self._often([first], [f"{first},{first}", "bytes=", "lines=1-2", self._word()])

    def _number(self) -> str:
        odd = ["-1", "18446744073709551616", "9" * 400, "1.5", "\u0663", "NaN", " 1", "1_0", "0x1"]
        return self._often(["0", "1", "64", "140", "4194305"], odd)

    def _flag(self) -> str:
        return self._often(["?0", "?1"], ["1", "?2", "true", ""])

    def _report(self) -> str:
        good = a_report(self.source.randrange(1, 10**6))
        odd = ["{", "[]", "[" * 3000, good.replace("1.5", "1e999"), '{"v":99}', "x" * 5000]
        return self._often([good], odd)

    def _word(self) -> str:
        source = self.source
        odd = ["", "a" * 9000, "tcp port 80", "((((", "\u00e9", "%n", "'\";", "{}", "../x", "\x7f"]
        return source.choice([*odd, source.randbytes(6).hex()])

    def _often(self, usual: list[str], seldom: list[str]) -> str:
        return self.source.choice(usual if self.source.random() < 0.8 else seldom)

    def _some(self, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        return [header for header in headers if self.source.random() < 0.4]

    def _torn(self, data: bytes) -> bytes:
        source = self.source
        place = source.randrange(len(data) + 1)
        return source.choice(
            [
                data[:place],
                data[:place] + source.randbytes(3) + data[place:],
                data.replace(b"\r\n", b"\n"),
                data.replace(b": ", b" : ", 1),
                data + b"GET / HTTP/1.1\r\n\r\n",
                source.randbytes(200),
            ]
        )


AMBIGUOUS = {
    "two lengths": b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "length and chunks": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
    "chunks and length": b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nX",
    "a blank before the colon": b"Content-Length : 5\r\n\r\nhello",
    "a folded header": b"X: y\r\n Content-Length: 5\r\n\r\nhello",
    "chunks twice": b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "unknown encoding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunks by vertical tab": b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "a length with a sign": b"Content-Length: +5\r\n\r\nhello",
    "a length in hexadecimal": b"Content-Length: 0x5\r\n\r\nhello",
    "a length with a line": b"Content-Length: 5\n\r\n\r\nhello",
}
"""Forms on whose end two servers may disagree (request smuggling)."""


class Manner(StrEnum):
    """How a request is sent."""

    WHOLE = "whole"
    SLOW = "slow"
    """In pieces, with pauses."""
    HALF_CLOSED = "half-closed"
    """Its sender says that nothing more comes, and goes on reading."""
    CLOSED = "closed"
    """Its sender goes away at once."""


def ask(
    connection: ssl.SSLSocket,
    data: bytes,
    manner: Manner = Manner.WHOLE,
    patience_seconds: float = 0.3,
) -> bytes:
    """Send, and read until an answer's head and whatever comes with it; b"" when it is cut."""
    answer = b""
    with contextlib.suppress(OSError):
        if manner is Manner.SLOW:
            for begin in range(0, len(data), len(data) // 5 + 1):
                connection.sendall(data[begin : begin + len(data) // 5 + 1])
                time.sleep(0.02)
        else:
            connection.sendall(data)
        if manner is Manner.CLOSED:
            connection.close()
            return b""
        if manner is Manner.HALF_CLOSED:
            socket.socket.shutdown(connection, socket.SHUT_WR)
        connection.settimeout(patience_seconds)
        while piece := connection.recv(65536):
            answer += piece
    return answer


def status_of(answer: bytes) -> int:
    words = answer.split(b" ", 2)
    return int(words[1]) if len(words) > 2 and words[1].isdigit() else 0


def fuzz(installation: Installation, count: int, seed: int, senders: int = 1) -> Counter[str]:
    """Send so many; how often each status came.

    Args:
        installation: Both programs run.
        count: Of requests, all senders together.
        seed: Names the requests of each sender; how they interleave it does not.
        senders: At once.

    Raises:
        AssertionError: something happened that must not.
    """
    shares = [count // senders + (number < count % senders) for number in range(senders)]
    with ThreadPoolExecutor(senders) as threads:
        found = sum(
            threads.map(
                lambda number: _send(installation, shares[number], f"{seed}-{number}"),
                range(senders),
            ),
            Counter(),
        )
    check_quiet(installation)
    return found


def _send(installation: Installation, count: int, seed: str) -> Counter[str]:
    source = random.Random(seed)  # noqa: S311 - the same requests each time
    requests = Requests(source)
    found: Counter[str] = Counter()
    targets = [
        Target(program, installation.port_of(program), installation)
        for program in ("files", "collector")
    ]
    for number in range(count):
        target = source.choice(targets)
        data, may_read = requests.one(target.program)
        connection = target.connect(source)
        with contextlib.closing(connection):
            # The answer to what is whole comes at once; only of the others it is waited for.
            [manner] = source.choices(list(Manner), (88, 4, 4, 4))
            closing = data.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
            answer = ask(connection, closing, manner)
        status = status_of(answer)
        found[f"{target.program} {status}"] += 1
        about = (seed, number, data[:2000], answer[:500])
        assert status != 500, about
        assert may_read or SECRET not in answer, about
        is_open = any(path in data for path in (b"/health", b"/readyz"))
        if target.program == "files" and not may_read and not is_open:
            assert status not in (200, 204, 206, 304), about
        if number % 5000 == 4999:
            print(f"fuzz: {seed}: {number + 1} of {count}", file=sys.stderr, flush=True)
    return found


def check_quiet(installation: Installation) -> None:
    """Both programs live, complain of nothing, and have written only where they may."""
    for program in ("files", "collector"):
        connection = installation.connect(installation.port_of(program))
        connection.request("GET", "/readyz")
        assert connection.getresponse().status == 200
        connection.close()
        lines = (installation.folder / f"{program}.log").read_text().splitlines()
        faults = [line for line in lines if '"level":"error"' in line]
        assert not faults, faults[:3]
    folders = {f"90d00000-0000-4000-8000-{number:012d}" for number in range(PODS)}
    for path in installation.store.rglob("*"):
        if path.is_file():
            namespace, capture, pod, *_ = path.relative_to(installation.store).parts
            assert (namespace, capture) == ("storefront", CAPTURE), path
            assert pod in folders, path
            assert path.suffix in (".pcap", ".part", ".json"), path


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.requests", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--senders", type=int, default=8, help="at once")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nightcap-fuzz-") as name:
        api, installation = open_installation(Path(name))
        try:
            found = fuzz(installation, options.count, options.seed, options.senders)
        finally:
            installation.kill()
            api.close()
    print(json.dumps({"requests": options.count, "seed": options.seed, **dict(found)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
