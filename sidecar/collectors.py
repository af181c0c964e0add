"""The collectors that there are, tried in turn: one connection to one of them at a time.

Each question carries the pod's token. A connection that breaks is made anew; one that cannot be
made is waited for, longer each time.
"""

import ssl
import threading
import time
from typing import Final

from nightcap.contract.uploads import SegmentName, upload_path
from sidecar import connection, log, shipping
from sidecar.connection import EMPTY, Answer, Body, Connection, ConnectionBroken
from sidecar.settings import Settings
from sidecar.shipping import Delay

_SAY_AGAIN_SECONDS: Final = 60.0
_MAX_TOKEN_BYTES: Final = 65536


class Collectors:
    """Whom to ask, and the connection over which they are asked.

    Attributes:
        addresses: In the order in which they are tried; set under the lock.
        not_before: When the next connection may be tried, by the monotonic clock; likewise.
    """

    def __init__(self, settings: Settings, local_port: int, lock: threading.RLock) -> None:
        """Prepare.

        Args:
            settings: The name that a collector must prove, and where the token lies.
            local_port: The port that captures leave out.
            lock: Held by whoever touches the attributes.
        """
        self._settings = settings
        self._local_port = local_port
        self._lock = lock
        self.addresses: tuple[tuple[str, int], ...] = ()
        self.not_before = 0.0
        self._next = 0
        self._connection: Connection | None = None
        self._proven = False
        """The connection has carried an answer; when it breaks then, it may just have been old."""
        self._delay = Delay()
        self._most_delay = shipping.LAST_DELAY_SECONDS
        self._said_at = float("-inf")

    def set(self, addresses: tuple[tuple[str, int], ...]) -> bool:
        """From now on it is these; True when they are others. Under the lock."""
        if addresses == self.addresses:
            return False
        self.addresses = addresses
        self._next = 0
        self.not_before = 0.0
        return True

    def hurry(self) -> None:
        """The pod is going: try at once, and soon again. Under the lock."""
        self._most_delay = shipping.TERMINATING_DELAY_SECONDS
        self.not_before = 0.0

    def connect(self, context: ssl.SSLContext) -> None:
        """Have a connection.

        Raises:
            ConnectionBroken
        """
        if self._connection is not None and self._connection.address in self.addresses:
            return
        self.disconnect()
        addresses = self.addresses
        address = addresses[self._next % len(addresses)]
        self._connection = Connection(
            address,
            name=self._settings.collector_name,
            context=context,
            port=self._local_port,
        )
        log.info("collector connected", address=f"{address[0]}:{address[1]}")

    def disconnect(self) -> None:
        """Let go of the connection."""
        self._proven = False
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def broken(self, error: ConnectionBroken) -> None:
        """The connection broke, or could not be made: the next one is another's turn."""
        was_proven = self._proven
        self.disconnect()
        if was_proven:
            return  # it may have been idle for too long: once more, at once
        self._next += 1
        wait = self._delay.longer(shipping.spread(), self._most_delay)
        now = time.monotonic()
        with self._lock:
            self.not_before = now + wait
        if now - self._said_at >= _SAY_AGAIN_SECONDS:
            self._said_at = now
            log.warning("collector not reached, trying again", error=str(error))

    def ask(
        self, method: str, name: SegmentName, headers: dict[str, str], body: Body = EMPTY
    ) -> Answer:
        """Ask about a segment and wait for the answer.

        Raises:
            ConnectionBroken
        """
        if self._connection is None:
            raise ConnectionBroken("not connected")
        headers["Authorization"] = f"Bearer {self._token()}"
        answer = self._connection.request(method, upload_path(name), headers, body)
        self._proven = True
        self._delay.reset()
        self._said_at = float("-inf")
        if connection.wants_close(answer):
            self.disconnect()
        return answer

    def _token(self) -> str:
        """Read each time: the kubelet renews it."""
        try:
            with open(self._settings.token_file, "rb") as file:
                token = file.read(_MAX_TOKEN_BYTES).strip().decode("ascii")
        except (OSError, ValueError) as error:
            raise ConnectionBroken(f"token cannot be read: {error}") from error
        if not token.isprintable() or not token:
            raise ConnectionBroken("token is empty or no token")
        return token
