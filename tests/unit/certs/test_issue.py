"""What is issued, judged by an independent verifier and by OpenSSL's rules."""

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from certs.bundle import Pair
from certs.issue import new_leaf, new_root

NOW = 1_795_000_000.5
NAMES = ("nightcap-webhook.nightcap-system.svc", "localhost", "127.0.0.1", "::1")


def parsed(pair: Pair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate.encode())


def verify(leaf: Pair, root: Pair, name: str, at: float = NOW) -> list[x509.Certificate]:
    subject: x509.general_name.GeneralName = x509.DNSName(name)
    builder = PolicyBuilder().store(Store([parsed(root)])).time(datetime.fromtimestamp(at, UTC))
    return builder.build_server_verifier(subject).verify(parsed(leaf), [])  # type: ignore[arg-type]


def test_leaf_is_valid_under_its_root_for_its_names() -> None:
    root = new_root(1, NOW)
    leaf = new_leaf(root, NAMES, NOW)
    assert len(verify(leaf, root, NAMES[0])) == 2
    assert leaf.facts.names == frozenset(NAMES)
    with pytest.raises(VerificationError):
        verify(leaf, root, "example.com")


def test_leaf_is_not_valid_under_another_root_of_the_same_name() -> None:
    leaf = new_leaf(new_root(1, NOW), NAMES, NOW)
    with pytest.raises(VerificationError):
        verify(leaf, new_root(1, NOW), NAMES[0])


@pytest.mark.parametrize(
    ("late", "valid"), [(-3599, True), (-3602, False), (90 * 86400 - 5, True), (91 * 86400, False)]
)
def test_leaf_is_valid_from_an_hour_ago_to_ninety_days_ahead(late: float, valid: bool) -> None:
    root = new_root(1, NOW - 86400)
    leaf = new_leaf(root, NAMES, NOW)
    if valid:
        verify(leaf, root, NAMES[0], NOW + late)
    else:
        with pytest.raises(VerificationError):
            verify(leaf, root, NAMES[0], NOW + late)


def test_leaf_does_not_outlive_its_root() -> None:
    root = new_root(1, NOW, life_seconds=100)
    assert new_leaf(root, NAMES, NOW + 50).facts.expires_at == root.facts.expires_at


def test_leaf_can_be_used_by_a_server_and_for_nothing_else() -> None:
    certificate = parsed(new_leaf(new_root(1, NOW), NAMES, NOW))
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert not constraints.value.ca
    key_usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert key_usage.digital_signature
    assert not key_usage.key_cert_sign


def test_root_signs_leaves_and_no_further_authorities() -> None:
    certificate = parsed(new_root(3, NOW))
    assert certificate.subject.rfc4514_string() == "CN=Nightcap root g3"
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)


def test_keys_are_p256_and_serials_are_random() -> None:
    root = new_root(1, NOW)
    leaves = [new_leaf(root, NAMES, NOW) for _ in range(8)]
    certificates = [parsed(pair) for pair in [root, *leaves]]
    assert len({certificate.serial_number for certificate in certificates}) == 9
    for certificate in certificates:
        key = certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert isinstance(key.curve, ec.SECP256R1)


def test_identifiers_tie_a_leaf_to_its_root() -> None:
    root = new_root(1, NOW)
    leaf = new_leaf(root, NAMES, NOW)
    assert leaf.facts.issuer_key_id == root.facts.key_id == root.facts.issuer_key_id
    assert leaf.facts.key_id != root.facts.key_id
    assert leaf.facts.issued_at == pytest.approx(NOW, abs=1)
