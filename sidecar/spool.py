"""The spool: segments on disk, what is known of each, and the ledger that survives the worker.

    {capture uid}/state.json                            the ledger
    {capture uid}/{interface, quoted}/{seq:08d}.pcap.part   a segment that grows
    {capture uid}/{interface, quoted}/{seq:08d}.pcap        a complete one, published by rename

Two threads share it: the capturing one writes, the shipping one reads and frees.
Whatever both touch is touched under `Spool.lock`.
"""

import os
import threading
import time
from typing import Final, NamedTuple

from nightcap.contract.reports import Lost, Reason, Report, State
from nightcap.contract.uploads import quote_interface
from sidecar import ledger, log, rotation
from sidecar.ledger import Ledger
from sidecar.segment import Segment

_REPORT_BLOCK: Final = 1000
"""Report numbers are reserved in blocks, so that not every report writes the ledger."""


class Status(NamedTuple):
    """What the capturing thread last said of a capture; the shipping thread reports it."""

    state: State = State.WAITING
    reason: Reason = Reason.NONE
    message: str = ""
    packets: int = 0
    bytes: int = 0
    received: int = 0
    dropped: int = 0

    def differs(self, other: "Status") -> bool:
        """Whether somebody should hear of it at once."""
        return (self.state, self.reason, self.message) != (other.state, other.reason, other.message)


class CaptureSpool:
    """One capture's folder. Made by `Spool`."""

    def __init__(self, spool: "Spool", capture_id: str) -> None:
        self.spool = spool
        self.id = capture_id
        self.folder = f"{spool.root}/{capture_id}"
        self.ledger = Ledger()
        # A capture that is resumed after its entry went has no ledger any more, and its collector
        # passes over numbers that are not higher than those it knows.
        self.ledger.report_seq = int(time.time()) * _REPORT_BLOCK
        self.segments: list[Segment] = []
        self.status = Status()
        self.report_due = False
        self.finished = False
        """Nothing more will be recorded under the orders that hold."""
        self.first_interface = "any"
        self.ordered_until = 0
        self.held = False
        """Its segments are not shipped for the moment; its reports are."""
        self.looping = False
        self.epoch = 0
        """Counts the times that the capture began, so that a late answer is not taken for a new."""
        self.forgotten = False
        self._reserved = 0
        self._said = False

    # What the capturing thread does.

    def begin(self, interface: str, max_files: int) -> tuple[Segment, int]:
        """Create the next segment of an interface.

        Returns:
            The segment and a file descriptor to write it.

        Raises:
            OSError: the spool takes no file.
        """
        with self.spool.lock:
            seq = self.ledger.next_seq.get(interface, 0)
            self.ledger.next_seq[interface] = seq + 1
            segment = Segment(interface, seq, self.spool.next_age(), max_files)
            # The number is used up on disk before a byte can reach the collector under it.
            self.save()
            path = self.path(segment)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
            self.segments.append(segment)
            return segment, fd

    def grow(self, segment: Segment, size: int, marks: list[int]) -> None:
        """Let readers have the segment up to `size`, which its file holds."""
        with self.spool.lock:
            segment.size = size
            segment.marks += marks
            self.spool.news.notify_all()

    def complete(self, segment: Segment, size: int, packets: int) -> None:
        """Publish a segment that has ended; without packets it leaves no trace."""
        with self.spool.lock:
            if packets == 0:
                if segment in self.segments:
                    self.segments.remove(segment)
                self._unlink(segment)
                return
            if not segment.removed:
                part = self.path(segment)
                segment.complete = True
                os.rename(part, self.path(segment))
            segment.complete = True
            segment.size = size
            self.ledger.count(segment.interface, segment.seq, packets, size)
            self.save_quietly()
            self.spool.news.notify_all()

    def say(self, status: Status) -> bool:
        """Take over what is to be reported; True when it should be reported at once."""
        with self.spool.lock:
            # The first word is news, also when it is the one that a capture begins with: the
            # shipping thread may be asleep, with nothing to do for the others.
            news = not self._said or status.differs(self.status)
            self._said = True
            dropped, self.status = self.status.dropped, status
            if status.dropped > dropped and not news:
                self.save_quietly()  # nobody else remembers them when this worker is killed
            if news:
                self.report_due = True
                self.save_quietly()
                self.spool.news.notify_all()
            return news

    # What the shipping thread does.

    def report(self, now: float, *, shipped: bool = False) -> Report:
        """The next report."""
        with self.spool.lock:
            seq = self.ledger.report_seq
            self.ledger.report_seq += 1
            if self.ledger.report_seq > self._reserved:
                self._reserved = seq + _REPORT_BLOCK
                self.save_quietly()
            status = self.status
            return Report(
                seq=seq,
                at=now,
                state=status.state,
                reason=status.reason,
                message=status.message,
                packets=status.packets,
                bytes=status.bytes,
                received=status.received,
                dropped=status.dropped,
                lost=Lost(self.ledger.lost_segments, self.ledger.lost_bytes),
                backlog=sum(each.size - min(each.durable, each.size) for each in self.segments),
                shipped=shipped,
            )

    def reported(self) -> None:
        """The final report was accepted: nothing is left to say."""
        with self.spool.lock:
            self.ledger.reported = True
            self.save_quietly()

    def heard_until(self, until: float) -> bool:
        """The collector told the end as it knows it; True when that is news."""
        with self.spool.lock:
            said = (self.ordered_until, until)
            news = said != self.ledger.collector_until
            self.ledger.collector_until = said
            return news

    def release(self, segment: Segment) -> None:
        """Free a segment that the collector holds durably."""
        with self.spool.lock:
            if segment in self.segments:
                self.segments.remove(segment)
                if not segment.removed:
                    self._unlink(segment)

    def renumber(self, segment: Segment, seq: int) -> None:
        """Give a segment another number: the collector holds something else under its own.

        So it is after a node lost the spool with its ledger and the pod lives on.
        """
        with self.spool.lock:
            old = self.path(segment)
            segment.seq = seq
            following = max(seq + 1, self.ledger.next_seq.get(segment.interface, 0))
            self.ledger.next_seq[segment.interface] = following
            if not segment.removed:
                os.rename(old, self.path(segment))
            self.save_quietly()

    # Both.

    def drop(self, segment: Segment) -> None:
        """Give a segment up; what was not durable is counted as lost."""
        with self.spool.lock:
            self._unlink(segment)
            segment.removed = True
            if segment.shipped:
                self.segments.remove(segment)
                return
            self.ledger.lost_segments += 1
            self.ledger.lost_bytes += max(0, segment.size - segment.acked)
            # What the collector has of it is the whole of it from now on: let it know the end.
            segment.size = segment.acked
            if segment.acked == 0 and not segment.recovered:
                self.segments.remove(segment)
            self.save_quietly()

    def drop_all(self) -> None:
        """The capture was deleted: keep nothing but the ledger that says so."""
        with self.spool.lock:
            for segment in self.segments:
                segment.removed = True
            self.segments.clear()
            for name in os.listdir(self.folder) if os.path.isdir(self.folder) else ():
                if os.path.isdir(f"{self.folder}/{name}"):
                    _remove_tree(f"{self.folder}/{name}")
            self.save_quietly()

    def path(self, segment: Segment) -> str:
        """Where a segment lies now; it moves when it is completed."""
        return f"{self.folder}/{quote_interface(segment.interface)}/{segment.file_name}"

    def _unlink(self, segment: Segment) -> None:
        try:
            os.unlink(self.path(segment))
        except FileNotFoundError:
            return
        except OSError as error:
            log.error("segment cannot be removed", capture=self.id, error=error)

    # The ledger.

    def save(self) -> None:
        """Write the ledger, by rename.

        Raises:
            OSError: the spool takes no file.
        """
        if self.forgotten:
            return  # an answer that came late must not bring the folder back
        book, status = self.ledger, self.status
        ledger.write(
            self.folder,
            book,
            received=max(book.received, status.received),
            dropped=max(book.dropped, status.dropped),
            report_seq=max(self._reserved, book.report_seq),
        )

    def save_quietly(self) -> None:
        """Write the ledger if that is possible; when not, that is said."""
        try:
            self.save()
        except OSError as error:
            log.error("state cannot be written", capture=self.id, error=error)


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

    def recover(self) -> None:
        """Take over what earlier workers left."""
        try:
            names = os.listdir(self.root)
        except OSError as error:
            log.error("spool cannot be read", error=error)
            return
        if names:
            from sidecar import recovery

            recovery.recover(self, names)

    def capture(self, capture_id: str) -> CaptureSpool:
        """This capture's part of the spool, made when it is new."""
        with self.lock:
            if capture_id not in self.captures:
                self.captures[capture_id] = CaptureSpool(self, capture_id)
            return self.captures[capture_id]

    def forget(self, capture_id: str) -> None:
        """Remove all that is left of a capture."""
        with self.lock:
            capture = self.captures.pop(capture_id, None)
            if capture is not None:
                for segment in capture.segments:
                    segment.removed = True
                capture.segments.clear()
                capture.forgotten = True
                _remove_tree(capture.folder)

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
            by_key = {
                ((capture.id, segment.interface), segment.seq): (capture, segment)
                for capture in self.captures.values()
                for segment in capture.segments
                if not segment.removed
            }
            stored = [
                rotation.Stored(
                    stream=stream,
                    seq=seq,
                    size=segment.size,
                    max_files=segment.max_files,
                    growing=not segment.complete,
                    shipped=segment.shipped,
                    busy=segment.busy,
                )
                for (stream, seq), (_, segment) in sorted(
                    by_key.items(), key=lambda item: item[1][1].age
                )
            ]
            victims = rotation.to_drop(stored, limit)
            for victim in victims:
                capture, segment = by_key[victim.stream, victim.seq]
                capture.drop(segment)
                if not victim.shipped:
                    log.warning(
                        "segment dropped unshipped",
                        capture=capture.id,
                        interface=segment.interface,
                        segment=segment.seq,
                        bytes=victim.size,
                    )
            return bool(victims)


def _remove_tree(folder: str) -> None:
    import shutil  # seldom needed, and slow to import

    shutil.rmtree(folder, ignore_errors=True)
