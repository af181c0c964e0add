"""Bodies of requests, in memory of their own.

Of what fifty threads take and give back in pieces of megabytes, the allocator keeps more and
more, and each new page costs a fault. So large bodies lie in mappings that are used again.
"""

import contextlib
from collections.abc import Iterator
from http import HTTPStatus
from mmap import mmap
from typing import Any, Final

from certs.bodies import BODY, RequestBody
from nightcap.contract.uploads import MAX_BODY_BYTES
from retrieval.collector.uploads import BadUpload
from retrieval.store.base import Bytes

LARGE_BYTES: Final = 2**16
MAX_IDLE: Final = 8
"""Mappings that are kept for the next bodies; the others go back to the system."""


class Bodies:
    """Reads bodies; used by many threads."""

    def __init__(self) -> None:
        self._idle: list[mmap] = []

    @contextlib.contextmanager
    def read(self, environ: dict[str, Any], length: int) -> Iterator[Bytes]:
        """The whole body, or nothing: what a cut connection brought would end inside a record.

        Args:
            environ: Of the request.
            length: What its head says, `MAX_BODY_BYTES` at most.

        Raises:
            BadUpload: it was cut.
        """
        given: RequestBody | None = environ.get(BODY)
        if not length or given is None:
            body: bytes = environ["wsgi.input"].read(length) if length else b""
            _check(len(body), length)
            yield body
        elif length < LARGE_BYTES:
            yield _filled(memoryview(bytearray(length)), given)
        else:
            with self._room(length) as room:
                yield _filled(room, given)

    @contextlib.contextmanager
    def _room(self, length: int) -> Iterator[memoryview]:
        try:
            mapping = self._idle.pop()
        except IndexError:
            mapping = mmap(-1, MAX_BODY_BYTES)
        room = memoryview(mapping)[:length]
        try:
            yield room
        finally:
            # Whoever reads it still, such as a request to the store that we no longer wait for,
            # keeps it from being released: it must not see the next body.
            with contextlib.suppress(BufferError):
                room.release()
                if len(self._idle) < MAX_IDLE:  # not exact, and need not be
                    self._idle.append(mapping)


def _filled(room: memoryview, given: RequestBody) -> memoryview:
    try:
        count = given.into(room)
    except OSError as error:
        raise BadUpload(HTTPStatus.BAD_REQUEST, f"the body was cut: {error}") from error
    _check(count, len(room))
    return room


def _check(count: int, length: int) -> None:
    if count != length:
        raise BadUpload(HTTPStatus.BAD_REQUEST, f"the body was cut: {count} of {length} bytes came")
