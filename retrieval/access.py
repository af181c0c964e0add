"""Who may have what: from a request to the question for the API server, from its answer to ours.

| token | right | object | answer |
| --- | --- | --- | --- |
| none, bad | | | 401 |
| good | no | exists or not | 403, in the same words |
| good | yes | no | 404 |
| good | yes | yes | what was asked for |

Calico's two paths name no group. Each group is looked at only for whom it would tell
something that they may know: the answer is the same whatever exists in a group to whose
files somebody has no right.

| right in projectcalico.org | right in nightcap.dev | the name means |
| --- | --- | --- |
| no | no | nothing: 403 |
| yes | no | the capture of projectcalico.org, else 404 |
| no | yes | the capture of nightcap.dev, else 404 |
| yes | yes | the capture of projectcalico.org, else that of nightcap.dev, else 404 |
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from nightcap.contract import keys
from nightcap.contract.segments import BadName

SUBRESOURCE: Final = "files"
_LABEL: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN: Final = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")
_BEARER: Final = re.compile(r"[Bb]earer +([A-Za-z0-9._~+/=-]+) *")
_FINISHED: Final = "Finished"


class Verb(StrEnum):
    """What a person wants of a capture's files."""

    GET = "get"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class CaptureRef:
    """The capture that a request is about; its name means the live object."""

    namespace: str
    name: str
    group: str = keys.GROUP


@dataclass(frozen=True, slots=True)
class Question:
    """What a SubjectAccessReview asks."""

    verb: str
    group: str
    resource: str
    subresource: str
    namespace: str
    name: str


class Verdict(StrEnum):
    """The answer to a request, before there is anything to hand out."""

    WHO_ARE_YOU = "401"
    FORBIDDEN = "403"
    ABSENT = "404"
    GRANTED = "200"


EITHER_GROUP: Final = (keys.CALICO_GROUP, keys.GROUP)
"""The groups that a path of Calico's may mean, in the order in which they are looked at."""


def parse_capture_ref(namespace: str, name: str, group: str = keys.GROUP) -> CaptureRef:
    """Read the names in a path.

    Raises:
        BadName: Kubernetes has no namespace or object of such a name.
    """
    if not _LABEL.fullmatch(namespace):
        raise BadName(f"namespace {namespace[:80]!r} is no name of a namespace")
    if not _SUBDOMAIN.fullmatch(name):
        raise BadName(f"{name[:80]!r} is no name of a capture")
    return CaptureRef(namespace, name, group)


def bearer_token(authorization: str | None, nightcap_authorization: str | None) -> str | None:
    """The token of a request.

    Args:
        authorization: The header `Authorization`.
        nightcap_authorization: The header `Nightcap-Authorization`, which comes first: the API
            server's service proxy takes the other one for itself.
    """
    header = nightcap_authorization if nightcap_authorization is not None else authorization
    match = _BEARER.fullmatch(header or "")
    return match[1] if match else None


def question(capture: CaptureRef, verb: Verb) -> Question:
    """What the API server has to be asked about a person who wants a capture's files."""
    return Question(
        verb=verb.value,
        group=capture.group,
        resource=keys.PLURAL,
        subresource=SUBRESOURCE,
        namespace=capture.namespace,
        name=capture.name,
    )


def verdict(*, is_known: bool, is_allowed: bool, exists: bool) -> Verdict:
    """The table above; what exists is told only to those who may have it."""
    if not is_known:
        return Verdict.WHO_ARE_YOU
    if not is_allowed:
        return Verdict.FORBIDDEN
    return Verdict.GRANTED if exists else Verdict.ABSENT


def forbidden_sentence(username: str, questions: Sequence[Question]) -> str:
    """Why the answer is 403; it says nothing that the person did not say.

    Args:
        username: Whom the token belongs to.
        questions: All that were asked; they differ in their group alone.
    """
    asked = questions[0]
    groups = " or ".join(question.group for question in questions)
    return (
        f"{username} is not authorized to {asked.verb} {asked.resource}/{asked.subresource} "
        f"of {groups} named {asked.name} in namespace {asked.namespace}"
    )


def deletion_fault(phase: str | None) -> str | None:
    """Why files may not be deleted now, if they may not; in the words of Calico's API."""
    if phase is None:
        return "capture state cannot be determined"
    if phase != _FINISHED:
        return "capture state is not Finished"
    return None
