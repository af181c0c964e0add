"""The files program, put together."""

import threading

from certs.serving import ServingCertificates, serve
from nightcap.kube.client import KubeClient
from nightcap.kube.groups import GroupProbe
from nightcap.kube.metrics import start_metrics
from retrieval import metrics
from retrieval.audit import Auditor, setup_audit
from retrieval.files.app import create_app
from retrieval.files.people import People
from retrieval.settings import THREADS, Settings
from retrieval.store.opening import open_readable, open_record


def run(settings: Settings) -> None:
    """Serve until SIGTERM."""
    client = KubeClient.from_environment()
    certificates = ServingCertificates(
        client, settings.namespace, settings.serving_secret, settings.tls_dir / "files"
    )
    calico = GroupProbe(client)
    draining = threading.Event()
    setup_audit()
    app = create_app(
        open_readable(settings.store),
        People(client, has_calico=lambda: calico.is_ours),
        Auditor(keep=open_record(settings.audit)),
        lambda: certificates.ready and not draining.is_set(),
    )

    def begin() -> None:
        metrics.CERTIFICATE_EXPIRY.set_function(lambda: certificates.expires_at)
        start_metrics(settings.metrics_port)
        calico.start()

    serve(
        app,
        port=settings.port,
        certificates=certificates,
        threads=THREADS,
        on_start=begin,
        on_stop=calico.stop,
        draining=draining,
    )
