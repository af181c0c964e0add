"""Pods while all of our programs are away: they start, record, and lose nothing."""

import pytest

from demo.kubectl import wait_for
from demo.stage import Stage
from tests.e2e.shop import Shop

SYSTEM = "nightcap-system"
REPLICAS = {"nightcap-controller": 2, "nightcap-retrieval": 1, "nightcap-webhook": 2}


def scale(stage: Stage, name: str, replicas: int) -> None:
    stage.kubectl.run("-n", SYSTEM, "scale", "deployment", name, f"--replicas={replicas}")


def send_away(stage: Stage, *names: str) -> None:
    for name in names:
        scale(stage, name, 0)
    for name in names:
        label = f"app.kubernetes.io/name={name}"
        stage.kubectl.run(
            "-n", SYSTEM, "wait", "pod", "-l", label, "--for=delete", "--timeout=90s",
            timeout_seconds=100,
        )  # fmt: skip


@pytest.mark.long
@pytest.mark.alone
def test_pods_start_and_record_while_every_program_is_away(shop: Shop, stage: Stage) -> None:
    shop.start(shop.pod("web"))
    shop.create(shop.capture("all", filter="udp port 7000"))
    shop.wait_open("all")
    token = shop.person("analyst", "nightcap-files")
    sent = [f"before-{number}" for number in range(20)]
    shop.send_udp("web", "192.0.2.1", 7000, sent)
    try:
        send_away(stage, "nightcap-controller", "nightcap-retrieval")
        while_away = [f"away-{number}" for number in range(20)]
        shop.send_udp("web", "192.0.2.1", 7000, while_away)
        # Born into the capture, with nobody to ship to: its start waits for neither.
        shop.start(shop.pod("late"))
        of_late = [f"late-{number}" for number in range(20)]
        shop.send_udp("late", "192.0.2.1", 7000, of_late)
        send_away(stage, "nightcap-webhook")
        shop.start(shop.pod("plain"))
        assert "nightcap" not in shop.containers("plain")
    finally:
        for name, replicas in REPLICAS.items():
            scale(stage, name, replicas)
        for name in REPLICAS:
            stage.kubectl.rolled_out(SYSTEM, name)
    sent += while_away + of_late
    assert sorted(shop.payloads("all", token, len(sent))) == sorted(sent)
    # The one that was born meanwhile is found, and why it has none.
    wait_for("the pod without sidecar", lambda: shop.status("all")["pods"]["withoutSidecar"] == 1)
