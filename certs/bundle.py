"""What the certificate Secrets hold, as values; knows the layout, not the API server.

One *generation* is one root. Secret `nightcap-ca` holds `g{N}.crt` and `g{N}.key` of each
living root, the Secrets of servers `g{N}.crt` (leaf), `g{N}.key` and `g{N}.ca.crt` (the
root that signed it), and `ca.crt`, all living roots, newest first. `current` is the
generation to use by default and to pin in new sidecars.

A Secret of the type `kubernetes.io/tls`, as cert-manager writes it, is read as one generation.
"""

import base64
import binascii
import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

BACKDATED_SECONDS: Final = 3600
"""How far back `notBefore` lies, for clocks that are late; not part of the life."""

CA_BUNDLE: Final = "ca.crt"
CURRENT: Final = "current"
_PLAIN: Final = {"tls.crt": "g1.crt", "tls.key": "g1.key", CA_BUNDLE: "g1.ca.crt"}
"""Keys of a Secret of the type `kubernetes.io/tls`, and what they are called in ours."""
_GENERATION_KEY = re.compile(r"g([1-9][0-9]{0,8})\.(crt|key|ca\.crt|published)")


class BadBundle(ValueError):
    """A Secret without a certificate that a server could use; says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a certificate says of itself; times in epoch seconds.

    Attributes:
        issued_at: When it was made: `notBefore` without the backdating.
        expires_at: `notAfter`.
        names: DNS names and addresses.
        key_id: Subject key identifier, hex.
        issuer_key_id: Authority key identifier, hex.
    """

    issued_at: float
    expires_at: float
    names: frozenset[str]
    key_id: str
    issuer_key_id: str


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its key, both PEM, and the root it hangs on ('' for a root)."""

    certificate: str
    key: str = field(repr=False)
    facts: Facts
    ca: str = ""


@dataclass(frozen=True, slots=True)
class Bundle:
    """One Secret, understood.

    Attributes:
        pairs: By generation; only those whose certificate and key fit together.
        current: The default generation; 0 if the Secret names none.
        ca_bundle: All roots to trust, PEM, newest first.
        published_at: When each generation's root was first seen in every bundle.
        seen: Every generation the Secret mentions, also damaged ones.
        faults: What could not be understood, a sentence each.
    """

    pairs: Mapping[int, Pair]
    current: int = 0
    ca_bundle: str = ""
    published_at: Mapping[int, float] = field(default_factory=dict)
    seen: frozenset[int] = frozenset()
    faults: tuple[str, ...] = ()

    def with_pair(self, generation: int, pair: Pair) -> "Bundle":
        return replace(
            self,
            pairs={**self.pairs, generation: pair},
            seen=self.seen | {generation},
        )

    def without(self, generation: int) -> "Bundle":
        """Forget a generation; nothing of it stays in the Secret."""
        return replace(
            self,
            pairs={n: pair for n, pair in self.pairs.items() if n != generation},
            published_at={n: at for n, at in self.published_at.items() if n != generation},
            seen=self.seen - {generation},
        )


EMPTY: Final = Bundle(pairs={})


def bundle_of(data: Mapping[str, str] | None) -> Bundle:
    """Understand the `data` of a Secret (values base64).

    Damage is reported and not raised: one broken generation must not take the others down.
    """
    texts: dict[str, str] = {}
    faults: list[str] = []
    data = _as_ours(data or {})
    for key, value in data.items():
        try:
            texts[key] = base64.b64decode(value, validate=True).decode("ascii")
        except (binascii.Error, ValueError):
            faults.append(f"{key} is not base64 of text")
    seen = {int(match[1]) for key in data if (match := _GENERATION_KEY.fullmatch(key))}
    pairs: dict[int, Pair] = {}
    for n in sorted(seen):
        try:
            pairs[n] = pair_of(
                texts.get(f"g{n}.crt", ""),
                texts.get(f"g{n}.key", ""),
                texts.get(f"g{n}.ca.crt", ""),
            )
        except BadBundle as error:
            faults.append(f"g{n}: {error}")
    published = {n: _number(texts.get(f"g{n}.published", "")) for n in seen}
    return Bundle(
        pairs=pairs,
        current=int(_number(texts.get(CURRENT, "")) or 0),
        ca_bundle=texts.get(CA_BUNDLE, ""),
        published_at={n: at for n, at in published.items() if at is not None},
        seen=frozenset(seen),
        faults=tuple(faults),
    )


def _as_ours(data: Mapping[str, str]) -> Mapping[str, str]:
    if "tls.crt" not in data or any(_GENERATION_KEY.fullmatch(key) for key in data):
        return data
    renamed = {ours: data[theirs] for theirs, ours in _PLAIN.items() if theirs in data}
    one = base64.b64encode(b"1").decode()
    return {**renamed, CURRENT: one, CA_BUNDLE: data.get(CA_BUNDLE, "")}


def data_of(bundle: Bundle) -> dict[str, str]:
    """The `data` of a Secret (values base64) for a bundle."""
    texts: dict[str, str] = {CURRENT: str(bundle.current)} if bundle.current else {}
    if bundle.ca_bundle:
        texts[CA_BUNDLE] = bundle.ca_bundle
    for n, pair in bundle.pairs.items():
        texts[f"g{n}.crt"] = pair.certificate
        texts[f"g{n}.key"] = pair.key
        if pair.ca:
            texts[f"g{n}.ca.crt"] = pair.ca
    for n, at in bundle.published_at.items():
        if n in bundle.pairs:
            texts[f"g{n}.published"] = f"{at:.3f}"
    return {key: base64.b64encode(text.encode()).decode() for key, text in sorted(texts.items())}


def pair_of(certificate: str, key: str, ca: str = "") -> Pair:
    """Read a certificate and its key.

    Raises:
        BadBundle: If one is missing or no PEM, or the key is another certificate's.
    """
    if not certificate or not key:
        raise BadBundle("certificate or key is missing")
    try:
        parsed = x509.load_pem_x509_certificate(certificate.encode())
        facts = _facts_of(parsed)
        private = load_pem_private_key(key.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise BadBundle(f"not a certificate and key in PEM: {error}") from error
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*form) != parsed.public_key().public_bytes(*form):
        raise BadBundle("the key belongs to another certificate")
    return Pair(certificate, key, facts, ca)


def facts_of(certificate: str) -> Facts:
    """What a PEM certificate says of itself.

    Raises:
        BadBundle: If it is none.
    """
    try:
        return _facts_of(x509.load_pem_x509_certificate(certificate.encode()))
    except ValueError as error:
        raise BadBundle(f"not a certificate in PEM: {error}") from error


def _facts_of(certificate: x509.Certificate) -> Facts:
    extensions = certificate.extensions
    names = set()
    key_id = issuer = b""
    # Issuers other than ours may leave any of these out.
    with contextlib.suppress(x509.ExtensionNotFound):
        key_id = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    with contextlib.suppress(x509.ExtensionNotFound):
        found = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        issuer = found.key_identifier or b""
    with contextlib.suppress(x509.ExtensionNotFound):
        alternatives = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = {str(name.value) for name in alternatives}
    return Facts(
        issued_at=certificate.not_valid_before_utc.timestamp() + BACKDATED_SECONDS,
        expires_at=certificate.not_valid_after_utc.timestamp(),
        names=frozenset(names),
        key_id=key_id.hex(),
        issuer_key_id=issuer.hex(),
    )


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number < 1e12 else None
