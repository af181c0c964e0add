"""Each field of a capture, changed while it runs, takes effect on pods that run."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from demo.evidence import CaptureFile
from demo.files import Retrieval
from demo.kubectl import wait_for
from tests.e2e.shop import CAPTURES, Shop

AWAY, SELF = "192.0.2.1", "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Moving:
    """A capture whose spec changes, and what is recorded meanwhile."""

    shop: Shop
    retrieval: Retrieval
    token: str
    name: str = "moving"

    def change(self, **spec: Any) -> None:
        body = json.dumps({"spec": spec})
        self.shop.run("patch", CAPTURES, self.name, "--type=merge", "-p", body)

    def files(self) -> list[CaptureFile]:
        return self.shop.files(self.retrieval, self.name, self.token)

    def recorded(self, pod: str) -> str:
        """All that a pod's UDP packets say."""
        packets = (packet for file in self.files() if file.pod == pod for packet in file.packets)
        return " ".join(bytes(p["UDP"].payload).decode() for p in packets if "UDP" in p)

    def wait_records(self, pod: str, port: int, host: str = AWAY) -> None:
        """Send until what is sent is recorded: the change has arrived."""
        word = uuid.uuid4().hex[:8]

        def seen() -> bool:
            self.shop.send_udp(pod, host, port, [word])
            return word in self.recorded(pod)

        wait_for(f"packets of {pod} to port {port} of {host}", seen, 60)


def test_every_field_that_changes_takes_effect_in_running_pods(
    shop: Shop, retrieval: Retrieval
) -> None:
    shop.start(shop.pod("web"), shop.pod("db"))
    moving = Moving(shop, retrieval, shop.person("analyst", "nightcap-files"))
    spec = {"selector": {"matchLabels": {"app": "web"}}, "filter": "udp port 7000"}
    shop.create(shop.capture(moving.name, **spec))
    moving.wait_records("web", 7000)

    moving.change(filter="udp port 7001")
    moving.wait_records("web", 7001)
    shop.send_udp("web", AWAY, 7000, ["unfiltered"])
    moving.wait_records("web", 7001)
    assert "unfiltered" not in moving.recorded("web")

    moving.change(snapLength=96)
    wait_for("short packets", lambda: _short_ones(moving), 60)

    before = len(moving.files())
    moving.change(rotation={"maxFileAge": "1s"})
    wait_for("younger files", lambda: _files_after_sending(moving) >= before + 3, 60)
    moving.change(rotation={"maxFileAge": "1h"})

    moving.change(interfaces=["lo"])
    moving.wait_records("web", 7001, SELF)
    shop.send_udp("web", AWAY, 7001, ["elsewhere"])
    moving.wait_records("web", 7001, SELF)
    assert "elsewhere" not in moving.recorded("web")

    moving.change(selector={"matchLabels": {"app": "db"}})
    moving.wait_records("db", 7001, SELF)
    _wait_ended(moving, "web")

    moving.change(selector=None, podNames=["web"])
    moving.wait_records("web", 7001, SELF)
    _wait_ended(moving, "db")

    moving.change(suspend=True)
    shop.wait_phase(moving.name, "Finished")
    shop.event(moving.name, "spec.suspend is true")
    moving.change(suspend=False)
    moving.wait_records("web", 7001, SELF)

    moving.change(limits={"maxPackets": 1})
    wait_for("the limit", lambda: _says(moving, "LimitReached"), 60)
    moving.change(limits={"maxPackets": 0})
    moving.wait_records("web", 7001, SELF)

    end = (datetime.now(UTC) + timedelta(seconds=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    moving.change(endTime=end)
    wait_for("the end", lambda: _says(moving, "TimeOver"), 60)
    said = {event["reason"] for event in shop.events(moving.name)}
    assert said >= {"Started", "Suspended", "Finished"}
    assert {event["reason"] for event in shop.events("db")} >= {"CaptureStarted", "CaptureEnded"}


def _short_ones(moving: Moving) -> bool:
    moving.shop.send_udp("web", AWAY, 7001, ["x" * 300])
    packets = [packet for file in moving.files() for packet in file.packets]
    return any(len(bytes(packet)) == 96 and packet.wirelen > 300 for packet in packets)


def _files_after_sending(moving: Moving) -> int:
    moving.shop.send_udp("web", AWAY, 7001, ["turn"])
    return len(moving.files())


def _wait_ended(moving: Moving, pod: str) -> None:
    """Wait until a pod is ordered nothing more, and see that it records nothing."""
    wait_for(f"the end in {pod}", lambda: moving.shop.orders(pod) is None, 60)
    moving.shop.send_udp(pod, SELF, 7001, ["afterwards"])
    assert "afterwards" not in moving.recorded(pod)


def _says(moving: Moving, reason: str) -> bool:
    condition = moving.shop.condition(moving.name, "Recording")
    return condition is not None and condition["reason"] == reason
