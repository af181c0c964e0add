"""Many streams of packet blocks become one, by time; each stream keeps its own order.

Knows times and blocks; where they come from and go to is the caller's business. No
Python runs per packet: what is known to be next of all streams is cut off each, and
sorted together. Sorting what consists of sorted runs is a merge, in C.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from nightcap.pcap.rewriting import Batch, in_order

MEMORY_BYTES: Final = 4 * 2**20
"""How much of all files together is read ahead."""
_LEAST_BATCH_BYTES: Final = 4096
_MOST_BATCH_BYTES: Final = 2**17
_END: Final = 2**64
"""Later than any packet, and than any clock."""


def batch_bytes(streams: int) -> int:
    """How much to read of each stream at a time, so that memory does not grow with them."""
    return max(_LEAST_BATCH_BYTES, min(_MOST_BATCH_BYTES, MEMORY_BYTES // max(1, streams)))


class Queue:
    """Packets of one stream that wait for those of the others.

    Attributes:
        last_key: Nothing that comes later sorts before this; nanoseconds since the epoch.
    """

    __slots__ = ("_begin", "_blocks", "_keys", "last_key")

    def __init__(self) -> None:
        self._keys: list[int] = []
        self._blocks: list[bytes] = []
        self._begin = 0
        self.last_key = 0

    def __len__(self) -> int:
        return len(self._keys) - self._begin

    @property
    def next_key(self) -> int | None:
        """When the next packet is due; None when none waits."""
        return self._keys[self._begin] if self._begin < len(self._keys) else None

    def put(self, batch: Batch) -> None:
        """Add packets behind those that wait."""
        if not batch.times:
            return
        del self._keys[: self._begin], self._blocks[: self._begin]
        self._begin = 0
        keys = in_order(batch.times, self.last_key)
        self._keys += keys
        self._blocks += batch.blocks
        self.last_key = keys[-1]

    def take(self, limit: int) -> tuple[list[int], list[bytes]]:
        """Cut off what is due up to `limit`, which is included."""
        begin = self._begin
        end = self._begin = bisect_right(self._keys, limit, begin)
        return self._keys[begin:end], self._blocks[begin:end]


def take(queues: Iterable[Queue], limit: int) -> list[bytes]:
    """What is due up to `limit` of all queues, by time; what has one time, by queue."""
    keys: list[int] = []
    blocks: list[bytes] = []
    runs = 0
    for queue in queues:
        following = queue.next_key
        if following is None or following > limit:
            continue
        more_keys, more_blocks = queue.take(limit)
        keys += more_keys
        blocks += more_blocks
        runs += 1
    if runs < 2:
        return blocks
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return list(map(blocks.__getitem__, order))


class Source(Protocol):
    """One stream's packets in the order of its files."""

    @property
    def more(self) -> bool:
        """Whether there was more to read when it was read last."""

    def read(self) -> Batch | None:
        """The packets that come next, some of those that are there; None when there are none."""


@dataclass(slots=True)
class _Stream:
    """A source and what was read of it.

    Attributes:
        full: Packets of the last batch.
        more: Whether there is more to read now.
        arrived_at: Until when what is read now was not there (a monotonic clock).
        unripe: (last key, arrival) of what was read and may be held back still.
    """

    source: Source
    queue: Queue = field(default_factory=Queue)
    full: int = 0
    more: bool = True
    arrived_at: float = float("-inf")
    unripe: deque[tuple[int, float]] = field(default_factory=deque)

    def fill(self, now: float) -> None:
        """Look what has come, or have half a batch at least of what is there."""
        if not self.more:
            self.arrived_at = now
            self._read()
        while self.more and len(self.queue) * 2 <= self.full:
            self._read()

    def _read(self) -> None:
        batch = self.source.read()
        self.more = self.source.more
        if batch is not None:
            self.queue.put(batch)
            self.full = len(batch.times)
            self.unripe.append((self.queue.last_key, self.arrived_at))

    def ripe_key(self, before: float) -> int:
        """Up to where its packets have been here since `before`."""
        key = 0
        while self.unripe and self.unripe[0][1] <= before:
            key = self.unripe.popleft()[0]
        return key


class Merger:
    """Merges streams that are added at any time and grow at any time.

    While a stream has more to read, nothing later than what was read of it is given. Of one
    that has no more now nobody knows what will come: packets later than its last wait for
    at most `hold_seconds`. What comes later still is given late, never left out.
    """

    def __init__(self, hold_seconds: float = 0.0) -> None:
        self._hold_seconds = hold_seconds
        self._streams: list[_Stream] = []
        self._ripe_key = 0

    def add(self, source: Source, since: float = float("-inf")) -> None:
        """Merge another stream from now on.

        Args:
            source: It has all that came after `since`, of the same clock as `next`.
            since: What is older was there long ago and waits for nobody.
        """
        self._streams.append(_Stream(source, arrived_at=since))

    @property
    def is_empty(self) -> bool:
        """Whether all that could be read was given."""
        return not any(stream.more or len(stream.queue) for stream in self._streams)

    def next(self, now: float) -> list[bytes]:
        """What is next, some of it; nothing when nothing is due now.

        Args:
            now: Of a monotonic clock; the end of time gives what is held back, too.
        """
        for stream in self._streams:
            # All that run low are filled at once, or each round would get no further than the
            # shortest of all batches.
            stream.fill(now)
        before = now - self._hold_seconds
        ripe = max((stream.ripe_key(before) for stream in self._streams), default=0)
        self._ripe_key = max(self._ripe_key, ripe)
        known = min((s.queue.last_key for s in self._streams if s.more), default=_END)
        quiet = min((s.queue.last_key for s in self._streams if not s.more), default=_END)
        limit = min(known, max(self._ripe_key, quiet))
        return take((stream.queue for stream in self._streams), limit)


def merge(sources: Iterable[Source]) -> Iterator[list[bytes]]:
    """Merge streams that do not grow.

    Yields:
        Blocks in order, some at a time.
    """
    merger = Merger()
    for source in sources:
        merger.add(source)
    while not merger.is_empty:
        blocks = merger.next(_END)
        if blocks:
            yield blocks
