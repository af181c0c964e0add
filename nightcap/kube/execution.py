"""A command in a container: `pods/exec` over one WebSocket, safe for any bytes.

The protocol is `v4.channel.k8s.io`: the first byte of each message is its channel. Closing the
connection ends the command's standard input. Nothing is retried.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import websocket
from kubernetes.stream.ws_client import create_websocket

from nightcap.closing import Closing
from nightcap.kube import paths
from nightcap.kube.errors import error_of, unavailable

if TYPE_CHECKING:
    from nightcap.kube.client import KubeClient

_PROTOCOL: Final = "v4.channel.k8s.io"
_PING_SECONDS: Final = 20.0
"""Proxies cut connections that are silent for a minute."""
_SILENT_SECONDS: Final = 90.0
_CODES: Final = (websocket.ABNF.OPCODE_BINARY, websocket.ABNF.OPCODE_TEXT)


class Channel(IntEnum):
    """Where output comes from."""

    OUT = 1
    ERR = 2
    STATUS = 3


class Execution(Closing):
    """A command that runs; iterate over its output, leave the block to end its input.

    Attributes:
        exit_code: Known when the output is over; None if the connection ended before.
        message: What the cluster says about a command that could not be run.
    """

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self.exit_code: int | None = None
        self.message = ""

    def close(self) -> None:
        self._socket.close(timeout=1)
        # That did nothing if the other end said goodbye first.
        self._socket.shutdown()

    def __iter__(self) -> Iterator[tuple[Channel, bytes]]:
        """Pieces of output, of either channel, until the command ends.

        Raises:
            ClusterUnavailable: the connection broke, or was silent for too long.
        """
        heard_at = time.monotonic()
        while True:
            try:
                opcode, frame = self._socket.recv_data_frame(True)
            except websocket.WebSocketTimeoutException as error:
                if time.monotonic() - heard_at > _SILENT_SECONDS:
                    raise unavailable(error) from error
                self._ping()
                continue
            except websocket.WebSocketConnectionClosedException:
                return
            except (websocket.WebSocketException, OSError) as error:
                raise unavailable(error) from error
            heard_at = time.monotonic()
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                return
            if opcode not in _CODES or len(frame.data) < 2:
                continue  # a pong, or the empty messages that open each channel
            channel, data = frame.data[0], bytes(frame.data[1:])
            if channel == Channel.STATUS:
                self._end(data)
            elif channel in (Channel.OUT, Channel.ERR):
                yield Channel(channel), data

    def _ping(self) -> None:
        try:
            self._socket.ping()
        except (websocket.WebSocketException, OSError) as error:
            raise unavailable(error) from error

    def _end(self, data: bytes) -> None:
        """Take the Status that ends every command."""
        try:
            status = json.loads(data)
            causes = (status.get("details") or {}).get("causes") or ()
            code = next((c["message"] for c in causes if c.get("reason") == "ExitCode"), None)
            self.exit_code = 0 if status.get("status") == "Success" else int(code or 1)
            self.message = str(status.get("message") or "")
        except (ValueError, AttributeError, LookupError, TypeError):
            self.exit_code, self.message = 1, data.decode("utf-8", "replace")


def execute(
    client: KubeClient,
    namespace: str,
    pod: str,
    container: str,
    command: Sequence[str],
    *,
    stdin: bool = False,
) -> Execution:
    """Run a command in a container, with one's own right to `pods/exec`.

    Args:
        client: Whose rights count.
        namespace: Of the pod.
        pod: Its name.
        container: Of the pod; an ephemeral one is fine.
        command: The program and its arguments; no shell is between.
        stdin: Give it a standard input, which ends when the block is left.

    Raises:
        ApiError: it is refused, or cannot be reached.
    """
    query = [("command", word) for word in command]
    query += [("container", container), ("stdout", "true"), ("stderr", "true")]
    if stdin:
        query.append(("stdin", "true"))
    url = f"{client.host}{paths.pod_exec(namespace, pod)}?{urlencode(query)}"
    # http becomes ws, https becomes wss.
    headers = {"sec-websocket-protocol": _PROTOCOL}
    login = client.login_header()
    if login:
        headers["authorization"] = login
    try:
        socket = create_websocket(  # type: ignore[no-untyped-call]
            client.configuration, f"ws{url.removeprefix('http')}", headers
        )
    except websocket.WebSocketBadStatusException as error:
        raise error_of(error.status_code, error.resp_body or b"") from error
    except (websocket.WebSocketException, OSError) as error:
        raise unavailable(error) from error
    socket.settimeout(_PING_SECONDS)
    return Execution(socket)
