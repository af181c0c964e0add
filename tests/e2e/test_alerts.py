"""Alert rules against programs that run: a rule on a series that nobody shows is dead."""

from __future__ import annotations

from demo.installation import NAMESPACE
from demo.kubectl import wait_for
from demo.stage import Stage
from tests import prometheus
from tests.e2e.shop import Shop

PORTS = {"metrics", "files-metrics"}


def _scrape(stage: Stage) -> list[str]:
    """`/metrics` of every program, as Prometheus would see them."""
    pods = stage.kubectl.json(
        "-n", NAMESPACE, "get", "pods", "-l", "app.kubernetes.io/part-of=nightcap",
        "--field-selector=status.phase=Running",
    )["items"]  # fmt: skip
    targets = [
        (pod["metadata"]["name"], port["containerPort"])
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"]  # it may have stopped to listen
        for container in pod["spec"]["containers"]
        for port in container.get("ports", ())
        if port["name"] in PORTS
    ]
    assert {name.rsplit("-", 2)[0] for name, _ in targets} >= {
        "nightcap-controller", "nightcap-retrieval", "nightcap-webhook",
    }  # fmt: skip
    proxies = (f"/api/v1/namespaces/{NAMESPACE}/pods/{name}:{port}/proxy" for name, port in targets)
    return [stage.kubectl.run("get", "--raw", f"{way}/metrics") for way in proxies]


def test_rules_name_series_and_labels_that_exist(stage: Stage, shop: Shop) -> None:
    shop.create(shop.pod("plain", labels={"nightcap.dev/inject": "enabled"}))
    shop.create(shop.capture("any"))
    expressions = [rule["expr"] for rule in prometheus.rules()]
    named: dict[str, set[str]] = {}
    for expression in expressions:
        for series, labels in prometheus.series_of(expression).items():
            if series.startswith("nightcap_"):  # tests/apiserver has the API server's
                named.setdefault(series, set()).update(labels)
    assert len(named) > 8
    # A replica that did not lead, or was not asked yet, has series without values.
    wait_for("a status to count", lambda: shop.status("any").get("phase"), 30)
    shown = prometheus.exposed(_scrape(stage))
    for series, labels in named.items():
        assert series in shown, f"{series} is shown by no program"
        # What was never counted has no labels yet.
        assert not shown[series] or labels <= shown[series], (series, labels, shown[series])
    # These ports ask nobody who they are: no name there says where captures are.
    assert not [name for name, labels in shown.items() if labels & {"namespace", "capture", "pod"}]
    assert shown["nightcap_admission_requests_total"] >= {"decision", "reason"}
