import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from nightcap.pcap.bounded import check_filter
from nightcap.pcap.formats import Header, PcapReader, Record, pack_header, pack_record
from nightcap.pcap.libpcap import FilterError
from nightcap.pcap.offline import OfflineFilter

PACKETS = {
    "udp 53": bytes(Ether() / IP(dst="10.0.0.1") / UDP(sport=9, dport=53)),
    "udp 54": bytes(Ether() / IP(dst="10.0.0.1") / UDP(sport=9, dport=54)),
    "tcp 53": bytes(Ether() / IP(dst="10.0.0.2") / TCP(sport=9, dport=53)),
    "ip6": bytes(Ether() / IPv6(dst="fd00::1") / UDP(sport=9, dport=9)),
}
ETHERNET = 1


def keep(expression: str, records: list[Record], header: Header) -> list[Record]:
    chosen = OfflineFilter(expression, header.linktype)
    try:
        data = chosen.keep(b"".join(pack_record(header, record) for record in records), header)
    finally:
        chosen.close()
    # What is kept is in this machine's byte order.
    written = Header(header.linktype, header.snaplen, header.nanoseconds, "<")
    return list(PcapReader(io.BytesIO(pack_header(written) + data)))


@pytest.mark.parametrize(
    ("expression", "kept"),
    [
        ("udp port 53", ["udp 53"]),
        ("port 53", ["udp 53", "tcp 53"]),
        ("host 10.0.0.1", ["udp 53", "udp 54"]),
        ("ip6", ["ip6"]),
        ("", list(PACKETS)),
        ("icmp", []),
    ],
)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("nanoseconds", [True, False], ids=["nano", "micro"])
def test_what_passes_is_kept_as_it_is(
    expression: str, kept: list[str], order: str, nanoseconds: bool
) -> None:
    header = Header(ETHERNET, 262144, nanoseconds, order)
    records = {
        name: Record((1_700_000_000 + number) * 10**9 + 123_456_000, len(data) + 9, data)
        for number, (name, data) in enumerate(PACKETS.items())
    }
    found = keep(expression, list(records.values()), header)
    assert found == [records[name] for name in kept]


@given(st.lists(st.binary(max_size=60), max_size=5), st.sampled_from([1, 113, 276, 147]))
def test_any_packet_of_any_link_type_passes_or_not(found: list[bytes], linktype: int) -> None:
    records = [Record(10**18, len(data), data) for data in found]
    header = Header(linktype, 262144, nanoseconds=True)
    assert keep("", records, header) == records
    assert keep("less 20", records, header) == [r for r in records if r.wire_bytes <= 20]


def test_the_longest_packet_passes() -> None:
    record = Record(10**18, 300000, bytes(262144))
    assert keep("greater 1", [record], Header(ETHERNET, 65535, nanoseconds=True)) == [record]


def test_a_filter_may_compile_for_one_link_type_and_not_for_another() -> None:
    assert check_filter("vlan 5", timeout=10) is None
    assert "VLAN" in (check_filter("vlan 5", timeout=10, linktype=147) or "")
    with pytest.raises(FilterError, match="VLAN"):
        OfflineFilter("vlan 5", 147)
