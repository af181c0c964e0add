"""Any bytes through the readers of capture files: `python -m tests.fuzz.formats CORPUS [FLAGS]`.

Coverage-guided (atheris); flags are libFuzzer's, such as `-max_total_time=60`. What must
hold is asserted: nothing raises but the refusal of another format, what was understood
ends inside the file, damage is stated exactly where something is left, and readers that
know the same format find the same.
"""

import io
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["nightcap"]):
    from nightcap.pcap import pcapng
    from nightcap.pcap.formats import (
        HEADER_BYTES,
        Header,
        NotPcap,
        PcapReader,
        Record,
        pack_header,
        pack_record,
        record_boundary,
    )
    from nightcap.pcap.offline import OfflineFilter
    from nightcap.pcap.pcapng import Interface, Names, Packet, Section
    from nightcap.pcap.pcapng_reading import NotPcapng, PcapngReader
    from nightcap.pcap.rewriting import rewrite

_FILTER = OfflineFilter("not greater 40 or ip6 or tcp port 80", 1)


def read_pcap(data: bytes) -> None:
    """A pcap file by the reader, and its records as a merge takes them."""
    try:
        reader = PcapReader(io.BytesIO(data))
    except NotPcap:
        return
    records = list(reader)
    assert HEADER_BYTES <= reader.end <= len(data)
    assert bool(reader.damage) == (reader.end < len(data))
    batch = rewrite(data[HEADER_BYTES:], reader.header, 0)
    assert batch.times == [record.time_ns for record in records]
    assert batch.end == reader.end - HEADER_BYTES
    assert len(batch.blocks) == len(records)
    values = _values(
        pcapng.pack_section(Section())
        + pcapng.pack_interface(Interface(1, 262144))
        + b"".join(batch.blocks)
    )
    assert [(v.time_ns, v.wire_bytes, v.data) for v in values if isinstance(v, Packet)] == records


def filter_pcap(data: bytes) -> None:
    """Records through libpcap: what it keeps was there."""
    header = Header(1, 262144, nanoseconds=True)
    whole = data[: record_boundary(data, "<")]
    start = pack_header(header)
    reader = PcapReader(io.BytesIO(start + whole))
    records = list(reader)
    if reader.damage:
        return
    kept = list(PcapReader(io.BytesIO(start + _FILTER.keep(whole, header))))
    left = iter(records)
    assert all(record in left for record in kept)


def read_pcapng(data: bytes) -> None:
    """A pcapng file; what was read can be written, and is read again the same."""
    try:
        reader = PcapngReader(io.BytesIO(data))
    except NotPcapng:
        return
    described: list[Interface] = []
    for value in reader:
        match value:
            case Section():
                described.clear()
            case Interface():
                described.append(value)
            case Packet() if value.time_ns is not None:
                _write_again(value, described[value.interface])
            case _:
                pass
    assert reader.end <= len(data)
    assert bool(reader.damage) == (reader.end < len(data))


def _write_again(packet: Packet, interface: Interface) -> None:
    nanoseconds = Interface(interface.linktype, interface.snaplen)
    try:
        block = pcapng.pack_packet(packet._replace(interface=0), nanoseconds)
    except ValueError:
        return  # a time that 64 bits of nanoseconds do not hold
    again = _values(pcapng.pack_section(Section()) + pcapng.pack_interface(nanoseconds) + block)
    assert again[2:] == [packet._replace(interface=0)]


def _values(data: bytes) -> list[pcapng.Value]:
    reader = PcapngReader(io.BytesIO(data))
    values = list(reader)
    assert reader.damage == "", reader.damage
    return values


_TARGETS = (read_pcap, filter_pcap, read_pcapng)


def one_input(data: bytes) -> None:
    """The first byte chooses what reads the others."""
    if data:
        _TARGETS[data[0] % len(_TARGETS)](data[1:])


def write_seeds(folder: Path) -> None:
    """A small file of each kind to begin with."""
    record = Record(1_700_000_000_123_456_789, 99, b"data")
    for order in "<>":
        name = {"<": "little", ">": "big"}[order]
        for nanoseconds in (True, False):
            header = Header(1, 65535, nanoseconds, order)
            body = pack_record(header, record) * 2
            (folder / f"pcap-{name}-{nanoseconds}").write_bytes(b"\0" + pack_header(header) + body)
            (folder / f"records-{name}-{nanoseconds}").write_bytes(b"\1" + body)
        interface = Interface(1, 65535, name="web-0:eth0", comments=("node",))
        blocks = [
            pcapng.pack_section(Section(order, application="x", comments=("y",))),
            pcapng.pack_interface(interface, order),
            pcapng.pack_names(Names((("10.0.0.1", ("a", "b")), ("fd00::1", ("c",)))), order),
            pcapng.pack_packet(Packet(0, record.time_ns, 9, b"abc", ("z",)), interface, order),
            pcapng.pack_statistics(
                pcapng.Statistics(0, record.time_ns, 1, 2, 3, 4, ("w",)), interface, order
            ),
        ]
        (folder / f"pcapng-{name}").write_bytes(b"\2" + b"".join(blocks))


if __name__ == "__main__":
    write_seeds(Path(sys.argv[1]))
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
