"""What a dry run of a canary pod proves of a namespace, and when to try again. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from controller.injection import is_enabled
from nightcap.contract.canary import has_sidecar
from nightcap.contract.objects import Namespace

PROVEN_SECONDS: Final = 600.0
"""How long a proof is good; quotas, limit ranges and other people's webhooks change, too."""
DOUBT_SECONDS: Final = 60.0
_LEVELS: Final = "pod-security.kubernetes.io/"
_ENFORCE: Final = f"{_LEVELS}enforce"


class Proof(StrEnum):
    """What is known of new pods of a namespace; programs may match these words."""

    PROVEN = "proven"
    """They are admitted, with their sidecar."""
    RESTRICTED = "restricted"
    """They are admitted without: the namespace enforces the level restricted."""
    SWITCHED_OFF = "switched-off"
    NOT_INJECTED = "not-injected"
    """They are admitted without, and nobody asked for that."""
    REFUSED = "refused"
    """They are refused because of the sidecar, and admitted when they opt out."""
    UNKNOWN = "unknown"
    """A canary is refused with and without sidecar; nothing follows for other pods."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What the API server answered to one canary.

    Attributes:
        pod: As it would have been made; None if it was refused.
        said: Why it was refused.
    """

    pod: Mapping[str, Any] | None = None
    said: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The proof of one namespace.

    Attributes:
        said: The API server's words, if it refused.
        fingerprint: Of what in the namespace it depends on.
        at: When, seconds since the epoch.
    """

    proof: Proof
    said: str
    fingerprint: str
    at: float


def judge(
    namespace: Namespace, attempt: Attempt, without: Attempt | None, *, is_off: bool
) -> tuple[Proof, str]:
    """What the answers prove, and the API server's words.

    Args:
        namespace: The namespace.
        attempt: Of a canary like any pod.
        without: Of one that opts out; tried only when the first was refused.
        is_off: Whether injection is switched off.
    """
    if attempt.pod is None:
        if without is not None and without.pod is not None:
            return Proof.REFUSED, attempt.said
        return Proof.UNKNOWN, attempt.said
    if has_sidecar(dict(attempt.pod)):
        return Proof.PROVEN, ""
    if is_off:
        return Proof.SWITCHED_OFF, ""
    if namespace.metadata.label(_ENFORCE) == "restricted":
        return Proof.RESTRICTED, ""
    return Proof.NOT_INJECTED, ""


def fingerprint_of(namespace: Namespace, *, is_off: bool) -> str:
    """What a proof depends on, as far as it can be seen: another one is to be proved anew."""
    labels = namespace.metadata.labels or {}
    levels = sorted(f"{k}={v}" for k, v in labels.items() if k.startswith(_LEVELS))
    return ",".join([namespace.metadata.uid, "off" if is_off else "on", *levels])


def due(
    namespaces: Iterable[Namespace], verdicts: Mapping[str, Verdict], now: float, *, is_off: bool
) -> tuple[Namespace, ...]:
    """The namespaces to try now, those of which nothing is known first."""
    found = []
    for namespace in namespaces:
        if not is_enabled(namespace):
            continue
        verdict = verdicts.get(namespace.metadata.name)
        if verdict is None or verdict.fingerprint != fingerprint_of(namespace, is_off=is_off):
            found.append((0.0, namespace))
            continue
        is_sure = verdict.proof in (Proof.PROVEN, Proof.RESTRICTED, Proof.SWITCHED_OFF)
        # abs: a clock that was set back must not put it off for hours.
        if abs(now - verdict.at) >= (PROVEN_SECONDS if is_sure else DOUBT_SECONDS):
            found.append((verdict.at, namespace))
    found.sort(key=lambda item: (item[0], item[1].metadata.name))
    return tuple(namespace for _, namespace in found)


SENTENCES: Final[Mapping[Proof, str]] = {
    Proof.NOT_INJECTED: (
        "a new pod of this namespace gets no capture sidecar, as a server-side dry run shows: the "
        "webhook is not reached, or it refuses (kubectl nightcap doctor says more)"
    ),
    Proof.REFUSED: (
        "a new pod of this namespace is refused because of its capture sidecar, as a server-side "
        "dry run shows; label the namespace's pods nightcap.dev/inject=disabled to start them "
        "without, or change the rule that refuses"
    ),
}
"""Of those that somebody has to be told."""
