"""What to do next about certificates: one step, with its reason, from one look at all of them.

A list of named checks, tried in order; the first that finds something says what to do.
Whoever does it looks again, so every crash and every second writer ends in the same state.

A new root comes in four acts, and nobody who trusts only an older one is ever left out:

1. the root is made, and signs a leaf for each server beside the leaves there are;
2. every bundle gets the new root beside the old;
3. once that has been so for `settle_seconds`, the new generation is the default one and
   the one that new sidecars pin;
4. the old root stays, is served to who asks for it by name (SNI) and has its leaves
   renewed, until it expires. It is then taken out of everything.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from certs.bundle import Bundle, Facts, Pair
from certs.issue import LEAF_SECONDS, ROOT_SECONDS
from nightcap.contract.paths import collector_name

RENEW_AFTER = 2 / 3
"""Of a certificate's life; the rest is for what goes wrong."""


@dataclass(frozen=True, slots=True)
class ServingSecret:
    """A server's Secret and what its certificate is for.

    Attributes:
        name: Of the Secret.
        names: DNS names and addresses.
        collects: Whether sidecars ask this server for the name of their generation.
    """

    name: str
    names: frozenset[str]
    collects: bool = False

    def names_of(self, generation: int) -> frozenset[str]:
        """What the leaf of a generation is for."""
        return self.names | {collector_name(generation)} if self.collects else self.names


@dataclass(frozen=True, slots=True)
class Policy:
    """How long things live, in seconds, and which servers there are."""

    serving: tuple[ServingSecret, ...]
    root_seconds: float = ROOT_SECONDS
    leaf_seconds: float = LEAF_SECONDS
    settle_seconds: float = 120.0
    """From a new root in every bundle to its use: time for every replica to see it."""


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything there is, at one moment.

    Attributes:
        ca: The roots with their keys; None if the Secret is missing.
        serving: By Secret name; None if it is missing.
        places: Bundle of roots by place outside of Secrets (webhook configurations, the
            ConfigMap); '' if empty. A place that does not exist is not in here.
    """

    ca: Bundle | None
    serving: Mapping[str, Bundle | None]
    places: Mapping[str, str]


class StepKind(StrEnum):
    """What there is to do."""

    KEEP = "keep"
    NEW_ROOT = "new root"
    ISSUE_LEAF = "issue leaf"
    PUBLISH = "publish"
    MARK_PUBLISHED = "mark published"
    ACTIVATE = "activate"
    RETIRE = "retire"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do.

    Attributes:
        kind: What.
        reason: Why, for logs.
        generation: Of which root.
        where: The Secret or place it concerns; '' for the CA's own.
        again_at: For `KEEP`: when the clock alone makes something due, epoch seconds.
    """

    kind: StepKind
    reason: str
    generation: int = 0
    where: str = ""
    again_at: float = float("inf")


def next_step(observed: Observed, policy: Policy, now: float) -> Step:
    """The one thing to do now; `KEEP` when everything is as it should be."""
    for check in CHECKS:
        step = check(observed, policy, now)
        if step is not None:
            return step
    return Step(
        StepKind.KEEP, "everything is as it should be", again_at=_due_at(observed, policy, now)
    )


def living_roots(observed: Observed, now: float) -> dict[int, str]:
    """Roots to trust, newest first: generation → PEM.

    A root whose key was lost is trusted for as long as a leaf of it is served.
    """
    roots = {n: pair.certificate for n, pair in _signers(observed, now).items()}
    for bundle in observed.serving.values():
        for n, pair in (bundle.pairs if bundle else {}).items():
            if n not in roots and pair.ca and now < pair.facts.expires_at:
                roots[n] = pair.ca
    return dict(sorted(roots.items(), reverse=True))


def bundle_text(observed: Observed, now: float) -> str:
    """All living roots, PEM, newest first: what `ca.crt` and `caBundle` are to hold."""
    return "".join(
        pem if pem.endswith("\n") else f"{pem}\n" for pem in living_roots(observed, now).values()
    )


def next_generation(observed: Observed) -> int:
    """A number that no root has ever had, as far as anything here remembers.

    A deleted CA Secret must not bring g1 back under another key: sidecars pin g1's.
    """
    seen: set[int] = {0}
    for bundle in (observed.ca, *observed.serving.values()):
        if bundle is not None:
            seen |= bundle.seen | {bundle.current}
    return max(seen) + 1


def _signers(observed: Observed, now: float) -> dict[int, Pair]:
    """Roots that can sign now."""
    pairs = observed.ca.pairs if observed.ca else {}
    return {n: pair for n, pair in pairs.items() if now < pair.facts.expires_at}


def _is_due(facts: Facts, now: float) -> bool:
    return now >= _renew_at(facts)


def _renew_at(facts: Facts) -> float:
    return facts.issued_at + (facts.expires_at - facts.issued_at) * RENEW_AFTER


def _root_exists(observed: Observed, _policy: Policy, now: float) -> Step | None:
    if _signers(observed, now):
        return None
    if observed.ca is None:
        reason = "there is no root"
    elif observed.ca.pairs:
        reason = "every root has expired"
    else:
        reason = "; ".join(observed.ca.faults) or "the CA's Secret is empty"
    return Step(StepKind.NEW_ROOT, reason, next_generation(observed))


def _newest_root_is_young(observed: Observed, _policy: Policy, now: float) -> Step | None:
    signers = _signers(observed, now)
    newest = max(signers)
    if not _is_due(signers[newest].facts, now):
        return None
    reason = f"g{newest} has lived two thirds of its life"
    return Step(StepKind.NEW_ROOT, reason, next_generation(observed))


def _leaves_are_good(observed: Observed, policy: Policy, now: float) -> Step | None:
    for secret in policy.serving:
        bundle = observed.serving.get(secret.name)
        for n, root in _signers(observed, now).items():
            leaf = bundle.pairs.get(n) if bundle else None
            reason = _fault_of(leaf, root, secret.names_of(n), now)
            if reason:
                return Step(StepKind.ISSUE_LEAF, reason, n, secret.name)
    return None


def _fault_of(leaf: Pair | None, root: Pair, names: frozenset[str], now: float) -> str:
    if leaf is None:
        return "there is none, or it is damaged"
    if leaf.facts.issuer_key_id != root.facts.key_id or leaf.ca != root.certificate:
        return "another root signed it"
    if leaf.facts.names != names:
        return "it is for other names"
    # One that ends with its root cannot be renewed: a new one would end then, too.
    if _is_due(leaf.facts, now) and leaf.facts.expires_at < root.facts.expires_at:
        return "it has lived two thirds of its life"
    return ""


def _bundles_are_published(observed: Observed, policy: Policy, now: float) -> Step | None:
    wanted = bundle_text(observed, now)
    for secret in policy.serving:
        bundle = observed.serving.get(secret.name)
        if bundle is not None and bundle.ca_bundle != wanted:
            return Step(StepKind.PUBLISH, "its bundle of roots differs", where=secret.name)
    for place, text in observed.places.items():
        if text != wanted:
            reason = "its bundle of roots differs" if text else "it has no bundle of roots"
            return Step(StepKind.PUBLISH, reason, where=place)
    return None


def _publication_is_noted(observed: Observed, _policy: Policy, now: float) -> Step | None:
    newest = max(_signers(observed, now))
    if observed.ca is None or newest in observed.ca.published_at:
        return None
    return Step(StepKind.MARK_PUBLISHED, "its root is in every bundle", newest)


def _newest_is_current(observed: Observed, policy: Policy, now: float) -> Step | None:
    newest = max(_signers(observed, now))
    for name, bundle in [("", observed.ca), *observed.serving.items()]:
        if bundle is None or bundle.current == newest:
            continue
        alive = bundle.pairs.get(bundle.current)
        if alive is None or now >= alive.facts.expires_at:
            reason = f"current is g{bundle.current}, which is dead" if bundle.current else "none is"
            return Step(StepKind.ACTIVATE, reason, newest, name)
        if now >= _settled_at(observed, policy, newest):
            reason = f"its root has been in every bundle for {policy.settle_seconds:g} s"
            return Step(StepKind.ACTIVATE, reason, newest, name)
    return None


def _settled_at(observed: Observed, policy: Policy, generation: int) -> float:
    published = observed.ca.published_at.get(generation) if observed.ca else None
    return float("inf") if published is None else published + policy.settle_seconds


def _the_dead_are_gone(observed: Observed, _policy: Policy, now: float) -> Step | None:
    for name, bundle in [("", observed.ca), *observed.serving.items()]:
        for n, pair in (bundle.pairs if bundle else {}).items():
            if now >= pair.facts.expires_at:
                return Step(StepKind.RETIRE, "it has expired", n, name)
    return None


Check = Callable[[Observed, Policy, float], Step | None]

CHECKS: tuple[Check, ...] = (
    _root_exists,
    _newest_root_is_young,
    _leaves_are_good,
    _bundles_are_published,
    _publication_is_noted,
    _newest_is_current,
    _the_dead_are_gone,
)


def _due_at(observed: Observed, policy: Policy, now: float) -> float:
    """When the clock alone makes one of the checks find something."""
    signers = _signers(observed, now)
    newest = max(signers)
    due = [_renew_at(signers[newest].facts)]
    if any(
        bundle and bundle.current != newest for bundle in (observed.ca, *observed.serving.values())
    ):
        due.append(_settled_at(observed, policy, newest))
    for bundle in (observed.ca, *observed.serving.values()):
        for n, pair in (bundle.pairs if bundle else {}).items():
            due.append(pair.facts.expires_at)
            root = signers.get(n)
            if pair.ca and root is not None and pair.facts.expires_at < root.facts.expires_at:
                due.append(_renew_at(pair.facts))
    return min(due)
