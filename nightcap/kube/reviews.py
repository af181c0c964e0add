"""Who a token belongs to and what that one may do, as the API server answers it."""

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from nightcap.kube import paths
from nightcap.kube.client import KubeClient

_POD_NAME = "authentication.kubernetes.io/pod-name"
_POD_UID = "authentication.kubernetes.io/pod-uid"
_SERVICE_ACCOUNT = "system:serviceaccount:"
_MAX_CACHED = 4096


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody whom the API server knows."""

    username: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def pod_name(self) -> str | None:
        """The pod that the token is bound to."""
        return self._single(_POD_NAME)

    @property
    def pod_uid(self) -> str | None:
        """The uid of the pod that the token is bound to."""
        return self._single(_POD_UID)

    @property
    def namespace(self) -> str | None:
        """The namespace, if this is a service account."""
        if not self.username.startswith(_SERVICE_ACCOUNT):
            return None
        namespace, colon, name = self.username.removeprefix(_SERVICE_ACCOUNT).partition(":")
        return namespace if namespace and colon and name else None

    def _single(self, key: str) -> str | None:
        values = self.extra.get(key, ())
        return values[0] if len(values) == 1 and values[0] else None


class _User(msgspec.Struct, frozen=True):
    username: str = ""
    uid: str = ""
    groups: tuple[str, ...] | None = None
    extra: dict[str, tuple[str, ...]] | None = None


class _TokenStatus(msgspec.Struct, frozen=True):
    authenticated: bool = False
    user: _User = _User()
    audiences: tuple[str, ...] | None = None


class _TokenReview(msgspec.Struct, frozen=True):
    status: _TokenStatus = _TokenStatus()


class _AccessStatus(msgspec.Struct, frozen=True):
    allowed: bool = False
    denied: bool = False


class _AccessReview(msgspec.Struct, frozen=True):
    status: _AccessStatus = _AccessStatus()


_TOKEN_REVIEW = msgspec.json.Decoder(_TokenReview)
_ACCESS_REVIEW = msgspec.json.Decoder(_AccessReview)


class TokenReviewer:
    """Asks the API server whose token this is; remembers answers for a few seconds.

    Tokens are remembered by their hash. A revoked token is so accepted for `ttl_seconds`
    longer than the API server itself would (which caches for 10 s, too).
    """

    def __init__(
        self,
        client: KubeClient,
        *,
        ttl_seconds: float = 10,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._ttl_seconds = ttl_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, tuple[float, Identity | None]] = OrderedDict()

    def review(self, token: str, audiences: Sequence[str] = ()) -> Identity | None:
        """Who sent this token; None if nobody whom the API server knows.

        Args:
            token: The bearer token.
            audiences: The token must be for one of them; empty means the API server's own.

        Raises:
            ApiError: When the API server cannot be asked.
        """
        if not token or len(token) > 65536 or not token.isascii() or not token.isprintable():
            return None
        key = _key_of(token, audiences)
        with self._lock:
            expires_at, identity = self._known.get(key, (0.0, None))
        if self._clock() < expires_at:
            return identity
        identity = self._ask(token, audiences)
        with self._lock:
            self._known[key] = (self._clock() + self._ttl_seconds, identity)
            self._known.move_to_end(key)
            while len(self._known) > _MAX_CACHED:
                self._known.popitem(last=False)
        return identity

    def _ask(self, token: str, audiences: Sequence[str]) -> Identity | None:
        spec: dict[str, Any] = {"token": token}
        if audiences:
            spec["audiences"] = list(audiences)
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
        answer = self._client.request("POST", paths.TOKEN_REVIEWS, body=body, timeout=(5, 10))
        status = _TOKEN_REVIEW.decode(answer).status
        if not status.authenticated or not status.user.username:
            return None
        # An authenticator that knows no audiences leaves them out: then the token is for
        # the API server and not for us.
        if audiences and not set(audiences) & set(status.audiences or ()):
            return None
        user = status.user
        return Identity(user.username, user.uid, user.groups or (), user.extra or {})


class AccessReviewer:
    """Asks the API server whether somebody may do something; remembers nothing."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    def allows(
        self,
        identity: Identity,
        *,
        verb: str,
        group: str,
        resource: str,
        subresource: str = "",
        namespace: str = "",
        name: str = "",
    ) -> bool:
        """Whether this identity may use a verb on a resource.

        Raises:
            ApiError: When the API server cannot be asked; nobody may conclude a yes from it.
        """
        attributes = {
            "verb": verb,
            "group": group,
            "resource": resource,
            "subresource": subresource,
            "namespace": namespace,
            "name": name,
        }
        return self._ask(identity, {"resourceAttributes": attributes})

    def allows_path(self, identity: Identity, *, verb: str, path: str) -> bool:
        """Whether this identity may use a verb on a path that is no resource.

        Raises:
            ApiError: When the API server cannot be asked.
        """
        return self._ask(identity, {"nonResourceAttributes": {"verb": verb, "path": path}})

    def _ask(self, identity: Identity, attributes: dict[str, dict[str, str]]) -> bool:
        spec: dict[str, Any] = {
            "user": identity.username,
            "uid": identity.uid,
            "groups": identity.groups,
            "extra": identity.extra,
            **attributes,
        }
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": spec,
        }
        answer = self._client.request("POST", paths.ACCESS_REVIEWS, body=body, timeout=(5, 10))
        status = _ACCESS_REVIEW.decode(answer).status
        return status.allowed and not status.denied


def _key_of(token: str, audiences: Sequence[str]) -> bytes:
    return hashlib.sha256("\0".join([token, *sorted(audiences)]).encode()).digest()
