import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightcap.contract.filters import (
    MAX_FILTER_BYTES,
    BadFilter,
    check_expression,
    expression_of_rules,
)
from nightcap.pcap.libpcap import FilterError, compile_filter


@pytest.mark.parametrize(
    ("rules", "expression"),
    [
        ([], ""),
        ([("UDP", [53])], "(udp and (port 53))"),
        ([("udp", ["53", "6000:6010"])], "(udp and (port 53 or portrange 6000-6010))"),
        ([("TCP", []), ("ICMP", [])], "(tcp) or (icmp)"),
        ([("ICMPv6", [])], "(icmp6)"),
        ([(None, [80])], "(port 80)"),
        ([(None, [])], "(greater 0)"),
        ([(6, [80])], "(tcp and (port 80))"),
        ([("17", [53])], "(udp and (port 53))"),
        ([(89, [])], "(ip proto 89 or ip6 proto 89)"),
        ([("TCP", ["80:80"])], "(tcp and (port 80))"),
        ([("TCP", [0, 65535])], "(tcp and (port 0 or port 65535))"),
    ],
)
def test_rules_are_ored_protocol_and_ports_anded(rules, expression):
    assert expression_of_rules(rules) == expression
    check_expression(expression)


@pytest.mark.parametrize(
    ("rule", "quoted"),
    [
        (("TCPX", []), "'TCPX'"),
        ((0, []), "'0'"),
        ((256, []), "'256'"),
        (("TCP", [65536]), "'65536'"),
        (("TCP", [-1]), "'-1'"),
        (("TCP", ["90:80"]), "'90:80'"),
        (("TCP", ["80 or 1"]), "'80 or 1'"),
        (("ICMP", [80]), "'ICMP'"),
        (("UDPLite", [80]), "'UDPLite'"),
        ((89, [80]), "'89'"),
    ],
)
def test_a_bad_rule_is_quoted(rule, quoted):
    with pytest.raises(BadFilter) as caught:
        expression_of_rules([rule])
    assert quoted in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "udp port 53",
        "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
        "tcp[13:2] = 4",
        "host 10.0.0.1 or net 10.0/16",
        "net 192.168.1.0/24 and not arp",
        "ip6 host fe80::1",
        "host ::1 and dst port 443",
        "ether host 00:1b:44:11:3a:b7",
        "portrange 6000-6010",
        "len - 4 > 10",
        "port domain or port https",
        "port (http or https) and not port !ssh",
        "ip proto \\tcp or ip proto (\\udp or \\icmp)",
        "icmp6[0] = icmp6-destinationunreach",
        "ip[0] & 0xf != 5",
        "UDP PORT 53",
        "udp\n\tport 53",
        "(tcp port 80)&&(ip[2:2]-((ip[0]&0xf)<<2) != 0)",
    ],
)
def test_an_expression_of_addresses_and_numbers_is_let_through(text):
    check_expression(text)


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("host example", "'example'"),
        ("host example.com", "'example.com'"),
        ("host a", "'a'"),
        ("net localnet", "'localnet'"),
        ("gateway router-1", "'router-1'"),
        ("port myservice", "'myservice'"),
        ("host tcp.example.com", "'tcp.example.com'"),
        ("host 1.2.3.4.example", "'1.2.3.4.example'"),
        ("udp port 53 # comment", "'comment'"),
        ("host ex\u00e4mple", "\u00e4"),
        ("udp\x00", "\\x00"),
        # libpcap 1.10.3 asks DNS for every one of these.
        ("host domain", "'domain'"),
        ("domain", "'domain'"),
        ("port 80 or host 1.2.3.4 or https", "'https'"),
        ("host \\tcp", r"'\\tcp'"),
        ("net \\udp", r"'\\udp'"),
        ("host tcp-udp", "'tcp-udp'"),
        ("len-4 > 10", "'len-4'"),
        ("host 10-20", "'10-20'"),
        ("portrange 1-5 or host 1-5", "'1-5'"),
        ("host 00-1b.44-11.3a.b7", "'00-1b.44-11.3a.b7'"),
        ("host vxlan", "'vxlan'"),
        ("host _dmarc", "'_dmarc'"),
        ("udp\rport", "\\r"),
        ("x" * 1025, "1025"),
    ],
)
def test_names_and_odd_characters_are_refused_and_quoted(text, quoted):
    with pytest.raises(BadFilter) as caught:
        check_expression(text)
    assert quoted in str(caught.value)


@given(st.from_regex(r"\A[a-z][a-z0-9-]{0,20}(\.[a-z]{2,10}){1,3}\Z"))
def test_no_dotted_name_reaches_the_resolver(name):
    with pytest.raises(BadFilter):
        check_expression(f"host {name}")


_pieces = st.sampled_from(
    "host net port portrange src dst proto ether ip6 tcp udp domain https or and not ( ) ! && || 80"
    " 10-20 1.2.3.4 ::1 \\tcp \\\\tcp len-4 tcp-syn icmp6-echo 00-1b.44-11.3a.b7 00:1b:44:11:3a:b7"
    " tcp-udp mask gateway [0] = 0x10 1.2 vxlan geneve link carp esp atalk ra ta dir".split(" ")
)


def libpcap_says(text):
    try:
        compile_filter(text)
    except FilterError as error:
        return str(error)
    return ""


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(_pieces, st.sampled_from([" ", " ", " ", "", "-", "."])), max_size=8))
def test_libpcap_looks_up_no_name_in_what_passes(pieces):
    text = "".join(piece + space for piece, space in pieces)
    try:
        check_expression(text)
    except BadFilter:
        return
    said = libpcap_says(text)
    assert not any(kind in said for kind in ("unknown host", "unknown network", "unknown ether"))


@given(st.text(max_size=1200))
def test_any_text_is_checked_without_another_error(text):
    try:
        check_expression(text)
    except BadFilter:
        return
    assert len(text.encode()) <= MAX_FILTER_BYTES
    assert text.isascii()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["TCP", "udp", "SCTP", 6, 17, None]),
            st.lists(
                st.integers(0, 65535)
                | st.tuples(st.integers(0, 65535), st.integers(0, 65535)).map(
                    lambda pair: f"{min(pair)}:{max(pair)}"
                ),
                max_size=4,
            ),
        ),
        max_size=4,
    )
)
def test_what_rules_become_passes_the_check_of_expressions(rules):
    expression = expression_of_rules(rules)
    if len(expression) <= MAX_FILTER_BYTES:
        check_expression(expression)
