"""The certificates that a server shows, as its Secret has them now; and the server itself.

The Secret is read and followed through the API: a mounted one lags by up to minutes.
Handshakes use whatever came last and was good; nothing is ever restarted for it.
"""

import logging
import signal
import ssl
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from certs.bundle import BadBundle, bundle_of
from certs.contexts import ServedContexts, contexts_of
from certs.plain import PlainApp
from certs.runner import run_server
from certs.worker import ServerOptions
from nightcap.contract.objects import Secret
from nightcap.kube import paths
from nightcap.kube.client import KubeClient
from nightcap.kube.errors import ApiError
from nightcap.kube.reflector import Change, Reflector
from nightcap.kube.watches import watch_one

log = logging.getLogger(__name__)

_SECRET = msgspec.json.Decoder(Secret)
_ASK_AGAIN_SECONDS = 1.0


class NoCertificate(RuntimeError):
    """Asked for before any certificate was there; wait for `ServingCertificates.wait_ready`."""


class ServingCertificates:
    """Follows one Secret; safe to use from many threads.

    In a server that forks, `load_first` runs before and `start` after the fork.
    """

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        secret_name: str,
        tls_dir: str | Path,
        *,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        """Prepare; nothing is read before `load_first` or `start`.

        Args:
            client: The API server.
            namespace: Of the Secret.
            secret_name: Of the Secret, such as `nightcap-webhook-tls`.
            tls_dir: A folder in memory for keys: OpenSSL loads them from files only.
            on_change: Called after other certificates are served.
        """
        self._client = client
        self._namespace = namespace
        self._secret_name = secret_name
        self._tls_dir = Path(tls_dir)
        self._on_change = on_change
        self._served: ServedContexts | None = None
        self._loaded = threading.Event()
        self._reflector: Reflector[Secret] | None = None
        self.swaps = 0
        """How many times other certificates came."""
        self.failures = 0
        """How many times a Secret came that could not be served; the last good one stayed."""

    def load_first(self, timeout: float | None = None) -> bool:
        """Block until a certificate is there; whether it came. Uses no thread."""
        deadline = None if timeout is None else time.monotonic() + timeout
        said = ""
        while not self._loaded.is_set():
            problem = self._try_load()
            if problem is None:
                break
            if problem != said:
                log.info("waiting for a certificate", extra={"why": problem, **self._where()})
                said = problem
            if deadline is not None and time.monotonic() > deadline:
                return False
            time.sleep(_ASK_AGAIN_SECONDS)
        return True

    def start(self) -> None:
        """Begin to follow the Secret, in a thread of this process."""
        if self._reflector is not None:
            return
        if self._loaded.is_set() and (problem := self._try_load()) is not None:
            # What was loaded before a fork can be old: a worker may start again after months.
            log.warning("certificate not read again", extra={"why": problem, **self._where()})
        self._reflector = watch_one(
            self._client,
            paths.secrets(self._namespace),
            Secret,
            self._secret_name,
            on_change=self._follow,
        )
        self._reflector.start()

    def stop(self) -> None:
        if self._reflector is not None:
            self._reflector.stop()

    def wait_ready(self, timeout: float) -> bool:
        """Wait until a certificate is there; whether it came within `timeout` seconds."""
        return self._loaded.wait(timeout)

    @property
    def ready(self) -> bool:
        """Whether there is a certificate that has not expired."""
        return self._served is not None and time.time() < self.expires_at

    @property
    def expires_at(self) -> float:
        """When the certificate that is served by default ends, epoch seconds; 0 without one."""
        return self._served.pair.facts.expires_at if self._served else 0.0

    @property
    def generation(self) -> int:
        """The root that new sidecars are to pin.

        Raises:
            NoCertificate: Before the first certificate.
        """
        return self._now().generation

    def ca_pem(self, generation: int | None = None) -> str:
        """One root, PEM: that of a generation, or the one that new sidecars are to pin.

        Raises:
            NoCertificate: If there is none of that generation.
        """
        served = self._now()
        wanted = served.generation if generation is None else generation
        pair = served.bundle.pairs.get(wanted)
        if pair is None or not pair.ca:
            raise NoCertificate(f"{self._secret_name} has no root of generation {wanted}")
        return pair.ca

    @property
    def ca_bundle(self) -> str:
        """Every living root, PEM, newest first."""
        return self._now().bundle.ca_bundle

    def context(self) -> ssl.SSLContext:
        """The context for the next handshake; answers `g{N}.collector.…` with generation N.

        Raises:
            NoCertificate: Before the first certificate.
        """
        return self._now().default

    @property
    def file(self) -> Path:
        """Key and chain of the default generation; gunicorn wants to see a file."""
        return self._tls_dir / f"g{self.generation}.pem"

    def _now(self) -> ServedContexts:
        if self._served is None:
            raise NoCertificate(f"no certificate yet from Secret {self._secret_name}")
        return self._served

    def _try_load(self) -> str | None:
        """Load the Secret once; the reason if that failed."""
        path = paths.secret(self._namespace, self._secret_name)
        try:
            self._take(_SECRET.decode(self._client.request("GET", path, timeout=(5, 10))))
        except (ApiError, BadBundle, msgspec.DecodeError, OSError) as error:
            return str(error)
        return None

    def _follow(self, change: Change[Secret]) -> None:
        if change.kind == "deleted":
            log.warning("certificate secret deleted, the last one stays", extra=self._where())
            return
        try:
            self._take(change.object)
        except (BadBundle, OSError) as error:
            self.failures += 1
            log.warning(
                "certificate not usable, the last one stays",
                extra={"why": str(error), **self._where()},
            )

    def _take(self, secret: Secret) -> None:
        bundle = bundle_of(secret.data)
        if self._served is not None and self._served.bundle == bundle:
            return
        self._served = contexts_of(bundle, self._tls_dir)
        self.swaps += self._loaded.is_set()
        self._loaded.set()
        facts = self._served.pair.facts
        log.info(
            "certificate loaded",
            extra={
                "generation": self._served.generation,
                "generations": sorted(bundle.pairs),
                "expires_at": facts.expires_at,
                "faults": list(bundle.faults),
                **self._where(),
            },
        )
        if self._on_change is not None:
            self._on_change()

    def _where(self) -> dict[str, str]:
        return {"secret": f"{self._namespace}/{self._secret_name}"}


def serve(
    app: Any,
    *,
    port: int,
    certificates: ServingCertificates,
    threads: int = 32,
    on_start: Callable[[], None] | None = None,
    on_stop: Callable[[], None] | None = None,
    draining: threading.Event | None = None,
    drain_seconds: float = 5.0,
    graceful_seconds: float = 30.0,
    max_connections: int = 4096,
    address: str | None = None,
    plain: PlainApp | None = None,
) -> None:
    """Serve a WSGI application over TLS until SIGTERM; never returns, raises SystemExit.

    Waits for the first certificate before it listens. The application runs in one worker
    process; everything with a thread (watches, metrics) begins in `on_start`, which runs
    in that process before it accepts; `certificates` are started there, too.

    Args:
        app: The WSGI callable; made before the fork, so it may not hold threads.
        port: To listen on.
        certificates: Not started.
        threads: How many requests at a time.
        on_start: Runs in the worker, before the first request.
        on_stop: Runs in the worker, after the last request.
        draining: Set at SIGTERM; `/readyz` is to say no from then on.
        drain_seconds: How long to go on accepting after SIGTERM, while endpoints go away.
        graceful_seconds: How long requests in flight may then take.
        max_connections: Kept-alive connections and requests together.
        address: To listen on; by default every address, of both families if there are two.
        plain: Answers plain requests on the short way; see `certs.plain`.
    """
    # The first process of a container ignores SIGTERM unless it says otherwise.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    certificates.load_first()

    def begin() -> None:
        certificates.start()
        if on_start is not None:
            on_start()

    def end() -> None:
        if on_stop is not None:
            on_stop()
        certificates.stop()

    options = ServerOptions(
        port=port,
        address=address,
        threads=threads,
        max_connections=max_connections,
        drain_seconds=drain_seconds,
        graceful_seconds=graceful_seconds,
        certificate_file=str(certificates.file),
        ssl_context=certificates.context,
        on_start=begin,
        on_stop=end,
        draining=draining or threading.Event(),
        plain=plain,
    )
    run_server(app, options)
