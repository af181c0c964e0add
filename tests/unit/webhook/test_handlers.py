import json
import threading

import pytest

from nightcap.contract import keys
from nightcap.contract.coverage import REFUSALS
from nightcap.pcap.bounded import check_filter
from tests.unit.webhook.builders import (
    NOW,
    SIZES,
    TEMPLATE,
    KnownCluster,
    a_capture,
    a_container,
    a_pod,
    a_quota,
    a_review,
    apply,
    resolved,
)
from webhook.eligibility import SAID_ON_THE_POD, SkipReason
from webhook.handlers import (
    AnnotationHandler,
    CaptureHandler,
    FilterCheck,
    NotCompiled,
    PodHandler,
)
from webhook.review import read_request
from webhook.shape import Level


def ask(handler, review):
    return handler(read_request(json.dumps(review).encode()))


def pods(cluster=None, level=Level.PRIVILEGED):
    handler = PodHandler(
        cluster or KnownCluster(),
        lambda: TEMPLATE,
        SIZES,
        own_namespace="nightcap-system",
        clock=lambda: NOW,
    )
    return handler.at(level)


def test_an_injected_pod_is_told_in_the_audit_log_with_its_captures():
    capture = resolved(a_capture())
    outcome = ask(pods(KnownCluster(running=(capture,))), a_review(object=a_pod()))
    assert outcome.decision == "injected"
    assert outcome.answer.audit == {
        "decision": "injected",
        "release": "1.2.3",
        "captures": capture.capture.metadata.uid,
    }
    assert outcome.answer.warnings == ()


def test_the_namespace_of_the_request_counts_when_the_pod_names_none():
    """`metadata.namespace` is empty on most creations."""
    cluster = KnownCluster(running=(resolved(a_capture(namespace="other")),))
    pod = a_pod()
    outcome = ask(pods(cluster), a_review(object=pod, namespace="other"))
    assert keys.ORDERS in apply(pod, outcome.answer.patch)["metadata"]["annotations"]
    outcome = ask(pods(cluster), a_review(object=pod))
    assert keys.ORDERS not in apply(pod, outcome.answer.patch)["metadata"]["annotations"]


def test_a_dry_run_is_answered_like_any_other():
    real = ask(pods(), a_review(object=a_pod()))
    dry = ask(pods(), a_review(object=a_pod(), dryRun=True))
    assert real == dry


def test_the_log_names_a_pod_that_has_only_a_generate_name():
    assert ask(pods(), a_review(object=a_pod())).facts["object"] == "logging-5d8f9-*"


@pytest.mark.parametrize(
    ("review", "reason"),
    [
        (a_review(operation="UPDATE", object=a_pod()), "not-a-pod-creation"),
        (a_review("pods", subResource="ephemeralcontainers", object={}), "not-a-pod-creation"),
        (a_review(object=None), "unreadable"),
        (a_review(), "unreadable"),
        (a_review(object={"spec": {"containers": "x"}}), "unreadable"),
        (
            a_review(
                object=a_pod(
                    meta={
                        "annotations": {"kubernetes.io/config.mirror": "x", keys.ORDERS: "forged"}
                    }
                )
            ),
            "mirror-pod",
        ),
    ],
    ids=["update", "subresource", "null", "absent", "no-pod", "mirror"],
)
def test_what_is_not_to_be_touched_gets_no_patch_at_all(review, reason):
    outcome = ask(pods(), review)
    assert (outcome.decision, outcome.reason, outcome.answer.patch) == ("skipped", reason, b"")
    assert not outcome.answer.refusal


def test_a_skipped_pod_loses_forged_annotations_and_is_told_why():
    pod = a_pod(meta={"annotations": {keys.ORDERS: "x", keys.INJECTED: "y"}}, hostNetwork=True)
    outcome = ask(pods(), a_review(object=pod))
    assert apply(pod, outcome.answer.patch)["metadata"]["annotations"] == {}
    (warning,) = outcome.answer.warnings
    assert warning.startswith("nightcap: not injected: ")


def test_whoever_opted_out_is_not_warned():
    pod = a_pod(meta={"labels": {keys.INJECT: "disabled"}})
    outcome = ask(pods(), a_review(object=pod))
    assert (outcome.reason, outcome.answer.warnings) == ("opted-out", ())


def test_a_bad_annotation_is_told_to_whoever_creates_the_pod():
    pod = a_pod(meta={"annotations": {keys.CAPTURE: "yes"}})
    outcome = ask(pods(), a_review(object=pod))
    assert outcome.decision == "injected"
    (warning,) = outcome.answer.warnings
    assert "nightcap.dev/capture" in warning


def test_resources_follow_the_namespaces_quota():
    cluster = KnownCluster(quotas=(a_quota("limits.memory"),))
    outcome = ask(pods(cluster), a_review(object=a_pod(containers=[a_container()])))
    sidecar = apply(a_pod(), outcome.answer.patch)["spec"]["initContainers"][0]
    assert sidecar["resources"]["limits"] == {"memory": "0"}


def test_a_pod_that_a_quota_would_refuse_for_the_sidecar_is_told_why():
    amount = {"cpu": "1", "memory": "1Gi"}
    pod = a_pod(containers=[a_container(resources={"requests": amount, "limits": amount})])
    cluster = KnownCluster(quotas=(a_quota(**{"requests.cpu": "1"}),))
    outcome = ask(pods(cluster), a_review(object=pod))
    assert (outcome.decision, outcome.reason) == ("skipped", "quota")
    why = "ResourceQuota compute: requests.cpu is 1, of which 0 is used"
    (warning,) = outcome.answer.warnings
    assert why in warning
    # Nobody sees the warning of a pod that a controller creates.
    left = apply(pod, outcome.answer.patch)
    assert left["metadata"]["annotations"] == {keys.NOT_INJECTED: f"quota: {why}"}
    assert left["spec"] == pod["spec"]
    again = ask(pods(cluster), a_review(object=left))
    assert again.answer.patch == b""
    injected = apply(left, ask(pods(), a_review(object=left)).answer.patch)
    assert set(injected["metadata"]["annotations"]) == {keys.INJECTED}


def test_why_a_pod_was_left_is_written_only_where_nothing_else_of_it_says_so():
    told = {str(reason) for reason in SAID_ON_THE_POD}
    assert told == set(REFUSALS)
    assert str(SkipReason.HOST_NETWORK) not in told


def capture_review(spec, operation="CREATE"):
    return a_review(
        "packetcaptures",
        operation,
        group=keys.GROUP,
        name="dns",
        object={"metadata": {"name": "dns", "namespace": "storefront"}, "spec": spec},
    )


def test_a_capture_of_calicos_group_is_refused_in_the_same_way():
    def review(spec):
        return a_review(
            "packetcaptures",
            group=keys.CALICO_GROUP,
            name="dns",
            object={
                "apiVersion": "projectcalico.org/v3",
                "metadata": {"name": "dns", "namespace": "storefront"},
                "spec": spec,
            },
        )

    handler = CaptureHandler(FilterCheck(check_filter), KnownCluster(), lambda: NOW)
    rules = [{"protocol": "UDP", "ports": [53]}]
    good = review({"selector": 'app  ==  "logging"', "filters": rules})
    assert ask(handler, good).answer.refusal == ""
    refusal = ask(handler, review({"selector": 'app = "logging"'})).answer.refusal
    assert 'expected "=="' in refusal
    assert "\n      ^" in refusal
    assert "'dns'" in ask(handler, review({"filters": [{"ports": ["dns"]}]})).answer.refusal


def test_a_capture_is_refused_with_all_that_is_wrong_with_it():
    handler = CaptureHandler(FilterCheck(check_filter), KnownCluster(), lambda: NOW)
    outcome = ask(handler, capture_review({"duration": "-1s", "snapLength": 0}))
    assert outcome.decision == "denied"
    assert outcome.answer.refusal.startswith("capture dns is refused: ")
    assert "duration" in outcome.answer.refusal
    assert "snapLength" in outcome.answer.refusal


def test_libpcap_itself_compiles_the_filters():
    handler = CaptureHandler(FilterCheck(check_filter), KnownCluster(), lambda: NOW)
    assert ask(handler, capture_review({"filter": "udp port 53"})).decision == "allowed"
    outcome = ask(handler, capture_review({"filter": "udp port port"}))
    assert outcome.decision == "denied"
    assert "syntax error" in outcome.answer.refusal


def test_what_is_no_capture_passes():
    handler = CaptureHandler(check_filter, KnownCluster(), lambda: NOW)
    assert ask(handler, a_review(object=a_pod())).decision == "allowed"
    review = capture_review({"duration": "-1s"})
    review["request"]["subResource"] = "status"
    assert ask(handler, review).decision == "allowed"


def test_annotations_are_warned_of_and_never_refused():
    handler = AnnotationHandler(check_filter)
    meta = {"name": "shop", "annotations": {keys.CAPTURE: "on", keys.FILTER: "port port"}}
    outcome = ask(handler, a_review("namespaces", "UPDATE", object={"metadata": meta}))
    assert (outcome.decision, outcome.reason, outcome.answer.refusal) == ("allowed", "faults", "")
    assert "syntax error" in outcome.answer.warnings[0]


def test_filters_are_compiled_few_at_a_time_and_the_rest_let_through():
    inside, leave = threading.Event(), threading.Event()

    def slow(expression):
        inside.set()
        leave.wait(10)

    compiling = FilterCheck(slow, at_once=1, patience_seconds=0.05)
    first = threading.Thread(target=compiling, args=("udp",))
    first.start()
    assert inside.wait(10)
    with pytest.raises(NotCompiled):
        compiling("tcp")
    outcome = ask(
        CaptureHandler(compiling, KnownCluster(), lambda: NOW), capture_review({"filter": "tcp"})
    )
    assert (outcome.decision, outcome.reason) == ("allowed", "busy")
    assert outcome.answer.warnings
    leave.set()
    first.join(10)
    assert compiling("tcp") is None


@pytest.mark.parametrize("handler", [CaptureHandler, AnnotationHandler])
def test_a_filter_that_could_not_be_compiled_in_time_is_let_through_and_told(handler):
    def late(expression):
        return check_filter(expression, timeout=0.001)

    meta = {"name": "dns", "annotations": {keys.CAPTURE: "on", keys.FILTER: "udp port 53"}}
    review = capture_review({"filter": "udp port 53"})
    review["request"]["object"]["metadata"] = meta
    more = (KnownCluster(), lambda: NOW) if handler is CaptureHandler else ()
    outcome = ask(handler(FilterCheck(late), *more), review)
    assert (outcome.decision, outcome.reason, outcome.answer.refusal) == ("allowed", "slow", "")
    if handler is CaptureHandler:
        (warning,) = outcome.answer.warnings
        assert "the filter took longer than 0.001 s to compile; " in warning


def test_while_injection_is_off_new_pods_start_without_and_lose_forged_annotations():
    pod = a_pod(meta={"annotations": {keys.ORDERS: "x"}})
    outcome = ask(pods(KnownCluster(injecting=False)), a_review(object=pod))
    assert (outcome.decision, outcome.reason) == ("skipped", "injection-off")
    left = apply(pod, outcome.answer.patch)["metadata"]["annotations"]
    assert left == {keys.NOT_INJECTED: "injection-off"}
    (warning,) = outcome.answer.warnings
    assert "switched off" in warning


def test_a_pod_that_was_injected_by_this_creation_keeps_its_sidecar_when_injection_goes_off():
    created = apply(a_pod(), ask(pods(), a_review(object=a_pod())).answer.patch)
    outcome = ask(pods(KnownCluster(injecting=False)), a_review(object=created))
    assert outcome.decision == "kept"
