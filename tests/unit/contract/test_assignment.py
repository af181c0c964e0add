import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightcap.contract import keys
from nightcap.contract.assignment import (
    ResolvedCapture,
    annotation_capture_name,
    fitting_orders,
    orders_of_new_pod,
    selects,
    shorten,
)
from nightcap.contract.captures import PacketCapture, Spec, parse_capture, resolve
from nightcap.contract.objects import ObjectMeta, OwnerReference
from nightcap.contract.orders import (
    MAX_CAPTURES,
    MAX_COLLECTORS,
    MAX_ORDERS_BYTES,
    CaptureOrder,
    dump_orders,
    parse_orders,
)
from nightcap.contract.selectors import LabelSelector

ON = {keys.CAPTURE: "on"}
COLLECTORS = (("10.96.0.9", 20443),)


def a_pod(name="web-1", namespace="shop", labels=None, annotations=None, owner=None):
    owners = (OwnerReference(kind=owner[0], name=owner[1], controller=True),) if owner else ()
    return ObjectMeta(
        name=name,
        namespace=namespace,
        labels=labels or {"app": "web"},
        annotations=annotations,
        owner_references=owners,
    )


def a_capture(name="dns", namespace="shop", source=None, uid="ab", **spec):
    labels = {keys.SOURCE: source} if source else {}
    metadata = ObjectMeta(name=name, namespace=namespace, uid=uid, labels=labels)
    return PacketCapture(metadata=metadata, spec=Spec(**spec))


WEB = LabelSelector(match_labels={"app": "web"})
DB = LabelSelector(match_labels={"app": "db"})


@pytest.mark.parametrize(
    ("capture", "pod", "expected"),
    [
        pytest.param(a_capture(), a_pod(), True, id="no selector: every pod"),
        pytest.param(a_capture(selector=LabelSelector()), a_pod(), True, id="empty selector"),
        pytest.param(a_capture(selector=WEB), a_pod(), True, id="matches"),
        pytest.param(a_capture(selector=DB), a_pod(), False, id="does not match"),
        pytest.param(a_capture(pod_names=("web-1",)), a_pod(), True, id="named"),
        pytest.param(a_capture(pod_names=("web-2",)), a_pod(), False, id="not named"),
        pytest.param(a_capture(pod_names=("",)), a_pod(""), False, id="has no name yet"),
        pytest.param(a_capture(namespace="bank"), a_pod(), False, id="another namespace"),
        pytest.param(a_capture(namespace=""), a_pod(namespace=""), False, id="no namespace"),
        pytest.param(
            a_capture("pod-web-1", source="pod", pod_names=("web-1",)), a_pod(), True, id="listed"
        ),
        pytest.param(
            a_capture("pod-web-1", source="pod"), a_pod(annotations=ON), True, id="annotated"
        ),
        pytest.param(
            a_capture("pod-web-1", source="pod"), a_pod(), False, id="an empty list is not all"
        ),
        pytest.param(
            a_capture("pod-web-2", source="pod"), a_pod(annotations=ON), False, id="another's"
        ),
        pytest.param(
            a_capture("pod-web-1"), a_pod(annotations=ON), True, id="a person's, of that name"
        ),
        pytest.param(
            a_capture("pod-web-1", pod_names=("x",)), a_pod(annotations=ON), False, id="a person's"
        ),
        pytest.param(
            a_capture("pod-web-1", source="pod"),
            a_pod(annotations={keys.CAPTURE: "off"}),
            False,
            id="switched off",
        ),
        pytest.param(a_capture("namespace", source="namespace"), a_pod(), True, id="namespace"),
        pytest.param(
            a_capture("namespace", source="namespace", namespace="bank"),
            a_pod(annotations=ON),
            False,
            id="another namespace's",
        ),
    ],
)
def test_which_pods_a_capture_selects(capture, pod, expected):
    assert selects(capture, pod) is expected


def test_a_pod_of_an_annotated_template_is_selected_before_it_has_a_name():
    pod = a_pod("", annotations=ON, owner=("StatefulSet", "web"))
    assert selects(a_capture("statefulset-web", source="controller"), pod)


@pytest.mark.parametrize(
    ("pod", "name", "source"),
    [
        (a_pod(), "pod-web-1", "pod"),
        (a_pod(owner=("StatefulSet", "web")), "statefulset-web", "controller"),
        (a_pod(owner=("ReplicaSet", "web-abc")), "replicaset-web-abc", "controller"),
        (
            a_pod(owner=("ReplicaSet", "web-abc"), labels={"pod-template-hash": "abc"}),
            "deployment-web",
            "controller",
        ),
        (
            a_pod(owner=("ReplicaSet", "web-xyz"), labels={"pod-template-hash": "abc"}),
            "replicaset-web-xyz",
            "controller",
        ),
    ],
)
def test_the_name_of_an_annotations_capture(pod, name, source):
    assert annotation_capture_name(pod) == (name, source)


def test_equal_options_share_a_name_and_other_options_have_another():
    def name(**options):
        annotations = {**ON, **{f"nightcap.dev/{key}": value for key, value in options.items()}}
        return annotation_capture_name(a_pod(annotations=annotations, owner=("Job", "load")))[0]

    assert name(filter="tcp", duration="5m") == name(duration="5m", filter="tcp")
    assert len({name(), name(filter="tcp"), name(filter="udp"), name(duration="tcp")}) == 4
    assert name() == "job-load"


def test_the_pods_of_one_deployment_share_a_name_over_rollouts():
    def name(hash_):
        labels = {"pod-template-hash": hash_}
        return annotation_capture_name(a_pod(labels=labels, owner=("ReplicaSet", f"web-{hash_}")))

    assert name("abc") == name("def") == ("deployment-web", "controller")


@given(st.from_regex(r"\A[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\Z"))
def test_a_cut_name_is_still_a_name_and_a_short_one_is_left(name):
    short = shorten(name)
    assert len(short) <= 63
    assert short[0].isalnum()
    assert short[-1].isalnum()
    assert (short == name) is (len(name) <= 63)


def test_cut_names_are_told_apart():
    assert shorten("x" * 70 + "a") != shorten("x" * 70 + "b")


def resolved(name, uid, **spec):
    capture = a_capture(name, uid=uid, **spec)
    return ResolvedCapture(capture, resolve(capture))


def test_a_new_pod_gets_what_runs_and_selects_it_in_the_order_of_ids():
    captures = [
        resolved("c", "cc"),
        resolved("a", "aa", selector=WEB),
        resolved("d", "dd", selector=DB),
        resolved("s", "ee", suspend=True),
        resolved("e", "ff", namespace="bank"),
    ]
    orders = orders_of_new_pod(a_pod(), captures, COLLECTORS, now=100)
    assert [entry.name for entry in orders.captures] == ["a", "c"]
    assert orders.collectors == COLLECTORS
    assert orders_of_new_pod(a_pod(), captures, COLLECTORS, now=3600).captures == ()


def entry(number, filter_=""):
    return CaptureOrder(f"{number:04x}", "shop", f"c{number}", 5, filter_)


def test_orders_never_hold_more_than_a_sidecar_reads():
    orders = fitting_orders(COLLECTORS * 20, [entry(n) for n in range(200)])
    assert len(orders.captures) == MAX_CAPTURES
    assert len(orders.collectors) == MAX_COLLECTORS
    assert parse_orders(dump_orders(orders)) == orders


def test_orders_are_never_longer_than_a_sidecar_reads():
    orders = fitting_orders(COLLECTORS, [entry(n, '"' * 1024) for n in range(64)])
    assert 10 < len(orders.captures) < 64
    assert len(dump_orders(orders)) <= MAX_ORDERS_BYTES
    assert parse_orders(dump_orders(orders)) == orders


def test_what_a_pod_has_already_stays_when_not_all_fit():
    has = {f"{n:04x}" for n in range(100, 130)}
    orders = fitting_orders(COLLECTORS, [entry(n) for n in range(200)], first=has)
    assert has <= {item.id for item in orders.captures}
    assert [item.id for item in orders.captures] == sorted(item.id for item in orders.captures)


@pytest.mark.parametrize(
    ("selector", "labels", "selected"),
    [
        ("", {}, True),
        ("all()", None, True),
        ('app  ==  "logging"', {"app": "logging"}, True),
        ('app  ==  "logging"', {"app": "web"}, False),
        ("app ==", {"app": "web"}, False),
    ],
)
def test_a_calico_capture_selects_by_its_sentence(selector, labels, selected):
    raw = {
        "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "dns", "namespace": "shop", "uid": "ab"},
        "spec": {"selector": selector},
    }
    capture = parse_capture(json.dumps(raw).encode())
    pod = ObjectMeta(name="web-1", namespace="shop", labels=labels)
    assert selects(capture, pod) is selected
    assert not selects(capture, ObjectMeta(name="web-1", namespace="mail", labels=labels))
