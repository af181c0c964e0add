"""The newest files of a stream by the names that people know them by, for reports.

A name holds the time of the file's first packet, so the first bytes of each segment are
read once; a name never changes after that.
"""

import threading
from collections import OrderedDict
from typing import Final

from nightcap.contract.segments import FileName, SegmentKey, StreamKey
from nightcap.pcap.formats import FIRST_TIME_BYTES, NotPcap, first_time_ns
from retrieval.store.base import ReadableStore, StoredSegment, StreamMeta

NAMES: Final = 10
"""Of each stream: a status names a few hundred files, of all pods together."""
_MAX_KNOWN: Final = 65536


class FileNames:
    """Names files; remembers what reading them has shown."""

    def __init__(self, store: ReadableStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: OrderedDict[SegmentKey, int] = OrderedDict()

    def newest(self, stream: StreamKey, meta: StreamMeta, count: int = NAMES) -> tuple[str, ...]:
        """The newest files of a stream, sorted; a file without a packet is none yet."""
        segments = sorted(
            self._store.segments(stream), key=lambda s: (s.modified_at, s.key.seq), reverse=True
        )
        names: set[str] = set()
        for segment in segments:
            if len(names) == count:
                break
            first_ns = self._first_ns(segment)
            if first_ns is not None:
                names.add(str(FileName(meta.pod, segment.key.interface, first_ns // 1000)))
        return tuple(sorted(names))

    def _first_ns(self, segment: StoredSegment) -> int | None:
        if segment.size < FIRST_TIME_BYTES:
            return None
        with self._lock:
            known = self._known.get(segment.key)
        if known is not None:
            return known
        try:
            with self._store.open(segment.key) as reader:
                first_ns = first_time_ns(reader.read_at(0, FIRST_TIME_BYTES))
        except (FileNotFoundError, NotPcap):
            return None
        with self._lock:
            self._known[segment.key] = first_ns
            while len(self._known) > _MAX_KNOWN:
                self._known.popitem(last=False)
        return first_ns
