import json
import math
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightcap.contract.captures import (
    FOREVER,
    BadCapture,
    WhenFull,
    order_of,
    parse_capture,
    resolve,
)
from nightcap.contract.orders import Limit, Orders, Rotation, dump_orders, parse_orders

CREATED = 1_800_000_000


def a_capture(**spec):
    return parse_capture(
        json.dumps(
            {
                "apiVersion": "nightcap.dev/v1alpha1",
                "metadata": {
                    "name": "dns",
                    "namespace": "shop",
                    "uid": "ab-12",
                    "creationTimestamp": "2027-01-15T08:00:00Z",
                },
                "spec": spec,
            }
        ).encode()
    )


def faults(**spec):
    with pytest.raises(BadCapture) as caught:
        resolve(a_capture(**spec))
    return caught.value.faults


def test_an_empty_spec_has_all_defaults():
    settings = resolve(a_capture())
    assert (settings.starts_at, settings.ends_at) == (CREATED, CREATED + 3600)
    assert (settings.filter, settings.snap, settings.interfaces) == ("", 262144, ())
    assert settings.rotation == Rotation(10 * 2**20, 3600, 10)
    assert settings.limit == Limit(2**30, 0)
    assert settings.when_full is WhenFull.FINISH
    assert settings.ttl_seconds == 86400
    assert not settings.suspended


@pytest.mark.parametrize(
    ("spec", "window"),
    [
        ({"duration": "90s"}, (0, 90)),
        ({"startTime": "2027-01-15T09:00:00Z"}, (3600, 7200)),
        ({"startTime": "2027-01-15T09:00:00Z", "duration": "1m"}, (3600, 3660)),
        ({"endTime": "2027-01-15T08:00:10Z"}, (0, 10)),
        ({"endTime": "2027-01-15T07:00:00Z"}, (0, -3600)),
        (
            {"startTime": "2027-01-15T10:00:00+01:00", "endTime": "2027-01-15T09:00:01.5Z"},
            (3600, 3601.5),
        ),
    ],
)
def test_the_window(spec, window):
    settings = resolve(a_capture(**spec))
    assert (settings.starts_at - CREATED, settings.ends_at - CREATED) == window


def test_a_time_without_a_zone_is_utc_on_every_machine(monkeypatch):
    """The API server lets it pass; the zone of whoever read it decided before."""
    monkeypatch.setitem(os.environ, "TZ", "America/New_York")
    time.tzset()
    try:
        settings = resolve(a_capture(startTime="2027-01-15T09:00:00"))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert settings.starts_at == CREATED + 3600


@pytest.mark.parametrize(
    ("offset", "running"), [(-1, True), (0, True), (3599, True), (3600, False)]
)
def test_a_capture_without_start_time_runs_from_when_it_exists(offset, running):
    """Also for a program whose clock is behind the API server's."""
    assert resolve(a_capture()).is_running(CREATED + offset) is running


@pytest.mark.parametrize(("offset", "running"), [(-1, False), (0, True), (59, True), (60, False)])
def test_a_scheduled_capture_runs_within_its_window(offset, running):
    settings = resolve(a_capture(startTime="2027-01-15T08:00:00Z", duration="60s"))
    assert settings.is_running(CREATED + offset) is running


def test_a_suspended_capture_does_not_run():
    assert not resolve(a_capture(suspend=True)).is_running(CREATED)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"filter": "udp", "filters": [{"protocol": "TCP"}]}, "not both"),
        ({"filter": "host example"}, "'example'"),
        ({"filters": [{"protocol": "XYZ"}]}, "'XYZ'"),
        ({"selector": {"matchExpressions": [{"key": "a", "operator": "No"}]}}, "'No'"),
        ({"selector": {"matchLabels": {"a": "b"}}, "podNames": ["x"]}, "not both"),
        ({"endTime": "2027-01-15T09:00:00Z", "duration": "1h"}, "not both"),
        (
            {"startTime": "2027-01-15T09:00:00Z", "endTime": "2027-01-15T09:00:00Z"},
            "after startTime",
        ),
        ({"duration": "-5m"}, "duration: duration '-5m'"),
        ({"duration": ""}, "duration: duration ''"),
        ({"rotation": {"maxFileSize": "1Ki"}}, "rotation.maxFileSize: 1Ki is 1024"),
        ({"rotation": {"maxFileSize": "2Ti"}}, "must be from 4096"),
        ({"rotation": {"maxFileAge": "10ms"}}, "rotation.maxFileAge: '10ms'"),
        ({"rotation": {"maxFiles": 0}}, "rotation.maxFiles: 0"),
        ({"limits": {"maxSize": "lots"}}, "'lots'"),
        ({"limits": {"maxPackets": -1}}, "limits.maxPackets: -1"),
        ({"limits": {"whenFull": "Explode"}}, "'Explode'"),
        ({"snapLength": 0}, "snapLength: 0"),
        ({"snapLength": 262145}, "262145"),
        ({"ttlAfterFinished": "soon"}, "ttlAfterFinished: duration 'soon'"),
        ({"interfaces": ["eth0/../x"]}, "'eth0/../x'"),
        ({"interfaces": [f"e{n}" for n in range(65)]}, "at most 64"),
    ],
)
def test_a_bad_spec_is_refused_with_field_value_and_rule(spec, says):
    (fault,) = faults(**spec)
    assert says in fault


def test_all_faults_come_at_once():
    assert len(faults(snapLength=0, duration="x", filter="host example")) == 3


@pytest.mark.parametrize(
    "spec", [{"snapLength": "many"}, {"selector": []}, {"startTime": "yesterday"}, {"filters": {}}]
)
def test_a_field_of_another_kind_is_a_bad_capture(spec):
    with pytest.raises(BadCapture):
        a_capture(**spec)


def test_the_group_is_known():
    assert a_capture().group == "nightcap.dev"


def test_a_ring_carries_no_limit_of_bytes():
    capture = a_capture(limits={"whenFull": "DropOldest", "maxSize": "1Mi", "maxPackets": 7})
    assert order_of(capture, resolve(capture), 5.9).limit == Limit(0, 7)


_durations = st.integers(1, 10**6).map(lambda n: f"{n}s")
_specs = st.fixed_dictionaries(
    {},
    optional={
        "filter": st.sampled_from(["udp port 53", "ip[0] & 0xf != 5", " tcp\n\tport 80 "]),
        "interfaces": st.lists(st.sampled_from(["eth0", "net1", "any", "äöü", "e*"]), max_size=4),
        "snapLength": st.integers(1, 262144),
        "duration": _durations,
        "rotation": st.fixed_dictionaries(
            {},
            optional={
                "maxFileSize": st.integers(4096, 2**40) | st.sampled_from(["4Ki", "1Ti", "1.5Gi"]),
                "maxFileAge": _durations,
                "maxFiles": st.integers(1, 10_000),
            },
        ),
        "limits": st.fixed_dictionaries(
            {},
            optional={
                "maxSize": st.integers(0, 2**50),
                "maxPackets": st.integers(0, 2**53),
                "whenFull": st.sampled_from(["Finish", "DropOldest"]),
            },
        ),
    },
)


@given(_specs)
def test_whatever_a_good_spec_orders_the_sidecar_reads_as_it_was_meant(spec):
    """Orders that do not read back the same would be written again for ever."""
    capture = a_capture(**spec)
    settings = resolve(capture)
    orders = Orders((("10.0.0.1", 20443),), (order_of(capture, settings, settings.ends_at),))
    assert parse_orders(dump_orders(orders)) == orders


def a_calico_capture(**spec):
    return parse_capture(
        json.dumps(
            {
                "apiVersion": "projectcalico.org/v3",
                "kind": "PacketCapture",
                "metadata": {
                    "name": "dns",
                    "namespace": "shop",
                    "uid": "ab-12",
                    "creationTimestamp": "2027-01-15T08:00:00Z",
                    "labels": {"nightcap.dev/source": "namespace"},
                },
                **({"spec": spec} if spec else {}),
            }
        ).encode()
    )


def test_a_calico_capture_has_no_end_and_is_a_ring_with_calicos_rotation():
    capture = a_calico_capture()
    settings = resolve(capture)
    assert capture.group == "projectcalico.org"
    assert (settings.starts_at, settings.ends_at, settings.has_end) == (CREATED, FOREVER, False)
    assert settings.starts_at_once
    assert settings.ttl_seconds == math.inf
    assert settings.rotation == Rotation(10_000_000, 3600, 3)
    assert settings.limit == Limit(100_000_000, 0)
    assert settings.when_full is WhenFull.DROP_OLDEST
    assert settings.is_running(CREATED + 1e9)
    # Nothing but the controller of its own group makes a capture an annotation's.
    assert capture.source is None


def test_orders_of_a_capture_without_an_end_can_be_read():
    capture = a_calico_capture()
    settings = resolve(capture)
    order = order_of(capture, settings, settings.ends_at)
    (read,) = parse_orders(dump_orders(Orders(captures=(order,)))).captures
    assert read == order
    assert read.until == int(FOREVER)


def test_a_calico_capture_says_filters_and_times_as_ours():
    spec = {
        "filters": [
            {"protocol": "UDP", "ports": [53]},
            {"protocol": 6, "ports": ["80", "8000:8010"]},
            {"protocol": "icmp"},
        ],
        "startTime": "2027-01-15T09:00:00Z",
        "endTime": "2027-01-15T10:00:00+00:00",
    }
    theirs, ours = resolve(a_calico_capture(**spec)), resolve(a_capture(**spec))
    assert theirs.filter == ours.filter
    assert theirs.filter.startswith("(udp and (port 53)) or (tcp and (port 80 or portrange")
    assert (theirs.starts_at, theirs.ends_at) == (CREATED + 3600, CREATED + 7200)
    assert theirs.has_end


def test_fields_of_ours_in_a_calico_capture_mean_nothing():
    settings = resolve(a_calico_capture(duration="5m", suspend=True, filter="udp"))
    assert (settings.has_end, settings.suspended, settings.filter) == (False, False, "")


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"selector": "app = 'x'"}, "character 5"),
        ({"filters": [{"protocol": "TCP", "ports": ["dns"]}]}, "'dns'"),
        ({"filters": [{"protocol": 300}]}, "'300'"),
        ({"filters": [{"ports": ["90:80"]}]}, "'90:80'"),
        (
            {"startTime": "2027-01-15T09:00:00Z", "endTime": "2027-01-15T09:00:00Z"},
            "must be after startTime",
        ),
    ],
)
def test_a_bad_calico_capture_names_its_fault(spec, word):
    with pytest.raises(BadCapture) as caught:
        resolve(a_calico_capture(**spec))
    assert word in str(caught.value)


def test_a_selector_is_text_in_one_group_and_structure_in_the_other():
    assert "takes matchLabels" in faults(selector="app == 'x'")[0]
    with pytest.raises(BadCapture):
        a_calico_capture(selector={"matchLabels": {"app": "x"}})
