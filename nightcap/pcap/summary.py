"""One line for each packet, for terminals without tshark: who speaks to whom, by what.

Knows Ethernet and the cooked header of `any`, VLANs, ARP, IPv4, IPv6, TCP, UDP, SCTP, ICMP and
the question of a DNS message. What it does not know it names by number. Pure.
"""

import ipaddress
import struct
from collections.abc import Mapping
from datetime import datetime, tzinfo
from typing import Final

from nightcap.pcap.libpcap import EN10MB, LINUX_SLL2

RAW_IP: Final = 101
_IPV4, _IPV6, _ARP = 0x0800, 0x86DD, 0x0806
_VLANS: Final = frozenset({0x8100, 0x88A8})
_TCP, _UDP, _SCTP = 6, 17, 132
_ICMP: Final = {1: "ICMP", 58: "ICMPv6"}
_IPV6_EXTENSIONS: Final = frozenset({0, 43, 60})
_IPV6_FRAGMENT: Final = 44
_FLAGS: Final = ((0x02, "SYN"), (0x10, "ACK"), (0x01, "FIN"), (0x04, "RST"), (0x08, "PSH"))
_PINGS: Final = {(1, 8): "echo request", (1, 0): "echo reply",
                 (58, 128): "echo request", (58, 129): "echo reply"}  # fmt: skip
_DNS_PORTS: Final = frozenset({53, 5353})
_DNS_TYPES: Final = {1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT",
                     28: "AAAA", 33: "SRV", 65: "HTTPS"}  # fmt: skip
_DNS_ERRORS: Final = {1: "FormErr", 2: "ServFail", 3: "NXDomain", 4: "NotImp", 5: "Refused"}

Names = Mapping[str, str]
"""Address (as text) -> what it is called."""


def describe(data: bytes, linktype: int, names: Names) -> str:
    """Who speaks to whom, and what; never raises, whatever the bytes are.

    Args:
        data: What was kept of the packet.
        linktype: As libpcap numbers them.
        names: Addresses that have names; the others are written as they are.
    """
    try:
        kind, payload = _network(data, linktype)
        if kind == _IPV4:
            return _ipv4(payload, names)
        if kind == _IPV6:
            return _ipv6(payload, names)
        if kind == _ARP:
            return _arp(payload)
    except (struct.error, IndexError, ValueError):
        return f"cut off after {len(data)} bytes"
    return f"link type {linktype}" if kind < 0 else f"ethertype 0x{kind:04x}"


def time_of_day(time_ns: int | None, zone: tzinfo | None = None) -> str:
    """`14:03:05.123456` in a time zone (None: this machine's)."""
    if time_ns is None:
        return "--:--:--.------"
    at = datetime.fromtimestamp(time_ns // 10**9, zone).strftime("%H:%M:%S")
    return f"{at}.{time_ns % 10**9 // 1000:06d}"


def _network(data: bytes, linktype: int) -> tuple[int, bytes]:
    """(ethertype, network packet); the ethertype is -1 of an unknown link type."""
    if linktype == EN10MB:
        kind, at = struct.unpack_from("!H", data, 12)[0], 14
        while kind in _VLANS:
            kind, at = struct.unpack_from("!H", data, at + 2)[0], at + 4
        return kind, data[at:]
    if linktype == LINUX_SLL2:
        return struct.unpack_from("!H", data)[0], data[20:]
    if linktype == RAW_IP:
        return (_IPV6 if data[0] >> 4 == 6 else _IPV4), data
    return -1, b""


def _ipv4(data: bytes, names: Names) -> str:
    length, fragment = (data[0] & 15) * 4, struct.unpack_from("!H", data, 6)[0] & 0x1FFF
    size = max(0, struct.unpack_from("!H", data, 2)[0] - length)
    source, target = _called(data[12:16], names), _called(data[16:20], names)
    if fragment:
        return f"{source} > {target} fragment of protocol {data[9]}"
    return _transport(data[9], data[length:], size, source, target)


def _ipv6(data: bytes, names: Names) -> str:
    size, protocol, at = struct.unpack_from("!H", data, 4)[0], data[6], 40
    source, target = _called(data[8:24], names), _called(data[24:40], names)
    while protocol in _IPV6_EXTENSIONS:
        protocol, length = data[at], (data[at + 1] + 1) * 8
        at, size = at + length, size - length
    if protocol == _IPV6_FRAGMENT:
        return f"{source} > {target} fragment of protocol {data[at]}"
    return _transport(protocol, data[at:], size, source, target)


def _transport(protocol: int, data: bytes, size: int, source: str, target: str) -> str:
    if protocol in _ICMP:
        kind, code = data[0], data[1]
        said = _PINGS.get((protocol, kind), f"type {kind} code {code}")
        return f"{source} > {target} {_ICMP[protocol]} {said}"
    if protocol not in (_TCP, _UDP, _SCTP):
        return f"{source} > {target} protocol {protocol}, {size} bytes"
    ports = struct.unpack_from("!HH", data)
    ends = f"{source}:{ports[0]} > {target}:{ports[1]}"
    if protocol == _SCTP:
        return f"{ends} SCTP, {size} bytes"
    if protocol == _UDP:
        asked = _dns(data[8:]) if _DNS_PORTS & set(ports) else ""
        return f"{ends} {asked}" if asked else f"{ends} UDP, {max(0, size - 8)} bytes"
    flags = data[13]
    said = ",".join(name for bit, name in _FLAGS if flags & bit)
    return f"{ends} TCP {said}, {max(0, size - (data[12] >> 4) * 4)} bytes"


def _dns(data: bytes) -> str:
    """The question, and whether it was answered; empty when there is none to be read."""
    if len(data) < 17:
        return ""
    number, flags, questions, answers = struct.unpack_from("!HHHH", data)
    labels, at = [], 12
    while questions and 0 < (length := data[at]) < 64:
        labels.append(data[at + 1 : at + 1 + length].decode("ascii", "replace"))
        at += 1 + length
    if not questions or at + 3 > len(data) or data[at]:
        return ""
    kind = struct.unpack_from("!H", data, at + 1)[0]
    name = "".join(c if c.isprintable() else "?" for c in ".".join(labels)) or "."
    asked = f"{_DNS_TYPES.get(kind, f'type {kind}')} {name}"
    if not flags & 0x8000:
        return f"DNS 0x{number:04x} {asked}?"
    error = flags & 15
    said = _DNS_ERRORS.get(error, f"error {error}") if error else f"{answers} answers"
    return f"DNS 0x{number:04x} {asked}: {said}"


def _arp(data: bytes) -> str:
    operation = struct.unpack_from("!H", data, 6)[0]
    source, target = ipaddress.IPv4Address(data[14:18]), ipaddress.IPv4Address(data[24:28])
    if operation == 1:
        return f"ARP who has {target}? tell {source}"
    return f"ARP {source} is at {data[8:14].hex(':')}"


def _called(address: bytes, names: Names) -> str:
    text = str(ipaddress.ip_address(address))
    name = names.get(text)
    if name is not None:
        return name
    return f"[{text}]" if len(address) == 16 else text
