"""A small real collector: TLS, append semantics of DESIGN 3.4, and faults on request."""

import ssl
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import socket
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from nightcap.contract import uploads
from nightcap.contract.paths import collector_name
from nightcap.contract.reports import Report, parse_report
from nightcap.contract.uploads import SegmentName, parse_upload_path

NAME = collector_name(1)
TOKEN = "a-bound-token"


@dataclass
class Stored:
    data: bytearray = field(default_factory=bytearray)
    complete: bool = False
    appends: int = 0


@dataclass
class Faults:
    """What goes wrong next; each counts down."""

    statuses: list[int] = field(default_factory=list)
    """Answered instead, one after the other."""
    cut_before_reading: int = 0
    cut_after_storing: int = 0
    forget_bytes: int = 0
    """At the next append so many bytes are gone, as after a crash."""
    deny: bool = False
    gone: bool = False


class Collector:
    def __init__(self) -> None:
        self.segments: dict[SegmentName, Stored] = {}
        self.reports: list[tuple[str, Report]] = []
        self.tokens: set[str] = set()
        self.faults = Faults()
        self.until: float | None = None
        self.pace = 0.2
        self.durable_lag = 0.05
        self.lock = threading.Lock()
        self.client_ports: set[int] = set()
        self.heads: list[tuple[str, str, dict[str, str]]] = []
        """(method, path, headers) of every request."""

    def report(self, capture: str) -> Report | None:
        with self.lock:
            mine = [report for id_, report in self.reports if id_ == capture]
        return max(mine, key=lambda report: report.seq) if mine else None

    def files(self, capture: str, interface: str = "eth0") -> dict[int, bytes]:
        with self.lock:
            return {
                name.seq: bytes(stored.data)
                for name, stored in sorted(self.segments.items(), key=lambda item: item[0].seq)
                if (name.capture, name.interface) == (capture, interface)
            }

    def serve(self, listening: socket, tls: Path) -> "Server":
        server = Server(listening, self, server_context(tls))
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, listening: socket, collector: Collector, context: ssl.SSLContext) -> None:
        super().__init__(("", 0), Handler, bind_and_activate=False)
        self.socket.close()
        listening.listen(16)
        self.socket = listening
        self.collector = collector
        self.context = context
        self.connections: list[socket] = []

    def finish_request(self, request: Any, client_address: Any) -> None:
        self.collector.client_ports.add(client_address[1])
        try:
            with self.context.wrap_socket(request, server_side=True) as wrapped:
                wrapped.settimeout(20)
                self.connections.append(wrapped)
                super().finish_request(wrapped, client_address)
        except OSError:
            return

    def handle_error(self, request: object, client_address: object) -> None:
        return

    def cut_all(self) -> None:
        for connection in self.connections:
            connection.close()
        self.connections.clear()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        return

    def note(self) -> None:
        self.server.collector.heads.append((self.command, self.path, dict(self.headers)))

    def do_HEAD(self) -> None:
        collector = self.server.collector
        self.note()
        with collector.lock:
            stored = collector.segments.get(parse_upload_path(self.path), Stored())
            self.answer(204, stored)

    def do_PATCH(self) -> None:
        collector, faults = self.server.collector, self.server.collector.faults
        self.note()
        if faults.cut_before_reading:
            faults.cut_before_reading -= 1
            self.cut()
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        collector.tokens.add(self.headers["Authorization"])
        name = parse_upload_path(self.path)
        with collector.lock:
            status, stored = self.judge(name, body)
            if status == 204:
                report = parse_report(self.headers[uploads.REPORT])
                collector.reports.append((name.capture, report))
            if faults.cut_after_storing and body:
                faults.cut_after_storing -= 1
                self.cut()
                return
            self.answer(status, stored)

    def judge(self, name: SegmentName, body: bytes) -> tuple[int, Stored]:
        collector, faults = self.server.collector, self.server.collector.faults
        known = collector.segments.get(name)
        stored = known or Stored()
        if faults.statuses:
            return faults.statuses.pop(0), stored
        if faults.gone:
            return 410, stored
        if faults.deny:
            return 403, stored
        if faults.forget_bytes and len(stored.data) > faults.forget_bytes:
            del stored.data[-faults.forget_bytes :]
            faults.forget_bytes = 0
        offset = int(self.headers[uploads.OFFSET])
        complete = uploads.parse_boolean(self.headers[uploads.COMPLETE])
        assert len(body) <= uploads.MAX_BODY_BYTES
        if offset != len(stored.data) or (stored.complete and body):
            return 409, stored
        if body or complete:
            collector.segments[name] = stored
            stored.data += body
            stored.complete = stored.complete or complete
            stored.appends += 1
        return 204, stored

    def answer(self, status: int, stored: Stored) -> None:
        collector = self.server.collector
        self.send_response(status)
        self.send_header(uploads.OFFSET, str(len(stored.data)))
        durable = len(stored.data) if time.time() % 0.2 > collector.durable_lag else 0
        self.send_header(uploads.DURABLE, str(durable))
        self.send_header(uploads.PACE, str(collector.pace))
        if collector.until is not None:
            self.send_header(uploads.UNTIL, str(collector.until))
        if stored.complete:
            self.send_header(uploads.COMPLETE, "?1")
        if status != 204:
            self.send_header("Content-Length", "5")
        self.end_headers()
        if status != 204:
            self.wfile.write(b"fault")

    def cut(self) -> None:
        self.close_connection = True
        self.connection.close()


Authority = tuple[ec.EllipticCurvePrivateKey, x509.Certificate]


def new_authority() -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    return key, _certificate(key.public_key(), "root", None, key, authority=True)


@cache
def _authority() -> Authority:
    return new_authority()


def _certificate(
    public: ec.EllipticCurvePublicKey,
    common_name: str,
    issuer: x509.Name | None,
    key: ec.EllipticCurvePrivateKey,
    *,
    authority: bool,
    begins_in: timedelta = timedelta(hours=-1),
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins_in)
        .not_valid_after(now + begins_in + timedelta(hours=2))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(common_name)]), critical=False)
        .sign(key, hashes.SHA256())
    )


def root_pem() -> str:
    return _authority()[1].public_bytes(serialization.Encoding.PEM).decode()


def server_context(
    folder: Path,
    name: str = NAME,
    *,
    by: Authority | None = None,
    begins_in: timedelta = timedelta(hours=-1),
) -> ssl.SSLContext:
    authority_key, authority = by or _authority()
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = _certificate(
        key.public_key(),
        name,
        authority.subject,
        authority_key,
        authority=False,
        begins_in=begins_in,
    )
    pem = leaf.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}.pem"
    file.write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context
