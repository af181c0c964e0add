from typing import Any

import msgspec
import pytest

from nightcap.kube import paths
from nightcap.kube.errors import ClusterUnavailable
from nightcap.kube.reviews import AccessReviewer, Identity, TokenReviewer
from tests.unit.kube.small_api import SmallApi

POD = {
    "username": "system:serviceaccount:shop:default",
    "uid": "sa-uid",
    "groups": ["system:serviceaccounts"],
    "extra": {
        "authentication.kubernetes.io/pod-name": ["web-1"],
        "authentication.kubernetes.io/pod-uid": ["pod-uid"],
    },
}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def answer(api: SmallApi, **status: Any) -> None:
    api.answers["POST", paths.TOKEN_REVIEWS] = [(201, {"status": status})]


def test_bound_token_names_the_pod(api: SmallApi) -> None:
    answer(api, authenticated=True, user=POD, audiences=["nightcap"])
    identity = TokenReviewer(api.client()).review("token", ["nightcap"])
    assert identity is not None
    assert (identity.pod_name, identity.pod_uid, identity.namespace) == ("web-1", "pod-uid", "shop")
    asked = msgspec.json.decode(api.requests[0][3])
    assert asked["spec"] == {"token": "token", "audiences": ["nightcap"]}


@pytest.mark.parametrize(
    "status",
    [
        {"authenticated": False, "error": "expired"},
        {"authenticated": False, "user": POD},
        {"authenticated": True, "user": {"username": ""}},
        {"authenticated": True, "user": POD, "audiences": ["https://kubernetes"]},
        {"authenticated": True, "user": POD},
        {},
    ],
    ids=[
        "refused",
        "refused but named",
        "nameless",
        "another audience",
        "an authenticator that knows no audiences",
        "empty answer",
    ],
)
def test_token_is_nobodys(api: SmallApi, status: dict[str, Any]) -> None:
    answer(api, **status)
    assert TokenReviewer(api.client()).review("token", ["nightcap"]) is None


@pytest.mark.parametrize("token", ["", "line\nbreak", "é", "x" * 70_000])
def test_what_cannot_be_a_token_is_not_asked_about(api: SmallApi, token: str) -> None:
    assert TokenReviewer(api.client()).review(token) is None
    assert api.requests == []


def test_answers_are_remembered_for_a_while_by_token_and_audience(api: SmallApi) -> None:
    clock = Clock()
    reviewer = TokenReviewer(api.client(), ttl_seconds=10, clock=clock)
    answer(api, authenticated=True, user=POD, audiences=["nightcap", "other"])
    assert reviewer.review("token", ["nightcap"])
    answer(api, authenticated=False)
    clock.now += 9.9
    assert reviewer.review("token", ["nightcap"])
    assert reviewer.review("token", ["other"]) is None
    assert reviewer.review("another", ["nightcap"]) is None
    clock.now += 0.2
    assert reviewer.review("token", ["nightcap"]) is None
    assert len(api.requests) == 4


def test_failure_is_not_remembered(api: SmallApi) -> None:
    reviewer = TokenReviewer(api.client())
    api.answers["POST", paths.TOKEN_REVIEWS] = [(500, {})]
    with pytest.raises(ClusterUnavailable):
        reviewer.review("token")
    answer(api, authenticated=True, user=POD)
    assert reviewer.review("token") is not None


@pytest.mark.parametrize(
    ("username", "namespace"),
    [
        ("system:serviceaccount:shop:default", "shop"),
        ("system:serviceaccount:shop", None),
        ("system:serviceaccount::x", None),
        ("jane", None),
    ],
)
def test_only_a_service_account_has_a_namespace(username: str, namespace: str | None) -> None:
    assert Identity(username).namespace == namespace


def test_several_pod_uids_are_none() -> None:
    assert Identity("x", extra={"authentication.kubernetes.io/pod-uid": ("a", "b")}).pod_uid is None


@pytest.mark.parametrize(
    ("status", "allowed"),
    [
        ({"allowed": True}, True),
        ({"allowed": False}, False),
        ({"allowed": True, "denied": True}, False),
        ({}, False),
    ],
)
def test_access_is_what_the_server_says(
    api: SmallApi, status: dict[str, bool], allowed: bool
) -> None:
    api.answers["POST", paths.ACCESS_REVIEWS] = [(201, {"status": status})]
    reviewer = AccessReviewer(api.client())
    identity = Identity("jane", "u", ("devs",), {"scopes": ("a",)})
    assert (
        reviewer.allows(
            identity,
            verb="get",
            group="nightcap.dev",
            resource="packetcaptures",
            subresource="files",
            namespace="shop",
            name="dns",
        )
        is allowed
    )
    assert msgspec.json.decode(api.requests[0][3])["spec"] == {
        "user": "jane",
        "uid": "u",
        "groups": ["devs"],
        "extra": {"scopes": ["a"]},
        "resourceAttributes": {
            "verb": "get",
            "group": "nightcap.dev",
            "resource": "packetcaptures",
            "subresource": "files",
            "namespace": "shop",
            "name": "dns",
        },
    }


def test_path_is_asked_about_as_a_path(api: SmallApi) -> None:
    api.answers["POST", paths.ACCESS_REVIEWS] = [(201, {"status": {"allowed": True}})]
    assert AccessReviewer(api.client()).allows_path(Identity("x"), verb="get", path="/v1/reports")
    spec = msgspec.json.decode(api.requests[0][3])["spec"]
    assert spec["nonResourceAttributes"] == {"verb": "get", "path": "/v1/reports"}
    assert "resourceAttributes" not in spec
