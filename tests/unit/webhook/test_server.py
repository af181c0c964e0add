"""The WSGI application as a server would call it."""

import io
import json
import logging
from wsgiref.validate import validator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.webhook.builders import a_pod, a_review, apply_answer
from tests.unit.webhook.reviews import (
    APP,
    SEEDS,
    an_app,
    broken,
    call,
    hold,
    replaced,
    walk,
)
from webhook.facts import NotAtOnce
from webhook.handlers import Outcome
from webhook.metrics import Metrics
from webhook.review import Answer
from webhook.server import MAX_BODY_BYTES, AdmissionApp, status_app


def test_a_pod_is_patched_over_http():
    status, headers, body = call(json.dumps(a_review(object=a_pod())).encode())
    assert status == 200
    assert headers["Content-Type"] == "application/json"
    assert int(headers["Content-Length"]) == len(body)
    assert json.loads(body)["response"]["uid"] == a_review()["request"]["uid"]
    patched = apply_answer(a_pod(), body)
    assert patched["spec"]["initContainers"][0]["name"] == "nightcap"


def test_the_path_says_the_level():
    body = json.dumps(a_review(object=a_pod())).encode()

    def audit(level):
        answer = json.loads(call(body, path=f"/mutate/{level}")[2])
        return answer["response"]["auditAnnotations"]

    assert audit("privileged")["decision"] == "injected"
    assert audit("baseline")["decision"] == "injected"
    assert audit("restricted")["reason"] == "namespace-restricted"


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (405, {"method": "GET"}),
        (415, {"kind": "text/plain", "body": b"{}"}),
        (415, {"kind": "", "body": b"{}"}),
        (400, {"body": b""}),
        (400, {"body": b"{}"}),
        (400, {"body": b"\xff"}),
        (413, {"body": b" " * (MAX_BODY_BYTES + 1)}),
        (404, {"path": "/mutate"}),
        (404, {"path": "/mutate/none"}),
        (404, {"path": "/"}),
    ],
)
def test_what_is_no_admission_request_gets_its_status(status, request_):
    found, headers, body = call(**request_)
    assert found == status
    assert int(headers["Content-Length"]) == len(body)


def test_a_charset_is_fine():
    body = json.dumps(a_review(object=a_pod())).encode()
    assert call(body, kind="Application/JSON; charset=utf-8")[0] == 200


def test_a_client_that_goes_away_in_the_middle_is_a_bad_request():
    class Gone(io.BytesIO):
        def read(self, size=-1):
            raise ConnectionResetError("gone")

    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/validate",
        "CONTENT_TYPE": "application/json",
        "wsgi.input": Gone(),
    }
    told = []
    APP(environ, lambda status, headers: told.append(status))
    assert told == ["400 Bad Request"]


def test_an_error_of_ours_admits_the_pod_and_says_so(caplog):
    with caplog.at_level(logging.INFO):
        status, _, body = call(json.dumps(a_review(object=a_pod())).encode(), path="/broken")
    response = json.loads(body)["response"]
    assert status == 200
    assert response["allowed"] is True
    assert response["warnings"]
    assert "patch" not in response
    assert any(record.exc_info for record in caplog.records)


def test_the_application_speaks_wsgi_as_it_is_written():
    body = json.dumps(a_review(object=a_pod())).encode()
    assert call(body, app=validator(an_app()))[0] == 200


def test_one_line_is_logged_for_a_decision_without_the_pod_itself(caplog):
    pod = a_pod(containers=[{"name": "app", "env": [{"name": "P", "value": "hunter2"}]}])
    with caplog.at_level(logging.INFO):
        call(json.dumps(a_review(object=pod)).encode())
    (record,) = caplog.records
    assert record.getMessage() == "admission"
    facts = record.__dict__
    assert facts["uid"] == a_review()["request"]["uid"]
    assert facts["namespace"] == "storefront"
    assert facts["object"] == "logging-5d8f9-*"
    assert facts["decision"] == "injected"
    assert 0 < facts["ms"] < 10_000
    assert "hunter2" not in str(facts)


def test_metrics_count_decisions_with_reasons_and_requests_that_are_none():
    metrics = Metrics()
    metrics.watch_certificate(lambda: 1234.0)
    app = an_app(metrics)
    call(json.dumps(a_review(object=a_pod())).encode(), app=app)
    call(json.dumps(a_review(object=a_pod(hostNetwork=True))).encode(), app=app)
    call(b"{}", app=app)

    def value(name, **labels):
        return metrics.registry.get_sample_value(name, labels)

    path = "/mutate/privileged"
    counted = "nightcap_admission_requests_total"
    assert value(counted, handler=path, decision="injected", reason="") == 1
    assert value(counted, handler=path, decision="skipped", reason="host-network") == 1
    assert value("nightcap_admission_malformed_total", code="400") == 1
    assert value("nightcap_admission_seconds_count", handler=path) == 2
    for bound in ("0.001", "0.1", "10.0"):
        assert value("nightcap_admission_seconds_bucket", handler=path, le=bound) is not None
    assert value("nightcap_certificate_expiry_timestamp_seconds") == 1234


def test_what_would_have_to_wait_is_left_to_a_thread():
    """And so is what compiles filters, and what is no admission request."""

    def waits(request):
        raise NotAtOnce("a watch may be behind")

    metrics = Metrics()
    app = AdmissionApp(
        {"/a": broken, "/b": broken, "/validate": broken},
        status_app(lambda: ()).wsgi_app,
        metrics,
        at_once={"/a": lambda request: Outcome(Answer(), "allowed"), "/b": waits},
    )
    review = json.dumps(a_review(object=a_pod())).encode()
    answer = app.plain("/a", review)
    assert json.loads(answer.body)["response"]["allowed"] is True
    answer.afterwards()
    assert app.plain("/b", review) is None
    assert app.plain("/validate", review) is None
    assert app.plain("/a", b"{}") is None
    counted = "nightcap_admission_requests_total"
    labels = {"handler": "/a", "decision": "allowed", "reason": ""}
    assert metrics.registry.get_sample_value(counted, labels) == 1


def test_health_is_always_fine_and_readiness_says_what_is_missing():
    waiting = an_app(missing=("namespaces", "a valid certificate"))
    assert call(path="/healthz", method="GET", app=waiting)[0] == 200
    status, _, body = call(path="/readyz", method="GET", app=waiting)
    assert (status, body) == (503, b"waiting for namespaces, a valid certificate\n")
    assert call(path="/readyz", method="GET")[0] == 200


# Mutations


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
    | st.sampled_from(["nightcap", "nightcap-token", "windows", "1e99", "-1", "Always"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["name", "spec", "containers", "x", ""]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@st.composite
def mutated_reviews(draw):
    path, review = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(list(walk(review))))
        review = replaced(review, place, draw(JUNK))
    return path, review


@given(mutated_reviews())
@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_whatever_comes_is_answered_by_a_review_of_its_uid_or_by_a_4xx(mutated):
    path, review = mutated
    hold(path, json.dumps(review).encode())


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_bytes_that_are_nothing_are_a_4xx(data):
    assert call(data)[0] == 400
