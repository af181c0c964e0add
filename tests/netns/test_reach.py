"""Who can reach a sidecar over the network: nobody."""

import subprocess

import pytest

from tests.netns.collector import Collector
from tests.netns.pods import ID, Pod, an_order, wait_for
from tests.netns.test_shipping import arrived

pytestmark = pytest.mark.netns

_HEARING = ("0A", "07")
"""States: TCP that listens; datagrams, which are heard as soon as a socket is bound."""


def sockets(pod: Pod) -> list[list[str]]:
    """Fields of every TCP and UDP socket of the pod, as the kernel lists them."""
    files = [f"/proc/net/{kind}{version}" for kind in ("tcp", "udp") for version in ("", "6")]
    told = subprocess.run(
        pod.link.pod.command("cat", *files), capture_output=True, text=True, check=True
    )
    rows = [line.split() for line in told.stdout.splitlines()]
    return [row for row in rows if row[0] != "sl"]


def test_a_sidecar_that_records_and_ships_listens_nowhere(
    shipping_pod: Pod, collector: Collector
) -> None:
    shipping_pod.order(an_order())
    shipping_pod.start()
    shipping_pod.wait_open()
    shipping_pod.link.send(20)
    seen: list[list[str]] = []

    def has_arrived() -> bool:
        seen.extend(sockets(shipping_pod))
        return arrived(collector, ID) == list(range(20))

    wait_for(has_arrived, "every packet")
    assert seen, "its own connection is among them"
    assert not [row for row in seen if row[3] in _HEARING]
    assert shipping_pod.terminate() == 0
