"""What a sidecar has written, read back."""

import io
import json
import time
from pathlib import Path

from nightcap.pcap.formats import PcapReader
from tests.netns.pods import ID, Pod


def numbers(*files: Path | bytes) -> list[int]:
    """The numbers in the packets that `Link.send` sent."""
    found = []
    for file in files:
        data = file if isinstance(file, bytes) else file.read_bytes()
        reader = PcapReader(io.BytesIO(data))
        found += [int.from_bytes(record.data[42:50], "big") for record in reader]
        assert reader.damage == ""
    return found


def segments(pod: Pod, capture: str = ID, interface: str = "eth0") -> list[Path]:
    return sorted((pod.spool / capture / interface).glob("*.pcap"))


def ledger(pod: Pod, capture: str = ID) -> dict[str, object]:
    """What was written last; a line of its own."""
    lines = (pod.spool / capture / "state.json").read_text().splitlines()
    value: dict[str, object] = json.loads(lines[-1])
    return value


def settle() -> None:
    """Longer than the kernel holds a packet back and the worker buffers it."""
    time.sleep(0.3)
