"""Large bodies lie in memory that is used again, and never while somebody reads it still."""

import contextlib

import obstore
import pytest
from obstore.store import MemoryStore

from certs.bodies import BODY
from retrieval.collector.bodies import LARGE_BYTES, MAX_IDLE, Bodies
from retrieval.collector.uploads import BadUpload


class Given:
    """A body of one byte, over and over, as a connection brings it."""

    def __init__(self, byte: bytes, count: int = 10**9) -> None:
        self.byte, self.count = byte, count

    def into(self, room: memoryview) -> int:
        count = min(len(room), self.count)
        room[:count] = self.byte * count
        return count


def environ(byte: bytes, count: int = 10**9) -> dict[str, object]:
    return {BODY: Given(byte, count)}


@pytest.mark.parametrize("length", [1, LARGE_BYTES - 1, LARGE_BYTES, 4 * 2**20])
def test_a_body_is_whole_or_refused(length: int) -> None:
    bodies = Bodies()
    for byte in (b"a", b"b"):
        with bodies.read(environ(byte), length) as body:
            assert body == byte * length
    with (
        pytest.raises(BadUpload, match=f"{length - 1} of {length}"),
        bodies.read(environ(b"c", length - 1), length),
    ):
        pytest.fail("half a body")


def test_memory_that_somebody_reads_still_is_not_used_again() -> None:
    """The client of object stores holds what it was given, for as long as it likes."""
    bodies, store = Bodies(), MemoryStore()
    with bodies.read(environ(b"a"), LARGE_BYTES) as body:
        obstore.put(store, "a", body, use_multipart=False)
    with bodies.read(environ(b"b"), LARGE_BYTES) as body:
        assert body == b"b" * LARGE_BYTES
    assert bytes(obstore.get(store, "a").bytes()) == b"a" * LARGE_BYTES


def test_many_bodies_at_once_have_memory_of_their_own() -> None:
    bodies = Bodies()
    for _ in range(2):
        with contextlib.ExitStack() as stack:
            letters = [bytes([65 + number]) for number in range(3 * MAX_IDLE)]
            found = [
                stack.enter_context(bodies.read(environ(letter), LARGE_BYTES)) for letter in letters
            ]
            assert [bytes(body[:1]) for body in found] == letters
