"""`python -m webhook`: settings, wiring, and the server."""

import os
import sys
import threading
import time
from typing import Final

from certs.serving import ServingCertificates, serve
from nightcap.contract import paths
from nightcap.kube.client import KubeClient
from nightcap.kube.logs import setup_logging
from nightcap.kube.metrics import start_metrics
from nightcap.pcap.bounded import check_filter
from webhook.cache import ClusterCache
from webhook.handlers import AnnotationHandler, CaptureHandler, FilterCheck, Handler, PodHandler
from webhook.injection import Template
from webhook.metrics import Metrics
from webhook.server import AdmissionApp, status_app
from webhook.settings import BadSettings, Settings
from webhook.shape import Level

SECRET: Final = "nightcap-webhook-tls"  # noqa: S105 - the name of a Secret


def main() -> int:
    """Serve until told to stop."""
    log = setup_logging("webhook")
    try:
        settings = Settings.from_environ(os.environ)
    except BadSettings as error:
        log.critical("settings refused", extra={"why": str(error)})
        return 2
    client = KubeClient.from_environment()
    cache = ClusterCache(client, settings.namespace)
    certificates = ServingCertificates(client, settings.namespace, SECRET, settings.tls_dir)
    draining = threading.Event()
    metrics = Metrics()
    metrics.watch_certificate(lambda: certificates.expires_at)

    def missing() -> tuple[str, ...]:
        """What stands between this replica and being ready."""
        return (
            *cache.missing,
            *(() if certificates.ready else ("a valid certificate",)),
            *(("the next one: this one is going",) if draining.is_set() else ()),
        )

    def start() -> None:
        cache.start()
        start_metrics(settings.metrics_port, metrics.registry)

    app = AdmissionApp(
        handlers(settings, cache, certificates), status_app(missing).wsgi_app, metrics
    )
    serve(
        app,
        port=settings.listen_port,
        certificates=certificates,
        threads=settings.threads,
        on_start=start,
        on_stop=cache.stop,
        draining=draining,
        plain=app.plain,
    )
    return 0


def handlers(
    settings: Settings, cache: ClusterCache, certificates: ServingCertificates
) -> dict[str, Handler]:
    """Path → handler, for every path that a webhook configuration may name."""

    def template() -> Template:
        generation = certificates.generation
        return Template(
            image=settings.sidecar_image,
            release=settings.release,
            collector_name=paths.collector_name(generation),
            collector_ca=certificates.ca_pem(generation),
            spool_size=settings.spool_size,
            spool_bytes=settings.spool_bytes,
            wait=settings.wait,
        )

    pods = PodHandler(
        cache, template, settings.sizes, own_namespace=settings.namespace, clock=time.time
    )
    compiling = FilterCheck(check_filter)
    mutating = {f"/mutate/{level}": pods.at(level) for level in Level}
    return {
        **mutating,
        "/validate": CaptureHandler(compiling, cache, time.time),
        "/warn": AnnotationHandler(compiling),
    }


if __name__ == "__main__":
    sys.exit(main())
