"""`python -m retrieval gateway`: hands connections on to retrieval, byte by byte.

`kubectl port-forward` to a Service needs pods in that Service's namespace. For people whose
commands name another namespace than ours, this is the pod there. It has no right, no key
and no certificate: TLS is between the person and retrieval, and nothing is read on the way.
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from retrieval.settings import BadSettings

MAX_CONNECTIONS: Final = 256
CONNECT_SECONDS: Final = 10.0
IDLE_SECONDS: Final = 600.0
"""Without a byte in either direction; a live view sends something every few seconds."""
_CHUNK_BYTES: Final = 2**16

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Where to listen, and where to hand on to."""

    port: int = 9443
    target_host: str = "nightcap-retrieval.nightcap-system.svc"
    target_port: int = 443

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read the variables.

        Raises:
            BadSettings: names every variable that is wrong.
        """
        faults: list[str] = []
        port = _port("NIGHTCAP_GATEWAY_PORT", environ.get("NIGHTCAP_GATEWAY_PORT", "9443"), faults)
        target = environ.get("NIGHTCAP_GATEWAY_TARGET", f"{cls().target_host}:443")
        host, _, target_port = target.rpartition(":")
        if not host:
            faults.append(f"NIGHTCAP_GATEWAY_TARGET is {target[:100]!r}; must be host:port")
        number = _port("NIGHTCAP_GATEWAY_TARGET", target_port, faults)
        if faults:
            raise BadSettings("; ".join(faults))
        return cls(port, host, number)


def _port(variable: str, text: str, faults: list[str]) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        faults.append(f"{variable}: {text[:20]!r} must be a port from 1 to 65535")
        return 0
    return int(text)


class Gateway:
    """Hands on one connection after another, a bounded number at once."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._places = asyncio.Semaphore(MAX_CONNECTIONS)
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> asyncio.Server:
        """Begin to listen, on every address."""
        return await asyncio.start_server(self._accept, port=self._settings.port)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._hand_on(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hand_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with self._places, _closing(writer):
            settings = self._settings
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    there = await asyncio.open_connection(
                        settings.target_host, settings.target_port
                    )
            except OSError as error:  # TimeoutError is one
                _log.warning(
                    "retrieval not reached",
                    extra={"target": settings.target_host, "error": str(error) or "no answer"},
                )
                return
            async with _closing(there[1]):
                moved = _Activity()
                copies = [
                    asyncio.ensure_future(_copy(reader, there[1], moved)),
                    asyncio.ensure_future(_copy(there[0], writer, moved)),
                ]
                try:
                    await _until_done_or_idle(copies, moved)
                finally:
                    for copy in copies:
                        copy.cancel()
                    await asyncio.gather(*copies, return_exceptions=True)


class _Activity:
    """How many bytes went either way."""

    def __init__(self) -> None:
        self.count = 0


async def _until_done_or_idle(copies: Sequence[asyncio.Future[None]], moved: _Activity) -> None:
    pending = set(copies)
    while pending:
        before = moved.count
        done, pending = await asyncio.wait(
            pending, timeout=IDLE_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        if any(copy.exception() is not None for copy in done):
            return  # one side broke off
        if not done and moved.count == before:
            return


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, moved: _Activity
) -> None:
    """One direction, to its end; the other may go on, as TCP allows."""
    while chunk := await reader.read(_CHUNK_BYTES):
        moved.count += len(chunk)
        writer.write(chunk)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


@contextlib.asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        writer.close()


def run(settings: GatewaySettings) -> None:
    """Hand on until SIGTERM."""
    asyncio.run(_run(settings))


async def _run(settings: GatewaySettings) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    server = await Gateway(settings).serve()
    _log.info(
        "gateway listens",
        extra={"port": settings.port, "target": f"{settings.target_host}:{settings.target_port}"},
    )
    await stopping.wait()
    server.close()


def main() -> int:
    """Run from the environment."""
    try:
        settings = GatewaySettings.from_environ(os.environ)
    except BadSettings as error:
        _log.error("settings are wrong", extra={"faults": str(error)})
        return 2
    run(settings)
    return 0
