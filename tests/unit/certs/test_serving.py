"""Certificates that follow a Secret, proved by real handshakes on loopback."""

import contextlib
import socket
import ssl
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from certs.bundle import Bundle, data_of
from certs.contexts import generation_of_name
from certs.issue import new_leaf, new_root
from certs.serving import NoCertificate, ServingCertificates
from nightcap.contract.paths import collector_name
from tests.patience import eventually
from tests.unit.certs.tls import (
    NAMESPACE,
    SECRET,
    SECRET_PATH,
    a_bundle,
    put_secret,
    serial_shown,
    some_roots,
    trusting,
)
from tests.unit.kube.small_api import SmallApi


@pytest.fixture
def certificates(api: SmallApi, tmp_path: Path) -> Iterator[ServingCertificates]:
    following = ServingCertificates(api.client(), NAMESPACE, SECRET, tmp_path / "tls")
    yield following
    following.stop()


@pytest.fixture
def server(certificates: ServingCertificates) -> Iterator[int]:
    """Answers each connection with the context of that moment; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def shake(plain: socket.socket) -> None:
            with contextlib.suppress(OSError), plain:
                plain.settimeout(10)
                with certificates.context().wrap_socket(plain, server_side=True) as connection:
                    connection.do_handshake()
                    connection.recv(1)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=shake, args=listener.accept()[:1], daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_without_a_secret_there_is_nothing_to_serve(certificates: ServingCertificates) -> None:
    certificates.start()
    assert not certificates.wait_ready(0.2)
    assert not certificates.ready
    assert certificates.expires_at == 0
    with pytest.raises(NoCertificate, match=SECRET):
        certificates.context()


def test_first_certificate_is_awaited_without_a_thread(
    api: SmallApi, certificates: ServingCertificates
) -> None:
    before = threading.active_count()
    assert not certificates.load_first(timeout=0)
    put_secret(api, a_bundle(some_roots(1), 1))
    assert certificates.load_first(timeout=5)
    assert certificates.ready
    assert not [t for t in threading.enumerate()[before:] if "watch" in t.name]


def test_expired_certificate_is_served_and_is_no_reason_to_be_ready(
    api: SmallApi, certificates: ServingCertificates
) -> None:
    """It may be that only our clock is wrong; the endpoint is to go all the same."""
    long_ago = time.time() - 200 * 86400
    root = new_root(1, long_ago)
    leaf = new_leaf(root, ["localhost"], long_ago)
    bundle = Bundle(pairs={1: leaf}, current=1, ca_bundle=root.certificate)
    put_secret(api, bundle)
    assert certificates.load_first(timeout=5)
    assert 0 < certificates.expires_at < time.time()
    assert certificates.context()
    assert not certificates.ready


def test_client_that_trusts_the_root_is_served_and_others_refuse(
    api: SmallApi, certificates: ServingCertificates, server: int
) -> None:
    roots, strangers = some_roots(1), some_roots(1)
    put_secret(api, a_bundle(roots, 1))
    certificates.load_first()
    _, version = serial_shown(server, trusting(roots[1]))
    assert version == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError):
        serial_shown(server, trusting(strangers[1]))
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        serial_shown(server, trusting(roots[1]), "g2.collector.nightcap.internal")


def test_nothing_below_tls_1_2_is_spoken(
    api: SmallApi, certificates: ServingCertificates, server: int
) -> None:
    roots = some_roots(1)
    put_secret(api, a_bundle(roots, 1))
    certificates.load_first()
    old = trusting(roots[1])
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert serial_shown(server, old)[1] == "TLSv1.2"
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = ssl.TLSVersion.TLSv1_1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        serial_shown(server, old)


def test_sidecar_of_any_living_root_gets_the_chain_it_pinned(
    api: SmallApi, certificates: ServingCertificates, server: int
) -> None:
    roots = some_roots(1, 2, 12)
    put_secret(api, a_bundle(roots, 2))
    certificates.load_first()
    for generation, root in roots.items():
        serial_shown(server, trusting(root), collector_name(generation))
    serial_shown(server, trusting(roots[2]), "localhost")
    with pytest.raises(ssl.SSLCertVerificationError):
        serial_shown(server, trusting(roots[1]), "localhost")


def test_generation_that_is_no_longer_there_gets_the_default_and_refuses_it(
    api: SmallApi, certificates: ServingCertificates, server: int
) -> None:
    roots = some_roots(1, 2)
    put_secret(api, a_bundle({2: roots[2]}, 2))
    certificates.load_first()
    with pytest.raises(ssl.SSLCertVerificationError):
        serial_shown(server, trusting(roots[1]), collector_name(1))


def test_old_root_keeps_working_after_the_new_one_is_current(
    api: SmallApi, certificates: ServingCertificates, server: int
) -> None:
    roots = some_roots(1, 2)
    put_secret(api, a_bundle({1: roots[1]}, 1))
    certificates.start()
    assert certificates.wait_ready(5)
    assert certificates.generation == 1
    assert certificates.ca_pem() == roots[1].certificate
    put_secret(api, a_bundle(roots, 2))
    eventually(lambda: certificates.generation == 2)
    assert certificates.ca_pem() == roots[2].certificate
    assert certificates.ca_pem(1) == roots[1].certificate
    serial_shown(server, trusting(roots[1]), collector_name(1))
    serial_shown(server, trusting(roots[2]), collector_name(2))
    assert certificates.swaps == 1


def test_bad_secret_leaves_the_last_good_certificate(
    api: SmallApi, certificates: ServingCertificates, server: int
) -> None:
    roots = some_roots(1)
    put_secret(api, a_bundle(roots, 1))
    certificates.start()
    assert certificates.wait_ready(5)
    good, _ = serial_shown(server, trusting(roots[1]))
    api.put(SECRET_PATH, data={"g1.crt": "AAAA", "g1.key": "AAAA"})
    eventually(lambda: certificates.failures == 1)
    api.put(SECRET_PATH, data=None)
    eventually(lambda: certificates.failures == 2)
    api.delete(SECRET_PATH)
    assert serial_shown(server, trusting(roots[1]))[0] == good
    assert certificates.ready
    put_secret(api, a_bundle(roots, 1))
    eventually(lambda: serial_shown(server, trusting(roots[1]))[0] != good)


def test_secret_without_current_serves_its_newest(
    api: SmallApi, certificates: ServingCertificates
) -> None:
    data = data_of(a_bundle(some_roots(1, 2), 1))
    del data["current"]
    api.put(SECRET_PATH, data=data)
    certificates.load_first()
    assert certificates.generation == 2


def test_keys_on_disk_are_for_the_server_alone(
    api: SmallApi, certificates: ServingCertificates, tmp_path: Path
) -> None:
    put_secret(api, a_bundle(some_roots(1, 2), 2))
    certificates.load_first()
    files = sorted((tmp_path / "tls").iterdir())
    assert [file.name for file in files] == ["g1.pem", "g2.pem"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert certificates.file == tmp_path / "tls" / "g2.pem"


@pytest.mark.parametrize(
    ("name", "generation"),
    [
        (collector_name(1), 1),
        (collector_name(120), 120),
        ("g0.collector.nightcap.internal", None),
        ("g1collector.nightcap.internal", None),
        ("xg1.collector.nightcap.internal", None),
        ("g1" * 40 + ".collector.x", None),
        ("nightcap-collector", None),
        ("", None),
        (None, None),
    ],
)
def test_only_a_collectors_name_asks_for_a_generation(
    name: str | None, generation: int | None
) -> None:
    assert generation_of_name(name) == generation
