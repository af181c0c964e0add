"""Waits for packets and whatever else may happen; packets are written here and now."""

import time
from collections.abc import Callable, Iterable

from nightcap.pcap.libpcap import PcapError
from sidecar.libpump import Watched
from sidecar.stream import SpoolFull, Stream

OnTrouble = Callable[[Stream, PcapError | SpoolFull, float], None]
"""Called with the stream, what is wrong with it, and the monotonic clock."""


class Pump:
    """The streams of all captures, waited for together with some other descriptors."""

    def __init__(self, others: Iterable[int], on_trouble: OnTrouble) -> None:
        """Prepare.

        Args:
            others: Descriptors whose readiness ends `run`; -1 is passed over.
            on_trouble: What to do with a stream that cannot go on.
        """
        self._others = [fd for fd in others if fd >= 0]
        self._on_trouble = on_trouble
        self._streams: list[Stream] = []
        self._watched: Watched | None = None

    def watch(self, streams: Iterable[Stream], now: float) -> None:
        """From now on it is these; those that are blocked are left for later."""
        wanted = [stream for stream in streams if stream.blocked_until <= now]
        if wanted != self._streams:
            self._streams, self._watched = wanted, None

    def drop(self, stream: Stream) -> None:
        """Pass over a stream, before its descriptor's number comes back as another's."""
        if stream in self._streams:
            self._streams.remove(stream)
            self._watched = None

    def run(self, until: float) -> set[int]:
        """Write packets as they come, until there is something else to do.

        Args:
            until: Monotonic clock.

        Returns:
            The other descriptors that are readable; it comes back without any when `until` has
            come, a capture is full or a stream in trouble.
        """
        while True:
            if self._watched is None:
                inlets = [(stream.live.fd, stream.inlet) for stream in self._streams]
                self._watched = Watched(self._others, inlets)
            ready = self._watched.run(until)
            now = time.monotonic()
            is_over = now >= until
            for stream in list(self._streams):
                try:
                    stream.look(now)
                except (PcapError, SpoolFull) as error:
                    self._on_trouble(stream, error, now)
                    is_over = True
                is_over |= stream.is_full
            if ready or is_over:
                return ready
