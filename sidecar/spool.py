"""The spool: segments on disk, what is known of each, and the ledger that survives the worker.

{capture uid}/state.json                            the ledger
{capture uid}/{interface, quoted}/{seq:08d}.pcap.part   a segment that grows
{capture uid}/{interface, quoted}/{seq:08d}.pcap        a complete one, published by rename
.ended/{capture uid}/state.json                     the ledger of one that may be resumed
"""

import os
import threading

from sidecar import ended, log, room
from sidecar.capture_spool import CaptureSpool, Status, remove_tree

__all__ = ["CaptureSpool", "Spool", "Status"]


class Spool:
    """All captures' folders and the ceiling over them."""

    def __init__(self, root: str, limit_bytes: int) -> None:
        self.root = root
        self.limit_bytes = limit_bytes
        self.lock = threading.RLock()
        self.news = threading.Condition(self.lock)
        self.captures: dict[str, CaptureSpool] = {}
        self._age = 0

    def next_age(self) -> int:
        self._age += 1
        return self._age

    def leftovers(self) -> list[str]:
        """Entries of the folder that earlier workers left, for `recovery`."""
        try:
            return [name for name in os.listdir(self.root) if name != ended.FOLDER]
        except OSError as error:
            log.error("spool cannot be read", error=error)
            return []

    def capture(self, capture_id: str) -> CaptureSpool:
        """This capture's part of the spool, made when it is new."""
        with self.lock:
            capture = self.captures.get(capture_id)
            if capture is None:
                capture = self.captures[capture_id] = CaptureSpool(self, capture_id)
                if ended.take_back(self.root, capture_id):
                    capture.load()
            return capture

    def forget(self, capture_id: str) -> None:
        """Remove all that is left of a capture, but the ledger of one that was shipped whole.

        Such a one may be resumed, and then its counters go on.
        """
        with self.lock:
            capture = self.captures.pop(capture_id, None)
            if capture is not None:
                for segment in capture.segments:
                    segment.removed = True
                capture.segments.clear()
                capture.forgotten = True
                if capture.ledger.reported and not capture.ledger.gone:
                    ended.keep(self.root, capture_id)
                remove_tree(capture.folder)

    def make_room(self) -> bool:
        """Drop one segment because the disk is full; False when there is none to drop."""
        with self.lock:
            total = sum(
                segment.size
                for capture in self.captures.values()
                for segment in capture.segments
                if segment.complete and not segment.removed
            )
            return total > 0 and self.enforce(total - 1)

    def enforce(self, limit_bytes: int | None = None) -> bool:
        """Drop what is too much; True when something went.

        Args:
            limit_bytes: For all segments together; the spool's own limit when absent.
        """
        limit = self.limit_bytes if limit_bytes is None else limit_bytes
        with self.lock:
            present = (
                (capture.id, segment)
                for capture in self.captures.values()
                for segment in capture.segments
                if not segment.removed
            )
            victims = room.to_drop(present, limit)
            for capture_id, segment, was_shipped in victims:
                size = segment.size
                self.captures[capture_id].drop(segment)
                if not was_shipped:
                    log.warning(
                        "segment dropped unshipped",
                        capture=capture_id,
                        interface=segment.interface,
                        segment=segment.seq,
                        bytes=size,
                    )
            return bool(victims)
