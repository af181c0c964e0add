"""Make roots and leaves: ECDSA P-256, random serials, valid from one hour ago.

**Lives.** A root lives ten years, a leaf ninety days. A root must live long because
sidecars pin it: a pod injected on the last day of a root's first two thirds must reach the
collector for as long as it runs, and the last third of ten years (three years and four
months) is longer than pods live. What a stolen root key could do is bounded by who trusts
it, the API server for our webhooks and our own clients for our own names, and not by its
date. A leaf's key lies in a Secret that pods read: it is short-lived, as nothing but the
server itself depends on it.
"""

import ipaddress
import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.bundle import BACKDATED_SECONDS, Pair, pair_of

ROOT_SECONDS: Final = 3650 * 86400.0
LEAF_SECONDS: Final = 90 * 86400.0
_MAX_COMMON_NAME: Final = 64


def new_root(generation: int, now: float, life_seconds: float = ROOT_SECONDS) -> Pair:
    """A self-signed root that may sign leaves and nothing else."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"Nightcap root g{generation}")
    builder = _builder(name, name, key.public_key(), now, now + life_seconds)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
    )
    return _pair(builder, key, key, ca="")


def new_leaf(
    root: Pair, names: Iterable[str], now: float, life_seconds: float = LEAF_SECONDS
) -> Pair:
    """A server certificate under a root; it does not outlive the root.

    Args:
        root: Who signs.
        names: DNS names and IP addresses to be valid for.
        now: Epoch seconds.
        life_seconds: How long it is to be valid.
    """
    wanted = sorted(names)
    root_certificate = x509.load_pem_x509_certificate(root.certificate.encode())
    root_key = load_pem_private_key(root.key.encode(), password=None)
    if not isinstance(root_key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"a root's key is {type(root_key).__name__}; ours are elliptic curve keys")
    key = ec.generate_private_key(ec.SECP256R1())
    expires_at = min(now + life_seconds, root.facts.expires_at)
    builder = _builder(
        _name(wanted[0]), root_certificate.subject, key.public_key(), now, expires_at
    )
    alternatives = x509.SubjectAlternativeName([_alternative(name) for name in wanted])
    builder = builder.add_extension(alternatives, critical=False)
    builder = builder.add_extension(
        x509.BasicConstraints(ca=False, path_length=None), critical=True
    )
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
    )
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False
    )
    return _pair(builder, key, root_key, ca=root.certificate)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    now: float,
    expires_at: float,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_time(math.floor(now) - BACKDATED_SECONDS))
        .not_valid_after(_time(math.ceil(expires_at)))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _pair(
    builder: x509.CertificateBuilder,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    ca: str,
) -> Pair:
    certificate = builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return pair_of(certificate, private, ca)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:_MAX_COMMON_NAME])])


def _time(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
