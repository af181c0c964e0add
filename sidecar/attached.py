"""`errand stream`: packets of this pod to whoever holds the other end of standard output.

For pods without a sidecar of their own, in an ephemeral container. Nothing is kept and nobody is
asked: it ends when its time is over, when standard input ends (the person or the connection is
gone), or when nobody reads. Then its container ends as well.
"""

import gc
import os
import signal
import sys
import time
from pathlib import Path
from typing import Final

from nightcap.contract import paths
from nightcap.contract.streaming import (
    STREAM_OPEN,
    STREAM_OVER,
    BadStream,
    Stream,
    parse_stream,
)
from nightcap.pcap.handle import ANY, LiveCapture
from nightcap.pcap.libpcap import PcapError
from sidecar import interfaces, log
from sidecar.libpump import UNLIMITED, Budget, Inlet, Watched

_STDIN, _STDOUT = 0, 1
_LOOK_SECONDS: Final = 1.0


class _Left(Exception):
    """The container is being stopped."""


def main() -> int:
    """Stream as the argument says; returns the exit code."""
    gc.enable()
    signal.signal(signal.SIGTERM, _leave)
    try:
        return _run(parse_stream(sys.argv[2]))
    except BadStream as error:
        log.error("bad request", message=str(error))
        return 2
    except PcapError as error:
        log.error("capture failed", message=str(error))
        return 1
    finally:
        _end_container()


def _leave(_number: int, _frame: object) -> None:
    raise _Left


def _run(wanted: Stream) -> int:
    interface = wanted.interface or choose(interfaces.present())
    live = LiveCapture(interface, snap=wanted.snap, expression=wanted.filter)
    inlet = Inlet(live.handle, live.header, Budget(UNLIMITED, UNLIMITED), is_pipe=True)
    inlet.begin(os.dup(_STDOUT))
    # The header goes ahead of the first packet: who waits for packets sees that it is open.
    inlet.flush()
    log.info(STREAM_OPEN, interface=interface, linktype=live.linktype)
    reason = "left"
    try:
        reason = _pump(live, inlet, time.monotonic() + wanted.seconds)
    except _Left:
        log.info("stopped")
    stats = live.stats()
    log.info(
        STREAM_OVER,
        reason=reason,
        packets=inlet.packets,
        received=stats.received,
        dropped=stats.dropped,
    )
    return 0


def choose(states: dict[str, bool]) -> str:
    """The one interface beside `lo`; `any` where there are several, or none is up."""
    found = interfaces.default(states)
    return found[0] if len(found) == 1 else ANY


def _pump(live: LiveCapture, inlet: Inlet, until: float) -> str:
    """Write packets until something ends it; returns what that was.

    Raises:
        PcapError: the interface is lost.
    """
    watched = Watched([_STDIN], [(live.fd, inlet)])
    while (now := time.monotonic()) < until:
        if watched.run(min(until, now + _LOOK_SECONDS)) and not os.read(_STDIN, 4096):
            return "left"
        live.stats()  # its counters begin anew at 2^32: they want to be asked now and then
        if inlet.is_lost:
            raise PcapError(live.error() or "capture was interrupted")
        # At once: somebody looks at it. While nobody takes it the kernel drops, and counts.
        if not inlet.flush():
            return "left"
        inlet.told = inlet.position
    return "time"


def _end_container() -> None:
    """End the program that keeps this container, if it is ours.

    It is process 1, unless the pod's containers share their processes; then it ends by its time.
    """
    try:
        command = Path("/proc/1/cmdline").read_bytes().split(b"\0")
        if command[:2] == [paths.ERRAND_PROGRAM.encode(), b"linger"]:
            os.kill(1, signal.SIGTERM)
    except OSError as error:
        log.warning("container goes on until its time is over", error=error)
