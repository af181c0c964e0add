"""Packet filters: what a capture may ask for, as one pcap-filter(7) expression.

Rules are turned into an expression here; whether an expression compiles is
libpcap's to say (`nightcap.pcap`), in its own words.
"""

import re
from collections.abc import Sequence

MAX_FILTER_BYTES = 1024

_NAMED_PROTOCOLS = {
    "tcp": "tcp",
    "udp": "udp",
    "icmp": "icmp",
    "icmpv6": "icmp6",
    "sctp": "sctp",
    "udplite": "(ip proto 136 or ip6 proto 136)",
}
_WITH_PORTS = frozenset({"tcp", "udp", "sctp"})
_PORTS = re.compile(r"([0-9]{1,5})(?::([0-9]{1,5}))?")

# Words of the filter language that are not names of hosts, networks or services.
# `host NAME` makes libpcap ask DNS while it compiles (capture would hang on the very
# thing that is being debugged), so every other word is refused.
_WORDS = frozenset(
    """
    and or not src dst host net mask port portrange less greater len gateway
    ether fddi tr wlan ip ip6 arp rarp tcp udp sctp icmp icmp6 igmp igrp pim ah esp vrrp carp
    proto protochain broadcast multicast inbound outbound ifindex link
    vlan mpls pppoed pppoes geneve lat mopdl moprc decnet atalk aarp iso stp ipx netbeui
    clnp esis isis type subtype dir addr1 addr2 addr3 addr4 ra ta
    icmptype icmpcode icmp6type icmp6code tcpflags
    icmp-echoreply icmp-unreach icmp-sourcequench icmp-redirect icmp-echo icmp-routeradvert
    icmp-routersolicit icmp-timxceed icmp-paramprob icmp-tstamp icmp-tstampreply icmp-ireq
    icmp-ireqreply icmp-maskreq icmp-maskreply
    icmp6-destinationunreach icmp6-packettoobig icmp6-timeexceeded icmp6-parameterproblem
    icmp6-echo icmp6-echoreply icmp6-multicastlistenerquery icmp6-multicastlistenerreportv1
    icmp6-multicastlistenerdone icmp6-routersolicit icmp6-routeradvert icmp6-neighborsolicit
    icmp6-neighboradvert icmp6-redirect
    tcp-fin tcp-syn tcp-rst tcp-push tcp-ack tcp-urg tcp-ece tcp-cwr
    """.split()
)
# A few service names are so common in filters that refusing them would be pedantry; they are
# resolved by libpcap from /etc/services or its own table, never over the network.
_SERVICES = frozenset(
    "domain http https ssh smtp ntp snmp ldap ldaps mysql postgresql redis ftp telnet".split()
)
# As libpcap's scanner cuts: an address may hold `:` and `.`, a word `-`, and a backslash
# makes a plain name of what would be a word of the language.
_TOKEN = re.compile(r"\\?[0-9A-Za-z_.:][0-9A-Za-z_.:-]*|\S")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|[0-9]+")
_NUMBER_RANGE = re.compile(r"[0-9]{1,5}-[0-9]{1,5}")
_ESCAPED = re.compile(r"\\[a-z][a-z0-9-]*")
_MAC = re.compile(r"[0-9a-f]{1,2}([:.-])[0-9a-f]{1,2}(?:\1[0-9a-f]{1,2}){4}")
_DOTTED_PART = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){0,3}")
_OF_ADDRESS_6 = re.compile(r"[0-9a-f:.]+")
_BYTES = re.compile(r"[0-9]+:[0-9]+")
_CONNECTIVES = frozenset({"or", "and", "not", "(", "!", "&", "|"})
# What a name that follows stands for; connectives hand it on (`port http or https`).
_KINDS = {"port": "port", "portrange": "range", "proto": "protocol", "protochain": "protocol"}


class BadFilter(ValueError):
    """A filter that is refused; the message quotes what is wrong and names the rule."""


def expression_of_rules(rules: Sequence[tuple[str | int | None, Sequence[str | int]]]) -> str:
    """Turn filter rules into one expression; rules are OR-ed.

    Args:
        rules: (protocol, ports) of each rule. Protocol: a name (TCP, UDP, ICMP, ICMPv6, SCTP,
            UDPLite), a number 1 to 255, or None for any. Ports: 53, "53" or "6000:6010"
            (inclusive), matched against source or destination.

    Returns:
        A pcap-filter(7) expression; empty when there are no rules (every packet).

    Raises:
        BadFilter: unknown protocol, bad port, or ports of a protocol without ports.
    """
    return " or ".join(_expression_of_rule(protocol, ports) for protocol, ports in rules)


def _expression_of_rule(protocol: str | int | None, ports: Sequence[str | int]) -> str:
    port_terms = [_port_term(port) for port in ports]
    one_of_ports = " or ".join(port_terms)
    if protocol is None:
        # A rule that says nothing matches everything, like an absent filter.
        return f"({one_of_ports})" if port_terms else "(greater 0)"
    name, has_ports = _protocol_term(protocol)
    if not port_terms:
        return f"({name})"
    if not has_ports:
        raise BadFilter(
            f"filters: protocol {str(protocol)!r} has no ports; only TCP, UDP and SCTP have"
        )
    return f"({name} and ({one_of_ports}))"


def _protocol_term(protocol: str | int) -> tuple[str, bool]:
    text = str(protocol)
    named = _NAMED_PROTOCOLS.get(text.lower())
    if named is not None:
        return named, text.lower() in _WITH_PORTS
    if text.isascii() and text.isdigit() and 1 <= int(text) <= 255:
        by_number = {6: "tcp", 17: "udp", 132: "sctp"}.get(int(text))
        if by_number is not None:
            return by_number, True
        return f"ip proto {int(text)} or ip6 proto {int(text)}", False
    raise BadFilter(
        f"filters: protocol {text[:40]!r}: must be TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite "
        "or a number from 1 to 255"
    )


def _port_term(port: str | int) -> str:
    match = _PORTS.fullmatch(str(port))
    low = int(match[1]) if match else -1
    high = int(match[2]) if match and match[2] else low
    if not 0 <= low <= high <= 65535:
        raise BadFilter(
            f"filters: port {str(port)[:40]!r}: must be 0 to 65535, or a range such as 6000:6010"
        )
    return f"port {low}" if low == high else f"portrange {low}-{high}"


def check_expression(text: str) -> None:
    """Refuse an expression that could make libpcap do more than compile.

    Raises:
        BadFilter: too long, holds control characters, or names a host, network or service.
    """
    size = len(text.encode("utf-8", "replace"))
    if size > MAX_FILTER_BYTES:
        raise BadFilter(f"filter has {size} bytes; at most {MAX_FILTER_BYTES} are allowed")
    for character in text:
        if not (character.isascii() and (character.isprintable() or character in "\t\n")):
            raise BadFilter(f"filter holds the character {character!r}; only plain text is allowed")
    kind = ""
    for token in _TOKEN.findall(text):
        word = token.lower()
        if not _is_harmless(word, kind):
            raise BadFilter(
                f"filter names {token[:60]!r}: names of hosts and networks are not looked up "
                "here; write addresses and port numbers"
            )
        kind = _kind_after(word, kind)


def _kind_after(word: str, kind: str) -> str:
    if word in _KINDS:
        return _KINDS[word]
    stays = word in _CONNECTIVES or word in _SERVICES or _NUMBER.fullmatch(word)
    return kind if stays or _NUMBER_RANGE.fullmatch(word) or word.startswith("\\") else ""


def _is_harmless(word: str, kind: str) -> bool:
    """Whether libpcap needs nobody's help with a word.

    Args:
        word: In lower case.
        kind: What a name would stand for here: port, range, protocol, or "" for a host.
    """
    if not (word[0].isalnum() or word[0] in "\\_.:"):
        return True  # an operator
    if word in _WORDS or _NUMBER.fullmatch(word) or _BYTES.fullmatch(word):
        return True
    if word in _SERVICES:
        return kind == "port"
    if _NUMBER_RANGE.fullmatch(word):
        return kind == "range"
    if word.startswith("\\"):
        return kind == "protocol" and _ESCAPED.fullmatch(word) is not None
    if _MAC.fullmatch(word) or _DOTTED_PART.fullmatch(word):
        return True
    if not _OF_ADDRESS_6.fullmatch(word):
        return False
    import ipaddress  # seldom needed, and slow to import

    try:
        ipaddress.IPv6Address(word)
    except ValueError:
        return False
    return True
