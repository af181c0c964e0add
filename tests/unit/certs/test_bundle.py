import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from certs.bundle import BadBundle, Bundle, bundle_of, data_of, facts_of, pair_of
from certs.issue import new_leaf, new_root

NOW = 1_795_000_000.0


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    roots = {n: new_root(n, NOW) for n in (1, 2)}
    return Bundle(
        pairs={n: new_leaf(root, ["localhost"], NOW) for n, root in roots.items()},
        current=2,
        ca_bundle=roots[2].certificate + roots[1].certificate,
        published_at={1: NOW, 2: NOW + 0.125},
        seen=frozenset({1, 2}),
    )


def test_secret_and_back_is_the_same(bundle: Bundle) -> None:
    data = data_of(bundle)
    assert sorted(data) == [
        "ca.crt",
        "current",
        *("g1.ca.crt", "g1.crt", "g1.key", "g1.published"),
        *("g2.ca.crt", "g2.crt", "g2.key", "g2.published"),
    ]
    assert bundle_of(data) == bundle


def test_forgotten_generation_leaves_nothing_behind(bundle: Bundle) -> None:
    assert not [key for key in data_of(bundle.without(1)) if key.startswith("g1.")]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("g1.crt", "not base64!"),
        ("g1.crt", base64.b64encode(b"not pem").decode()),
        ("g1.key", base64.b64encode(b"\xff\xfe").decode()),
        ("g1.key", ""),
    ],
)
def test_damaged_generation_is_a_fault_and_the_other_one_stays(
    bundle: Bundle, key: str, value: str
) -> None:
    read = bundle_of({**data_of(bundle), key: value})
    assert set(read.pairs) == {2}
    assert read.seen == {1, 2}
    assert any("g1" in fault for fault in read.faults)


def test_key_of_another_certificate_is_a_fault(bundle: Bundle) -> None:
    with pytest.raises(BadBundle, match="another certificate"):
        pair_of(bundle.pairs[1].certificate, bundle.pairs[2].key)


@pytest.mark.parametrize("current", ["", "x", "-1", "1e99", "nan"])
def test_current_that_is_no_number_is_none(bundle: Bundle, current: str) -> None:
    encoded = base64.b64encode(current.encode()).decode()
    assert bundle_of({**data_of(bundle), "current": encoded}).current == 0


def test_nothing_is_an_empty_bundle() -> None:
    assert bundle_of(None).pairs == {}
    assert bundle_of({}).pairs == {}


def test_keys_are_not_in_what_is_printed(bundle: Bundle) -> None:
    assert "PRIVATE" not in repr(bundle)


def test_text_that_is_no_certificate_has_no_facts() -> None:
    with pytest.raises(BadBundle):
        facts_of("hello")


def test_a_secret_as_cert_manager_writes_it_is_one_generation() -> None:
    root = new_root(7, NOW)
    leaf = new_leaf(root, ["webhook.example.svc"], NOW)
    data = {"tls.crt": leaf.certificate, "tls.key": leaf.key, "ca.crt": root.certificate}
    bundle = bundle_of({k: base64.b64encode(v.encode()).decode() for k, v in data.items()})
    assert (bundle.current, set(bundle.pairs), bundle.faults) == (1, {1}, ())
    assert bundle.pairs[1].ca == bundle.ca_bundle == root.certificate
    assert bundle.pairs[1].facts == leaf.facts


def test_a_certificate_without_key_identifiers_is_read_all_the_same() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "webhook")])
    at = datetime.fromtimestamp(NOW, UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(at).not_valid_after(at + timedelta(days=1))
    signed = builder.sign(key, hashes.SHA256())
    facts = facts_of(signed.public_bytes(Encoding.PEM).decode())
    assert (facts.key_id, facts.issuer_key_id, facts.names) == ("", "", frozenset())
    assert facts.expires_at == NOW + 86400
