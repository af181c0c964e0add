"""TLS clients and Secrets for tests."""

import socket
import ssl
import time

from certs.bundle import Bundle, Pair, data_of
from certs.issue import new_leaf, new_root
from nightcap.contract.paths import collector_name
from nightcap.kube import paths
from tests.unit.kube.small_api import SmallApi

NAMESPACE = "nightcap-system"
SECRET = "nightcap-retrieval-tls"
SECRET_PATH = paths.secret(NAMESPACE, SECRET)


def a_bundle(roots: dict[int, Pair], current: int) -> Bundle:
    """One leaf under each root, as the certificate loop would write them."""
    now = time.time()
    return Bundle(
        pairs={n: new_leaf(r, ["localhost", collector_name(n)], now) for n, r in roots.items()},
        current=current,
        ca_bundle="".join(roots[n].certificate for n in sorted(roots, reverse=True)),
        seen=frozenset(roots),
    )


def some_roots(*generations: int) -> dict[int, Pair]:
    return {n: new_root(n, time.time()) for n in generations}


def put_secret(api: SmallApi, bundle: Bundle) -> None:
    api.put(SECRET_PATH, data=data_of(bundle))


def trusting(*roots: Pair) -> ssl.SSLContext:
    return ssl.create_default_context(cadata="".join(root.certificate for root in roots))


def serial_shown(
    port: int, context: ssl.SSLContext, name: str = "localhost"
) -> tuple[str, str | None]:
    """Shake hands; the serial of the server's certificate and the TLS version."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=name) as connection,
    ):
        return str((connection.getpeercert() or {})["serialNumber"]), connection.version()
