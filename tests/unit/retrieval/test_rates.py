"""So many requests a second for each asker, and no fewer for the others: over real sockets."""

import contextlib
import itertools
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from retrieval.collector.app import POD_REQUESTS_PER_SECOND
from retrieval.files.doorkeeper import PERSON_REQUESTS_PER_SECOND
from tests.fuzz.requests import status_of
from tests.unit.retrieval.builders import CAPTURE
from tests.unit.retrieval.programs import Installation, wait_for

AT_ONCE = 25
FLOOD_SECONDS = 60
STRANGERS_AT_ONCE = 100
# What costs little, so that a slow machine answers fast enough to be asked too often.
PATHS = {
    "files": "/v1/nowhere",
    "collector": f"/v1/captures/{CAPTURE}/eth0/7",
}
ANSWERED = {"files": 404, "collector": 204}
ASKERS = {"files": ("reader-0", "reader-1"), "collector": ("pod-0", "pod-1")}
BURSTS = {"files": 4 * PERSON_REQUESTS_PER_SECOND, "collector": 2 * POD_REQUESTS_PER_SECOND}


@dataclass
class Asker:
    """A connection over which several requests are sent before an answer is read."""

    connection: ssl.SSLSocket
    path: str
    rest: bytes = b""
    answers: list[bytes] = field(default_factory=list)

    def ask(self, *tokens: str) -> list[int]:
        """HEAD with each of these tokens; the statuses."""
        head = f"HEAD {self.path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
        self.connection.sendall("".join(f"{head}{t}\r\n\r\n" for t in tokens).encode())
        answers = []
        while len(answers) < len(tokens):
            while b"\r\n\r\n" not in self.rest:
                piece = self.connection.recv(65536)
                assert piece, "the connection was closed"
                self.rest += piece
            answer, _, self.rest = self.rest.partition(b"\r\n\r\n")
            answers.append(answer)
        self.answers += answers
        return [status_of(answer) for answer in answers]

    @property
    def statuses(self) -> list[int]:
        return [status_of(answer) for answer in self.answers]


@contextlib.contextmanager
def connected(installation: Installation, program: str) -> Iterator[Asker]:
    connection = installation.connect(installation.port_of(program))
    with contextlib.closing(connection):
        connection.connect()
        assert isinstance(connection.sock, ssl.SSLSocket)
        yield Asker(connection.sock, PATHS[program])


@pytest.mark.parametrize("program", ["files", "collector"])
def test_who_asks_too_often_is_told_to_wait_and_nobody_else_is(
    crowd: Installation, program: str
) -> None:
    hasty, calm = ASKERS[program]
    with connected(crowd, program) as flood, connected(crowd, program) as other:
        deadline = time.monotonic() + FLOOD_SECONDS
        while 429 not in flood.statuses:
            assert time.monotonic() < deadline, "the machine is too slow to ask too often"
            flood.ask(*[hasty] * AT_ONCE)
            assert other.ask(calm) == [ANSWERED[program]]
        # All of the burst was answered, and what came before a second has room for it.
        refused_at = flood.statuses.index(429)
        assert refused_at >= BURSTS[program]
        assert set(flood.statuses[:refused_at]) == {ANSWERED[program]}
        assert b"\r\nRetry-After: 1\r\n" in flood.answers[refused_at] + b"\r\n"
        # The connection goes on, and in a while so do the answers.
        wait_for(lambda: flood.ask(hasty) == [ANSWERED[program]])


@pytest.mark.parametrize("program", ["files", "collector"])
def test_who_guesses_tokens_is_told_to_wait_and_good_ones_pass(
    crowd: Installation, program: str
) -> None:
    _, known = ASKERS[program]
    numbers = itertools.count()
    with connected(crowd, program) as guesses, connected(crowd, program) as other:
        assert other.ask(known) == [ANSWERED[program]]
        deadline = time.monotonic() + FLOOD_SECONDS
        while 429 not in guesses.statuses:
            assert time.monotonic() < deadline, "the machine is too slow to guess too often"
            guesses.ask(*(f"guess-{next(numbers)}" for _ in range(AT_ONCE)))
            assert other.ask(known) == [ANSWERED[program]]
        refused_at = guesses.statuses.index(429)
        assert refused_at >= STRANGERS_AT_ONCE
        assert set(guesses.statuses[:refused_at]) == {401}
        wait_for(lambda: guesses.ask(f"guess-{next(numbers)}") == [401])
