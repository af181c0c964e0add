"""The kernel counts with 32 bits; a capture may last for days."""

import os
from typing import Any

import pytest

from nightcap.pcap.handle import LiveCapture, Stats
from sidecar import libpump
from sidecar.libpump import UNLIMITED, Budget, Inlet
from tests.netns.built import start_script
from tests.netns.net import Link
from tests.netns.pods import wait_for

pytestmark = pytest.mark.netns


class LateCounters:
    """libpcap, whose counters began so far below their end; everything else is real."""

    def __init__(self, pcap: Any, begin: int) -> None:
        self._pcap = pcap
        self._begin = begin

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pcap, name)

    def pcap_stats(self, handle: int, stat: Any) -> int:
        result: int = self._pcap.pcap_stats(handle, stat)
        stat._obj.received += self._begin  # a field of 32 bits: it begins anew by itself
        stat._obj.dropped += self._begin
        return result


def test_counters_go_on_where_those_of_libpcap_begin_anew(
    link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = link.pod.inside(lambda: LiveCapture("eth0", snap=262144, expression="udp dst port 5353"))
    begin = 2**32 - 5
    monkeypatch.setattr(live, "_pcap", LateCounters(live._pcap, begin))
    assert live.stats() == Stats(begin, begin)
    link.send(3)
    wait_for(lambda: live.stats() == Stats(begin + 3, begin), "counted")
    link.send(9)
    wait_for(lambda: live.stats() == Stats(begin + 12, begin), "counted over the end")
    # Nobody reads: the ring is full, and the kernel counts what it drops.
    link.send(3000, size=1400)
    wait_for(lambda: live.stats().received == begin + 3012, "all counted")
    dropped = live.stats().dropped - begin
    assert dropped > 5
    libpump.load(str(start_script().parents[1] / "pump.so"))
    inlet = Inlet(live.handle, live.header, Budget(UNLIMITED, UNLIMITED))
    inlet.begin(os.open("/dev/null", os.O_WRONLY))
    seen = -1
    while inlet.packets > seen:
        seen = inlet.packets
        inlet.take()
    # What the kernel says and what came make up all that was sent.
    assert inlet.packets == 3012 - dropped
    inlet.close()
    live.close()
