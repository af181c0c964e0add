import json
from base64 import b64decode

import pytest

from tests.unit.webhook.builders import a_pod, a_review
from webhook.review import MAX_WARNING, Answer, NoReview, read_request, write_answer


def read(review):
    return read_request(json.dumps(review).encode())


def written(answer, uid="u-1"):
    return json.loads(write_answer(uid, answer))


def test_a_request_is_read_and_its_object_left_as_it_came():
    request = read(a_review(object=a_pod(), name="", subResource=""))
    assert request.creates_pod
    assert request.namespace == "storefront"
    assert json.loads(bytes(request.object)) == a_pod()


@pytest.mark.parametrize(
    "review",
    [
        a_review(operation="UPDATE"),
        a_review(operation="CONNECT"),
        a_review("services"),
        a_review("pods", group="metrics.k8s.io"),
        a_review(subResource="ephemeralcontainers"),
    ],
    ids=["update", "connect", "services", "other-group", "subresource"],
)
def test_anything_but_the_creation_of_a_pod_is_none(review):
    assert not read(review).creates_pod


def test_an_answer_echoes_the_uid_and_the_version():
    found = written(Answer(), "705ab4f5")
    assert found == {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {"uid": "705ab4f5", "allowed": True},
    }


def test_a_patch_comes_with_its_type_and_without_one_neither_does():
    """The API server refuses either without the other."""
    response = written(Answer(patch=b"[]"))["response"]
    assert response["patchType"] == "JSONPatch"
    assert b64decode(response["patch"]) == b"[]"
    assert not {"patch", "patchType"} & written(Answer())["response"].keys()


def test_a_refusal_says_why():
    response = written(Answer(refusal="a; b"))["response"]
    assert response["allowed"] is False
    assert response["status"] == {"code": 422, "reason": "Invalid", "message": "a; b"}


def test_warnings_are_short_single_lines_and_not_too_many():
    answer = Answer(warnings=("one\n two", "x" * 1000, *(f"w{n}" for n in range(30))))
    warnings = written(answer)["response"]["warnings"]
    assert warnings[0] == "one two"
    assert warnings[1] == "x" * (MAX_WARNING - 1) + "…"
    assert len(warnings) == 15
    assert warnings[-1] == "nightcap: and 18 more"
    assert sum(map(len, warnings)) <= 4096


def test_audit_annotations_are_kept():
    audit = {"decision": "skipped", "reason": "windows"}
    assert written(Answer(audit=audit))["response"]["auditAnnotations"] == audit


def without(key):
    review = a_review()
    del review["request"][key]
    return review


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b"[" * 100_000,
        json.dumps(without("uid")).encode(),
        json.dumps({**a_review(), "kind": "Pod"}).encode(),
        json.dumps({**a_review(), "apiVersion": "admission.k8s.io/v1beta1"}).encode(),
        json.dumps({**a_review(), "request": None}).encode(),
        json.dumps(a_review(uid="")).encode(),
        json.dumps(a_review(uid=7)).encode(),
    ],
    ids=[
        "empty", "no-text", "list", "null", "object", "deep", "no-uid", "kind", "v1beta1",
        "no-request", "empty-uid", "number",
    ],
)  # fmt: skip
def test_what_is_no_admission_review_is_said_to_be_none(body):
    with pytest.raises(NoReview):
        read_request(body)
