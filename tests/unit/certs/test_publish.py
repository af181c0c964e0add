"""What is written where, against scripted answers; that it works is e2e's to prove."""

import base64
from typing import Any

import msgspec
import pytest

from certs.bundle import bundle_of
from certs.loop import CertificateLoop
from certs.policy import Step, StepKind
from certs.publish import Publisher
from certs.settings import CertificateSettings
from nightcap.contract.paths import collector_name
from nightcap.kube import paths
from nightcap.kube.client import JSON_PATCH, MERGE_PATCH
from nightcap.kube.errors import ClusterUnavailable, Conflict
from tests.unit.kube.small_api import SmallApi

NS = "nightcap-system"
NOW = 1_795_000_000.0
SETTINGS = CertificateSettings.standard(NS)
CA = paths.secret(NS, "nightcap-ca")
WEBHOOK = paths.secret(NS, "nightcap-webhook-tls")
CONFIG_MAP = paths.config_map(NS, "nightcap-ca")
MUTATING = paths.mutating_webhook("nightcap")


def a_webhook(name: str, service: str, bundle: str = "") -> dict[str, Any]:
    reference = {"namespace": NS, "name": service}
    return {"name": name, "clientConfig": {"service": reference, "caBundle": bundle}}


def written(api: SmallApi) -> tuple[str, str, Any]:
    """The last request that changes something: method, path, body."""
    method, path, _, body = [r for r in api.requests if r[0] != "GET"][-1]
    return method, path, msgspec.json.decode(body)


@pytest.fixture
def publisher(api: SmallApi) -> Publisher:
    for path in (CA, WEBHOOK, CONFIG_MAP):
        api.answers["POST", path.rpartition("/")[0]] = [(201, {})]
        api.answers["PATCH", path] = [(200, {})]
    api.answers["PATCH", MUTATING] = [(200, {})]
    return Publisher(api.client(), SETTINGS)


def do(publisher: Publisher, kind: StepKind, generation: int = 0, where: str = "") -> None:
    publisher.do(Step(kind, "", generation, where), publisher.look(), NOW)


def put_root(api: SmallApi, publisher: Publisher) -> None:
    do(publisher, StepKind.NEW_ROOT, 1)
    api.put(CA, data=written(api)[2]["data"])


def test_names_are_all_that_a_service_is_called_inside_a_cluster() -> None:
    webhook, retrieval = SETTINGS.policy.serving
    assert webhook.names_of(1) == {
        "nightcap-webhook",
        "nightcap-webhook.nightcap-system",
        "nightcap-webhook.nightcap-system.svc",
        "nightcap-webhook.nightcap-system.svc.cluster.local",
        *("localhost", "127.0.0.1", "::1"),
    }
    assert retrieval.names_of(3) >= {collector_name(3), "nightcap-retrieval", "nightcap-collector"}


def test_what_does_not_exist_is_created(api: SmallApi, publisher: Publisher) -> None:
    do(publisher, StepKind.NEW_ROOT, 1)
    method, path, body = written(api)
    assert (method, path) == ("POST", paths.secrets(NS))
    assert body["metadata"]["name"] == "nightcap-ca"
    assert set(body["data"]) == {"g1.crt", "g1.key", "current"}


def test_what_exists_is_patched_only_as_it_was_seen(api: SmallApi, publisher: Publisher) -> None:
    put_root(api, publisher)
    foreign = base64.b64encode(b"x").decode()
    api.put(WEBHOOK, data={"g9.crt": foreign, "note": foreign})
    do(publisher, StepKind.ISSUE_LEAF, 1, "nightcap-webhook-tls")
    method, path, body = written(api)
    assert (method, path) == ("PATCH", WEBHOOK)
    assert api.headers[-1]["Content-Type"] == MERGE_PATCH
    assert (
        body["metadata"]["resourceVersion"] == api.objects[WEBHOOK]["metadata"]["resourceVersion"]
    )
    assert body["data"]["g9.crt"] is None, "what the policy dropped is removed"
    bundle = bundle_of({key: value for key, value in body["data"].items() if value})
    assert bundle.current == 1
    assert bundle.ca_bundle == bundle.pairs[1].ca


def test_only_our_webhooks_get_the_bundle_and_only_under_their_names(
    api: SmallApi, publisher: Publisher
) -> None:
    put_root(api, publisher)
    webhooks = [a_webhook("other", "x"), a_webhook("a", "nightcap-webhook")]
    api.put(MUTATING, webhooks=webhooks)
    look = publisher.look()
    assert look.observed.places == {"ConfigMap": "", "MutatingWebhookConfiguration": ""}
    do(publisher, StepKind.PUBLISH, where="MutatingWebhookConfiguration")
    method, path, body = written(api)
    assert (method, path) == ("PATCH", MUTATING)
    assert api.headers[-1]["Content-Type"] == JSON_PATCH
    root = base64.b64decode(api.objects[CA]["data"]["g1.crt"])
    assert body == [
        {"op": "test", "path": "/webhooks/1/name", "value": "a"},
        {
            "op": "add",
            "path": "/webhooks/1/clientConfig/caBundle",
            "value": base64.b64encode(root).decode(),
        },
    ]


@pytest.mark.parametrize(
    ("bundles", "seen"),
    [
        (["", ""], ""),
        (["QQ==", "QQ=="], "A"),
        (["QQ==", ""], "its webhooks have different bundles"),
        (["!", "!"], "not base64 of text"),
    ],
)
def test_several_webhooks_are_one_place(
    api: SmallApi, publisher: Publisher, bundles: list[str], seen: str
) -> None:
    webhooks = [a_webhook(f"w{n}", "nightcap-webhook", b) for n, b in enumerate(bundles)]
    api.put(MUTATING, webhooks=webhooks)
    assert publisher.look().observed.places["MutatingWebhookConfiguration"] == seen


def test_configuration_of_nobody_of_ours_is_left_alone(api: SmallApi, publisher: Publisher) -> None:
    api.put(MUTATING, webhooks=[a_webhook("other", "x")])
    assert set(publisher.look().observed.places) == {"ConfigMap"}


def test_object_that_went_away_meanwhile_is_a_conflict(api: SmallApi, publisher: Publisher) -> None:
    put_root(api, publisher)
    api.answers["PATCH", CA] = [(404, {"reason": "NotFound"})]
    with pytest.raises(Conflict):
        do(publisher, StepKind.MARK_PUBLISHED, 1)


def test_loop_tells_of_a_failure_and_tries_again(api: SmallApi) -> None:
    api.answers["GET", CA] = [(503, {"message": "down"})]
    errors: list[Exception] = []
    loop = CertificateLoop(api.client(), SETTINGS, errors.append)
    with pytest.raises(ClusterUnavailable):
        loop.look_once()
    loop.start()
    assert not loop.wait_settled(1.0)
    loop.stop()
    assert len(errors) >= 1
    assert isinstance(errors[0], ClusterUnavailable)
    assert loop.failures == len(errors)
