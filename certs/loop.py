"""Keeps the certificates as the policy wants them; runs inside the controller.

Looks when it starts, when one of the objects changes, and when the clock makes something
due; each time it does step after step until there is nothing left to do.
"""

import logging
import threading
import time
from collections.abc import Callable

import msgspec

from certs.policy import Observed, Step, StepKind, next_step
from certs.publish import Publisher
from certs.settings import CertificateSettings
from nightcap.contract.objects import ObjectMeta
from nightcap.kube import paths
from nightcap.kube.client import KubeClient
from nightcap.kube.errors import AlreadyExists, ApiError, Conflict
from nightcap.kube.reflector import Change, Reflector
from nightcap.kube.watches import watch_one

log = logging.getLogger(__name__)

_MAX_STEPS = 100
_FIRST_DELAY_SECONDS = 0.5
_MAX_DELAY_SECONDS = 30.0
_PAUSE_SECONDS = 0.1
"""Between two looks: somebody who fights over a field must not make us spin."""


class _Anything(msgspec.Struct, frozen=True):
    """Enough of an object to see that it changed."""

    metadata: ObjectMeta = ObjectMeta()


class CertificateLoop:
    """Makes, rotates and publishes the certificates of one installation."""

    def __init__(
        self,
        client: KubeClient,
        settings: CertificateSettings,
        on_error: Callable[[Exception], None] | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare; nothing is read before `start`.

        Args:
            client: The API server.
            settings: What is where.
            on_error: Told of every failure; the loop tries again by itself.
            clock: Epoch seconds.
        """
        self._client = client
        self._settings = settings
        self._publisher = Publisher(client, settings)
        self._on_error = on_error
        self._clock = clock
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._reflectors: list[Reflector[_Anything]] = []
        self._settled = threading.Event()
        self.steps = 0
        """Steps done so far."""
        self.failures = 0
        """Looks or steps that failed."""
        self.expires_at: dict[str, float] = {}
        """What ends when: `root g1`, `nightcap-webhook-tls g1` → epoch seconds."""

    def start(self) -> None:
        """Begin, in threads of this process."""
        self._reflectors = self._watches()
        for reflector in self._reflectors:
            reflector.start()
        self._thread = threading.Thread(target=self._run, name="certificates", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; a step that is being done is finished."""
        self._stopping.set()
        self._wake.set()
        for reflector in self._reflectors:
            reflector.stop()
        if self._thread is not None:
            self._thread.join(timeout=15)

    def wait_settled(self, timeout: float) -> bool:
        """Wait until there was nothing left to do once; whether it came to that."""
        return self._settled.wait(timeout)

    def look_once(self) -> Step:
        """Do everything there is to do now.

        Returns:
            The last step: `KEEP`, with the time when to look again.

        Raises:
            ApiError: If something cannot be read or written.
        """
        for _ in range(_MAX_STEPS):
            look = self._publisher.look()
            now = self._clock()
            step = next_step(look.observed, self._settings.policy, now)
            self.expires_at = _expiries(look.observed)
            if step.kind is StepKind.KEEP or self._stopping.is_set():
                return step
            facts = {"step": step.kind, "generation": step.generation, "why": step.reason}
            log.info("certificate step", extra={**facts, "where": step.where})
            try:
                self._publisher.do(step, look, now)
                self.steps += 1
            except (Conflict, AlreadyExists) as error:
                log.info("somebody else wrote meanwhile", extra={"said": str(error)})
        raise RuntimeError(f"certificates do not settle: {_MAX_STEPS} steps, the last {step}")

    def _run(self) -> None:
        delay = _FIRST_DELAY_SECONDS
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                step = self.look_once()
            except ApiError as error:
                log.warning("certificates not settled", extra={"error": str(error)})
                delay = self._back_off(error, delay)
            except Exception as error:
                log.exception("certificates not settled")
                delay = self._back_off(error, delay)
            else:
                delay = _FIRST_DELAY_SECONDS
                if step.kind is StepKind.KEEP:
                    self._settled.set()
                due_in = max(0.0, step.again_at - self._clock())
                self._wake.wait(min(due_in, self._settings.check_seconds))
            self._stopping.wait(_PAUSE_SECONDS)

    def _back_off(self, error: Exception, delay: float) -> float:
        self.failures += 1
        if self._on_error is not None:
            self._on_error(error)
        self._stopping.wait(delay)
        return min(delay * 2, _MAX_DELAY_SECONDS)

    def _watches(self) -> list[Reflector[_Anything]]:
        settings = self._settings
        secrets = [settings.ca_secret, *(secret.name for secret in settings.policy.serving)]
        watched = [(paths.secrets(settings.namespace), name) for name in secrets]
        watched.append((paths.config_maps(settings.namespace), settings.config_map))
        if settings.webhooks:
            watched.append((paths.mutating_webhooks(), settings.webhooks))
            watched.append((paths.validating_webhooks(), settings.webhooks))
        return [
            watch_one(
                self._client,
                path,
                _Anything,
                name,
                name=f"{path.rpartition('/')[2]}/{name}",
                on_change=self._heard,
            )
            for path, name in watched
        ]

    def _heard(self, _change: Change[_Anything]) -> None:
        self._wake.set()


def _expiries(observed: Observed) -> dict[str, float]:
    ends = {}
    for name, bundle in [("root", observed.ca), *observed.serving.items()]:
        for n, pair in (bundle.pairs if bundle else {}).items():
            ends[f"{name} g{n}"] = pair.facts.expires_at
    return ends
