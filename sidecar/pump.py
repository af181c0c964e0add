"""Waits for packets and whatever else may happen; packets are written here and now."""

import select
import time
from collections.abc import Callable, Iterable
from typing import Final

from nightcap.pcap.libpcap import PcapError
from sidecar.stream import NEVER, SpoolFull, Stream

OnTrouble = Callable[[Stream, PcapError | SpoolFull, float], None]
"""Called with the stream, what is wrong with it, and the monotonic clock."""
_NO_FD: Final = -1


class Pump:
    """The streams of all captures, polled together with some other descriptors."""

    def __init__(self, others: Iterable[int], on_trouble: OnTrouble) -> None:
        """Prepare.

        Args:
            others: Descriptors whose readiness ends `run`; -1 is passed over.
            on_trouble: What to do with a stream that cannot go on.
        """
        self._poll = select.poll()
        self._others = frozenset(others) - {_NO_FD}
        for fd in self._others:
            self._poll.register(fd, select.POLLIN)
        self._on_trouble = on_trouble
        self._streams: dict[int, Stream] = {}
        self._due = 0.0

    def watch(self, streams: Iterable[Stream], now: float) -> None:
        """From now on it is these; those that are blocked are left for later."""
        wanted = {stream.live.fd: stream for stream in streams if stream.blocked_until <= now}
        for fd in self._streams.keys() - wanted.keys():
            self._poll.unregister(fd)
        for fd in wanted.keys() - self._streams.keys():
            self._poll.register(fd, select.POLLIN)
        self._streams = wanted
        self._plan()

    def drop(self, stream: Stream) -> None:
        """Stop polling a stream, before its descriptor's number comes back as another's."""
        if self._streams.get(stream.live.fd) is stream:
            del self._streams[stream.live.fd]
            self._poll.unregister(stream.live.fd)

    def run(self, until: float) -> set[int]:
        """Write packets as they come, until there is something else to do.

        Args:
            until: Monotonic clock.

        Returns:
            The other descriptors that are readable; it comes back without any when `until` has
            come, a capture is full or a stream in trouble.
        """
        poll, streams = self._poll.poll, self._streams
        now = time.monotonic()
        while True:
            events = poll(max(0.0, min(until, self._due) - now) * 1000)
            now = time.monotonic()
            ready = set()
            is_over = now >= until
            for fd, _ in events:
                stream = streams.get(fd)
                if stream is None:
                    ready.add(fd)
                    continue
                try:
                    if stream.pump(now):
                        is_over |= stream.is_full
                        self._due = min(self._due, stream.due_at)
                except (PcapError, SpoolFull) as error:
                    self._on_trouble(stream, error, now)
                    is_over = True
            if now >= self._due:
                is_over |= self._tick(now)
            if ready or is_over:
                return ready & self._others

    def _tick(self, now: float) -> bool:
        """Do what time asks for; whether a stream is in trouble."""
        troubled = False
        for stream in list(self._streams.values()):
            try:
                stream.tick(now)
            except SpoolFull as error:
                self._on_trouble(stream, error, now)
                troubled = True
        self._plan()
        return troubled

    def _plan(self) -> None:
        self._due = min((stream.due_at for stream in self._streams.values()), default=NEVER)
