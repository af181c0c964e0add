import pytest
from msgspec import structs

from controller.injection import (
    Patience,
    coverages,
    held_pods,
    is_enabled,
    missed_message,
    why_to_switch_off,
)
from nightcap.contract import keys
from nightcap.contract.coverage import Coverage
from nightcap.contract.objects import ContainerStatus
from tests.unit.controller.builders import NOW, a_namespace, a_pod, uid_of

PATIENCE = Patience(most_pods=2, seconds=60)


def a_held_pod(name, reason="ImagePullBackOff", **changes):
    pod = a_pod(name, phase="Pending", **changes)
    status = ContainerStatus(name="nightcap", started=False, state={"waiting": {"reason": reason}})
    return structs.replace(pod, status=structs.replace(pod.status, init_containers=(status,)))


def after(names, seconds):
    """The pods as held since so many seconds."""
    known = {uid_of(name): NOW - seconds for name in names}
    return held_pods([a_held_pod(name) for name in names], known, NOW)


def test_a_pod_is_held_since_it_was_first_seen_to_be():
    (first,) = held_pods([a_held_pod("a"), a_pod("b")], {}, NOW)
    assert (first.name, first.reason, first.since) == ("a", "ImagePullBackOff", NOW)
    (again,) = held_pods([a_held_pod("a", "ErrImagePull")], {first.uid: first.since}, NOW + 30)
    assert again.since == NOW


def test_a_clock_that_was_set_back_makes_nobody_wait_longer_than_now():
    (pod,) = held_pods([a_held_pod("a")], {uid_of("a"): NOW + 3600}, NOW)
    assert pod.since == NOW


def test_pods_that_go_or_have_no_sidecar_of_ours_are_not_held():
    leaving = a_held_pod("a", deleted=NOW)
    stranger = a_held_pod("b", injected=False)
    assert held_pods([leaving, stranger], {}, NOW) == ()


@pytest.mark.parametrize(
    ("names", "seconds", "off"),
    [
        (["a", "b", "c"], 60, True),
        (["a", "b", "c"], 59.9, False),
        (["a", "b"], 3600, False),
        ([], 3600, False),
    ],
)
def test_injection_goes_off_when_more_than_a_few_pods_have_waited_long(names, seconds, off):
    assert bool(why_to_switch_off(after(names, seconds), PATIENCE, NOW)) is off


def test_pods_that_wait_since_a_moment_ago_do_not_count():
    held = (*after(["a", "b"], 600), *after(["c", "d"], 5))
    assert why_to_switch_off(held, PATIENCE, NOW) == ""


def test_the_reason_names_a_few_pods_and_the_kubelets_word():
    said = why_to_switch_off(after(["a", "b", "c", "d", "e"], 61), PATIENCE, NOW)
    assert said == (
        "5 pods have waited 60 s and longer for the container nightcap, which does not start "
        "(ImagePullBackOff): shop/a, shop/b, shop/c and 2 more"
    )


def test_living_pods_of_enabled_namespaces_are_counted():
    namespaces = [
        a_namespace(created=NOW - 86400),
        a_namespace(name="quiet", enabled=False),
        a_namespace(name="leaving", deleted=NOW),
    ]
    pods = [
        a_pod("a"),
        a_held_pod("b"),
        a_pod("c", injected=False),
        a_pod("d", injected=False, host_network=True),
        a_pod("over", injected=False, phase="Succeeded"),
        a_pod("going", injected=False, deleted=NOW),
        a_pod("e", injected=False, namespace="quiet"),
        a_pod("f", injected=False, namespace="leaving"),
        a_pod("g", injected=False, namespace="unknown"),
    ]
    counts, missed = coverages(namespaces, pods)
    assert dict(counts) == {
        Coverage.INJECTED: 1,
        Coverage.HELD: 1,
        Coverage.MISSED: 1,
        Coverage.HOST_NETWORK: 1,
    }
    assert {name: found.names for name, found in missed.items()} == {"shop": {"c"}}
    assert [is_enabled(namespace) for namespace in namespaces] == [True, False, False]


def missed_of(*pods):
    """What an Event says of these pods."""
    _, missed = coverages([a_namespace(created=NOW - 86400)], pods)
    return missed_message(missed["shop"])


def test_an_event_says_which_pods_why_and_what_to_do():
    left = a_pod("left", injected=False, annotations={keys.NOT_INJECTED: "quota: ResourceQuota q"})
    assert missed_of(a_pod("b", injected=False), left, a_pod("a", injected=False)) == (
        "3 pods have no capture sidecar, so no capture records them. kubectl nightcap enable shop "
        "names the command that restarts what needs it. left: a ResourceQuota of the namespace had "
        "no room for the sidecar (ResourceQuota q); a, b: created while the webhook was away "
        "(restart them)"
    )


def test_an_event_names_a_few_of_many():
    said = missed_of(*(a_pod(name, injected=False) for name in "abcdefg"))
    assert "a, b, c, d, e and 2 more: created while" in said
    assert missed_of(a_pod("a", injected=False)).startswith("1 pod has no capture sidecar")
