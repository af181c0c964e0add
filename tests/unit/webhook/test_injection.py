"""The patch: golden pairs, and what must hold of every pod.

`NIGHTCAP_CORPUS` (or the folder tests/corpus) may name a folder of manifests that other
people wrote; the properties are then shown on those, too.
"""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nightcap.contract import keys, paths
from nightcap.contract.assignment import orders_of_new_pod
from nightcap.contract.orders import CaptureOrder, Orders, dump_orders, parse_orders
from tests.unit.webhook.builders import (
    COLLECTORS,
    NAMESPACE,
    NOW,
    SIZES,
    TEMPLATE,
    KnownCluster,
    a_capture,
    a_container,
    a_pod,
    a_review,
    apply,
    look,
    resolved,
)
from webhook.eligibility import Inject, Keep, decide
from webhook.facts import NamespaceFacts, NotAPod, read_pod
from webhook.handlers import PodHandler
from webhook.injection import MAX_ANNOTATIONS_BYTES, has_room, inject, orders_value, strip
from webhook.resources import QualityOfService, quality_of_service, sidecar_resources
from webhook.review import read_request
from webhook.shape import Level, Profile

REPOSITORY = Path(__file__).parents[3]
GOLDEN = REPOSITORY / "tests" / "golden" / "injection"
CORPUS = Path(os.environ.get("NIGHTCAP_CORPUS") or REPOSITORY / "tests" / "corpus")
CAPTURE = resolved(a_capture(filter="udp port 53"))


class _Loader(yaml.CSafeLoader):
    """YAML as Kubernetes reads it: JSON's kinds alone, no dates."""


_LOADER_RULES = {
    letter: [rule for rule in rules if rule[0] != "tag:yaml.org,2002:timestamp"]
    for letter, rules in _Loader.yaml_implicit_resolvers.items()
}
_Loader.yaml_implicit_resolvers = _LOADER_RULES


def load_all(path: Path) -> list[Any]:
    return list(yaml.load_all(path.read_text(), Loader=_Loader))


def handler(level=Level.PRIVILEGED, *, captures=(), template=TEMPLATE):
    cluster = KnownCluster(running=tuple(captures))
    pods = PodHandler(
        cluster, lambda: template, SIZES, own_namespace="nightcap-system", clock=lambda: NOW
    )
    return pods.at(level)


def admit(pod, level=Level.PRIVILEGED, *, captures=()):
    """The pod as the API server has it after our answer, and the answer's outcome."""
    request = read_request(json.dumps(a_review(object=pod)).encode())
    outcome = handler(level, captures=captures)(request)
    return apply(pod, outcome.answer.patch), outcome


# Golden pairs


def golden_cases():
    return sorted(path for path in GOLDEN.glob("*.yaml") if ".injected" not in path.name)


@pytest.mark.parametrize("path", golden_cases(), ids=lambda path: path.stem)
def test_a_pod_becomes_its_golden_pair(path):
    """With NIGHTCAP_WRITE_GOLDEN=1 the pairs are written anew, to be read in the diff."""
    case, pod = load_all(path)
    captures = (CAPTURE,) if case.get("capture") else ()
    result, outcome = admit(pod, Level(case["level"]), captures=captures)
    told = {
        "decision": outcome.decision,
        "reason": outcome.reason,
        "warnings": list(outcome.answer.warnings),
    }
    pair = path.with_suffix(".injected.yaml")
    if os.environ.get("NIGHTCAP_WRITE_GOLDEN"):
        text = yaml.safe_dump_all([told, result], sort_keys=False, width=110)
        pair.write_text(text)
    assert load_all(pair) == [told, result]


# Properties, on every manifest there is

TEMPLATED = {"Deployment", "ReplicaSet", "DaemonSet", "StatefulSet", "Job", "ReplicationController"}


def pods_in(document: Any) -> list[dict[str, Any]]:
    """The pods that a manifest makes."""
    match (document or {}).get("kind"):
        case "Pod":
            return [document]
        case "List":
            return [pod for item in document["items"] for pod in pods_in(item)]
        case "CronJob":
            return pods_in({"kind": "Job", **document["spec"]["jobTemplate"]})
        case kind if kind in TEMPLATED:
            return [{"apiVersion": "v1", "kind": "Pod", **document["spec"]["template"]}]
        case _:
            return []


def manifests():
    for path in golden_cases():
        yield path.name, load_all(path)[1]
    for path in sorted((*CORPUS.rglob("*.yaml"), *CORPUS.rglob("*.yml"))):
        found = [pod for document in load_all(path) for pod in pods_in(document)]
        for number, pod in enumerate(found):
            yield f"{path.relative_to(CORPUS)}:{number}", pod


MANIFESTS = dict(manifests())


def added_to(before: Any, after: Any) -> bool:
    """Whether all that was there is there still, in the same order; null is nothing."""
    if before is None:
        return True
    if isinstance(before, dict):
        return isinstance(after, dict) and all(
            key in after and added_to(value, after[key]) for key, value in before.items()
        )
    if isinstance(before, list):
        rest = iter(after)
        return all(any(added_to(value, candidate) for candidate in rest) for value in before)
    return type(before) is type(after) and bool(before == after)


def without_ours(pod: dict[str, Any]) -> dict[str, Any]:
    """A pod without the annotations that are Nightcap's to decide."""
    copy: dict[str, Any] = json.loads(json.dumps(pod))
    metadata = copy.get("metadata") or {}
    annotations = metadata.get("annotations") or {}
    for key in (keys.ORDERS, keys.INJECTED, keys.NOT_INJECTED):
        annotations.pop(key, None)
    if not annotations:  # none, null and empty are the same
        metadata.pop("annotations", None)
    if not metadata:
        copy.pop("metadata", None)
    return copy


def passes_baseline(container: dict[str, Any]) -> bool:
    """What Pod Security's level baseline asks of a container like ours."""
    context = container["securityContext"]
    return (
        not context["privileged"]
        and not context["capabilities"].get("add")
        and context["seccompProfile"]["type"] == "RuntimeDefault"
        and context.get("appArmorProfile", {"type": "RuntimeDefault"})["type"] == "RuntimeDefault"
        and not any("hostPort" in port for port in container.get("ports", ()))
    )


def check_properties(pod: dict[str, Any], level: Level, captures: tuple[Any, ...]) -> str:
    once, outcome = admit(pod, level, captures=captures)
    assert added_to(without_ours(pod), without_ours(once))
    twice, again = admit(once, level, captures=captures)
    assert again.answer.patch == b""
    assert twice == once
    for operation in json.loads(outcome.answer.patch or b"[]"):
        ours = operation["path"].startswith("/metadata/annotations/nightcap.dev~1")
        assert operation["op"] == "add" or ours
    if outcome.decision != "injected":
        assert without_ours(once) == without_ours(pod)
        return outcome.decision
    assert once["spec"]["containers"] == pod["spec"]["containers"]
    assert quality_of_service(look(once)) == quality_of_service(look(pod))
    sidecar = once["spec"]["initContainers"][0]
    assert (sidecar["name"], sidecar["restartPolicy"]) == (keys.SIDECAR_CONTAINER, "Always")
    assert passes_baseline(sidecar) == (level is Level.BASELINE)
    assert ("lifecycle" in sidecar) == (keys.ORDERS in once["metadata"]["annotations"])
    assert isinstance(decide_on(once, level), Keep)
    return outcome.decision


def decide_on(pod: dict[str, Any], level: Level) -> Any:
    facts = NamespaceFacts(NAMESPACE, enabled=True)
    return decide(look(pod), facts, level, own_namespace="nightcap-system")


EVERY_POD = resolved(a_capture("all", labels={}))


@pytest.mark.parametrize("name", MANIFESTS)
def test_what_must_hold_of_every_manifest(name):
    pod = MANIFESTS[name]
    for level in Level:
        for captures in ((), (CAPTURE, EVERY_POD)):
            check_properties(pod, level, captures)
    bare = {key: value for key, value in pod.items() if key != "metadata"}
    check_properties(bare, Level.PRIVILEGED, (EVERY_POD,))


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_answer_does_not_depend_on_the_order_of_keys(name):
    pod = MANIFESTS[name]
    other = json.loads(json.dumps(pod, sort_keys=True))
    assert admit(pod)[1] == admit(other)[1]


RESOURCES = st.fixed_dictionaries(
    {},
    optional={
        part: st.dictionaries(
            st.sampled_from(["cpu", "memory", "ephemeral-storage"]),
            st.sampled_from(["0", "50m", "1", "64Mi", "1Gi"]),
        )
        for part in ("requests", "limits")
    },
)
NAMES = st.sampled_from(["app", "nightcap", "nightcap-spool", "cache"])
MOUNTS = st.lists(st.fixed_dictionaries({"name": NAMES, "mountPath": st.just("/m")}), max_size=2)
CONTAINERS = st.lists(
    st.fixed_dictionaries(
        {"name": NAMES},
        optional={
            "resources": RESOURCES,
            "volumeMounts": MOUNTS,
            "restartPolicy": st.just("Always"),
            "x-unknown": st.integers(),
        },
    ),
    max_size=3,
)
PODS = st.fixed_dictionaries(
    {
        "spec": st.fixed_dictionaries(
            {"containers": CONTAINERS},
            optional={
                "initContainers": CONTAINERS | st.none(),
                "volumes": st.none()
                | st.lists(st.fixed_dictionaries({"name": NAMES, "emptyDir": st.just({})})),
                "hostNetwork": st.booleans() | st.none(),
                "resources": RESOURCES,
                "shareProcessNamespace": st.booleans(),
            },
        )
    },
    optional={
        "metadata": st.none()
        | st.fixed_dictionaries(
            {},
            optional={
                "name": st.just("p"),
                "labels": st.none() | st.just({"app": "logging"}),
                "annotations": st.none()
                | st.dictionaries(
                    st.sampled_from([keys.ORDERS, keys.INJECTED, "team", keys.CAPTURE]), st.text()
                ),
            },
        )
    },
)


@settings(deadline=None)
@given(pod=PODS, level=st.sampled_from(Level), runs=st.booleans())
def test_what_must_hold_of_every_manifest_holds_of_invented_pods(pod, level, runs):
    check_properties(pod, level, (CAPTURE, EVERY_POD) if runs else ())


# Orders


def test_a_new_pod_gets_the_orders_that_the_contract_says_and_the_sidecar_can_read():
    pod, outcome = admit(a_pod(), captures=(CAPTURE,))
    value = pod["metadata"]["annotations"][keys.ORDERS]
    meta = msgspec.structs.replace(look(a_pod()).meta, namespace=NAMESPACE)
    assert value == dump_orders(orders_of_new_pod(meta, [CAPTURE], COLLECTORS, NOW))
    orders = parse_orders(value)
    assert orders.collectors == COLLECTORS
    assert [entry.id for entry in orders.captures] == outcome.facts["captures"]
    hook = pod["spec"]["initContainers"][0]["lifecycle"]
    assert hook == {"postStart": {"exec": {"command": ["/nightcap/dormant", "--wait", "3s"]}}}


@pytest.mark.parametrize(
    "capture",
    [
        a_capture(suspend=True),
        a_capture(duration="30s"),
        a_capture(namespace="other"),
        a_capture(labels={"app": "frontend"}),
    ],
    ids=["suspended", "over", "other-namespace", "other-label"],
)
def test_a_capture_that_is_not_this_pods_gives_no_orders_and_no_hook(capture):
    pod, _ = admit(a_pod(), captures=(resolved(capture),))
    assert keys.ORDERS not in pod["metadata"]["annotations"]
    assert "lifecycle" not in pod["spec"]["initContainers"][0]


def test_without_a_wait_there_is_no_hook_but_there_are_orders():
    template = replace(TEMPLATE, wait="")
    view = look(a_pod())
    resources = sidecar_resources(view, SIZES, NamespaceFacts(NAMESPACE))
    pod = apply(a_pod(), inject(view, template, Profile.STRICT, resources, "{}"))
    assert keys.ORDERS in pod["metadata"]["annotations"]
    assert "lifecycle" not in pod["spec"]["initContainers"][0]


def test_a_copy_of_an_injected_pod_loses_its_originals_orders():
    original, _ = admit(a_pod(), captures=(CAPTURE,))
    copy, outcome = admit(original)
    assert outcome.reason == "already-injected"
    assert keys.ORDERS not in copy["metadata"]["annotations"]
    assert keys.INJECTED in copy["metadata"]["annotations"]


def test_a_copy_names_the_release_and_profile_that_it_carries():
    original, _ = admit(a_pod(), Level.BASELINE)
    sidecar = original["spec"]["initContainers"][0]
    next(v for v in sidecar["env"] if v["name"] == paths.ENV_RELEASE)["value"] = "0.9.0"
    original["metadata"]["annotations"][keys.INJECTED] = "forged"
    copy, _ = admit(original)
    injected = json.loads(copy["metadata"]["annotations"][keys.INJECTED])
    assert injected == {"release": "0.9.0", "orders": 1, "profile": "baseline"}


def test_a_capture_that_starts_between_two_calls_reaches_the_pod_with_its_hook():
    first, _ = admit(a_pod())
    second, outcome = admit(first, captures=(CAPTURE,))
    assert outcome.decision == "kept"
    assert keys.ORDERS in second["metadata"]["annotations"]
    assert "postStart" in second["spec"]["initContainers"][0]["lifecycle"]


def test_a_restart_policy_that_another_webhook_stripped_is_put_back():
    """aws/amazon-eks-pod-identity-webhook#208 and five more: the pod would never start."""
    pod, _ = admit(a_pod(initContainers=[a_container("migrate")]))
    del pod["spec"]["initContainers"][0]["restartPolicy"]
    pod["spec"]["initContainers"].insert(0, a_container("mesh-init"))
    mended, _ = admit(pod)
    names = [c["name"] for c in mended["spec"]["initContainers"]]
    assert names == ["mesh-init", "nightcap", "migrate"]
    assert mended["spec"]["initContainers"][1]["restartPolicy"] == "Always"


# Size


def entry(number, expression=""):
    return CaptureOrder(
        id=f"{number:08x}", namespace=NAMESPACE, name="c" * 60, until=10**9, filter=expression
    )


def test_orders_that_do_not_fit_are_cut_to_what_a_sidecar_reads():
    many = Orders(COLLECTORS, tuple(entry(n) for n in range(100)))
    assert len(parse_orders(orders_value(look(a_pod()), TEMPLATE, many)).captures) == 64
    long = Orders(COLLECTORS, tuple(entry(n, "x" * 1024) for n in range(64)))
    value = orders_value(look(a_pod()), TEMPLATE, long)
    kept = parse_orders(value).captures
    assert 0 < len(kept) < 64
    assert kept == long.captures[: len(kept)]


@pytest.mark.parametrize("left", [0, 40, 200, 1000, 10_000])
def test_annotations_never_grow_beyond_what_the_api_server_takes(left):
    full = a_pod(meta={"annotations": {"a": "b" * (MAX_ANNOTATIONS_BYTES - left - 1)}})
    result, outcome = admit(full, captures=(CAPTURE,))
    size = sum(len(k) + len(v) for k, v in result["metadata"]["annotations"].items())
    assert size <= MAX_ANNOTATIONS_BYTES
    assert outcome.decision == ("injected" if left >= 200 else "skipped")
    assert has_room(look(full), TEMPLATE) == (left >= 200)


def test_nothing_is_stripped_from_a_pod_that_carries_nothing_of_ours():
    assert strip(look(a_pod(meta={"annotations": {"team": "x"}}))) == ()


@pytest.mark.parametrize(("left", "is_told"), [(0, False), (30, False), (100, True)])
def test_why_a_pod_was_left_is_not_written_where_there_is_no_room(left, is_told):
    full = a_pod(meta={"annotations": {"a": "b" * (MAX_ANNOTATIONS_BYTES - left - 1)}})
    assert bool(strip(look(full), "injection-off")) is is_told


def test_what_is_no_pod_is_said_to_be_none():
    for text in (b"null", b"[]", b"{}", b'{"spec": {"containers": 3}}', b"\xff", b'{"spec": 1'):
        with pytest.raises(NotAPod):
            read_pod(text)


def test_the_profile_of_each_level_is_what_is_written():
    strict, _ = admit(a_pod())
    baseline, _ = admit(a_pod(), Level.BASELINE)
    of = lambda pod: pod["spec"]["initContainers"][0]["securityContext"]  # noqa: E731
    assert of(strict)["capabilities"] == {"drop": ["ALL"], "add": ["NET_RAW"]}
    dropped = of(baseline)["capabilities"]
    assert set(dropped) == {"drop"}
    assert len(dropped["drop"]) == 13
    assert not {"NET_RAW", "ALL"} & set(dropped["drop"])
    assert {**of(strict), "capabilities": 0} == {**of(baseline), "capabilities": 0}


def test_a_guaranteed_pod_stays_one():
    full = {"cpu": "1", "memory": "1Gi"}
    pod = a_pod(containers=[a_container(resources={"requests": full, "limits": full})])
    assert quality_of_service(look(admit(pod)[0])) == QualityOfService.GUARANTEED


def test_an_ordinary_pod_is_injected_at_all():
    assert isinstance(decide_on(a_pod(), Level.PRIVILEGED), Inject)
