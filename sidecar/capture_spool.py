"""One capture's folder in the spool: its segments, its ledger, and what is to be said of it.

Two threads share it: the capturing one writes, the shipping one reads and frees.
Whatever both touch is touched under `Spool.lock`.
"""

import os
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from nightcap.contract.reports import Reason, Report, State
from nightcap.contract.uploads import quote_interface
from sidecar import log
from sidecar.ledger import Ledger, LedgerFile
from sidecar.segment import Segment

if TYPE_CHECKING:
    from sidecar.spool import Spool

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
        self._file = LedgerFile(self.folder)
        # A capture that is resumed after its entry went has no ledger any more, and its collector
        # passes over numbers that are not higher than those it knows.
        self.ledger.report_seq = int(time.time()) * _REPORT_BLOCK
        self.segments: list[Segment] = []
        self.status = Status()
        self.report_due = False
        self.told_packets = 0
        """So many had the last report."""
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
            try:
                fd = _create(path)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                fd = _create(path)
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

    def counted(self, state: State, reason: Reason, message: str) -> Status:
        """A status with what the ledger has counted: nothing is recorded at the moment."""
        ledger = self.ledger
        return Status(
            state, reason, message, ledger.packets, ledger.bytes, ledger.received, ledger.dropped
        )

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
            if news or status.packets != self.told_packets:
                self.spool.news.notify_all()
            return news

    def hold(self, *, held: bool) -> None:
        """Hold its segments back, or let them go: what waited then waits no longer."""
        with self.spool.lock:
            if self.held and not held:
                for segment in self.segments:
                    if not segment.sealed:
                        segment.next_at = 0.0
                self.spool.news.notify_all()
            self.held = held

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
            self.told_packets = status.packets
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
                lost=self.ledger.lost,
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
            segment.recorded = segment.size
            # What the collector has of it is the whole of it from now on: let it know the end.
            self._lose_behind(segment, segment.acked)
            if not (segment.acked or segment.busy or segment.ours or segment.recovered):
                self.segments.remove(segment)  # nothing of it can have arrived
            self.save_quietly()

    def holds(self, segment: Segment, offset: int) -> None:
        """The collector has so much of a segment that was dropped; the rest is what was lost.

        It may be more than was known (a worker before this one sent it), and less than it had
        before (it died before its disk had it).
        """
        with self.spool.lock:
            if offset < segment.size:
                self._lose_behind(segment, offset)
            elif offset > segment.size:
                from sidecar import losses  # seldom needed

                end = min(offset, segment.recorded)
                self.ledger.lost = losses.regain(
                    self.ledger.lost,
                    segment.interface,
                    segment.seq,
                    size=max(0, end - segment.size),
                    offset=offset,
                )
                segment.size = offset

    def _lose_behind(self, segment: Segment, offset: int) -> None:
        if offset < segment.size:
            from sidecar import losses  # seldom needed

            self.ledger.lost = losses.lose(
                self.ledger.lost, segment.interface, segment.seq, start=offset, end=segment.size
            )
        segment.size = offset

    def drop_all(self) -> None:
        """The capture was deleted: keep nothing but the ledger that says so."""
        with self.spool.lock:
            for segment in self.segments:
                segment.removed = True
            self.segments.clear()
            for name in os.listdir(self.folder) if os.path.isdir(self.folder) else ():
                if os.path.isdir(f"{self.folder}/{name}"):
                    remove_tree(f"{self.folder}/{name}")
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

    def load(self) -> None:
        """Read the ledger, if there is one that can be read."""
        try:
            self.ledger = self._file.read()
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.error("state cannot be read, counting anew", capture=self.id, error=error)

    def save(self) -> None:
        """Write the ledger.

        Raises:
            OSError: the spool takes no file.
        """
        if self.forgotten:
            return  # an answer that came late must not bring the folder back
        book, status = self.ledger, self.status
        self._file.write(
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


def _create(path: str) -> int:
    """A new file, open for writing."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)


def remove_tree(folder: str) -> None:
    """Remove a folder, or as much of it as can be."""
    import shutil  # seldom needed, and slow to import

    shutil.rmtree(folder, ignore_errors=True)
