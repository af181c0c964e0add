"""Addresses of pods that recorded before anybody knew them; files name them later."""

from dataclasses import dataclass
from typing import Final

from nightcap.contract.segments import StreamKey
from nightcap.kube.errors import ApiError
from retrieval.collector.admission import Admission
from retrieval.store.base import Store

ADDRESS_SECONDS: Final = 2.0
"""A pod that records from its first packet does so before the API server knows its address."""
MAX_LOOKS: Final = 10
MAX_NAMELESS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Nameless:
    """A stream of a pod whose addresses were not known when it began."""

    pod: str
    look_at: float
    looks: int = 0


class Addresses:
    """Looks for them at the next appends, a few times."""

    def __init__(self, store: Store, admission: Admission) -> None:
        """Take where they are kept, and who knows them."""
        self._store = store
        self._admission = admission
        self._nameless: dict[StreamKey, Nameless] = {}

    def are_missing(self, stream: StreamKey, pod: str, now: float) -> None:
        """A stream has begun without them.

        Args:
            stream: Which.
            pod: Its pod's name.
            now: By a monotonic clock.
        """
        if len(self._nameless) < MAX_NAMELESS:
            self._nameless[stream] = Nameless(pod, now)

    def find(self, stream: StreamKey, now: float) -> None:
        """Look once more, if they are missing and it is time."""
        nameless = self._nameless.get(stream)
        if nameless is None or now < nameless.look_at:
            return
        self._nameless[stream] = Nameless(nameless.pod, now + ADDRESS_SECONDS, nameless.looks + 1)
        try:
            ips = self._admission.addresses(stream, nameless.pod)
        except ApiError:
            ips = ()
        if ips:
            self._store.set_addresses(stream, ips)
        if ips or nameless.looks >= MAX_LOOKS:
            self._nameless.pop(stream, None)
