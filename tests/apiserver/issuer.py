"""A small OpenID Connect issuer: what an API server reads of one, and tokens signed by it.

There is no login: who a token is for is said by the test.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from tests.apiserver.private import LOOPBACK
from tests.cluster.certificates import Authority, Identity

AUDIENCE = "nightcap-people"
_KEY_ID = "first"


class Issuer:
    """Serves its discovery document and its key over TLS, until it is closed."""

    def __init__(self, authority: Authority) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        certificate, key = authority.issue(
            Identity("issuer", "issuer", names=("localhost",), addresses=(LOOPBACK,))
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://localhost:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def token(self, user: str, *groups: str, lives_seconds: float = 600) -> str:
        """An ID token for somebody, RS256."""
        now = int(time.time())
        claims = {
            "iss": self.url, "aud": AUDIENCE, "sub": user, "groups": list(groups),
            "iat": now, "exp": int(now + lives_seconds),
        }  # fmt: skip
        head = {"alg": "RS256", "kid": _KEY_ID, "typ": "JWT"}
        signed = ".".join(_base64(json.dumps(part).encode()) for part in (head, claims))
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), SHA256())
        return f"{signed}.{_base64(signature)}"

    def _documents(self) -> dict[str, dict[str, Any]]:
        numbers = self._key.public_key().public_numbers()
        key = {
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": _KEY_ID,
            "n": _base64(numbers.n.to_bytes(256, "big")), "e": _base64(b"\x01\x00\x01"),
        }  # fmt: skip
        discovery = {
            "issuer": self.url, "jwks_uri": f"{self.url}/keys",
            "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }  # fmt: skip
        return {"/.well-known/openid-configuration": discovery, "/keys": {"keys": [key]}}

    def _handler(issuer) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - two selfs
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                document = issuer._documents().get(self.path)
                body = json.dumps(document).encode()
                self.send_response(404 if document is None else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
