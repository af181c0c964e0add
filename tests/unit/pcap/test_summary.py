from __future__ import annotations

import ipaddress
from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dns import DNS, DNSQR, DNSRR
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.sctp import SCTP

from nightcap.pcap import summary
from nightcap.pcap.libpcap import EN10MB, LINUX_SLL2

NAMES = {"10.0.0.2": "dns.kube-system", "fd00::2": "web-1.shop"}
TO_DNS = IP(src="10.0.0.1", dst="10.0.0.2")
ASKED = DNS(id=0x1234, qd=DNSQR(qname="www.example.com", qtype="AAAA"))
ANSWERED = DNS(id=1, qr=1, qd=DNSQR(qname="a.b"), an=DNSRR(rrname="a.b", rdata="10.9.9.9"))
V6 = IPv6(src="fd00::1", dst="fd00::2")


@pytest.mark.parametrize(
    ("packet", "said"),
    [
        pytest.param(TO_DNS / UDP(sport=4242, dport=53) / ASKED,
                     "10.0.0.1:4242 > dns.kube-system:53 DNS 0x1234 AAAA www.example.com?",
                     id="question"),
        pytest.param(IP(src="10.0.0.2", dst="10.0.0.1") / UDP(sport=53, dport=4242) / ANSWERED,
                     "dns.kube-system:53 > 10.0.0.1:4242 DNS 0x0001 A a.b: 1 answers",
                     id="answer"),
        pytest.param(TO_DNS / UDP(sport=53, dport=9) / DNS(qr=1, rcode=3, qd=DNSQR(qname="nix")),
                     "10.0.0.1:53 > dns.kube-system:9 DNS 0x0000 A nix: NXDomain", id="no such"),
        pytest.param(TO_DNS / UDP(sport=1, dport=53) / b"junk",
                     "10.0.0.1:1 > dns.kube-system:53 UDP, 4 bytes", id="no DNS"),
        pytest.param(TO_DNS / TCP(sport=1, dport=443, flags="SA"),
                     "10.0.0.1:1 > dns.kube-system:443 TCP SYN,ACK, 0 bytes", id="tcp"),
        pytest.param(Dot1Q(vlan=7) / TO_DNS / TCP(sport=1, dport=443, flags="PA") / b"hello",
                     "10.0.0.1:1 > dns.kube-system:443 TCP ACK,PSH, 5 bytes", id="vlan"),
        pytest.param(V6 / UDP(sport=1, dport=2) / b"abc",
                     "[fd00::1]:1 > web-1.shop:2 UDP, 3 bytes", id="ipv6"),
        pytest.param(V6 / IPv6ExtHdrHopByHop() / ICMPv6EchoRequest(),
                     "[fd00::1] > web-1.shop ICMPv6 echo request", id="extension"),
        pytest.param(V6 / IPv6ExtHdrFragment(offset=9, nh=17) / b"rest",
                     "[fd00::1] > web-1.shop fragment of protocol 17", id="fragment"),
        pytest.param(IP(src="10.0.0.1", dst="10.0.0.2", frag=9, proto=6) / b"rest",
                     "10.0.0.1 > dns.kube-system fragment of protocol 6", id="ipv4 fragment"),
        pytest.param(TO_DNS / ICMP(type=3, code=1),
                     "10.0.0.1 > dns.kube-system ICMP type 3 code 1", id="icmp"),
        pytest.param(TO_DNS / SCTP(sport=1, dport=2),
                     "10.0.0.1:1 > dns.kube-system:2 SCTP, 12 bytes", id="sctp"),
        pytest.param(IP(src="10.0.0.1", dst="10.0.0.2", proto=89) / b"abc",
                     "10.0.0.1 > dns.kube-system protocol 89, 3 bytes", id="other"),
        pytest.param(ARP(op=1, psrc="10.0.0.1", pdst="10.0.0.2"),
                     "ARP who has 10.0.0.2? tell 10.0.0.1", id="arp"),
        pytest.param(ARP(op=2, psrc="10.0.0.1", hwsrc="02:00:00:00:00:01", pdst="10.0.0.2"),
                     "ARP 10.0.0.1 is at 02:00:00:00:00:01", id="arp answer"),
    ],
)  # fmt: skip
def test_packet_is_told_in_one_line(packet: object, said: str) -> None:
    data = bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / packet)  # type: ignore[operator]
    assert summary.describe(data, EN10MB, NAMES) == said


def test_cooked_and_bare_packets_are_told_too() -> None:
    packet = bytes(TO_DNS / UDP(sport=1, dport=2) / b"abc")
    cooked = (0x0800).to_bytes(2, "big") + bytes(18) + packet
    said = "10.0.0.1:1 > dns.kube-system:2 UDP, 3 bytes"
    assert summary.describe(cooked, LINUX_SLL2, NAMES) == said
    assert summary.describe(packet, summary.RAW_IP, NAMES) == said
    assert summary.describe(packet, 147, NAMES) == "link type 147"
    assert summary.describe(bytes(12) + b"\x88\xcc", EN10MB, NAMES) == "ethertype 0x88cc"


def test_packet_that_was_cut_says_so() -> None:
    data = bytes(Ether() / TO_DNS / UDP())
    assert summary.describe(data[:20], EN10MB, NAMES) == "cut off after 20 bytes"


def test_times_are_those_of_the_zone() -> None:
    assert summary.time_of_day(1_700_000_000_123_456_789, UTC) == "22:13:20.123456"
    assert summary.time_of_day(None) == "--:--:--.------"


HEADS = st.sampled_from([b"\x08\x00", b"\x86\xdd", b"\x08\x06", b"\x81\x00\x00\x01\x08\x00"])


@given(head=HEADS, data=st.binary(max_size=200))
def test_any_bytes_are_one_printable_line(head: bytes, data: bytes) -> None:
    """A packet is written by strangers; a terminal must not get to see its control characters."""
    for linktype in (EN10MB, LINUX_SLL2, summary.RAW_IP):
        assert summary.describe(bytes(12) + head + data, linktype, NAMES).isprintable()


def test_names_of_strangers_in_questions_are_made_harmless() -> None:
    evil = bytes(TO_DNS / UDP(sport=1, dport=53) / DNS(qd=DNSQR(qname="ev\x1b[31mil")))
    said = summary.describe(evil, summary.RAW_IP, {})
    assert said.isprintable()
    assert "ev?[31mil" in said
    assert ipaddress.ip_address("10.0.0.1").compressed in said
