"""Leader election on a Lease: at most one process acts at any moment.

Own code, because the official client's elector dies when the API server is away and
leaves its work running (docs/decisions/0007). The rules are client-go's:

- A holder is believed for the Lease's duration, counted from when *we* saw it renew:
  clocks of different machines are never compared.
- A leader that could not renew within the renew deadline, which is shorter, stops
  acting by itself, also when it was paused: `is_leader` asks the monotonic clock.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from nightcap.contract.objects import ObjectMeta
from nightcap.kube import paths
from nightcap.kube.client import KubeClient
from nightcap.kube.errors import ApiError, Conflict, NotFound
from nightcap.kube.reflector import Change
from nightcap.kube.watches import watch_one

log = logging.getLogger(__name__)

_API_VERSION: Final = "coordination.k8s.io/v1"
_NEVER: Final = float("-inf")


@dataclass(frozen=True, slots=True)
class ElectionSettings:
    """How long a leader is believed, and how often it says that it is there.

    Attributes:
        lease_seconds: How long others wait after the last renewal that they saw.
        deadline_seconds: How long a leader acts after its last renewal; less than the lease,
            so that it has stopped before another begins.
        retry_seconds: Time between renewals, and between looks at another's Lease.
    """

    lease_seconds: float = 10.0
    deadline_seconds: float = 6.0
    retry_seconds: float = 1.5

    def __post_init__(self) -> None:
        if not 0 < self.retry_seconds < self.deadline_seconds < self.lease_seconds:
            raise ValueError(
                f"election: retry {self.retry_seconds:g} s, deadline {self.deadline_seconds:g} s "
                f"and lease {self.lease_seconds:g} s must grow in this order"
            )


class LeaseSpec(Struct, frozen=True, rename="camel"):
    """`spec` of a Lease."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class Lease(Struct, frozen=True):
    """A Lease (`coordination.k8s.io/v1`)."""

    metadata: ObjectMeta = ObjectMeta()
    spec: LeaseSpec = LeaseSpec()


@dataclass(frozen=True, slots=True)
class Seen:
    """A Lease, and when we first saw it say what it says.

    Attributes:
        at: By our monotonic clock, seconds.
    """

    lease: Lease
    at: float


def may_take(seen: Seen, identity: str, now: float, lease_seconds: float) -> bool:
    """Whether we may write ourselves into a Lease.

    | holder | last change that we saw | we may |
    | --- | --- | --- |
    | we | any | yes |
    | nobody | any | yes: it was given back |
    | another | less than its duration ago | no |
    | another | its duration ago, or more | yes |
    """
    holder = seen.lease.spec.holder_identity
    if not holder or holder == identity:
        return True
    duration = seen.lease.spec.lease_duration_seconds or lease_seconds
    return now >= seen.at + duration


def next_spec(lease: Lease | None, identity: str, at: datetime, lease_seconds: float) -> LeaseSpec:
    """The spec to write to hold a Lease, or to go on holding it."""
    old = lease.spec if lease is not None else LeaseSpec()
    now = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    ours = old.holder_identity == identity
    # A Lease that is new counts no change of hands.
    changes = (old.lease_transitions or 0) + (0 if ours or lease is None else 1)
    return LeaseSpec(
        holder_identity=identity,
        lease_duration_seconds=max(1, round(lease_seconds)),
        acquire_time=(old.acquire_time if ours else None) or now,
        renew_time=now,
        lease_transitions=changes,
    )


class Elector:
    """Takes part in an election until it is stopped.

    Attributes:
        leading: Set while we lead; waits on it wake when we begin to. For the moment of a
            write ask `is_leader`, which a pause of the process cannot deceive.
    """

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        name: str,
        identity: str,
        *,
        settings: ElectionSettings | None = None,
        on_change: Callable[[bool], None] = lambda leads: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare to take part; nothing is asked before `start`.

        Args:
            client: The API server.
            namespace: Of the Lease.
            name: Of the Lease.
            identity: Ours, different from every other process's.
            settings: Times.
            on_change: Called, from the elector's thread, when we begin or cease to lead.
            clock: Monotonic seconds.
        """
        self.leading = threading.Event()
        self._client = client
        self._namespace, self._name, self._identity = namespace, name, identity
        self._settings = settings or ElectionSettings()
        self._on_change = on_change
        self._clock = clock
        self._leads_until = _NEVER
        self._seen: Seen | None = None
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="elector", daemon=True)
        # Polling alone would find a Lease that was given back a retry later.
        self._watch = watch_one(
            client,
            paths.leases(namespace),
            Lease,
            name,
            name=f"leases/{name}",
            on_change=self._noticed,
        )

    @property
    def is_leader(self) -> bool:
        """Whether we may act at this very moment."""
        return self._clock() < self._leads_until

    def start(self) -> None:
        """Begin to take part."""
        self._watch.start()
        self._thread.start()

    def stop(self) -> None:
        """Cease to lead, and give the Lease back, so that another begins at once.

        Call it when nothing of the work goes on any more.
        """
        self._stopping.set()
        self._wake.set()
        self._watch.stop()
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        held = self.is_leader
        self._lead_until(_NEVER)
        if held:
            self._give_back()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            self._step()
            self._wake.wait(self._settings.retry_seconds)

    def _step(self) -> None:
        asked_at = self._clock()
        try:
            held = self._take()
        except ApiError as error:
            log.warning("lease not renewed", extra={"lease": self._name, "error": str(error)})
            held = False
        except Exception:
            # Whatever it was: not renewed. The deadline decides, and the next look comes.
            log.exception("election failed", extra={"lease": self._name})
            held = False
        if held:
            # From before the request: others may count from any moment since.
            self._lead_until(asked_at + self._settings.deadline_seconds)
        elif not self.is_leader:
            self._lead_until(_NEVER)

    def _take(self) -> bool:
        """Write ourselves into the Lease if we may; whether we hold it now."""
        path = paths.lease(self._namespace, self._name)
        try:
            found = msgspec.json.decode(self._ask("GET", path), type=Lease)
        except NotFound:
            self._write("POST", paths.leases(self._namespace), None)
            return True
        now = self._clock()
        if self._seen is None or self._seen.lease.spec != found.spec:
            self._seen = Seen(found, now)
        if not may_take(self._seen, self._identity, now, self._settings.lease_seconds):
            if found.spec.holder_identity != self._identity:
                self._lead_until(_NEVER)
            return False
        try:
            self._write("PUT", path, found)
        except Conflict:
            return False  # another was quicker
        return True

    def _write(self, method: str, path: str, found: Lease | None) -> None:
        spec = next_spec(found, self._identity, datetime.now(UTC), self._settings.lease_seconds)
        metadata: dict[str, Any] = {"name": self._name, "namespace": self._namespace}
        if found is not None:
            # The precondition: nobody wrote since we looked.
            metadata["resourceVersion"] = found.metadata.resource_version
        self._send(method, path, metadata, spec)

    def _give_back(self) -> None:
        path = paths.lease(self._namespace, self._name)
        try:
            found = msgspec.json.decode(self._ask("GET", path), type=Lease)
            if found.spec.holder_identity != self._identity:
                return
            metadata = {
                "name": self._name,
                "namespace": self._namespace,
                "resourceVersion": found.metadata.resource_version,
            }
            given_back = msgspec.structs.replace(
                found.spec, holder_identity="", lease_duration_seconds=1
            )
            self._send("PUT", path, metadata, given_back)
        except ApiError as error:
            # It ends by itself.
            log.info("lease not given back", extra={"lease": self._name, "error": str(error)})

    def _send(self, method: str, path: str, metadata: dict[str, Any], spec: LeaseSpec) -> None:
        body = {"apiVersion": _API_VERSION, "kind": "Lease", "metadata": metadata, "spec": spec}
        self._ask(method, path, msgspec.to_builtins(body))

    def _ask(self, method: str, path: str, body: Any = None) -> bytes:
        # An answer that comes after the deadline is of no use.
        patience = max(0.5, self._settings.deadline_seconds / 2)
        return self._client.request(method, path, body=body, timeout=(patience, patience))

    def _noticed(self, change: Change[Lease]) -> None:
        if change.kind == "deleted" or not change.object.spec.holder_identity:
            self._wake.set()

    def _lead_until(self, until: float) -> None:
        self._leads_until = until
        leads = until != _NEVER
        if leads == self.leading.is_set():
            return
        if leads:
            self.leading.set()
        else:
            self.leading.clear()
        log.info(
            "leadership changed",
            extra={"lease": self._name, "identity": self._identity, "leads": leads},
        )
        self._on_change(leads)
