import io
import ipaddress
import json
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightcap.pcap import pcapng, pcapng_reading
from nightcap.pcap.pcapng import Interface, Names, Packet, Section, Statistics, Value
from nightcap.pcap.pcapng_reading import NotPcapng, PcapngReader

NS = 1_700_000_000_123_456_789
UNITS = {"ns": 10**9, "us": 10**6, "s": 1, "2^-10": 2**10, "2^-30": 2**30}

orders = st.sampled_from("<>")
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
comments = st.lists(texts, max_size=2).map(tuple)
interfaces = st.builds(
    Interface,
    linktype=st.sampled_from([1, 113, 276]),
    snaplen=st.integers(0, 2**32 - 1),
    name=texts,
    description=texts,
    ticks_per_second=st.sampled_from(sorted(UNITS.values())),
    offset_seconds=st.integers(-(2**20), 2**20),
    comments=comments,
)
addresses = st.ip_addresses().map(str)
# Whole seconds, so that every unit holds them.
times = st.integers(2**21, 2**32).map(lambda seconds: seconds * 10**9)
counts = st.none() | st.integers(0, 2**64 - 1)


@st.composite
def sections(draw: st.DrawFn) -> list[Value]:
    values: list[Value] = [
        Section(draw(orders), application=draw(texts), comments=draw(comments)),
        *draw(st.lists(interfaces, min_size=1, max_size=3)),
    ]
    number = st.integers(0, len(values) - 2)
    names = st.lists(
        st.tuples(addresses, st.lists(texts.filter(bool), max_size=3).map(tuple)), max_size=3
    )
    packets = st.builds(
        Packet,
        interface=number,
        time_ns=times,
        wire_bytes=st.integers(0, 2**32 - 1),
        data=st.binary(max_size=70),
        comments=comments,
    )
    statistics = st.builds(
        Statistics,
        interface=number,
        time_ns=times,
        received=counts,
        dropped=counts,
        start_ns=st.none() | times,
        end_ns=st.none() | times,
        comments=comments,
    )
    others = st.builds(Names, names.map(tuple)) | packets | statistics
    return values + draw(st.lists(others, max_size=6))


def pack(values: list[Value]) -> list[bytes]:
    """Each value as its block."""
    blocks = []
    order, described = "<", []
    for value in values:
        match value:
            case Section():
                order, described = value.byte_order, []
                blocks.append(pcapng.pack_section(value))
            case Interface():
                described.append(value)
                blocks.append(pcapng.pack_interface(value, order))
            case Names():
                blocks.append(pcapng.pack_names(value, order))
            case Packet():
                blocks.append(pcapng.pack_packet(value, described[value.interface], order))
            case Statistics():
                interface = described[value.interface]
                blocks.append(pcapng.pack_statistics(value, interface, order))
    return blocks


def read(data: bytes) -> tuple[list[Value], PcapngReader]:
    reader = PcapngReader(io.BytesIO(data))
    return list(reader), reader


def run(*command: str, data: bytes = b"") -> str:
    done = subprocess.run(command, input=data, capture_output=True, check=True)
    return done.stdout.decode()


@given(st.lists(sections(), min_size=1, max_size=3))
def test_what_is_written_is_read(parts: list[list[Value]]) -> None:
    values = [value for part in parts for value in part]
    data = b"".join(pack(values))
    found, reader = read(data)
    assert found == values
    assert (reader.end, reader.damage) == (len(data), "")


@given(sections(), st.data())
def test_a_cut_file_gives_all_before_the_cut_and_says_so(
    values: list[Value], data: st.DataObject
) -> None:
    blocks = pack(values)
    whole = b"".join(blocks)
    cut = data.draw(st.integers(len(blocks[0]), len(whole)))
    found, reader = read(whole[:cut])
    ends = [sum(map(len, blocks[:number])) for number in range(len(blocks) + 1)]
    last = max(end for end in ends if end <= cut)
    assert found == values[: ends.index(last)]
    assert reader.end == last
    assert bool(reader.damage) == (cut != last)


@given(sections(), st.data())
def test_damage_anywhere_is_a_statement_and_never_an_exception(
    values: list[Value], data: st.DataObject
) -> None:
    blocks = pack(values)
    whole = bytearray(b"".join(blocks))
    at = data.draw(st.integers(len(blocks[0]), max(len(whole) - 1, len(blocks[0]))))
    noise = data.draw(st.binary(min_size=1, max_size=8))
    whole[at : at + len(noise)] = noise
    found, reader = read(bytes(whole))
    before = sum(1 for number in range(len(blocks)) if sum(map(len, blocks[: number + 1])) <= at)
    assert found[:before] == values[:before]
    assert reader.end <= len(whole)
    assert bool(reader.damage) == (reader.end < len(whole))


@given(st.binary(max_size=200))
def test_other_bytes_are_refused_in_words(data: bytes) -> None:
    with pytest.raises(NotPcapng, match="no pcapng file"):
        PcapngReader(io.BytesIO(data))


@pytest.mark.parametrize("order", "<>")
def test_blocks_that_nobody_knows_are_passed_over(order: str) -> None:
    section, interface = Section(order), Interface(1, 65535)
    unknown = struct.pack(order + "III", 0x0BAD, 16, 7) + struct.pack(order + "I", 16)
    data = b"".join([*pack([section, interface]), unknown])
    assert read(data)[0] == [section, interface]


@pytest.mark.parametrize("order", "<>")
def test_a_simple_packet_has_no_time_and_ends_at_the_snap_length(order: str) -> None:
    head = b"".join(pack([Section(order), Interface(1, 4)]))
    simple = struct.pack(order + "III", 3, 20, 9) + b"abcd" + struct.pack(order + "I", 20)
    assert read(head + simple)[0][2:] == [Packet(0, None, 9, b"abcd")]


@pytest.mark.parametrize("order", "<>")
def test_an_old_packet_is_read_as_tshark_reads_it(tmp_path: Path, order: str) -> None:
    """Of before 2008; nobody writes it any more, so its bytes are made here: 7 drops before it."""
    time = NS // 1000
    head = struct.pack(order + "HHIIII", 1, 7, time >> 32, time & 0xFFFFFFFF, 15, 99)
    options = struct.pack(order + "HH", 1, 3) + b"old\0" + bytes(4)
    body = head + bytes(range(15)) + b"\0" + options
    length = struct.pack(order + "I", len(body) + 12)
    interfaces = [Interface(1, 65535, ticks_per_second=unit) for unit in (10**9, 10**6)]
    block = struct.pack(order + "I", 2) + length + body + length
    data = b"".join([*pack([Section(order), *interfaces]), block])
    values, reader = read(data)
    assert values[3:] == [Packet(1, time * 1000, 99, bytes(range(15)), ("old",))]
    assert not reader.damage
    path = tmp_path / "old.pcapng"
    path.write_bytes(data)
    fields = ["frame.time_epoch", "frame.len", "frame.cap_len", "frame.interface_id"]
    chosen = [part for field in fields for part in ("-e", field)]
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", *chosen]
    seen = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert seen == ["1700000000.123456000", "99", "15", "1"]
    command = ["capinfos", "-M", "-c", "-s", str(path)]
    counted = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "Number of packets:   1" in counted


@pytest.mark.parametrize(
    ("block", "statement"),
    [
        pytest.param(struct.pack("<III", 6, 12, 12), "block of 12 bytes", id="too short"),
        pytest.param(struct.pack("<III", 9, 2**30, 0), "block of 1073741824 bytes", id="too long"),
        pytest.param(struct.pack("<IIII", 9, 16, 0, 20), "two lengths differ", id="two lengths"),
        pytest.param(
            struct.pack("<IIIIIIII", 6, 32, 7, 0, 0, 0, 0, 32),
            "interface 7 was not described",
            id="unknown interface",
        ),
        pytest.param(
            struct.pack("<IIIIIIII", 6, 32, 0, 0, 0, 99, 99, 32), "packet of 99 bytes", id="packet"
        ),
        pytest.param(
            struct.pack("<IIHHIIIII", 2, 32, 7, 0, 0, 0, 0, 0, 32),
            "interface 7 was not described",
            id="unknown interface of an old packet",
        ),
        pytest.param(
            struct.pack("<IIHHII", 4, 20, 1, 400, 0, 20), "record that does not fit", id="name"
        ),
    ],
)
def test_damage_is_named_with_its_place(block: bytes, statement: str) -> None:
    head = b"".join(pack([Section(), Interface(1, 65535)]))
    values, reader = read(head + block)
    assert len(values) == 2
    assert statement in reader.damage
    assert f"at byte {len(head)}" in reader.damage


def test_more_interfaces_than_anybody_has_are_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pcapng_reading, "MAX_INTERFACES", 2)
    values, reader = read(b"".join(pack([Section(), *[Interface(1, 65535)] * 3])))
    assert len(values) == 3
    assert reader.damage.startswith("more than 2 interfaces")


# The referees.


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("unit", UNITS)
def test_tshark_and_capinfos_read_what_is_written(tmp_path: Path, order: str, unit: str) -> None:
    values = [
        Section(order, application="nightcap", comments=("a capture",)),
        Interface(1, 65535, name="web-0:eth0", ticks_per_second=UNITS[unit], comments=("node a",)),
        Interface(1, 65535, name="web-1:eth0", ticks_per_second=UNITS[unit]),
        Names((("10.0.0.1", ("web-0",)), ("fd00::1", ("web-0",)))),
        Packet(0, NS, 60, bytes(60), comments=("first",)),
        Packet(1, NS + 10**9, 1500, bytes(61)),
        Statistics(0, NS, received=5, dropped=2),
    ]
    path = tmp_path / "written.pcapng"
    path.write_bytes(b"".join(pack(values)))
    fields = "frame.interface_name", "frame.time_epoch", "frame.len", "frame.cap_len"
    options = [part for field in (*fields, "frame.comment") for part in ("-e", field)]
    lines = run("tshark", "-r", str(path), "-T", "fields", *options).splitlines()
    rounded = [
        packet.time_ns * UNITS[unit] // 10**9 * 10**9 // UNITS[unit]
        for packet in values
        if isinstance(packet, Packet) and packet.time_ns is not None
    ]
    seen = [line.split("\t") for line in lines]
    assert [row[0] for row in seen] == ["web-0:eth0", "web-1:eth0"]
    assert [int(row[1].replace(".", "")) for row in seen] == rounded
    assert [row[2:4] for row in seen] == [["60", "60"], ["1500", "61"]]
    assert seen[0][4] == "first"
    info = run("capinfos", "-M", str(path))
    assert "web-1:eth0" in info
    assert "a capture" in info


@given(st.lists(st.tuples(times, st.binary(max_size=70)), min_size=1, max_size=5), orders)
def test_scapy_reads_what_is_written(found: list[tuple[int, bytes]], order: str) -> None:
    from scapy.utils import RawPcapNgReader

    values = [Section(order), Interface(1, 65535)]
    values += [Packet(0, time_ns, len(data) + 4, data) for time_ns, data in found]
    data = b"".join(pack(values))
    reader = RawPcapNgReader(io.BytesIO(data))  # type: ignore[arg-type]  # any file will do
    theirs = [((meta.tshigh << 32 | meta.tslow), meta.wirelen, raw) for raw, meta in reader]
    assert theirs == [(time_ns, len(data) + 4, data) for time_ns, data in found]


@pytest.mark.parametrize("nanoseconds", [True, False], ids=["nano", "micro"])
def test_what_editcap_writes_is_read(tmp_path: Path, nanoseconds: bool) -> None:
    from nightcap.pcap.formats import Header, Record, pack_header, pack_record

    header = Header(1, 65535, nanoseconds)
    unit = 1 if nanoseconds else 1000
    records = [Record(NS // unit * unit + number * 1000, 99, bytes(70)) for number in range(5)]
    pcap = tmp_path / "a.pcap"
    pcap.write_bytes(pack_header(header) + b"".join(pack_record(header, r) for r in records))
    written = tmp_path / "a.pcapng"
    run("editcap", "-F", "pcapng", "-a", "2:looked at", str(pcap), str(written))
    values, reader = read(written.read_bytes())
    packets = [value for value in values if isinstance(value, Packet)]
    assert [Record(p.time_ns or 0, p.wire_bytes, p.data) for p in packets] == records
    assert packets[1].comments == ("looked at",)
    assert reader.damage == ""


def test_tshark_calls_addresses_by_their_names(tmp_path: Path) -> None:
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether

    packet = bytes(Ether() / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=9, dport=9))
    names = Names((("10.0.0.1", ("web-0",)), ("10.0.0.2", ("checkout.shop.svc",))))
    path = tmp_path / "names.pcapng"
    path.write_bytes(
        b"".join(pack([Section(), Interface(1, 65535), names, Packet(0, NS, 60, packet)]))
    )
    answer = run(
        "tshark", "-r", str(path), "-N", "n", "-T", "json", "-e", "ip.src_host", "-e", "ip.dst_host"
    )
    layers = json.loads(answer)[0]["_source"]["layers"]
    assert layers == {"ip.src_host": ["web-0"], "ip.dst_host": ["checkout.shop.svc"]}


def test_a_name_that_does_not_fit_is_left_out() -> None:
    address = str(ipaddress.ip_address("10.0.0.1"))
    block = pcapng.pack_names(Names(((address, ("short", "x" * 65535)),)))
    data = b"".join([*pack([Section()]), block])
    assert read(data)[0][1] == Names(((address, ("short",)),))


def test_what_cannot_be_written_is_refused() -> None:
    with pytest.raises(ValueError, match="power of 10 or 2"):
        pcapng.pack_interface(Interface(1, 1, ticks_per_second=3))
    with pytest.raises(ValueError, match="without a time"):
        pcapng.pack_packet(Packet(0, None, 1, b""), Interface(1, 1))
    with pytest.raises(ValueError, match="cannot be written"):
        pcapng.pack_packet(Packet(0, -1, 1, b""), Interface(1, 1))
