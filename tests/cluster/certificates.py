"""The cluster's own certificate authority and what it signs; made anew for each boot."""

from __future__ import annotations

import base64
import datetime as dt
import json
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFE = dt.timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a certificate speaks for: Kubernetes reads the user from CN and the groups from O."""

    file_name: str
    user: str
    groups: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    addresses: tuple[IPv4Address, ...] = ()


class Authority:
    """A certificate authority that writes what it issues into one folder."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = folder / f"{name}.crt"
        self.file.write_bytes(_pem(self._own_certificate()))

    def write_key(self) -> Path:
        """Write the authority's own key, for a program that signs on its behalf."""
        return write_key(self.file.with_suffix(".key"), self._key)

    def issue(self, identity: Identity) -> tuple[Path, Path]:
        """Sign a certificate for client and server use; returns its file and its key's file."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._leaf(identity, key.public_key())
        certificate_file = self._folder / f"{identity.file_name}.crt"
        certificate_file.write_bytes(_pem(certificate))
        return certificate_file, write_key(self._folder / f"{identity.file_name}.key", key)

    def _own_certificate(self) -> x509.Certificate:
        return (
            _builder(self._name, self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )

    def _leaf(self, identity: Identity, key: ec.EllipticCurvePublicKey) -> x509.Certificate:
        subject = x509.Name(
            [
                *(x509.NameAttribute(NameOID.ORGANIZATION_NAME, o) for o in identity.groups),
                x509.NameAttribute(NameOID.COMMON_NAME, identity.user),
            ]
        )
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = (
            _builder(subject, self._name, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        alternatives = [
            *(x509.DNSName(name) for name in identity.names),
            *(x509.IPAddress(address) for address in identity.addresses),
        ]
        if alternatives:
            builder = builder.add_extension(
                x509.SubjectAlternativeName(alternatives), critical=False
            )
        return builder.sign(self._key, hashes.SHA256())


def write_key(file: Path, key: ec.EllipticCurvePrivateKey) -> Path:
    """Write a private key that its owner alone can read; returns the file."""
    file.touch(mode=0o600)
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    return file


def write_signing_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """Make the key pair that signs service account tokens; returns public and private file."""
    key = ec.generate_private_key(ec.SECP256R1())
    public_file = folder / f"{name}.pub"
    public_file.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return public_file, write_key(folder / f"{name}.key", key)


def kubeconfig(server: str, authority: Path, certificate: Path, key: Path) -> str:
    """A kubeconfig with everything inside, so that it can be copied. JSON is YAML too."""

    def inline(file: Path) -> str:
        return base64.b64encode(file.read_bytes()).decode()

    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "nightcap",
            "clusters": [
                {
                    "name": "nightcap",
                    "cluster": {"server": server, "certificate-authority-data": inline(authority)},
                }
            ],
            "users": [
                {
                    "name": "nightcap",
                    "user": {
                        "client-certificate-data": inline(certificate),
                        "client-key-data": inline(key),
                    },
                }
            ],
            "contexts": [
                {"name": "nightcap", "context": {"cluster": "nightcap", "user": "nightcap"}}
            ],
        },
        indent=2,
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # A minute back: the clock of whoever checks may be a little behind.
        .not_valid_before(now - dt.timedelta(minutes=1))
        .not_valid_after(now + LIFE)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
