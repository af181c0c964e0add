import logging
import time

import pytest

from nightcap.contract import keys
from nightcap.contract.objects import Service, ServiceSpec
from nightcap.kube import paths
from nightcap.kube.reflector import Change
from tests.patience import eventually
from tests.unit.kube.small_api import SmallApi
from tests.unit.webhook.builders import NAMESPACE, a_capture, a_quota
from webhook.cache import CaptureIndex, ClusterCache, NamespaceIndex, addresses_of
from webhook.facts import NotAtOnce

ENABLED = {keys.INJECT: keys.INJECT_ENABLED}


@pytest.fixture
def api():
    server = SmallApi()
    yield server
    server.close()


@pytest.fixture
def cache(api):
    found = ClusterCache(api.client(), "nightcap-system")
    yield found
    found.stop()


def begin(cache):
    cache.start()
    eventually(lambda: not cache.missing, "the first lists", said=lambda: str(cache.missing))


def put_namespace(api, name, labels=None):
    api.put(paths.namespace(name), metadata={"namespace": "", "labels": labels})


def test_nothing_is_known_before_the_first_lists(cache):
    assert set(cache.missing) == {
        "namespaces", "packetcaptures", "collector", "limitranges", "resourcequotas", "switch",
        "captureceilings",
    }  # fmt: skip
    assert cache.namespace(NAMESPACE).enabled is None
    assert cache.captures(NAMESPACE) == ()
    assert cache.collectors == ()


def test_what_decisions_need_is_watched(api, cache):
    put_namespace(api, NAMESPACE, ENABLED)
    put_namespace(api, "quiet")
    api.put(
        f"{paths.packetcaptures()}/dns",
        metadata={"namespace": NAMESPACE, "creationTimestamp": "2026-11-22T02:00:00Z"},
        spec={"filter": "udp port 53"},
        status={"phase": "Capturing"},
    )
    api.put(
        paths.service("nightcap-system", "nightcap-collector"),
        spec={"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "fd00::9"]},
    )
    begin(cache)
    assert cache.namespace(NAMESPACE).enabled is True
    assert cache.namespace("quiet").enabled is False
    (resolved,) = cache.captures(NAMESPACE)
    assert resolved.settings.filter == "udp port 53"
    assert resolved.capture.status is None
    assert cache.collectors == (("10.96.0.9", 20443), ("fd00::9", 20443))
    selectors = [query.get("fieldSelector") for _, path, query, _ in api.requests
                 if path.endswith("/services")]  # fmt: skip
    assert set(selectors) == {"metadata.name=nightcap-collector"}


def test_captures_of_calicos_group_are_known_when_it_is_ours(api, cache):
    api.answers["GET", paths.group_version(keys.CALICO_GROUP)] = [
        (200, {"resources": [{"name": "packetcaptures"}]})
    ]
    api.answers["GET", paths.api_service(keys.CALICO_GROUP)] = [(200, {"spec": {}})]
    api.put(
        f"{paths.packetcaptures(group=keys.CALICO_GROUP)}/dns",
        apiVersion="projectcalico.org/v3",
        metadata={"namespace": NAMESPACE, "creationTimestamp": "2026-11-22T02:00:00Z"},
        spec={"selector": "app == 'web'"},
    )
    begin(cache)
    deadline = time.monotonic() + 10
    while not cache.captures(NAMESPACE):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (resolved,) = cache.captures(NAMESPACE)
    assert resolved.capture.group == keys.CALICO_GROUP
    assert not resolved.settings.has_end


def test_readiness_does_not_wait_for_calicos_group(api, cache):
    """An API server that does not answer for it must not keep pods without their sidecar."""
    api.answers["GET", paths.group_version(keys.CALICO_GROUP)] = [(500, {"code": 500})]
    begin(cache)
    assert cache.missing == ()


def test_a_label_that_the_watch_learns_of_a_moment_late_counts(api):
    """`kubectl label` and the pod's creation may be closer than our watch."""
    put_namespace(api, NAMESPACE)
    cache = ClusterCache(api.client(), "nightcap-system", lag_seconds=5)
    begin(cache)
    put_namespace(api, NAMESPACE, ENABLED)  # no waiting: the next line is milliseconds later
    assert cache.namespace(NAMESPACE).enabled is True
    cache.stop()


def test_whoever_may_not_wait_is_told_to_ask_elsewhere(api, cache):
    put_namespace(api, NAMESPACE)
    put_namespace(api, "other", ENABLED)
    begin(cache)
    with pytest.raises(NotAtOnce):
        cache.namespace(NAMESPACE, wait=False)
    assert cache.namespace(NAMESPACE).enabled is False
    assert cache.namespace("other", wait=False).enabled is True
    assert cache.namespace("unknown", wait=False).enabled is None


def test_quotas_and_limit_ranges_are_known_with_their_namespace(api, cache):
    put_namespace(api, NAMESPACE, ENABLED)
    meta = {"namespace": NAMESPACE}
    api.put(f"{paths.resource_quotas()}/a", metadata=meta, status={"hard": {"limits.cpu": "1"}})
    api.put(f"{paths.resource_quotas()}/b", metadata={"namespace": "other"}, status={"hard": {}})
    limits = [{"type": "Container", "default": {"memory": "64Mi"}}]
    api.put(f"{paths.limit_ranges()}/c", metadata=meta, spec={"limits": limits})
    begin(cache)
    facts = cache.namespace(NAMESPACE)
    assert facts.limits_counted == {"cpu"}
    assert facts.default_limits() == {"memory": "64Mi"}
    assert [quota.metadata.name for quota in facts.quotas] == ["a"]


def test_an_index_forgets_what_is_deleted_and_replaces_what_changes():
    index = NamespaceIndex()
    old, new = a_quota("limits.cpu"), a_quota("limits.memory")
    index.apply(Change("added", old))
    index.apply(Change("modified", new, old))
    assert index.of("") == (new,)
    index.apply(Change("deleted", new, new))
    assert index.of("") == ()


def added(capture):
    return Change("added", capture)


def test_captures_are_found_by_namespace_and_forgotten_when_deleted():
    index = CaptureIndex()
    here, there = a_capture("a", uid="a"), a_capture("b", uid="b", namespace="other")
    index.apply(added(here))
    index.apply(added(there))
    assert [r.capture for r in index.of(NAMESPACE)] == [here]
    index.apply(Change("deleted", here, here))
    assert index.of(NAMESPACE) == ()
    assert [r.capture for r in index.of("other")] == [there]


def test_a_modified_capture_takes_the_place_of_its_former_self():
    index = CaptureIndex()
    old, new = a_capture("a", uid="a"), a_capture("a", uid="a", suspend=True)
    index.apply(added(a_capture("z", uid="z")))
    index.apply(added(old))
    index.apply(Change("modified", new, old))
    assert [r.settings.suspended for r in index.of(NAMESPACE)] == [False, True]


def test_a_capture_whose_spec_is_bad_is_passed_over_and_told(caplog):
    index = CaptureIndex()
    good = a_capture("a", uid="a")
    index.apply(added(good))
    with caplog.at_level(logging.WARNING):
        index.apply(Change("modified", a_capture("a", uid="a", duration="soon"), good))
    assert index.of(NAMESPACE) == ()
    (record,) = caplog.records
    assert "duration" in str(record.__dict__["faults"])


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (ServiceSpec(cluster_ip="10.0.0.1"), (("10.0.0.1", 20443),)),
        (ServiceSpec(cluster_ip="a", cluster_ips=("a", "b")), (("a", 20443), ("b", 20443))),
        (ServiceSpec(cluster_ip="None", cluster_ips=("None",)), ()),
        (ServiceSpec(), ()),
    ],
    ids=["one", "both-families", "headless", "none-yet"],
)
def test_the_collectors_addresses_are_its_services(spec, expected):
    assert addresses_of(Service(spec=spec)) == expected


def test_injection_is_on_until_somebody_says_off(api, cache):
    begin(cache)
    assert cache.injecting
    path = paths.config_map("nightcap-system", "nightcap-injection")
    api.put(path, metadata={"namespace": "nightcap-system"}, data={"injection": "off"})
    eventually(lambda: not cache.injecting)
    api.delete(path)
    eventually(lambda: cache.injecting)
