from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from nightcap.contract import keys
from nightcap.contract.assignment import ResolvedCapture
from nightcap.contract.captures import FOREVER, PacketCapture, order_of, parse_capture, resolve
from nightcap.contract.ceilings import (
    CaptureCeiling,
    ceiling_of,
    parse_ceiling,
    under_ceiling,
    within_ceiling,
)

NOW = 1_800_000_000.0


def a_ceiling(name: str = "tight", **spec: Any) -> CaptureCeiling:
    return parse_ceiling(msgspec.json.encode({"metadata": {"name": name}, "spec": spec}))


def a_capture(
    name: str = "dns", group: str = keys.GROUP, age: int = 60, labels: Any = None, **spec: Any
) -> PacketCapture:
    created = datetime.fromtimestamp(NOW - age, UTC)
    return parse_capture(
        msgspec.json.encode(
            {
                "apiVersion": keys.API_VERSIONS[group],
                "metadata": {
                    "name": name,
                    "namespace": "shop",
                    "uid": name.encode().hex(),
                    "creationTimestamp": created,
                    "labels": labels or {},
                },
                "spec": spec,
            }
        )
    )


def measured(capture: PacketCapture, **ceiling: Any) -> tuple[Any, tuple[str, ...]]:
    found = ceiling_of("shop", [a_ceiling(**ceiling)])
    return under_ceiling(capture, resolve(capture), found)


def test_a_ceiling_that_names_a_namespace_holds_there_instead_of_those_that_name_none():
    everywhere = a_ceiling("all", maxCaptures=3)
    shop = a_ceiling("shop", namespaces=["shop"], maxCaptures=9)
    found = ceiling_of("shop", [everywhere, shop])
    assert found is not None
    assert (found.names, found.max_captures) == (("shop",), 9)
    found = ceiling_of("bank", [everywhere, shop])
    assert found is not None
    assert (found.names, found.max_captures) == (("all",), 3)
    assert ceiling_of("bank", [shop]) is None
    assert ceiling_of("bank", []) is None


def test_of_several_the_strictest_holds_field_by_field():
    found = ceiling_of(
        "shop",
        [
            a_ceiling("b", maxDuration="1h", maxSize="1Gi", interfaces=["eth0", "eth1"]),
            a_ceiling("a", maxDuration="2h", maxSize="100M", interfaces=["eth1"], snapLength=96),
        ],
    )
    assert found is not None
    assert found.names == ("a", "b")
    assert (found.max_seconds, found.max_bytes, found.snap) == (3600, 10**8, 96)
    assert found.interfaces == {"eth1"}
    assert found.max_captures is None


@pytest.mark.parametrize(
    ("spec", "ceiling", "rule"),
    [
        ({"duration": "2h"}, {"maxDuration": "1h"}, "maxDuration"),
        ({"limits": {"maxSize": "2Gi"}}, {"maxSize": "100Mi"}, "maxSize"),
        ({"limits": {"maxSize": 0}}, {"maxSize": "100Mi"}, "maxSize"),
        ({"limits": {"maxSize": "2Gi", "whenFull": "DropOldest"}}, {"maxSize": "1Gi"}, "maxSize"),
        ({"interfaces": ["eth0", "any"]}, {"interfaces": ["eth0"]}, "interfaces"),
    ],
)
def test_what_is_asked_for_beyond_is_refused_with_the_rules_name(spec, ceiling, rule):
    _, broken = measured(a_capture(**spec), **ceiling)
    (said,) = broken
    assert said.startswith(f"{rule}: ")
    assert "ceiling tight" in said


def test_every_rule_that_is_broken_is_named():
    spec = {"duration": "2h", "limits": {"maxSize": "2Gi"}, "interfaces": ["lo"]}
    _, broken = measured(
        a_capture(**spec), maxDuration="1h", maxSize="1Gi", interfaces=["eth0"], snapLength=96
    )
    assert [said.partition(":")[0] for said in broken] == ["maxDuration", "maxSize", "interfaces"]


def test_what_a_capture_leaves_open_is_lowered():
    settings, broken = measured(
        a_capture(limits={"maxSize": "1Gi"}),
        maxDuration="10m",
        maxSize="100Mi",
        interfaces=["eth1", "eth0"],
        snapLength=96,
    )
    assert broken == ()
    assert settings.ends_at - settings.starts_at == 600
    assert settings.limit.bytes == 100 * 2**20
    assert settings.interfaces == ("eth0", "eth1")
    assert settings.snap == 96


def test_the_default_that_an_annotations_capture_says_aloud_is_lowered_as_well():
    labels = {keys.SOURCE: keys.SOURCE_POD}
    settings, broken = measured(a_capture(labels=labels, duration="1h"), maxDuration="10m")
    assert (broken, settings.ends_at - settings.starts_at) == ((), 600)
    _, broken = measured(a_capture(labels=labels, duration="2h"), maxDuration="10m")
    assert len(broken) == 1


def test_a_calico_capture_without_an_end_is_ended():
    capture = a_capture(group=keys.CALICO_GROUP)
    assert resolve(capture).ends_at == FOREVER
    settings, broken = measured(capture, maxDuration="10m", maxSize="100M")
    assert (broken, settings.ends_at - settings.starts_at) == ((), 600)


def test_a_ring_of_no_size_of_its_own_is_a_smaller_one():
    """Retrieval keeps it, and goes by the ceiling as well."""
    for capture in (
        a_capture(group=keys.CALICO_GROUP),
        a_capture(limits={"whenFull": "DropOldest"}),
    ):
        settings, broken = measured(capture, maxSize="50M")
        assert (broken, settings.limit.bytes) == ((), 50 * 10**6)
        assert order_of(capture, settings, NOW).limit.bytes == 0


def test_without_a_ceiling_and_below_it_nothing_changes():
    capture = a_capture(duration="1h", snapLength=64, interfaces=["eth0"])
    settings = resolve(capture)
    assert under_ceiling(capture, settings, None) == (settings, ())
    kept, broken = measured(
        capture, maxDuration="1h", maxSize="1Gi", interfaces=["eth0"], snapLength=96, maxCaptures=0
    )
    assert (kept, broken) == (settings, ())


def test_the_newest_of_too_many_have_no_place():
    captures = [
        a_capture("old", age=300),
        a_capture("stopped", age=200, suspend=True),
        a_capture("over", age=7200),
        a_capture("later", age=100, startTime=datetime.fromtimestamp(NOW + 60, UTC)),
        a_capture("new", age=10),
        a_capture("beyond", age=400, duration="9h"),
    ]
    resolved = [ResolvedCapture(capture, resolve(capture)) for capture in captures]
    ceiling = ceiling_of("shop", [a_ceiling(maxCaptures=2, maxDuration="2h")])
    left = [item.capture.metadata.name for item in within_ceiling(resolved, ceiling, NOW)]
    assert left == ["old", "stopped", "over", "later"]
    assert len(within_ceiling(resolved, None, NOW)) == 6


@pytest.mark.parametrize(
    "spec", [{"maxDuration": "soon"}, {"maxSize": "many"}, {"maxCaptures": []}]
)
def test_a_ceiling_that_cannot_be_read_is_an_error(spec):
    with pytest.raises(ValueError):
        a_ceiling(**spec)
