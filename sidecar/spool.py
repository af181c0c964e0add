"""The spool: segments on disk, what is known of each, and the ledger that survives the worker.

    {capture uid}/state.json                            the ledger
    {capture uid}/{interface, quoted}/{seq:08d}.pcap.part   a segment that grows
    {capture uid}/{interface, quoted}/{seq:08d}.pcap        a complete one, published by rename

Two threads share it: the capturing one writes, the shipping one reads and frees.
Whatever both touch is touched under `Spool.lock`.
"""

import json
import os
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from nightcap.contract.orders import CAPTURE_ID, Limit
from nightcap.contract.reports import Lost, Reason, Report, State
from nightcap.contract.uploads import BadUploadPath, quote_interface, unquote_interface
from nightcap.pcap import formats
from sidecar import log, rotation
from sidecar.lifecycle import End

LEDGER_FILE: Final = "state.json"
LEDGER_VERSION: Final = 1
SEGMENT_FILE: Final = re.compile(r"(\d{8})\.pcap(\.part)?")
_REPORT_BLOCK: Final = 1000
"""Report numbers are reserved in blocks, so that not every report writes the ledger."""
MARK_BYTES: Final = 512 * 2**10


@dataclass(slots=True, eq=False)
class Segment:
    """One file, and what the collector knows of it.

    Attributes:
        age: Place in the order of creation over all captures.
        size: Bytes that may be read; always the end of a record.
        marks: Ends of records below `size`, ascending, some hundred KiB apart.
        ours: What the collector holds under this number is surely ours: it was asked, or has
            accepted something.
        recovered: Written by a worker before this one.
        acked: Bytes that the collector has received.
        durable: Bytes that it will not lose.
        sealed: It knows that the segment ends there.
    """

    interface: str
    seq: int
    age: int
    max_files: int
    size: int = 0
    complete: bool = False
    removed: bool = False
    marks: list[int] = field(default_factory=list)
    ours: bool = False
    recovered: bool = False
    acked: int = 0
    durable: int = 0
    sealed: bool = False
    busy: bool = False
    next_at: float = 0.0

    @property
    def file_name(self) -> str:
        return f"{self.seq:08d}.pcap" + ("" if self.complete else ".part")

    @property
    def shipped(self) -> bool:
        return self.sealed and self.durable >= self.size


@dataclass(frozen=True, slots=True)
class Status:
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


@dataclass(slots=True)
class Ledger:
    """What must be known after a restart.

    Attributes:
        packets, bytes: Of the segments that are complete.
        next_seq: By interface.
        counted: By interface, the highest segment that `packets` and `bytes` hold.
        report_seq: No report had this number yet.
        collector_until: The orders' `until`, and what the collector said of the end under it.
        reported: The last report, `shipped`, was accepted.
    """

    packets: int = 0
    bytes: int = 0
    received: int = 0
    dropped: int = 0
    lost_segments: int = 0
    lost_bytes: int = 0
    next_seq: dict[str, int] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)
    report_seq: int = 1
    end: End | None = None
    collector_until: tuple[int, float] | None = None
    gone: bool = False
    reported: bool = False


class CaptureSpool:
    """One capture's folder. Made by `Spool`."""

    def __init__(self, spool: "Spool", capture_id: str) -> None:
        self.spool = spool
        self.id = capture_id
        self.folder = spool.root / capture_id
        self.ledger = Ledger()
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
            path.parent.mkdir(parents=True, exist_ok=True)
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
                part.rename(self.path(segment))
            segment.complete = True
            segment.size = size
            self._count(segment.interface, segment.seq, packets, size)
            self._save_quietly()
            self.spool.news.notify_all()

    def _count(self, interface: str, seq: int, packets: int, size: int) -> None:
        self.ledger.packets += packets
        self.ledger.bytes += size
        self.ledger.counted[interface] = max(seq, self.ledger.counted.get(interface, -1))

    def say(self, status: Status) -> bool:
        """Take over what is to be reported; True when it should be reported at once."""
        with self.spool.lock:
            # The first word is news, also when it is the one that a capture begins with: the
            # shipping thread may be asleep, with nothing to do for the others.
            news = not self._said or status.differs(self.status)
            self._said = True
            self.status = status
            if news:
                self.report_due = True
                self._save_quietly()
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
                self._save_quietly()
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
            self._save_quietly()

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
                old.rename(self.path(segment))
            self._save_quietly()

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
            self._save_quietly()

    def drop_all(self) -> None:
        """The capture was deleted: keep nothing but the ledger that says so."""
        with self.spool.lock:
            for segment in self.segments:
                segment.removed = True
            self.segments.clear()
            for entry in self.folder.iterdir() if self.folder.is_dir() else ():
                if entry.is_dir():
                    _remove_tree(entry)
            self._save_quietly()

    def path(self, segment: Segment) -> Path:
        """Where a segment lies now; it moves when it is completed."""
        return self.folder / quote_interface(segment.interface) / segment.file_name

    def _unlink(self, segment: Segment) -> None:
        try:
            self.path(segment).unlink(missing_ok=True)
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
        self.folder.mkdir(parents=True, exist_ok=True)
        new = self.folder / f"{LEDGER_FILE}.new"
        new.write_text(json.dumps(self._dump()))
        new.replace(self.folder / LEDGER_FILE)

    def _save_quietly(self) -> None:
        try:
            self.save()
        except OSError as error:
            log.error("state cannot be written", capture=self.id, error=error)

    def _dump(self) -> dict[str, Any]:
        ledger, end = self.ledger, self.ledger.end
        if end is not None and end.reason is Reason.TERMINATED:
            end = None  # the container may start again, and then the capture goes on
        return {
            "v": LEDGER_VERSION,
            "packets": ledger.packets,
            "bytes": ledger.bytes,
            "received": max(ledger.received, self.status.received),
            "dropped": max(ledger.dropped, self.status.dropped),
            "lost": {"segments": ledger.lost_segments, "bytes": ledger.lost_bytes},
            "next": ledger.next_seq,
            "counted": ledger.counted,
            "report": max(self._reserved, ledger.report_seq),
            "collector_until": ledger.collector_until,
            "gone": ledger.gone,
            "reported": ledger.reported and end is not None,
            "end": end
            and {
                "reason": end.reason,
                "until": end.until,
                "bytes": end.limit.bytes,
                "packets": end.limit.packets,
            },
        }

    def load(self) -> None:
        """Take over what an earlier worker left: its ledger and its segments, mended."""
        try:
            self.ledger = _parse_ledger(json.loads((self.folder / LEDGER_FILE).read_text()))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.error("state cannot be read, counting anew", capture=self.id, error=error)
        for folder in sorted(self.folder.iterdir()):
            if folder.is_dir():
                self._load_interface(folder)
        with self.spool.lock:
            self._save_quietly()

    def _load_interface(self, folder: Path) -> None:
        try:
            interface = unquote_interface(folder.name)
        except BadUploadPath:
            return
        for path in sorted(folder.iterdir()):
            match = SEGMENT_FILE.fullmatch(path.name)
            if match is None:
                continue
            try:
                self._load_segment(path, interface, int(match[1]), grew=match[2] is not None)
            except OSError as error:
                log.error("segment cannot be recovered", file=path.name, error=error)

    def _load_segment(self, path: Path, interface: str, seq: int, *, grew: bool) -> None:
        ledger = self.ledger
        ledger.next_seq[interface] = max(seq + 1, ledger.next_seq.get(interface, 0))
        counted = seq <= ledger.counted.get(interface, -1)
        if grew or not counted:
            scan = mend(path)
            if scan is None:
                return
            if not counted:
                self._count(interface, seq, scan.packets, scan.end)
                # The kernel's counters die with the worker; they are never below ours.
                ledger.received = max(ledger.received, ledger.packets)
        segment = Segment(interface, seq, self.spool.next_age(), max_files=10**6)
        segment.complete = segment.recovered = True
        segment.size = path.stat().st_size
        if grew:
            path.rename(self.path(segment))
        self.segments.append(segment)


class Spool:
    """All captures' folders and the ceiling over them."""

    def __init__(self, root: Path, limit_bytes: int) -> None:
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
            folders = sorted(self.root.iterdir(), key=lambda path: path.stat().st_mtime)
        except OSError as error:
            log.error("spool cannot be read", error=error)
            return
        for folder in folders:
            if CAPTURE_ID.fullmatch(folder.name) and folder.is_dir():
                capture = CaptureSpool(self, folder.name)
                try:
                    capture.load()
                except OSError as error:
                    log.error("capture cannot be recovered", capture=folder.name, error=error)
                self.captures[folder.name] = capture

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


def _remove_tree(folder: Path) -> None:
    import shutil  # seldom needed, and slow to import

    shutil.rmtree(folder, ignore_errors=True)


def mend(path: Path) -> formats.Scan | None:
    """Cut off what a dead writer left behind the last whole record.

    Returns:
        What the file holds; None when that is no packet, and then the file is gone.
    """
    try:
        with path.open("rb") as file:
            scan = formats.scan(file)
    except formats.NotPcap:
        scan = None
    if scan is None or scan.packets == 0:
        path.unlink()
        return None
    if scan.end < path.stat().st_size:
        os.truncate(path, scan.end)
        log.warning("torn record cut off", file=path.name, bytes=scan.end)
    return scan


def _parse_ledger(value: dict[str, Any]) -> Ledger:
    end, said = value["end"], value["collector_until"]
    return Ledger(
        packets=int(value["packets"]),
        bytes=int(value["bytes"]),
        received=int(value["received"]),
        dropped=int(value["dropped"]),
        lost_segments=int(value["lost"]["segments"]),
        lost_bytes=int(value["lost"]["bytes"]),
        next_seq={str(name): int(seq) for name, seq in value["next"].items()},
        counted={str(name): int(seq) for name, seq in value["counted"].items()},
        report_seq=int(value["report"]),
        collector_until=said and (int(said[0]), float(said[1])),
        gone=bool(value["gone"]),
        reported=bool(value["reported"]),
        end=end
        and End(
            Reason(end["reason"]), int(end["until"]), Limit(int(end["bytes"]), int(end["packets"]))
        ),
    )
