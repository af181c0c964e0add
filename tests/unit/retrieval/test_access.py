import pytest

from nightcap.contract.segments import BadName
from retrieval.access import (
    CaptureRef,
    Question,
    Verb,
    Verdict,
    bearer_token,
    deletion_fault,
    parse_capture_ref,
    question,
    verdict,
)


@pytest.mark.parametrize(
    ("is_known", "is_allowed", "exists", "expected"),
    [
        pytest.param(False, False, False, Verdict.WHO_ARE_YOU, id="a stranger"),
        pytest.param(False, True, True, Verdict.WHO_ARE_YOU, id="a stranger, whatever else"),
        pytest.param(True, False, True, Verdict.FORBIDDEN, id="no right, it exists"),
        pytest.param(True, False, False, Verdict.FORBIDDEN, id="no right, it does not"),
        pytest.param(True, True, False, Verdict.ABSENT, id="the right, and nothing there"),
        pytest.param(True, True, True, Verdict.GRANTED, id="the right, and it exists"),
    ],
)
def test_verdicts(*, is_known: bool, is_allowed: bool, exists: bool, expected: Verdict) -> None:
    assert verdict(is_known=is_known, is_allowed=is_allowed, exists=exists) is expected


def test_the_question_is_about_the_files_of_one_capture() -> None:
    assert question(CaptureRef("storefront", "dns"), Verb.DELETE) == Question(
        verb="delete",
        group="nightcap.dev",
        resource="packetcaptures",
        subresource="files",
        namespace="storefront",
        name="dns",
    )


@pytest.mark.parametrize(
    ("authorization", "nightcap_authorization", "token"),
    [
        (None, None, None),
        ("Bearer abc.def-_", None, "abc.def-_"),
        ("bearer abc", None, "abc"),
        (None, "Bearer abc", "abc"),
        ("Bearer proxy", "Bearer person", "person"),
        ("Bearer proxy", "", None),
        ("Basic abc", None, None),
        ("Bearer ", None, None),
        ("Bearer a b", None, None),
        ("Bearer a\r\nX: b", None, None),
        ("Bearer ä", None, None),
    ],
)
def test_tokens(
    authorization: str | None, nightcap_authorization: str | None, token: str | None
) -> None:
    assert bearer_token(authorization, nightcap_authorization) == token


@pytest.mark.parametrize(
    ("namespace", "name"),
    [
        ("", "dns"),
        ("storefront", ""),
        ("store.front", "dns"),
        ("..", "dns"),
        ("storefront", ".."),
        ("storefront", "a/b"),
        ("storefront", "a\n"),
        ("-a", "dns"),
        ("a" * 64, "dns"),
        ("storefront", "a" * 254),
    ],
)
def test_names_that_kubernetes_does_not_have_are_refused(namespace: str, name: str) -> None:
    with pytest.raises(BadName):
        parse_capture_ref(namespace, name)


def test_names_that_kubernetes_has_are_read() -> None:
    assert parse_capture_ref("store-front", "dns.v1-2") == CaptureRef("store-front", "dns.v1-2")


def test_files_are_deleted_of_finished_captures_only() -> None:
    assert deletion_fault("Finished") is None
    assert deletion_fault("Capturing") == "capture state is not Finished"
    assert deletion_fault(None) == "capture state cannot be determined"
