import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightcap.contract.orders import is_interface
from nightcap.contract.segments import (
    BadName,
    FileName,
    SegmentKey,
    StreamKey,
    parse_file_name,
    parse_segment_path,
)

_uids = st.from_regex(r"\A[0-9a-f]([0-9a-f-]{0,40}[0-9a-f])?\Z")
_namespaces = st.from_regex(r"\A[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
_pods = st.from_regex(r"\A[a-z0-9]([-a-z0-9.]{0,60}[a-z0-9])?\Z")
_interfaces = st.text(min_size=1, max_size=15).filter(is_interface)


@given(_namespaces, _uids, _uids, _interfaces, st.integers(0, 99_999_999))
def test_a_path_of_the_store_is_read_back(namespace, capture, pod, interface, seq):
    key = SegmentKey(StreamKey(namespace, capture, pod), interface, seq)
    assert parse_segment_path(key.path) == key
    assert ".." not in key.path.split("/")
    assert key.path.count("/") == 4


@given(_pods, _interfaces, st.integers(0, 2**60))
def test_a_files_name_is_read_back(pod, interface, first_us):
    name = FileName(pod, interface, first_us)
    assert parse_file_name(str(name)) == name
    assert "/" not in str(name)
    assert not str(name).startswith(".")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "..",
        "../web_eth0-1.pcap",
        "web_eth0-1.pcap/..",
        "web_eth0/../x-1.pcap",
        "web_%2e%2e-1.pcap",
        "web_..-1.pcap",
        ".web_eth0-1.pcap",
        "Web_eth0-1.pcap",
        "web_eth0-01.pcap",
        "web_eth0-1.pcapng",
        "web_eth0-.pcap",
        "web-1.pcap",
        "web_eth0-1.pcap\n",
        "web_%65th0-1.pcap",
        "web\0_eth0-1.pcap",
        "web_eth0-\uff11.pcap",
        "w" * 300 + "_eth0-1.pcap",
        "web_eth0-" + "1" * 500 + ".pcap",
    ],
)
def test_any_other_name_is_refused_and_never_cleaned(text):
    with pytest.raises(BadName):
        parse_file_name(text)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "shop/ab/cd/eth0",
        "shop/ab/cd/eth0/1.pcap",
        "shop/ab/cd/../00000001.pcap",
        "shop/ab/cd/%2e%2e/00000001.pcap",
        "../ab/cd/eth0/00000001.pcap",
        "shop/../cd/eth0/00000001.pcap",
        "shop/ab/cd/eth0/00000001.pcap/",
        "/shop/ab/cd/eth0/00000001.pcap",
        "shop/ab/cd/eth0/00000001.pcap\n",
        "shop/ab/cd/eth0/\uff10\uff10000001.pcap",
        "Shop/ab/cd/eth0/00000001.pcap",
    ],
)
def test_any_other_path_is_refused(path):
    with pytest.raises(BadName):
        parse_segment_path(path)


@pytest.mark.parametrize(
    ("namespace", "capture", "pod"),
    [("a/b", "ab", "cd"), ("..", "ab", "cd"), ("shop", "..", "cd"), ("shop", "ab", "")],
)
def test_a_stream_is_never_made_of_what_is_no_name(namespace, capture, pod):
    with pytest.raises(BadName):
        StreamKey(namespace, capture, pod)


@given(st.text(max_size=60))
def test_whatever_text_nothing_but_a_bad_name_comes_of_it(text):
    for parse in (parse_file_name, parse_segment_path):
        try:
            parse(text)
        except BadName:
            continue
