"""TLS contexts of a server: one for each generation, chosen by the name a client asks for."""

import errno
import os
import re
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certs.bundle import BadBundle, Bundle, Pair

_GENERATION_NAME = re.compile(r"g([1-9][0-9]{0,8})\.collector\.")

IO_SECONDS = 60.0
"""How long a client may send nothing in the middle of a request, or read nothing."""


class PatientSocket(ssl.SSLSocket):
    """A blocking TLS socket that does not wait for ever.

    gunicorn's threads use sockets without a timeout: a client that stops in the middle of
    a request or a download would hold its thread until it goes away.
    """

    def setblocking(self, flag: bool) -> None:
        self.settimeout(IO_SECONDS if flag else 0.0)

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        try:
            return super().recv(buflen, flags)
        except TimeoutError as error:
            raise _reset("nothing received", IO_SECONDS) from error

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        try:
            return super().recv_into(buffer, nbytes, flags)
        except TimeoutError as error:
            raise _reset("nothing received", IO_SECONDS) from error

    def send(self, data: Any, flags: int = 0) -> int:
        try:
            return super().send(data, flags)
        except TimeoutError as error:
            raise _reset("nothing taken", IO_SECONDS) from error


def _reset(what: str, seconds: float) -> ConnectionResetError:
    # gunicorn passes over a reset in silence; a timeout it would log as a fault of ours.
    return ConnectionResetError(errno.ECONNRESET, f"{what} in {seconds:g} s")


@dataclass(frozen=True, slots=True)
class ServedContexts:
    """Everything a server needs for its handshakes, of one state of its Secret.

    Attributes:
        bundle: What the contexts were made of.
        generation: The one that is used by default.
        by_generation: One context each.
    """

    bundle: Bundle
    generation: int
    by_generation: dict[int, ssl.SSLContext]

    @property
    def default(self) -> ssl.SSLContext:
        return self.by_generation[self.generation]

    @property
    def pair(self) -> Pair:
        return self.bundle.pairs[self.generation]


def contexts_of(bundle: Bundle, tls_dir: Path) -> ServedContexts:
    """Build the contexts; keys and chains go through files of `tls_dir`, mode 0600.

    Raises:
        BadBundle: If no generation can be served.
        OSError: If `tls_dir` cannot be written.
    """
    if not bundle.pairs:
        reasons = "; ".join(bundle.faults) or "it is empty"
        raise BadBundle(f"no certificate to serve: {reasons}")
    generation = bundle.current if bundle.current in bundle.pairs else max(bundle.pairs)
    contexts = {n: _context_of(n, pair, tls_dir) for n, pair in bundle.pairs.items()}
    for n, context in contexts.items():
        context.sni_callback = _chooser(contexts, contexts[n])
    return ServedContexts(bundle, generation, contexts)


def _context_of(generation: int, pair: Pair, tls_dir: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    # Our clients keep connections and resume none; tickets would cost each handshake.
    context.num_tickets = 0
    context.sslsocket_class = PatientSocket
    file = write_private(tls_dir / f"g{generation}.pem", pair.key + pair.certificate, context)
    if not file.exists():
        raise BadBundle(f"{file} is gone")
    return context


def write_private(path: Path, text: str, context: ssl.SSLContext) -> Path:
    """Write key and chain so that no reader sees half of it, and load them into a context."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text)
        try:
            # Before the rename: another process may rename its own file over ours.
            context.load_cert_chain(name)
        except ssl.SSLError as error:
            raise BadBundle(f"{path.stem}: {error}") from error
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def generation_of_name(server_name: str | None) -> int | None:
    """The generation that a sidecar asks for: its `g{N}.collector.…`; None for other names."""
    match = _GENERATION_NAME.match(server_name or "")
    return int(match[1]) if match else None


def _chooser(contexts: dict[int, ssl.SSLContext], own: ssl.SSLContext) -> Any:
    def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        wanted = contexts.get(generation_of_name(name) or 0)
        if wanted is not None and wanted is not own:
            connection.context = wanted

    return choose
