"""What a capture contains, packet by packet: tcpdump in the same namespace is the referee.

docs/packets.md tells people what is shown here.
"""

import io
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nightcap.contract.orders import MAX_SNAP
from nightcap.pcap.formats import PcapReader, Record
from tests.netns.net import Link
from tests.netns.pods import ID, Pod, an_order, wait_for

pytestmark = pytest.mark.netns

PORT = 5353
ETH_IPV4, ETH_IPV6, ETH_VLAN = 0x0800, 0x86DD, 0x8100
UDP = 17
TCPDUMP_KEEPS = 65536
"""Of a frame at least, in immediate mode."""


def records(*files: Path) -> list[Record]:
    found: list[Record] = []
    for file in files:
        reader = PcapReader(io.BytesIO(file.read_bytes()))
        found += reader
        assert reader.damage == ""
    return found


@contextmanager
def tcpdump(pod: Pod, filter_: str, snap: int, interface: str) -> Iterator[Path]:
    file = pod.folder / "referee.pcap"
    command = ["tcpdump", "-n", "-i", interface, "-s", str(snap), "--nano", "-Z", "root"]
    # At once and into a large ring: tcpdump forgets what the kernel still holds when it is ended.
    command += ["--immediate-mode", "-B", "65536"]
    process = subprocess.Popen(
        pod.link.pod.command(*command, "-w", str(file), filter_),
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    while b"listening on" not in process.stderr.readline():
        assert process.poll() is None
    try:
        yield file
    finally:
        process.terminate()
        process.communicate(timeout=10)


def captured(
    pod: Pod,
    filter_: str,
    send: Callable[[Link], None],
    *,
    snap: int = MAX_SNAP,
    interface: str = "eth0",
) -> list[Record]:
    """What the worker records of what is sent, once tcpdump was found to have the same."""
    pod.order(an_order(filter=filter_, snap=snap, interfaces=(interface,)))
    pod.start()
    pod.wait_open()
    with tcpdump(pod, filter_, snap, interface) as file:
        send(pod.link)
        time.sleep(0.4)  # longer than the kernel holds a packet back
    assert pod.terminate() == 0
    ours = records(*sorted((pod.spool / ID / interface).glob("*.pcap")))
    theirs = records(file)
    assert [each.wire_bytes for each in ours] == [each.wire_bytes for each in theirs]
    for our, their in zip(ours, theirs, strict=True):
        assert len(their.data) >= min(len(our.data), TCPDUMP_KEEPS)
        assert our.data[: len(their.data)] == their.data
    # What has no time yet, such as TCP on its way out, is stamped for each capture anew.
    assert all(
        abs(our.time_ns - their.time_ns) < 10**8 for our, their in zip(ours, theirs, strict=True)
    )
    return ours


def send_frame(link: Link, ethertype: int, payload: bytes) -> None:
    """One frame by hand from the peer to whoever wants it."""
    with link.peer.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("eth0", 0))
        sock.send(b"\xff" * 6 + bytes(6) + struct.pack("!H", ethertype) + payload)


def ipv4(payload: bytes) -> bytes:
    source, target = (socket.inet_aton(text) for text in ("10.77.0.2", "10.77.0.1"))
    header = struct.pack("!BBHIBBH", 0x45, 0, 20 + len(payload), 0, 64, UDP, 0)
    return header + source + target + payload


def udp(port: int, data: bytes = b"12345678") -> bytes:
    return struct.pack("!HHHH", 40000, port, 8 + len(data), 0) + data


def send_tagged_and_plain(link: Link) -> None:
    for _ in range(3):
        send_frame(link, ETH_VLAN, struct.pack("!HH", 100, ETH_IPV4) + ipv4(udp(PORT)))
    link.send(2)


@pytest.mark.parametrize(
    ("filter_", "tagged", "plain"),
    [
        ("udp dst port 5353", 3, 2),
        ("vlan and udp dst port 5353", 3, 0),
        ("vlan 100 and udp dst port 5353", 3, 0),
        ("vlan 7 and udp dst port 5353", 0, 0),
        ("udp dst port 5353 or (vlan and udp dst port 5353)", 3, 2),
    ],
)
def test_a_vlan_tag_is_in_the_file_and_seen_by_filters_that_name_it(
    pod: Pod, filter_: str, tagged: int, plain: int
) -> None:
    """The kernel takes the tag out of the frame; libpcap puts it back from its metadata."""
    found = captured(pod, filter_, send_tagged_and_plain)
    tags = [record.data[12:16] for record in found if record.data[12:14] == b"\x81\x00"]
    assert tags == [struct.pack("!HH", 0x8100, 100)] * tagged
    assert len(found) - len(tags) == plain


def send_ipv6(link: Link, next_header: int, payload: bytes) -> None:
    """What sits between the IPv6 header and UDP is the point."""
    ends = (socket.inet_pton(socket.AF_INET6, text) for text in ("fd77::2", "fd77::1"))
    header = struct.pack("!IHBB", 6 << 28, len(payload), next_header, 64)
    send_frame(link, ETH_IPV6, header + b"".join(ends) + payload)


HOP_BY_HOP = struct.pack("!BBBBI", UDP, 0, 1, 4, 0)  # next header, length, PadN of 4


@pytest.mark.parametrize(
    ("filter_", "expected"),
    [
        ("udp dst port 5353", ["plain"]),
        ("ip6 protochain 17", ["plain", "behind an extension header"]),
        ("ip6[6] = 0 and ip6[40] = 17", ["behind an extension header"]),
    ],
)
def test_a_port_is_found_behind_an_ipv6_extension_header_only_by_the_chain(
    pod: Pod, filter_: str, expected: list[str]
) -> None:
    def send(link: Link) -> None:
        send_ipv6(link, UDP, udp(PORT))
        send_ipv6(link, 0, HOP_BY_HOP + udp(PORT))

    kinds = {UDP: "plain", 0: "behind an extension header"}
    assert [kinds[record.data[20]] for record in captured(pod, filter_, send)] == expected


@pytest.mark.parametrize(
    ("filter_", "fragments"),
    [
        ("udp dst port 5353", [0]),
        ("udp dst port 5353 or (ip[6:2] & 0x1fff != 0)", [0, 1480, 2960]),
        ("src host 10.77.0.2 and udp", [0, 1480, 2960]),
    ],
)
def test_of_fragments_a_port_is_in_the_first_alone(
    pod: Pod, filter_: str, fragments: list[int]
) -> None:
    def send(link: Link) -> None:
        link.send(1, size=4000)

    found = captured(pod, filter_, send)
    offsets = [(struct.unpack("!H", record.data[20:22])[0] & 0x1FFF) * 8 for record in found]
    assert offsets == fragments


def test_no_fragment_under_ipv6_has_a_port(pod: Pod) -> None:
    def send(link: Link) -> None:
        with link.peer.socket(socket.AF_INET6) as sock:
            sock.sendto(bytes(4000), ("fd77::1", PORT))

    assert captured(pod, "udp dst port 5353", send) == []


def test_fragments_under_ipv6_are_found_by_their_header(pod: Pod) -> None:
    def send(link: Link) -> None:
        with link.peer.socket(socket.AF_INET6) as sock:
            sock.sendto(bytes(4000), ("fd77::1", PORT))

    assert len(captured(pod, "ip6 proto 44", send)) == 3


def stream_of(data: bytes, family: int = socket.AF_INET) -> Callable[[Link], None]:
    """Send these bytes by TCP from the peer to the pod."""

    def send(link: Link) -> None:
        address = link.pod.address if family == socket.AF_INET else link.pod.address_6
        with link.pod.socket(family, socket.SOCK_STREAM) as listening:
            listening.settimeout(20)
            listening.bind((address, PORT))
            listening.listen()
            receiver = threading.Thread(target=receive, args=(listening,), daemon=True)
            receiver.start()
            with link.peer.socket(family, socket.SOCK_STREAM) as sock:
                sock.settimeout(20)
                sock.connect((address, PORT))
                sock.sendall(data)
            receiver.join(20)

    return send


def receive(listening: socket.socket) -> None:
    accepted, _ = listening.accept()
    with accepted:
        while accepted.recv(2**20):
            pass


def payload_bytes(found: list[Record]) -> int:
    """Of TCP over IPv4, without retransmissions."""
    seen: dict[int, int] = {}
    for record in found:
        header = (record.data[14] & 15) * 4
        total, sequence = (
            struct.unpack("!H", record.data[16:18])[0],
            struct.unpack("!I", record.data[14 + header + 4 : 14 + header + 8])[0],
        )
        size = total - header - (record.data[14 + header + 12] >> 4) * 4
        seen[sequence] = max(size, seen.get(sequence, 0))
    return sum(seen.values())


def test_what_the_interface_cuts_is_recorded_uncut(pod: Pod) -> None:
    """Segmentation is left to the interface, and a veth pair never has to do it."""
    size = 500_000
    found = captured(pod, "tcp dst port 5353", stream_of(bytes(size)))
    assert max(record.wire_bytes for record in found) > 9000
    assert all(len(record.data) == record.wire_bytes for record in found)
    assert payload_bytes(found) == size


def test_frames_beyond_64_kib_are_recorded_whole(pod: Pod) -> None:
    """IPv6 jumbograms of the kernel's own (BIG TCP), where somebody turned them on."""
    sizes = ("gso_max_size", "100000", "gro_max_size", "100000")
    for namespace in (pod.link.pod, pod.link.peer):
        namespace.ip("link", "set", "eth0", *sizes)
    found = captured(pod, "ip6 and greater 9000", stream_of(bytes(900_000), socket.AF_INET6))
    assert max(record.wire_bytes for record in found) > 65550
    assert all(len(record.data) == record.wire_bytes for record in found)


def test_a_short_snap_length_keeps_the_true_length(pod: Pod) -> None:
    found = captured(pod, "udp dst port 5353", lambda link: link.send(5, size=1000), snap=96)
    assert [(len(record.data), record.wire_bytes) for record in found] == [(96, 1042)] * 5


def test_checksums_of_what_the_pod_sends_are_not_finished(pod: Pod) -> None:
    """The interface would do it: the file has what the kernel handed over, and tcpdump says so."""

    def send(link: Link) -> None:
        with link.pod.socket() as sock:
            sock.sendto(b"from the pod", (link.peer.address, PORT))

    [record] = captured(pod, "udp dst port 5353", send)
    [file] = (pod.spool / ID / "eth0").glob("*.pcap")
    said = subprocess.run(["tcpdump", "-vvnr", file], check=True, capture_output=True, text=True)
    assert "bad udp cksum" in said.stdout
    assert record.data.endswith(b"from the pod")


def test_an_interface_that_is_made_anew_is_captured_again(pod: Pod) -> None:
    def send(address: str) -> None:
        with pod.link.peer.socket() as sock:
            for _ in range(3):
                sock.sendto(bytes(8), (address, PORT))

    address = pod.link.add_interface("net1", 1)
    pod.order(an_order(interfaces=("net1",)))
    pod.start()
    pod.wait_open()
    send(address)
    time.sleep(0.4)
    pod.link.pod.ip("link", "delete", "net1")
    wait_for(lambda: "interface not captured" in pod.events(), "loss noticed")
    address = pod.link.add_interface("net1", 1)
    wait_for(lambda: pod.events().count("interface opened") == 2, "open again")
    send(address)
    time.sleep(0.4)
    assert pod.terminate() == 0
    files = sorted((pod.spool / ID / "net1").glob("*.pcap"))
    assert [len(records(file)) for file in files] == [3, 3]
