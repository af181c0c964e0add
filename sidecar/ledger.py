"""What must be known of a capture after a restart of its worker, and how it lies on disk."""

import json
import os
from typing import Any, Final

from nightcap.contract.orders import Limit
from nightcap.contract.reports import Lost, Reason, lost_value, parse_lost
from sidecar.lifecycle import End

LEDGER_FILE: Final = "state.json"
LEDGER_VERSION: Final = 1


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


def write(folder: str, ledger: Ledger, *, received: int, dropped: int, report_seq: int) -> None:
    """Write a ledger, by rename.

    Args:
        folder: Of its capture; made when it is not there.
        ledger: What is written.
        received: Those of the interfaces that are open included; so is `dropped`.
        dropped: Likewise.
        report_seq: The first that is not reserved.

    Raises:
        OSError: the spool takes no file.
    """
    end = ledger.end
    if end is not None and end.reason is Reason.TERMINATED:
        end = None  # the container may start again, and then the capture goes on
    value = {
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
    os.makedirs(folder, exist_ok=True)
    path = f"{folder}/{LEDGER_FILE}"
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        file.write(json.dumps(value))
    os.replace(f"{path}.new", path)


def read(folder: str) -> Ledger:
    """Read what `write` wrote.

    Raises:
        FileNotFoundError: there is none.
        OSError, ValueError, TypeError, KeyError: it cannot be read, or is none.
    """
    with open(f"{folder}/{LEDGER_FILE}", encoding="utf-8") as file:
        value: dict[str, Any] = json.loads(file.read())
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
