"""Proves opted-in namespaces, one dry run after the other, and publishes what came of it.

A canary pod is created in server-side dry runs, as an account that a policy allows nothing
else (manifests/base/canary.yaml). Of the replicas the leader alone asks.
"""

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from controller.proving import (
    SENTENCES,
    Attempt,
    Proof,
    Verdict,
    due,
    fingerprint_of,
    judge,
)
from nightcap.contract.canary import CANARY_ACCOUNT, canary_pod
from nightcap.contract.objects import Namespace
from nightcap.kube import paths
from nightcap.kube.client import KubeClient
from nightcap.kube.errors import BadRequest, Forbidden, Invalid, NotFound
from nightcap.kube.events import EventRecorder
from nightcap.kube.rounds import Rounds

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 5.0
AT_ONCE: Final = 10
"""Namespaces that are tried in one look: nobody else is to notice."""
_GIVE_UP_SECONDS: Final = 600.0
_MAX_SAID: Final = 400


class _NotAllowed(Exception):
    """The account is not there, or we may not act as it."""


class CanaryProver(Collector):
    """See the module; also shows its findings to Prometheus.

    Args:
        client: The API server.
        own_namespace: Of Nightcap itself.
        namespaces: Every namespace.
        is_off: Whether injection is switched off.
        recorder: Events.
        may_ask: Whether this replica leads.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        client: KubeClient,
        own_namespace: str,
        namespaces: Callable[[], Sequence[Namespace]],
        is_off: Callable[[], bool],
        recorder: EventRecorder,
        may_ask: Callable[[], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._user = f"system:serviceaccount:{own_namespace}:{CANARY_ACCOUNT}"
        self._namespaces = namespaces
        self._is_off = is_off
        self._recorder = recorder
        self._may_ask = may_ask
        self._clock = clock
        self._rounds = Rounds("canary", self.look_once, LOOK_SECONDS)
        self._quiet_until = float("-inf")
        self.verdicts: dict[str, Verdict] = {}
        """By namespace."""

    def start(self) -> None:
        """Begin, in a thread of its own; only when the watches have synced."""
        self._rounds.start()

    def stop(self) -> None:
        self._rounds.stop()

    def look_once(self) -> None:
        """Try the namespaces whose time has come, a few of them.

        Raises:
            ApiError: The API server does not answer.
        """
        now = self._clock()
        if not self._may_ask():
            self.verdicts = {}  # the leader's are the ones that hold
            return
        if now < self._quiet_until:
            return
        is_off = self._is_off()
        namespaces = self._namespaces()
        names = {namespace.metadata.name for namespace in namespaces}
        self.verdicts = {name: v for name, v in self.verdicts.items() if name in names}
        for namespace in due(namespaces, self.verdicts, now, is_off=is_off)[:AT_ONCE]:
            if self._rounds.is_stopping:
                return
            try:
                self._prove(namespace, is_off, now)
            except _NotAllowed as error:
                log.info("namespaces are not proved", extra={"why": str(error)})
                self._quiet_until = now + _GIVE_UP_SECONDS
                self.verdicts = {}
                return

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "nightcap_namespaces",
            "Opted-in namespaces, by what a dry run proves of their new pods.",
            labels=["proof"],
        )
        counts = Counter(verdict.proof for verdict in self.verdicts.values())
        for proof in Proof:
            family.add_metric([str(proof)], counts[proof])
        yield family

    def _prove(self, namespace: Namespace, is_off: bool, now: float) -> None:
        name = namespace.metadata.name
        try:
            attempt = self._attempt(name, injected=True)
            without = self._attempt(name, injected=False) if attempt.pod is None else None
        except NotFound:
            return  # it went meanwhile
        proof, said = judge(namespace, attempt, without, is_off=is_off)
        before = self.verdicts.get(name)
        fingerprint = fingerprint_of(namespace, is_off=is_off)
        self.verdicts[name] = Verdict(proof, said[:_MAX_SAID], fingerprint, now)
        if before is None or before.proof is not proof:
            facts = {"namespace": name, "proof": str(proof), "said": said[:_MAX_SAID]}
            log.info("namespace tried", extra=facts)
            self._tell(name, proof, said)

    def _tell(self, name: str, proof: Proof, said: str) -> None:
        sentence = SENTENCES.get(proof)
        if sentence is None:
            return
        message = f"{sentence}: {said[:_MAX_SAID]}" if said else sentence
        reason = "SidecarRefused" if proof is Proof.REFUSED else "NotInjected"
        self._recorder.warn_namespace(name, reason, message, action="Prove")

    def _attempt(self, namespace: str, *, injected: bool) -> Attempt:
        try:
            answer = self._client.request(
                "POST",
                paths.pods(namespace),
                query={"dryRun": "All"},
                body=canary_pod("nightcap-canary-", injected=injected),
                headers={"Impersonate-User": self._user},
                timeout=(5, 15),
            )
        except (Forbidden, Invalid, BadRequest) as error:
            if isinstance(error, Forbidden) and error.lacks_right:
                raise _NotAllowed(error.message) from error
            return Attempt(said=error.message)
        return Attempt(json.loads(answer))
