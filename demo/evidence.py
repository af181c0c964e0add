"""Reads capture files with tools that are not ours: scapy, and tshark when it is installed."""

import io
import shutil
import subprocess
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from scapy.layers.dns import DNS  # type: ignore[attr-defined, unused-ignore]
from scapy.layers.inet import IP, TCP, UDP  # type: ignore[attr-defined, unused-ignore]
from scapy.packet import Packet
from scapy.utils import PcapReader


@dataclass(frozen=True, slots=True)
class CaptureFile:
    """One file out of a files.zip."""

    name: str
    data: bytes
    packets: tuple[Packet, ...]

    @property
    def pod(self) -> str:
        return self.name.partition("_")[0]

    @property
    def last_seen(self) -> float:
        """Time of the last packet, seconds since the epoch."""
        return max((float(packet.time) for packet in self.packets), default=0.0)


def open_zip(data: bytes) -> list[CaptureFile]:
    """Open a files.zip; every file has to be a readable capture.

    Raises:
        zipfile.BadZipFile: it is no zip, or a checksum is wrong.
        scapy.error.Scapy_Exception: a file is no capture.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        wrong = archive.testzip()
        if wrong is not None:
            raise zipfile.BadZipFile(f"{wrong} has a wrong checksum")
        return [read_capture(name, archive.read(name)) for name in archive.namelist()]


def read_capture(name: str, data: bytes) -> CaptureFile:
    """Read a capture with scapy."""
    with PcapReader(io.BytesIO(data)) as reader:  # type: ignore[arg-type]  # any file will do
        return CaptureFile(name, data, tuple(reader))


def tshark_count(data: bytes) -> int | None:
    """Packets as tshark counts them; None when tshark is not installed."""
    tshark = shutil.which("tshark")
    if tshark is None:
        return None
    with tempfile.NamedTemporaryFile(suffix=".pcap") as file:
        Path(file.name).write_bytes(data)
        done = subprocess.run(
            [tshark, "-r", file.name, "-T", "fields", "-e", "frame.number"],
            capture_output=True,
            text=True,
            check=True,
        )
    return len(done.stdout.split())


def index_of_first_query(packets: tuple[Packet, ...], name: str) -> int | None:
    """Where the first DNS question that asks for `name` (a first label) is; None if nowhere."""
    for index, packet in enumerate(packets):
        if UDP in packet and DNS in packet and packet[DNS].qr == 0 and packet[DNS].qd:
            asked = packet[DNS].qd[0].qname.decode()
            if asked.partition(".")[0] == name:
                return index
    return None


def is_first_of_its_sender(packets: tuple[Packet, ...], index: int) -> bool:
    """Whether who sent a packet sent none before it.

    What others send to an address that a pod had before may come ahead of its first packet.
    """
    sender = packets[index][IP].src
    return all(IP not in packet or packet[IP].src != sender for packet in packets[:index])


def index_of_syn(packets: tuple[Packet, ...], source_port: int) -> int | None:
    """Where the first SYN from `source_port` is; None if nowhere."""
    for index, packet in enumerate(packets):
        if IP in packet and TCP in packet:
            segment = packet[TCP]
            if segment.sport == source_port and segment.flags == "S":
                return index
    return None
