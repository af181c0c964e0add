"""The body of a request, for an application that knows what it wants of it."""

import time
from typing import Any, Final

from certs.arriving import Connection
from certs.deadlines import Deadlines

BODY: Final = "nightcap.body"
"""In the environ of a request that has a body: its `RequestBody`."""
BODY_SECONDS: Final = 60.0
"""From a request's head to the last byte of its body: 4 MiB at 70 kB/s."""
HURRIED_SECONDS: Final = 15.0
"""The same while others wait for a thread: 4 MiB at 280 kB/s."""


class RequestBody:
    """A body that has to come in time; whoever asks for none of this has `wsgi.input`."""

    def __init__(self, connection: Connection, response: Any, deadlines: Deadlines) -> None:
        """Its time begins to run.

        Args:
            connection: Which it comes over.
            response: gunicorn's, to the same request.
            deadlines: Cut the connection when the time is over.
        """
        self._connection = connection
        self._response = response
        self._deadlines = deadlines
        now = time.monotonic()
        deadlines.put(connection, now + BODY_SECONDS, now + HURRIED_SECONDS)

    def into(self, room: memoryview) -> int:
        """Read as many bytes as there is room for, and copy none of them.

        Returns:
            How many came; fewer when the body ends before, or its connection.

        Raises:
            OSError: the connection broke.
        """
        count = self._connection.read_body(room)
        self._deadlines.clear(self._connection)
        return count

    def leave(self) -> None:
        """Read nothing more of it.

        The answer is the connection's last then, unless what is still to come is short.
        """
        if not self._connection.skip_body(time.monotonic()):
            self._response.force_close()
