"""People and their rights, as the API server knows them; answers are kept for seconds."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict
from typing import Final

import msgspec

from nightcap.contract import keys
from nightcap.contract.captures import PacketCapture, parse_capture
from nightcap.contract.objects import Service
from nightcap.kube import paths
from nightcap.kube.client import KubeClient
from nightcap.kube.errors import ApiError, NotFound
from nightcap.kube.reviews import AccessReviewer, Identity, TokenReviewer
from retrieval.access import CaptureRef, Question

_log = logging.getLogger(__name__)

CACHE_SECONDS: Final = 10.0
DENIED_SECONDS: Final = 1.0
"""A no is kept for less: whoever was given the right a moment ago tries again at once."""
_MAX_CACHED: Final = 4096

_Key = tuple[str, str, tuple[str, ...], tuple[tuple[str, tuple[str, ...]], ...], Question]


class _Services(msgspec.Struct):
    items: tuple[Service, ...] = ()


class People:
    """Asks the API server who somebody is, what they may, and which object a name means."""

    def __init__(
        self,
        client: KubeClient,
        clock: Callable[[], float] = time.monotonic,
        has_calico: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take the API server, a clock, and whether projectcalico.org is ours to look at."""
        self._client = client
        self._has_calico = has_calico
        self._clock = clock
        self._tokens = TokenReviewer(client, ttl_seconds=CACHE_SECONDS)
        self._rights = AccessReviewer(client)
        self._lock = threading.Lock()
        self._known: OrderedDict[_Key, tuple[float, bool]] = OrderedDict()

    def identify(self, token: str) -> Identity | None:
        """Whose token it is, of the API server's own audience: a sidecar's is nobody's.

        Raises:
            ApiError: the API server cannot be asked.
        """
        return self._tokens.review(token)

    def may(self, identity: Identity, asked: Question) -> bool:
        """Whether the API server says yes.

        Raises:
            ApiError: the API server cannot be asked.
        """
        key = (
            identity.username,
            identity.uid,
            identity.groups,
            tuple(sorted(identity.extra.items())),
            asked,
        )
        with self._lock:
            good_until, answer = self._known.get(key, (0.0, False))
        if self._clock() < good_until:
            return answer
        answer = self._rights.allows(identity, **asdict(asked))
        with self._lock:
            kept = CACHE_SECONDS if answer else DENIED_SECONDS
            self._known[key] = (self._clock() + kept, answer)
            self._known.move_to_end(key)
            while len(self._known) > _MAX_CACHED:
                self._known.popitem(last=False)
        return answer

    def find(self, capture: CaptureRef) -> PacketCapture | None:
        """The live object of a name.

        Raises:
            ApiError: the API server cannot be asked.
            BadCapture: the object is there and cannot be read.
        """
        if capture.group == keys.CALICO_GROUP and not self._has_calico():
            return None
        path = paths.packetcapture(capture.namespace, capture.name, capture.group)
        try:
            return parse_capture(self._client.request("GET", path, timeout=(5, 10)))
        except NotFound:
            return None

    def services(self, namespace: str) -> tuple[tuple[str, str], ...]:
        """(address, name) of a namespace's services; none when the API server does not say."""
        try:
            answer = self._client.request("GET", paths.services(namespace), timeout=(5, 10))
            items = msgspec.json.decode(answer, type=_Services).items
        except (ApiError, msgspec.DecodeError) as error:
            _log.warning("services have no names now", extra={"error": str(error)})
            return ()
        return tuple(
            (address, f"{service.metadata.name}.{namespace}.svc")
            for service in items
            for address in service.spec.cluster_ips or (service.spec.cluster_ip,)
        )
