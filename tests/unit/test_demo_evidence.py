"""What the walk-through takes as evidence."""

from scapy.layers.dns import DNS, DNSQR  # type: ignore[attr-defined, unused-ignore]
from scapy.layers.inet import IP, TCP, UDP  # type: ignore[attr-defined, unused-ignore]
from scapy.layers.l2 import ARP, Ether

from demo.evidence import index_of_first_query, is_first_of_its_sender

POD, OTHER = "10.244.1.7", "10.244.1.8"
QUERY = Ether() / IP(src=POD, dst="10.96.0.10") / UDP() / DNS(qd=DNSQR(qname="catalog.shop."))
FOR_THE_ONE_BEFORE = Ether() / IP(src=OTHER, dst=POD) / TCP(flags="FA")
OWN = Ether() / IP(src=POD, dst=OTHER) / TCP(flags="S")


def test_what_others_send_to_an_address_that_was_another_pods_is_no_first_packet() -> None:
    packets = (Ether() / ARP(), FOR_THE_ONE_BEFORE, QUERY, OWN)
    query = index_of_first_query(packets, "catalog")
    assert query == 2
    assert is_first_of_its_sender(packets, query)


def test_a_packet_of_its_own_before_the_query_is() -> None:
    packets = (FOR_THE_ONE_BEFORE, OWN, QUERY)
    assert not is_first_of_its_sender(packets, 2)
