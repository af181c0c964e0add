import base64
import json

import pytest

from nightcap.kube.errors import ClusterUnavailable
from nightcap.kube.reviews import Identity
from retrieval.collector.tokens import SidecarTokens, expiry

WHO = Identity("system:serviceaccount:storefront:default")


def a_token(**claims: object) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{body}.c2ln"


class Reviews:
    def __init__(self) -> None:
        self.answer: Identity | None = WHO
        self.count = 0

    def review(self, token: str) -> Identity | None:
        self.count += 1
        return self.answer


@pytest.mark.parametrize(
    ("token", "good_for"),
    [
        pytest.param(a_token(exp=1060), 60, id="until it expires"),
        pytest.param(a_token(exp=9999), 300, id="5 minutes at most"),
        pytest.param("opaque", 300, id="one that does not say"),
        pytest.param(a_token(exp="never"), 300, id="one that says nonsense"),
        pytest.param("a.%%%.c", 300, id="one that cannot be read"),
    ],
)
def test_a_yes_is_remembered(token: str, good_for: float) -> None:
    reviews = Reviews()
    tokens = SidecarTokens(reviews.review)
    assert tokens.identity(token, 1000) == WHO
    reviews.answer = None
    assert tokens.identity(token, 1000 + good_for - 1) == WHO
    assert tokens.identity(token, 1000 + good_for) is None


def test_a_no_is_remembered_for_a_moment() -> None:
    reviews = Reviews()
    reviews.answer = None
    tokens = SidecarTokens(reviews.review)
    assert tokens.identity("t", 1000) is None
    reviews.answer = WHO
    assert tokens.identity("t", 1001) is None
    assert reviews.count == 1
    assert tokens.identity("t", 1002) == WHO


def test_an_api_that_does_not_answer_is_no_no() -> None:
    def fail(token: str) -> Identity | None:
        raise ClusterUnavailable(0, "NoAnswer", "it is down")

    with pytest.raises(ClusterUnavailable):
        SidecarTokens(fail).identity("t", 1000)


@pytest.mark.parametrize("token", ["", "a.b", "a.b.c", "a..c", "\u00e4.\u00e4.\u00e4"])
def test_a_token_that_is_none_of_ours_says_no_expiry(token: str) -> None:
    assert expiry(token) is None
