"""Requests to the whole webhook as a server would make them, and what must hold of any answer."""

import io
import json
from base64 import b64decode
from collections.abc import Iterator
from typing import Any
from wsgiref.util import setup_testing_defaults

import jsonpatch

from nightcap.contract import keys
from tests.unit.webhook.builders import (
    NOW,
    SIZES,
    TEMPLATE,
    KnownCluster,
    a_capture,
    a_pod,
    a_review,
    resolved,
)
from webhook.handlers import AnnotationHandler, CaptureHandler, PodHandler
from webhook.metrics import Metrics
from webhook.server import AdmissionApp, status_app
from webhook.shape import Level


def broken(request):
    raise KeyError("a fault of ours")


def an_app(metrics=None, missing=()):
    cluster = KnownCluster(running=(resolved(a_capture()),))
    pods = PodHandler(
        cluster, lambda: TEMPLATE, SIZES, own_namespace="nightcap-system", clock=lambda: NOW
    )
    at_once = {f"/mutate/{level}": pods.at(level, wait=False) for level in Level}
    handlers = dict(at_once)
    handlers["/validate"] = CaptureHandler(lambda expression: None, cluster, lambda: NOW)
    handlers["/warn"] = AnnotationHandler(lambda expression: None)
    handlers["/broken"] = broken
    rest = status_app(lambda: missing).wsgi_app
    return AdmissionApp(handlers, rest, metrics or Metrics(), at_once=at_once)


APP = an_app()


def call(body=b"", *, path="/mutate/privileged", method="POST", kind="application/json", app=APP):
    """(status code, headers, body) of one request."""
    environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "timeout=3s",
        "CONTENT_TYPE": kind,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
    }
    setup_testing_defaults(environ)
    told = []

    def start_response(status, headers, exc_info=None):
        told.append((int(status.split()[0]), dict(headers)))

    answer = app(environ, start_response)
    data = b"".join(answer)
    if hasattr(answer, "close"):
        answer.close()
    (status, headers) = told[0]
    return status, headers, data


def walk(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    yield path
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, part in items:
        yield from walk(part, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The value with something else in one place."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


RICH_POD = a_pod(
    meta={
        "annotations": {keys.CAPTURE: "on", keys.ORDERS: "x"},
        "ownerReferences": [{"kind": "X"}],
    },
    initContainers=[
        {
            "name": "nightcap",
            "volumeMounts": [{"name": "nightcap-orders", "mountPath": "/run/nightcap/orders"}],
            "securityContext": {"capabilities": {"add": ["NET_RAW"]}},
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
        }
    ],
    volumes=[{"name": "nightcap-orders", "downwardAPI": {"items": []}}],
    os={"name": "linux"},
    nodeSelector={"kubernetes.io/os": "linux"},
    securityContext={"appArmorProfile": {"type": "Localhost"}, "windowsOptions": {}},
    resources={"requests": {"cpu": "1"}},
)
CAPTURE_OBJECT = {
    "metadata": {"name": "dns", "namespace": "storefront"},
    "spec": {"filters": [{"protocol": "UDP", "ports": [53]}], "duration": "1h", "rotation": {}},
}
SEEDS = [
    ("/mutate/privileged", a_review(object=RICH_POD)),
    ("/mutate/baseline", a_review(object=a_pod())),
    ("/mutate/restricted", a_review(object=RICH_POD)),
    (
        "/validate",
        a_review(
            "packetcaptures",
            "UPDATE",
            group=keys.GROUP,
            object=CAPTURE_OBJECT,
            oldObject={**CAPTURE_OBJECT, "spec": {}},
        ),
    ),
    ("/warn", a_review("namespaces", "UPDATE", object={"metadata": RICH_POD["metadata"]})),
]


def hold(path: str, body: bytes) -> None:
    """Ask both ways, and hold what must be true of the answer against whatever was asked."""
    status, _, answered = call(body, path=path)
    at_once = APP.plain(path, body)
    if status != 200:
        assert 400 <= status < 500
        assert at_once is None
        return
    request = json.loads(body)["request"]
    answer = json.loads(answered)
    response = answer["response"]
    assert (answer["apiVersion"], answer["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    assert response["uid"] == request["uid"]
    assert response["allowed"] is True or path == "/validate"
    assert ("patch" in response) == ("patchType" in response)
    assert "failed" not in response.get("auditAnnotations", {}).values()
    if "patch" in response:
        jsonpatch.apply_patch(request["object"], json.loads(b64decode(response["patch"])))
    if at_once is not None:
        assert json.loads(at_once.body) == answer
        at_once.afterwards()
