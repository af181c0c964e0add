"""What must be known of a capture after a restart of its worker, and how it lies on disk."""

import contextlib
import json
import os
import time
from typing import Any, Final

from nightcap.contract.orders import Limit
from nightcap.contract.reports import Lost, Reason, lost_value, parse_lost
from sidecar.lifecycle import End

LEDGER_FILE: Final = "state.json"
LEDGER_VERSION: Final = 1
_ANEW_SECONDS: Final = 1.0


class Ledger:
    """The counters and numbers of one capture.

    Attributes:
        packets, bytes: Of the segments that are complete.
        received, dropped: Of the interfaces that are closed.
        lost: What the spool dropped before it was shipped.
        next_seq: By interface.
        counted: By interface, the highest segment that `packets` and `bytes` hold.
        report_seq: No report had this number yet.
        collector_until: The orders' `until`, and what the collector said of the end under it.
        gone: The collector said that the capture was deleted.
        reported: The last report, `shipped`, was accepted.
    """

    def __init__(self) -> None:
        self.packets = 0
        self.bytes = 0
        self.received = 0
        self.dropped = 0
        self.lost = Lost()
        self.next_seq: dict[str, int] = {}
        self.counted: dict[str, int] = {}
        self.report_seq = 1
        self.end: End | None = None
        self.collector_until: tuple[int, float] | None = None
        self.gone = False
        self.reported = False

    def count(self, interface: str, seq: int, packets: int, size: int) -> None:
        """A segment is complete."""
        self.packets += packets
        self.bytes += size
        self.counted[interface] = max(seq, self.counted.get(interface, -1))


class LedgerFile:
    """The ledger's file: the last whole line of it holds.

    It is written anew by rename, which makes ext4 write to the disk there and then. Rotation at
    full speed would do that forty times a second and more. So what comes within a second of the
    last rename is added to the file: a tenth of the work, and as safe from the end of the process.
    """

    def __init__(self, folder: str) -> None:
        """Nothing is read or written.

        Args:
            folder: Of the capture; made when something is written.
        """
        self._folder = folder
        self._path = f"{folder}/{LEDGER_FILE}"
        self._anew_at = 0.0

    def write(self, ledger: Ledger, *, received: int, dropped: int, report_seq: int) -> None:
        """Write a ledger.

        Args:
            ledger: What is written.
            received: Those of the interfaces that are open included; so is `dropped`.
            dropped: Likewise.
            report_seq: The first that is not reserved.

        Raises:
            OSError: the spool takes no file.
        """
        value = _value(ledger, received=received, dropped=dropped, report_seq=report_seq)
        line = json.dumps(value).encode()
        now = time.monotonic()
        if now < self._anew_at and self._add(line):
            return
        os.makedirs(self._folder, exist_ok=True)
        with open(f"{self._path}.new", "wb") as file:
            file.write(line)
        os.replace(f"{self._path}.new", self._path)
        self._anew_at = now + _ANEW_SECONDS

    def _add(self, line: bytes) -> bool:
        """Add a line; False when it is not there whole."""
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            # The line break comes first: the line before may be a torn one.
            return os.write(fd, b"\n" + line) == len(line) + 1
        except OSError:
            return False
        finally:
            os.close(fd)

    def read(self) -> Ledger:
        """Read what was written last.

        Raises:
            FileNotFoundError: there is none.
            OSError, ValueError, TypeError, KeyError: it cannot be read, or is none.
        """
        with open(self._path, "rb") as file:
            return _ledger(_last_whole(file.read().split(b"\n")))


def _last_whole(lines: list[bytes]) -> dict[str, Any]:
    """The last line that nothing is missing of.

    Raises:
        ValueError: there is none.
    """
    for line in reversed(lines):
        with contextlib.suppress(ValueError):
            value: dict[str, Any] = json.loads(line)
            return value
    raise ValueError("no line of it is whole")


def _value(ledger: Ledger, *, received: int, dropped: int, report_seq: int) -> dict[str, Any]:
    end = ledger.end
    if end is not None and end.reason is Reason.TERMINATED:
        end = None  # the container may start again, and then the capture goes on
    return {
        "v": LEDGER_VERSION,
        "packets": ledger.packets,
        "bytes": ledger.bytes,
        "received": received,
        "dropped": dropped,
        "lost": lost_value(ledger.lost),
        "next": ledger.next_seq,
        "counted": ledger.counted,
        "report": report_seq,
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


def _ledger(value: dict[str, Any]) -> Ledger:
    ledger = Ledger()
    ledger.packets, ledger.bytes = int(value["packets"]), int(value["bytes"])
    ledger.received, ledger.dropped = int(value["received"]), int(value["dropped"])
    ledger.lost = parse_lost(value["lost"])
    ledger.next_seq = {str(name): int(seq) for name, seq in value["next"].items()}
    ledger.counted = {str(name): int(seq) for name, seq in value["counted"].items()}
    ledger.report_seq = int(value["report"])
    said = value["collector_until"]
    ledger.collector_until = said and (int(said[0]), float(said[1]))
    ledger.gone, ledger.reported = bool(value["gone"]), bool(value["reported"])
    end = value["end"]
    if end:
        limit = Limit(int(end["bytes"]), int(end["packets"]))
        ledger.end = End(Reason(end["reason"]), int(end["until"]), limit)
    return ledger
