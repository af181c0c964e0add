"""Random histories of a namespace: what there is at first, and what happens then."""

from typing import Any

from hypothesis import strategies as st
from msgspec import structs

from controller.view import RetrievalView
from nightcap.contract import keys
from nightcap.contract.objects import ObjectMeta, Pod, Service, ServiceSpec
from nightcap.contract.reports import Reason, State
from nightcap.kube.reflector import Change
from tests.unit.controller.builders import (
    NOW,
    a_capture,
    a_namespace,
    a_pod,
    a_report,
    at,
    with_orders,
)
from tests.unit.controller.model import Model

PODS = ("web-1", "web-2", "db-1")
CAPTURES = ("dns", "http", "pod-web-1")


def labels() -> st.SearchStrategy[dict[str, str]]:
    return st.dictionaries(st.sampled_from(("app", "tier")), st.sampled_from(("web", "db")))


def pods() -> st.SearchStrategy[Pod]:
    return st.builds(
        lambda name, labels, injected, phase, deleted, on: a_pod(
            name,
            labels=labels,
            injected=injected,
            phase=phase,
            deleted=NOW if deleted else None,
            annotations={keys.CAPTURE: on} if on else None,
        ),
        st.sampled_from(PODS),
        labels(),
        st.sampled_from((True, True, True, False)),
        st.sampled_from(("Running", "Running", "Pending", "Succeeded")),
        st.sampled_from((False, False, False, True)),
        st.sampled_from((None, None, None, "on", "off", "maybe")),
    )


def captures() -> st.SearchStrategy[Any]:
    spec = st.fixed_dictionaries(
        {},
        optional={
            "suspend": st.booleans(),
            "startTime": st.sampled_from((at(NOW - 30), at(NOW + 100))),
            "duration": st.sampled_from(("60s", "1h", "never")),
            "filter": st.sampled_from(("", "udp port 53")),
            "ttlAfterFinished": st.sampled_from(("10s", "24h")),
        },
    )
    which = st.sampled_from(
        (
            {},
            {"selector": {"matchLabels": {"app": "web"}}},
            {"selector": {"matchLabels": {"app": "web", "tier": "db"}}},
            {"selector": {"matchExpressions": [{"key": "tier", "operator": "Exists"}]}},
            {"podNames": ["web-2", "db-1"]},
        )
    )
    return st.builds(
        lambda name, spec, which, deleted: a_capture(
            name,
            source=keys.SOURCE_POD if name == "pod-web-1" else None,
            deleted=NOW if deleted else None,
            **{**spec, **({"podNames": ["web-1"]} if name == "pod-web-1" else which)},
        ),
        st.sampled_from(CAPTURES),
        spec,
        which,
        st.sampled_from((False, False, False, True)),
    )


def reports() -> st.SearchStrategy[Any]:
    return st.builds(
        lambda capture, pod, state, shipped, seq: a_report(
            capture,
            pod,
            state=state,
            shipped=shipped,
            seq=seq,
            reason=Reason.SIZE if state is State.FINISHED else Reason.NONE,
        ),
        st.sampled_from(CAPTURES),
        st.sampled_from(PODS),
        st.sampled_from(list(State)),
        st.booleans(),
        st.integers(1, 100),
    )


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pod"), pods()),
        st.tuples(st.just("capture"), captures()),
        st.tuples(st.just("report"), reports()),
        st.tuples(st.just("drop pod"), st.sampled_from(PODS)),
        st.tuples(st.just("drop capture"), st.sampled_from(CAPTURES)),
        st.tuples(st.just("clock"), st.sampled_from((1, 6, 45, 130, 700, 4000, 90_000, -50))),
        st.tuples(st.just("collectors"), st.sampled_from(("10.96.0.9", "10.96.0.10"))),
        st.tuples(st.just("away"), st.booleans()),
        st.tuples(st.just("perform"), st.booleans()),
        st.tuples(st.just("leading"), st.none()),
        st.tuples(st.just("namespace"), st.booleans()),
        st.tuples(
            st.just("ceiling"),
            st.sampled_from(
                (
                    None,
                    {"maxCaptures": 1},
                    {"maxCaptures": 0},
                    {"maxDuration": "30m"},
                    {"snapLength": 96, "maxCaptures": 2},
                )
            ),
        ),
        st.tuples(st.just("forged"), st.sampled_from(PODS)),
    ),
    min_size=10,
    max_size=25,
)


BEGINNINGS = st.tuples(
    st.lists(pods(), min_size=2, max_size=3), st.lists(captures(), min_size=1, max_size=3)
)


def populated(beginning: tuple[list[Pod], list[Any]]) -> Model:
    """A model whose first orders were written already."""
    model = Model()
    for pod in beginning[0]:
        model.put_pod(pod)
    for capture in beginning[1]:
        model.put_capture(capture)
    model.perform(model.look())
    return model


def step(model: Model, kind: str, value: Any) -> None:
    match kind:
        case "pod":
            model.put_pod(value)
        case "capture":
            old = model.captures.get(value.metadata.uid)
            model.put_capture(structs.replace(value, status=old.status if old else None))
        case "report":
            model.report(value)
        case "drop pod":
            model.drop_pod(a_pod(value).metadata.uid)
        case "drop capture":
            model.drop_capture(a_capture(value).metadata.uid)
        case "clock":
            model.now += value
        case "collectors":
            service = Service(ObjectMeta(), ServiceSpec(cluster_ip=value, cluster_ips=(value,)))
            model.world.on_service(Change("modified", service))
        case "away":
            model.world.on_retrieval(RetrievalView(unreachable=("10.0.0.1",) if value else ()))
        case "perform":
            actions = model.look()
            model.perform(actions if value else actions[: len(actions) // 2])
        case "leading":
            model.world.mark_all()
        case "namespace":
            model.put_namespace(a_namespace(enabled=value))
        case "ceiling":
            model.put_ceiling(value)
        case "forged":
            pod = model.pods.get(a_pod(value).metadata.uid)
            if pod is not None:
                model.put_pod(with_orders(pod, '{"v":1,"captures":"none"}'))
