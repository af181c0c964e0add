"""Whose token it is: sidecars' reviews, remembered until the token expires, 5 minutes at most.

A yes is remembered longer than a person's because it costs no one anything: the token is
bound to a pod and good for one thing. A no is remembered for a moment only: a new pod's
token is a stranger to an API server that has not heard of the pod yet.
"""

import base64
import binascii
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec

from nightcap.kube.reviews import Identity

YES_SECONDS: Final = 300.0
NO_SECONDS: Final = 2.0
_MAX_CACHED: Final = 65536


class _Claims(msgspec.Struct):
    exp: float | None = None


class SidecarTokens:
    """Answers of the API server about tokens, by their hash."""

    def __init__(self, review: Callable[[str], Identity | None]) -> None:
        """Take the function that asks the API server; it raises ApiError when it cannot."""
        self._review = review
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, tuple[float, Identity | None]] = OrderedDict()

    def identity(self, token: str, now: float) -> Identity | None:
        """Whose token it is; None for nobody's.

        Raises:
            ApiError: the API server cannot be asked.
        """
        key = hashlib.sha256(token.encode()).digest()
        with self._lock:
            good_until, identity = self._known.get(key, (0.0, None))
        if now < good_until:
            return identity
        identity = self._review(token)
        with self._lock:
            self._known[key] = (_good_until(token, identity, now), identity)
            self._known.move_to_end(key)
            while len(self._known) > _MAX_CACHED:
                self._known.popitem(last=False)
        return identity


def _good_until(token: str, identity: Identity | None, now: float) -> float:
    if identity is None:
        return now + NO_SECONDS
    expires_at = expiry(token)
    latest = now + YES_SECONDS
    return latest if expires_at is None else min(latest, expires_at)


def expiry(token: str) -> float | None:
    """When a token says that it expires, seconds since the epoch.

    To be asked only of a token that the API server has called good: nothing is verified here.
    """
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        return msgspec.json.decode(claims, type=_Claims).exp
    except (binascii.Error, ValueError, msgspec.DecodeError):
        return None
