"""Tokens as the API server would sign them."""

import base64
import json
import time

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.apiserver.private import PrivateApi


def signed_anew(api: PrivateApi, token: str, expires_in: float) -> str:
    """The same token with another end, signed by the API server's own key."""
    head, claims, _ = token.split(".")
    said = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    said["exp"] = int(time.time() + expires_in)
    said["iat"] = said["nbf"] = said["exp"] - 3600
    signed = f"{head}.{_base64(json.dumps(said).encode())}"
    key = load_pem_private_key((api.folder / "service-account.key").read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(SHA256())))
    return f"{signed}.{_base64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
