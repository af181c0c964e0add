"""Who asks, and whether they may: before any answer is made.

What exists is told only to those who may have it (`retrieval.access`).
"""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, Protocol

import flask
from werkzeug.exceptions import NotFound

from nightcap.contract.captures import PacketCapture
from nightcap.kube.reviews import Identity
from retrieval import access
from retrieval.access import CaptureRef, Question, Verb, Verdict
from retrieval.files.answers import text
from retrieval.limits import Rate, Seats, Strangers, TooMuch

PERSON_REQUESTS_PER_SECOND: Final = 100
PERSON_ANSWERS: Final = 20
"""Answers with data at once, of one person: a third of the threads, and sixteen Wiresharks."""

Groups = tuple[str, ...]
"""The API groups of which a path's capture may be."""


class Judge(Protocol):
    """What is asked of the API server; see `retrieval.files.people.People`."""

    def identify(self, token: str) -> Identity | None: ...

    def may(self, identity: Identity, asked: Question) -> bool: ...

    def find(self, capture: CaptureRef) -> PacketCapture | None: ...

    def services(self, namespace: str) -> tuple[tuple[str, str], ...]: ...


@dataclass(frozen=True, slots=True)
class Granted:
    """A request that may be answered."""

    identity: Identity
    ref: CaptureRef
    capture: PacketCapture
    verb: Verb

    @property
    def uid(self) -> str:
        return self.capture.metadata.uid


class Doorkeeper:
    """Lets requests in, or aborts them; the request is Flask's."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._strangers = Strangers()
        self._rate = Rate(PERSON_REQUESTS_PER_SECOND, 4 * PERSON_REQUESTS_PER_SECOND)
        self._seats = Seats(PERSON_ANSWERS)

    def authenticate(self) -> flask.Response | None:
        """Note whose request this is; an answer if it is nobody's.

        Raises:
            TooMuch: they asked too often, or somebody from there guesses tokens.
            ApiError: the API server cannot be asked.
        """
        headers = flask.request.headers
        token = access.bearer_token(
            headers.get("Authorization"), headers.get("Nightcap-Authorization")
        )
        address, now = address_of_peer(), time.monotonic()
        if token:
            self._strangers.check(address, token, now)
        identity = self._judge.identify(token) if token else None
        if token:
            self._strangers.note(address, token, now, is_good=identity is not None)
        if identity is None:
            what = "is not valid here" if token else "is missing"
            answer = text(f"the bearer token of a Kubernetes user {what}", 401)
            answer.headers["WWW-Authenticate"] = "Bearer"
            return answer
        self._rate.take(identity.username, now)
        flask.g.identity = identity
        flask.g.token = token
        return None

    def authorize(self, namespace: str, name: str, groups: Groups, verb: Verb) -> Granted:
        """Let those pass who may, to what exists.

        A group is looked at only with the right to it: else the answer would tell what is there.

        Raises:
            BadName: no capture can have that name.
            ApiError, BadCapture: the API server cannot be asked, or says what nobody can read.
        """
        identity: Identity = flask.g.identity
        refs = [access.parse_capture_ref(namespace, name, group) for group in groups]
        questions = [access.question(ref, verb) for ref in refs]
        # All are asked, also after a yes: the time an answer takes tells nothing either.
        answers = [self._judge.may(identity, asked) for asked in questions]
        allowed = [ref for ref, answer in zip(refs, answers, strict=True) if answer]
        found = ((ref, self._judge.find(ref)) for ref in allowed)
        ref, capture = next((pair for pair in found if pair[1] is not None), (refs[0], None))
        verdict = access.verdict(
            is_known=True, is_allowed=bool(allowed), exists=capture is not None
        )
        if verdict is Verdict.FORBIDDEN:
            flask.abort(text(access.forbidden_sentence(identity.username, questions), 403))
        if capture is None:
            raise NotFound(f"there is no capture {name} in namespace {namespace}")
        return Granted(identity, ref, capture, verb)

    def sit_down(self, granted: Granted, stack: ExitStack) -> None:
        """Take one of a person's seats until the stack is closed.

        Raises:
            TooMuch: all are taken; the stack is closed.
        """
        name = granted.identity.username
        try:
            self._seats.take(name)
        except TooMuch:
            stack.close()
            raise
        stack.callback(self._seats.leave, name)


def address_of_peer() -> str:
    """Whom the connection is with; IPv4 is not dressed up as IPv6.

    Behind the API server's service proxy that is the API server, and who asked it is only
    what it claims in X-Forwarded-For: both are recorded, and limits go by who somebody is.
    """
    return (flask.request.remote_addr or "").removeprefix("::ffff:")
